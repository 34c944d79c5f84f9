"""Makes `tests.unit` importable, for what tests share, whatever pytest's import mode."""

import sys
from pathlib import Path

import pytest

from wallaroo.state.native import AVAILABLE

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)


@pytest.fixture(
    params=[False, pytest.param(True, marks=pytest.mark.skipif(not AVAILABLE, reason="not built"))],
    ids=["python", "native"],
)
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether stores that are opened use what is written in C: such a test runs with both."""
    from tests.unit.state import keeping

    use: bool = request.param
    monkeypatch.setattr(keeping, "NATIVE", use)
    return use
