"""`on_connect` and other names: who may connect to one destination may not reach another through it that `on_connect` refuses."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.test_on_connect import Gate, Waiting, at_once, later, plain
from soth_mitm import ConnectDecision, ConnectTarget
from support.certs import TestCA
from support.handshakes import client_hello_bytes
from support.http2_inside import http2_client
from support.origin import Origin
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory, Running

INTERCEPT, TUNNEL = ConnectDecision.INTERCEPT, ConnectDecision.TUNNEL
BLOCK = ConnectDecision.block("not that one", 451)
OTHER, UNLISTED = "other.test", "unlisted.test"
FORMS = pytest.mark.parametrize("form", [plain, at_once, later])
UNRECOGNIZED_NAME = bytes((0x15, 3, 1, 0, 2, 2, 112))


@pytest.fixture
def named(origin_ca: TestCA) -> Iterator[Origin]:
    with Origin(origin_ca.server_context(HOST, OTHER, UNLISTED), host=HOST) as origin:
        yield origin


def refusing(*names: str, form: Any = plain, otherwise: ConnectDecision | None = None) -> Gate:
    """Return a handler that refuses some names."""
    return Gate(lambda target: form(BLOCK if target.host in names else otherwise)(target))


def start(proxy: ProxyFactory, handler: Gate, **keys: Any) -> Running:
    return proxy(handler, **{"destinations": ("localhost:*", f"{OTHER}:*"), **keys})


def tls(running: Running, port: int, name: str, host: str = HOST) -> Any:
    client = running.tunnel(port, host)
    client.start_tls(running.client_context(), name)
    return client


@FORMS
@pytest.mark.parametrize("name", [OTHER, UNLISTED])
class TestIntercepted:
    def test_a_name_in_the_handshake(self, proxy: ProxyFactory, named: Origin, form: Any, name: str) -> None:
        running = start(proxy, refusing(name, form=form))
        with tls(running, named.port, name) as client:
            for _ in range(2):
                answer = client.request("/bytes/3", name)
                assert (answer.status, answer.text) == (451, "not that one\n")
        running.wait_idle()
        assert named.connections == []
        assert [(target.host, target.scheme) for target in running.handler.targets] == [(HOST, None), (name, "https")]
        assert running.handler.targets[1].meta.target == (HOST, named.port)

    @pytest.mark.parametrize("inside", ["tls", "plain"])
    def test_a_name_in_host(self, proxy: ProxyFactory, named: Origin, plain_origin: Origin, form: Any, name: str, inside: str) -> None:
        running = start(proxy, refusing(name, form=form))
        origin = named if inside == "tls" else plain_origin
        with running.secured(origin.port) if inside == "tls" else running.tunnel(origin.port) as client:
            assert client.request("/bytes/3", HOST).body == pattern(3)
            for host in (name, f"{name.upper()}.:{origin.port}"):
                assert (answer := client.request("/bytes/3", host)).status == 451 and answer.text == "not that one\n"
            assert client.request("/bytes/3", HOST).body == pattern(3)
            assert client.request(f"http://{name}/bytes/3", HOST, "POST", b"x").status == 451
        assert [(target.host, target.port) for target in running.handler.targets] == [(HOST, origin.port), (name, origin.port)]
        assert [request.authority.partition(":")[0] for request in running.handler.requests] == [HOST] * 2
        assert len(origin.requests) == 2

    def test_a_name_that_it_allows(self, proxy: ProxyFactory, named: Origin, form: Any, name: str) -> None:
        for decision in (None, INTERCEPT, TUNNEL):
            running = start(proxy, Gate(form(decision)) if decision is not TUNNEL else refusing(form=form))
            with tls(running, named.port, name) as client:
                assert client.request("/bytes/3", name).body == pattern(3)
                assert client.request("/bytes/3", HOST).body == pattern(3)
                assert client.request("/bytes/3", name).body == pattern(3)
            assert [target.host for target in running.handler.targets] == [HOST, name]


@FORMS
def test_streams_of_http2_ask_once_for_each_name(proxy: ProxyFactory, origin_ca: TestCA, form: Any) -> None:
    running = start(proxy, refusing(UNLISTED, form=form), **{"http2.misdirected": "allow"})
    with Origin(origin_ca.server_context(HOST, OTHER, UNLISTED, alpn=("h2",)), host=HOST) as origin:
        connection, client = http2_client(running, origin.port)
        with connection:
            for name, status in ((OTHER, 200), (OTHER, 200), (UNLISTED, 451), (UNLISTED, 451), (OTHER, 200), (HOST, 200)):
                assert client.request("/bytes/3", authority=f"{name}:{origin.port}").status == status
    assert [target.host for target in running.handler.targets] == [HOST, OTHER, UNLISTED]


@FORMS
@pytest.mark.parametrize("decision", [BLOCK, INTERCEPT])
class TestTunnels:
    def test_a_name_in_a_tunnel(self, proxy: ProxyFactory, named: Origin, form: Any, decision: ConnectDecision) -> None:
        """INTERCEPT too: what it wants to see is not to pass unseen below another name."""
        handler = Gate(lambda target: form(decision if target.host == UNLISTED else None)(target))
        running = start(proxy, handler, destinations=(f"{OTHER}:*",))
        with running.tunnel(named.port) as client:
            client.send(client_hello_bytes(running.client_context(), UNLISTED))
            assert client.read_exactly(7) == UNRECOGNIZED_NAME
            assert client.read_to_end() == b""
        running.wait_idle()
        assert [target.host for target in handler.targets] == [HOST, UNLISTED]
        assert running.metrics().refused_name_count == 1
        assert named.requests == []

    def test_a_name_in_a_tunnel_that_it_leaves(
        self, proxy: ProxyFactory, named: Origin, origin_ca: TestCA, form: Any, decision: ConnectDecision
    ) -> None:
        running = start(proxy, refusing("nothing.test", form=form), destinations=(f"{OTHER}:*",))
        with running.tunnel(named.port) as client:
            client.start_tls(origin_ca.client_context(), UNLISTED)
            assert client.request("/bytes/3", UNLISTED).body == pattern(3)


def test_names_are_not_asked_about_where_names_are_not_checked(proxy: ProxyFactory, named: Origin) -> None:
    running = start(proxy, refusing(OTHER), **{"interception.check_names": "off"})
    with tls(running, named.port, OTHER) as client:
        assert client.request("/bytes/3", OTHER).body == pattern(3)
    assert len(running.handler.targets) == 1


@pytest.mark.parametrize("policy", ["allow", "block"])
def test_failure_policy(proxy: ProxyFactory, named: Origin, policy: str) -> None:
    def say(target: ConnectTarget) -> None:
        if target.host == OTHER:
            raise RuntimeError("on purpose")

    running = start(proxy, Gate(say), **{"handler.failure_policy": policy})
    with running.secured(named.port) as client:
        assert client.request("/bytes/3", OTHER).status == (200 if policy == "allow" else 403)
    with tls(running, named.port, OTHER) as client:
        assert client.request("/bytes/3", OTHER).status == (200 if policy == "allow" else 403)


@pytest.mark.parametrize("way", ["handshake", "tunnel"])
def test_a_client_that_leaves_ends_the_wait(proxy: ProxyFactory, named: Origin, way: str) -> None:
    waiting = Waiting(None)

    async def say(target: ConnectTarget) -> ConnectDecision | None:
        return await waiting(target) if target.host == UNLISTED else None

    running = start(proxy, Gate(say), **({"destinations": (f"{OTHER}:*",)} if way == "tunnel" else {}))
    with running.tunnel(named.port) as client:
        client.send(client_hello_bytes(running.client_context(), UNLISTED))
        assert waiting.begun.wait(10)
    assert waiting.cancelled.wait(10)
    running.wait_idle()
    assert named.requests == []


def test_an_answer_that_comes_after_the_deadline_of_the_handshake(proxy: ProxyFactory, named: Origin, origin_ca: TestCA) -> None:
    """A person may be asked: the time of the handshake is the client's."""

    async def say(target: ConnectTarget) -> ConnectDecision | None:
        if target.host == UNLISTED:
            await asyncio.sleep(0.3)
        return None

    running = start(proxy, Gate(say), destinations=(f"{OTHER}:*",), **{"timeouts.client_tls_handshake_ms": 100})
    with running.tunnel(named.port) as client:
        client.start_tls(origin_ca.client_context(), UNLISTED)
        assert client.request("/bytes/3", UNLISTED).body == pattern(3)


def test_no_bypass_for_a_name_that_it_wants_intercepted(proxy: ProxyFactory, named: Origin, origin_ca: TestCA) -> None:
    handler = Gate(lambda target: INTERCEPT if target.host == OTHER else None)
    running = start(proxy, handler, **{"tls.learn_bypass": True, "tls.bypass_after_failures": 2})
    for count in range(3):
        with running.tunnel(named.port) as client, pytest.raises(ssl.SSLCertVerificationError):
            client.start_tls(origin_ca.client_context(), OTHER)
        handler.wait("on_connection_close", count + 1)
