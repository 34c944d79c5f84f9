"""A file as a sink: byte for byte what was written, in parts on several workers."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.connectors.forgetful import ForgetfulDisk
from tests.unit.connectors.services import DirectServices

import wallaroo
from wallaroo.api.connectors import SinkWriter
from wallaroo.connectors import file_sink
from wallaroo.disk import RealDisk
from wallaroo.errors import InputError


def opened(
    path: Path, services: DirectServices | None = None, mark: dict[str, Any] | None = None
) -> tuple[SinkWriter, DirectServices]:
    services = services or DirectServices()
    return wallaroo.FileSinkConfig(path).open(services, mark), services


def keep(writer: SinkWriter, epoch: int = 1) -> dict[str, Any]:
    """Take a checkpoint that is done at once; its mark."""
    marks: list[Any] = []
    writer.checkpoint(epoch, marks.append)
    (mark,) = marks
    assert isinstance(mark, dict)
    return mark


def commit(writer: SinkWriter, epoch: int = 1) -> bool:
    """Whether it has published at once."""
    done: list[bool] = []
    writer.commit(epoch, lambda: done.append(True))
    return done == [True]


def finish(writer: SinkWriter) -> bool:
    """A final barrier: whether all is published at once."""
    done: list[bool] = []
    writer.checkpoint(1, lambda _: writer.commit(1, lambda: done.append(True)))
    if done:
        writer.close()
    return bool(done)


def finish_slowly(writer: SinkWriter, services: DirectServices) -> None:
    """A final barrier of a writer whose disk is slow."""
    done: list[bool] = []
    writer.checkpoint(1, lambda _: writer.commit(1, lambda: done.append(True)))
    services.run_submitted()
    assert done
    writer.close()


def pending(services: DirectServices) -> list[str]:
    return sorted(path.name for path in services.folder.iterdir())


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
        finish_slowly(writer, services)
        assert file.read_bytes() == b"first second"

    def test_keeps_the_order_while_the_disk_is_slow(self, file: Path) -> None:
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        for number in range(100):
            writer.write([f"{number}\n"])
            if number % 7 == 0:
                services.submitted.pop(0)()
        services.run_submitted()
        finish_slowly(writer, services)
        assert file.read_text() == "".join(f"{number}\n" for number in range(100))

    def test_has_one_write_under_way_at_most(self, file: Path) -> None:
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        for _ in range(10):
            writer.write(["a"])
        assert len(services.submitted) == 1
        writer.close()


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
        writer.close()

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


class TestCommitting:
    """Ruling 28 of docs/protocol.md."""

    def test_makes_the_output_appear(self, file: Path) -> None:
        writer, services = opened(file)
        writer.write(["a"])
        seen = [file.read_text()]
        mark = keep(writer)
        seen.append(file.read_text())
        assert commit(writer)
        assert [*seen, file.read_text()] == ["", "", "a"]
        assert mark == {"path": str(file), "start": 0, "length": 1, "pending": mark["pending"]}
        assert pending(services) == []

    def test_publishes_no_more_than_its_epoch(self, file: Path) -> None:
        writer, services = opened(file)
        writer.write(["first"])
        keep(writer)
        writer.write(["second"])
        commit(writer)
        seen = file.read_text()
        mark = keep(writer, 2)
        commit(writer, 2)
        assert (seen, file.read_text()) == ("first", "firstsecond")
        assert (mark["start"], mark["length"]) == (5, 6)
        assert pending(services) == []

    def test_waits_until_everything_is_written(self, file: Path) -> None:
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        writer.write(["a"])
        marks: list[Any] = []
        writer.checkpoint(1, marks.append)
        early = list(marks)
        services.run_submitted()
        done: list[str] = []
        writer.commit(1, lambda: done.append(file.read_text()))
        early += done
        services.run_submitted()
        assert early == []
        assert (len(marks), done) == (1, ["a"])

    def test_takes_the_next_epoch_meanwhile(self, file: Path) -> None:
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        writer.write(["a"])
        services.run_submitted()
        marks: list[Any] = []
        writer.checkpoint(1, marks.append)
        writer.write(["b"])
        assert len(services.submitted) == 2
        services.submitted.pop()()
        services.run_submitted()
        writer.write(["c"])
        writer.commit(1, lambda: None)
        writer.checkpoint(2, marks.append)
        services.run_submitted()
        writer.commit(2, lambda: None)
        services.run_submitted()
        assert file.read_text() == "abc"
        assert [(mark["start"], mark["length"]) for mark in marks] == [(0, 1), (1, 2)]

    def test_again_does_nothing(self, file: Path) -> None:
        writer, _ = opened(file)
        writer.write(["a"])
        keep(writer)
        assert commit(writer)
        assert commit(writer)
        assert file.read_text() == "a"

    def test_an_epoch_without_output_touches_no_file(self, file: Path) -> None:
        disk = ForgetfulDisk(0)
        services = DirectServices(disk=disk)
        writer, _ = opened(Path("/nowhere/counts.txt"), services)
        before = disk.operations
        marks = [keep(writer, epoch) for epoch in range(1, 4) if commit(writer, epoch)]
        assert disk.operations == before
        assert len(marks) == 3
        assert {mark["pending"] for mark in marks} == {None}

    def test_keeps_the_mark_plain(self, file: Path) -> None:
        writer, _ = opened(file)
        writer.write(["a"])
        assert all(type(value) in (str, int, type(None)) for value in keep(writer).values())
        writer.close()

    def test_keeps_no_file_open(self, file: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        writer, _ = opened(file)
        writer.write(["a"])
        keep(writer)
        assert len(os.listdir("/proc/self/fd")) == before

    def test_is_not_told_to_one_that_is_closed(self, file: Path) -> None:
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        writer.write(["a"])
        marks: list[Any] = []
        writer.checkpoint(1, marks.append)
        services.submitted.pop(0)()
        writer.close()
        services.run_submitted()
        assert (marks, services.failures) == ([], [])


class TestGoingOn:
    """Ruling 28 of docs/protocol.md: recovery truncates, then writes what was not published."""

    def begun(self, file: Path, *, published: bool) -> tuple[dict[str, Any], DirectServices]:
        """What is left after `abc` was published and `defg` committed."""
        writer, services = opened(file)
        writer.write(["abc"])
        keep(writer)
        commit(writer)
        writer.write(["defg"])
        mark = keep(writer, 2)
        if published:
            commit(writer, 2)
        writer.write(["not committed"])
        writer.close()
        return mark, services

    @pytest.mark.parametrize("published", [False, True])
    def test_publishes_what_was_committed_and_drops_the_rest(
        self, file: Path, published: bool
    ) -> None:
        mark, services = self.begun(file, published=published)
        writer, _ = opened(file, services, mark)
        assert file.read_text() == "abcdefg"
        assert pending(services) == []
        assert commit(writer, 2)
        writer.write(["hi"])
        keep(writer, 3)
        commit(writer, 3)
        assert file.read_text() == "abcdefghi"

    @pytest.mark.parametrize("published", [False, True])
    def test_cuts_what_is_not_of_the_application(self, file: Path, published: bool) -> None:
        mark, services = self.begun(file, published=published)
        with file.open("a") as appending:
            appending.write("something else")
        opened(file, services, mark)
        assert file.read_text() == "abcdefg"

    def test_leaves_parts_of_others_alone(self, tmp_path: Path, file: Path) -> None:
        mark, services = self.begun(file, published=True)
        other = tmp_path / "counts.part-1.txt"
        other.write_text("other")
        opened(file, services, mark)
        assert other.read_text() == "other"

    def test_anew_forgets_what_was_pending(self, file: Path) -> None:
        _, services = self.begun(file, published=False)
        opened(file, services)
        assert file.read_text() == ""
        assert pending(services) == []

    @pytest.mark.parametrize(
        ("published", "size", "least"), [(False, 2, 3), (True, 3, 7), (True, 6, 7), (False, 0, 3)]
    )
    def test_behind_a_file_that_was_shortened_is_refused(
        self, file: Path, published: bool, size: int, least: int
    ) -> None:
        mark, services = self.begun(file, published=published)
        os.truncate(file, size)
        with pytest.raises(InputError) as caught:
            opened(file, services, mark)
        assert str(caught.value) == (
            f"the output file {file} has {size} bytes: it was shortened since the last "
            f"checkpoint, when it had {least}, by {least - size} bytes. Put it back as it was, "
            "or run the application anew, from the beginning"
        )

    @pytest.mark.parametrize("published", [False, True])
    def test_behind_a_file_that_is_gone_is_refused(self, file: Path, published: bool) -> None:
        mark, services = self.begun(file, published=published)
        file.unlink()
        with pytest.raises(InputError, match=f"the output file {file} is gone: it had "):
            opened(file, services, mark)

    def test_behind_output_that_waits_and_was_shortened_is_refused(self, file: Path) -> None:
        mark, services = self.begun(file, published=False)
        os.truncate(services.folder / str(mark["pending"]), 3)
        with pytest.raises(InputError, match="was shortened from 4 to 3 bytes"):
            opened(file, services, mark)

    def test_with_another_path_is_refused(self, tmp_path: Path, file: Path) -> None:
        mark, services = self.begun(file, published=True)
        with pytest.raises(InputError, match=f"the output so far is in {file}"):
            opened(tmp_path / "other.txt", services, mark)

    def test_a_file_that_vanishes_while_it_is_written_stops_the_application(
        self, file: Path
    ) -> None:
        writer, services = opened(file)
        writer.write(["abc"])
        keep(writer)
        commit(writer)
        file.unlink()
        writer.write(["def"])
        keep(writer, 2)
        assert not commit(writer, 2)
        assert services.failures[0].message.startswith(f"the output file {file} is gone")
        assert not file.exists()


class TestClosing:
    def test_lets_its_threads_touch_nothing_any_more(self, file: Path) -> None:
        services = DirectServices(wait=True)
        writer, _ = opened(file, services)
        writer.write(["a"])
        writer.close()
        services.run_submitted()
        assert pending(services) == []
        assert services.failures == []

    def test_waits_for_an_operation_that_is_under_way(self, file: Path) -> None:
        inside, release = threading.Event(), threading.Event()

        class Slow(RealDisk):
            def write_at(self, path: Path, offset: int, data: bytes) -> None:
                inside.set()
                release.wait()
                super().write_at(path, offset, data)

        services = DirectServices(wait=True, disk=Slow())
        writer, _ = opened(file, services)
        writer.write(["a"])
        writing = threading.Thread(target=services.submitted.pop())
        closing = threading.Thread(target=writer.close)
        writing.start()
        inside.wait()
        closing.start()
        closing.join(0.05)
        waited = closing.is_alive()
        release.set()
        closing.join()
        assert pending(services) != []
        writing.join()
        assert waited


class TestAPipe:
    """It has no place to write to again: at least once."""

    @pytest.fixture
    def pipe(self, tmp_path: Path) -> Iterator[tuple[Path, int]]:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        yield pipe, reading
        os.close(reading)

    def test_gets_each_epoch_when_it_is_committed(self, pipe: tuple[Path, int]) -> None:
        path, reading = pipe
        writer, services = opened(path)
        for epoch in range(1, 4):
            writer.write([f"epoch {epoch}"])
            keep(writer, epoch)
            with pytest.raises(BlockingIOError):
                os.read(reading, 100)
            assert commit(writer, epoch)
            assert os.read(reading, 100) == f"epoch {epoch}".encode()
        assert services.failures == []
        assert pending(services) == []
        writer.close()
        assert os.read(reading, 100) == b""

    def test_gets_what_was_committed_when_the_application_goes_on(
        self, pipe: tuple[Path, int]
    ) -> None:
        path, reading = pipe
        writer, services = opened(path)
        writer.write(["committed"])
        mark = keep(writer)
        writer.close()
        writer, _ = opened(path, services, mark)
        assert os.read(reading, 100) == b"committed"
        assert pending(services) == []
        writer.close()

    def test_is_closed_after_what_is_under_way(self, pipe: tuple[Path, int]) -> None:
        path, reading = pipe
        services = DirectServices(wait=True)
        writer, _ = opened(path, services)
        writer.write(["a"])
        writer.checkpoint(1, lambda _: writer.commit(1, lambda: None))
        for _ in ("write", "keep"):
            services.submitted.pop(0)()
        writer.close()
        services.run_submitted()
        assert os.read(reading, 100) == b""
        assert services.failures == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_stops_the_application_with_words() -> None:
    writer, services = opened(Path("/dev/full"))
    writer.write(["a"])
    assert not finish(writer)
    (failure,) = services.failures
    assert failure.message == (
        "can't write /dev/full: No space left on device. Mend that, then run the application again"
    )
    assert failure.step == "sink /dev/full"
    writer.close()


class _Failing(RealDisk):
    """Can't sync the files of one folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder: Path | None = folder
        self.fails = False

    def sync(self, path: Path) -> None:
        if self.fails and path.parent == self.folder:
            raise OSError(errno.EIO, "Input/output error")
        super().sync(path)


