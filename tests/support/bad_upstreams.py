"""Upstreams whose TLS is wrong, each in one way: what they do, and what a proxy has to make of it.

for fault in FAULTS:
    with BadUpstream(fault, ca) as upstream: ...     # listens on upstream.port
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from support import raw_tls
from support.certs import TestCA, load_pair, new_key, self_signed

HOST = "localhost"
_RESET = struct.pack("ii", 1, 0)
_SHA256_WITH_RSA = bytes.fromhex("06092a864886f70d01010b")
_SHA1_WITH_RSA = bytes.fromhex("06092a864886f70d010105")
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"

Pair = tuple[bytes, bytes]
Wire = Callable[[socket.socket, threading.Event], object]
"""Deals with a connection whose ClientHello has not been read; the event says that the test is over."""


@dataclass(frozen=True)
class Fault:
    """One way to be a bad upstream, the class it has to be put into, and words that the client has to read.

    Either `context` makes the server's TLS context or `wire` says what goes over the socket. `name` is what clients ask for (None: nothing,
    they connect to the address).
    """

    title: str
    reason: str
    words: str
    context: Callable[[TestCA], ssl.SSLContext] | None = None
    wire: Callable[[TestCA], Wire] | None = None
    name: str | None = HOST
    status: int = 502

    def __str__(self) -> str:
        return self.title


class BadUpstream:
    """A listening server with a fault. `requests` are the first bytes of what came through TLS all the same."""

    def __init__(self, fault: Fault, ca: TestCA) -> None:
        self._context = fault.context(ca) if fault.context else None
        self._wire = fault.wire(ca) if fault.wire else None
        self.connections = 0
        self.requests: list[bytes] = []
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._secured: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="bad upstream")
        self._accepting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join()
        for sock in self._secured:
            # a server that waits for the next request would wait for a client that keeps the connection
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        # the proxy may leave at any moment
        with sock, contextlib.suppress(OSError, EOFError):
            if self._context is None:
                assert self._wire is not None
                self._wire(sock, self._over)
                return
            with self._context.wrap_socket(sock, server_side=True) as secured:
                self._secured.append(secured)
                while request := secured.recv(65536):
                    self.requests.append(request)
                    secured.sendall(_ANSWER)


# --- contexts


def _presents(issue: Callable[[TestCA], Pair], **settings: object) -> Callable[[TestCA], ssl.SSLContext]:
    """A server that presents what `issue` makes; it has no standards itself."""

    def make(ca: TestCA) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")
        load_pair(context, issue(ca))
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            for name, value in settings.items():
                setattr(context, name, value)
        return context

    return make


def _only(ciphers: str) -> Callable[[TestCA], ssl.SSLContext]:
    def make(ca: TestCA) -> ssl.SSLContext:
        context = _presents(lambda ca: ca.issue(HOST, key=_rsa(2048)))(ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
        return context

    return make


def asks_for_certificate(ca: TestCA, *, required: bool, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Return the context of a server that wants client certificates of `ca`."""
    context = ca.server_context(HOST)
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    context.maximum_version = version
    context.load_verify_locations(cadata=ca.cert_pem.decode("ascii"))
    return context


