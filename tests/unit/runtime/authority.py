"""Certificates for tests, made as an operator makes them."""

import datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        made = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.certificate = self._sign(made)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    def leaf(self, *names: str) -> tuple[bytes, bytes]:
        """A key and its certificate, for these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            self._builder(_name(names[0]), key)
            .add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        return _pem(key), self._sign(builder)

    def mount(self, folder: Path, *more: "Authority", name: str = "worker.wallaroo") -> Path:
        """Put a worker's certificate into a folder, with all authorities that it is to accept."""
        key, certificate = self.leaf(name, "app.worker.wallaroo")
        folder.mkdir(exist_ok=True)
        # In this order nobody reads a key with another's certificate for long.
        (folder / "ca.crt").write_bytes(b"".join(each.certificate for each in (self, *more)))
        (folder / "tls.key").write_bytes(key)
        (folder / "tls.crt").write_bytes(certificate)
        return folder

    def client(self, accepts: "Authority | None" = None) -> grpc.ChannelCredentials:
        """Of an operator."""
        key, certificate = self.leaf("operator.wallaroo")
        return grpc.ssl_channel_credentials((accepts or self).certificate, key, certificate)
