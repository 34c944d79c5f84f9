"""Connections to the coordinators of applications, kept as long as worker 0 stays where it is."""

from collections.abc import Mapping
from typing import Any, Protocol

import grpc

from wallaroo.partitioning import Assignment
from wallaroo.runtime.client import Client
from wallaroo_operator import certs, names

#: Seconds in which a coordinator must answer: nobody waits for it but its own application.
PATIENCE = 5.0


class Talks(Protocol):
    """What `Client` can do."""

    def status(self) -> dict[str, Any]:
        """How the application is. Raises `Unreachable`."""

    def begin(self, workers: int, *, accept_loss: bool = False, epoch: int = 0) -> str:
        """Start from nothing, or without what is lost; why not. Raises `Unreachable`."""

    def rescale(self, base: int, assignment: Assignment) -> str:
        """Hand an assignment over; why not. Raises `Unreachable`."""

    def stop(self) -> None:
        """Ask for a last checkpoint. Raises `Unreachable`."""


class Coordinators:
    """All of them, by the UID of their application."""

    def __init__(self) -> None:
        self._clients: dict[str, tuple[tuple[str, str], Client]] = {}
        #: By the authority that signed it, with which it goes.
        self._leaves: dict[str, certs.Pair] = {}

    def at(self, uid: str, ip: str, held: certs.Held | None) -> Talks:
        """The coordinator of an application; without certificates if none are held."""
        address = f"[{ip}]:{names.CONTROL}" if ":" in ip else f"{ip}:{names.CONTROL}"
        credentials, known = None, ""
        if held and held.current:
            shown = self._leaf(uid, held.current)
            known = certs.fingerprint(shown.certificate + held.bundle)
            credentials = grpc.ssl_channel_credentials(
                held.bundle.encode(), shown.key.encode(), shown.certificate.encode()
            )
        there = self._clients.get(uid)
        if there and there[0] == (address, known):
            return there[1]
        self.forget(uid)
        client = Client(address, PATIENCE, credentials)
        self._clients[uid] = ((address, known), client)
        return client

    def _leaf(self, uid: str, current: certs.Pair) -> certs.Pair:
        leaf, now = self._leaves.get(uid), certs.today()
        if leaf is None or leaf.left(now) < 1 / 3 or not certs.issued(leaf, current):
            leaf = self._leaves[uid] = certs.operators_leaf(current, now)
        return leaf

    def forget(self, uid: str) -> None:
        """Close a connection."""
        there = self._clients.pop(uid, None)
        if there:
            there[1].__exit__()

    def close(self) -> None:
        """Close all."""
        for uid in list(self._clients):
            self.forget(uid)


def reported(workers: Mapping[int, Any], pods: Mapping[str, Any]) -> list[str]:
    """Of each pod, the bundle that its worker trusts; "" if it has not said."""
    by_pod = {each.pod_uid: each.ca for each in workers.values()}
    return [by_pod.get(uid, "") for uid in pods]
