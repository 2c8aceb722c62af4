"""TLS towards upstreams: one context per ALPN offer and client certificate, made once, and the sessions that they resume.

OpenSSL's default verify paths name a directory in which it looks up issuers by hash, on disk, during every handshake. So the
system's roots are read once here and put into each context's store.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from soth_mitm.errors import InvalidConfigError
from soth_mitm.tls.ciphers import check_ciphers, cipher_string
from soth_mitm.tls.hardening import MinVersion, harden
from soth_mitm.tls.sessions import SessionCache

# Where distributions keep one file with all roots; asked only if OpenSSL's own paths lead to nothing, as in a wheel's Python
# that was built elsewhere.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# Forward secrecy, nothing signed with SHA-1 in it, and security level 2: RSA keys from 2048 bits on, no certificate signed with SHA-1.
# Python's own default where it was built with one; a distribution's may be lower.
_CIPHERS = "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aDSS:!SHA1:!AESCCM"
_MAX_ROOT_FILE_BYTES = 8 << 20
# How a combined bundle of ours begins. SSL_CERT_FILE names one where `soth-mitm ca env` was used, and our own CA is no root of the system.
BUNDLE_MARK = "# soth-mitm combined bundle"
_PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate (with its chain) and its unencrypted key, in PEM files, with which we answer an upstream that wants one."""

    cert_path: str
    key_path: str


