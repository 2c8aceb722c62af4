"""The proxy, origins and clients of the end-to-end tests, and the scene of acts."""

import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from e2e.conftest import journal, make_config, origin, origin_ca, plain_origin, plain_tap, proxy, tap
from soth_mitm.observe.event_sink import EventSink
from support.acts import KEYS, Court, Scene, script_of
from support.certs import TestCA
from support.origin import Origin
from support.running import HOST, ProxyFactory

__all__ = ["journal", "make_config", "origin", "origin_ca", "plain_origin", "plain_tap", "proxy", "tap"]


@pytest.fixture
def sinks() -> list[EventSink]:
    """What the proxy of the scene feeds: nothing, unless a module says otherwise."""
    return []


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """A port of 127.0.0.2 that sends back what it is sent."""
    with socket.create_server(("127.0.0.2", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listening.accept()
                except OSError:
                    return
                with peer:
                    while data := peer.recv(100):
                        peer.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def scene(
    proxy: ProxyFactory, origin_ca: TestCA, origin: Origin, plain_origin: Origin, elsewhere: int, sinks: list[EventSink]
) -> Iterator[Scene]:
    """Where acts play."""
    context = origin_ca.server_context(HOST)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Origin(context, host=HOST) as http2:
        for each in (http2, plain_origin):
            each.script_of = partial(script_of, each.script_of)  # type: ignore[method-assign]
        yield Scene(proxy(Court(), sinks=sinks, **KEYS), origin, http2, plain_origin, elsewhere)
