"""A proxy on a loop of its own thread, an origin on another, and a client in the test's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from soth_mitm import MitmConfig, MitmProxyBuilder
from support.certs import TestCA
from support.origin import Origin
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running


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
def make_config(origin_ca: TestCA, tmp_path: Path) -> Callable[..., MitmConfig]:
    """Make configurations: `destinations`, and dotted keys with their values."""

    def make(destinations: tuple[str, ...] = ("localhost:*", "127.0.0.1:*"), **keys: object) -> MitmConfig:
        roots = tmp_path / "origin-roots.pem"
        roots.write_bytes(origin_ca.cert_pem)
        config = MitmConfig(bind="127.0.0.1:0")
        config.interception.destinations.extend(destinations)
        config.upstream.ca_bundle_path = str(roots)
        config.upstream.retry_delay_ms = 0
        config.tls.ca_cert_path = str(tmp_path / "ca.pem")
        config.tls.ca_key_path = str(tmp_path / "ca-key.pem")
        for key, value in keys.items():
            section, _, name = key.rpartition(".")
            setattr(getattr(config, section) if section else config, name, value)
        return config

    return make


@pytest.fixture
def proxy(make_config: Callable[..., MitmConfig]) -> Iterator[ProxyFactory]:
    """Start proxies: `proxy(handler, **dotted_keys)`. They are shut down when the test ends, and must then have nothing to cut."""
    started: list[Running] = []

    def start(handler: object | None = None, **keys: Any) -> Running:
        handler = Recording() if handler is None else handler
        running = Running(MitmProxyBuilder(make_config(**keys), handler).build().start_in_thread(), handler)
        started.append(running)
        return running

    yield start
    for running in started:
        running.handle.shutdown(10)
