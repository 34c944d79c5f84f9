"""What a pod answers over HTTP."""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import Counter

from wallaroo.runtime.health import Health


@pytest.fixture
def health() -> Iterator[Health]:
    made = Health("127.0.0.1", 0, lambda: "it is not there yet")
    yield made
    made.close()


def get(health: Health, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{health.port}{path}", timeout=5) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_it_lives_before_it_is_ready_and_says_why_it_is_not(health: Health) -> None:
    """Ruling K8s 10."""
    assert get(health, "/livez")[0] == 200
    assert get(health, "/readyz") == (503, "it is not there yet\n")
    health.unready = lambda: ""
    assert get(health, "/readyz")[0] == 200


def test_metrics_are_those_of_the_default_registry(health: Health) -> None:
    Counter("wallaroo_test_of_health", "A test").inc(3)
    assert "wallaroo_test_of_health_total 3.0" in get(health, "/metrics")[1]


def test_what_there_is_not_is_said(health: Health) -> None:
    assert get(health, "/")[0] == 404


def test_one_that_says_nothing_keeps_nobody_waiting(health: Health) -> None:
    """Ruling K8s 10."""
    with socket.create_connection(("127.0.0.1", health.port)):
        assert get(health, "/livez")[0] == 200


def test_whoever_holds_the_main_thread_keeps_nobody_waiting(health: Health) -> None:
    """Ruling K8s 10: the dataflow runs there, and users' functions with it."""
    with ThreadPoolExecutor(1) as kubelet:
        asked = kubelet.submit(get, health, "/livez")
        while not asked.done():
            sum(range(1000))
    assert asked.result()[0] == 200
