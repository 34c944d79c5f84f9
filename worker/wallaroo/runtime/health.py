"""What a pod answers over HTTP: whether it lives, whether it is ready, and its metrics.

Threads of their own answer, so that a slow function of the user's keeps nobody waiting: Kubernetes
would kill a worker that does not answer, and it works.
"""

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class Health:
    """Answers /livez, /readyz and /metrics at `host` and `port`, from the start.

    unready: says why the pod is not ready; empty if it is. It is called in any thread.
    Raises OSError if it can't listen there.
    """

    def __init__(self, host: str, port: int, unready: Callable[[], str]) -> None:
        self.unready = unready
        self._metrics = make_wsgi_app()
        self._server = make_server(host, port, self._answer, _server_class(host), _Silent)
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def _answer(self, asked: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        match asked["PATH_INFO"]:
            case "/metrics":
                answer: Iterable[bytes] = self._metrics(asked, start)
                return answer
            case "/livez":
                status, text = "200 OK", "it lives"
            case "/readyz":
                why = self.unready()
                status, text = ("503 Service Unavailable", why) if why else ("200 OK", "ready")
            case path:
                status, text = "404 Not Found", f"{path}: there is /livez, /readyz and /metrics"
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode(errors="backslashreplace")]

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def _server_class(host: str) -> type[_Server]:
    if ":" not in host:
        return _Server

    class OfIPv6(_Server):
        address_family = socket.AF_INET6

    return OfIPv6


class _Silent(WSGIRequestHandler):
    #: Seconds for a client to say what it wants.
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        """Say nothing: somebody asks every few seconds."""
