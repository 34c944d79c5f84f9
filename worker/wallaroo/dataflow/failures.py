"""From an exception in generated code to words: which step, which key, which event."""

import traceback
from types import FrameType, TracebackType

from wallaroo.dataflow.codegen import Line
from wallaroo.errors import DataflowError, Failure, message_of, shorten
from wallaroo.partitioning import normalize_key
from wallaroo.state.live import NotMyKey


def explain(error: BaseException, lines: dict[str, dict[int, Line]]) -> DataflowError:
    """The failure that `error`, raised by generated code, stands for.

    lines: of each generated file. Raises `error` itself where no user's function is to blame.
    """
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
    return DataflowError(_failure(error, frame, line))


def _failure(error: BaseException, frame: FrameType, line: Line) -> Failure:
    event = shorten(frame.f_locals.get(line.event))
    has_key = line.key is not None and (line.key == "''" or line.key in frame.f_locals)
    key = "" if line.key == "''" else frame.f_locals.get(line.key or "")
    shown_key = shorten(key) if has_key else ""
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
    if has_key and (line.gives_key or line.looks_up) and (why := _bad_key(key)):
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
