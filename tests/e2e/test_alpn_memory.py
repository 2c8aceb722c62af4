"""What is remembered of an origin, so that the next client's handshake needs none with the upstream."""

from __future__ import annotations

import ssl

import pytest

from soth_mitm.proxy import upstream_pools
from support.certs import TestCA
from support.origin import Origin
from support.origin_answers import pattern
from support.recording import Observing
from support.running import HOST, ProxyFactory, Running

NO_POOL = {"connection_pool.max_idle_per_host": 0}


def fetch(running: Running, port: int) -> None:
    with running.secured(port) as client:
        assert client.request("/bytes/3", HOST).body == pattern(3)
    running.wait_idle()


def shake_hands(running: Running, port: int) -> ssl.SSLSocket:
    """Complete a client's handshake, and nothing else."""
    with running.secured(port) as client:
        secured = client.tls
    running.wait_idle()
    return secured


def test_the_next_client_needs_no_upstream(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(Observing(), **NO_POOL)
    fetch(running, origin.port)
    dialled = len(origin.connections)
    for _ in range(3):
        shake_hands(running, origin.port)
    assert len(origin.connections) == dialled
    fetch(running, origin.port)
    assert len(origin.connections) == dialled + 1


def test_it_completes_its_handshake_while_the_upstream_is_silent(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(Observing(), **NO_POOL)
    fetch(running, origin.port)
    origin.close()
    shake_hands(running, origin.port)
    with running.secured(origin.port) as client:
        assert client.request("/x", HOST).status == 502


def test_the_clients_protocol_is_one_that_the_upstream_speaks(proxy: ProxyFactory, origin_ca: TestCA) -> None:
    """What it prefers, and what we would, makes no difference."""
    running = proxy(Observing())
    with Origin(origin_ca.server_context(HOST, alpn=["http/1.1"]), host=HOST) as origin:
        for _ in range(2):
            with running.tunnel(origin.port) as client:
                context = running.client_context()
                context.set_alpn_protocols(["h2", "http/1.1"])
                client.start_tls(context)
                assert client.tls.selected_alpn_protocol() == "http/1.1"
                client.request("/bytes/3", HOST)
    responses = running.handler.wait("on_response", 2)
    assert {response.connection_meta.tls_info.upstream_proto for response in responses} == {"http/1.1"}


def test_it_is_forgotten_after_a_while(proxy: ProxyFactory, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    running = proxy(Observing(), **NO_POOL)
    fetch(running, origin.port)
    dialled = len(origin.connections)
    monkeypatch.setattr(upstream_pools, "INFO_SECONDS", 0.0)
    shake_hands(running, origin.port)
    assert len(origin.connections) == dialled + 1


def test_it_is_forgotten_when_the_upstream_fails(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(Observing(), **NO_POOL)
    fetch(running, origin.port)
    port = origin.port
    origin.close()
    for word in ("refused", "refused"):
        with running.secured(port) as client:
            assert word in client.request("/x", HOST).text
    # the first learnt it at its request, the second before its handshake: both were told once
    assert running.metrics().upstream_connect_error_count == 2


def test_it_is_bounded(proxy: ProxyFactory, origin_ca: TestCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_pools, "MAX_ORIGINS", 2)
    running = proxy(Observing(), **NO_POOL)
    with Origin(origin_ca.server_context("*.example.test"), host="127.0.0.1") as origin:

        def shake(name: str) -> int:
            before = len(origin.connections)
            with running.tunnel(origin.port, "127.0.0.1") as client:
                client.start_tls(running.client_context(), name)
            running.wait_idle()
            return len(origin.connections) - before

        assert [shake(f"{name}.example.test") for name in "abab"] == [1, 1, 0, 0]
        assert [shake(f"{name}.example.test") for name in "cba"] == [1, 0, 1]


def test_another_name_at_the_same_target_is_another_origin(proxy: ProxyFactory, origin_ca: TestCA) -> None:
    """Verified for one name is not verified for another."""
    running = proxy()
    with Origin(origin_ca.server_context("one.example.test"), host="127.0.0.1") as origin:
        for name, status in (("one.example.test", 200), ("two.example.test", 502)):
            with running.tunnel(origin.port, "127.0.0.1") as client:
                client.start_tls(running.client_context(), name)
                assert client.request("/bytes/3", HOST).status == status
