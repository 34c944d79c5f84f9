"""What must hold of a coordinator whatever it hears, checked at every effect."""

from dataclasses import dataclass, field, replace

from wallaroo.partitioning import Assignment
from wallaroo.protocol import rescale
from wallaroo.protocol.coordinator import (
    Answer,
    Coordinator,
    Effect,
    Elapsed,
    Event,
    Heard,
    Lost,
    Persist,
    Persisted,
    Phase,
    StopRequested,
    Tell,
    Timer,
)
from wallaroo.protocol.manifest import Manifest, Part
from wallaroo.protocol.messages import (
    Abort,
    Checkpointed,
    Commit,
    ConnectionsClosed,
    Copy,
    Drain,
    Drained,
    Enlist,
    Enlisted,
    Failed,
    Finish,
    Halt,
    Inject,
    Prepared,
    Published,
    Ready,
    Recover,
    Refuse,
    Register,
    Resume,
    Staged,
)

OVER = {Phase.ENDED, Phase.FAILED}


def beginning(workers: int) -> Manifest:
    """The manifest of an application that has not begun: two partitions of one source."""
    partitions = {"numbers": {"a": 1 << 62, "b": 3 << 62}}
    return Manifest("test", 0, 0, Assignment.first(workers), {"tally": 0}, partitions)


def register(worker: int, directory: str = "", *, admitted: bool = False) -> Register:
    return Register(f"unix:{worker}", "same", directory or f"directory {worker}", admitted)