@functools.cache
def _rsa(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def _first(chain: bytes) -> bytes:
    end = b"-----END CERTIFICATE-----\n"
    return chain.partition(end)[0] + end


def _without_intermediate(ca: TestCA) -> Pair:
    chain, key = ca.intermediate().issue(HOST)
    return _first(chain), key


def _with_its_root(ca: TestCA) -> Pair:
    stranger = TestCA("Stranger")
    chain, key = stranger.issue(HOST)
    return chain + stranger.cert_pem, key


def _by_a_server(ca: TestCA) -> Pair:
    """A leaf that was signed by another leaf."""
    return TestCA("elsewhere.test", parent=ca, is_ca=False).issue(HOST)


def _below_a_last_ca(ca: TestCA) -> Pair:
    return TestCA("Last", parent=ca, path_length=0).intermediate("Too deep").issue(HOST)


def _by_a_weak_ca(ca: TestCA) -> Pair:
    return TestCA("Weak", parent=ca, key=_rsa(1024)).issue(HOST)


def _signed_with_sha1(ca: TestCA) -> Pair:
    """A leaf that an RSA CA has signed with SHA-1, which the library that makes certificates here refuses to do."""
    authority = TestCA("RSA", parent=ca, key=_rsa(2048))
    chain, key = authority.issue(HOST)
    der = _der(chain).replace(_SHA256_WITH_RSA, _SHA1_WITH_RSA)
    signed = x509.load_der_x509_certificate(der).tbs_certificate_bytes
    signature = _rsa(2048).sign(signed, padding.PKCS1v15(), hashes.SHA1())
    pem = ssl.DER_cert_to_PEM_cert(der[: -len(signature)] + signature).encode("ascii")
    return pem + authority.cert_pem, key


def _signature_broken(ca: TestCA) -> bytes:
    der = bytearray(_der(ca.issue(HOST)[0]))
    der[-1] ^= 1
    return bytes(der)


def _der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(_first(pem).decode("ascii"))


def long_chain(ca: TestCA, size: int) -> Pair:
    """Return a good leaf with further certificates behind it, useless ones, `size` bytes of DER in all at least."""
    chain, key = ca.issue(HOST)
    filler = ca.issue(*(f"a-rather-long-name-of-{number}.example.test" for number in range(100)))[0]
    return chain + filler * (size // len(_der(filler)) + 1), key


# --- wires


def _sends(
    *pieces: bytes | Callable[[bytes, TestCA], bytes], then: Callable[[socket.socket, threading.Event], object]
) -> Callable[[TestCA], Wire]:
    """Read the ClientHello, send the pieces, end as `then` says."""

    def bind(ca: TestCA) -> Wire:
        def serve(sock: socket.socket, over: threading.Event) -> None:
            hello = raw_tls.read_hello(sock)
            sock.sendall(b"".join(piece if isinstance(piece, bytes) else piece(hello, ca) for piece in pieces))
            then(sock, over)

        return serve

    return bind


def _close(sock: socket.socket, over: threading.Event) -> None:
    sock.shutdown(socket.SHUT_WR)
    sock.recv(65536)


def _reset(sock: socket.socket, over: threading.Event) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _stall(sock: socket.socket, over: threading.Event) -> None:
    over.wait(10)


def _with_certificate(make: Callable[[TestCA], bytes]) -> Callable[[bytes, TestCA], bytes]:
    """A whole flight with a certificate that the shared key of `TestCA.issue` belongs to, or whatever `make` returns."""

    def build(hello: bytes, ca: TestCA) -> bytes:
        return raw_tls.flight(hello, make(ca), new_key())

    return build


_TLS_1_1, _TLS_1_2, _TLS_1_3 = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
_NOT_TLS = "is not TLS"
_NO_VERSION = "tls.min_version"
_UNTRUSTED = "upstream.ca_bundle_path"
_WANTS_ONE = "upstream.client_cert_path"

CERTIFICATE_FAULTS = (
    Fault(
        "expired",
        "cert_validation",
        "certificate has expired (code 10); it has to be renewed",
        _presents(lambda ca: ca.issue_expired(HOST)),
    ),
    Fault("not yet valid", "cert_validation", "not yet valid", _presents(lambda ca: ca.issue_not_yet_valid(HOST))),
    Fault("self-signed", "unknown_ca", "self-signed certificate", _presents(lambda ca: self_signed(HOST))),
    Fault("unknown root", "unknown_ca", _UNTRUSTED, _presents(lambda ca: TestCA("Stranger").issue(HOST))),
    Fault("unknown root sent along", "unknown_ca", "in certificate chain", _presents(_with_its_root)),
    Fault("intermediate missing", "unknown_ca", "intermediate", _presents(_without_intermediate)),
    Fault("other host", "cert_validation", "not valid for 'localhost'", _presents(lambda ca: ca.issue("elsewhere.test"))),
    Fault(
        "wildcard one level short",
        "cert_validation",
        "not valid for 'a.b.example.test'",
        _presents(lambda ca: ca.issue("*.example.test")),
        name="a.b.example.test",
    ),
    Fault(
        "wildcard for its own parent",
        "cert_validation",
        "not valid for 'example.test'",
        _presents(lambda ca: ca.issue("*.example.test")),
        name="example.test",
    ),
    Fault("address without a name for it", "cert_validation", "not valid for '127.0.0.1'", _presents(lambda ca: ca.issue(HOST)), name=None),
    Fault(
        "address as a DNS name",
        "cert_validation",
        "not valid for '127.0.0.1'",
        _presents(lambda ca: ca.issue(dns_names=["127.0.0.1"])),
        name=None,
    ),
    Fault("common name only", "cert_validation", "not valid for 'localhost'", _presents(lambda ca: ca.issue(common_name=HOST))),
    Fault("NUL in its name", "cert_validation", "not valid for 'localhost'", _presents(lambda ca: ca.issue("localhost\0.elsewhere.test"))),
    Fault("for clients only", "cert_validation", "purpose", _presents(lambda ca: ca.issue_for_clients(HOST))),
    Fault("signed by a server", "cert_validation", "CA certificate", _presents(_by_a_server)),
    Fault("chain longer than its CA allows", "cert_validation", "path length", _presents(_below_a_last_ca)),
    Fault(
        "outside what its CA may sign",
        "cert_validation",
        "permitted subtree",
        _presents(lambda ca: TestCA("Narrow", parent=ca, permitted="example.test").issue(HOST)),
    ),
    Fault(
        "among what its CA may not sign",
        "cert_validation",
        "excluded subtree",
        _presents(lambda ca: TestCA("Narrow", parent=ca, excluded="localhost").issue(HOST)),
    ),
    Fault("RSA key of 1024 bits", "cert_validation", "key too weak", _presents(lambda ca: ca.issue(HOST, key=_rsa(1024)))),
    Fault("CA with an RSA key of 1024 bits", "cert_validation", "key too weak", _presents(_by_a_weak_ca)),
    Fault("signed with SHA-1", "cert_validation", "digest algorithm too weak", _presents(_signed_with_sha1)),
    Fault(
        "key on a small curve",
        "handshake",
        "handshake_failure",
        _presents(lambda ca: ca.issue(HOST, key=ec.generate_private_key(ec.SECP192R1())), maximum_version=_TLS_1_2),
    ),
    Fault("signature broken", "cert_validation", "signature failure", wire=_sends(_with_certificate(_signature_broken), then=_close)),
    Fault("of another key", "handshake", "bad signature", wire=_sends(_with_certificate(lambda ca: _der(ca.issue(HOST)[0])), then=_close)),
    Fault("damaged", "handshake", "TLS handshake", wire=_sends(_with_certificate(lambda ca: b"\x30\x03nix"), then=_close)),
    Fault("none at all", "handshake", "handshake", wire=_sends(raw_tls.server_hello(), raw_tls.certificates(), then=_close)),
    Fault("chain of 110 kB", "handshake", "excessive message size", _presents(lambda ca: long_chain(ca, 110_000))),
)

HANDSHAKE_FAULTS = (
    Fault("TLS 1.1 at most", "handshake", _NO_VERSION, _presents(lambda ca: ca.issue(HOST), maximum_version=_TLS_1_1)),
    Fault("chooses TLS 1.0", "handshake", _NO_VERSION, wire=_sends(raw_tls.server_hello(version=raw_tls.TLS_1_0), then=_close)),
    Fault("no cipher suite in common", "handshake", "cipher suite", _only("AES256-SHA:@SECLEVEL=0")),
    Fault(
        "chooses what was not offered",
        "handshake",
        "unknown cipher",
        wire=_sends(raw_tls.server_hello(cipher=raw_tls.RSA_RC4_SHA), then=_close),
    ),
    Fault(
        "client certificate required, TLS 1.2",
        "handshake",
        _WANTS_ONE,
        lambda ca: asks_for_certificate(ca, required=True, version=_TLS_1_2),
    ),
    Fault(
        "client certificate required, TLS 1.3",
        "cert_validation",
        _WANTS_ONE,
        lambda ca: asks_for_certificate(ca, required=True, version=_TLS_1_3),
    ),
    Fault("garbage", "handshake", _NOT_TLS, wire=_sends(bytes(range(7, 207)), then=_close)),
    Fault("plain HTTP", "handshake", _NOT_TLS, wire=_sends(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", then=_close)),
    Fault("SSH", "handshake", _NOT_TLS, wire=_sends(b"SSH-2.0-OpenSSH_9.9\r\n", then=_close)),
    Fault("closes at once", "eof_or_reset", "closed the connection", wire=_sends(then=_close)),
    Fault("closes in the middle", "eof_or_reset", "closed the connection", wire=_sends(raw_tls.server_hello(), then=_close)),
    Fault("resets", "eof_or_reset", "reset", wire=_sends(then=_reset)),
    Fault("stalls at once", "timeout", "timeouts.upstream_tls_handshake_ms", wire=_sends(then=_stall), status=504),
    Fault(
        "stalls in the middle",
        "timeout",
        "timeouts.upstream_tls_handshake_ms",
        wire=_sends(raw_tls.server_hello(), then=_stall),
        status=504,
    ),
    Fault("alert internal_error", "handshake", "internal_error", wire=_sends(raw_tls.alert(raw_tls.INTERNAL_ERROR), then=_close)),
    Fault("alert unrecognized_name", "handshake", "unrecognized_name", wire=_sends(raw_tls.alert(raw_tls.UNRECOGNIZED_NAME), then=_close)),
    Fault("alert access_denied", "handshake", "access_denied", wire=_sends(raw_tls.alert(raw_tls.ACCESS_DENIED), then=_close)),
)

FAULTS = CERTIFICATE_FAULTS + HANDSHAKE_FAULTS
