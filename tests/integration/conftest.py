"""Fixtures for tests on real worker processes."""

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from processes import ROOT, Peer, Run

# For what unit tests have, too.
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def faults_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets applications import `faults`."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def write_app(tmp_path: Path) -> Callable[..., Path]:
    """Writes an application module from the text of its functions."""

    def write(text: str, name: str = "app") -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text("import wallaroo\n" + textwrap.dedent(text))
        return path

    return write


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts runs and ends what is left of them."""
    runs: list[Run] = []

    def begin(
        app: Path, *args: object, workers: int | None = 1, options: Sequence[object] = ()
    ) -> Run:
        run = Run(tmp_path, app, [str(arg) for arg in args], workers, list(map(str, options)))
        runs.append(run)
        return run

    yield begin
    for run in runs:
        run.kill()
