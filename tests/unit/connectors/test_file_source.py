"""Files as a source: exactly their lines or frames, and words where they can't be read."""

import gzip
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.connectors.services import DirectServices

import wallaroo
from wallaroo import testing
from wallaroo.api.connectors import SourceReader
from wallaroo.connectors import file_source
from wallaroo.errors import InputError


@wallaroo.decoder(header_length=4, length_fmt=">i")
def decode(payload: bytes) -> bytes:
    return payload


def framed(*payloads: bytes) -> bytes:
    return b"".join(struct.pack(">i", len(payload)) + payload for payload in payloads)


def drain(reader: SourceReader, services: DirectServices, limit: int = 3) -> list[Any]:
    """All that a reader gives until it ends or fails."""
    found: list[Any] = []
    while not reader.ended and not services.failures:
        events = reader.read(limit)
        assert len(events) <= limit
        found += events
    return found


def read(
    path: Path | str, decoder: wallaroo.Decoder[bytes] | None = None
) -> tuple[list[Any], DirectServices]:
    config: Any = (
        wallaroo.FileSourceConfig("book", path, decoder)
        if decoder
        else wallaroo.FileSourceConfig("book", path)
    )
    services = DirectServices()
    found = []
    for partition in config.partitions():
        found += drain(config.open(partition, services), services)
    return found, services


def lines(path: Path | str) -> list[Any]:
    found, services = read(path)
    assert services.failures == []
    return found


def failure(path: Path | str, decoder: wallaroo.Decoder[bytes] | None = None) -> str:
    """The message with which reading fails."""
    _, services = read(path, decoder)
    (found,) = services.failures
    assert found.step == "source 'book'"
    return found.message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "book.txt"


@pytest.fixture(params=[1, 2, 3, 7, 1 << 18], ids=lambda size: f"chunks of {size}")
def _chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_source, "_CHUNK", request.param)


@pytest.mark.usefixtures("_chunk")
class TestLines:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("a\nb\n", ["a", "b"]),
            ("a\nb", ["a", "b"]),
            ("a\r\nb\r\n", ["a", "b"]),
            ("a\r\nb", ["a", "b"]),
            ("", []),
            ("\n", [""]),
            ("\n\na\n", ["", "", "a"]),
            ("a\n\n", ["a", ""]),
            ("\r\n", [""]),
            ("a\rb\n", ["a\rb"]),
            ("a\r\r\n", ["a\r"]),
            ("page\fnext\n", ["page\fnext"]),
            ("a\vb\x1cc\x85d\u2028e\n", ["a\vb\x1cc\x85d\u2028e"]),
            ("grüße ✓ 𝄞\nzwei\n", ["grüße ✓ 𝄞", "zwei"]),
            ("\ufeffa\n", ["\ufeffa"]),
            (" a \n\tb\n", [" a ", "\tb"]),
        ],
        ids=ascii,
    )
    def test_come_as_they_are_without_their_ends(
        self, file: Path, content: str, expected: list[str]
    ) -> None:
        file.write_bytes(content.encode())
        assert lines(file) == expected

    def test_of_a_compressed_file_come_as_of_a_plain_one(self, tmp_path: Path) -> None:
        file = tmp_path / "book.txt.gz"
        file.write_bytes(gzip.compress("grüße\r\nzwei\n".encode()))
        assert lines(file) == ["grüße", "zwei"]

    def test_of_a_compressed_file_of_several_members_all_come(self, tmp_path: Path) -> None:
        file = tmp_path / "book.txt.gz"
        file.write_bytes(gzip.compress(b"a\nb") + gzip.compress(b"c\nd\n"))
        assert lines(file) == ["a", "bc", "d"]

    def test_of_an_empty_compressed_file_are_none(self, tmp_path: Path) -> None:
        file = tmp_path / "book.txt.gz"
        file.write_bytes(gzip.compress(b""))
        assert lines(file) == []


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.text(st.sampled_from("ab\n\r\f\u2028é✓")) | st.text(),
    chunk=st.integers(1, 12),
    limit=st.integers(1, 5),
)
def test_lines_of_any_text_in_any_chunks_are_what_lies_between_line_feeds(
    file: Path, content: str, chunk: int, limit: int
) -> None:
    file.write_bytes(content.encode())
    expected = content.split("\n")
    if not expected[-1]:
        expected.pop()
    expected = [line.removesuffix("\r") for line in expected]
    services = DirectServices()
    reader = wallaroo.FileSourceConfig("book", file).open(str(file), services)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_source, "_CHUNK", chunk)
        assert drain(reader, services, limit) == expected


