"""Count the words of a text, as they come.

Every word is a key. Its state, one number, comes to be when the word first occurs, on the worker
that owns the word's hash; no list of words exists anywhere. Each occurrence sends the word's
running total on.
"""

import argparse
import re
from pathlib import Path
from typing import NoReturn

import wallaroo

_BOOK = Path(__file__).with_name("kjv.txt.gz")
#: What the lines of the King James text begin with: `Ge1:1 `. It is no part of the text.
_REFERENCE = re.compile(r"\w+:\d+ ")
_WORD = re.compile(r"[a-z]+")


class Total:
    """How often a word has occurred."""

    count = 0


@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode_line(payload: bytes) -> str:
    return payload.decode("utf-8")


@wallaroo.computation_multi(name="split into words")
def split(line: str) -> list[str]:
    """The words of a line, in lower case, without the verse reference that it may begin with."""
    reference = _REFERENCE.match(line)
    text = line[reference.end() :] if reference else line
    return _WORD.findall(text.lower())


@wallaroo.key_extractor
def word_itself(word: str) -> str:
    return word


@wallaroo.state_computation(name="count words", state=Total)
def count(word: str, total: Total) -> tuple[str, int]:
    total.count += 1
    return (word, total.count)


@wallaroo.encoder
def encode_count(counted: tuple[str, int]) -> str:
    word, total = counted
    return f"{word} => {total}\n"


def application_setup(args: list[str]) -> wallaroo.Application:
    """Count the words of a file into a file, or with `--in` of a TCP source into a TCP sink."""
    options = _parser(args[0]).parse_args(args[1:])
    lines: wallaroo.Pipeline[str]
    sink: wallaroo.FileSinkConfig[tuple[str, int]] | wallaroo.TCPSinkConfig[tuple[str, int]]
    if options.input is None:
        text = options.text or _BOOK
        lines = wallaroo.source("text", wallaroo.FileSourceConfig("text", text))
        sink = wallaroo.FileSinkConfig(options.out or "word_count.txt", encode_count)
    else:
        if options.text is not None:
            raise wallaroo.WallarooParameterError("give either --text or --in, not both")
        [(*names, host, port), *more] = wallaroo.tcp_parse_input_addrs(args)
        if more:
            raise wallaroo.WallarooParameterError("--in takes one address here")
        name = names[0] if names else "text"
        lines = wallaroo.source(name, wallaroo.TCPSourceConfig(name, host, port, decode_line))
        [(to_host, to_port), *more_out] = wallaroo.tcp_parse_output_addrs(args)
        if more_out:
            raise wallaroo.WallarooParameterError("--out takes one address here")
        sink = wallaroo.TCPSinkConfig(to_host, to_port, encode_count)
    counts = lines.to(split).key_by(word_itself).to(count)
    return wallaroo.build_application("word count", counts.to_sink(sink))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise wallaroo.WallarooParameterError(f"{self.prog}: {message}")


def _parser(program: str) -> _Parser:
    parser = _Parser(Path(program).name, description=__doc__, allow_abbrev=False)
    parser.add_argument("--text", metavar="PATH", help="the file, or a glob; default: kjv.txt.gz")
    parser.add_argument(
        "-i", "--in", dest="input", metavar="NAME@HOST:PORT", help="take lines by TCP instead"
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="PATH",
        help="the file to write, default: word_count.txt; with --in HOST:PORT to connect to",
    )
    return parser
