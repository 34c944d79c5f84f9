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

    def __post_init__(self) -> None:
        # It has to fit on a screen and on a wire, whatever a user's exception says.
        for name in ("message", "step", "key", "event", "traceback"):
            text = _sayable(getattr(self, name), 32_000 if name == "traceback" else 4_000)
            object.__setattr__(self, name, text)


def to_be_mended(what: str) -> str:
    """What went wrong with a disk, and that nothing but time is lost by it."""
    return (
        f"{what}; nothing is lost: run again when that is mended, and it goes on from the last "
        "checkpoint"
    )


class DataflowError(Exception):
    """Processing an event failed; carries the `Failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _sayable(text: str, limit: int) -> str:
    """`text` without lone surrogates, and without its middle if it is longer than `limit`."""
    if len(text) > limit:
        left = len(text) - limit
        text = f"{text[: limit // 2]} … ({left} characters left out) … {text[-limit // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode()


def message_of(error: BaseException) -> str:
    """The type of an exception and what it says; never raises."""
    try:
        text = str(error)
    except Exception as broken:
        text = f"(its str() raised {type(broken).__name__})"
    return f"{type(error).__name__}: {text}"


def shorten(value: object, limit: int = 400) -> str:
    """`value` as Python shows it, cut to `limit` characters; never raises."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__qualname__}, whose repr() raised {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
