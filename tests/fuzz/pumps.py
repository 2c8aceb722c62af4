"""TLS records in any pieces, damaged or made up: what comes out is a prefix of what went in, all of it when nothing was damaged.

One side of a TLS connection is ours, in a tunnel to a plain connection; the other side is OpenSSL's. Input: see `operations`; the settings
are one byte. ``client`` lets the peer write, ``raw`` puts bytes on the wire, ``corrupt`` changes one that waits there, ``notify`` is
close_notify; the digit of ``client`` says how many tenths of what is on the wire are delivered, 0 for all of it. ``client_queues`` lets the
peer write, and nothing is delivered yet: what is said, or, with a digit, so many records of the greatest length.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterator

from fuzz.exchanges import ExchangeScene
from fuzz.fake_transport import FakeTransport
from fuzz.mutations import mutate_operations
from fuzz.operations import Operation, from_text, parse
from fuzz.tls_peer import TlsPeer
from soth_mitm._dataplane.exchange.relay import Tunnel
from soth_mitm._dataplane.memory import ledger
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm.proxy.protocols import ClientEndpoint, UpstreamEndpoint
from support.certs import TestCA
from support.samples import read_samples

WE_ARE_CLIENT, OLD_VERSION, HANDSHAKE_FIRST = 1, 2, 4
NAME = "localhost"
mutate = functools.partial(mutate_operations, ())
MOST_OPERATIONS = 60
LONGEST_RECORD = 16384
# More than one read buffer holds
MANY = 70_000


@functools.cache
def contexts(old: bool) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a client's and a server's context that work together."""
    authority = TestCA()
    client, server = authority.client_context(), authority.server_context(NAME)
    if old:
        client.maximum_version = ssl.TLSVersion.TLSv1_2
    return client, server


