"""What a person at a terminal sees."""

import os
import re
import subprocess
import sys
from pathlib import Path

from processes import ROOT, WALLAROO, cli

EXAMPLE = ROOT / "examples" / "word_count" / "word_count.py"


def test_a_terminal_shows_one_live_line_and_a_result(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    command = [WALLAROO, "run", "--workers", "2", "--dir", str(tmp_path / "dir"), str(EXAMPLE)]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out.txt")],
        stderr=theirs,
        stdin=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "150"},
    )
    os.close(theirs)
    seen = b""
    try:
        while data := os.read(ours, 4096):
            seen += data
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert re.search(
        r"2 workers {2}[\d,]+ events/s {2}[\d,]+ read {2}[\d,]+ keys {2}epoch \d", text
    )
    assert "word count: read 31,102 events, kept 12,544 keys, wrote 791,450 outputs" in text


def test_elsewhere_there_are_a_few_structured_lines(
    tmp_path: Path,
) -> None:
    done = cli("run", "--dir", str(tmp_path / "d"), str(EXAMPLE), "--out", str(tmp_path / "o"))
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.startswith("timestamp=") for line in lines), done.stderr
    assert lines[-1].endswith("event=ended read=31102 written=791450 keys=12544")
    assert len(lines) < 10


def test_python_m_wallaroo_is_the_same_command() -> None:
    command = [sys.executable, "-m", "wallaroo", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split()[-1] == cli("--version").stdout.split()[-1] == "0.1.0"
