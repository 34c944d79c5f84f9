from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FromWorker(_message.Message):
    __slots__ = ("register", "connected", "sources_ended", "barrier_passed", "report", "failed")
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    SOURCES_ENDED_FIELD_NUMBER: _ClassVar[int]
    BARRIER_PASSED_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    register: Register
    connected: Connected
    sources_ended: SourcesEnded
    barrier_passed: BarrierPassed
    report: Report
    failed: Failed
    def __init__(self, register: _Optional[_Union[Register, _Mapping]] = ..., connected: _Optional[_Union[Connected, _Mapping]] = ..., sources_ended: _Optional[_Union[SourcesEnded, _Mapping]] = ..., barrier_passed: _Optional[_Union[BarrierPassed, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("worker", "address", "fingerprint", "pid")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    worker: int
    address: str
    fingerprint: str
    pid: int
    def __init__(self, worker: _Optional[int] = ..., address: _Optional[str] = ..., fingerprint: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class Connected(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SourcesEnded(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BarrierPassed(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("read", "received", "written", "keys", "waiting")
    READ_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    read: int
    received: int
    written: int
    keys: int
    waiting: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, read: _Optional[int] = ..., received: _Optional[int] = ..., written: _Optional[int] = ..., keys: _Optional[int] = ..., waiting: _Optional[_Iterable[str]] = ...) -> None: ...

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
    __slots__ = ("generation", "connect", "start", "inject", "finish", "refuse")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CONNECT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    INJECT_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    REFUSE_FIELD_NUMBER: _ClassVar[int]
    generation: int
    connect: Connect
    start: Start
    inject: Inject
    finish: Finish
    refuse: Refuse
    def __init__(self, generation: _Optional[int] = ..., connect: _Optional[_Union[Connect, _Mapping]] = ..., start: _Optional[_Union[Start, _Mapping]] = ..., inject: _Optional[_Union[Inject, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ..., refuse: _Optional[_Union[Refuse, _Mapping]] = ...) -> None: ...

class Connect(_message.Message):
    __slots__ = ("members", "assignment", "partitions")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[Member]
    assignment: Assignment
    partitions: _containers.RepeatedCompositeFieldContainer[Partitions]
    def __init__(self, members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ..., partitions: _Optional[_Iterable[_Union[Partitions, _Mapping]]] = ...) -> None: ...

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
    __slots__ = ("source", "names")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    source: str
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, source: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Inject(_message.Message):
    __slots__ = ("epoch", "final")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    final: bool
    def __init__(self, epoch: _Optional[int] = ..., final: _Optional[bool] = ...) -> None: ...

class Finish(_message.Message):
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
    __slots__ = ("application", "phase", "generation", "epoch", "assignment", "workers", "failure", "stop_requested")
    APPLICATION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    STOP_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    application: str
    phase: str
    generation: int
    epoch: int
    assignment: Assignment
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    failure: Failure
    stop_requested: bool
    def __init__(self, application: _Optional[str] = ..., phase: _Optional[str] = ..., generation: _Optional[int] = ..., epoch: _Optional[int] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., stop_requested: _Optional[bool] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker", "pid", "report")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    worker: int
    pid: int
    report: Report
    def __init__(self, worker: _Optional[int] = ..., pid: _Optional[int] = ..., report: _Optional[_Union[Report, _Mapping]] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
