"""Mistakes, each put into the real code for as long as a `with` lasts.

A mistake is a piece of a function's text that is replaced by another. When the function changes so
that the piece is no longer there, the mistake has to be told anew: `Mistake.__enter__` says so.
"""

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

from tests.simulation import sim_disk, sim_streams
from tests.simulation.sim_run import run_seed, small

from wallaroo.connectors import file_sink
from wallaroo.dataflow import engine
from wallaroo.protocol import coordinator, member
from wallaroo.runtime import attempt, manifests, node
from wallaroo.state import allowlist, codec, delta, donor, entries, live, native, settlement, store

Mistake = Callable[[], contextlib.AbstractContextManager[Any]]


def text(owner: Any, name: str, *pieces: tuple[str, str]) -> Mistake:
    """Replace pieces in the text of `owner.name`, each by another."""

    def change() -> contextlib.AbstractContextManager[Any]:
        function = inspect.unwrap(getattr(owner, name))
        source = textwrap.dedent(inspect.getsource(function))
        for old, new in pieces:
            if source.count(old) != 1:
                raise AssertionError(f"{owner.__name__}.{name} has {source.count(old)} of {old!r}")
            source = source.replace(old, new)
        found: dict[str, Any] = {}
        environment = vars(sys.modules[function.__module__])
        exec(source, environment, found)
        return mock.patch.object(owner, name, found[name])

    return change


def instead(owner: Any, name: str, value: Any) -> Mistake:
    """Replace `owner.name`."""
    return lambda: mock.patch.object(owner, name, value)


def _write_unsynced(disk: Any, path: Any, data: Any) -> None:
    disk.write(path, data)
    disk.sync_folder(path.parent)


