"""Tests of state run on the tables in Python and on those in C."""

import pytest
from tests.unit.state import keeping

from wallaroo.state.native import AVAILABLE


@pytest.fixture(
    params=[False, pytest.param(True, marks=pytest.mark.skipif(not AVAILABLE, reason="not built"))],
    ids=["python", "native"],
)
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether stores that are opened use what is written in C."""
    use: bool = request.param
    monkeypatch.setattr(keeping, "NATIVE", use)
    return use
