"""Certificates: who is let in, and what happens when they are renewed.

"Ruling K8s" are those of docs/kubernetes.md.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import grpc.aio
import pytest
from tests.unit.runtime.authority import Authority

from wallaroo.errors import InputError
from wallaroo.runtime.certificates import CLIENT_OPTIONS, LOOK, Certificates
from wallaroo.runtime.client import Client, Unreachable
from wallaroo.runtime.network import Network
from wallaroo.v1 import control_pb2 as pb
from wallaroo.v1 import control_pb2_grpc

ADDRESS = "127.0.0.1"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def certificates(tmp_path: Path, authority: Authority, clock: Clock) -> Certificates:
    return Certificates(authority.mount(tmp_path / "tls"), clock)


class Coordinator(control_pb2_grpc.CoordinatorServicer):
    """One that only says that it is there."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def Status(self, request: pb.StatusRequest, context: grpc.ServicerContext) -> pb.StatusReply:
        self._network.met(context.peer())
        return pb.StatusReply(application="here")


class AsyncCoordinator(control_pb2_grpc.CoordinatorServicer):
    async def Status(self, request: object, context: object) -> pb.StatusReply:
        return pb.StatusReply(application="here")


@pytest.fixture
def port(certificates: Certificates) -> Iterator[int]:
    """Of a server with these certificates."""
    network = Network("", "", certificates)
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        control_pb2_grpc.add_CoordinatorServicer_to_server(Coordinator(network), server)
        found = server.add_secure_port(f"{ADDRESS}:0", certificates.server())
        server.start()
        yield found
        server.stop(None).wait()


def ask(port: int, credentials: grpc.ChannelCredentials | None, patience: float = 5.0) -> str:
    with Client(f"{ADDRESS}:{port}", patience, credentials) as client:
        return str(client.status()["application"])


def is_refused(port: int, credentials: grpc.ChannelCredentials | None) -> bool:
    try:
        ask(port, credentials)
    except Unreachable:
        return True
    return False


def test_whoever_has_a_certificate_of_the_authority_is_let_in(
    port: int, authority: Authority
) -> None:
    """Ruling K8s 24."""
    assert ask(port, authority.client()) == "here"


def test_strangers_are_refused_and_counted(
    port: int, authority: Authority, certificates: Certificates
) -> None:
    """Ruling K8s 24: refused handshakes are begun ones minus authenticated ones."""
    ask(port, authority.client())
    assert certificates.refused == 0
    assert is_refused(port, Authority().client(accepts=authority)), "of another authority"
    assert certificates.refused >= 1
    nobody = grpc.ssl_channel_credentials(authority.certificate)
    assert is_refused(port, nobody), "without a certificate"
    assert is_refused(port, None), "without TLS"
    before = certificates.refused
    ask(port, authority.client())
    assert certificates.refused == before


def test_a_server_of_another_authority_or_name_is_not_believed(
    tmp_path: Path, port: int, authority: Authority
) -> None:
    """Rulings K8s 9 and 24: the name is checked, whatever the address."""
    other = Authority()
    assert is_refused(port, authority.client(accepts=other))
    wrong = Certificates(authority.mount(tmp_path / "wrong", name="somebody.else"))
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        found = server.add_secure_port(f"{ADDRESS}:0", wrong.server())
        server.start()
        assert is_refused(found, authority.client())
        server.stop(None).wait()


def test_new_certificates_are_for_new_connections_and_old_ones_live_on(
    port: int, tmp_path: Path, authority: Authority, certificates: Certificates, clock: Clock
) -> None:
    """Ruling K8s 24: an authority is replaced by way of accepting both."""
    new = Authority("new")
    with Client(f"{ADDRESS}:{port}", 5.0, authority.client()) as client:
        assert client.status()
        before = certificates.ca
        authority.mount(tmp_path / "tls", new)
        assert certificates.ca == before, "it has not looked yet"
        assert is_refused(port, new.client(accepts=authority))
        clock.now += LOOK
        assert ask(port, new.client(accepts=authority)) == "here"
        assert certificates.ca != before
        new.mount(tmp_path / "tls")
        clock.now += LOOK
        assert ask(port, new.client()) == "here"
        assert certificates.ca == hashlib.sha256(new.certificate).hexdigest()
        assert is_refused(port, authority.client(accepts=new))
        assert client.status(), "the connection of before lives on"


def test_a_client_has_what_the_folder_holds(
    port: int, tmp_path: Path, authority: Authority, certificates: Certificates, clock: Clock
) -> None:
    """Ruling K8s 24."""
    assert ask(port, certificates.client()) == "here"
    clock.now += LOOK
    authority.mount(tmp_path / "tls")
    assert ask(port, certificates.client()) == "here"


def test_files_that_are_being_changed_do_not_count(
    port: int, tmp_path: Path, authority: Authority, certificates: Certificates, clock: Clock
) -> None:
    key, _ = Authority().leaf("worker.wallaroo")
    (tmp_path / "tls" / "tls.key").write_bytes(key)
    clock.now += LOOK
    assert ask(port, authority.client()) == "here"
    (tmp_path / "tls" / "tls.key").unlink()
    clock.now += LOOK
    assert ask(port, authority.client()) == "here"


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("what", ["gone", "damaged"])
def test_certificates_that_cannot_be_used_are_named_at_the_start(
    tmp_path: Path, authority: Authority, name: str, what: str
) -> None:
    folder = authority.mount(tmp_path / "tls")
    if what == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_text("no certificate")
    with pytest.raises(InputError, match="tls"):
        Certificates(folder)


def test_the_server_of_exchanges_renews_its_certificates_too(
    tmp_path: Path, authority: Authority, certificates: Certificates, clock: Clock
) -> None:
    """Ruling K8s 24. It is one of asyncio's."""
    new = Authority("new")

    async def status(port: int, credentials: grpc.ChannelCredentials) -> str:
        address = f"{ADDRESS}:{port}"
        options = [("grpc.use_local_subchannel_pool", 1), *CLIENT_OPTIONS]
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            stub = control_pb2_grpc.CoordinatorStub(channel)
            return str((await stub.Status(pb.StatusRequest(), timeout=5)).application)

    async def run() -> None:
        server = grpc.aio.server()
        control_pb2_grpc.add_CoordinatorServicer_to_server(AsyncCoordinator(), server)
        port = server.add_secure_port(f"{ADDRESS}:0", certificates.server())
        await server.start()
        try:
            assert await status(port, authority.client()) == "here"
            with pytest.raises(grpc.RpcError):
                await status(port, new.client(accepts=authority))
            new.mount(tmp_path / "tls", authority)
            clock.now += LOOK
            assert await status(port, authority.client(accepts=new)) == "here"
            assert await status(port, new.client()) == "here"
        finally:
            await server.stop(None)

    asyncio.run(run())
