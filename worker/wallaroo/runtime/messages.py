"""Between the values that the program thinks in and the messages of the wire."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from wallaroo.errors import Failure
from wallaroo.partitioning import INTERVAL, Assignment, Piece
from wallaroo.protocol import messages
from wallaroo.protocol.manifest import DeltaMark, Part, Staging
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


def part_message(part: Part) -> control_pb2.Part:
    """A part of a checkpoint for the wire."""
    return control_pb2.Part(
        directory=part.directory,
        deltas=[control_pb2.Delta(**asdict(delta)) for delta in part.deltas],
        sinks=[json.dumps(mark) for mark in part.sinks],
        ended=[control_pb2.Partition(source=s, name=n) for s, n in sorted(part.ended)],
        read=part.counts[0],
        received=part.counts[1],
        written=part.counts[2],
        dead=part.counts[3],
        joined=part.joined,
        staging=_staging_message(part.staging) if part.staging else None,
    )


def _staging_message(staging: Staging) -> control_pb2.Staging:
    ranges = [control_pb2.Range(start=s, end=e % INTERVAL) for s, e in staging.ranges]
    return control_pb2.Staging(id=staging.id, ranges=ranges)


def _staging_from(message: control_pb2.Staging) -> Staging:
    return Staging(message.id, tuple((r.start, r.end or INTERVAL) for r in message.ranges))


def part_from(message: control_pb2.Part) -> Part:
    """A part of a checkpoint from the wire. Raises ValueError if a mark is no JSON."""
    return Part(
        message.directory,
        tuple(DeltaMark(d.epoch, d.generation, d.checksum, d.size) for d in message.deltas),
        tuple(json.loads(mark) for mark in message.sinks),
        frozenset((each.source, each.name) for each in message.ended),
        (message.read, message.received, message.written, message.dead),
        message.joined,
        _staging_from(message.staging) if message.HasField("staging") else None,
    )


def from_worker_message(message: messages.FromWorker) -> control_pb2.FromWorker:
    """What a worker says, but for its registration, for the wire."""
    match message:
        case messages.Ready(generation):
            return control_pb2.FromWorker(ready=control_pb2.Ready(generation=generation))
        case messages.Drained(generation):
            return control_pb2.FromWorker(drained=control_pb2.Drained(generation=generation))
        case messages.Prepared(generation, epoch, part, held):
            prepared = control_pb2.Prepared(
                generation=generation, epoch=epoch, part=part_message(part), held=held
            )
            return control_pb2.FromWorker(prepared=prepared)
        case messages.Published(generation, epoch):
            published = control_pb2.Published(generation=generation, epoch=epoch)
            return control_pb2.FromWorker(published=published)
        case messages.Broken(generation, peer, attempt):
            broken = control_pb2.Broken(generation=generation, peer=peer, attempt=attempt)
            return control_pb2.FromWorker(broken=broken)
        case messages.Enlisted():
            return control_pb2.FromWorker(enlisted=control_pb2.Enlisted(**asdict(message)))
        case messages.ConnectionsClosed():
            closed = control_pb2.ConnectionsClosed(**asdict(message))
            return control_pb2.FromWorker(connections_closed=closed)
        case messages.Staged():
            return control_pb2.FromWorker(staged=control_pb2.Staged(**asdict(message)))
        case messages.Failed(failure):
            return control_pb2.FromWorker(
                failed=control_pb2.Failed(failure=failure_message(failure))
            )
        case messages.Checkpoint():
            return control_pb2.FromWorker(checkpoint=control_pb2.Checkpoint())
        case messages.Register():
            return control_pb2.FromWorker(
                register=control_pb2.Register(
                    address=message.address,
                    fingerprint=message.fingerprint,
                    directory=message.directory,
                    admitted=message.admitted,
                )
            )


def from_worker(message: control_pb2.FromWorker) -> messages.FromWorker | None:
    """What a worker says, from the wire; None if it is nothing of the protocol.

    Raises ValueError if it is not what a worker would say.
    """
    match message.WhichOneof("kind"):
        case "register":
            found = message.register
            return messages.Register(
                found.address, found.fingerprint, found.directory, found.admitted
            )
        case "ready":
            return messages.Ready(message.ready.generation)
        case "drained":
            return messages.Drained(message.drained.generation)
        case "prepared":
            prepared = message.prepared
            return messages.Prepared(
                prepared.generation, prepared.epoch, part_from(prepared.part), prepared.held
            )
        case "published":
            return messages.Published(message.published.generation, message.published.epoch)
        case "broken":
            broken = message.broken
            return messages.Broken(broken.generation, broken.peer, broken.attempt)
        case "enlisted":
            enlisted = message.enlisted
            return messages.Enlisted(enlisted.generation, enlisted.attempt, enlisted.listens)
        case "connections_closed":
            closed = message.connections_closed
            return messages.ConnectionsClosed(closed.generation, closed.attempt, closed.lost)
        case "staged":
            staged = message.staged
            return messages.Staged(
                staged.generation, staged.attempt, staged.epoch, staged.entries, staged.size
            )
        case "failed":
            return messages.Failed(failure_from(message.failed.failure))
        case "checkpoint":
            return messages.Checkpoint()
    return None


def to_worker_message(message: messages.ToWorker) -> control_pb2.ToWorker:
    """What the coordinator says, for the wire."""
    match message:
        case messages.Refuse(why):
            return control_pb2.ToWorker(refuse=control_pb2.Refuse(message=why))
        case messages.Halt():
            return control_pb2.ToWorker(halt=control_pb2.Halt())
        case messages.Finish(released):
            return control_pb2.ToWorker(finish=control_pb2.Finish(released=released))
        case messages.Checkpointed():
            return control_pb2.ToWorker(checkpointed=control_pb2.Checkpointed())
        case messages.Resume(generation):
            return control_pb2.ToWorker(generation=generation, resume=control_pb2.Resume())
        case messages.Inject(generation, epoch, final, switch):
            inject = control_pb2.Inject(epoch=epoch, final=final, switch=switch)
            return control_pb2.ToWorker(generation=generation, inject=inject)
        case messages.Commit(generation, epoch):
            commit = control_pb2.Commit(epoch=epoch)
            return control_pb2.ToWorker(generation=generation, commit=commit)
        case messages.Recover():
            recover = control_pb2.Recover(
                epoch=message.epoch,
                members=_members(message.addresses),
                assignment=assignment_message(message.assignment),
                places=message.places,
                partitions=_partitions(message.partitions),
                part=part_message(message.part) if message.part else None,
                switched=message.switched,
            )
            return control_pb2.ToWorker(generation=message.generation, recover=recover)
        case messages.Enlist():
            enlist = control_pb2.Enlist(
                attempt=message.attempt,
                epoch=message.epoch,
                members=_members(message.addresses),
                old=assignment_message(message.old),
                new=assignment_message(message.new),
                places=message.places,
                partitions=_partitions(message.partitions),
                sinks=[json.dumps(mark) for mark in message.sinks],
            )
            return control_pb2.ToWorker(generation=message.generation, enlist=enlist)
        case messages.Copy(generation, attempt):
            copy = control_pb2.Copy(attempt=attempt)
            return control_pb2.ToWorker(generation=generation, copy=copy)
        case messages.Drain(generation, attempt, grace, patience):
            drain = control_pb2.Drain(attempt=attempt, grace=grace, patience=patience)
            return control_pb2.ToWorker(generation=generation, drain=drain)
        case messages.Abort(generation, attempt):
            abort = control_pb2.Abort(attempt=attempt)
            return control_pb2.ToWorker(generation=generation, abort=abort)


def _members(addresses: Mapping[int, str]) -> list[control_pb2.Member]:
    return [control_pb2.Member(worker=w, address=address) for w, address in addresses.items()]


def _partitions(partitions: Mapping[str, Mapping[str, int]]) -> list[control_pb2.Partitions]:
    return [control_pb2.Partitions(source=s, points=points) for s, points in partitions.items()]


def to_worker(message: control_pb2.ToWorker) -> messages.ToWorker:
    """What the coordinator says, from the wire. Raises ValueError if it says nothing known."""
    generation = message.generation
    match message.WhichOneof("kind"):
        case "refuse":
            return messages.Refuse(message.refuse.message)
        case "halt":
            return messages.Halt()
        case "finish":
            return messages.Finish(message.finish.released)
        case "checkpointed":
            return messages.Checkpointed()
        case "resume":
            return messages.Resume(generation)
        case "inject":
            inject = message.inject
            return messages.Inject(generation, inject.epoch, inject.final, inject.switch)
        case "commit":
            return messages.Commit(generation, message.commit.epoch)
        case "recover":
            recover = message.recover
            return messages.Recover(
                generation,
                recover.epoch,
                assignment_from(recover.assignment),
                {member.worker: member.address for member in recover.members},
                dict(recover.places),
                {each.source: dict(each.points) for each in recover.partitions},
                part_from(recover.part) if recover.HasField("part") else None,
                recover.switched,
            )
        case "enlist":
            enlist = message.enlist
            return messages.Enlist(
                generation,
                enlist.attempt,
                enlist.epoch,
                assignment_from(enlist.old),
                assignment_from(enlist.new),
                {member.worker: member.address for member in enlist.members},
                dict(enlist.places),
                {each.source: dict(each.points) for each in enlist.partitions},
                tuple(json.loads(mark) for mark in enlist.sinks),
            )
        case "copy":
            return messages.Copy(generation, message.copy.attempt)
        case "drain":
            drain = message.drain
            return messages.Drain(generation, drain.attempt, drain.grace, drain.patience)
        case "abort":
            return messages.Abort(generation, message.abort.attempt)
    raise ValueError("the coordinator says what this version of Wallaroo does not know")


def _counts(report: control_pb2.Report) -> dict[str, int]:
    return {
        "read": report.read,
        "received": report.received,
        "written": report.written,
        "dead_letters": report.dead_letters,
    }


def status_dict(status: control_pb2.StatusReply) -> dict[str, Any]:
    """What `wallaroo status --json` prints."""
    assignment = status.assignment
    return {
        "application": status.application,
        "application_id": status.application_id,
        "phase": status.phase,
        "stop_requested": status.stop_requested,
        "generation": status.generation,
        "epoch": status.epoch,
        "epoch_seconds": round(status.epoch_seconds, 4),
        "committed_at": status.committed_at,
        "recoveries": status.recoveries,
        "members": sorted(status.members),
        "joiners": sorted(status.joiners),
        "leaving": sorted(status.leaving),
        "lost": sorted(status.lost),
        "vacant": status.vacant,
        "places": list(status.places),
        "rescale": json.loads(status.rescale) if status.rescale else None,
        "rescales": [json.loads(each) for each in status.history],
        "version": assignment.version,
        "assignment": [
            {"start": piece.start, "end": piece.end or INTERVAL, "worker": piece.worker}
            for piece in assignment.pieces
        ],
        "workers": [
            {
                "worker": each.worker,
                "pid": each.pid,
                "pod": each.pod,
                "pod_uid": each.pod_uid,
                "fingerprint": each.fingerprint,
                "ca": each.ca,
                "present": each.present,
                "silent": each.silent,
                "processing": each.processing,
                "keys": each.report.keys,
                "events": each.report.read + each.report.received,
                **_counts(each.report),
                "connections": each.report.connections,
                "lost": each.report.lost,
                "waiting": list(each.report.waiting),
            }
            for each in status.workers
        ],
        "departed": _counts(status.departed),
        "keys": status.keys,
        "error": asdict(failure_from(status.failure)) if status.HasField("failure") else None,
    }
