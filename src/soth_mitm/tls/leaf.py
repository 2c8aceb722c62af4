"""Leaf certificates, minted for the names that clients ask for, and the server-side contexts that present them.

A store has one leaf key of its own, never the CA's, and keeps a bounded number of contexts. What the store keeps per name
is a whole `ssl.SSLContext`, because OpenSSL 3 spends several times longer on reading a certificate and a key into a context
than on signing the certificate.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from soth_mitm.errors import CaMaterialError
from soth_mitm.tls.ca import CertificateAuthority, key_usage, signing_hash
from soth_mitm.tls.hardening import MinVersion, harden
from soth_mitm.tls.names import HostName, parse_name

MAX_VALIDITY_DAYS = 197
MAX_MIRRORED_NAMES = 100
# RFC 5280, upper bound ub-common-name.
MAX_COMMON_NAME = 64
BACKDATE = datetime.timedelta(hours=36)

# Forward secrecy and AEAD only, ECDSA and so without CBC: Mozilla's "intermediate" list for TLS 1.2; 1.3 has its own suites.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_Key = tuple[str, tuple[str, ...], MinVersion]


@dataclass(frozen=True, slots=True)
class LeafCounters:
    """A snapshot of a store's counters; every call of `context_for` is one hit or one miss."""

    minted: int
    hits: int
    misses: int
    evictions: int


@dataclass(frozen=True, slots=True)
class _Entry:
    context: ssl.SSLContext
    renew_at: float


