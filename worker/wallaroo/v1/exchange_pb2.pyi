from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("open", "events", "barrier")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    open: Open
    events: Events
    barrier: Barrier
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., events: _Optional[_Union[Events, _Mapping]] = ..., barrier: _Optional[_Union[Barrier, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("generation", "channel", "sender", "receiver", "attempt")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    generation: int
    channel: int
    sender: int
    receiver: int
    attempt: int
    def __init__(self, generation: _Optional[int] = ..., channel: _Optional[int] = ..., sender: _Optional[int] = ..., receiver: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Events(_message.Message):
    __slots__ = ("blocks",)
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, blocks: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Barrier(_message.Message):
    __slots__ = ("epoch", "final", "switch")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    SWITCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    final: bool
    switch: bool
    def __init__(self, epoch: _Optional[int] = ..., final: _Optional[bool] = ..., switch: _Optional[bool] = ...) -> None: ...

class Received(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