class UpstreamContexts:
    """Client-side contexts of one configuration, with the session cache that belongs to them.

    Reads certificates and keys when it is made and never afterwards; `InvalidConfigError` names the key of a file that cannot
    be used. A changed configuration or changed files want a new object.
    """

    def __init__(
        self,
        *,
        verify: bool = True,
        ca_bundle_path: str | os.PathLike[str] | None = None,
        min_version: MinVersion = "tls1.2",
        ciphers: str | None = None,
        client_certs: Sequence[ClientCertificate] = (),
        session_capacity: int = 1024,
    ) -> None:
        self._verify = verify
        self._min_version: MinVersion = min_version
        check_ciphers(ciphers)
        self._ciphers = cipher_string(ciphers or _CIPHERS)
        self._roots = self._collect_roots(ca_bundle_path) if verify else b""
        self._lock = threading.Lock()
        self._contexts: dict[tuple[tuple[str, ...], ClientCertificate | None, bool], ssl.SSLContext] = {}
        self._client_certs = frozenset(client_certs)
        for client_cert in self._client_certs:
            _load_client_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), client_cert)
        self.sessions = SessionCache(session_capacity)

    def context(self, alpn: tuple[str, ...], client_cert: ClientCertificate | None = None, *, verify: bool = True) -> ssl.SSLContext:
        """Return the context that offers `alpn`; made on first use (some 20 ms with the system's roots), then kept.

        `client_cert` must be one of those the object was made with. With the context, always give `server_hostname`, IP
        addresses too: for those no SNI is sent, but the certificate is checked for them. `verify` False trusts whoever answers.
        """
        if client_cert is not None and client_cert not in self._client_certs:
            raise ValueError(f"client certificate {client_cert.cert_path} was not among those configured")
        verify = verify and self._verify
        key = (alpn, client_cert, verify)
        with self._lock:
            context = self._contexts.get(key)
            if context is None:
                context = self._contexts[key] = self._build(alpn, client_cert, verify)
            return context

    def _build(self, alpn: tuple[str, ...], client_cert: ClientCertificate | None, verify: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        harden(context, self._min_version)
        context.set_ciphers(self._ciphers)
        if verify:
            context.hostname_checks_common_name = False  # RFC 9525 section 2: the SAN only, as in browsers
            # A bundle may name an intermediate or a server's own certificate as the anchor. VERIFY_X509_STRICT stays off: it
            # refuses private roots (no AKI, no keyUsage) that the client behind us would accept.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            if sys.platform in ("win32", "darwin"):
                context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            if self._roots:
                context.load_verify_locations(cadata=self._roots)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if client_cert is not None:
            _load_client_certificate(context, client_cert)
            context.post_handshake_auth = True
        return context

    def _collect_roots(self, ca_bundle_path: str | os.PathLike[str] | None) -> bytes:
        """Return all trust anchors that are kept in files, each once, as DER one after the other."""
        roots: dict[bytes, None] = {}
        if sys.platform not in ("win32", "darwin"):
            roots.update(dict.fromkeys(system_roots()))
        if ca_bundle_path is not None:
            own = _bundle(Path(ca_bundle_path))
            roots.update(dict.fromkeys(own))
        elif not roots and sys.platform not in ("win32", "darwin"):
            raise InvalidConfigError(
                "upstream.ca_bundle_path", "this system has no root certificates that OpenSSL finds; name a bundle of them here"
            )
        return b"".join(roots)


def system_roots() -> list[bytes]:
    """Return the DER of the certificates in OpenSSL's default file and directory (SSL_CERT_FILE and SSL_CERT_DIR count)."""
    paths = ssl.get_default_verify_paths()
    files = [Path(paths.cafile)] if paths.cafile else []
    if paths.capath:
        files += sorted(Path(paths.capath).iterdir())
    roots = usable_certificates(files)
    return roots or usable_certificates(Path(bundle) for bundle in _BUNDLES)


def usable_certificates(files: Iterable[Path]) -> list[bytes]:
    """Read certificates from whatever of `files` holds some; a system's directory has links, indexes and other formats in it."""
    found: dict[bytes, None] = {}
    seen: set[Path] = set()
    for file in files:
        real = file.resolve()
        if real in seen or not real.is_file() or real.stat().st_size > _MAX_ROOT_FILE_BYTES:
            continue
        seen.add(real)
        try:
            text = real.read_text("ascii", errors="replace")
        except OSError:
            continue  # not ours to read, so not among the roots of this user
        if text.startswith(BUNDLE_MARK):
            continue
        found.update(dict.fromkeys(der_certificates(text)))
    return [certificate for certificate, loadable in _try_loading(found) if loadable]


def _bundle(path: Path) -> list[bytes]:
    key = "upstream.ca_bundle_path"
    try:
        text = path.read_text("ascii", errors="replace")
    except OSError as error:
        raise InvalidConfigError(key, f"{path} cannot be read: {error.strerror}") from error
    certificates = der_certificates(text)
    if not certificates:
        raise InvalidConfigError(key, f"{path} holds no PEM certificate")
    for number, (_, loadable) in enumerate(_try_loading(certificates), 1):
        if not loadable:
            raise InvalidConfigError(key, f"certificate {number} of {path} is damaged")
    return certificates


def der_certificates(text: str) -> list[bytes]:
    """Return the DER of each PEM certificate in `text`, nothing in place of one with damaged base64."""
    return [_der(block) for block in _PEM_CERTIFICATE.findall(text)]


def _der(block: str) -> bytes:
    """Decode the base64 of a PEM block; nothing for damaged base64, which `_try_loading` then reports like damaged DER."""
    try:
        return ssl.PEM_cert_to_DER_cert(block)
    except ValueError:
        return b""


def _try_loading(certificates: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Tell for each certificate whether OpenSSL takes it; one bad one would make it refuse all that come in the same call."""
    scratch = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for certificate in certificates:
        try:
            scratch.load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError):
            yield certificate, False
        else:
            yield certificate, True


def _load_client_certificate(context: ssl.SSLContext, client_cert: ClientCertificate) -> None:
    for key, path in (("upstream.client_cert_path", client_cert.cert_path), ("upstream.client_key_path", client_cert.key_path)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise InvalidConfigError(key, f"{path} cannot be read: {error.strerror}") from error
    try:
        # An empty password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(client_cert.cert_path, client_cert.key_path, password="")
    except ssl.SSLError as error:
        why = "the key is for another certificate" if error.reason == "KEY_VALUES_MISMATCH" else "not PEM, or the key is encrypted"
        raise InvalidConfigError(
            "upstream.client_cert_path", f"{client_cert.cert_path} and {client_cert.key_path} cannot be used: {why}"
        ) from error
