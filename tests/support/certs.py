"""A throw-away certificate authority for tests: server certificates good and bad, and contexts that use them.

ca = TestCA()
cert_pem, key_pem = ca.issue("localhost", "127.0.0.1")
server = ca.server_context("localhost")
client = ca.client_context()
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID, ObjectIdentifier

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | hashes.SHA1
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class PemFiles:
    """Where `TestCA.write` put a pair and the root that verifies it."""

    cert: Path
    key: Path
    root: Path


class TestCA:
    """A root certificate with its key; `issue` signs server certificates, `intermediate` another CA below it.

    `permitted` and `excluded` are name constraints (one DNS name); without `is_ca` it signs all the same, but may not.
    """

    __test__ = False  # not a test class, whatever its name says

    def __init__(
        self,
        common_name: str = "Test Root",
        *,
        key: PrivateKey | None = None,
        parent: TestCA | None = None,
        is_ca: bool = True,
        path_length: int | None = None,
        permitted: str | None = None,
        excluded: str | None = None,
    ) -> None:
        self.key: PrivateKey = key or new_key()
        self.parent = parent
        issuer_name = parent.certificate.subject if parent else _name(common_name)
        issuer_key = parent.key if parent else self.key
        now = datetime.datetime.now(datetime.UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(issuer_name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
            .add_extension(_key_usage(sign_certificates=is_ca), critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        if permitted or excluded:
            constraints = [[x509.DNSName(name)] if name else None for name in (permitted, excluded)]
            builder = builder.add_extension(x509.NameConstraints(*constraints), critical=True)
        self.certificate = builder.sign(issuer_key, hashes.SHA256())

    @property
    def root(self) -> TestCA:
        """Return the CA at the top of the chain."""
        return self.parent.root if self.parent else self

    @property
    def cert_pem(self) -> bytes:
        return _cert_pem(self.certificate)

    @property
    def key_pem(self) -> bytes:
        return key_to_pem(self.key)

    def intermediate(self, common_name: str = "Test Intermediate") -> TestCA:
        """Make a CA below this one; what it issues comes with its certificate behind it."""
        return TestCA(common_name, parent=self)

    def issue(
        self,
        *names: str,
        key: PrivateKey | None = None,
        starts: datetime.timedelta = -DAY,
        ends: datetime.timedelta = 20 * DAY,
        usages: Sequence[ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH,),
        digest: Digest | None = None,
        dns_names: Sequence[str] = (),
        common_name: str | None = None,
        raw: Sequence[tuple[str, bytes]] = (),
    ) -> tuple[bytes, bytes]:
        """Return the certificate (with the intermediates behind it) for host names and IP addresses, and its key, as PEM.

        `starts` and `ends` count from now. `dns_names` are never taken for addresses; with nothing but a `common_name` there are no
        alternative names. Without `key` all certificates share one, which is quick to have. `raw` are extensions with any content, by their
        object identifiers; alternative names among them replace those of `names`.
        """
        leaf_key = key or _shared_key()
        alternatives = [*map(_general_name, names), *map(_dns_name, dns_names)]
        subject = (common_name or [*names, *dns_names][0]).partition("\0")[0][:64]
        certificate = self._sign(subject, alternatives, leaf_key, (starts, ends), usages, digest or hashes.SHA256(), raw)
        chain = _cert_pem(certificate)
        authority: TestCA = self
        while authority.parent is not None:
            chain += authority.cert_pem
            authority = authority.parent
        return chain, key_to_pem(leaf_key)

    def issue_expired(self, *names: str) -> tuple[bytes, bytes]:
        return self.issue(*names, starts=-10 * DAY, ends=-2 * DAY)

    def issue_not_yet_valid(self, *names: str) -> tuple[bytes, bytes]:
        return self.issue(*names, starts=2 * DAY, ends=10 * DAY)

    def issue_for_clients(self, *names: str) -> tuple[bytes, bytes]:
        """Issue a certificate whose extended key usage is client authentication: good towards a server, bad for one."""
        return self.issue(*names, usages=[ExtendedKeyUsageOID.CLIENT_AUTH])

    def server_context(self, *names: str, alpn: Sequence[str] = (), pair: tuple[bytes, bytes] | None = None) -> ssl.SSLContext:
        """Return a server-side context for `names`, or with the pair that an `issue` gave."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_pair(context, pair or self.issue(*names))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def client_context(self, *, alpn: Sequence[str] = (), pair: tuple[bytes, bytes] | None = None) -> ssl.SSLContext:
        """Return a client-side context that trusts this CA's root and nothing else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.root.cert_pem.decode("ascii"))
        if pair:
            load_pair(context, pair)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def write(self, directory: Path, *names: str, pair: tuple[bytes, bytes] | None = None) -> PemFiles:
        """Write a certificate, its key (0600) and the root to `directory` under fixed names."""
        cert_pem, key_pem = pair or self.issue(*names)
        files = PemFiles(directory / "cert.pem", directory / "key.pem", directory / "root.pem")
        files.cert.write_bytes(cert_pem)
        files.key.touch(mode=0o600)
        files.key.write_bytes(key_pem)
        files.root.write_bytes(self.root.cert_pem)
        return files

    def _sign(
        self,
        subject: str,
        alternatives: Sequence[x509.GeneralName],
        key: PrivateKey,
        validity: tuple[datetime.timedelta, datetime.timedelta],
        usages: Sequence[ObjectIdentifier],
        digest: Digest,
        raw: Sequence[tuple[str, bytes]],
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + validity[0])
            .not_valid_after(now + validity[1])
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        others = [x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), content) for oid, content in raw]
        if alternatives and all(other.oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME for other in others):
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        for other in others:
            builder = builder.add_extension(other, critical=False)
        return builder.sign(self.key, digest)


def self_signed(*names: str) -> tuple[bytes, bytes]:
    """Return a pair for `names` that no CA stands behind."""
    key = _shared_key()
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(names[0][:64]))
        .issuer_name(_name(names[0][:64]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 10 * DAY)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _cert_pem(certificate), key_to_pem(key)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def load_pair(context: ssl.SSLContext, pair: tuple[bytes, bytes]) -> None:
    """Load a PEM pair into a context; the ssl module takes nothing but files."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "pair.pem")
        path.write_bytes(b"".join(pair))
        context.load_cert_chain(path)


@functools.cache
def _shared_key() -> ec.EllipticCurvePrivateKey:
    return new_key()


def _cert_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return _dns_name(name)


def _dns_name(name: str) -> x509.DNSName:
    return x509.DNSName(name)


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
