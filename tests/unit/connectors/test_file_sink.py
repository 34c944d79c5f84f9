"""A file as a sink: byte for byte what was written, in parts on several workers."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.connectors.services import DirectServices

import wallaroo
from wallaroo.api.connectors import SinkWriter
from wallaroo.connectors import file_sink
from wallaroo.errors import InputError


def opened(path: Path, services: DirectServices | None = None) -> tuple[SinkWriter, DirectServices]:
    services = services or DirectServices()
    return wallaroo.FileSinkConfig(path).open(services), services


def finish(writer: SinkWriter) -> bool:
    """Whether it has finished at once."""
    finished: list[bool] = []
    writer.finish(lambda: finished.append(True))
    return bool(finished)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "counts.txt"


class TestWriting:
    def test_puts_bytes_and_text_one_after_the_other(self, file: Path) -> None:
        writer, _ = opened(file)
        writer.write([b"a\n", "é\n", b"\x00\xff"])
        writer.write(["b", ""])
        assert finish(writer)
        assert file.read_bytes() == b"a\n\xc3\xa9\n\x00\xffb"

    def test_nothing_makes_an_empty_file(self, file: Path) -> None:
        writer, _ = opened(file)
        writer.write([])
        writer.write([b"", ""])
        assert finish(writer)
        assert file.read_bytes() == b""

    def test_replaces_what_an_earlier_run_wrote(self, file: Path) -> None:
        file.write_text("old " * 100)
        writer, _ = opened(file)
        writer.write(["new"])
        finish(writer)
        assert file.read_text() == "new"

    def test_takes_the_batch_as_it_is_now(self, file: Path) -> None:
        """The list stays the caller's, who uses it again."""
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        batch: list[Any] = [b"first "]
        writer.write(batch)
        batch[:] = [b"second"]
        writer.write(batch)
        batch.clear()
        services.run_submitted()
        finish(writer)
        services.run_submitted()
        assert file.read_bytes() == b"first second"

    def test_keeps_the_order_while_the_disk_is_slow(self, file: Path) -> None:
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        for number in range(100):
            writer.write([f"{number}\n"])
            if number % 7 == 0:
                services.submitted.pop(0)()
        services.run_submitted()
        finish(writer)
        services.run_submitted()
        assert file.read_text() == "".join(f"{number}\n" for number in range(100))

    def test_has_one_write_under_way_at_most(self, file: Path) -> None:
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        for _ in range(10):
            writer.write(["a"])
        assert len(services.submitted) == 1
        writer.abort()

    def test_goes_on_where_the_disk_took_a_part(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer, _ = opened(file)
        raw: Any = writer

        class Slow:
            def __init__(self, inner: Any) -> None:
                self.inner = inner

            def write(self, data: memoryview) -> int:
                return int(self.inner.write(data[:3]))

            def __getattr__(self, name: str) -> Any:
                return getattr(self.inner, name)

        raw._file = Slow(raw._file)
        writer.write(["abcdefgh"])
        finish(writer)
        assert file.read_text() == "abcdefgh"


class TestRoom:
    @pytest.fixture(autouse=True)
    def _room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(file_sink, "_ROOM", 10)

    def test_is_none_while_the_disk_is_behind(self, file: Path) -> None:
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        writer.write(["12345"])
        had_room = writer.has_room
        writer.write(["67890"])
        assert had_room
        assert not writer.has_room
        writer.abort()

    def test_is_there_again_when_it_has_caught_up_and_the_dataflow_is_woken(
        self, file: Path
    ) -> None:
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        writer.write(["1234567890"])
        assert not writer.has_room
        services.run_submitted()
        assert writer.has_room
        assert services.wakes
        finish(writer)
        services.run_submitted()


class TestFinishing:
    def test_waits_until_everything_is_written(self, file: Path) -> None:
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        writer.write(["a"])
        finished: list[str] = []
        writer.finish(lambda: finished.append(file.read_text()))
        writer_was_early = bool(finished)
        services.run_submitted()
        assert not writer_was_early
        assert finished == ["a"]

    def test_closes_the_file(self, file: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        writer, _ = opened(file)
        finish(writer)
        assert len(os.listdir("/proc/self/fd")) == before

    def test_makes_the_file_durable(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", synced.append)
        writer, _ = opened(file)
        writer.write(["a"])
        finish(writer)
        assert len(synced) == 1

    def test_aborting_closes_the_file(self, file: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        writer, _ = opened(file)
        writer.abort()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_into_a_pipe_works_too(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            writer, services = opened(pipe)
            writer.write(["through"])
            assert finish(writer)
            assert os.read(reading, 100) == b"through"
            assert services.failures == []
        finally:
            os.close(reading)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_stops_the_application_with_words() -> None:
    writer, services = opened(Path("/dev/full"))
    writer.write(["a"])
    (failure,) = services.failures
    assert failure.message == "can't write /dev/full: No space left on device"
    assert failure.step == "sink /dev/full"
    writer.abort()


def test_a_disk_that_fails_when_it_is_synced_stops_the_application(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    writer, services = opened(file)
    writer.write(["a"])
    assert not finish(writer)
    assert services.failures[0].message == f"can't write {file}: Input/output error"
    writer.abort()


class TestWithoutAnEncoder:
    def test_each_event_is_a_line(self) -> None:
        encoder = wallaroo.FileSinkConfig[object]("out.txt").encoder
        assert encoder is not None
        assert [encoder(event) for event in ("a", 1, ("the", 2), None)] == [
            *("a\n", "1\n", "('the', 2)\n", "None\n")
        ]


class TestParts:
    @pytest.mark.parametrize(
        ("path", "part"),
        [
            ("counts.txt", "counts.part-2.txt"),
            ("out/counts.txt", "out/counts.part-2.txt"),
            ("counts", "counts.part-2"),
            ("counts.tar.gz", "counts.tar.part-2.gz"),
            (".hidden", ".hidden.part-2"),
        ],
    )
    def test_stand_beside_the_path(self, path: str, part: str) -> None:
        assert wallaroo.FileSinkConfig(path).part(2, 3) == Path(part)

    def test_are_not_needed_on_one_worker(self) -> None:
        """Ruling 29 of docs/protocol.md."""
        assert wallaroo.FileSinkConfig("counts.txt").part(0, 1) == Path("counts.txt")

    def test_are_written_by_their_workers(self, tmp_path: Path, file: Path) -> None:
        """Ruling 29 of docs/protocol.md: each ordinal its own part."""
        for worker in range(3):
            writer, _ = opened(file, DirectServices(worker, 3))
            writer.write([f"of {worker}"])
            finish(writer)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
            f"counts.part-{worker}.txt": f"of {worker}" for worker in range(3)
        }

    @staticmethod
    def leave(folder: Path, *names: str) -> None:
        for name in names:
            (folder / name).write_text("old")

    @pytest.mark.parametrize("name", ["counts.txt", "counts [1].txt", "counts"])
    def test_of_an_earlier_run_with_more_workers_are_removed(
        self, tmp_path: Path, name: str
    ) -> None:
        file = tmp_path / name
        stale = [file.with_name(f"{file.stem}.part-{n}{file.suffix}").name for n in range(5)]
        self.leave(tmp_path, *stale)
        for worker in (1, 0):
            writer, _ = opened(file, DirectServices(worker, 2))
            finish(writer)
        assert sorted(path.name for path in tmp_path.iterdir()) == stale[:2]

    def test_of_an_earlier_run_on_several_workers_are_removed_by_one(
        self, tmp_path: Path, file: Path
    ) -> None:
        self.leave(tmp_path, "counts.part-0.txt", "counts.part-1.txt")
        finish(opened(file)[0])
        assert [path.name for path in tmp_path.iterdir()] == ["counts.txt"]

    def test_replace_the_whole_file_of_an_earlier_run_on_one_worker(
        self, tmp_path: Path, file: Path
    ) -> None:
        file.write_text("old")
        finish(opened(file, DirectServices(0, 2))[0])
        assert [path.name for path in tmp_path.iterdir()] == ["counts.part-0.txt"]

    def test_are_told_from_other_files_beside_them(self, tmp_path: Path, file: Path) -> None:
        others = ["counts.part-x.txt", "counts.part-.txt", "counts.part-1.log", "my.part-1.txt"]
        self.leave(tmp_path, *others)
        finish(opened(file)[0])
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["counts.txt", *others])

    def test_of_others_are_left_alone_by_a_worker_that_is_not_the_first(
        self, tmp_path: Path, file: Path
    ) -> None:
        self.leave(tmp_path, "counts.part-0.txt", "counts.part-7.txt")
        finish(opened(file, DirectServices(1, 2))[0])
        assert (tmp_path / "counts.part-0.txt").read_text() == "old"
        assert (tmp_path / "counts.part-7.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("missing/counts.txt", "No such file or directory"),
        ("", "Is a directory"),
        ("file/counts.txt", "Not a directory"),
    ],
)
def test_a_path_that_can_not_be_written_is_refused_when_it_is_opened(
    tmp_path: Path, path: str, why: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"can't write {tmp_path / path}: {why}"):
        opened(tmp_path / path)
