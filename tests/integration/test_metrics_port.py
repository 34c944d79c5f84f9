"""`wallaroo run --metrics-port`: what Prometheus would see of a run."""

import os
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import sequences
from processes import Run, cli, until
from prometheus_client.parser import text_string_to_metric_families

FAST = ["--checkpoint-interval", "50ms"]


def free_ports(count: int) -> int:
    """The first of so many in a row that nothing listens on."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as server:
            first = int(server.getsockname()[1])
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first


def scrape(port: int) -> dict[str, float]:
    """By name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return {
        " ".join([each.name, *each.labels.values()]): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def test_each_worker_tells_of_itself_and_worker_0_of_the_application(
    write_app: Callable[..., Path], start: Callable[..., Run], tmp_path: Path
) -> None:
    port = free_ports(3)
    out = tmp_path / "out.txt"
    options = [*FAST, "--metrics-port", port]
    run = start(write_app(sequences.APP), "endless:5000", out, workers=2, options=options)
    run.until_committed(4)
    found = until(lambda: scrape(port) if scrape(port)["wallaroo_keys"] else {})
    assert found["wallaroo_events_received_total"] > 0
    assert found["wallaroo_busy_seconds_total"] > 0
    assert 0 < found["wallaroo_busy_ratio"] < 1
    assert found["wallaroo_state_bytes deltas"] + found["wallaroo_state_bytes base"] > 0
    assert found["wallaroo_epoch_seconds_count"] >= 4
    assert 0 <= found["wallaroo_commit_age_seconds"] < 10
    assert found["wallaroo_members"] == 2
    other = scrape(port + 1)
    assert other["wallaroo_events_read_total"] > 0
    assert "wallaroo_epoch" not in other

    before = scrape(port)
    os.kill(run.pids()[1], signal.SIGKILL)
    until(lambda: scrape(port)["wallaroo_recoveries_total"] == 1)
    names = ("wallaroo_events_received_total", "wallaroo_events_written_total")
    after = scrape(port)
    assert all(after[name] >= before[name] for name in names), "a counter does not go back"

    run.scale(3)
    found = scrape(port)
    assert found["wallaroo_rescales_total committed"] == 1
    assert found["wallaroo_rescale_phase_seconds_count switch"] == 1
    until(lambda: scrape(port + 2)["wallaroo_keys"])
    sequences.enough(out)
    run.succeed()
    sequences.check_endless(out)


def test_a_port_in_use_is_refused_with_words(
    write_app: Callable[..., Path], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        app = write_app(sequences.APP)
        options = ["--metrics-port", str(port), "--dir", str(tmp_path / "dir")]
        done = cli("run", *options, str(app), "endless:5000", str(tmp_path / "out.txt"))
    assert done.returncode == 1
    assert f"can't serve metrics on 127.0.0.1:{port}: Address already in use" in done.stderr
