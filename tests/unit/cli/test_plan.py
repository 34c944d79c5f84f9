"""`wallaroo plan`: what it prints, and what it refuses."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wallaroo.cli.main import cli

THREE_FIVE_ONE = """\
3 to 5 workers
  moves    40.00% of the hash interval
  minimum  40.00%
  pairs    4 of donor and receiver
  pieces   5 afterwards, 3 before

  donor   receiver    moves   in pieces
 ───────────────────────────────────────
      0          3   13.33%           1
      1          3    6.67%           1
      1          4    6.67%           1
      2          4   13.33%           1

5 to 1 worker
  moves    80.00% of the hash interval
  minimum  80.00%
  pairs    4 of donor and receiver
  pieces   1 afterwards, 5 before

  donor   receiver    moves   in pieces
 ───────────────────────────────────────
      1          0   20.00%           1
      2          0   20.00%           1
      3          0   20.00%           1
      4          0   20.00%           1

"""


def plan(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli, ["plan", *arguments])


def test_it_prints_each_step_with_what_each_pair_moves() -> None:
    done = plan("3", "5", "1")
    assert done.exit_code == 0
    assert "".join(line.rstrip() + "\n" for line in done.stdout.splitlines()) == THREE_FIVE_ONE


def test_each_step_goes_on_from_the_one_before() -> None:
    seen = re.findall(r"pieces +(\d+) afterwards, (\d+) before", plan(*"3572373").stdout)
    assert [before for _, before in seen] == ["3", *(after for after, _ in seen[:-1])]


@pytest.mark.parametrize(
    ("arguments", "fraction"),
    [
        (("3", "4"), "25.00%"),
        (("4", "3"), "25.00%"),
        (("2", "3"), "33.33%"),
        (("1", "64"), "98.44%"),
    ],
)
def test_what_moves_is_the_minimum(arguments: tuple[str, str], fraction: str) -> None:
    text = plan(*arguments).stdout
    assert f"moves    {fraction} of" in text
    assert f"minimum  {fraction}\n" in text


def test_the_same_number_moves_nothing() -> None:
    text = plan("3", "3").stdout
    assert "moves    0.00%" in text
    assert "pairs    0 of" in text
    assert "donor  " not in text


def test_a_share_that_moves_is_never_shown_as_none() -> None:
    text = plan("200", "201").stdout
    assert "<0.01%" in text
    assert " 0.00%" not in text


def test_it_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert plan("3", "5").exit_code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name at least two numbers of workers, from which and to which: wallaroo plan 3 5"),
        (["3"], "name at least two numbers of workers"),
        (["0", "3"], "no application on 0 workers: write a number from 1 on"),
        (["3", "00"], "no application on 0 workers"),
        (["3", "-1"], "'-1' is no number of workers: write one from 1 on"),
        (["3", "five"], "'five' is no number of workers"),
        (["3", "5.5"], "'5.5' is no number of workers"),
        (["3", "٣"], "'٣' is no number of workers"),
        (["3", ""], "'' is no number of workers"),
        (["--workers", "3"], "'--workers' is no number of workers"),
        (["3", "1001"], "1001 workers are too many: write a number up to 1000"),
        (["3", "9" * 5000], "999999999… workers are too many"),
    ],
)
def test_what_makes_no_plan_is_refused_in_words(arguments: list[str], message: str) -> None:
    done = plan(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
