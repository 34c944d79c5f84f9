"""Events set aside because a user's function raised, on their way to a file.

Stages pass a barrier one after the other, and all of them set events aside: what a stage that has
passed it adds waits here until all have.
"""

import json
from typing import Any

from wallaroo.api.connectors import SinkWriter
from wallaroo.dataflow.codegen import Line
from wallaroo.dataflow.failures import event_of, explain, is_users
from wallaroo.errors import shorten

#: Characters of an event that are written.
_LONGEST = 1 << 20


class DeadLetters:
    """Writes one JSON object a line: step, key, event, error and traceback.

    lines: of each generated file, for finding the step.
    closed: the last epoch whose barrier all stages have passed.
    count: how many had been set aside by then, since the application began.
    """

    def __init__(
        self, writer: SinkWriter, lines: dict[str, dict[int, Line]], closed: int, count: int
    ) -> None:
        #: The epoch to which what is set aside now belongs.
        self.epoch = closed + 1
        self.count = count
        #: How many belong to the epochs up to the last that is closed.
        self.cut = count
        self._writer = writer
        self._lines = lines
        self._closed = closed
        self._early: list[bytes | str] = []

    @property
    def has_room(self) -> bool:
        return self._writer.has_room

    def take(self, error: Exception) -> None:
        """Set aside the event for which a user's function raised `error`.

        Raises `DataflowError` if it is no function of the user's that raised it.
        """
        explained = explain(error, self._lines)
        if not is_users(error):
            raise explained from error
        failure = explained.failure
        record: dict[str, Any] = {
            "step": failure.step,
            "key": failure.key,
            "event": shorten(event_of(error, self._lines), _LONGEST),
            "error": failure.message,
            "traceback": failure.traceback,
        }
        line = json.dumps(record) + "\n"
        self.count += 1
        if self.epoch > self._closed + 1:
            self._early.append(line)
        else:
            self._writer.write([line])

    def closed(self, epoch: int) -> None:
        """All stages have passed the barrier of `epoch`, and the writer knows it."""
        self._closed = epoch
        self.cut = self.count - len(self._early)
        if self._early:
            self._writer.write(self._early)
            self._early = []
