"""Classes of an application's own, of every kind that says differently how it is copied."""

import enum
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Self, TypeVar

T = TypeVar("T")


class Plain:
    def __init__(self, *args: Any, **attributes: Any) -> None:
        self.args = args
        vars(self).update(attributes)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class Child(Plain):
    pass


class Defaults:
    """Keeps its defaults on the class; an instance's `__dict__` may be empty."""

    count = 0
    name = "none"


class NeedsArguments:
    def __init__(self, value: int) -> None:
        self.value = value


class Outer:
    class Inner(Plain):
        pass


@dataclass
class Record:
    name: str
    values: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    name: str
    number: int = 0


@dataclass(slots=True)
class Slotted:
    name: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class FrozenSlotted:
    name: str
    number: int = 0


class Slots:
    __slots__ = ("__dict__", "one")


class BelowSlots(Slots):
    pass


class Box(Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value


class Words(dict[str, int]):
    note = ""


class Numbers(list[int]):
    note = ""


class Ordered(OrderedDict[str, int]):
    pass


class Lists(defaultdict[str, list[int]]):
    def __init__(self) -> None:
        super().__init__(list)


class Text(str):  # noqa: SLOT000  it has a dict
    pass


class Count(int):
    pass


class Pair(NamedTuple):
    left: int
    right: str


OldPair = namedtuple("OldPair", "left right")  # noqa: PYI024


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


class Level(enum.StrEnum):
    LOW = "low"


class Mistake(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.seen = 1


class WithGetState:
    def __init__(self) -> None:
        self.kept = 1
        self.dropped: Any = print

    def __getstate__(self) -> dict[str, int]:
        return {"kept": self.kept}


class WithSetState:
    def __init__(self, value: int) -> None:
        self.value = value
        self.restored = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, restored=True)


class WithReduce:
    def __init__(self, value: int) -> None:
        self.value = value
        self.made = "by __init__"

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return WithReduce, (self.value,)


class WithReduceEx:
    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce_ex__(self, protocol: Any) -> tuple[type, tuple[int]]:
        return WithReduceEx, (self.value,)


class WithNew:
    def __new__(cls) -> Self:
        made = super().__new__(cls)
        made.made = "by __new__"
        return made

    made: str


class WithNewArgs:
    def __new__(cls, value: int = 0) -> Self:
        made = super().__new__(cls)
        made.value = value
        return made

    value: int

    def __getnewargs__(self) -> tuple[int]:
        return (self.value,)


class WithNewArgsEx(WithNewArgs):
    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, int]]:
        return (), {"value": self.value}


class ReducesTo:
    """Pickles as a call of what it is given: what an attacker sends."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def rebuild(value: int) -> Plain:
    return Plain(value)


class RebuiltByFunction:
    def __reduce__(self) -> Any:
        return rebuild, (1,)


class RaisesInGetState:
    def __getstate__(self) -> Any:
        raise RuntimeError("not now")
