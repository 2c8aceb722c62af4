"""A proxy on a loop of its own thread, an origin on another, and a client in the test's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from soth_mitm import MitmConfig, MitmProxyBuilder
from soth_mitm.observe.event_sink import EventSink
from soth_mitm.proxy import resolver
from support.certs import TestCA
from support.origin import Origin
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running, configure
from support.tap import Journal, Tap


@pytest.fixture(scope="session")
def origin_ca() -> TestCA:
    """The CA of origins, which proxies trust."""
    return TestCA("Origin Root")


@pytest.fixture
def origin(origin_ca: TestCA) -> Iterator[Origin]:
    """An HTTPS origin."""
    with Origin(origin_ca.server_context(HOST, "127.0.0.1"), host=HOST) as running:
        yield running


@pytest.fixture
def plain_origin() -> Iterator[Origin]:
    """An HTTP origin."""
    with Origin(host=HOST) as running:
        yield running


@pytest.fixture
def journal() -> Journal:
    """What reached the `tap`, and what the handler was asked."""
    return Journal()


@pytest.fixture
def tap(journal: Journal, origin_ca: TestCA) -> Iterator[Tap]:
    """An HTTPS origin that journals every byte as it comes."""
    with Tap(journal, origin_ca.server_context(HOST, "127.0.0.1")) as running:
        yield running


@pytest.fixture
def plain_tap() -> Iterator[Tap]:
    """The same without TLS, with a journal of its own."""
    with Tap(Journal()) as running:
        yield running


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that the system was asked for, by any proxy of the test."""
    names: list[str] = []

    def record(host: str) -> resolver.Addresses:
        names.append(host)
        return system_addresses(host)

    system_addresses = resolver.system_addresses
    monkeypatch.setattr(resolver, "system_addresses", record)
    return names


@pytest.fixture
def make_config(origin_ca: TestCA, tmp_path: Path) -> Callable[..., MitmConfig]:
    """Make configurations: `destinations`, and dotted keys with their values."""

    def make(destinations: tuple[str, ...] = ("localhost:*", "127.0.0.1:*"), **keys: object) -> MitmConfig:
        return configure(tmp_path, origin_ca, destinations, **keys)

    return make


@pytest.fixture
def proxy(make_config: Callable[..., MitmConfig]) -> Iterator[ProxyFactory]:
    """Start proxies: `proxy(handler, sinks=[...], **dotted_keys)`. They are shut down when the test ends, and have nothing to cut then."""
    started: list[Running] = []

    def start(handler: object | None = None, *, sinks: Iterable[EventSink] = (), **keys: Any) -> Running:
        handler = Recording() if handler is None else handler
        builder = MitmProxyBuilder(make_config(**keys), handler)
        for sink in sinks:
            builder.with_event_sink(sink)
        running = Running(builder.build().start_in_thread(), handler)
        started.append(running)
        return running

    yield start
    for running in started:
        running.handle.shutdown(10)
