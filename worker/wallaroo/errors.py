"""What goes wrong, in words for the person who has to mend it."""

from dataclasses import dataclass


class WallarooParameterError(Exception):
    """The application is not built right: the message names the step and says what is wrong."""


class InputError(Exception):
    """Something outside the application is not as it should be: a file, a port, a directory.

    The message says which, what is wrong, and what to do.
    """


@dataclass(frozen=True)
class Failure:
    """Why an application stopped.

    message: one or two sentences, complete in themselves.
    step, key, event: where it happened; key and event are shown as Python shows them.
    traceback: of the user's function; empty where no user's function is to blame.
    """

    message: str
    worker: int | None = None
    step: str = ""
    key: str = ""
    event: str = ""
    traceback: str = ""


class DataflowError(Exception):
    """Processing an event failed; carries the `Failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def shorten(value: object, limit: int = 400) -> str:
    """`value` as Python shows it, cut to `limit` characters; never raises."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__qualname__}, whose repr() raised {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
