"""What the coordinator and the workers say, on the wire: the same there and back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocol.test_manifest import (
    MARKS,
    NAMES,
    NUMBERS,
    PARTITIONS,
    PARTS,
    PLACES,
    assignments,
)

from wallaroo.errors import Failure
from wallaroo.partitioning import INTERVAL, Assignment, Piece
from wallaroo.protocol import messages
from wallaroo.protocol.manifest import Part
from wallaroo.protocol.messages import (
    Abort,
    Broken,
    Checkpoint,
    Checkpointed,
    Commit,
    ConnectionsClosed,
    Copy,
    Drain,
    Drained,
    Enlist,
    Enlisted,
    Failed,
    Finish,
    FromWorker,
    Halt,
    Inject,
    Prepared,
    Published,
    Ready,
    Recover,
    Refuse,
    Register,
    Resume,
    Staged,
    ToWorker,
)
from wallaroo.runtime.messages import (
    assignment_from,
    assignment_message,
    from_worker,
    from_worker_message,
    part_from,
    part_message,
    to_worker,
    to_worker_message,
)
from wallaroo.v1 import control_pb2 as pb

WORKERS = st.integers(0, (1 << 32) - 1)
ADDRESSES = st.dictionaries(WORKERS, NAMES, max_size=3)
ATTEMPTS = st.integers(0, (1 << 32) - 1)
SECONDS = st.floats(0, 1e6)
FAILURES = st.builds(Failure, NAMES, WORKERS, NAMES, NAMES, NAMES, NAMES)
FROM_WORKER: dict[type, st.SearchStrategy[FromWorker]] = {
    Register: st.builds(Register, NAMES, NAMES, NAMES, st.booleans()),
    Ready: st.builds(Ready, NUMBERS),
    Drained: st.builds(Drained, NUMBERS),
    Prepared: st.builds(Prepared, NUMBERS, NUMBERS, PARTS, SECONDS),
    Published: st.builds(Published, NUMBERS, NUMBERS),
    Broken: st.builds(Broken, NUMBERS, WORKERS, ATTEMPTS),
    Enlisted: st.builds(Enlisted, NUMBERS, ATTEMPTS, st.booleans()),
    ConnectionsClosed: st.builds(ConnectionsClosed, NUMBERS, ATTEMPTS, NUMBERS),
    Staged: st.builds(Staged, NUMBERS, ATTEMPTS, st.integers(-1, 1 << 62), NUMBERS, NUMBERS),
    Failed: st.builds(Failed, FAILURES),
    Checkpoint: st.just(Checkpoint()),
}
TO_WORKER: dict[type, st.SearchStrategy[ToWorker]] = {
    Refuse: st.builds(Refuse, NAMES),
    Halt: st.just(Halt()),
    Recover: st.builds(
        Recover,
        NUMBERS,
        NUMBERS,
        assignments(),
        ADDRESSES,
        PLACES,
        PARTITIONS,
        st.none() | PARTS,
        NUMBERS,
    ),
    Resume: st.builds(Resume, NUMBERS),
    Enlist: st.builds(
        Enlist,
        NUMBERS,
        ATTEMPTS,
        NUMBERS,
        assignments(),
        assignments(),
        ADDRESSES,
        PLACES,
        PARTITIONS,
        MARKS,
    ),
    Copy: st.builds(Copy, NUMBERS, ATTEMPTS),
    Drain: st.builds(Drain, NUMBERS, ATTEMPTS, SECONDS, SECONDS),
    Abort: st.builds(Abort, NUMBERS, ATTEMPTS),
    Inject: st.builds(Inject, NUMBERS, NUMBERS, st.booleans(), ATTEMPTS),
    Commit: st.builds(Commit, NUMBERS, NUMBERS),
    Finish: st.builds(Finish, st.booleans()),
    Checkpointed: st.just(Checkpointed()),
}


def test_every_message_of_the_protocol_is_tried_here() -> None:
    assert set(FROM_WORKER) == set(messages.FromWorker.__args__)
    assert set(TO_WORKER) == set(messages.ToWorker.__args__)


@pytest.mark.parametrize("kind", FROM_WORKER, ids=lambda kind: str(kind.__name__))
def test_what_a_worker_says_is_heard_as_it_was_said(kind: type) -> None:
    @given(FROM_WORKER[kind])
    def check(message: FromWorker) -> None:
        wire = from_worker_message(message).SerializeToString()
        assert from_worker(pb.FromWorker.FromString(wire)) == message

    check()


@pytest.mark.parametrize("kind", TO_WORKER, ids=lambda kind: str(kind.__name__))
def test_what_the_coordinator_says_is_heard_as_it_was_said(kind: type) -> None:
    @given(TO_WORKER[kind])
    def check(message: ToWorker) -> None:
        wire = to_worker_message(message).SerializeToString()
        assert to_worker(pb.ToWorker.FromString(wire)) == message

    check()


@given(assignments())
def test_an_assignment_comes_back_with_its_last_end(assignment: Assignment) -> None:
    wire = assignment_message(assignment).SerializeToString()
    assert assignment_from(pb.Assignment.FromString(wire)) == assignment


def test_a_part_with_nothing_in_it_is_not_no_part() -> None:
    empty = Part("")
    assert part_from(part_message(empty)) == empty
    whole = Assignment(1, (Piece(0, INTERVAL, 0),))
    heard = to_worker(to_worker_message(Recover(1, 0, whole, {}, {}, {}, empty)))
    assert isinstance(heard, Recover)
    assert heard.part == empty


@pytest.mark.parametrize(
    "message", [pb.FromWorker(), pb.FromWorker(heartbeat={}), pb.FromWorker(report={"keys": 1})]
)
def test_a_sign_of_life_and_a_report_are_nothing_of_the_protocol(message: pb.FromWorker) -> None:
    assert from_worker(message) is None


def test_what_the_coordinator_says_in_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="what this version of Wallaroo does not know"):
        to_worker(pb.ToWorker(generation=3))


def _gap() -> Any:
    return pb.Assignment(version=1, pieces=[pb.Piece(start=5, end=9, worker=0)])


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda: to_worker(pb.ToWorker(recover=pb.Recover(assignment=_gap()))), "gap or overlap"),
        (lambda: to_worker(pb.ToWorker(recover=pb.Recover())), "ends at"),
        (
            lambda: from_worker(
                pb.FromWorker(prepared=pb.Prepared(part=pb.Part(sinks=["{no JSON"])))
            ),
            "Expecting property name",
        ),
    ],
)
def test_what_nobody_would_say_is_refused(what: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        what()
