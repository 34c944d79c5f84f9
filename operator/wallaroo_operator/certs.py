"""Certificates of an application: an authority of its own, the workers' leaf, and the operator's.

What is to be done is decided purely, from what two Secrets hold and what workers report; the keys
are made by `carry_out`. An authority is replaced in steps, so that at no time a worker meets a
certificate that it does not trust:

    current signs; current is trusted
    current signs; current and next are trusted      until all workers report this bundle
    next signs;    next and current are trusted      until all workers report this bundle
    next signs;    next is trusted                   and is the current one from now on

The bundles of the middle steps differ in their order, so a report of the second says that the leaf
beside it is in use, too: both are in one Secret, which changes as a whole.
"""

import base64
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Validities. A leaf and an authority are renewed when a third of theirs is left.
LEAF, AUTHORITY, OPERATOR = timedelta(days=365), timedelta(days=3650), timedelta(hours=24)
#: Clocks differ.
BACKDATED = timedelta(hours=1)

WORKER, OPERATOR_NAME = "worker.wallaroo", "operator.wallaroo"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: str
    key: str

    def left(self, now: datetime) -> float:
        """The part of its validity that is left: from 1 to 0, and below."""
        found = x509.load_pem_x509_certificate(self.certificate.encode())
        whole = found.not_valid_after_utc - found.not_valid_before_utc
        return (found.not_valid_after_utc - now) / whole


@dataclass(frozen=True)
class Held:
    """What the Secrets hold; None for what is not there or can't be read.

    bundle: the authorities that workers trust, as PEM, the one that signs first.
    """

    current: Pair | None = None
    next: Pair | None = None
    former: str = ""
    leaf: Pair | None = None
    bundle: str = ""

    @classmethod
    def read(cls, ca: Mapping[str, str], tls: Mapping[str, str]) -> "Held":
        """From the data of the Secrets, in base64."""
        authority = {key: _text(each) for key, each in ca.items()}
        mounted = {key: _text(each) for key, each in tls.items()}
        return cls(
            _pair(authority.get("ca.crt", ""), authority.get("ca.key", "")),
            _pair(authority.get("next.crt", ""), authority.get("next.key", "")),
            authority.get("former.crt", ""),
            _pair(mounted.get("tls.crt", ""), mounted.get("tls.key", "")),
            mounted.get("ca.crt", ""),
        )

    def ca_data(self) -> dict[str, str]:
        """The data of the Secret that nobody mounts."""
        assert self.current
        found = {"ca.crt": self.current.certificate, "ca.key": self.current.key}
        if self.next:
            found |= {"next.crt": self.next.certificate, "next.key": self.next.key}
        if self.former:
            found["former.crt"] = self.former
        return {key: _base64(each) for key, each in found.items()}

    def tls_data(self) -> dict[str, str]:
        """The data of the Secret that workers mount."""
        assert self.leaf
        found = {"tls.crt": self.leaf.certificate, "tls.key": self.leaf.key, "ca.crt": self.bundle}
        return {key: _base64(each) for key, each in found.items()}


class Step(Enum):
    """What is next."""

    NOTHING = "nothing"
    #: There is no authority: make one, and go on trusting what was trusted.
    FOUND = "found"
    #: The authority comes to its end: make the next one, and trust both.
    PREPARE = "prepare"
    #: All trust both: let the next one sign.
    SWITCH = "switch"
    #: All have the new leaf: trust the former authority no longer.
    DROP = "drop"
    #: The leaf is missing, is of another authority, or comes to its end.
    RENEW = "renew"
    #: What workers trust is not what it should be.
    MEND = "mend"


def decide(held: Held, reported: Collection[str], now: datetime) -> Step:
    """What is next.

    reported: of every worker there is, the SHA-256 of the bundle that it trusts; one that has not
        said anything counts as "".
    """
    if held.current is None:
        return Step.FOUND
    all_have_it = set(reported) <= {fingerprint(held.bundle)}
    if held.leaf is None or not issued(held.leaf, held.current) or held.leaf.left(now) < 1 / 3:
        return Step.RENEW
    if held.bundle != bundle(held):
        return Step.MEND
    if held.next:
        return Step.SWITCH if all_have_it else Step.NOTHING
    if held.former:
        return Step.DROP if all_have_it else Step.NOTHING
    return Step.PREPARE if held.current.left(now) < 1 / 3 else Step.NOTHING


def bundle(held: Held) -> str:
    """What workers are to trust; the one that signs comes first."""
    assert held.current
    extra = held.next.certificate if held.next else held.former
    return _joined(held.current.certificate, extra)


def carry_out(step: Step, held: Held, name: str, now: datetime) -> Held:
    """The same after a step; `name` is the application's."""
    match step:
        case Step.FOUND:
            current = authority(name, now)
            held = replace(held, current=current, next=None, former=held.bundle, leaf=None)
        case Step.PREPARE:
            held = replace(held, next=authority(name, now))
        case Step.SWITCH:
            assert held.current
            former = held.current.certificate
            held = replace(held, current=held.next, next=None, former=former, leaf=None)
        case Step.DROP:
            held = replace(held, former="")
    assert held.current
    if held.leaf is None or step is Step.RENEW:
        names = [WORKER, f"{name}.{WORKER}"]
        held = replace(held, leaf=leaf(held.current, WORKER, names, LEAF, now))
    return replace(held, bundle=bundle(held))


def operators_leaf(current: Pair, now: datetime) -> Pair:
    """What the operator shows to workers; it is in memory alone."""
    return leaf(current, OPERATOR_NAME, [OPERATOR_NAME], OPERATOR, now)


def fingerprint(text: str) -> str:
    """Of a bundle, as workers report it."""
    return hashlib.sha256(text.encode()).hexdigest()


def issued(one: Pair, by: Pair) -> bool:
    """Whether an authority has signed a certificate."""
    try:
        found = x509.load_pem_x509_certificate(one.certificate.encode())
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(by.certificate.encode()))
    except Exception:
        return False
    return True


def authority(name: str, now: datetime) -> Pair:
    """An authority of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"{name} {now:%Y-%m-%d}")
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + AUTHORITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(built, key)


def leaf(by: Pair, common: str, names: list[str], validity: timedelta, now: datetime) -> Pair:
    """A certificate for both ends of connections."""
    signer = serialization.load_pem_private_key(by.key.encode(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(by.certificate.encode())
    key = ec.generate_private_key(ec.SECP256R1())
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    of = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    built = (
        x509.CertificateBuilder()
        .subject_name(_subject(common))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + validity)
        .add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(of, critical=False)
        .sign(signer, hashes.SHA256())
    )
    return _pem(built, key)


def _subject(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


def _pair(certificate: str, key: str) -> Pair | None:
    try:
        x509.load_pem_x509_certificate(certificate.encode())
        serialization.load_pem_private_key(key.encode(), None)
    except ValueError:
        return None
    return Pair(certificate, key)


def _joined(*certificates: str) -> str:
    return "".join(each if each.endswith("\n") else f"{each}\n" for each in certificates if each)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(data: str) -> str:
    return base64.b64decode(data).decode(errors="replace")


def today() -> datetime:
    """Now, with its time zone."""
    return datetime.now(UTC)
