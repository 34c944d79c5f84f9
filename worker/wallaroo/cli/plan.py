"""What rescales would move, as text: the rewrites that a rescale makes, without an application.

Which keys move is a matter of arithmetic alone, so this can be said before anything is touched.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import click
from rich import box
from rich.console import Console
from rich.table import Table

from wallaroo.cli.common import refuse
from wallaroo.errors import InputError
from wallaroo.partitioning import INTERVAL, Assignment, minimum, moves, rewrite
from wallaroo.runtime.options import MOST_WORKERS


def counts(arguments: Sequence[str]) -> list[int]:
    """The numbers of workers that were written.

    Raises InputError, in words, if they are none or make no plan.
    """
    if len(arguments) < 2:
        raise InputError(
            "name at least two numbers of workers, from which and to which: wallaroo plan 3 5"
        )
    for argument in arguments:
        if not (argument.isascii() and argument.isdigit()):
            raise InputError(f"{argument!r} is no number of workers: write one from 1 on")
        if not argument.strip("0"):
            raise InputError("there is no application on 0 workers: write a number from 1 on")
        if len(argument) > 9 or int(argument) > MOST_WORKERS:
            shown = argument if len(argument) < 10 else f"{argument[:9]}…"
            raise InputError(f"{shown} workers are too many: write a number up to {MOST_WORKERS}")
    return [int(argument) for argument in arguments]


def show(console: Console, workers: Sequence[int]) -> None:
    """Each step from one of `workers` to the next, from the first assignment of the first."""
    assignment = Assignment.first(workers[0])
    for n, m in pairwise(workers):
        new = rewrite(assignment, range(m))
        _step(console, n, m, assignment, new)
        assignment = new


def _step(console: Console, n: int, m: int, old: Assignment, new: Assignment) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"{n} to {m} worker{'s' * (m > 1)}")
    shares: Counter[tuple[int, int]] = Counter()
    parts: Counter[tuple[int, int]] = Counter()
    for move in moves(old, new):
        shares[move.donor, move.receiver] += move.end - move.start
        parts[move.donor, move.receiver] += 1
    say(f"  moves    {_percent(shares.total())} of the hash interval")
    say(f"  minimum  {float(minimum(n, m)):.2%}")
    say(f"  pairs    {len(shares)} of donor and receiver")
    say(f"  pieces   {len(new.pieces)} afterwards, {len(old.pieces)} before")
    if not shares:
        say("")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("donor", "receiver", "moves", "in pieces"):
        table.add_column(name, justify="right", no_wrap=True)
    for (donor, receiver), length in sorted(shares.items()):
        pieces = str(parts[donor, receiver])
        table.add_row(str(donor), str(receiver), _percent(length), pieces)
    console.print(table)


def _percent(length: int) -> str:
    if 0 < length * 10_000 < INTERVAL:
        return "<0.01%"
    return f"{length / INTERVAL:.2%}"


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("workers", metavar="N M [...]", nargs=-1, type=click.UNPROCESSED)
def plan(workers: tuple[str, ...]) -> None:
    """Show what rescales from N to M workers, and on, would move; touch nothing.

    It begins with N workers that have never been rescaled.
    """
    try:
        numbers = counts(workers)
    except InputError as error:
        refuse(str(error))
    show(Console(), numbers)