def test_a_disk_that_fails_when_it_is_synced_stops_the_application(file: Path) -> None:
    disk = _Failing(file.parent)
    writer, services = opened(file, DirectServices(disk=disk))
    writer.write(["a"])
    disk.fails = True
    keep(writer)
    assert not commit(writer)
    assert services.failures[0].message.startswith(f"can't write {file}: Input/output error")
    writer.close()


def test_a_folder_that_fails_is_named_too(file: Path, tmp_path: Path) -> None:
    disk = _Failing(tmp_path / "state")
    writer, services = opened(file, DirectServices(disk=disk, folder=tmp_path / "state"))
    writer.write(["a"])
    disk.fails = True
    assert not finish(writer)
    assert services.failures[0].message.startswith(
        f"can't keep output of {file} in {tmp_path / 'state'}: Input/output error"
    )
    writer.close()


def test_a_folder_that_can_not_be_made_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(InputError, match=f"can't keep output of {file} in {tmp_path}/state/sink: "):
        opened(file, DirectServices(folder=tmp_path / "state" / "sink"))


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


class TestWorkersThatComeAndGo:
    """Ruling 29 of docs/protocol.md: each worker's part is its own, however many there are."""

    def test_who_wrote_the_file_itself_goes_on_with_it_on_several_workers(self, file: Path) -> None:
        writer, services = opened(file)
        writer.write(["alone "])
        mark = keep(writer)
        commit(writer)
        writer.close()
        services.workers = 3
        again, _ = opened(file, services, mark)
        again.write(["and with others"])
        finish(again)
        assert file.read_text() == "alone and with others"
        assert [path.name for path in file.parent.iterdir()] == ["counts.txt"]

    def test_who_wrote_a_part_goes_on_with_it_when_it_is_alone(self, file: Path) -> None:
        writer, services = opened(file, DirectServices(0, 3))
        writer.write(["with others "])
        mark = keep(writer)
        commit(writer)
        writer.close()
        services.workers = 1
        again, _ = opened(file, services, mark)
        again.write(["and alone"])
        finish(again)
        assert file.with_name("counts.part-0.txt").read_text() == "with others and alone"
        assert not file.exists()

    def test_one_that_joins_writes_its_part_and_leaves_the_others_alone(self, file: Path) -> None:
        file.write_text("of worker 0")
        other = file.with_name("counts.part-1.txt")
        other.write_text("of worker 1")
        mine = file.with_name("counts.part-2.txt")
        mine.write_text("of a run before")
        writer, _ = opened(file, DirectServices(2, 3))
        assert mine.read_text() == ""
        writer.write(["of worker 2"])
        finish(writer)
        assert [path.read_text() for path in (file, other, mine)] == [
            *("of worker 0", "of worker 1", "of worker 2")
        ]

    def test_one_that_joins_a_single_worker_does_not_write_its_file(self, file: Path) -> None:
        file.write_text("of worker 0")
        writer, _ = opened(file, DirectServices(1, 2))
        writer.write(["of worker 1"])
        finish(writer)
        assert file.read_text() == "of worker 0"
        assert file.with_name("counts.part-1.txt").read_text() == "of worker 1"

    def test_one_that_comes_back_writes_on_at_its_mark(self, file: Path) -> None:
        """What it had begun in an attempt that came to nothing is cut off."""
        writer, _ = opened(file, DirectServices(2, 3))
        writer.write(["first "])
        mark = keep(writer)
        commit(writer)
        writer.close()
        part = file.with_name("counts.part-2.txt")
        part.write_text(part.read_text() + "of no epoch")
        again, services = opened(file, DirectServices(2, 4), mark)
        assert part.read_text() == "first "
        again.write(["second"])
        finish(again)
        assert part.read_text() == "first second"
        assert services.failures == []

    def test_one_that_left_and_restarts_publishes_what_was_committed(self, file: Path) -> None:
        """It is no member any more: there are fewer workers than its number says."""
        writer, services = opened(file, DirectServices(2, 3))
        writer.write(["the last words"])
        mark = keep(writer)
        writer.close()
        part = file.with_name("counts.part-2.txt")
        assert part.read_text() == ""
        services.workers = 1
        again, _ = opened(file, services, mark)
        assert part.read_text() == "the last words"
        assert pending(services) == []
        again.close()

    def test_none_goes_on_with_the_part_of_another(self, file: Path) -> None:
        writer, _ = opened(file, DirectServices(2, 3))
        mark = keep(writer)
        writer.close()
        with pytest.raises(InputError, match=r"the output so far is in .*counts.part-2.txt"):
            opened(file, DirectServices(1, 3), mark)