@pytest.mark.usefixtures("_chunk")
class TestFrames:
    def test_come_as_their_payloads(self, file: Path) -> None:
        payloads = [b"a", b"", b"bc\n", bytes(range(256)), b"d" * 1000]
        file.write_bytes(framed(*payloads))
        found, services = read(file, decode)
        assert (found, services.failures) == (payloads, [])

    def test_of_an_empty_file_are_none(self, file: Path) -> None:
        file.write_bytes(b"")
        assert read(file, decode)[0] == []

    @pytest.mark.parametrize(("cut", "inside"), [(1, 5), (4, 2), (5, 1)])
    def test_that_end_with_the_file_inside_one_are_a_failure(
        self, file: Path, cut: int, inside: int
    ) -> None:
        file.write_bytes(framed(b"whole", b"ab")[:-cut])
        message = failure(file, decode)
        assert f"source 'book': can't read {file} after byte " in message
        assert message.endswith(f": the file ends inside a frame, {inside} bytes after its start")

    def test_before_one_that_is_cut_short_come_still(self, file: Path) -> None:
        file.write_bytes(framed(b"a", b"b", b"cut")[:-1])
        assert read(file, decode)[0] == [b"a", b"b"]

    @pytest.mark.parametrize("length", [-1, -(2**31), 2**31 - 1, (1 << 24) + 1])
    def test_whose_length_can_not_be_are_a_failure(self, file: Path, length: int) -> None:
        file.write_bytes(framed(b"a") + struct.pack(">i", length) + b"rest")
        assert f"a frame's header says {length} bytes" in failure(file, decode)


class TestWhatCanNotBeRead:
    def test_bytes_that_are_not_utf8_are_named_with_their_place(self, file: Path) -> None:
        file.write_bytes(b"good\nbad \xff\n")
        assert failure(file) == (
            f"source 'book': can't read {file} after byte 0: "
            "it is not UTF-8: byte 0xff (invalid start byte)"
        )

    @pytest.mark.usefixtures("_chunk")
    def test_a_character_cut_short_by_the_end_is_named(self, file: Path) -> None:
        file.write_bytes("good\né".encode()[:-1])
        assert "it is not UTF-8: byte 0xc3 (unexpected end of data)" in failure(file)

    @pytest.mark.parametrize("left", [5, 15, -9, -1])
    def test_a_compressed_file_cut_short_is_named(self, tmp_path: Path, left: int) -> None:
        file = tmp_path / "book.gz"
        file.write_bytes(gzip.compress(os.urandom(200).hex().encode())[:left])
        assert "it is damaged: Compressed file ended" in failure(file)

    def test_a_damaged_compressed_file_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "book.gz"
        data = bytearray(gzip.compress(os.urandom(2000).hex().encode()))
        data[100:200] = bytes(100)
        file.write_bytes(data)
        assert f"source 'book': can't read {file}" in failure(file)

    def test_a_plain_file_called_gz_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "book.gz"
        file.write_text("not compressed\n")
        assert "Not a gzipped file" in failure(file)

    @pytest.mark.parametrize("name", ["book.txt", "book.gz"])
    def test_a_file_that_went_away_is_named(self, tmp_path: Path, name: str) -> None:
        file = tmp_path / name
        file.write_text("a\n")
        services = DirectServices()
        reader = wallaroo.FileSourceConfig("book", file).open(str(file), services)
        file.unlink()
        drain(reader, services)
        assert services.failures[0].message == (
            f"source 'book': can't read {file} after byte 0: No such file or directory"
        )

    def test_a_line_without_an_end_is_refused_at_its_limit(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_source, "_LONGEST", 100)
        monkeypatch.setattr(file_source, "_CHUNK", 10)
        file.write_bytes(b"a\n" + b"x" * 1000)
        assert "a line is longer than 100 bytes" in failure(file)

    def test_lines_before_the_damage_come_still(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_source, "_CHUNK", 4)
        file.write_bytes(b"abc\ndef\n\xff\n")
        assert read(file)[0] == ["abc", "def"]

    @pytest.mark.parametrize("name", ["book.txt", "book.gz"])
    def test_leaves_no_file_open(self, tmp_path: Path, name: str) -> None:
        file = tmp_path / name
        file.write_bytes(b"\xff")
        before = open_files()
        failure(file)
        assert open_files() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


