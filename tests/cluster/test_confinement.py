"""Who may talk to workers, and what a worker may do in its pod."""

import pytest
from applications import Sequences
from k8s import Collector, Failed, Namespace


@pytest.fixture
def running(namespace: Namespace, collector: Collector) -> Sequences:
    made = Sequences(namespace, collector, 2, rate=1_000)
    made.app.until_ready()
    return made


_ASK = """
import sys, grpc
from wallaroo.v1 import control_pb2 as pb, control_pb2_grpc
address, *paths = sys.argv[1:]
files = [open(path, "rb").read() for path in paths]  # the authority, and a key with certificate
channel = grpc.secure_channel(
    address, grpc.ssl_channel_credentials(*files),
    options=[("grpc.ssl_target_name_override", "worker.wallaroo")],
) if files else grpc.insecure_channel(address)
try:
    control_pb2_grpc.CoordinatorStub(channel).Status(pb.StatusRequest(), timeout=5)
    print("answered")
except grpc.RpcError as error:
    print("refused", error.code().name)
"""


def test_who_has_a_certificate_is_answered(running: Sequences) -> None:
    """Else the others of these tests would show nothing."""
    address = f"{running.app.pods()[0]['status']['podIP']}:7710"
    files = [f"/etc/wallaroo/tls/{name}" for name in ("ca.crt", "tls.key", "tls.crt")]
    execute = ("exec", "app-1", "--", "python", "-c", _ASK, address, *files)
    assert running.namespace.kubectl(*execute).strip() == "answered"


@pytest.mark.parametrize("port", [7710, 7711])
def test_a_stranger_is_refused(running: Sequences, port: int) -> None:
    """Ruling K8s 24: without a certificate of the application's nobody is answered."""
    address = f"{running.app.pods()[0]['status']['podIP']}:{port}"
    said = running.collector.execute("python", "-c", _ASK, address)
    assert said.startswith("refused UNAVAILABLE"), said


def test_who_knows_the_authority_alone_is_refused(running: Sequences) -> None:
    """Ruling K8s 24."""
    secret = running.namespace.get("secret", "app-tls")
    assert set(secret["data"]) == {"tls.crt", "tls.key", "ca.crt"}
    address = f"{running.app.pods()[0]['status']['podIP']}:7710"
    execute = running.collector.execute
    execute("sh", "-c", f"echo {secret['data']['ca.crt']} | base64 -d >/tmp/ca.crt")
    said = execute("python", "-c", _ASK, address, "/tmp/ca.crt")
    assert said.startswith("refused UNAVAILABLE"), said


def test_no_pod_has_the_key_of_the_authority(running: Sequences) -> None:
    """Ruling K8s 24."""
    for pod in running.app.pods():
        assert "app-ca" not in str(pod["spec"])


def test_a_worker_can_write_nothing_but_its_volumes(running: Sequences) -> None:
    """Ruling K8s 13; the namespace enforces restricted Pod Security, too."""

    def execute(*command: str) -> str:
        return running.namespace.kubectl("exec", "app-0", "--", *command)

    assert execute("id", "-u").strip() == "65532"
    for folder in ("/", "/opt/wallaroo", "/etc/wallaroo/module"):
        with pytest.raises(Failed, match="Read-only file system"):
            execute("touch", f"{folder}/something")
    for folder in ("/tmp", "/home/wallaroo", "/var/lib/wallaroo"):
        execute("touch", f"{folder}/something")
    with pytest.raises(Failed):
        execute("cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    assert "APP_PORT" not in execute("env")  # a Service named wallaroo would set WALLAROO_PORT


def test_metrics_are_served(running: Sequences) -> None:
    address = f"http://{running.app.pods()[1]['status']['podIP']}:7712/metrics"
    fetch = f"import urllib.request as u; print(u.urlopen({address!r}).read().decode())"
    said = running.collector.execute("python", "-c", fetch)
    for name in ("wallaroo_events", "wallaroo_busy", "wallaroo_keys", "wallaroo_refused"):
        assert f"\n{name}" in said, f"{name} is not among {said}"
