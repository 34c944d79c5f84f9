"""Certificates are replaced while workers run: nobody starts again, and no event is lost."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from applications import Sequences
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from k8s import Collector, Failed, Json, Namespace, until

#: Seconds for workers to have what is in a Secret, and for the operator to have heard of it.
RENEWAL = 240.0

#: Prints the certificate that is shown at an address, as PEM.
_SHOWN = """
import socket, ssl, sys
folder = "/etc/wallaroo/tls"
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.load_verify_locations(f"{folder}/ca.crt")
context.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
context.set_alpn_protocols(["h2"])
with socket.create_connection((sys.argv[1], 7711), 5) as plain:
    with context.wrap_socket(plain) as met:
        print(ssl.DER_cert_to_PEM_cert(met.getpeercert(binary_form=True)))
"""


@pytest.fixture
def running(namespace: Namespace, collector: Collector) -> Sequences:
    made = Sequences(namespace, collector, 2, rate=1_000)
    made.app.until_ready()
    made.until_more(2_000)
    return made


def _secret(made: Sequences, which: str) -> dict[str, str]:
    """What a Secret of the application holds; {} if there is none."""
    data: Json = made.namespace.get("secret", f"app-{which}").get("data", {})
    return {key: base64.b64decode(each).decode() for key, each in data.items()}


def _hurry(made: Sequences) -> None:
    """Have kubelet and operator look now: they are not told of Secrets, and look now and then."""
    note = f"example.com/looked={datetime.now(UTC).timestamp()}"
    pods = ("pods", "-l", "wallaroo.dev/application=app")
    made.namespace.kubectl("annotate", "--overwrite", *pods, note)
    made.namespace.kubectl("annotate", "--overwrite", "wapp", "app", note)


def _is_shown(made: Sequences, certificate: str) -> bool:
    """Whether all workers show this one to who connects."""
    _hurry(made)
    addresses = [pod["status"]["podIP"] for pod in made.app.pods()]
    command = ("exec", "app-1", "--", "python", "-c", _SHOWN)
    try:
        shown = {made.namespace.kubectl(*command, each).strip() for each in addresses}
    except Failed:  # the files it reads are just being replaced
        return False
    return shown == {certificate.strip()}


def _restarts(made: Sequences) -> list[tuple[str, int]]:
    return [
        (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        for pod in made.app.pods()
    ]


def _aged(certificate: str, key: str) -> str:
    """The same authority, of whose validity less than a third is left."""
    found = x509.load_pem_x509_certificate(certificate.encode())
    signer = serialization.load_pem_private_key(key.encode(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(found.subject)
        .issuer_name(found.issuer)
        .public_key(signer.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=300))
        .not_valid_after(now + timedelta(days=100))
    )
    for each in found.extensions:
        builder = builder.add_extension(each.value, each.critical)
    made = builder.sign(signer, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_a_leaf_is_renewed_without_a_restart(running: Sequences) -> None:
    """Ruling K8s 24: what is renewed is for new connections, and those that are open live on."""
    before, old = _restarts(running), _secret(running, "tls")
    until(lambda: _is_shown(running, old["tls.crt"]), "the one that is mounted is not shown")
    running.namespace.kubectl("delete", "secret", "app-tls")
    _hurry(running)
    until(lambda: _secret(running, "tls"), "the Secret is not made anew")
    new = _secret(running, "tls")
    assert new["tls.crt"] != old["tls.crt"]
    assert new["ca.crt"] == old["ca.crt"]
    until(lambda: _is_shown(running, new["tls.crt"]), "the old one is shown", RENEWAL)
    running.app.until_ready()
    assert _restarts(running) == before
    running.end()


def test_an_authority_is_replaced_without_a_restart(running: Sequences) -> None:
    """Ruling K8s 24: both are trusted until all have the new one's leaf."""
    before, old = _restarts(running), _secret(running, "ca")
    assert set(old) == {"ca.crt", "ca.key"}
    aged = _aged(old["ca.crt"], old["ca.key"])
    change = json.dumps({"data": {"ca.crt": base64.b64encode(aged.encode()).decode()}})
    running.namespace.kubectl("patch", "secret", "app-ca", "--type=merge", "-p", change)

    def replaced() -> bool:
        _hurry(running)
        now = _secret(running, "ca")
        return set(now) == {"ca.crt", "ca.key"} and now["ca.key"] != old["ca.key"]

    until(replaced, "the authority is not replaced", RENEWAL)
    new = _secret(running, "tls")
    assert new["ca.crt"] == _secret(running, "ca")["ca.crt"], "the old one is trusted no longer"
    until(lambda: _is_shown(running, new["tls.crt"]), "the old one is shown", RENEWAL)
    running.app.until_ready()
    assert _restarts(running) == before
    running.end()
