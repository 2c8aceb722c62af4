"""Clients and origins of a whole proxy, known to it by their sockets alone. If they speak TLS, their streams are what is inside."""

from __future__ import annotations

import functools
import ssl
from typing import Any

from fuzz.agreement import ESTABLISHED
from fuzz.conversations import LIMIT, finals, request_stream, response_stream
from fuzz.fake_loop import FakeLoop
from fuzz.plain_http import Refused, read_head
from fuzz.scene import Client, Peer
from fuzz.tls_peer import TlsPeer
from soth_mitm.tls.ca import CertificateAuthority, generate_ca
from support.certs import TestCA

# Whom a client asks for in TLS, if not for whom it asked in CONNECT: by the first byte that it says inside
OTHER_NAMES = {b"!": "b.example", b"~": "z.example"}


@functools.cache
def authority() -> CertificateAuthority:
    """The CA of every proxy here."""
    return generate_ca()


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the context of clients, which trust the proxy's CA and that of the origins, and the one of origins."""
    origins = TestCA()
    client = origins.client_context()
    client.load_verify_locations(cadata=authority().cert_pem.decode())
    return client, origins.server_context("a.example", "b.example", "z.example")


class SecurablePeer(Peer):
    """A peer, with all bytes that it `said` to the proxy and `heard` from it."""

    def __init__(self, loop: FakeLoop, endpoint: Any) -> None:
        super().__init__(loop, endpoint)
        self.said = self.heard = b""
        self.tls: TlsPeer | None = None
        # what is to be said inside, when it can be
        self.pending = b""
        self._taken = 0

    def tell(self, data: bytes) -> None:
        """It says this, inside of TLS if it speaks that."""
        raise NotImplementedError

    def listen(self, data: bytes) -> None:
        """It is told this, inside of TLS if it speaks that."""
        raise NotImplementedError

    def say(self, data: bytes) -> None:
        self.said += data
        if self.tls is None:
            self.tell(data)

    def hear(self, data: bytes) -> None:
        self.heard += data
        if self.tls is None:
            self.listen(data)
        else:
            self.tls.incoming.write(data)

    def pump_tls(self) -> bool:
        """Do what TLS has to do; tell whether anything came of it."""
        tls = self.tls
        if tls is None:
            return False
        tls.advance()
        if self.pending and tls.secured:
            if not (tls.failed or tls.notified or self.transport.lost):
                tls.write(self.pending)
                self.tell(self.pending)
            self.pending = b""
        new, self._taken = tls.received[self._taken :], len(tls.received)
        if new:
            self.listen(new)
        wire = tls.outgoing.read()
        self.transport.peer_sends(wire)
        return bool(wire or new)

    @property
    def has_ended(self) -> bool:
        return super().has_ended if self.tls is None else self.tls.notified


class ProxyClient(SecurablePeer, Client):
    """A client; `asked_name` is the one that it asked for in TLS."""

    def __init__(self, loop: FakeLoop, endpoint: Any, limit: int) -> None:
        super().__init__(loop, endpoint)
        self.requests = request_stream(limit)
        self.responses = response_stream(self.requests)
        self.asked_name = ""

    def tell(self, data: bytes) -> None:
        self.requests.feed(data)

    def listen(self, data: bytes) -> None:
        self.responses.feed(data)

    @property
    def is_connected(self) -> bool:
        """Whether it was let through to somebody, and has said nothing there yet."""
        return self.heard == ESTABLISHED and not self.requests.rest and len(self.requests.messages) == 1

    @property
    def inside(self) -> bytes | None:
        """What it has said behind its CONNECT, None when it began with something else."""
        if not self.requests.messages or self.requests.messages[0].head.method != "CONNECT":
            return None
        return self.said.removeprefix(b"\r\n")[len(self.requests.messages[0].head.raw) :]

    @property
    def speaks_http(self) -> bool:
        """Whether there is a good request behind its CONNECT, and be it behind empty lines."""
        try:
            head = read_head((self.inside or b"").lstrip(b"\r\n"), True, LIMIT)
        except Refused:
            return False
        return head is not None

    def begin_tls(self, data: bytes) -> None:
        """Speak TLS from now on."""
        target = self.requests.messages[0].head.target.rpartition(":")[0]
        self.asked_name = OTHER_NAMES.get(data[:1], target)
        self.tls = TlsPeer(contexts()[0], False, self.asked_name)

    @property
    def is_cut(self) -> bool:
        return super().is_cut if self.tls is None else self.transport.reset or not self.tls.ended

    def drain(self) -> None:
        """It is the proxy that drains."""

    def abort(self) -> None:
        self.transport.peer_resets()


class Origin(SecurablePeer):
    """An upstream: `number` says whose address was connected to. What it is sent need not be HTTP.

    `out_of_turn`: it was sent a request before the exchange before was over.
    """

    def __init__(self, loop: FakeLoop, endpoint: Any, number: int, speaks_tls: bool) -> None:
        super().__init__(loop, endpoint)
        self.number = number
        self.out_of_turn = False
        self._speaks_tls = speaks_tls
        self.requests = request_stream(LIMIT, self._note_turn)
        self.responses = response_stream(self.requests)

    def tell(self, data: bytes) -> None:
        self.responses.feed(data)

    def listen(self, data: bytes) -> None:
        self.requests.feed(data)

    def hear(self, data: bytes) -> None:
        if self._speaks_tls and not self.heard and data.startswith(b"\x16"):
            self.tls = TlsPeer(contexts()[1], True)
        super().hear(data)

    def _note_turn(self) -> None:
        said = len(finals(self.responses))
        self.out_of_turn |= not (self.responses.at_boundary and said == len(self.requests.messages))
