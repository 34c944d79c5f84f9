"""The status as the schema has it: conditions in words, the assignment, rescales and counters."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wallaroo.partitioning import INTERVAL, Assignment
from wallaroo_operator.app import Json
from wallaroo_operator.names import digest
from wallaroo_operator.observed import Coordinator, timestamp

#: Above so many pieces only counts and shares are shown: an object must stay small.
MOST_PIECES = 500
#: What changes all the time, and is not worth a write of its own.
COUNTERS = ("keys", "events", "deadLetters", "checkpoint")
#: Characters of a message; a traceback may be long.
_LONGEST = 2000

_OUTCOMES = {"committed": "Committed"}


@dataclass(frozen=True)
class Condition:
    """One of Ready, Progressing, Rescaling and Degraded."""

    type: str
    status: str
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Event:
    """What is told once, when it has happened.

    once: what it is told once for.
    """

    type: str
    reason: str
    message: str
    once: str

    def name(self, application: str, uid: str) -> str:
        """Its object's name: the same if it is told again after a crash."""
        return (
            f"{application}.{digest([uid, self.type, self.reason, self.message, self.once])[:16]}"
        )


def merged(
    before: Sequence[Mapping[str, Any]], now: Sequence[Condition], generation: int, at: float
) -> list[Json]:
    """Conditions as the status has them; the time changes with the status alone."""
    old = {each["type"]: each for each in before}
    found = []
    for each in now:
        was = old.get(each.type, {})
        same = was.get("status") == each.status
        found.append(
            {
                "type": each.type,
                "status": each.status,
                "reason": each.reason,
                "message": each.message[:_LONGEST],
                "observedGeneration": generation,
                "lastTransitionTime": was["lastTransitionTime"] if same else timestamp(at),
            }
        )
    return found


def transitions(before: Sequence[Mapping[str, Any]], now: Sequence[Condition]) -> list[Event]:
    """What is to be told: conditions whose reason has changed."""
    old = {each["type"]: each for each in before}
    found = []
    for each in now:
        was = old.get(each.type, {})
        if was.get("reason") == each.reason and was.get("status") == each.status:
            continue
        quiet = each.reason in {"Idle", "AsAsked", "Complete"} and each.type != "Ready"
        if quiet or (each.type == "Degraded" and each.status == "False" and not was):
            continue
        bad = each.type == "Degraded" and each.status == "True"
        once = f"{each.type} {was.get('reason')} {was.get('lastTransitionTime')}"
        found.append(Event("Warning" if bad else "Normal", each.reason, each.message, once))
    # The same reason may stand in several conditions; it is told once, as what is worst.
    told: dict[str, Event] = {}
    for event in found:
        if event.reason not in told or event.type == "Warning":
            told[event.reason] = event
    return list(told.values())


def assignment_status(assignment: Assignment) -> Json:
    """Who owns what."""
    found: Json = {"version": assignment.version}
    if len(assignment.pieces) <= MOST_PIECES:
        found["pieces"] = [
            {
                "start": f"{piece.start:016x}",
                "end": f"{piece.end % INTERVAL:016x}",
                "worker": piece.worker,
            }
            for piece in assignment.pieces
        ]
    else:
        pieces = Counter(piece.worker for piece in assignment.pieces)
        found["shares"] = [
            {
                "worker": worker,
                "pieces": pieces[worker],
                "share": f"{assignment.share(worker) / INTERVAL:.6f}",
            }
            for worker in assignment.workers
        ]
    return found


def rescale_status(record: Mapping[str, Any]) -> Json:
    """A rescale, under way or over."""
    found: Json = {
        "attempt": record["attempt"],
        "from": record["from"],
        "to": record["to"],
        "moved": f"{record['moved']:.4f}",
        "minimum": f"{record['minimum']:.4f}",
    }
    if record.get("phase"):  # what changes all the time would be written all the time
        return {**found, "phase": record["phase"].title().replace(" ", "")}  # such as CatchUp
    return {
        **found,
        "outcome": _OUTCOMES.get(record["outcome"], "Abandoned"),
        **({"why": record["why"]} if record["why"] else {}),
        "entries": record["entries"],
        "bytes": record["bytes"],
        "seconds": f"{sum(record['seconds'].values()):.2f}",
        "held": f"{record['held'] * 1000:.0f}ms",
    }


def told_by(coordinator: Coordinator) -> Json:
    """What of the status the coordinator's answer says."""
    found: Json = {"members": len(coordinator.members), "recoveries": coordinator.recoveries}
    found["places"] = list(coordinator.places)
    if coordinator.assignment:
        found["assignment"] = assignment_status(coordinator.assignment)
    if coordinator.rescale:
        found["rescale"] = rescale_status(coordinator.rescale)
    found["history"] = [rescale_status(each) for each in coordinator.history]
    if coordinator.committed_at:
        found["checkpoint"] = {
            "epoch": coordinator.epoch,
            "time": timestamp(coordinator.committed_at),
        }
    workers = [
        each for number, each in coordinator.workers.items() if number in coordinator.members
    ]
    left = coordinator.departed
    found["keys"] = coordinator.keys
    found["events"] = left["read"] + sum(each.read for each in workers)
    found["deadLetters"] = left["dead_letters"] + sum(each.dead_letters for each in workers)
    return found


def differs(before: Mapping[str, Any], now: Mapping[str, Any], *, counters: bool) -> bool:
    """Whether the status is to be written; with counters too, or without regard to them."""
    without = () if counters else COUNTERS
    return {k: v for k, v in before.items() if k not in without} != {
        k: v for k, v in now.items() if k not in without
    }