class LeafStore:
    """Mint leaves of one CA and keep their contexts; may be used from many threads.

    `clock` returns seconds since the epoch. Raises `CaMaterialError` when the CA has expired, at minting.
    """

    def __init__(
        self,
        ca: CertificateAuthority,
        *,
        capacity: int = 1024,
        validity_days: int = MAX_VALIDITY_DAYS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        if not 1 <= validity_days <= MAX_VALIDITY_DAYS:
            raise ValueError(f"validity_days must be 1 to {MAX_VALIDITY_DAYS}, not {validity_days}")
        self._ca = ca
        self._capacity = capacity
        self._validity = datetime.timedelta(days=validity_days)
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._key_pem = self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self._authority = _authority_key_identifier(ca)
        self._hash = signing_hash(ca.private_key)
        self._lock = threading.Lock()  # guards what follows; never held while minting
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._pending: dict[_Key, Future[ssl.SSLContext]] = {}
        self._minted = self._hits = self._misses = self._evictions = 0

    def context_for(
        self, name: str, *, alpn: tuple[str, ...], min_version: MinVersion = "tls1.2", mirror: Sequence[str] = ()
    ) -> ssl.SSLContext:
        """Return the server-side context whose leaf is for `name` (a host name or an IP address) and which selects from `alpn`.

        `mirror` are further names for the leaf, as the upstream's certificate has them; they count when the leaf is minted,
        not afterwards. Blocks for the time of one minting when the leaf is not there, also if another thread mints it.
        Raises `ValueError` when `name` cannot be in a certificate.
        """
        canonical = parse_name(name)
        key: _Key = (str(canonical), alpn, min_version)
        with self._lock:
            context = self._take(key)
            if context is not None:
                return context
            self._misses += 1
            pending = self._pending.get(key)
            if pending is None:
                ours = self._pending[key] = Future()
        if pending is not None:
            return pending.result()
        return self._fill(key, canonical, mirror, ours)

    def ready_context(self, name: str, *, alpn: tuple[str, ...], min_version: MinVersion = "tls1.2") -> ssl.SSLContext | None:
        """Return what `context_for` would, if that needs no minting; None, which counts nothing, otherwise. Does not block."""
        with self._lock:
            return self._take((str(parse_name(name)), alpn, min_version))

    def mint(self, name: str, mirror: Sequence[str] = ()) -> x509.Certificate:
        """Sign a leaf for `name` and the usable ones of `mirror` (at most `MAX_MIRRORED_NAMES`), without keeping it."""
        return self._sign(parse_name(name), mirror)

    def counters(self) -> LeafCounters:
        """Return the counters, all of the same moment."""
        with self._lock:
            return LeafCounters(self._minted, self._hits, self._misses, self._evictions)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<LeafStore of {self._ca.fingerprint[:16]}: {len(self._entries)} of {self._capacity}>"

    def _take(self, key: _Key) -> ssl.SSLContext | None:
        """With the lock held."""
        entry = self._entries.get(key)
        if entry is None or self._clock() >= entry.renew_at:
            return None
        self._hits += 1
        self._entries.move_to_end(key)
        return entry.context

    def _fill(self, key: _Key, name: HostName, mirror: Sequence[str], ours: Future[ssl.SSLContext]) -> ssl.SSLContext:
        try:
            certificate = self._sign(name, mirror)
            context = self._build(certificate, key)
        except Exception as error:
            ours.set_exception(error)
            raise
        else:
            with self._lock:
                self._minted += 1
                self._entries[key] = _Entry(context, _renew_at(certificate))
                self._entries.move_to_end(key)
                if len(self._entries) > self._capacity:
                    self._entries.popitem(last=False)
                    self._evictions += 1
            ours.set_result(context)
            return context
        finally:
            with self._lock:
                del self._pending[key]
            ours.cancel()  # does nothing unless an interrupt cut us short; then nobody waits for ever

    def _sign(self, name: HostName, mirror: Sequence[str]) -> x509.Certificate:
        issuer = self._ca.certificate
        now = datetime.datetime.fromtimestamp(int(self._clock()), datetime.UTC)
        # A leaf that is valid for a day only must not spend it all in the past.
        start = max(now - min(BACKDATE, self._validity / 2), issuer.not_valid_before_utc)
        # Both ends of a validity are inclusive (RFC 5280 section 4.1.2.5).
        end = min(start + self._validity - datetime.timedelta(seconds=1), issuer.not_valid_after_utc)
        if end <= now:
            raise CaMaterialError(f"the CA certificate expired on {end:%Y-%m-%d %H:%M} UTC; make a new CA and have clients trust it")
        text = str(name)
        # A subject must not be empty unless the SAN is critical, and a name of 65 to 253 bytes does not fit into a CN.
        subject = (
            x509.NameAttribute(NameOID.COMMON_NAME, text)
            if len(text) <= MAX_COMMON_NAME
            else x509.NameAttribute(NameOID.ORGANIZATION_NAME, "soth-mitm")
        )
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([subject]))
            .issuer_name(issuer.subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(_alternative_names(name, mirror)), critical=False)
            .add_extension(self._authority, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._ca.private_key, self._hash)
        )

    def _build(self, certificate: x509.Certificate, key: _Key) -> ssl.SSLContext:
        _, alpn, min_version = key
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        harden(context, min_version)
        context.set_ciphers(_CIPHERS)
        # All of these suites are good: a client without AES in hardware knows better than we do.
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        # One ticket per handshake: the second costs both sides 80 µs and only serves clients that never use a ticket twice.
        context.num_tickets = 1
        if alpn:
            context.set_alpn_protocols(list(alpn))
        leaf_pem = certificate.public_bytes(serialization.Encoding.PEM)
        _load_chain(context, leaf_pem + self._ca.chain_pem + self._key_pem)
        return context


def _authority_key_identifier(ca: CertificateAuthority) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.private_key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _alternative_names(name: HostName, mirror: Iterable[str]) -> list[x509.GeneralName]:
    names: dict[HostName, None] = {name: None}
    if isinstance(name, ipaddress.IPv6Address) and name.ipv4_mapped is not None:
        # some clients (Java) compare the address without its mapping
        names[name.ipv4_mapped] = None
    for other in mirror:
        if len(names) > MAX_MIRRORED_NAMES:
            break
        try:
            names[parse_name(other, wildcard=True)] = None
        except ValueError:
            continue  # the upstream's certificate says so, but no client can ask for it
    return [x509.DNSName(each) if isinstance(each, str) else x509.IPAddress(each) for each in names]


def _renew_at(certificate: x509.Certificate) -> float:
    """Return when a leaf is to be replaced: a day before its end, sooner in proportion if it is short-lived."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (end - min(datetime.timedelta(days=1), (end - start) / 8)).timestamp()


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Load certificates and key into the context. The ssl module reads files only, so give it one that no path leads to."""
    if sys.platform == "linux" and os.path.isdir("/proc/self/fd"):
        descriptor = os.memfd_create("soth-mitm-leaf", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    descriptor, path = tempfile.mkstemp(prefix="soth-mitm-leaf-")
    try:
        with open(descriptor, "wb") as file:
            file.write(pem)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)