class TestPartitions:
    def test_of_a_pattern_are_its_files_in_order(self, tmp_path: Path) -> None:
        for name in ("b.txt", "a.txt", "c.log", "a10.txt", "a9.txt"):
            (tmp_path / name).write_text(name + "\n")
        (tmp_path / "folder.txt").mkdir()
        assert lines(tmp_path / "*.txt") == ["a.txt", "a10.txt", "a9.txt", "b.txt"]

    def test_of_a_recursive_pattern_are_found_below(self, tmp_path: Path) -> None:
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / "deep" / "er" / "a.txt").write_text("deep\n")
        (tmp_path / "b.txt").write_text("top\n")
        assert lines(tmp_path / "**" / "*.txt") == ["top", "deep"]

    def test_of_one_path_is_that_file(self, file: Path) -> None:
        file.write_text("a\n")
        assert wallaroo.FileSourceConfig("book", file).partitions() == [str(file)]

    @pytest.mark.parametrize("name", ["a[1].txt", "what?.txt", "all*.txt", "[x].gz"])
    def test_of_a_file_whose_name_looks_like_a_pattern_is_that_file(
        self, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / name).write_text("a\n")
        (tmp_path / "all of it.txt").write_text("b\n")
        path = str(tmp_path / name)
        assert wallaroo.FileSourceConfig("book", path).partitions() == [path]

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda path: None, "no file matches"),
            (lambda path: path.mkdir(), "is a folder"),
            (lambda path: path.symlink_to("nowhere"), "it links to nothing"),
        ],
        ids=["missing", "folder", "dangling link"],
    )
    def test_of_what_is_no_file_are_refused(
        self, file: Path, make: Callable[[Path], None], message: str
    ) -> None:
        make(file)
        with pytest.raises(InputError) as caught:
            wallaroo.FileSourceConfig("book", file).partitions()
        assert str(caught.value).startswith("source 'book': ")
        assert message in str(caught.value)
        assert str(file) in str(caught.value)

    def test_of_a_pattern_that_matches_only_folders_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").mkdir()
        with pytest.raises(InputError, match="no file matches"):
            wallaroo.FileSourceConfig("book", tmp_path / "*.txt").partitions()

    def test_of_a_file_that_may_not_be_read_are_refused(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file.write_text("a\n")
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
        with pytest.raises(InputError, match=rf"can't read {file}: Permission denied"):
            wallaroo.FileSourceConfig("book", file).partitions()

    def test_are_refused_in_a_test_run_with_the_same_words(self, tmp_path: Path) -> None:
        config = wallaroo.FileSourceConfig("book", tmp_path / "missing")
        pipeline = wallaroo.source("book", config).to_sink(wallaroo.FileSinkConfig("out"))
        with pytest.raises(ValueError, match="source 'book': no file matches"):
            testing.run(wallaroo.build_application("book", pipeline))


class TestReadingAhead:
    def test_does_not_block_while_the_disk_is_slow(self, file: Path) -> None:
        file.write_text("a\nb\n")
        services = DirectServices(wait=True)
        reader = wallaroo.FileSourceConfig("book", file).open(str(file), services)
        assert reader.read(10) == []
        assert not reader.ended

    def test_wakes_the_dataflow_when_there_is_something_to_read(self, file: Path) -> None:
        file.write_text("a\nb\n")
        services = DirectServices(wait=True)
        reader = wallaroo.FileSourceConfig("book", file).open(str(file), services)
        reader.read(10)
        services.run_submitted()
        assert services.wakes == 1
        assert reader.read(10) == ["a", "b"]
        services.run_submitted()

    def test_is_of_one_chunk_at_most(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(file_source, "_CHUNK", 4)
        file.write_text("a\nb\n" * 100)
        services = DirectServices(wait=True)
        reader = wallaroo.FileSourceConfig("book", file).open(str(file), services)
        reader.read(10)
        services.run_submitted()
        assert reader.read(1) == ["a"]
        assert services.submitted == [], "it reads on before the chunk is used up"
        assert reader.read(10) == ["b"]
        assert len(services.submitted) == 1
        services.run_submitted()
        reader.stop()

    def test_ends_only_after_the_last_event_was_taken(self, file: Path) -> None:
        file.write_text("a\nb")
        services = DirectServices()
        reader = wallaroo.FileSourceConfig("book", file).open(str(file), services)
        taken = []
        while not reader.ended:
            taken += reader.read(1)
        assert taken == ["a", "b"]


class TestStopping:
    def reader(self, file: Path, services: DirectServices) -> SourceReader:
        file.write_text("a\nb\n" * 10)
        return wallaroo.FileSourceConfig("book", file).open(str(file), services)

    @pytest.mark.parametrize("reads", [0, 1, 2, 3])
    def test_leaves_no_file_open_and_is_no_failure(self, file: Path, reads: int) -> None:
        services = DirectServices()
        reader = self.reader(file, services)
        before = open_files()
        for _ in range(reads):
            reader.read(10)
        reader.stop()
        assert reader.ended
        assert open_files() == before
        assert services.failures == []

    def test_while_a_chunk_is_being_read_closes_the_file_afterwards(self, file: Path) -> None:
        services = DirectServices(wait=True)
        reader = self.reader(file, services)
        before = open_files()
        reader.read(10)
        reader.stop()
        services.run_submitted()
        assert open_files() == before
        assert services.failures == []

    def test_gives_nothing_more_and_stays_where_it_is(self, file: Path) -> None:
        services = DirectServices()
        reader = self.reader(file, services)
        reader.read(10)
        assert reader.read(3) == ["a", "b", "a"]
        reader.stop()
        assert reader.read(10) == []
        assert reader.position() == {"bytes": 6}

    def test_while_a_chunk_is_being_read_drops_it(self, file: Path) -> None:
        services = DirectServices(wait=True)
        reader = self.reader(file, services)
        reader.read(10)
        reader.close()
        services.run_submitted()
        assert (reader.ended, reader.read(10), services.wakes) == (True, [], 0)
        assert reader.position() == {"bytes": 0}

    def test_while_reading_fails_is_no_failure(self, file: Path) -> None:
        services = DirectServices(wait=True)
        reader = self.reader(file, services)
        reader.read(10)
        file.unlink()
        reader.close()
        services.run_submitted()
        assert services.failures == []


def opened(path: Path, position: Any, decoder: Any = None) -> tuple[SourceReader, DirectServices]:
    services = DirectServices()
    config: Any = (
        wallaroo.FileSourceConfig("book", path, decoder)
        if decoder
        else wallaroo.FileSourceConfig("book", path)
    )
    return config.open(str(path), services, position), services


def check_cuts(path: Path, chunk: int, limits: list[int], decoder: Any = None) -> None:
    """Read with `limits`, and go on from every place between: nothing is lost or doubled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_source, "_CHUNK", chunk)
        patch.setattr(file_source, "_SKIP", 2 * chunk)
        expected = drain(*opened(path, None, decoder))
        reader, services = opened(path, None, decoder)
        positions = [(0, reader.position())]
        found: list[Any] = []
        while not reader.ended:
            found += reader.read(limits[len(positions) % len(limits)])
            positions.append((len(found), reader.position()))
        assert services.failures == []
        assert found == expected
        reader.stop()
        positions.append((len(found), reader.position()))
        for count, position in positions:
            assert list(position) == ["bytes"]
            again, services = opened(path, position, decoder)
            assert again.position() == position
            assert drain(again, services) == expected[count:]
            assert again.position() == positions[-1][1]
            assert services.failures == []


_cuts = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class TestGoingOn:
    """Ruling 27 of docs/protocol.md: from the byte after the last line handed on."""

    @pytest.mark.parametrize("packed", [False, True])
    @_cuts
    @given(
        content=st.text(st.sampled_from("ab\n\n\r\f\u2028é✓𝄞"), max_size=40)
        | st.lists(st.sampled_from(["", "a", "é\r", "𝄞\n", "\r\n", "x\r\n"])).map("".join),
        chunk=st.integers(1, 12),
        limits=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
    )
    def test_gives_exactly_the_lines_that_are_left(
        self, tmp_path: Path, packed: bool, content: str, chunk: int, limits: list[int]
    ) -> None:
        file = tmp_path / ("book.gz" if packed else "book.txt")
        data = content.encode()
        file.write_bytes(gzip.compress(data) if packed else data)
        check_cuts(file, chunk, limits)

    @pytest.mark.parametrize("packed", [False, True])
    @_cuts
    @given(
        payloads=st.lists(st.binary(max_size=12), max_size=10),
        chunk=st.integers(1, 20),
        limits=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
    )
    def test_gives_exactly_the_frames_that_are_left(
        self, tmp_path: Path, packed: bool, payloads: list[bytes], chunk: int, limits: list[int]
    ) -> None:
        file = tmp_path / ("book.gz" if packed else "book.txt")
        data = framed(*payloads)
        file.write_bytes(gzip.compress(data) if packed else data)
        check_cuts(file, chunk, limits, decode)

    @pytest.mark.parametrize(
        ("content", "positions"),
        [
            (b"a\nb\n", [0, 2, 4]),
            (b"a\r\nb", [0, 3, 4]),
            (b"\n\r\n\n", [0, 1, 3, 4]),
            ("é\n𝄞".encode(), [0, 3, 7]),
        ],
    )
    def test_is_from_the_byte_after_each_line(
        self, file: Path, content: bytes, positions: list[int]
    ) -> None:
        file.write_bytes(content)
        reader, _ = opened(file, None)
        found = [reader.position()["bytes"]]
        while not reader.ended:
            if reader.read(1):
                found.append(reader.position()["bytes"])
        assert found == positions

    def test_reads_what_was_appended_since(self, file: Path) -> None:
        file.write_text("a\n")
        reader, services = opened(file, None)
        drain(reader, services)
        with file.open("a") as appending:
            appending.write("b\n")
        assert drain(*opened(file, reader.position())) == ["b"]

    @pytest.mark.parametrize("name", ["book.txt", "book.gz"])
    def test_in_a_file_that_was_truncated_is_a_failure_with_words(
        self, tmp_path: Path, name: str
    ) -> None:
        file = tmp_path / name
        file.write_bytes(b"a\nb\n" if name == "book.txt" else gzip.compress(b"a\nb\n"))
        before = open_files()
        reader, services = opened(file, {"bytes": 5})
        assert drain(reader, services) == []
        (failure,) = services.failures
        assert failure.message == (
            f"source 'book': can't read {file} after byte 5: it has only 4 bytes now, so it was "
            "truncated or replaced since the checkpoint; put it back as it was, or run the "
            "application anew, from the beginning"
        )
        assert failure.step == "source 'book'"
        assert open_files() == before

    def test_in_a_compressed_file_does_not_skip_in_one_piece(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_source, "_SKIP", 10)
        file = tmp_path / "book.gz"
        file.write_bytes(gzip.compress(b"a\n" * 50))
        services = DirectServices(wait=True)
        reader = wallaroo.FileSourceConfig("book", file).open(str(file), services, {"bytes": 90})
        jobs = 0
        while not (events := reader.read(100)):
            assert reader.position() == {"bytes": 90}
            services.submitted.pop(0)()
            jobs += 1
        assert (jobs, events) == (10, ["a"] * 5)
        reader.close()
        services.run_submitted()

    @pytest.mark.parametrize("position", [{}, {"generator": 1}, 7, {"bytes": "x"}, {"bytes": -1}])
    def test_from_the_state_of_another_kind_of_source_is_refused(
        self, file: Path, position: Any
    ) -> None:
        with pytest.raises(InputError, match="'book': the saved state is of another kind"):
            opened(file, position)


class TestAPipe:
    def test_can_not_be_read_again(self, file: Path) -> None:
        os.mkfifo(file)
        reading = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        writing = os.open(file, os.O_WRONLY)
        os.write(writing, b"a\nb\n")
        closing = threading.Timer(0.1, lambda: os.close(writing))
        closing.start()
        reader, services = opened(file, None)
        assert drain(reader, services) == ["a", "b"]
        closing.join()
        os.close(reading)
        assert reader.position() is None

    def test_instead_of_a_file_is_a_failure(self, file: Path) -> None:
        os.mkfifo(file)
        writing = os.open(file, os.O_RDWR)
        reader, services = opened(file, {"bytes": 2})
        drain(reader, services)
        os.close(writing)
        assert "after byte 2: it is no file any more" in services.failures[0].message


@pytest.mark.parametrize("workers", [1, 3])
def test_files_are_shared_between_workers_and_each_is_read_once(
    tmp_path: Path, workers: int
) -> None:
    for number in range(7):
        (tmp_path / f"{number}.txt").write_text(f"{number} a\n{number} b\n")
    config = wallaroo.FileSourceConfig("book", tmp_path / "*.txt")
    pipeline = wallaroo.source("book", config).to_sink(wallaroo.FileSinkConfig("unused"))
    result = testing.run(wallaroo.build_application("book", pipeline), workers=workers)
    assert sorted(result.values()) == [f"{number} {line}" for number in range(7) for line in "ab"]
