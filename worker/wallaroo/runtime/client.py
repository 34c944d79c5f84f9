"""Talking to the coordinator of a live run, from another process."""

from typing import Any, Self

import grpc

from wallaroo.partitioning import Assignment
from wallaroo.runtime.certificates import CLIENT_OPTIONS
from wallaroo.runtime.messages import assignment_message, status_dict
from wallaroo.runtime.network import CONTROL_OPTIONS
from wallaroo.v1 import control_pb2 as pb
from wallaroo.v1 import control_pb2_grpc


class Unreachable(Exception):
    """The coordinator does not answer; the message says why."""


class Client:
    """A connection to the coordinator at `address`.

    patience: seconds until a call is given up. Worker 0 may be busy with events, and the machine
        with others.
    credentials: with which to connect to a worker that asks for them, as pods do.
    """

    def __init__(
        self,
        address: str,
        patience: float = 15.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._patience = patience
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options=CONTROL_OPTIONS)
        else:
            # Of its own: how often others have failed with other credentials is no matter here.
            options = [*CONTROL_OPTIONS, ("grpc.use_local_subchannel_pool", 1), *CLIENT_OPTIONS]
            self._channel = grpc.secure_channel(address, credentials, options=options)
        self._stub = control_pb2_grpc.CoordinatorStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._channel.close()

    def status(self) -> dict[str, Any]:
        """What `wallaroo status --json` prints. Raises `Unreachable`."""
        try:
            return status_dict(self._stub.Status(pb.StatusRequest(), timeout=self._patience))
        except grpc.RpcError as error:
            raise Unreachable(error.details()) from error

    def begin(self, workers: int, *, accept_loss: bool = False, epoch: int = 0) -> str:
        """Start the application from nothing, or have it go on without what is lost.

        accept_loss: what is lost is lost, as of the last checkpoint, which is that of `epoch`.
        Returns why not; empty if it is so. Raises `Unreachable`.
        """
        request = pb.BeginRequest(workers=workers, accept_loss=accept_loss, epoch=epoch)
        try:
            return str(self._stub.Begin(request, timeout=self._patience).refusal)
        except grpc.RpcError as error:
            raise Unreachable(error.details()) from error

    def rescale(self, base: int, assignment: Assignment) -> str:
        """Ask for another assignment, rewritten from version `base`.

        Returns why it has not begun; empty if it has. Raises `Unreachable`.
        """
        request = pb.RescaleRequest(base=base, assignment=assignment_message(assignment))
        try:
            return str(self._stub.Rescale(request, timeout=self._patience).refusal)
        except grpc.RpcError as error:
            raise Unreachable(error.details()) from error

    def stop(self) -> None:
        """Ask for a final barrier, after which all workers end. Raises `Unreachable`."""
        try:
            self._stub.Stop(pb.StopRequest(), timeout=self._patience)
        except grpc.RpcError as error:
            raise Unreachable(error.details()) from error
