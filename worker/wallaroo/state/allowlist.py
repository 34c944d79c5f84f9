"""Which classes may travel and be stored: the application's own, and plain values.

A pickle can name any callable of any module, so what is read from a wire or a disk is read by
this list: a class that the application's own modules define, or a value type of the standard
library. The same list holds when writing, so that nothing is sent or stored that could not be
read back.
"""

import builtins
import collections
import datetime
import decimal
import fractions
import importlib
import importlib.util
import ipaddress
import pathlib
import sys
import types
import uuid
from collections.abc import Mapping
from pathlib import Path

#: Value types of the standard library: making one has no effect but the value.
_STANDARD: tuple[type, ...] = (
    *(int, float, complex, bool, str, bytes, bytearray, list, tuple, dict, set, frozenset),
    *(object, range, slice),
    *(e for e in vars(builtins).values() if isinstance(e, type) and issubclass(e, BaseException)),
    *(collections.ChainMap, collections.Counter, collections.OrderedDict),
    *(collections.defaultdict, collections.deque),
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone),
    *(decimal.Decimal, fractions.Fraction, types.SimpleNamespace),
    *(ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network),
    *(ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network),
    *(pathlib.PurePath, pathlib.PurePosixPath, pathlib.PureWindowsPath),
    *(pathlib.Path, pathlib.PosixPath, uuid.UUID, uuid.SafeUUID),
)


class Refused(Exception):
    """A class that is not on the list; the message names it and says why."""


class AllowList:
    """Plain values, and classes of modules whose files lie below `folders`."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = [folder.resolve() for folder in folders]
        self._by_name: dict[tuple[str, str], type] = {}
        self._by_class: dict[type, bool] = dict.fromkeys(_STANDARD, True)
        for cls in _STANDARD:
            self._by_name[cls.__module__, cls.__qualname__] = cls

    def check(self, cls: type) -> None:
        """Raise `Refused` unless values of `cls` may be written."""
        known = self._by_class.get(cls)
        if known is None:
            known = self._by_class[cls] = self._find(cls.__module__, cls.__qualname__) is cls
        if not known:
            raise Refused(self._why(cls.__module__, cls.__qualname__))

    def find(self, module: str, name: str) -> type:
        """The class that a pickle names. Raises `Refused` unless it may be read."""
        found = self._by_name.get((module, name))
        if found is None:
            found = self._find(module, name)
            if found is None:
                raise Refused(self._why(module, name))
            self._by_name[module, name] = found
        return found

    def _find(self, module: str, name: str) -> type | None:
        if not self._is_own(module):
            return None
        # Dots lead through classes only: through a module they would lead anywhere.
        namespace: Mapping[str, object] = vars(
            sys.modules.get(module) or importlib.import_module(module)
        )
        found: object = None
        for part in name.split("."):
            found = namespace.get(part)
            if not isinstance(found, type):
                return None
            namespace = vars(found)
        if not isinstance(found, type) or (found.__module__, found.__qualname__) != (module, name):
            return None
        return found

    def _is_own(self, module: str) -> bool:
        loaded = sys.modules.get(module)
        if loaded is not None:
            return self._below(getattr(loaded, "__file__", None))
        try:
            # Only the first part: to find the rest would import it.
            spec = importlib.util.find_spec(module.partition(".")[0])
        except (ImportError, ValueError):
            return False
        # A folder without __init__.py has no file of its own, but places.
        if spec is None or not all(
            map(self._below, spec.submodule_search_locations or (spec.origin,))
        ):
            return False
        try:
            return self._below(getattr(importlib.import_module(module), "__file__", None))
        except ImportError:
            return False

    def _below(self, file: str | None) -> bool:
        if file is None:
            return False
        path = Path(file).resolve()
        return "site-packages" not in path.parts and any(
            path.is_relative_to(folder) for folder in self._folders
        )

    def _why(self, module: str, name: str) -> str:
        where = " or ".join(str(folder) for folder in self._folders)
        text = f"{module}.{name} may not be sent or stored"
        if "<locals>" in name:
            return f"{text}: it is defined inside a function; define it at the top of its module"
        if name.startswith("<"):
            return f"{text}: it has no name of its own"
        return (
            f"{text}: only plain values and classes defined in the application's own modules "
            f"(below {where}) may; make it a value of one of these"
        )
