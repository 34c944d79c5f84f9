"""One reconcile of one application: look, decide, tell, write the status, act.

The status is written before anything is done, so that what must be known afterwards (that the
application was told to begin) is known, whatever happens in between.

Between two reconciles an application that has come to rest is only glanced at: its coordinator is
asked, and its module's ConfigMap read. What they say is decided on with what was seen last, and
only if that asks for more than new counters everything is looked at again.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from wallaroo_operator import certs, conditions, manifests, names
from wallaroo_operator.act import DecideAgain, act, tell, write_status
from wallaroo_operator.actions import Apply
from wallaroo_operator.api import Refused
from wallaroo_operator.decide import IDLE, Decision, decide
from wallaroo_operator.observe import Api, Links, Seen, Settings, ask, module_of, observe

#: Seconds between two writes of counters alone, and between two glances.
COUNTERS, GLANCE = 30.0, 15.0

_log = logging.getLogger("wallaroo_operator")
Key = tuple[str, str]


@dataclass
class _Memory:
    """Of an application that was looked at. Losing it costs a look.

    refused: as `Observed` has it.
    """

    seen: Seen
    looked: float
    written: float = 0.0
    refused: str = ""


class Reconciler:
    """Of all applications, by namespace and name."""

    def __init__(
        self,
        api: Api,
        links: Links,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._api = api
        self._links = links
        self._settings = settings
        self._memory: dict[Key, _Memory] = {}

    def seen(self) -> dict[Key, Seen]:
        """What was seen last, by application."""
        return {key: memory.seen for key, memory in self._memory.items()}

    async def reconcile(self, key: Key, *, woken: bool = True) -> float | None:
        """Do what is next; seconds after which to do so again, None for an application gone.

        woken: something has happened; else it is only time to look again.
        Raises `DecideAgain` and `Refused`.
        """
        memory = self._memory.get(key)
        if not woken and memory and self._clock() < memory.looked + IDLE:
            again = await self._glance(memory)
            if again is not None:
                return again
        seen = await observe(self._api, self._links, self._settings, key, self._clock())
        if seen is None or seen.observed.app.deleting:
            gone = self._memory.pop(key, None)
            if gone:
                self._links.forget(gone.seen.observed.app.uid)
            return None
        written, refused = (memory.written, memory.refused) if memory else (0.0, "")
        self._memory[key] = memory = _Memory(seen, self._clock(), written, refused)
        try:
            again = await self._do(memory)
        except Refused as error:
            if error.final:
                await self._refused(memory, str(error))
            raise
        if memory.refused:
            await self._refused(memory, "")
        if again < IDLE:
            memory.looked = 0.0  # not at rest: the next time everything is looked at
            return again
        return GLANCE if seen.talks or seen.observed.module else IDLE

    async def _do(self, memory: _Memory) -> float:
        """Do what is next; seconds after which to look again."""
        seen = memory.seen
        if not seen.observed.conflicts and not seen.observed.departing:
            await self._certify(seen)
        decision = decide(replace(seen.observed, refused=memory.refused))
        await self._write(memory, decision)
        await act(self._api, seen.talks, memory.seen.observed.app, decision.actions)
        return decision.again

    async def _refused(self, memory: _Memory, refused: str) -> None:
        """Let the status tell what the API server refuses, or that it does so no more."""
        if refused != memory.refused:
            memory.refused = refused
            await self._write(memory, decide(replace(memory.seen.observed, refused=refused)))

    async def _glance(self, memory: _Memory) -> float | None:
        """Look at what no watch tells of; None if everything is to be looked at again."""
        seen, now = memory.seen, self._clock()
        observed = seen.observed
        if observed.workers and observed.workers.replicas:
            if seen.talks is None:
                return None
            coordinator, _ = await ask(seen.talks)
            if coordinator is None:
                return None
            observed = replace(observed, coordinator=coordinator, now=now, refused=memory.refused)
            module = await module_of(self._api, observed.app)
            observed = replace(observed, module=module)
            decision = decide(observed)
            step = self._certificates(replace(seen, observed=observed))
            if decision.actions or decision.again < IDLE or step:
                return None
            assert decision.status is not None
            if conditions.differs(observed.app.status, decision.status, counters=False):
                return None
            await self._write(memory, decision)
        return GLANCE

    async def _write(self, memory: _Memory, decision: Decision) -> None:
        """Tell, and write the status if it differs; counters alone not too often."""
        app, status, now = memory.seen.observed.app, decision.status, self._clock()
        if status is None:
            return
        await tell(self._api, app, decision.events, now)
        counters = now > memory.written + COUNTERS
        if conditions.differs(app.status, status, counters=counters):
            app = await write_status(self._api, app, status)
            memory.written = now
            memory.seen = replace(memory.seen, observed=replace(memory.seen.observed, app=app))

    def _certificates(self, seen: Seen) -> certs.Step | None:
        """What is to be done about certificates; None for nothing."""
        o = seen.observed
        if not (o.tls or (o.workers and o.workers.tls)):
            return None
        trusted = (
            {each.pod_uid: each.ca for each in o.coordinator.workers.values()}
            if (o.coordinator)
            else {}
        )
        reported = [trusted.get(pod.uid, "") for pod in o.pods]
        step = certs.decide(seen.held, reported, datetime.fromtimestamp(o.now, UTC))
        return None if step is certs.Step.NOTHING else step

    async def _certify(self, seen: Seen) -> None:
        """Do what is next about certificates; the signer's Secret is written first."""
        step = self._certificates(seen)
        if step is None:
            return
        app = seen.observed.app
        now = datetime.fromtimestamp(seen.observed.now, UTC)
        held = certs.carry_out(step, seen.held, app.name, now)
        _log.info("%s/%s: certificates: %s", app.namespace, app.name, step.value)
        wanted = {
            names.ca_secret(app.name): held.ca_data(),
            names.tls_secret(app.name): held.tls_data(),
        }
        for name, data in wanted.items():
            there = seen.secrets[name]
            if there is None or (there.get("data") or {}) != data:
                version = there["metadata"]["resourceVersion"] if there else ""
                secret = manifests.secret(app, name, data)
                await act(self._api, None, app, [Apply(secret, version)])
        raise DecideAgain("certificates were made")
