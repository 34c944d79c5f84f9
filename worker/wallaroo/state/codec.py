"""Values as bytes: pickles of protocol 5, written and read through the allow-list.

Instances of plain classes are written as their `__dict__`, which costs a fifth of pickling the
object. That would be wrong for a class that says itself how it is copied or that keeps something
outside its `__dict__`; those are pickled as usual.
"""

import copyreg
import io
import pickle
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from wallaroo.errors import message_of
from wallaroo.state.allowlist import AllowList, Refused

#: Most values a block may hold: one pickle of more is slower per value, not faster.
BLOCK = 512

_HOOKS = ("__reduce__", "__reduce_ex__", "__getstate__")


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
    return all(getattr(cls, hook) is getattr(object, hook) for hook in _HOOKS)


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
                    if value is newobj:
                        return NotImplemented
                    if isinstance(value, type):
                        allow.check(value)
                        return NotImplemented
                    if isinstance(value, _FUNCTIONS):
                        raise Refused(
                            f"the function {value.__qualname__} may not be sent or stored: only "
                            "values may"
                        )
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

    def _dump(self, value: Any, opened: list[Any] | None, *, fast: bool = False) -> bytes:
        buffer = io.BytesIO()
        pickler = self._pickler(buffer, 5)
        pickler.fast = fast
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

    def encode_attributes(self, value: Any) -> bytes | None:
        """The `__dict__` of an instance of a plain class as bytes, which `decode` reads.

        None if it refers to the instance: then only the whole comes back as it was. Raises
        `CodecError`.
        """
        try:
            return self._dump(value.__dict__, [value])
        except _MetAgain:
            return None

    def encode_block(self, values: list[Any]) -> bytes:
        """Values as one block of bytes. Raises `CodecError`."""
        classes = set(map(type, values))
        if classes <= _ATOMS:
            # They refer to nothing, so the pickle needs no memo of what it has written already.
            return self._dump((None, values), None, fast=True)
        try:
            marks, opened = self._open(values, classes)
        except Refused as error:
            raise CodecError(_say(error)) from error
        if marks is not None:
            try:
                return self._dump((marks, opened), values)
            except _MetAgain:
                pass
        return self._dump((None, values), None)

    def _open(self, values: list[Any], classes: set[type]) -> tuple[Any, list[Any]]:
        """(class, or classes, or None; values with plain objects replaced by their dicts)."""
        plain = self._plain
        opening = {
            cls
            for cls in classes
            if (plain[cls] if cls in plain else cls not in _WHOLE and self._plain_class(cls))
        }
        if not opening:
            return None, values
        if len(classes) == 1:
            return opening.pop(), [value.__dict__ for value in values]
        marks = [cls if cls in opening else None for cls in map(type, values)]
        return marks, [
            value if mark is None else value.__dict__
            for mark, value in zip(marks, values, strict=True)
        ]

    def decode_block(self, data: bytes) -> list[Any]:
        """The values of a block. Raises `CodecError`."""
        found = self.decode(data)
        try:
            classes, values = found
            if classes is None:
                return values if type(values) is list else list(values)
            if isinstance(classes, type):
                return [filled(classes, value) for value in values]
            return [
                value if cls is None else filled(cls, value)
                for cls, value in zip(classes, values, strict=True)
            ]
        except (TypeError, ValueError, AttributeError) as error:
            raise CodecError(f"what was received is no block: {error}") from error


def filled(cls: type, attributes: dict[str, Any]) -> Any:
    """An instance of a plain class, of its `__dict__`."""
    made: Any = object.__new__(cls)
    if _data_descriptors(cls).isdisjoint(attributes):
        # Not by its __dict__: see wallaroo.state.layout.
        put = object.__setattr__
        try:
            for name, value in attributes.items():
                put(made, name, value)
        except TypeError:  # a name that is no str
            made = object.__new__(cls)
        else:
            return made
    made.__dict__.update(attributes)
    return made


@lru_cache(maxsize=1024)
def _data_descriptors(cls: type) -> frozenset[str]:
    """Names whose attributes are not simply kept in an instance."""
    return frozenset(
        name
        for base in cls.__mro__
        for name, value in vars(base).items()
        if hasattr(type(value), "__set__")
    )


_ATOMS = frozenset((int, float, bool, str, bytes, type(None)))
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType)
#: Types whose values have no `__dict__` to be written instead.
_WHOLE = _ATOMS | {complex, bytearray, list, tuple, dict, set, frozenset, *_FUNCTIONS}


def _say(error: Exception) -> str:
    return str(error) if isinstance(error, Refused) else message_of(error)