def _create_unsynced(disk: Any, path: Any, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.draft")
    disk.write(draft, [data])
    disk.link(draft, path)
    disk.remove(draft)
    disk.sync_folder(path.parent)


def _pass_late(original: Any) -> Any:
    """Take the positions of sources one event too late."""

    def late(self: engine.Engine, task: Any, barrier: Any) -> None:
        source, task.source = task.source, None
        original(self, task, barrier)
        task.source = source
        if source is None:
            return
        events = source.read(1) if source.readers and not barrier.final else []
        if events:
            self._run(task, source.decoder, events, self._clock())
        source.freeze(self._codec.encode)

    return late


def _publish_early(original: Any) -> Any:
    """Publish what is kept, committed or not."""

    def is_kept(self: Any, epoch: int, output: Any, done: Any) -> None:
        original(self, epoch, output, done)
        self._services.submit(
            lambda: self._place.publish(output.start, output.length, output.name),
            lambda _: None,
            lambda _: None,
        )

    return is_kept


def _has_dict(cls: type) -> bool:
    """Whether its instances have a `__dict__`, and no base is written in C."""
    return cls.__dictoffset__ != 0 and all(b.__flags__ & 1 << 9 for b in cls.__mro__[:-1])


def _make_folder(self: sim_disk.ProcessDisk, path: Path) -> None:
    """Make a folder whose name is not synced."""
    if self.machine.folder(str(path)) is None:
        self.make_folder(path.parent)
        self._folder(path.parent).change((path.name, sim_disk.Folder()))


_FORM_AT_ONCE = """self._generation += 1
    self.committed = replace(self.committed, generation=self._generation, parts=parts)
    return self._form()
    return ("""

#: By name: what is changed.
MISTAKES: dict[str, list[Mistake]] = {
    "a delta is not synced": [instead(delta, "write_durably", _write_unsynced)],
    "a manifest is not synced": [instead(manifests, "create_durably", _create_unsynced)],
    "folders are not synced": [
        instead(sim_disk.ProcessDisk, "sync_folder", lambda self, folder: None)
    ],
    "pending output is not synced": [
        text(file_sink._Place, "keep", ("self._disk.sync(self.folder / name)", "pass"))
    ],
    "output is not synced before its pending file goes": [
        text(
            file_sink._Place,
            "publish",
            ("with self._gate:\n            self._disk.sync(self.part)", "pass"),
        )
    ],
    "streams of an old generation are taken": [
        instead(sim_streams.Receiver, "expects", lambda self, generation: True)
    ],
    "the first barrier is enough": [
        text(
            engine.Engine,
            "_read_inbox",
            (
                "if all(each.barrier for each in inputs):",
                "inbox.barrier = None\n        if task.passed < barrier.epoch:",
            ),
        )
    ],
    "positions are taken after the cut": [
        instead(engine.Engine, "_pass", _pass_late(engine.Engine._pass))
    ],
    "output is published before its commit": [
        instead(file_sink._Writer, "_is_kept", _publish_early(file_sink._Writer._is_kept))
    ],
    "one worker that has rolled back is enough": [
        text(
            coordinator.Coordinator,
            "_is_ready",
            ("not self._ready >= set(self.committed.members)", "not self._ready"),
        )
    ],
    "a generation is used before it is durable": [
        text(
            coordinator.Coordinator,
            "_maybe_form",
            (
                "return self._persist(",
                _FORM_AT_ONCE,
            ),
        )
    ],
    "a commit is announced before it is durable": [
        text(
            coordinator.Coordinator,
            "_prepared",
            (
                "return self._persist(self._next(",
                (
                    "return self._tell_all(Commit(self._generation, epoch)) + "
                    "self._persist(self._next("
                ),
            ),
        )
    ],
    "entries leave the memory before the base has them": [
        text(live.Place, "evict", ("any(key in live for live in unsynced)", "False")),
        text(
            native.NativePlace,
            "evict",
            ("min(unsynced, default=self.live.now)", "self.live.now"),
        ),
    ],
    "a rollback keeps what uncommitted epochs touched": [
        text(
            store.Store,
            "_drop",
            ("if each > epoch for pair in pairs", "if False for pair in pairs"),
        )
    ],
    "a rollback keeps what the current epoch touched": [
        text(live.Place, "drop", ("lives = [self.live, *touched]", "lives = [*touched]")),
        text(native.NativePlace, "drop", ("self.live.now]", "self.live.now + 1]")),
    ],
    "generations follow each other at full speed": [
        text(coordinator.Coordinator, "_fault", ("if self._fruitless:", "if False:"))
    ],
    "uncommitted deltas are merged": [
        text(store.Store, "_due", ("if mark.epoch <= self._committed", ""))
    ],
    "the barrier is put on some outputs only": [
        text(
            engine.Engine,
            "_pass",
            ("for outbox in task.outboxes:", "for outbox in task.outboxes[1:]:"),
        )
    ],
    "an epoch is reported before the last is published": [
        text(member.Member, "_maybe_prepared", ("self.published < durable.epoch - 1", "False"))
    ],
    "output that waited is not published by recovery": [
        text(
            file_sink._Place,
            "open",
            ("else:\n        if name in left:", "else:\n        if False:"),
        )
    ],
    "output of an earlier life is kept": [
        text(
            file_sink._Place,
            "open",
            ("self._disk.write(self.part, [])", "self._disk.write_at(self.part, 0, b'')"),
        )
    ],
    "a final barrier lets sources go on": [
        text(
            engine._SourceInput,
            "take_barrier",
            ("if barrier.final and not self.stopping:", "if False:"),
            ("if barrier.final and self.readers:", "if False:"),
        )
    ],
    "workers that have read all end the application": [
        text(
            coordinator.Coordinator,
            "_maybe_inject",
            (
                "if not (self._due",
                "if drained:\n        return self._finish(Phase.ENDED)\n    if not (self._due",
            ),
        )
    ],
    "every class is written as its __dict__": [
        instead(entries, "is_plain", _has_dict),
        instead(codec, "is_plain", _has_dict),
    ],
    "whatever can't be read back is written": [
        instead(allowlist.AllowList, "check", lambda self, cls: None)
    ],
    "a first touch does not ask who owns the key": [
        text(live.Place, "first_touch", ("not self.owns(self.point(proper))", "False")),
        text(native.NativePlace, "_check", ("not self.owns(self.point(key))", "False")),
    ],
    "an entry that is touched again is encoded as it is then": [
        instead(store.Store.__init__, "__kwdefaults__", {"native": False}),
        text(live.Live, "__missing__", ("place.encode_early(key, state)", "pass")),
    ],
    "a stage that waits holds up all others": [
        text(engine.Engine, "step", ("for offset in range(count):", "for offset in range(1):"))
    ],
    "recovery does not wait for work in the background": [
        text(
            node.Node,
            "_maybe_go_back",
            ("if why:", "if False:"),
        )
    ],
    "an epoch begins while another is in flight": [
        text(
            coordinator.Coordinator,
            "_maybe_inject",
            (
                "if self.phase is not Phase.RUNNING or self._injected:",
                "if self.phase is not Phase.RUNNING:",
            ),
        )
    ],
    # Of rescales.
    "those that join need not be waited for": [
        text(
            engine.Engine,
            "_read_inbox",
            ("if barrier.switch or not each.joining]", "if not each.joining]"),
        )
    ],
    "a donor says that all has come when the switch begins": [
        text(
            donor.Donor,
            "switch",
            (
                "self._left = set(self._store.places)",
                (
                    "self._left = set(self._store.places)\n"
                    "    for place in list(self._left): self.ended(place)"
                ),
            ),
        )
    ],
    "a donor does not wait until all is encoded": [
        instead(store.Store.__init__, "__kwdefaults__", {"native": False}),
        text(store.Store, "_encode", ("self._catcher.ended(place.number)", "pass")),
        text(
            live.Place,
            "freeze",
            (
                "self._has_frozen(self)",
                (
                    "self._has_frozen(self)\n"
                    "    catcher = self._has_frozen.__self__._catcher\n"
                    "    if catcher: catcher.ended(self.number)"
                ),
            ),
        ),
    ],
    "a switch is reported before what was given is durable": [
        text(node.Node, "_maybe_durable", ("not attempt.staging.durable", "False"))
    ],
    "events of moved keys are not held back": [
        text(engine.Engine, "_hold_back", ("if donor is None:", "if True:"))
    ],
    "what is held back is overtaken": [
        text(engine.Engine, "_read_inbox", (" or task.released", "")),
        text(engine.Engine, "step", ("for task in self._tasks:", "for task in ():")),
        text(
            engine.Engine,
            "_run",
            (
                "batch = self._batch(task, entry)",
                (
                    "batch = self._batch(task, entry)\n"
                    "    if task.released:\n"
                    "        more = task.released.popleft()\n"
                    "        self._batch(task, more[0]).run(events)\n"
                    "        events = more[1]\n"
                    "        batch = self._batch(task, more[0])"
                ),
            ),
        ),
    ],
    "a donor forgets what moves before that is committed": [
        text(
            attempt.Attempt,
            "inject",
            (
                "self.switch = epoch",
                "self.switch = epoch\n    store.switched(self.tenure(0))",
            ),
        )
    ],
    "what was given is looked for in the base at once": [
        text(
            store.Store,
            "_load",
            ("staging is not None and staging.mark.covers(point)", "False"),
        )
    ],
    "memory keeps what was given away": [instead(store.Store, "_clean_up", lambda self: None)],
    "the base keeps what was there before": [
        text(
            settlement.Settlement,
            "_all_steps",
            ("self._batch.clear(*place_range(place, start, end))", "pass"),
        ),
        text(
            settlement.Settlement,
            "take_job",
            ("batch.clear(*place_range(place, start, end))", "pass"),
        ),
    ],
    "what was given is not taken into the base": [
        text(settlement.Settlement, "_all_steps", ("put(key, value)", "pass"))
    ],
    "what the base lacks is not copied": [
        text(
            donor.Donor,
            "job_done",
            ("for block in content.blocks", "for block in content.blocks[:0]"),
        )
    ],
    "what is touched while it is copied is not sent": [
        text(donor.Donor, "sealed", ("= self._encoded\n", "= {}\n"))
    ],
    "older deltas are copied over newer ones": [
        text(donor.Donor, "_take_block", ("touched.setdefault(key, value)", "touched[key] = value"))
    ],
    "a partition that moves is read on": [
        text(engine.Engine, "_switch", ("source.give_up(lost)", "pass"))
    ],
    "a partition is read before its position has come": [
        text(
            engine.Engine,
            "_switch",
            ("if not source.awaiting and self._ranges:", "if self._ranges:"),
        )
    ],
    "who had read all before a switch is not asked again": [
        text(coordinator.Coordinator, "_persisted", ("self._drained.clear()", "pass"))
    ],
    "a leaver ends before its output is published": [
        text(
            member.Member,
            "_told",
            (
                "return [Publish(epoch, switched)]",
                "return [Publish(epoch, switched), *([End()] if switched else [])]",
            ),
        )
    ],
    "a stage routes by the old assignment behind a switch": [
        text(engine.Engine, "_switch", ("old, task.assignment = task.assignment, new", "old = new"))
    ],
    # Mistakes that were found here.
    "output of an epoch is forgotten when the last one's is published": [
        text(
            file_sink._Writer,
            "_published",
            ("if self._kept and self._kept[1] is output:", "if True:"),
        )
    ],
    "the name of a new folder is not synced": [
        instead(sim_disk.ProcessDisk, "make_folder", _make_folder)
    ],
}


@contextlib.contextmanager
def mistaken(name: str) -> Any:
    """With this mistake in place."""
    with contextlib.ExitStack() as stack:
        for mistake in MISTAKES[name]:
            stack.enter_context(mistake())
        yield


def first_failure(seeds: Iterable[int]) -> int | None:
    """The first of these seeds that fails."""
    return next((seed for seed in seeds if run_seed(seed).failure), None)


def main() -> None:
    """Print the first seed that sees each mistake: after a change that moves the dice."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for name in MISTAKES:
        with small(), mistaken(name):
            found = first_failure(range(most))
        print(f"{found!s:>6}  {name}", flush=True)


if __name__ == "__main__":
    main()
