"""Reading the attributes of many plain objects without asking for their `__dict__`.

Up to Python 3.12 an object whose `__dict__` has been asked for is slow for the rest of its life:
code that was specialized for attributes kept in the object itself takes twice as long for it (80
and 160 ns for one `count += 1` on 3.11). Encoding an entry must not do that to the functions that
use it. So the names are learned from one object, and the others are read by name; that an object
has these attributes and no others is checked for each. That one object is slow ever after: it had
better be one that is seldom used.
"""

import gc
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

_MISSING: Any = object()
_ATOMS = frozenset((int, float, bool, str, bytes, type(None)))
#: How often to learn other names before giving up.
_LESSONS = 16


class Layout:
    """The attributes that instances of the plain class `cls` have, as far as they are alike."""

    def __init__(self, cls: type) -> None:
        self._class = cls
        self.names: tuple[str, ...] = ()
        self._get: Any = None
        #: What the class itself has under each name, as of the last `read`.
        self._defaults: tuple[Any, ...] = ()
        hooked = any("__getattr__" in vars(base) for base in cls.__mro__)
        same = not any("__getattribute__" in vars(base) for base in cls.__mro__[:-1])
        self._lessons = 0 if hooked or not same else _LESSONS

    def read(self, values: list[Any]) -> tuple[list[Any], dict[int, dict[str, Any]]]:
        """Rows of attributes, in the order of `names`, and by index those that do not fit.

        A row of one name is the attribute itself; of what does not fit it is None, and the whole
        `__dict__` is given. All are right as of now, and none is a copy.
        """
        if self._get is None:
            self._learn(reversed(values))  # the first are the frequent ones: see above
        rows, odd = self._read(values)
        if len(odd) > len(values) // 2 and self._learn(values[index] for index in odd):
            rows, odd = self._read(values)
        return rows, {index: values[index].__dict__ for index in odd}

    def snapshot(self, value: Any) -> dict[str, Any] | None:
        """The attributes of one object, if it fits and they can never change; else None."""
        get, names, defaults = self._get, self.names, self._defaults
        if get is None:
            return None
        held = gc.get_referents(value)
        if len(held) != len(names) + 1 or isinstance(held[0], dict):
            return None
        try:
            row = get(value)
        except AttributeError:
            return None
        if len(names) == 1:
            if type(row) not in _ATOMS or row is defaults[0]:
                return None
            return {names[0]: row}
        for each, default in zip(row, defaults, strict=True):
            if type(each) not in _ATOMS or each is default:
                return None
        return dict(zip(names, row, strict=True))

    def learn(self, value: Any) -> None:
        """Take the names of `value`, unless some are known."""
        if self._get is None:
            self._learn([value])

    def lesson(self) -> tuple[type, tuple[str, ...], tuple[Any, ...]] | None:
        """The class, the names, and what the class itself has under them; None if not known."""
        if self._get is None or not all(map(str.isidentifier, self.names)):
            return None
        return self._class, self.names, tuple(_static(self._class, name) for name in self.names)

    def _read(self, values: list[Any]) -> tuple[list[Any], list[int]]:
        get = self._get
        if get is None:
            return [None] * len(values), list(range(len(values)))
        count = len(self.names)
        # The values that an object holds itself, and its class. Or its __dict__, and its class.
        held = list(map(gc.get_referents, values))
        odd = [index for index, each in enumerate(held) if len(each) != count + 1]
        if count == 1:
            odd += [index for index, each in enumerate(held) if isinstance(each[0], dict)]
        if odd:
            rows = [None] * len(values)
            unfit = set(odd)
            for index, value in enumerate(values):
                if index not in unfit:
                    try:
                        rows[index] = get(value)
                    except AttributeError:
                        odd.append(index)
        else:
            try:
                rows = list(map(get, values))
            except AttributeError:  # as many, but others
                return [None] * len(values), list(range(len(values)))
        self._defaults = tuple(_static(self._class, name) for name in self.names)
        for at, default in enumerate(self._defaults):
            if default is _MISSING:
                continue
            # A value that is the class's own does not show that the object has one.
            column = rows if count == 1 else [row and row[at] for row in rows]
            odd += [index for index, value in enumerate(column) if value is default]
        for index in odd:
            rows[index] = None
        return rows, sorted(set(odd))

    def _learn(self, values: Iterable[Any]) -> bool:
        """Take the names of one of `values`; whether there are any that can be read by name."""
        while self._lessons:
            value = next((each for each in values if len(gc.get_referents(each)) > 1), None)
            if value is None:
                return False
            self._lessons -= 1
            names = tuple(value.__dict__)
            plain = all(type(name) is str for name in names) and not any(
                hasattr(_static(self._class, name), "__get__") for name in names
            )
            if not names or not plain or any("." in name for name in names):
                return False
            self.names, self._get = names, attrgetter(*names)
            self._defaults = tuple(_static(self._class, name) for name in names)
            return True
        return False


def _static(cls: type, name: str) -> Any:
    """What a class itself has under a name, or `_MISSING`."""
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return _MISSING


def named(names: tuple[str, ...], rows: list[Any], odd: dict[int, dict[str, Any]]) -> list[Any]:
    """The attributes of each object, by name: what `Layout.read` gave, as dicts."""
    if len(names) == 1:
        (name,) = names
        found = [{name: row} for row in rows]
    else:
        found = [dict(zip(names, row, strict=True)) if row is not None else {} for row in rows]
    for index, attributes in odd.items():
        found[index] = attributes
    return found
