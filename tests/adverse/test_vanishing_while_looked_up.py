"""Clients that vanish while their process is being looked up, when their first bytes are here already."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from soth_mitm import InterceptHandler
from soth_mitm.process.attribution import ProcessAttribution
from soth_mitm.proxy.service import Accepting
from support.leaks import DescriptorWatch, what_remains
from support.running import ProxyFactory

HEADS = {
    "forward": b"GET http://example.test/ HTTP/1.1\r\nHost: example.test\r\n\r\n",
    "intercept": b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n",
    "tunnel": b"CONNECT example.test:1 HTTP/1.1\r\nHost: example.test:1\r\n\r\n",
    "other": b"\x05\x01\x00",
    "half": b"CONNECT example",
}


class Ends(InterceptHandler):
    """Hears of ends only: so the look-up waits for the first bytes."""

    def __init__(self) -> None:
        self.ended = threading.Semaphore(0)

    def on_connection_close(self, connection_id: object) -> None:
        self.ended.release()


class LookUp:
    """A look-up that takes until the test says so, and whether the connection was lost meanwhile."""

    def __init__(self) -> None:
        self.begun, self.over, self.lost = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, *connection: object) -> None:
        self.begun.set()
        assert self.over.wait(10)


@pytest.fixture
def look_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[LookUp]:
    look_up = LookUp()
    connection_lost = Accepting.connection_lost

    def lost(accepting: Accepting, error: Exception | None) -> None:
        connection_lost(accepting, error)
        look_up.lost.set()

    monkeypatch.setattr(ProcessAttribution, "lookup", lambda attribution, *connection: look_up(*connection))
    monkeypatch.setattr(Accepting, "connection_lost", lost)
    yield look_up
    look_up.over.set()


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_vanish_while_looked_up(proxy: ProxyFactory, look_up: LookUp, head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    watch = DescriptorWatch()
    running = proxy(Ends())
    client = running.client()
    client.send(head)
    assert look_up.begun.wait(10)
    client.reset()
    assert look_up.lost.wait(10)
    look_up.over.set()
    assert running.handler.ended.acquire(timeout=10)
    running.wait_idle()
    running.handle.shutdown(5)
    assert not what_remains(watch.added)
    assert not running.handler.ended.acquire(blocking=False)
    assert not caplog.records
