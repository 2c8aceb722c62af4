"""TLS handshakes in memory: two `ssl.SSLObject`s over crossed BIOs, driven until both are done or one has failed."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from support.hellos import vector


@dataclass
class TlsPair:
    """A client and a server that speak to each other without a socket."""

    client: ssl.SSLObject
    server: ssl.SSLObject
    client_in: ssl.MemoryBIO
    server_in: ssl.MemoryBIO

    def exchange(self, data: bytes = b"ping") -> None:
        """Send `data` both ways and read it, so that TLS 1.3 tickets arrive too."""
        self.server.write(data)
        assert self.client.read(len(data)) == data
        self.client.write(data)
        assert self.server.read(len(data)) == data


def tls_pair(client: ssl.SSLContext, server: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None = None) -> TlsPair:
    """Connect the contexts; no byte has gone anywhere yet."""
    client_in, server_in = ssl.MemoryBIO(), ssl.MemoryBIO()
    return TlsPair(
        client.wrap_bio(client_in, server_in, server_hostname=name, session=session),
        server.wrap_bio(server_in, client_in, server_side=True),
        client_in,
        server_in,
    )


def run_handshake(pair: TlsPair) -> dict[str, Exception]:
    """Drive both sides; return what each side that failed raised, by ``client`` and ``server``.

    A side that has failed is closed: the other one reads its alert and then the end of the stream.
    """
    waiting = {"client": pair.client, "server": pair.server}
    errors: dict[str, Exception] = {}
    while waiting:
        before = _progress(pair), len(waiting)
        for side, tls in list(waiting.items()):
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except (ssl.SSLError, OSError) as error:
                errors[side] = error
                (pair.server_in if side == "client" else pair.client_in).write_eof()
            del waiting[side]
        assert (_progress(pair), len(waiting)) != before or any(_is_readable(pair, side) for side in waiting), "handshake stuck"
    if "client" in errors and "server" not in errors:
        # A TLS 1.3 server may be done before it learns that the client refuses its certificate.
        _read_alert(pair.server, "server", errors)
    if "server" in errors and "client" not in errors:
        _read_alert(pair.client, "client", errors)
    return errors


def connect(client: ssl.SSLContext, server: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None = None) -> TlsPair:
    """Handshake that has to succeed."""
    pair = tls_pair(client, server, name, session)
    errors = run_handshake(pair)
    assert not errors, errors
    return pair


def client_hello_bytes(context: ssl.SSLContext, name: str | None) -> bytes:
    """Return the first flight of a client that uses `context`."""
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a client cannot be done before the server has answered")


def first_record(secret: bytes, kind: int, data: bytes) -> bytes:
    """Return the first record of one side after a TLS 1.3 handshake, under its traffic secret, with AES-256-GCM (RFC 8446 section 5.2)."""
    key, iv = (_expand(secret, label, length) for label, length in ((b"key", 32), (b"iv", 12)))
    inner = data + bytes([kind])
    header = b"\x17\x03\x03" + vector(bytes(len(inner) + 16), 2)[:2]
    return header + AESGCM(key).encrypt(iv, inner, header)


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446 section 7.1, for suites with SHA-384."""
    info = length.to_bytes(2) + vector(b"tls13 " + label, 1) + vector(b"", 1)
    return HKDFExpand(hashes.SHA384(), length, info).derive(secret)


def _progress(pair: TlsPair) -> tuple[int, int]:
    return pair.client_in.pending, pair.server_in.pending


def _is_readable(pair: TlsPair, side: str) -> bool:
    incoming = pair.client_in if side == "client" else pair.server_in
    return incoming.pending > 0 or incoming.eof


def _read_alert(tls: ssl.SSLObject, side: str, errors: dict[str, Exception]) -> None:
    try:
        tls.read(1)
    except ssl.SSLWantReadError:
        return
    except (ssl.SSLError, OSError) as error:
        errors[side] = error
