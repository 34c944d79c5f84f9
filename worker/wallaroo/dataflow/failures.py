"""From an exception in generated code to words: which step, which key, which event."""

import traceback
from types import FrameType, TracebackType

from wallaroo.dataflow.codegen import Line
from wallaroo.errors import DataflowError, Failure, message_of, shorten
from wallaroo.partitioning import normalize_key
from wallaroo.state.codec import CodecError
from wallaroo.state.entries import StateDamaged, StateRefused
from wallaroo.state.live import NotMyKey

#: What the state raises when a key is touched: no function of the user's did.
_STATE = (NotMyKey, StateDamaged, StateRefused, CodecError)


def is_users(error: Exception) -> bool:
    """Whether a user's function is to blame for `error`, raised by generated code."""
    return not isinstance(error, (*_STATE, DataflowError))


def explain(error: BaseException, lines: dict[str, dict[int, Line]]) -> DataflowError:
    """The failure that `error`, raised by generated code, stands for.

    lines: of each generated file. Raises `error` itself where no user's function is to blame.
    """
    if isinstance(error, DataflowError):
        return error
    frame, line = _raised_at(error, lines)
    return DataflowError(_failure(error, frame, line))


def event_of(error: BaseException, lines: dict[str, dict[int, Line]]) -> object:
    """The event for which generated code raised `error`."""
    frame, line = _raised_at(error, lines)
    return frame.f_locals.get(line.event)


def refused(error: StateRefused) -> Failure:
    """The failure that a state object that can't be stored stands for."""
    step = f"state computation '{error.place}'"
    key = shorten(error.key)
    return Failure(
        f"the state of {step} for key {key} can't be stored: {error.why}", step=step, key=key
    )


def position_refused(source: str, error: CodecError) -> DataflowError:
    """The failure that a position of a source that can't be stored stands for."""
    return DataflowError(
        Failure(
            f"source '{source}' can't be put into a checkpoint: {error}", step=f"source '{source}'"
        )
    )


def _raised_at(error: BaseException, lines: dict[str, dict[int, Line]]) -> tuple[FrameType, Line]:
    """The frame and line of generated code; raises `error` itself where there is none."""
    frames = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename in lines
    ]
    if not frames:
        raise error
    frame, number = frames[-1]
    line = lines[frame.f_code.co_filename].get(number)
    if line is None:
        raise error
    return frame, line


def _failure(error: BaseException, frame: FrameType, line: Line) -> Failure:
    event = shorten(frame.f_locals.get(line.event))
    has_key = line.key is not None and (line.key == "''" or line.key in frame.f_locals)
    key = "" if line.key == "''" else frame.f_locals.get(line.key or "")
    why = _bad_key(key) if has_key else ""
    # As the state has it: an int is its character.
    shown_key = "" if not has_key else shorten(key if why else normalize_key(key))
    giver = line.extractor.title if line.extractor else "its key extractor"
    step = line.extractor.title if line.extractor else line.step.title
    if isinstance(error, NotMyKey):
        return Failure(
            f"key {shown_key} of event {event} reached a worker that does not own it: {giver} "
            "gave another key when it was asked before; a key extractor must give the same key "
            "for the same event, wherever and whenever it is called",
            step=step,
            key=shown_key,
            event=event,
        )
    if isinstance(error, StateRefused):
        return refused(error)
    if isinstance(error, StateDamaged | CodecError):
        return Failure(
            f"the state of {line.step.title} for key {shown_key} can't be read: {error}",
            step=line.step.title,
            key=shown_key,
        )
    if why and (line.gives_key or line.looks_up):
        return Failure(
            f"{giver} returned {shown_key} for event {event}: {why}; "
            "a key is a str, bytes, or an int that stands for a character",
            step=step,
            key=shown_key,
            event=event,
        )
    text = "".join(traceback.format_exception(type(error), error, _below(error, frame)))
    return Failure(
        f"{line.step.title} raised {message_of(error)}",
        step=line.step.title,
        key=shown_key,
        event=event,
        traceback=text,
    )


def _below(error: BaseException, frame: FrameType) -> TracebackType | None:
    """The traceback without our own frames, or all of it where nothing is below."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame is not frame:
        tb = tb.tb_next
    return (tb.tb_next if tb else None) or tb


def _bad_key(key: object) -> str:
    """Why `key` can't be one; empty if it can."""
    try:
        normalize_key(key)
    except UnicodeEncodeError as error:
        return f"it has no UTF-8 ({error.reason})"
    except TypeError as error:
        return str(error)
    return ""
