"""Between the values that the program thinks in and the messages of the wire."""

from dataclasses import asdict
from typing import Any

from wallaroo.errors import Failure
from wallaroo.partitioning import INTERVAL, Assignment, Piece
from wallaroo.v1 import control_pb2


def assignment_message(assignment: Assignment) -> control_pb2.Assignment:
    """An assignment for the wire, where an end of 0 stands for 2^64."""
    return control_pb2.Assignment(
        version=assignment.version,
        pieces=[
            control_pb2.Piece(start=piece.start, end=piece.end % INTERVAL, worker=piece.worker)
            for piece in assignment.pieces
        ],
    )


def assignment_from(message: control_pb2.Assignment) -> Assignment:
    """An assignment from the wire. Raises ValueError if it does not cover the interval."""
    return Assignment(
        message.version,
        tuple(Piece(piece.start, piece.end or INTERVAL, piece.worker) for piece in message.pieces),
    )


def failure_message(failure: Failure) -> control_pb2.Failure:
    """A failure for the wire."""
    return control_pb2.Failure(
        worker=failure.worker or 0,
        step=failure.step,
        key=failure.key,
        event=failure.event,
        message=failure.message,
        traceback=failure.traceback,
    )


def failure_from(message: control_pb2.Failure) -> Failure:
    """A failure from the wire."""
    return Failure(
        message.message,
        worker=message.worker,
        step=message.step,
        key=message.key,
        event=message.event,
        traceback=message.traceback,
    )


def status_dict(status: control_pb2.StatusReply) -> dict[str, Any]:
    """What `wallaroo status --json` prints."""
    assignment = status.assignment
    return {
        "application": status.application,
        "phase": status.phase,
        "stop_requested": status.stop_requested,
        "generation": status.generation,
        "epoch": status.epoch,
        "members": sorted({piece.worker for piece in assignment.pieces}),
        "version": assignment.version,
        "assignment": [
            {"start": piece.start, "end": piece.end or INTERVAL, "worker": piece.worker}
            for piece in assignment.pieces
        ],
        "workers": [
            {
                "worker": each.worker,
                "pid": each.pid,
                "keys": each.report.keys,
                "events": each.report.read + each.report.received,
                "read": each.report.read,
                "received": each.report.received,
                "written": each.report.written,
                "waiting": list(each.report.waiting),
            }
            for each in status.workers
        ],
        "error": asdict(failure_from(status.failure)) if status.HasField("failure") else None,
    }
