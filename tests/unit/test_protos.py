"""The generated Python of the wire is that of the files in protos/."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def normal(path: Path) -> str:
    """Without the generator's version, which says nothing about the wire."""
    text = path.read_text()
    text = re.sub(r"(?m)^# Protobuf Python Version.*$|^GRPC_GENERATED_VERSION.*$", "", text)
    return re.sub(r"ValidateProtobufRuntimeVersion\([^)]*\)|(?s:\"\"\".*?\"\"\")", "", text)


def test_the_committed_modules_are_what_the_protos_generate(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "protos" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.generate(tmp_path)
    committed = ROOT / "worker" / "wallaroo" / "v1"
    generated = tmp_path / "wallaroo" / "v1"
    names = {path.name for path in generated.iterdir()}
    assert names == {path.name for path in committed.iterdir() if path.is_file()}
    for name in sorted(names):
        assert normal(generated / name) == normal(committed / name), f"{name}: run 'make protos'"