@dataclass
class Watched:
    """A coordinator that is watched."""

    machine: Coordinator
    events: list[Event] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    #: Of each worker that is there, the session in which it was taken in.
    sessions: dict[int, str] = field(default_factory=dict)
    #: What the workers have said in this generation.
    ready: set[int] = field(default_factory=set)
    drained: set[int] = field(default_factory=set)
    published: set[int] = field(default_factory=set)
    parts: dict[int, Part] = field(default_factory=dict)
    stop_requested: bool = False
    recovering: int = 0
    resumed: bool = False
    injected: Inject | None = None
    persisting: Manifest | None = None
    #: Whether the manifest that is being made durable is of a final epoch.
    final: bool = False
    #: A final epoch is committed.
    closed: bool = False
    used: set[int] = field(default_factory=set)
    over: bool = False
    #: The attempt to rescale that is under way, and what those that take part have said in it.
    enlist: Enlist | None = None
    enlisted: set[int] = field(default_factory=set)
    staged: dict[int, int] = field(default_factory=dict)
    copying: bool = False
    #: Leavers that listen; those that have been told to drain, and those that have.
    listening: set[int] = field(default_factory=set)
    draining: set[int] = field(default_factory=set)
    closed_to: set[int] = field(default_factory=set)
    #: Epochs committed since it began.
    commits: int = 0
    #: All attempts there were, and those that were told to be given up.
    attempts: set[tuple[int, int]] = field(default_factory=set)
    aborted: set[tuple[int, int]] = field(default_factory=set)
    #: Leavers that have said that they hold nothing any more.
    left: set[int] = field(default_factory=set)
    #: Who may have been told something when the event came, and what is checked at its end.
    _audience: set[int] = field(default_factory=set)
    _event: Event = field(default_factory=StopRequested)

    @classmethod
    def new(cls, workers: int, interval: float = 1.0) -> "Watched":
        return cls(Coordinator(beginning(workers), "same", interval))

    @property
    def committed(self) -> Manifest:
        return self.machine.committed

    @property
    def everyone(self) -> set[int]:
        """Those that take part in the attempt under way."""
        if self.enlist is None:
            return set()
        return {*self.enlist.old.workers, *self.enlist.new.workers}

    @property
    def switching(self) -> bool:
        """The barrier of a switch is under way."""
        return self.injected is not None and bool(self.injected.switch)

    @property
    def committing_switch(self) -> bool:
        """The manifest of a switch is being made durable."""
        manifest = self.persisting
        return manifest is not None and manifest.assignment != self.committed.assignment

    def tell(self, *events: Event) -> list[Effect]:
        """Let the events come in one after the other; what came of all of them."""
        effects: list[Effect] = []
        for event in events:
            self.events.append(event)
            before = self.committed
            attempt = self.enlist
            history = len(self.machine.history)
            self._audience = {*before.members, *before.leaving, *self.everyone}
            self._event = event
            self._hear(event)
            found = self.machine.handle(event)
            self._take_in(event, found)
            for effect in found:
                self._check(effect)
            said = {type(e.message) for e in found if isinstance(e, Tell)}
            assert not {Abort, Halt} <= said, "an attempt is given up without a rollback (24)"
            self._check_committed(before, self.committed)
            forming = self.machine.phase is Phase.FORMING
            if forming and not self.committing_switch:
                self.enlist = None  # perhaps nobody is there to be told of the fault
            if attempt and self.enlist is not attempt:
                self._check_concluded(attempt, history)
            effects += found
        self.effects += effects
        return effects

    @property
    def _staying(self) -> set[int]:
        return set(self.enlist.new.workers) if self.enlist else set()

    # What comes in

    def _hear(self, event: Event) -> None:
        match event:
            case Heard(_, _, Register()):
                pass  # whether it is taken in is seen by what it is told
            case Heard(worker, session, message):
                if self.sessions.get(worker) == session and not self.over:
                    self._said(worker, message)
            case Lost(worker, session):
                if self.sessions.get(worker) == session:
                    del self.sessions[worker]
            case StopRequested():
                self.stop_requested = True
            case Elapsed(timer) if timer.kind == "rescale" and self.draining:
                if timer.number == self.machine._watching:
                    self.closed_to |= self.draining  # their time is over
            case Persisted(generation, epoch):
                manifest = self.persisting
                if manifest and (manifest.generation, manifest.epoch) == (generation, epoch):
                    self._is_durable(manifest)

    def _is_durable(self, manifest: Manifest) -> None:
        self.persisting = None
        self.used.add(manifest.generation)
        self.left &= manifest.leaving.keys()
        if manifest.epoch and self.injected and self.injected.epoch == manifest.epoch:
            if self.injected.switch:
                self.enlist = None
                self.drained.clear()
            self.injected = None
            self.closed |= self.final
            self.published.clear()
            self.commits += 1

    def _said(self, worker: int, message: object) -> None:
        generation = self.machine.generation
        number = self.enlist.attempt if self.enlist else 0
        if isinstance(message, Published) and worker in self.committed.leaving:
            self.left.add(worker)
            return
        match message:
            case Failed():
                switching = self.switching and worker in self.everyone
                if worker not in self.committed.members and not switching:
                    del self.sessions[worker]
            case Ready(said) if said == generation:
                self.ready.add(worker)
            case Drained(said) if said == generation:
                self.drained.add(worker)
            case Published(said, epoch) if said == generation and epoch == self.committed.epoch:
                self.published.add(worker)
            case Prepared(said, epoch, part) if said == generation:
                if self.injected and epoch == self.injected.epoch and not self.persisting:
                    self.parts[worker] = part
            case Enlisted(said, attempt) if said == generation and attempt == number:
                self.enlisted.add(worker)
                leavers = set(self.enlist.old.workers) if self.enlist else set()
                if message.listens and worker in leavers - self._staying:
                    self.listening.add(worker)
            case ConnectionsClosed(said, attempt) if said == generation and attempt == number:
                self.closed_to.add(worker)
            case Staged(said, attempt, epoch) if said == generation and attempt == number:
                self.staged[worker] = epoch

    def _take_in(self, event: Event, effects: list[Effect]) -> None:
        match event:
            case Heard(worker, session, Register()):
                refused = any(
                    isinstance(e, Tell)
                    and (e.worker, e.session) == (worker, session)
                    and isinstance(e.message, Refuse)
                    for e in effects
                )
                if not refused and not self.over:
                    self.sessions[worker] = session

    # What comes out

    def _check(self, effect: Effect) -> None:
        if self.over and not isinstance(effect, Answer):
            assert isinstance(effect, Tell), f"{effect} when all is over"
            late = isinstance(effect.message, Finish | Refuse)
            assert late, f"{effect} when all is over"
        match effect:
            case Timer():
                assert effect.seconds > 0
            case Persist(manifest):
                self._check_manifest(manifest)
            case Tell(worker, session, Refuse()):
                if self.sessions.get(worker) == session:
                    del self.sessions[worker]
            case Tell(worker, session, message):
                if self.over:
                    return  # to whom it comes is of no matter
                assert self.sessions.get(worker) == session, "told to one that is gone"
                self._check_message(worker, message)

    def _check_message(self, worker: int, message: object) -> None:
        members = set(self.committed.members)
        generation = self.machine.generation
        attending = self._audience | members | self.committed.leaving.keys() | self.everyone
        if not isinstance(message, Finish | Enlist | Checkpointed):
            assert worker in attending, f"{message} to one that takes no part"
        if isinstance(message, Recover | Resume | Inject | Commit | Enlist | Copy | Drain | Abort):
            assert message.generation in self.used, "it is not durable (ruling 3)"
            assert message.generation == generation
        match message:
            case Halt():
                self._new_generation()
            case Recover():
                if message.generation != self.recovering:
                    self.recovering = message.generation
                    self._new_generation()
                assert message.epoch == self.committed.epoch
                known = {**self.committed.parts, **self.committed.leaving}
                assert message.part == known[worker]
                assert set(message.addresses) == members
                assert message.switched == self.committed.switched
            case Resume():
                assert members <= self.ready, "not all are ready (ruling 2)"
                assert not self.closed, "nothing follows a final epoch (ruling 17)"
                assert not self.committed.complete, "all that there is was processed (ruling 18)"
                self.resumed = True
            case Inject():
                self._check_inject(message, members)
            case Commit():
                assert (generation, message.epoch) == (
                    self.committed.generation,
                    self.committed.epoch,
                ), "it is not durable (ruling 3)"
            case Enlist():
                self._check_enlist(worker, message)
            case Copy(attempt=attempt):
                assert self.enlist
                assert attempt == self.enlist.attempt
                assert self.everyone <= self.enlisted, "not all are ready"
                checkpoints = self.machine.interval and self.committed.epoch
                assert checkpoints or self.commits, "what no checkpoint has is not sent (23)"
                self.copying = True
            case Drain(attempt=attempt):
                assert self.enlist
                assert attempt == self.enlist.attempt
                assert self.copying, "clients are sent away last"
                assert worker in self.listening
                self.draining.add(worker)
            case Abort(attempt=attempt):
                self._check_abort(generation, attempt)
            case Finish():
                if self.machine.phase not in OVER:
                    assert worker in self.left, "it still holds something (ruling 29)"
                else:
                    self._check_end(members)

    def _check_inject(self, message: Inject, members: set[int]) -> None:
        assert self.resumed
        assert self.injected in (None, message), "two epochs are in flight"
        assert message.epoch == self.committed.epoch + 1
        if self.injected is None:
            assert message.final == (self.stop_requested or self.drained >= members)
            self.parts.clear()
            if message.switch:
                self._check_switch(message)
        self.injected = message

    def _check_switch(self, message: Inject) -> None:
        assert not message.final
        assert self.enlist
        assert message.switch == self.enlist.attempt
        assert self.copying
        assert self.listening <= self.closed_to, "clients are still connected (31)"
        assert self.draining == self.listening
        assert isinstance(self._event, Persisted), "right behind a commit (ruling 23)"
        attempt = self.machine.rescale
        assert attempt
        assert attempt.phase is rescale.Phase.SWITCH
        for receiver in attempt.receivers:
            epoch = self.staged[receiver]
            assert epoch >= self.committed.epoch - 1, "more than the last epoch is left (23)"

    def _check_enlist(self, worker: int, message: Enlist) -> None:
        committed = self.committed
        if self.enlist is None:
            key = message.generation, message.attempt
            assert key not in self.attempts, "every attempt has a number of its own (ruling 22)"
            self.attempts.add(key)
            self.enlist = message
            self.enlisted.clear()
            self.staged.clear()
            for each in (self.listening, self.draining, self.closed_to):
                each.clear()
            self.copying, self.commits = False, 0
            assert self.resumed
            assert not self.switching
            assert self.everyone <= self.sessions.keys(), "one is not there"
        assert worker in self.everyone
        assert replace(message, sinks=()) == replace(self.enlist, sinks=())
        assert message.old == committed.assignment
        assert message.new.version == committed.assignment.version + 1
        assert message.epoch == committed.epoch
        assert message.sinks == committed.retired.get(worker, ())
        assert set(message.addresses) == self.everyone
        assert not set(message.new.workers) & set(committed.leaving), "it has not left yet"

    def _check_abort(self, generation: int, attempt: int) -> None:
        if (generation, attempt) not in self.aborted:
            assert self.enlist
            assert self.enlist.attempt == attempt
            assert not self.switching, "from there it commits, or a fault recovers (ruling 24)"
            self.aborted.add((generation, attempt))
            self.enlist = None

    def _check_concluded(self, attempt: Enlist, before: int) -> None:
        records = self.machine.history
        assert len(records) <= rescale.HISTORY
        assert len(records) > before or before == rescale.HISTORY
        record = next(
            each
            for each in reversed(records)
            if each["attempt"] == f"{attempt.generation}-{attempt.attempt}"
        )
        committed = self.committed.assignment == attempt.new
        assert record["outcome"] == ("committed" if committed else "aborted")
        assert bool(record["why"]) != committed

    def _check_end(self, members: set[int]) -> None:
        self.over = True
        if self.machine.phase is Phase.ENDED:
            assert self.closed or self.committed.complete
            assert members <= self.published or members <= self.ready
            assert self.committed.leaving.keys() <= self.left, "one still holds output (29)"

    def _check_manifest(self, manifest: Manifest) -> None:
        assert self.persisting is None, "two manifests at once"
        before = self.committed
        if manifest.generation != self.machine.generation:
            assert manifest.generation == self.machine.generation + 1
            assert manifest.generation not in self.used, "a number used twice (ruling 3)"
            assert manifest.epoch == before.epoch
            for worker, part in before.parts.items():
                assert manifest.parts[worker] == part, "what is committed changed"
        else:
            assert self.injected
            assert manifest.epoch == self.injected.epoch == before.epoch + 1
            known = {**manifest.parts, **manifest.leaving}
            for worker in (*before.members, *manifest.members):
                assert known[worker] == self.parts[worker], "a part that nobody reported"
            self.final = self.injected.final
        assert set(manifest.parts) == set(manifest.members)
        self._check_left(manifest)
        self._check_assignment(manifest)
        self.persisting = manifest

    def _check_left(self, manifest: Manifest) -> None:
        """Who was leaving still is, or has left and is remembered for its sinks."""
        before = self.committed
        for worker, part in before.leaving.items():
            if worker in manifest.leaving:
                assert manifest.leaving[worker] == part
            else:
                assert worker in self.left, "it still holds something (ruling 29)"
                assert manifest.retired[worker] == part.sinks

    def _check_assignment(self, manifest: Manifest) -> None:
        before = self.committed
        same = (manifest.assignment, manifest.switched) == (before.assignment, before.switched)
        if manifest.generation != self.machine.generation or not self.switching:
            assert same, "it changes only with the commit of a switch"
            assert manifest.departed == before.departed
            assert manifest.leaving.keys() <= before.leaving.keys()
            return
        assert self.enlist
        assert manifest.assignment == self.enlist.new
        assert manifest.switched == manifest.epoch
        gone = set(before.members) - set(manifest.members)
        assert gone == manifest.leaving.keys() - before.leaving.keys()
        left = [before.departed, *(self.parts[worker].counts for worker in gone)]
        assert manifest.departed == tuple(map(sum, zip(*left, strict=True)))
        come = set(manifest.members) - set(before.members)
        assert not come & manifest.retired.keys()

    def _check_committed(self, before: Manifest, after: Manifest) -> None:
        numbers = (before.generation, before.epoch)
        assert (after.generation, after.epoch) >= numbers, "what is committed went back"
        assert after.epoch >= before.epoch, "what is committed went back"
        versions = before.assignment.version, after.assignment.version
        if before.assignment == after.assignment:
            assert versions[0] == versions[1]
        else:
            assert versions[0] + 1 == versions[1], "a version is left out"
            assert after.epoch == before.epoch + 1

    def _new_generation(self) -> None:
        for said in (self.ready, self.drained, self.published):
            said.clear()
        self.resumed = False
        if not self.committing_switch:
            self.enlist = None
        if not self.persisting:
            self.injected = None
            self.parts.clear()
