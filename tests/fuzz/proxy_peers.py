"""Clients and origins of a whole proxy, known to it by their sockets alone. If they speak TLS, their streams are what is inside."""

from __future__ import annotations

import functools
import ssl
from typing import Any

from fuzz.agreement import ESTABLISHED
from fuzz.conversations import LIMIT, finals, request_stream, response_stream
from fuzz.fake_loop import FakeLoop
from fuzz.http2_wire import PREFACE, Http2Talk
from fuzz.plain_http import Refused, read_head
from fuzz.scene import Client, Peer, repeated
from fuzz.tls_peer import TlsPeer
from soth_mitm.tls.ca import CertificateAuthority, generate_ca
from support.certs import TestCA

# Whom a client asks for in TLS, if not for whom it asked in CONNECT: by the first byte that it says inside
OTHER_NAMES = {b"!": "b.example", b"~": "z.example"}
# The name of the CA of origins
ORIGINS = "Origins"


@functools.cache
def authority() -> CertificateAuthority:
    """The CA of every proxy here."""
    return generate_ca()


@functools.cache
def origins_authority() -> TestCA:
    """The CA of every origin here."""
    return TestCA(ORIGINS)


@functools.cache
def context(is_origin: bool, alpn: tuple[str, ...]) -> ssl.SSLContext:
    """Return the context of clients, which trust the proxy's CA and that of the origins, or the one of origins."""
    origins = origins_authority()
    if is_origin:
        made = origins.server_context("a.example", "b.example", "z.example")
    else:
        made = origins.client_context()
        made.load_verify_locations(cadata=authority().cert_pem.decode())
    if alpn:
        made.set_alpn_protocols(list(alpn))
    return made


class SecurablePeer(Peer):
    """A peer, with all bytes that it `said` to the proxy and `heard` from it. `alpn` is what it offers, or chooses from, in TLS."""

    is_client = False

    def __init__(self, loop: FakeLoop, endpoint: Any, alpn: tuple[str, ...]) -> None:
        super().__init__(loop, endpoint)
        self.said = self.heard = b""
        self.tls: TlsPeer | None = None
        # what is to be said inside, when it can be: operations, and whether they say much
        self.pending: list[tuple[bytes, bool]] = []
        self._alpn = alpn
        self._taken = 0

    def tell(self, data: bytes) -> None:
        """It says this, inside of TLS if it speaks that."""
        raise NotImplementedError

    def listen(self, data: bytes) -> None:
        """It is told this, inside of TLS if it speaks that."""
        raise NotImplementedError

    def begin_http2(self, scheme: bytes) -> bytes:
        """Speak HTTP/2 from now on; return the first bytes."""
        self.http2 = Http2Talk(is_client=self.is_client, scheme=scheme, watched=True)
        return self.http2.begin()

    def words(self, data: bytes, many: bool) -> bytes:
        """Return the bytes of an operation."""
        if self.http2 is not None:
            return b"".join(self.http2.speak(data, many))
        return repeated(data) if many and data else data

    def say(self, data: bytes) -> None:
        self.said += data
        if self.tls is None:
            self.say_inside(data)

    def say_inside(self, data: bytes) -> None:
        """It says this, inside of TLS if it speaks that."""
        if self.http2 is not None:
            self.http2.say(data)
        else:
            self.tell(data)

    def hear(self, data: bytes) -> None:
        self.heard += data
        if self.tls is None:
            self.transport.peer_sends(self.hear_inside(data))
        else:
            self.tls.incoming.write(data)

    def hear_inside(self, data: bytes) -> bytes:
        """It is told this, inside of TLS if it speaks that; return what it says to that by itself."""
        if self.http2 is not None:
            return self.http2.hear(data)
        self.listen(data)
        return b""

    def pump_tls(self) -> bool:
        """Do what TLS has to do; tell whether anything came of it."""
        tls = self.tls
        if tls is None:
            return False
        tls.advance()
        if tls.secured and self.http2 is None and tls.tls.selected_alpn_protocol() == "h2":
            self.write_inside(self.begin_http2(b"https"))
        if self.pending and tls.secured:
            pending, self.pending = self.pending, []
            for operation in pending:
                self.write_inside(self.words(*operation))
        new, self._taken = tls.received[self._taken :], len(tls.received)
        if new:
            self.write_inside(self.hear_inside(new))
        wire = tls.outgoing.read()
        self.transport.peer_sends(wire)
        return bool(wire or new)

    def write_inside(self, data: bytes) -> None:
        """Say this inside of TLS, if that is possible."""
        tls = self.tls
        if data and tls is not None and not (tls.failed or tls.notified or self.transport.lost):
            tls.write(data)
            self.say_inside(data)

    @property
    def has_ended(self) -> bool:
        return super().has_ended if self.tls is None else self.tls.notified


class ProxyClient(SecurablePeer, Client):
    """A client; `asked_name` is the one that it asked for in TLS."""

    is_client = True

    def __init__(self, loop: FakeLoop, endpoint: Any, limit: int, alpn: tuple[str, ...]) -> None:
        super().__init__(loop, endpoint, alpn)
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
        self.tls = TlsPeer(context(False, self._alpn), False, self.asked_name)

    @property
    def is_intercepted(self) -> bool:
        """Whether it is the proxy whom it speaks TLS with."""
        return self.tls is not None and self.tls.issuer not in (None, ((("commonName", ORIGINS),),))

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

    requests: Any
    responses: Any

    def __init__(self, loop: FakeLoop, endpoint: Any, number: int, speaks_tls: bool, alpn: tuple[str, ...]) -> None:
        super().__init__(loop, endpoint, alpn)
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
            self.tls = TlsPeer(context(True, self._alpn), True)
        elif self.http2 is None and self.tls is None and (self.heard + data).startswith(PREFACE):
            data, self.heard = self.heard + data, b""
            self.transport.peer_sends(self.begin_http2(b"http"))
        super().hear(data)

    def begin_http2(self, scheme: bytes) -> bytes:
        begin = super().begin_http2(scheme)
        assert self.http2 is not None
        self.requests, self.responses = self.http2.directions
        return begin

    def _note_turn(self) -> None:
        said = len(finals(self.responses))
        self.out_of_turn |= not (self.responses.at_boundary and said == len(self.requests.messages))
