"""What a run shows of itself where there is no terminal."""

from typing import Any

import pytest

from wallaroo.cli.show import Log


def status(**changes: Any) -> dict[str, Any]:
    return {"phase": "running", "stop_requested": False, "members": [0], "workers": []} | changes


def test_a_stop_is_told_of_once_where_it_has_to_wait(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.update(status())
    for _ in range(3):
        log.update(status(stop_requested=True))
    log.update(status(stop_requested=True, phase="stopping"))
    said = capfd.readouterr().err
    assert said.count("asked to stop") == 1
    assert said.index("asked to stop") < said.index("event=stopping")


def test_a_stop_that_begins_at_once_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    Log().update(status(stop_requested=True, phase="stopping"))
    assert "asked to stop" not in capfd.readouterr().err
