import gzip
import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

import wallaroo
from wallaroo import testing

word_count = importlib.import_module("word_count")
top = importlib.import_module("top")

FOLDER = Path(word_count.__file__ or "").parent


def totals(lines: list[bytes]) -> Counter[str]:
    """How often each word has a line; raises unless its totals are 1, 2, 3, … in this order."""
    found: Counter[str] = Counter()
    for line in lines:
        word, total = line.decode().removesuffix("\n").split(" => ")
        found[word] += 1
        assert found[word] == int(total), line
    return found


@pytest.fixture(scope="module")
def counted() -> Counter[str]:
    """The words of the book, without Wallaroo."""
    with gzip.open(FOLDER / "kjv.txt.gz", "rt") as book:
        verses = [line.split(" ", 1)[1].lower() for line in book]
    return Counter(word for verse in verses for word in re.split("[^a-z]+", verse) if word)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_the_book_is_counted_by_any_number_of_workers(workers: int, counted: Counter[str]) -> None:
    application = word_count.application_setup(["word_count"])
    result = testing.run(application, workers=workers, seed=workers)
    found = totals(result.encoded())
    assert found == counted
    assert len(result.states) == workers
    for states in result.states:
        assert len(states["count words"]) > len(counted) / workers * 0.8


def test_the_counts_are_those_in_expected_txt(counted: Counter[str]) -> None:
    lines = [f"# {counted.total()} words, {len(counted)} of them distinct"]
    lines += [f"{word} => {count}" for word, count in counted.most_common(20)]
    assert (FOLDER / "expected.txt").read_text().splitlines() == lines
    assert counted["the"] == 63_919


def test_split_drops_the_reference_and_folds_case() -> None:
    assert word_count.split("1Co13:4 Charity suffereth long, LONG.") == [
        "charity",
        "suffereth",
        "long",
        "long",
    ]
    assert word_count.split("No reference 1:1 here") == ["no", "reference", "here"]
    assert word_count.split("") == []


def test_count_sends_the_running_total() -> None:
    total = word_count.Total()
    assert [word_count.count("a", total) for _ in range(3)] == [("a", 1), ("a", 2), ("a", 3)]
    assert word_count.encode_count(("a", 3)) == "a => 3\n"


def test_tcp_takes_frames_of_text() -> None:
    args = ["word_count", "--in", "lines@127.0.0.1:7010", "--out", "127.0.0.1:7002"]
    application = word_count.application_setup(args)
    result = testing.run(application, {"lines": ["b a", "b"]}, workers=2)
    assert totals(result.encoded()) == {"a": 1, "b": 2}
    assert word_count.decode_line("é".encode()) == "é"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--txt", "a"], "word_count: unrecognized arguments: --txt a"),
        (["--text"], "word_count: argument --text: expected one argument"),
        (["--in", "a@b:1"], "needs --out"),
        (["--in", "a@b:1", "--out", "file.txt"], "'file.txt' is not host:port"),
        (["--in", "a@b:1,c@d:2", "--out", "e:3"], "--in takes one address"),
        (["--in", "a@b:1", "--out", "e:3,f:4"], "--out takes one address"),
        (["--in", "a@b:1", "--out", "e:3", "--text", "x"], "either --text or --in"),
    ],
)
def test_wrong_arguments_are_told(args: list[str], message: str) -> None:
    with pytest.raises(wallaroo.WallarooParameterError, match=re.escape(message)):
        word_count.application_setup(["folder/word_count", *args])


# top.py


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """What three workers write: each the lines of the words whose state it holds."""
    lines = ["the a the of", "of the in begat", "and it came to pass"]
    application = word_count.application_setup(["word_count"])
    result = testing.run(application, {"text": lines}, workers=3)
    out = tmp_path / "words.txt"
    sink = wallaroo.FileSinkConfig[object](out)
    for worker, states in enumerate(result.states):
        words = states["count words"]
        assert words
        mine = [line for line in result.encoded() if line.split()[0].decode() in words]
        sink.part(worker, 3).write_bytes(b"".join(mine))
    return out


def test_top_shows_workers_and_words(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert top.main([str(output), "--top", "2"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"│ +1 │ 5555555555555555 │ aaaaaaaaaaaaaaa9 │", shown)
    assert "ffffffffffffffff" in shown
    assert re.findall(r"│ (\w+) +│ +(\d+) │ +[012] │$", shown, re.MULTILINE) == [
        ("the", "3"),
        ("of", "2"),
    ]
    assert len(re.findall(r"\d%", shown)) == 3


def test_top_reads_the_one_file_of_one_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("b => 1\na => 1\nb => 2\n")
    assert top.main([str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "100.0%" in shown
    assert re.search(r"│ b +│ +2 │ +0 │", shown)


def test_top_tells_a_word_in_the_wrong_part(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (output.with_name(f"words.part-{worker}.txt") for worker in (0, 1))
    word = first.read_text().split()[0]
    with second.open("a") as part:
        part.write(f"{word} => 1\n")
    assert top.main([str(output)]) == 1
    told = capsys.readouterr().err
    assert f"'{word}' is in {second}" in told
    assert "belongs to worker 0" in told


@pytest.mark.parametrize("lines", ["a => 1\na => 3\n", "a => 1\na => 1\n", "a => 2\n", "a\n"])
def test_top_tells_a_total_out_of_turn(
    tmp_path: Path, lines: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text(lines)
    assert top.main([str(tmp_path / "out")]) == 1
    assert "should be total" in capsys.readouterr().err


def test_top_tells_parts_that_do_not_belong_together(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output.touch()
    assert top.main([str(output)]) == 1
    assert "words.txt itself is there, too" in capsys.readouterr().err
    output.unlink()
    output.with_name("words.part-1.txt").unlink()
    assert top.main([str(output)]) == 1
    assert "words.part-1.txt is missing" in capsys.readouterr().err
    assert top.main([str(output.with_name("other.txt"))]) == 1
    assert "there is neither" in capsys.readouterr().err