class PumpScene:
    """Our end of a TLS connection in a tunnel, its peer, and the plain connection behind."""

    def __init__(self, settings: int) -> None:
        self.scene = ExchangeScene(b"")
        client_context, server_context = contexts(bool(settings & OLD_VERSION))
        we_are_client = bool(settings & WE_ARE_CLIENT)
        self.peer = TlsPeer(server_context if we_are_client else client_context, we_are_client, NAME)
        self.intake = AwaitableEndpoint(self.scene.loop)
        self.endpoint = ClientEndpoint(self.scene.arena, self.intake)
        self.transport = FakeTransport(self.scene.loop, self.endpoint, self.peer.incoming.write, lambda _: None)
        self.plain_sent = b""
        self.plain_received = b""
        other_intake = AwaitableEndpoint(self.scene.loop)
        self.other = UpstreamEndpoint(self.scene.arena, other_intake)
        self.other_transport = FakeTransport(self.scene.loop, self.other, self._on_plain, lambda _: None)
        self.wire = b""
        self.ends = 0
        self.tunnel: Tunnel | None = None
        self.damaged = self.stopped = False
        self.endpoint.connection_made(self.transport)
        self.intake.attach(self.endpoint)
        self.other.connection_made(self.other_transport)
        other_intake.attach(self.other)
        if we_are_client:
            self.endpoint.start_tls(client_context, False, NAME)
        else:
            self.endpoint.start_tls(server_context, True)
        if settings & HANDSHAKE_FIRST:
            while not (self.peer.secured and self.intake.is_secured):
                self.deliver(0)

    def _on_plain(self, data: bytes) -> None:
        self.plain_received += data

    def _on_end(self) -> None:
        self.ends += 1

    def deliver(self, tenths: int) -> None:
        """Bring ciphertext both ways, and see what comes of it."""
        self.peer.advance()
        self.wire += self.peer.outgoing.read()
        count = len(self.wire) * tenths // 10 if tenths else len(self.wire)
        self.transport.peer_sends(self.wire[:count])
        self.wire = self.wire[count:]
        self.settle()
        self.peer.advance()

    def settle(self) -> None:
        while self.scene.loop.run_ready() or self.transport.pump() or self.other_transport.pump() or self._take_over():
            pass

    def _take_over(self) -> bool:
        """What the control plane does when the handshake has ended, one way or the other."""
        if self.tunnel is not None or self.transport.closing:
            return False
        if self.intake.is_secured:
            self.tunnel = Tunnel(self.scene.settings, self.endpoint, self.other, self._on_end)
            self.tunnel.start()
            return True
        if self.intake.tls_error is not None or self.intake.over:
            self.endpoint.close()
            return True
        return False

    def act(self, operation: Operation) -> None:
        """Let one thing happen."""
        verb, number, data, _ = operation
        transport = self.other_transport if verb.startswith("upstream") else self.transport
        match verb:
            case "client" | "client_many":
                self.peer.write(data * (1 + MANY // len(data)) if data and verb.endswith("many") else data)
            case "client_queues" if data:
                self.peer.write((data * (number * LONGEST_RECORD))[: number * LONGEST_RECORD] if number else data)
                return
            case "upstream" | "upstream_many":
                more = data * (1 + MANY // len(data)) if data and verb.endswith("many") else data
                if not transport.closing and not transport.ended:
                    self.plain_sent += more
                transport.peer_sends(more)
            case "raw":
                self.damaged = True
                self.wire += data
            case "corrupt" if self.wire and data:
                self.damaged = True
                place = data[0] * 7 % len(self.wire)
                self.wire = self.wire[:place] + bytes((self.wire[place] ^ (data[-1] or 1),)) + self.wire[place + 1 :]
            case "notify":
                self.peer.notify()
                self.stopped = True
            case "client_ends" | "upstream_ends":
                self.stopped = True
                self.transport.peer_sends(self.wire)
                self.wire = b""
                transport.peer_ends()
            case "client_resets" | "upstream_resets":
                self.stopped = True
                transport.peer_resets()
            case "client_stops_reading" | "upstream_stops_reading":
                self.stopped = True
                transport.peer_stops_reading()
            case "client_reads" | "upstream_reads":
                transport.peer_reads()
            case "late":
                self.stopped |= self.scene.loop.fire(number)
            case "abort" if self.tunnel is not None:
                self.stopped = True
                self.tunnel.abort()
        self.deliver(number if verb.startswith(("client", "raw")) else 0)
        self.check()

    def check(self) -> None:
        """Whatever arrived was sent; and nothing waits inside."""
        peer = self.peer
        assert peer.written.startswith(self.plain_received), "other bytes than the peer wrote"
        assert self.plain_sent.startswith(peer.received), "other bytes than the upstream sent"
        if not (self.damaged or self.stopped or peer.failed or self.wire) and self.tunnel is not None:
            assert self.plain_received == peer.written, "bytes of the peer wait inside"
            assert peer.received == self.plain_sent, "bytes of the upstream wait inside"

    def end(self) -> None:
        """Both sides leave; nothing may be left."""
        for transport in (self.transport, self.other_transport):
            transport.peer_reads()
            transport.peer_ends()
        self.settle()
        for endpoint in (self.endpoint, self.other):
            if not endpoint.gone:
                endpoint.abort()
        self.settle()
        self.scene.close()
        assert self.transport.lost and self.other_transport.lost
        assert self.ends == (self.tunnel is not None)
        assert self.scene.arena.budget.held == 0
        left = {name: count for name, count in ledger.counts().items() if count}
        assert not left, left


def run(data: bytes) -> None:
    """Test one input."""
    settings, operations = parse(data)
    scene = PumpScene(settings[0] if settings else 0)
    with scene.scene.loop:
        for operation in operations[:MOST_OPERATIONS]:
            scene.act(operation)
        scene.end()


def seeds() -> Iterator[bytes]:
    """The scripts of the corpus."""
    for sample in read_samples("tls"):
        yield from_text(sample.blocks["script"].text)
