"""Workers as pods: real processes, each with an address of its own.

"Ruling K8s" are those of docs/kubernetes.md.
"""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sequences
from pods import Pods
from processes import WALLAROO, until
from tests.unit.runtime.authority import Authority

FAST = ["--checkpoint-interval", "50ms"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.txt"


@pytest.fixture
def app(write_app: Callable[..., Path]) -> Path:
    return write_app(sequences.APP)


@pytest.fixture
def pods(tmp_path: Path, app: Path, out: Path) -> Iterator[Pods]:
    made = Pods(tmp_path, app, ["endless:3000", str(out)], FAST)
    yield made
    made.kill()


def finish(pods: Pods, out: Path) -> int:
    """Let the endless source end; then all that it gave must be there, once: returns how much."""
    sequences.enough(out)
    pods.until(lambda found: found["phase"] == "ended", "it does not end")
    return sequences.check_endless(out)


def test_nothing_begins_until_it_is_told_then_it_processes_and_ends_idle(
    pods: Pods, out: Path
) -> None:
    """Rulings K8s 2, 8 and 10."""
    pods.start(0, 1)
    pods.until_vacant(2)
    found = pods.status()
    assert (found["vacant"], found["phase"], found["members"]) == (True, "vacant", [])
    assert found["application_id"] == "first"
    assert pods.pods[1].get("/livez")[0] == 200
    assert "no member" in pods.pods[1].get("/readyz")[1]
    assert pods.begin(2) == ""
    found = pods.until_running(2)
    until(lambda: pods.pods[0].ready and pods.pods[1].ready)
    assert {each["pod"] for each in found["workers"]} == {"app-0", "app-1"}
    assert len({each["fingerprint"] for each in found["workers"]}) == 1
    assert "begun already" in pods.begin(2)
    found = pods.until_committed()
    assert time.time() - 60 < found["committed_at"] <= time.time()
    pods.until(lambda f: all(each["processing"] for each in f["workers"]), "one does nothing")
    assert "wallaroo_refused_connections 0.0" in pods.pods[0].get("/metrics")[1]
    count = finish(pods, out)
    time.sleep(0.5)
    found = pods.status()
    assert found["phase"] == "ended", "the coordinator answers on"
    assert sum(each["read"] for each in found["workers"]) == count
    assert sum(each["keys"] for each in found["workers"]) == sequences.KEYS + sequences.BUCKETS
    assert not pods.pods[1].ready
    assert all(pod.process.poll() is None for pod in pods.pods.values())
    pods.terminate(0, 1)


def test_a_joiner_that_starts_later_takes_part_and_a_released_one_idles(
    pods: Pods, out: Path
) -> None:
    """Rulings K8s 1 and 8: a released process never rejoins, nor does what its volume holds."""
    pods.begun(2)
    pods.start(2)
    pods.until(lambda found: found["joiners"] == [2], "it does not come")
    assert not pods.pods[2].ready, "a joiner is not ready (ruling K8s 10)"
    pods.rescale(3)
    until(lambda: pods.pods[2].ready)
    pods.until_committed()
    pods.rescale(2)
    found = pods.until(lambda f: f["members"] == [0, 1] and not f["leaving"], "it does not leave")
    until(lambda: "released" in pods.pods[2].get("/readyz")[1])
    time.sleep(0.5)
    assert pods.status()["joiners"] == []
    assert not found["recoveries"]
    pods.terminate(2)
    # Its volume stays: when it comes back, what is on it does not count.
    pods.start(2)
    pods.until(lambda f: f["joiners"] == [2], "it does not come back")
    pods.rescale(3)
    finish(pods, out)


def test_a_pod_that_is_told_to_end_has_a_checkpoint_taken_first(pods: Pods, out: Path) -> None:
    """Ruling K8s 11."""
    pods.options = ["--checkpoint-interval", "0"]
    pods.begun(2)
    assert pods.status()["epoch"] == 0
    pods.terminate(1)
    found = pods.status()
    assert found["epoch"] == 1
    pods.start(1)
    pods.until_running(2)
    # All at once, as for a rollout: they share one.
    began = time.monotonic()
    pods.terminate(0, 1)
    assert time.monotonic() - began < 10
    pods.start(0, 1)
    assert pods.until_running(2)["epoch"] >= 2
    finish(pods, out)


def test_pods_that_are_killed_come_back_and_nothing_is_lost(pods: Pods, out: Path) -> None:
    pods.begun(3)
    for victims in ([1], [0], [2, 0], [0, 1, 2]):
        generation = pods.until_committed()["generation"]
        for worker in victims:
            pods.pods[worker].signal(signal.SIGKILL)
        for worker in victims:
            pods.pods[worker].wait()
        pods.start(*victims)
        pods.until(
            lambda f, g=generation: f["generation"] > g and f["phase"] == "running",  # type: ignore[misc]
            "it does not recover",
        )
    finish(pods, out)


def test_who_lives_through_a_recovery_stays_ready(pods: Pods, out: Path) -> None:
    """Ruling K8s 10."""
    pods.begun(3)
    until(lambda: all(pod.ready for pod in pods.pods.values()))
    generation = pods.until_committed()["generation"]
    pods.pods[1].signal(signal.SIGKILL)
    pods.pods[1].wait()
    pods.start(1)
    others = [pods.pods[0], pods.pods[2]]
    answers: set[tuple[int, str]] = set()

    def recovered(found: dict[str, Any]) -> bool:
        answers.update(pod.get("/readyz") for pod in others)
        return bool(found["generation"] > generation and found["phase"] == "running")

    pods.until(recovered, "it does not recover")
    assert answers == {(200, "ready\n")}
    until(lambda: pods.pods[1].ready)
    finish(pods, out)


def test_a_function_that_takes_its_time_holds_up_no_probe(pods: Pods, app: Path, out: Path) -> None:
    """Ruling K8s 10: liveness has threads of its own."""
    slow = """    state.count += 1
    if number == 500:
        open("held", "w").close()
        while not os.path.exists("go on"):
            time.sleep(0.01)
"""
    app.write_text(app.read_text().replace("    state.count += 1\n", slow, 1))
    pods.begun(1)
    until((pods.folder / "held").exists)
    epoch = pods.status()["epoch"]
    for _ in range(20):
        assert pods.pods[0].get("/livez")[0] == 200
        assert pods.pods[0].ready
    assert pods.status()["epoch"] <= epoch + 1, "it is held up"
    (pods.folder / "go on").touch()
    finish(pods, out)


def test_a_stop_keeps_the_pods_idle_and_started_again_they_go_on(pods: Pods, out: Path) -> None:
    """Ruling K8s 8."""
    pods.begun(2)
    pods.until_committed()
    pods.stop()
    found = pods.until(lambda f: f["phase"] == "ended", "it does not stop")
    assert found["stop_requested"]
    until(lambda: not pods.pods[1].ready)
    time.sleep(0.5)
    assert all(pod.process.poll() is None for pod in pods.pods.values())
    pods.terminate(0, 1)
    pods.start(0, 1)
    assert pods.until_running(2)["epoch"] >= found["epoch"]
    finish(pods, out)


def test_when_worker_0_alone_is_replaced_after_a_stop_all_go_on(pods: Pods, out: Path) -> None:
    pods.begun(2)
    pods.stop()
    pods.until(lambda f: f["phase"] == "ended", "it does not stop")
    pods.terminate(0)
    pods.start(0)
    pods.until_running(2)
    until(lambda: pods.pods[1].ready)
    finish(pods, out)


def test_a_member_whose_volume_is_wiped_is_lost_until_that_is_accepted(
    pods: Pods, out: Path
) -> None:
    """Rulings K8s 1 and 2: never silently from zero."""
    pods.begun(2)
    pods.until_committed()
    pods.terminate(1)
    shutil.rmtree(pods.volume(1))
    pods.start(1)
    found = pods.until(lambda f: f["lost"], "nobody is missed")
    assert (found["lost"], found["phase"]) == ([1], "forming")
    assert not pods.pods[1].ready
    assert "not of epoch" in pods.begin(0, accept_loss=True, epoch=found["epoch"] + 1)
    assert pods.status()["lost"] == [1]
    assert pods.begin(0, accept_loss=True, epoch=found["epoch"]) == ""
    assert pods.until_running(2)["lost"] == []
    pods.until_committed(3)
    pods.pods[1].signal(signal.SIGKILL)
    pods.pods[1].wait()
    pods.start(1)
    pods.until_committed(3)


def test_when_worker_0s_volume_is_wiped_it_is_vacant_and_begins_only_when_told(
    pods: Pods,
) -> None:
    """Ruling K8s 2."""
    pods.begun(2)
    pods.until_committed()
    pods.terminate(0)
    shutil.rmtree(pods.volume(0))
    pods.start(0)
    pods.until_vacant(2)
    assert pods.status()["vacant"]
    assert "worker 1 holds state" in pods.begin(2)
    assert pods.begin(2, accept_loss=True) == ""
    pods.until_running(2)
    pods.until_committed()


def test_a_volume_of_another_worker_is_not_taken_for_its_own(pods: Pods) -> None:
    """Ruling K8s 1."""
    pods.begun(3)
    pods.until_committed()
    pods.terminate(0, 1, 2)
    one = pods.volume(1) / "workers" / "1"
    shutil.rmtree(one)
    shutil.copytree(pods.volume(2) / "workers" / "2", one)
    pods.start(0, 1, 2)
    assert pods.until(lambda f: f["lost"], "nobody is missed")["lost"] == [1]


def test_one_of_another_program_is_refused_by_name_until_it_is_replaced(
    pods: Pods, app: Path, out: Path
) -> None:
    """Ruling K8s 18."""
    pods.begun(2)
    pods.terminate(1)
    text = app.read_text()
    app.write_text(text + "\n# changed\n")
    pods.start(1)
    until(lambda: "worker 1 runs another program than worker 0" in pods.pods[1].get("/readyz")[1])
    assert pods.pods[1].process.poll() is None
    prints = {each["fingerprint"] for each in pods.status()["workers"]}
    assert len(prints) == 2
    pods.terminate(1)
    app.write_text(text)
    pods.start(1)
    pods.until_running(2)
    finish(pods, out)


def test_a_users_error_leaves_all_pods_idle(pods: Pods, app: Path) -> None:
    """Ruling K8s 8."""
    app.write_text(
        app.read_text().replace(
            "    state.count += 1\n    state.last",
            "    assert number < 500, 'no more'\n    state.count += 1\n    state.last",
        )
    )
    pods.begun(2)
    found = pods.until(lambda f: f["phase"] == "failed", "it does not fail")
    assert "no more" in found["error"]["message"]
    time.sleep(6)
    assert all(pod.process.poll() is None for pod in pods.pods.values())
    assert pods.pods[0].get("/livez")[0] == 200
    assert not pods.pods[0].ready
    pods.terminate(0, 1)


def test_a_successor_elsewhere_waits_until_its_predecessor_is_gone(pods: Pods, out: Path) -> None:
    """Rulings K8s 7 and 9: the directory is locked before it is read, and addresses change."""
    pods.begun(2)
    first = pods.pods[1]
    first.signal(signal.SIGSTOP)  # its node does not answer, and it is there
    pods.move(1)
    pods.start(1)
    until(lambda: "waits for its predecessor" in pods.pods[1].get("/readyz")[1])
    assert pods.pods[1].get("/livez")[0] == 200
    first.signal(signal.SIGKILL)
    first.wait()
    until(lambda: pods.pods[1].ready)
    pods.until_committed()
    finish(pods, out)


def test_with_certificates_strangers_are_refused_and_new_ones_need_no_restart(
    pods: Pods, out: Path, tmp_path: Path
) -> None:
    """Ruling K8s 24."""
    authority, new = Authority(), Authority("new")
    folder = authority.mount(tmp_path / "tls", new)
    pods.options += ["--tls", str(folder)]
    pods.credentials = authority.client
    pods.begun(2)
    pods.start(2)
    pods.rescale(3)
    first = {each["ca"] for each in pods.until_committed()["workers"]}
    assert len(first) == 1
    assert first != {""}
    pods.credentials = lambda: Authority().client(accepts=authority)
    assert pods.status() == {}
    pods.credentials = None
    assert pods.status() == {}
    new.mount(folder)
    pods.credentials = lambda: authority.client(accepts=new)
    until(lambda: not pods.status())
    pods.credentials = new.client
    pods.until(
        lambda f: {each["ca"] for each in f["workers"]}.isdisjoint(first), "one has the old ones"
    )
    assert not pods.status()["recoveries"]
    assert "wallaroo_refused_connections 0.0" not in pods.pods[0].get("/metrics")[1]
    pods.pods[1].signal(signal.SIGKILL)
    pods.pods[1].wait()
    pods.start(1)
    pods.until(lambda f: f["recoveries"] and f["phase"] == "running", "it does not recover")
    finish(pods, out)


def check(pods: Pods, *more: str) -> subprocess.CompletedProcess[str]:
    command = [WALLAROO, "pod", "--name", "app", "--check", "--dir", str(pods.volume(0)), *more]
    command += [str(pods.app), *pods.args]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_a_check_says_what_the_application_is(pods: Pods) -> None:
    """Ruling K8s 18."""
    done = check(pods)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sources"] == ["numbers"]
    assert len(found["fingerprint"]) == 64
    steps = [word for step in found["steps"] for word in ("--steps-of", step)]
    assert check(pods, *steps).returncode == 0
    done = check(pods, "--steps-of", "gone")
    assert done.returncode == 2
    assert "the checkpoint holds gone, which" in done.stderr.splitlines()[-1]


def test_output_on_the_volume_of_the_state_is_refused(pods: Pods) -> None:
    """Ruling K8s 6."""
    done = check(pods, "--on-error", "dead-letter", str(pods.volume(0) / "dead.txt"))
    assert done.returncode == 2
    assert "on the volume of one worker's state" in done.stderr
    pods.args[-1] = str(pods.volume(0) / "out.txt")
    pods.start(0)
    assert pods.pods[0].wait() == 2
    assert "on the volume of one worker's state" in pods.logs()
