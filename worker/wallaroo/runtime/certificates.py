"""Certificates of workers: both ends of every connection prove that they belong to the application.

A folder holds the worker's key and certificate, and the authorities whose certificates it accepts,
as a Secret is mounted. They are renewed while the worker runs, so the files are looked at again and
again; what has changed is for new connections.
"""

import hashlib
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from wallaroo.errors import InputError

#: Seconds after which the files are looked at again.
LOOK = 10.0
#: What every worker's certificate is for, whatever its address.
NAME = "worker.wallaroo"
#: Options of a connection to a worker.
CLIENT_OPTIONS = [("grpc.ssl_target_name_override", NAME)]
#: Peers that are remembered, to count each once.
_PEERS = 4096

_log = structlog.get_logger("wallaroo.certificates")


@dataclass(frozen=True)
class _Files:
    """What the folder holds."""

    certificate: bytes
    key: bytes
    authorities: bytes


class Certificates:
    """Those in `folder`: tls.crt, tls.key and ca.crt.

    Raises `InputError` if they can't be used.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._files = self._read()
        self._looked = clock()
        self._complained = ""
        self._begun = self._authenticated = 0
        self._peers: dict[str, None] = {}

    @property
    def ca(self) -> str:
        """Tells the accepted authorities from others: the SHA-256 of their file."""
        return hashlib.sha256(self._current().authorities).hexdigest()

    @property
    def refused(self) -> int:
        """Connections that were begun here and came to nothing, as those of strangers do."""
        with self._lock:
            return max(0, self._begun - self._authenticated)

    def met(self, peer: str) -> None:
        """A peer has asked for something: who can do that has proven who it is."""
        with self._lock:
            if peer not in self._peers:
                self._authenticated += 1
                self._peers[peer] = None
                if len(self._peers) > _PEERS:
                    del self._peers[next(iter(self._peers))]

    def client(self) -> grpc.ChannelCredentials:
        """For one connection to another worker."""
        files = self._current()
        return grpc.ssl_channel_credentials(files.authorities, files.key, files.certificate)

    def server(self) -> grpc.ServerCredentials:
        """For one server: each new connection is met with what the folder holds then."""
        told = self._current()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal told
            with self._lock:
                self._begun += 1
            files = self._current()
            if files is told:
                return None  # what it has
            told = files
            return _configuration(files)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(told), fetch, require_client_authentication=True
        )

    def _current(self) -> _Files:
        """What the folder held when it was last looked at, which was not long ago."""
        with self._lock:
            if self._clock() - self._looked < LOOK:
                return self._files
            self._looked = self._clock()
            try:
                files = self._read()
            except InputError as error:  # it is being changed, or was spoiled: what was good holds
                if str(error) != self._complained:
                    _log.error("the certificates can't be used; those of before are", why=error)
                self._complained = str(error)
            else:
                self._complained = ""
                if files != self._files:
                    _log.info("new certificates")
                    self._files = files
            return self._files

    def _read(self) -> _Files:
        certificate, key, authorities = (
            self._folder / name for name in ("tls.crt", "tls.key", "ca.crt")
        )
        try:
            before = None
            while True:  # until it is seen whole: a Secret's files change all at once
                files = _Files(*(each.read_bytes() for each in (certificate, key, authorities)))
                if files == before:
                    break
                before = files
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            context.load_verify_locations(authorities)
        except ssl.SSLError as error:
            why = error.reason or str(error)
            raise InputError(f"the certificates in {self._folder} are damaged: {why}") from None
        except OSError as error:
            where = error.filename or self._folder
            raise InputError(f"can't read {where}: {error.strerror or error}") from None
        return files


def _configuration(files: _Files) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(files.key, files.certificate)], root_certificates=files.authorities
    )
