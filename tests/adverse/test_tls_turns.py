"""TLS records that cost much and bring little: one peer's are worked off in many turns of the loop, and reading is paused meanwhile.

The peer's records are made here, with the key that its engine tells: no engine sends so many tickets, or changes its keys so often.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from soth_mitm._dataplane.memory.budget import Budget
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm.proxy.protocols import ClientEndpoint
from support.certs import TestCA

HANDSHAKE = 22
DATA = 23
A_READ = 200_000
# of ciphertext without plaintext, and the slice in which it is found out
MOST_OF_A_TURN = 8192 + 16384


class Records:
    """Writes TLS 1.3 records (RFC 8446 section 5.2) with the application traffic secret of a TLS_AES_256_GCM_SHA384 connection."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.key, self.iv, self.count = AESGCM(self._expand(b"key", 32)), self._expand(b"iv", 12), 0

    def _expand(self, name: bytes, length: int) -> bytes:
        label = b"tls13 " + name
        info = struct.pack("!HB", length, len(label)) + label + b"\0"
        return HKDFExpand(hashes.SHA384(), length, info).derive(self.secret)

    def record(self, kind: int, content: bytes) -> bytes:
        nonce = bytes(a ^ b for a, b in zip(self.iv, self.count.to_bytes(12, "big"), strict=True))
        self.count += 1
        header = b"\x17\x03\x03" + struct.pack("!H", len(content) + 17)
        return header + self.key.encrypt(nonce, content + bytes([kind]), header)

    def key_update(self) -> bytes:
        last = self.record(HANDSHAKE, b"\x18\0\0\x01\0")
        self.__init__(self._expand(b"traffic upd", 48))  # type: ignore[misc]
        return last


def bytes_one_by_one(records: Records) -> Iterator[bytes]:
    while True:
        yield records.record(DATA, b"x")


def tickets(records: Records) -> Iterator[bytes]:
    ticket = struct.pack("!IIBH", 7200, 0, 0, 1) + b"x" + b"\0\0"
    while True:
        yield records.record(HANDSHAKE, (b"\x04" + len(ticket).to_bytes(3, "big") + ticket) * 40)


def key_updates(records: Records) -> Iterator[bytes]:
    while True:
        yield records.key_update()


class Wire:
    """A transport whose peer is `engine`, and a loop whose turns the test takes."""

    def __init__(self, engine: ssl.SSLObject, incoming: ssl.MemoryBIO) -> None:
        self.engine = engine
        self.incoming = incoming
        self.reading = True
        self.callbacks: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def turn(self) -> None:
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()

    def write(self, data: bytes) -> None:
        self.incoming.write(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.incoming.write(b"".join(pieces))

    def set_write_buffer_limits(self, high: int) -> None: ...
    def get_extra_info(self, name: str) -> None: ...
    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def receive(endpoint: ClientEndpoint, data: bytes) -> None:
    with memoryview(endpoint.get_buffer(-1)) as room:
        room[: len(data)] = data
    endpoint.buffer_updated(len(data))


def connected(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> tuple[Wire, ClientEndpoint, ClientEndpoint, Records]:
    """Return an endpoint that has shaken hands with a server, and what writes records in the server's name."""
    context = TestCA().server_context("localhost")
    context.keylog_filename = str(tmp_path / "keys")
    context.num_tickets = 0
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    engine = context.wrap_bio(incoming, outgoing, server_side=True)
    wire = Wire(engine, incoming)
    intake = AwaitableEndpoint(loop)
    endpoint = ClientEndpoint(Arena(1 << 20, Budget(1 << 30, wire.call_soon)), intake)
    endpoint.connection_made(wire)
    intake.attach(endpoint)
    # an intake holds the endpoint that it has when the handshake is over: another one, so that this one reads on
    other = ClientEndpoint(endpoint.arena, intake)
    other.connection_made(Wire(engine, incoming))
    intake.attach(other)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    endpoint.start_tls(client, False, "localhost")
    with pytest.raises(ssl.SSLWantReadError):
        engine.do_handshake()
    receive(endpoint, outgoing.read())
    engine.do_handshake()
    assert intake.is_secured and engine.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
    (secret,) = [line.split()[2] for line in (tmp_path / "keys").read_text().splitlines() if line.startswith("SERVER_TRAFFIC_SECRET_0 ")]
    return wire, endpoint, other, Records(bytes.fromhex(secret))


@pytest.mark.parametrize("kind", [bytes_one_by_one, tickets, key_updates])
def test_records_that_bring_little(kind: Callable[[Records], Iterator[bytes]], tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    wire, endpoint, other, records = connected(loop, tmp_path)
    flood, count = b"", 0
    for record in kind(records):
        flood += record
        count += kind is bytes_one_by_one
        if len(flood) > A_READ:
            break
    receive(endpoint, flood + records.record(DATA, b"and then this"))
    endpoint.eof_received()
    turns = 0
    while wire.callbacks:
        assert not wire.reading and not endpoint.eof_delivered
        assert endpoint.bytes_in <= (turns + 1) * MOST_OF_A_TURN // 24
        wire.turn()
        turns += 1
    assert turns >= A_READ // MOST_OF_A_TURN
    assert endpoint.bytes_in == count + len("and then this")
    assert endpoint.eof_delivered
    for each in (endpoint, other):
        each.connection_lost(None)
    loop.close()
