"""What is done for the number of workers that is asked for, by what the coordinator says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wallaroo.partitioning import Assignment
from wallaroo.partitioning.rewrite import rewrite
from wallaroo.runtime import scaler as scaler_module
from wallaroo.runtime.client import Unreachable
from wallaroo.runtime.directory import Directory
from wallaroo.runtime.scaler import Scaler


class Asked:
    """A client that keeps what was asked for."""

    def __init__(self) -> None:
        self.rescales: list[tuple[int, Assignment]] = []
        self.unreachable = False

    def rescale(self, base: int, assignment: Assignment) -> str:
        if self.unreachable:
            raise Unreachable("gone")
        self.rescales.append((base, assignment))
        return ""


def record(attempt: str, to: int, outcome: str, why: str = "", before: int = 2) -> dict[str, Any]:
    return {"attempt": attempt, "from": before, "to": to, "outcome": outcome, "why": why}


class Run:
    """A run of `members` for whom a scaler looks, second by second."""

    def __init__(self, folder: Path, members: int = 2, target: int | None = None) -> None:
        self.directory = Directory(folder)
        self.now = 100.0
        self.assignment = Assignment.first(members)
        self.status: dict[str, Any] = {
            "phase": "running",
            "stop_requested": False,
            "leaving": [],
            "joiners": [],
            "rescale": None,
            "rescales": [],
        }
        self.client = Asked()
        self.told: list[str] = []
        self.scaler = Scaler(self.directory)
        self.scaler.begin(list(range(members)), target)

    def look(self, **changes: Any) -> list[tuple[int, Assignment]]:
        """What is asked for at this look."""
        self.status |= changes
        members = self.status.get("members", list(self.assignment.workers))
        pieces = [
            {"start": piece.start, "end": piece.end, "worker": piece.worker}
            for piece in self.assignment.pieces
        ]
        status = {
            **self.status,
            "members": members,
            "version": self.assignment.version,
            "assignment": pieces,
        }
        before = len(self.client.rescales)
        self.scaler.look(status, self.client, self.told.append)  # type: ignore[arg-type]
        return self.client.rescales[before:]

    def ask(self, target: int) -> None:
        """Somebody asks for a number of workers."""
        self.directory.write_target(target)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run(tmp_path)
    monkeypatch.setattr(scaler_module, "time", SimpleNamespace(monotonic=lambda: run.now))
    return run


class TestUp:
    def test_workers_are_started_first_and_then_asked_for(self, run: Run) -> None:
        run.ask(4)
        assert run.look() == []
        assert run.scaler.needed == {0, 1, 2, 3}
        assert run.look(joiners=[2]) == [], "one is still to come"
        new = rewrite(run.assignment, range(4))
        assert run.look(joiners=[2, 3]) == [(1, new)]

    def test_it_is_asked_for_again_as_long_as_it_has_not_come(self, run: Run) -> None:
        """To ask for what is under way changes nothing: no answer has to be remembered."""
        run.ask(3)
        first = run.look(joiners=[2])
        assert run.look(rescale={"to": 3}) == first

    def test_it_is_done_when_the_members_are_as_many(self, run: Run) -> None:
        run.ask(3)
        run.look(joiners=[2])
        assert run.scaler.busy
        run.assignment = rewrite(run.assignment, range(3))
        assert run.look(joiners=[]) == []
        assert not run.scaler.busy
        assert run.scaler.needed == {0, 1, 2}
        assert run.scaler.members == {0, 1, 2}

    def test_a_target_of_the_command_line_is_brought_about(self, tmp_path: Path) -> None:
        run = Run(tmp_path, members=2, target=3)
        run.look()
        assert run.scaler.needed == {0, 1, 2}
        assert run.directory.target() == 3

    def test_without_one_it_stays_as_it_was(self, run: Run) -> None:
        assert run.look() == []
        assert not run.scaler.busy
        assert run.directory.target() == 2

    def test_a_coordinator_that_does_not_answer_is_asked_at_the_next_look(self, run: Run) -> None:
        run.ask(3)
        run.client.unreachable = True
        assert run.look(joiners=[2]) == []
        run.client.unreachable = False
        assert len(run.look()) == 1


class TestDown:
    def test_it_is_asked_for_while_all_are_there(self, run: Run) -> None:
        run.ask(1)
        assert run.look() == [(1, rewrite(run.assignment, [0]))]
        assert run.scaler.needed == {0, 1}, "workers last"

    def test_one_that_leaves_runs_until_it_holds_nothing(self, run: Run) -> None:
        """Ruling 29 of docs/protocol.md."""
        run.ask(1)
        run.look()
        run.assignment = rewrite(run.assignment, [0])
        run.look(leaving=[1])
        assert run.scaler.needed == {0, 1}
        assert run.scaler.gone == set()
        run.look(leaving=[])
        assert run.scaler.needed == {0}
        assert run.scaler.gone == {1}

    def test_one_that_is_asked_for_again_is_waited_for_until_it_has_gone(self, run: Run) -> None:
        run.ask(1)
        run.look()
        run.assignment = rewrite(run.assignment, [0])
        run.ask(2)
        assert run.look(leaving=[1], joiners=[]) == []
        assert run.scaler.gone == set(), "its directory is not to go"
        assert run.look(leaving=[], joiners=[]) == []
        assert run.scaler.needed == {0, 1}
        assert len(run.look(joiners=[1])) == 1

    def test_workers_that_left_when_the_last_run_ended_are_gone(self, tmp_path: Path) -> None:
        for worker in range(3):
            Directory(tmp_path).worker(worker).mkdir(parents=True)
        run = Run(tmp_path, members=2)
        run.look()
        assert run.scaler.gone == {2}


class TestAnotherTarget:
    def test_takes_the_place_of_the_one_before(self, run: Run) -> None:
        run.ask(3)
        run.look(joiners=[2])
        run.ask(4)
        assert run.look(rescale={"to": 3}) == []
        assert run.scaler.needed == {0, 1, 2, 3}
        assert run.look(joiners=[2, 3]) == [(1, rewrite(run.assignment, range(4)))]

    def test_of_as_many_as_there_are_calls_off_what_is_under_way(self, run: Run) -> None:
        run.ask(3)
        run.look(joiners=[2])
        run.ask(2)
        assert run.look(rescale={"to": 3}) == [(1, run.assignment)]
        assert run.look(rescale=None) == [], "there is nothing to call off"
        assert run.scaler.unwanted == {2}

    def test_lets_go_of_workers_that_are_not_to_join_any_more(self, run: Run) -> None:
        run.ask(5)
        run.look()
        run.ask(3)
        run.look(joiners=[2, 3, 4])
        assert run.scaler.unwanted == {3, 4}
        assert run.scaler.needed == {0, 1, 2}

    def test_starts_afresh_after_failures(self, run: Run) -> None:
        run.ask(3)
        run.look(joiners=[2])
        run.look(rescales=[record("1-1", 3, "aborted", "no")])
        assert run.look() == []
        run.ask(4)
        run.look()
        assert run.scaler.needed == {0, 1, 2, 3}

    def test_that_can_not_be_read_is_the_one_before(self, run: Run) -> None:
        run.ask(3)
        run.look()
        (run.directory.path / "target.json").write_text("{damaged")
        assert len(run.look(joiners=[2])) == 1


class TestWhileASwitchIsUnderWay:
    """The coordinator may make it durable at any moment: who was to join is a member then."""

    @staticmethod
    def switching(run: Run) -> dict[str, Any]:
        """Worker 2 was a member before, has left, and comes back; then 2 workers are asked for."""
        run.ask(3)
        run.look(joiners=[2])
        run.assignment = rewrite(run.assignment, range(3))
        run.ask(2)
        run.look(joiners=[])
        run.assignment = rewrite(run.assignment, range(2))
        run.ask(3)
        run.look(joiners=[2])
        run.ask(2)
        return {"from": 2, "to": 3, "phase": "switch"}

    def test_one_that_joins_is_not_let_go_of(self, run: Run) -> None:
        run.look(joiners=[2], rescale=self.switching(run))
        assert run.scaler.unwanted == set()

    def test_its_directory_does_not_go(self, run: Run) -> None:
        """Else its keys are lost: their donors give them up with the commit."""
        run.look(phase="forming", joiners=[], rescale=self.switching(run))
        assert run.scaler.gone == set()


class TestTryingAgain:
    """Ruling 25 of docs/protocol.md: what is tried again is the number."""

    def test_waits_a_while_and_rewrites_anew(self, run: Run) -> None:
        run.ask(3)
        run.look(joiners=[2])
        run.assignment = Assignment(7, run.assignment.pieces)
        assert run.look(rescales=[record("1-1", 3, "aborted", "worker 2 went away")]) == []
        run.now += 0.9
        assert run.look() == []
        run.now += 0.2
        assert run.look() == [(7, rewrite(run.assignment, range(3)))]
        assert run.told == ["the rescale to 3 workers was given up: worker 2 went away"]

    def test_waits_twice_as_long_each_time_up_to_the_longest(self, run: Run) -> None:
        run.ask(3)
        run.look(joiners=[2])
        waits = []
        for attempt in range(1, 12):
            run.look(rescales=[record(f"1-{attempt}", 3, "aborted", "no")])
            began = run.now
            while not run.look():
                run.now += 0.5
            waits.append(run.now - began)
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]

    def test_a_worker_that_fails_to_join_counts_too(self, run: Run) -> None:
        run.ask(3)
        run.look()
        run.scaler.failed("worker 2 stopped: its disk is full", run.told.append)
        run.look()
        assert run.scaler.needed == {0, 1}, "it is started again later"
        run.now += 1.1
        run.look()
        assert run.scaler.needed == {0, 1, 2}
        assert run.told == ["worker 2 stopped: its disk is full; the rescale is tried again"]

    def test_a_rescale_that_commits_ends_the_waiting(self, run: Run) -> None:
        run.ask(3)
        run.look(joiners=[2], rescales=[record("1-1", 3, "aborted", "no")])
        run.now += 2
        run.look()
        run.assignment = rewrite(run.assignment, range(3))
        run.look(joiners=[], rescales=[record("1-2", 3, "committed")])
        assert run.told[-1] == "rescaled from 2 to 3 workers"
        run.ask(4)
        assert len(run.look(joiners=[3])) == 1

    def test_each_attempt_is_told_of_once(self, run: Run) -> None:
        run.ask(3)
        for _ in range(3):
            run.look(rescales=[record("1-1", 3, "aborted", "no")])
        assert len(run.told) == 1

    def test_one_that_somebody_called_off_is_no_failure(self, run: Run) -> None:
        run.ask(3)
        run.look(joiners=[2])
        run.ask(2)
        run.look(rescale={"to": 3})
        run.look(rescale=None, rescales=[record("1-1", 3, "aborted", "it was called off")])
        assert run.told == []
        run.ask(3)
        assert len(run.look()) == 1

    def test_what_an_earlier_run_did_is_not_told_again(self, tmp_path: Path) -> None:
        run = Run(tmp_path, members=3)
        before = record("1-1", 3, "committed")
        run.scaler.told = {"1-1"}
        run.look(rescales=[before])
        assert run.told == []
        run.look(rescales=[before, record("2-1", 3, "committed")])
        assert run.told == ["rescaled from 2 to 3 workers"]

    def test_one_that_is_forgotten_does_not_bring_back_the_one_before(self, run: Run) -> None:
        """Worker 0 forgets attempts that came to nothing when it starts again."""
        run.ask(3)
        done = record("1-1", 3, "committed")
        run.look(rescales=[done])
        run.look(rescales=[done, record("1-2", 2, "aborted", "no")])
        run.look(rescales=[done])
        assert run.told == ["rescaled from 2 to 3 workers"]


class TestWhenNotRunning:
    @pytest.mark.parametrize("phase", ["forming", "recovering"])
    def test_workers_are_started_and_nothing_is_asked_for(self, run: Run, phase: str) -> None:
        run.ask(3)
        assert run.look(phase=phase, joiners=[2]) == []
        assert run.scaler.needed == {0, 1, 2}

    @pytest.mark.parametrize("phase", ["stopping", "ended", "failed"])
    def test_nothing_changes_when_it_is_about_to_end(self, run: Run, phase: str) -> None:
        run.look()
        run.ask(4)
        assert run.look(phase=phase) == []
        assert run.scaler.needed == {0, 1}
        assert run.scaler.gone == run.scaler.unwanted == set()

    def test_nothing_is_asked_for_once_a_stop_is(self, run: Run) -> None:
        run.ask(3)
        assert run.look(joiners=[2], stop_requested=True) == []


@pytest.mark.parametrize("workers", ["99999", "0", '"x"', "null"])
def test_a_target_that_is_no_number_of_workers_changes_nothing(
    workers: str, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    (tmp_path / "target.json").write_text(f'{{"workers": {workers}}}')
    run.look()
    assert run.scaler.needed == {0, 1}
