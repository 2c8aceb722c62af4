"""What our TLS engine sends when; that it loses and invents nothing is what the fuzzing target `pumps` is about."""

import ssl
from collections.abc import Iterator
from uuid import UUID

import pytest

from fuzz.exchanges import FAMILY
from fuzz.operations import from_text, parse
from fuzz.pumps import HANDSHAKE_FIRST, OLD_VERSION, PumpScene
from soth_mitm._dataplane.exchange.route import Route
from soth_mitm._dataplane.http1.server import Http1ServerConnection
from soth_mitm.connection import ConnectionMeta


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[PumpScene]:
    """Our side is the server's, and its handshake is done."""
    scene = PumpScene(HANDSHAKE_FIRST | request.param)
    with scene.scene.loop:
        yield scene
        scene.end()


def act(scene: PumpScene, script: str) -> None:
    for operation in parse(from_text(f"settings 00\n{script}"))[1]:
        scene.act(operation)


def has_ticket(scene: PumpScene) -> bool:
    session = scene.peer.tls.session
    return session is not None and session.has_ticket


@pytest.mark.parametrize("scene", [0], indirect=True)
class TestTicketOfTls13:
    """It has no hurry: it shares the first record's write, which saves both sides a system call and a wake-up."""

    def test_it_comes_with_the_first_plaintext(self, scene: PumpScene) -> None:
        assert scene.peer.secured and not has_ticket(scene)
        act(scene, "client 0 GET")
        assert scene.plain_received == b"GET" and not has_ticket(scene)
        writes: list[bytes] = []
        scene.transport.on_write = lambda data: (writes.append(data), scene.peer.incoming.write(data))
        act(scene, "upstream 0 answer")
        assert scene.peer.received == b"answer" and has_ticket(scene)
        assert len(writes) == 1

    def test_it_comes_with_the_goodbye(self, scene: PumpScene) -> None:
        act(scene, "upstream_ends 0")
        assert scene.peer.ended and has_ticket(scene)

    def test_an_alert_does_not_wait(self, scene: PumpScene) -> None:
        act(scene, r"raw 0 \x17\x03\x03\x00\x150123456789abcdef01234")
        assert scene.peer.failed


@pytest.mark.parametrize("scene", [OLD_VERSION], indirect=True)
def test_the_ticket_of_tls_12_is_part_of_the_handshake(scene: PumpScene) -> None:
    assert scene.peer.secured and has_ticket(scene)


def test_a_failed_handshake_is_reported_once() -> None:
    """What the peer sends behind it is thrown away: the engine would only fail again."""
    scene = PumpScene(0)
    with scene.scene.loop:
        scene.transport.peer_sends(b"not TLS at all, nor a record of it")
        scene.transport.pump()
        first = scene.intake.tls_error
        assert isinstance(first, ssl.SSLError)
        scene.transport.peer_sends(b"and more of it")
        scene.transport.pump()
        assert scene.intake.tls_error is first
        scene.settle()
        scene.end()


@pytest.mark.parametrize("scene", [0, OLD_VERSION], indirect=True)
def test_one_close_notify_is_written(scene: PumpScene) -> None:
    """The end of our direction writes it, and the close that follows does not write another."""
    writes: list[bytes] = []
    scene.transport.on_write = lambda data: (writes.append(data), scene.peer.incoming.write(data))
    act(scene, "client 0 GET\nupstream 0 answer")
    writes.clear()
    act(scene, "upstream_ends 0")
    assert scene.peer.ended and len(writes) == 1
    act(scene, "late 0")
    scene.endpoint.close()
    assert len(writes) == 1


class RefusingScene(PumpScene):
    """Our side serves HTTP/1 instead of a tunnel, and answers each request itself with 403."""

    def _take_over(self) -> bool:
        if self.tunnel is not None or not self.intake.is_secured:
            return False
        meta = ConnectionMeta(UUID(int=1), FAMILY)
        route = Route(None, meta, "https", "no.example", observed=False, status=403, reason=b"not there")
        self.tunnel = Http1ServerConnection(  # type: ignore[assignment]
            self.scene.settings, self.endpoint, self._on_end, router=lambda *_: route
        )
        self.tunnel.start()
        return True


GET = b"GET / HTTP/1.1\r\nHost: no.example\r\n\r\n"
# Together more than a read buffer holds, and no more than one read takes
GETS = 6500


@pytest.fixture
def refusing() -> Iterator[RefusingScene]:
    scene = RefusingScene(HANDSHAKE_FIRST)
    with scene.scene.loop:
        yield scene
        scene.end()


def test_a_client_whose_tls_fails_while_responses_are_gathered_for_it(
    refusing: RefusingScene,
) -> None:
    """They cannot be encrypted any more. The connection is cut, and no error goes to who served it.

    Requests fill the read buffer. A turn of the loop serves some of them, which makes room. So it
    reads on, and comes to a damaged record.
    """
    refusing.peer.write(GET * GETS)
    wire = refusing.peer.outgoing.read()
    refusing.transport.peer_sends(wire[:-1] + bytes((wire[-1] ^ 1,)))
    refusing.settle()
    assert refusing.transport.aborted
    assert isinstance(refusing.endpoint.close_error, ssl.SSLError)
    # the alert
    refusing.peer.advance()
    assert refusing.peer.failed


def test_a_full_read_buffer_takes_no_more(refusing: RefusingScene) -> None:
    """Each request makes room for as much as it was long, not for another record."""
    held: list[int] = []
    refusing.transport.on_write = lambda data: (
        held.append(refusing.scene.arena.budget.held),
        refusing.peer.incoming.write(data),
    )
    for count in (60_000 // len(GET), GETS):
        refusing.peer.write(GET * count)
        refusing.transport.peer_sends(refusing.peer.outgoing.read())
        assert refusing.transport.pump()
    refusing.settle()
    # what one read took, decrypted or not, and the read buffer
    assert len(held) > GETS // 16 and max(held) <= 262144 + 2 * 65536


def test_an_end_waits_behind_what_a_full_read_buffer_has_no_room_for(
    refusing: RefusingScene,
) -> None:
    refusing.peer.write(GET * GETS)
    refusing.peer.notify()
    refusing.transport.peer_sends(refusing.peer.outgoing.read())
    assert refusing.transport.pump() and refusing.endpoint.paused
    # some loops tell it although they are not to read
    refusing.transport.ended = True
    refusing.endpoint.eof_received()
    told: list[bool] = []
    refusing.transport.on_write = lambda data: (
        told.append(refusing.endpoint.eof_delivered),
        refusing.peer.incoming.write(data),
    )
    refusing.settle()
    assert not any(told[: len(told) // 4]) and refusing.endpoint.eof_delivered
    refusing.peer.advance()
    assert refusing.peer.received.count(b"HTTP/1.1 403 ") == GETS
    assert refusing.peer.ended
