"""A type checker sees a step that does not fit the one before it."""

import re
from pathlib import Path

from mypy import api

PROGRAM = """
import wallaroo

class Total:
    count = 0

@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(payload: bytes) -> str:
    return payload.decode()

@wallaroo.computation(name="length")
def length(line: str) -> int:
    return len(line)

@wallaroo.computation_multi(name="split")
def split(line: str) -> list[str]:
    return line.split()

@wallaroo.key_extractor
def word(line: str) -> str:
    return line

@wallaroo.state_computation(name="count", state=Total)
def count(line: str, total: Total) -> tuple[str, int] | None:
    total.count += 1
    return (line, total.count)

@wallaroo.encoder
def encode(result: tuple[str, int]) -> bytes:
    return result[0].encode()

lines = wallaroo.source("lines", wallaroo.TCPSourceConfig("lines", "127.0.0.1", 7010, decode))
sink = wallaroo.TCPSinkConfig("127.0.0.1", 7011, encode)
"""

#: Each with whether it fits.
LINES = {
    "lines.to(split).key_by(word).to(count).to_sink(sink)": True,
    "lines.merge(lines.to(split)).key_by(word).to(count).to_sinks([sink, sink])": True,
    "lines.to(length).to(split)": False,
    "lines.to(length).key_by(word)": False,
    "lines.to(length).to(count)": False,
    "lines.merge(lines.to(length)).to(split)": False,
    "lines.key_by(word).to_sink(sink)": False,
    "lines.to(word)": False,
    "wallaroo.TCPSinkConfig('127.0.0.1', 7011, decode)": False,
}


def test_a_step_that_does_not_fit_is_seen_and_one_that_fits_is_not(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + "\n".join(LINES) + "\n")
    out, _, _ = api.run(["--strict", "--cache-dir", str(tmp_path / "cache"), str(program)])
    wrong = {int(number) for number in re.findall(r"program\.py:(\d+): error", out)}
    first = PROGRAM.count("\n") + 1
    found = {line: first + index not in wrong for index, line in enumerate(LINES)}
    assert found == LINES, out
