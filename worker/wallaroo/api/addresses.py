"""Addresses from an application's own arguments, as Wallaroo has always written them."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from wallaroo.errors import WallarooParameterError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WallarooParameterError(message)


def _value(args: Sequence[str], short: str, long: str, example: str) -> str:
    parser = _Parser(prog="wallaroo", add_help=False, allow_abbrev=False)
    parser.add_argument(short, long, dest="addresses")
    addresses = parser.parse_known_args(list(args))[0].addresses
    if addresses is None:
        raise WallarooParameterError(f"the application needs {long} {example}")
    return str(addresses)


def _host_port(address: str, option: str) -> tuple[str, str]:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise WallarooParameterError(f"{option}: '{address}' is not host:port")
    return host.removeprefix("[").removesuffix("]"), port


def tcp_parse_input_addrs(args: Sequence[str]) -> list[tuple[str, ...]]:
    """The addresses in `--in name@host:port,…` (or `-i`): a (name, host, port) each, all str.

    An address without a name gives (host, port).

    >>> import wallaroo
    >>> wallaroo.tcp_parse_input_addrs(["app", "--in", "lines@127.0.0.1:7010"])
    [('lines', '127.0.0.1', '7010')]
    >>> wallaroo.tcp_parse_input_addrs(["app", "-i", "127.0.0.1:7010,127.0.0.1:7011"])
    [('127.0.0.1', '7010'), ('127.0.0.1', '7011')]

    Raises `WallarooParameterError` if the option is missing or an address is malformed.
    """
    found: list[tuple[str, ...]] = []
    for address in _value(args, "-i", "--in", "name@host:port[,…]").split(","):
        name, at, rest = address.rpartition("@")
        host_port = _host_port(rest, "--in")
        found.append((name, *host_port) if at else host_port)
    return found


def tcp_parse_output_addrs(args: Sequence[str]) -> list[tuple[str, str]]:
    """The addresses in `--out host:port,…` (or `-o`): a (host, port) each, both str.

    >>> import wallaroo
    >>> wallaroo.tcp_parse_output_addrs(["app", "--out", "127.0.0.1:7002"])
    [('127.0.0.1', '7002')]

    Raises `WallarooParameterError` if the option is missing or an address is malformed.
    """
    value = _value(args, "-o", "--out", "host:port[,…]")
    return [_host_port(address, "--out") for address in value.split(",")]
