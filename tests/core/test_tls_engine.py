"""What our TLS engine sends when; that it loses and invents nothing is what the fuzzing target `pumps` is about."""

import ssl
from collections.abc import Iterator

import pytest

from fuzz.operations import from_text, parse
from fuzz.pumps import HANDSHAKE_FIRST, OLD_VERSION, PumpScene


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
        scene.transport._on_write = lambda data: (writes.append(data), scene.peer.incoming.write(data))
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
    scene.transport._on_write = lambda data: (writes.append(data), scene.peer.incoming.write(data))
    act(scene, "client 0 GET\nupstream 0 answer")
    writes.clear()
    act(scene, "upstream_ends 0")
    assert scene.peer.ended and len(writes) == 1
    act(scene, "late 0")
    scene.endpoint.close()
    assert len(writes) == 1
