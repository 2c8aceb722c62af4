"""Certificates of one benchmark run: a throw-away CA and one P-256 leaf that the origin and the reverse proxies share."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME = "localhost"
"""The name that clients send as SNI and verify; the leaf also covers 127.0.0.1."""


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files."""

    ca: Path
    chain: Path
    key: Path
    combined: Path
    """Chain and key in one file, as HAProxy wants it."""


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def make_certificates(directory: Path, *more: str) -> Certificates:
    """Write a new CA and leaf, which is for the names ``more`` too, below ``directory`` and return where they are."""
    directory.mkdir(parents=True, exist_ok=True)
    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = (
        _builder("soth-mitm bench CA", "soth-mitm bench CA", ca_key.public_key(), ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = [*map(x509.DNSName, (NAME, *more)), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    leaf = (
        _builder(NAME, "soth-mitm bench CA", leaf_key.public_key(), ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    made = Certificates(directory / "ca.pem", directory / "chain.pem", directory / "key.pem", directory / "combined.pem")
    encoding = serialization.Encoding.PEM
    key_text = leaf_key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for path, content in (
        (made.ca, ca.public_bytes(encoding)),
        (made.chain, leaf.public_bytes(encoding)),
        (made.key, key_text),
        (made.combined, leaf.public_bytes(encoding) + key_text),
    ):
        path.touch(mode=0o600)
        path.write_bytes(content)
    return made
