from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FromWorker(_message.Message):
    __slots__ = ("register", "ready", "drained", "prepared", "report", "failed", "published", "broken", "heartbeat", "enlisted", "staged", "connections_closed", "checkpoint")
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    ENLISTED_FIELD_NUMBER: _ClassVar[int]
    STAGED_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_CLOSED_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    register: Register
    ready: Ready
    drained: Drained
    prepared: Prepared
    report: Report
    failed: Failed
    published: Published
    broken: Broken
    heartbeat: Heartbeat
    enlisted: Enlisted
    staged: Staged
    connections_closed: ConnectionsClosed
    checkpoint: Checkpoint
    def __init__(self, register: _Optional[_Union[Register, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., drained: _Optional[_Union[Drained, _Mapping]] = ..., prepared: _Optional[_Union[Prepared, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., published: _Optional[_Union[Published, _Mapping]] = ..., broken: _Optional[_Union[Broken, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., enlisted: _Optional[_Union[Enlisted, _Mapping]] = ..., staged: _Optional[_Union[Staged, _Mapping]] = ..., connections_closed: _Optional[_Union[ConnectionsClosed, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("worker", "address", "fingerprint", "pid", "directory", "admitted", "pod", "pod_uid")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    worker: int
    address: str
    fingerprint: str
    pid: int
    directory: str
    admitted: bool
    pod: str
    pod_uid: str
    def __init__(self, worker: _Optional[int] = ..., address: _Optional[str] = ..., fingerprint: _Optional[str] = ..., pid: _Optional[int] = ..., directory: _Optional[str] = ..., admitted: _Optional[bool] = ..., pod: _Optional[str] = ..., pod_uid: _Optional[str] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("generation",)
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: int
    def __init__(self, generation: _Optional[int] = ...) -> None: ...

class Drained(_message.Message):
    __slots__ = ("generation",)
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: int
    def __init__(self, generation: _Optional[int] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ("generation", "epoch", "part", "held")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    generation: int
    epoch: int
    part: Part
    held: float
    def __init__(self, generation: _Optional[int] = ..., epoch: _Optional[int] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., held: _Optional[float] = ...) -> None: ...

class Published(_message.Message):
    __slots__ = ("generation", "epoch")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    generation: int
    epoch: int
    def __init__(self, generation: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class Broken(_message.Message):
    __slots__ = ("generation", "peer", "attempt")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    generation: int
    peer: int
    attempt: int
    def __init__(self, generation: _Optional[int] = ..., peer: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Enlisted(_message.Message):
    __slots__ = ("generation", "attempt", "listens")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LISTENS_FIELD_NUMBER: _ClassVar[int]
    generation: int
    attempt: int
    listens: bool
    def __init__(self, generation: _Optional[int] = ..., attempt: _Optional[int] = ..., listens: _Optional[bool] = ...) -> None: ...

class ConnectionsClosed(_message.Message):
    __slots__ = ("generation", "attempt", "lost")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    generation: int
    attempt: int
    lost: int
    def __init__(self, generation: _Optional[int] = ..., attempt: _Optional[int] = ..., lost: _Optional[int] = ...) -> None: ...

class Staged(_message.Message):
    __slots__ = ("generation", "attempt", "epoch", "entries", "size")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    generation: int
    attempt: int
    epoch: int
    entries: int
    size: int
    def __init__(self, generation: _Optional[int] = ..., attempt: _Optional[int] = ..., epoch: _Optional[int] = ..., entries: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Part(_message.Message):
    __slots__ = ("directory", "deltas", "sinks", "ended", "read", "received", "written", "dead", "joined", "staging")
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    SINKS_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    STAGING_FIELD_NUMBER: _ClassVar[int]
    directory: str
    deltas: _containers.RepeatedCompositeFieldContainer[Delta]
    sinks: _containers.RepeatedScalarFieldContainer[str]
    ended: _containers.RepeatedCompositeFieldContainer[Partition]
    read: int
    received: int
    written: int
    dead: int
    joined: int
    staging: Staging
    def __init__(self, directory: _Optional[str] = ..., deltas: _Optional[_Iterable[_Union[Delta, _Mapping]]] = ..., sinks: _Optional[_Iterable[str]] = ..., ended: _Optional[_Iterable[_Union[Partition, _Mapping]]] = ..., read: _Optional[int] = ..., received: _Optional[int] = ..., written: _Optional[int] = ..., dead: _Optional[int] = ..., joined: _Optional[int] = ..., staging: _Optional[_Union[Staging, _Mapping]] = ...) -> None: ...

class Staging(_message.Message):
    __slots__ = ("id", "ranges")
    ID_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    id: str
    ranges: _containers.RepeatedCompositeFieldContainer[Range]
    def __init__(self, id: _Optional[str] = ..., ranges: _Optional[_Iterable[_Union[Range, _Mapping]]] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("epoch", "generation", "checksum", "size")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    generation: int
    checksum: int
    size: int
    def __init__(self, epoch: _Optional[int] = ..., generation: _Optional[int] = ..., checksum: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class Partition(_message.Message):
    __slots__ = ("source", "name")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    source: str
    name: str
    def __init__(self, source: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("read", "received", "written", "keys", "waiting", "dead_letters", "connections", "lost", "processing", "settling", "ca")
    READ_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_FIELD_NUMBER: _ClassVar[int]
    SETTLING_FIELD_NUMBER: _ClassVar[int]
    CA_FIELD_NUMBER: _ClassVar[int]
    read: int
    received: int
    written: int
    keys: int
    waiting: _containers.RepeatedScalarFieldContainer[str]
    dead_letters: int
    connections: int
    lost: int
    processing: bool
    settling: bool
    ca: str
    def __init__(self, read: _Optional[int] = ..., received: _Optional[int] = ..., written: _Optional[int] = ..., keys: _Optional[int] = ..., waiting: _Optional[_Iterable[str]] = ..., dead_letters: _Optional[int] = ..., connections: _Optional[int] = ..., lost: _Optional[int] = ..., processing: _Optional[bool] = ..., settling: _Optional[bool] = ..., ca: _Optional[str] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("failure",)
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    failure: Failure
    def __init__(self, failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("worker", "step", "key", "event", "message", "traceback")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    worker: int
    step: str
    key: str
    event: str
    message: str
    traceback: str
    def __init__(self, worker: _Optional[int] = ..., step: _Optional[str] = ..., key: _Optional[str] = ..., event: _Optional[str] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ...) -> None: ...

class ToWorker(_message.Message):
    __slots__ = ("generation", "refuse", "halt", "recover", "resume", "inject", "commit", "finish", "enlist", "copy", "abort", "drain", "checkpointed")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REFUSE_FIELD_NUMBER: _ClassVar[int]
    HALT_FIELD_NUMBER: _ClassVar[int]
    RECOVER_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    INJECT_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    ENLIST_FIELD_NUMBER: _ClassVar[int]
    COPY_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTED_FIELD_NUMBER: _ClassVar[int]
    generation: int
    refuse: Refuse
    halt: Halt
    recover: Recover
    resume: Resume
    inject: Inject
    commit: Commit
    finish: Finish
    enlist: Enlist
    copy: Copy
    abort: Abort
    drain: Drain
    checkpointed: Checkpointed
    def __init__(self, generation: _Optional[int] = ..., refuse: _Optional[_Union[Refuse, _Mapping]] = ..., halt: _Optional[_Union[Halt, _Mapping]] = ..., recover: _Optional[_Union[Recover, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., inject: _Optional[_Union[Inject, _Mapping]] = ..., commit: _Optional[_Union[Commit, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ..., enlist: _Optional[_Union[Enlist, _Mapping]] = ..., copy: _Optional[_Union[Copy, _Mapping]] = ..., abort: _Optional[_Union[Abort, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., checkpointed: _Optional[_Union[Checkpointed, _Mapping]] = ...) -> None: ...

class Halt(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Recover(_message.Message):
    __slots__ = ("epoch", "members", "assignment", "places", "partitions", "part", "switched")
    class PlacesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    SWITCHED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    members: _containers.RepeatedCompositeFieldContainer[Member]
    assignment: Assignment
    places: _containers.ScalarMap[str, int]
    partitions: _containers.RepeatedCompositeFieldContainer[Partitions]
    part: Part
    switched: int
    def __init__(self, epoch: _Optional[int] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ..., places: _Optional[_Mapping[str, int]] = ..., partitions: _Optional[_Iterable[_Union[Partitions, _Mapping]]] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., switched: _Optional[int] = ...) -> None: ...

class Enlist(_message.Message):
    __slots__ = ("attempt", "epoch", "members", "old", "new", "places", "partitions", "sinks")
    class PlacesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    OLD_FIELD_NUMBER: _ClassVar[int]
    NEW_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    SINKS_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    epoch: int
    members: _containers.RepeatedCompositeFieldContainer[Member]
    old: Assignment
    new: Assignment
    places: _containers.ScalarMap[str, int]
    partitions: _containers.RepeatedCompositeFieldContainer[Partitions]
    sinks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, attempt: _Optional[int] = ..., epoch: _Optional[int] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., old: _Optional[_Union[Assignment, _Mapping]] = ..., new: _Optional[_Union[Assignment, _Mapping]] = ..., places: _Optional[_Mapping[str, int]] = ..., partitions: _Optional[_Iterable[_Union[Partitions, _Mapping]]] = ..., sinks: _Optional[_Iterable[str]] = ...) -> None: ...

class Copy(_message.Message):
    __slots__ = ("attempt",)
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    def __init__(self, attempt: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("attempt", "grace", "patience")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    grace: float
    patience: float
    def __init__(self, attempt: _Optional[int] = ..., grace: _Optional[float] = ..., patience: _Optional[float] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("attempt",)
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    def __init__(self, attempt: _Optional[int] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("worker", "address")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    worker: int
    address: str
    def __init__(self, worker: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("version", "pieces")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    version: int
    pieces: _containers.RepeatedCompositeFieldContainer[Piece]
    def __init__(self, version: _Optional[int] = ..., pieces: _Optional[_Iterable[_Union[Piece, _Mapping]]] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("start", "end", "worker")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    worker: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., worker: _Optional[int] = ...) -> None: ...

class Partitions(_message.Message):
    __slots__ = ("source", "points")
    class PointsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    source: str
    points: _containers.ScalarMap[str, int]
    def __init__(self, source: _Optional[str] = ..., points: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Inject(_message.Message):
    __slots__ = ("epoch", "final", "switch")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    SWITCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    final: bool
    switch: int
    def __init__(self, epoch: _Optional[int] = ..., final: _Optional[bool] = ..., switch: _Optional[int] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ("released",)
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    released: bool
    def __init__(self, released: _Optional[bool] = ...) -> None: ...

class Checkpointed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Refuse(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("application", "phase", "generation", "epoch", "assignment", "workers", "failure", "stop_requested", "recoveries", "members", "epoch_seconds", "joiners", "leaving", "rescale", "history", "application_id", "vacant", "lost", "committed_at", "places", "departed", "keys")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    STOP_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    RECOVERIES_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_SECONDS_FIELD_NUMBER: _ClassVar[int]
    JOINERS_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    RESCALE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    VACANT_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    DEPARTED_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    application: str
    phase: str
    generation: int
    epoch: int
    assignment: Assignment
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    failure: Failure
    stop_requested: bool
    recoveries: int
    members: _containers.RepeatedScalarFieldContainer[int]
    epoch_seconds: float
    joiners: _containers.RepeatedScalarFieldContainer[int]
    leaving: _containers.RepeatedScalarFieldContainer[int]
    rescale: str
    history: _containers.RepeatedScalarFieldContainer[str]
    application_id: str
    vacant: bool
    lost: _containers.RepeatedScalarFieldContainer[int]
    committed_at: float
    places: _containers.RepeatedScalarFieldContainer[str]
    departed: Report
    keys: int
    def __init__(self, application: _Optional[str] = ..., phase: _Optional[str] = ..., generation: _Optional[int] = ..., epoch: _Optional[int] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., stop_requested: _Optional[bool] = ..., recoveries: _Optional[int] = ..., members: _Optional[_Iterable[int]] = ..., epoch_seconds: _Optional[float] = ..., joiners: _Optional[_Iterable[int]] = ..., leaving: _Optional[_Iterable[int]] = ..., rescale: _Optional[str] = ..., history: _Optional[_Iterable[str]] = ..., application_id: _Optional[str] = ..., vacant: _Optional[bool] = ..., lost: _Optional[_Iterable[int]] = ..., committed_at: _Optional[float] = ..., places: _Optional[_Iterable[str]] = ..., departed: _Optional[_Union[Report, _Mapping]] = ..., keys: _Optional[int] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker", "pid", "report", "present", "silent", "pod", "pod_uid", "fingerprint", "processing", "ca")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_FIELD_NUMBER: _ClassVar[int]
    CA_FIELD_NUMBER: _ClassVar[int]
    worker: int
    pid: int
    report: Report
    present: bool
    silent: bool
    pod: str
    pod_uid: str
    fingerprint: str
    processing: bool
    ca: str
    def __init__(self, worker: _Optional[int] = ..., pid: _Optional[int] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., present: _Optional[bool] = ..., silent: _Optional[bool] = ..., pod: _Optional[str] = ..., pod_uid: _Optional[str] = ..., fingerprint: _Optional[str] = ..., processing: _Optional[bool] = ..., ca: _Optional[str] = ...) -> None: ...

class BeginRequest(_message.Message):
    __slots__ = ("workers", "accept_loss", "epoch")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_LOSS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    workers: int
    accept_loss: bool
    epoch: int
    def __init__(self, workers: _Optional[int] = ..., accept_loss: _Optional[bool] = ..., epoch: _Optional[int] = ...) -> None: ...

class BeginReply(_message.Message):
    __slots__ = ("refusal",)
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    refusal: str
    def __init__(self, refusal: _Optional[str] = ...) -> None: ...

class RescaleRequest(_message.Message):
    __slots__ = ("base", "assignment")
    BASE_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    base: int
    assignment: Assignment
    def __init__(self, base: _Optional[int] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ...) -> None: ...

class RescaleReply(_message.Message):
    __slots__ = ("refusal",)
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    refusal: str
    def __init__(self, refusal: _Optional[str] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
