"""How what is done in the background leaves the processors to the dataflow.

Its threads are not of a lower priority. Each needs Python's interpreter lock now and then; where
processors are busy the kernel might keep a thread that is hardly ever due from running just while
it holds the lock, or is the next to have it, and then the dataflow would wait for it. Instead the
work is cut into pieces of about a millisecond, and each is followed by a pause.
"""

from collections.abc import Callable

#: How long a pause is for each second of work; and of work that something waits for.
_PAUSE, _AWAITED = 3.0, 1.0

#: What is called after a piece of work with the seconds that it took.
Worked = Callable[[float], None]


def at_once(seconds: float) -> None:
    """Work without a pause."""


class Throttle:
    """Pauses after pieces of work in other threads than the dataflow's.

    pause: sleeps for so many seconds. hurried: the dataflow stands until all is done.

    >>> pauses = []
    >>> throttle = Throttle(pauses.append)
    >>> throttle.worked(0.5)
    >>> throttle.hurried = True
    >>> throttle.worked(0.5)
    >>> pauses
    [1.5]
    """

    def __init__(self, pause: Callable[[float], None] = at_once) -> None:
        self.hurried = False
        self._pause = pause

    def worked(self, seconds: float) -> None:
        """So long has been worked."""
        if not self.hurried:
            self._pause(_PAUSE * seconds)

    def awaited(self, seconds: float) -> None:
        """Likewise, on what a rescale waits for."""
        if not self.hurried:
            self._pause(_AWAITED * seconds)
