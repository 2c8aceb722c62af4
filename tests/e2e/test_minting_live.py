"""Certificates made while others wait: for their own name only, and once for all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from soth_mitm.tls.leaf import LeafStore
from support.certs import TestCA
from support.handshakes import client_hello_bytes
from support.origin import Origin
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory, Running

CLIENTS = 6


class Slow:
    """Holds the making of certificates for names that begin with `slow`."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.names: list[str] = []


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    sign = LeafStore._sign

    def sign_slowly(store: LeafStore, name: Any, mirror: Any) -> Any:
        slow.names.append(str(name))
        if str(name).startswith("slow"):
            slow.begun.release()
            assert slow.go_on.wait(20)
        return sign(store, name, mirror)

    monkeypatch.setattr(LeafStore, "_sign", sign_slowly)
    return slow


@pytest.fixture
def named(origin_ca: TestCA) -> Iterator[Origin]:
    with Origin(origin_ca.server_context("*.example.test"), host="127.0.0.1") as running:
        yield running


def fetch(running: Running, origin: Origin, name: str) -> bytes:
    with running.tunnel(origin.port, "127.0.0.1") as client:
        client.start_tls(running.client_context(), f"{name}.example.test")
        return client.request("/bytes/3", HOST).body


def test_only_who_asks_for_the_name_waits_for_its_certificate(proxy: ProxyFactory, named: Origin, slow: Slow) -> None:
    running = proxy()
    assert fetch(running, named, "known") == pattern(3)
    with running.tunnel(named.port, "127.0.0.1") as before, ThreadPoolExecutor(CLIENTS) as pool:
        before.start_tls(running.client_context(), "known.example.test")
        waiting = [pool.submit(fetch, running, named, "slow") for _ in range(CLIENTS)]
        assert slow.begun.acquire(timeout=10)
        # a connection that is open, and a new one whose certificate is there
        assert before.request("/bytes/70000", HOST).body == pattern(70_000)
        assert fetch(running, named, "known") == pattern(3)
        assert not any(future.done() for future in waiting)
        slow.go_on.set()
        assert [future.result(20) for future in waiting] == [pattern(3)] * CLIENTS
    assert slow.names == ["known.example.test", "slow.example.test"]
    assert running.metrics().leaf_minted_count == 2


def test_a_client_that_leaves_meanwhile_was_not_shown_it(proxy: ProxyFactory, named: Origin, slow: Slow) -> None:
    """So it has not refused it; and the certificate is there for the next one."""
    running = proxy()
    with running.tunnel(named.port, "127.0.0.1") as leaving:
        leaving.send(client_hello_bytes(running.client_context(), "slow.example.test"))
        assert slow.begun.acquire(timeout=10)
        leaving.reset()
    slow.go_on.set()
    ((_, error),) = running.handler.wait("on_tls_failure")
    assert (error.side, error.reason, error.certificate_refused) == ("client", "eof_or_reset", False)
    assert fetch(running, named, "slow") == pattern(3)
    metrics = running.metrics()
    assert (metrics.leaf_minted_count, metrics.tls_client_refusal_count) == (1, 0)
