"""Only plain values and the application's own classes travel: neither writing nor reading more."""

import builtins
import functools
import importlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.unit.state import values as v

from wallaroo.state.allowlist import AllowList, Refused
from wallaroo.state.codec import Codec, CodecError

HERE = Path(__file__).parent

SOURCE = """
import os
import subprocess
from collections import UserDict
from subprocess import Popen
from app_other import Elsewhere

class Own:
    class Inner:
        pass
    os = os
    Popen = Popen

Alias = Own

def function():
    pass

def make():
    class Local:
        pass
    return Local

instance = Own()
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """An application's module, with another one beside it."""
    (tmp_path / "app_under_test.py").write_text(SOURCE)
    (tmp_path / "app_other.py").write_text("class Elsewhere:\n    pass\n")
    (tmp_path / "app_late.py").write_text("class Late:\n    pass\n")
    (tmp_path / "app_spaces" / "deep").mkdir(parents=True)
    (tmp_path / "app_spaces" / "deep" / "late.py").write_text("class Late:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield importlib.import_module("app_under_test")
    for name in set(sys.modules) - before:
        if name.startswith("app_"):
            del sys.modules[name]


@pytest.fixture
def allow(app: ModuleType, tmp_path: Path) -> AllowList:
    return AllowList([tmp_path])


def naming(module: str, name: str) -> bytes:
    """A pickle that is what `module` calls `name`."""
    return (
        b"\x80\x04"
        + b"".join(b"\x8c" + bytes([len(part.encode())]) + part.encode() for part in (module, name))
        + b"\x93."
    )


def calling(module: str, name: str, argument: str) -> bytes:
    """A pickle that calls it, as an attacker writes it."""
    return (
        naming(module, name)[:-1]
        + b"\x8c"
        + bytes([len(argument)])
        + argument.encode()
        + (b"\x85R.")
    )


class TestReading:
    def test_the_applications_own_classes_may_be_read(
        self, allow: AllowList, app: ModuleType
    ) -> None:
        assert allow.find("app_under_test", "Own") is app.Own
        assert allow.find("app_under_test", "Own.Inner") is vars(app.Own)["Inner"]

    def test_a_module_that_is_not_imported_yet_is(self, allow: AllowList) -> None:
        assert allow.find("app_late", "Late").__name__ == "Late"

    def test_a_module_in_folders_without_init_is_imported_too(self, allow: AllowList) -> None:
        assert allow.find("app_spaces.deep.late", "Late").__name__ == "Late"

    @pytest.mark.parametrize(
        ("module", "name"),
        [
            ("os", "system"),
            ("posix", "system"),
            ("nt", "system"),
            ("subprocess", "Popen"),
            ("builtins", "eval"),
            ("builtins", "exec"),
            ("builtins", "getattr"),
            ("builtins", "type"),
            ("builtins", "__import__"),
            ("builtins", "open"),
            ("builtins", "print"),
            ("functools", "partial"),
            ("functools", "reduce"),
            ("operator", "attrgetter"),
            ("importlib", "import_module"),
            ("pickle", "loads"),
            ("pathlib", "Path.unlink"),
            ("collections", "namedtuple"),
            ("collections", "OrderedDict.fromkeys"),
            ("types", "FunctionType"),
            ("types", "CodeType"),
            ("copyreg", "_reconstructor"),
            ("wallaroo.state.codec", "Codec"),
            ("wallaroo.testing", "run"),
            ("app_under_test", "os"),
            ("app_under_test", "os.system"),
            ("app_under_test", "subprocess.Popen"),
            ("app_under_test", "Popen"),
            ("app_under_test", "UserDict"),
            ("app_under_test", "Elsewhere"),
            ("app_under_test", "Alias"),
            ("app_under_test", "Own.os"),
            ("app_under_test", "Own.os.system"),
            ("app_under_test", "Own.Popen"),
            ("app_under_test", "Own.__class__"),
            ("app_under_test", "Own.__init__"),
            ("app_under_test", "Own.__subclasses__"),
            ("app_under_test", "Own.Missing"),
            ("app_under_test", "Missing"),
            ("app_under_test", "function"),
            ("app_under_test", "function.__globals__"),
            ("app_under_test", "make.<locals>.Local"),
            ("app_under_test", "instance"),
            ("app_under_test", "instance.__class__"),
            ("app_under_test", "__builtins__"),
            ("app_under_test", ""),
            ("app_under_test.os", "system"),
            ("app_missing", "Own"),
            ("", "Own"),
            (".", "Own"),
            ("..app_under_test", "Own"),
        ],
        ids=str,
    )
    def test_anything_else_is_refused_by_name(
        self, allow: AllowList, module: str, name: str
    ) -> None:
        with pytest.raises(CodecError) as caught:
            Codec(allow).decode(naming(module, name))
        assert f"{module}.{name} may not be sent or stored" in str(caught.value)

    def test_a_call_of_a_function_is_refused_before_it_is_made(
        self, allow: AllowList, tmp_path: Path
    ) -> None:
        victim = tmp_path / "made"
        for module, name in (
            ("os", "mkdir"),
            ("posix", "mkdir"),
            ("app_under_test", "os.mkdir"),
            ("app_under_test", "Own.os.mkdir"),
        ):
            with pytest.raises(CodecError, match=r"mkdir may not be sent or stored"):
                Codec(allow).decode(calling(module, name, str(victim)))
        assert not victim.exists()

    def test_the_same_call_would_be_made_by_a_plain_unpickler(self, tmp_path: Path) -> None:
        """Else the test above would prove nothing."""
        victim = tmp_path / "made"
        pickle.loads(calling("os", "mkdir", str(victim)))
        assert victim.exists()

    def test_what_is_refused_is_refused_inside_a_block_too(self, allow: AllowList) -> None:
        data = pickle.dumps((None, [v.ReducesTo(os.system, "true")]), 5)
        with pytest.raises(CodecError, match=r"system may not be sent or stored"):
            Codec(allow).decode_block(data)

    def test_a_module_outside_the_folders_is_not_imported_for_a_name(
        self,
        allow: AllowList,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        (elsewhere / "app_foreign.py").write_text("class Foreign:\n    pass\n")
        monkeypatch.syspath_prepend(elsewhere)
        with pytest.raises(Refused, match=r"app_foreign\.Foreign may not be sent or stored"):
            allow.find("app_foreign", "Foreign")
        assert "app_foreign" not in sys.modules

    def test_what_pip_installed_below_the_folder_is_not_the_applications_own(
        self, allow: AllowList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        packages = tmp_path / ".venv" / "lib" / "site-packages"
        packages.mkdir(parents=True)
        (packages / "app_installed.py").write_text("class Installed:\n    pass\n")
        monkeypatch.syspath_prepend(packages)
        with pytest.raises(Refused):
            allow.find("app_installed", "Installed")


def local_class() -> type:
    class Local:
        pass

    return Local


class TestWriting:
    """Ruling 9 of docs/protocol.md: nothing is committed that could not be read back."""

    CODEC = Codec(AllowList([HERE]))

    @pytest.mark.parametrize(
        ("value", "named"),
        [
            (print, "the function print"),
            (local_class, "the function local_class"),
            (lambda: 0, "the function TestWriting.<lambda>"),
            (functools.partial(print), "functools.partial"),
            (threading.Lock(), "_thread.lock"),
            (os, "builtins.module"),
            (subprocess.CompletedProcess("a", 0), "subprocess.CompletedProcess"),
            (local_class()(), "local_class.<locals>.Local"),
            (type("Nameless", (), {})(), "Nameless"),
            (v.ReducesTo(os.system, "true"), "the function system"),
            (v.RebuiltByFunction(), "the function rebuild"),
            ((letter for letter in "abc"), "builtins.generator"),
        ],
        ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
    )
    @pytest.mark.parametrize("way", ["alone", "in a block", "inside an object", "in a list"])
    def test_what_could_not_be_read_is_refused_by_name(
        self, value: Any, named: str, way: str
    ) -> None:
        encode: dict[str, Callable[[], bytes]] = {
            "alone": lambda: self.CODEC.encode(value),
            "in a block": lambda: self.CODEC.encode_block([v.Plain(), value]),
            "inside an object": lambda: self.CODEC.encode_block([v.Plain(value)]),
            "in a list": lambda: self.CODEC.encode([[value]]),
        }
        with pytest.raises(CodecError) as caught:
            encode[way]()
        assert f"{named} may not be sent or stored" in str(caught.value)

    @pytest.mark.parametrize(
        ("cls", "named"),
        [
            (local_class(), "local_class.<locals>.Local"),
            (subprocess.Popen, "subprocess.Popen"),
            (type, "builtins.type"),
        ],
    )
    def test_a_class_held_by_an_object_is_refused_by_name(self, cls: type, named: str) -> None:
        with pytest.raises(CodecError) as caught:
            self.CODEC.encode_block([v.Plain(kind=cls)])
        assert f"{named} may not be sent or stored" in str(caught.value)

    def test_a_local_class_is_refused_with_advice(self) -> None:
        with pytest.raises(CodecError, match="define it at the top of its module"):
            self.CODEC.encode(local_class()())

    def test_another_class_is_refused_with_the_folders_that_count(self) -> None:
        with pytest.raises(CodecError, match=str(HERE)):
            self.CODEC.encode(threading.Lock())

    def test_a_class_that_its_module_has_replaced_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its name would lead the reader to the other one."""
        value = v.Plain()
        monkeypatch.setattr(v, "Plain", type("Plain", (), {"__module__": v.__name__}))
        with pytest.raises(CodecError, match=r"values\.Plain may not be sent or stored"):
            Codec(AllowList([HERE])).encode(value)

    def test_a_class_of_wallaroo_is_not_the_applications_own(self) -> None:
        with pytest.raises(CodecError, match=r"wallaroo\.state\.allowlist\.AllowList"):
            self.CODEC.encode(AllowList([]))

    def test_what_is_refused_stays_refused(self) -> None:
        value = local_class()()
        for _ in range(2):
            with pytest.raises(CodecError, match="Local may not be sent or stored"):
                self.CODEC.encode(value)


@pytest.mark.parametrize(
    "cls",
    [
        cls
        for cls in vars(builtins).values()
        if isinstance(cls, type) and issubclass(cls, BaseException)
    ],
    ids=lambda cls: str(cls.__name__),
)
def test_every_exception_of_the_language_may_travel(cls: type) -> None:
    allow = AllowList([])
    allow.check(cls)
    assert allow.find(cls.__module__, cls.__qualname__) is cls
