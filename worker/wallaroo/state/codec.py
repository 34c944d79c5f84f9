"""Values as bytes: pickles of protocol 5, written and read through the allow-list.

Instances of plain classes are written as their `__dict__`, which costs a fifth of pickling the
object. That would be wrong for a class that says itself how it is copied or that keeps something
outside its `__dict__`; those are pickled as usual.
"""

import copyreg
import io
import pickle
from collections.abc import Callable
from typing import Any

from wallaroo.state.allowlist import AllowList, Refused

#: Most values a block may hold: one pickle of more is slower per value, not faster.
BLOCK = 512

_HOOKS = ("__reduce__", "__reduce_ex__", "__getstate__")
_MISSING = object()


class CodecError(Exception):
    """A value can't be written, or bytes can't be read; the message says what and why."""


class _MetAgain(Exception):
    pass


def is_plain(cls: type) -> bool:
    """Whether an instance of `cls` is its class and its `__dict__`, and nothing else.

    >>> class Point:
    ...     def __init__(self, x: int) -> None:
    ...         self.x = x
    >>> is_plain(Point), is_plain(dict)
    (True, False)
    """
    for base in cls.__mro__[:-1]:
        own = vars(base)
        if not base.__flags__ & 1 << 9:  # Py_TPFLAGS_HEAPTYPE: not written in Python
            return False
        if "__slots__" in own or "__new__" in own:
            return False
        if any(name in own for name in ("__setstate__", "__getnewargs__", "__getnewargs_ex__")):
            return False
    return all(getattr(cls, hook, _MISSING) is getattr(object, hook, _MISSING) for hook in _HOOKS)


class Codec:
    """Encodes and decodes values of the classes that `allow` lists."""

    def __init__(self, allow: AllowList) -> None:
        plain: dict[type, bool] = {}
        newobj = copyreg.__newobj__  # type: ignore[attr-defined]

        def plain_class(cls: type) -> bool:
            """Whether to write a value of `cls` as its `__dict__`; raises `Refused`."""
            allow.check(cls)
            found = plain[cls] = is_plain(cls)
            return found

        class Pickler(pickle.Pickler):
            #: Objects written as their `__dict__`: met again inside one another, they would
            #: come back as two.
            opened: list[Any] | None = None
            identities: set[int] | None = None

            def reducer_override(self, value: Any) -> Any:
                if self.opened is not None:
                    if self.identities is None:
                        self.identities = set(map(id, self.opened))
                    if id(value) in self.identities:
                        raise _MetAgain
                cls = type(value)
                known = plain.get(cls)
                if known is None:
                    if isinstance(value, type):
                        allow.check(value)
                        return NotImplemented
                    if value is newobj:
                        return NotImplemented
                    known = plain_class(cls)
                if known:
                    return newobj, (cls,), value.__dict__ or None
                return NotImplemented

        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                return allow.find(module, name)

        self._pickler = Pickler
        self._unpickler = Unpickler
        self._plain = plain
        self._plain_class = plain_class

    def encode(self, value: Any) -> bytes:
        """One value as bytes. Raises `CodecError`."""
        return self._dump(value, None)

    def _dump(self, value: Any, opened: list[Any] | None) -> bytes:
        buffer = io.BytesIO()
        pickler = self._pickler(buffer, 5)
        pickler.opened = opened
        try:
            pickler.dump(value)
        except _MetAgain:
            raise
        except Exception as error:
            raise CodecError(_say(error)) from error
        return buffer.getvalue()

    def decode(self, data: bytes) -> Any:
        """What `encode` was given. Raises `CodecError`."""
        try:
            return self._unpickler(io.BytesIO(data)).load()
        except Exception as error:
            raise CodecError(f"what was received can't be read: {_say(error)}") from error

    def encode_block(self, values: list[Any]) -> bytes:
        """Values as one block of bytes. Raises `CodecError`."""
        try:
            classes, opened = self._open(values)
        except Refused as error:
            raise CodecError(_say(error)) from error
        if classes is not None:
            try:
                return self._dump((classes, opened), values)
            except _MetAgain:
                pass
        return self._dump((None, values), None)

    def _open(self, values: list[Any]) -> tuple[Any, list[Any]]:
        """(class, or classes, or None; values with plain objects replaced by their dicts)."""
        plain = self._plain
        classes = list(map(type, values))
        distinct = set(classes)
        if not any(
            plain[cls] if cls in plain else cls not in _BUILTIN and self._plain_class(cls)
            for cls in distinct
        ):
            return None, values
        if len(distinct) == 1:
            return classes[0], [value.__dict__ for value in values]
        marks = [cls if plain.get(cls) else None for cls in classes]
        return marks, [
            value if mark is None else value.__dict__
            for mark, value in zip(marks, values, strict=True)
        ]

    def decode_block(self, data: bytes) -> list[Any]:
        """The values of a block. Raises `CodecError`."""
        classes, values = self.decode(data)
        if classes is None:
            return values  # type: ignore[no-any-return]
        new: Callable[[type], Any] = object.__new__
        result: list[Any] = []
        add = result.append
        if isinstance(classes, type):
            for value in values:
                made = new(classes)
                made.__dict__.update(value)
                add(made)
            return result
        for cls, value in zip(classes, values, strict=True):
            if cls is None:
                add(value)
            else:
                made = new(cls)
                made.__dict__.update(value)
                add(made)
        return result


_BUILTIN = frozenset(
    (
        int,
        float,
        complex,
        bool,
        str,
        bytes,
        bytearray,
        list,
        tuple,
        dict,
        set,
        frozenset,
        type(None),
    )
)


def _say(error: Exception) -> str:
    return str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
