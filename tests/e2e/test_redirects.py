"""Requests that a handler sends elsewhere (`forward(to=...)`): where they arrive, by which name, and where they never do."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, Upstream
from soth_mitm.config.strict import STRICT
from support.certs import TestCA
from support.http2_inside import Http2Client
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running

forward = HandlerDecision.forward
STRICT_KEYS: dict[str, Any] = {"preset": "strict", **STRICT}
PAIRINGS = [(client, upstream) for client in ("h1", "h2") for upstream in ("h1", "h2")]
Serving = Callable[..., Origin]


@pytest.fixture
def serving(origin_ca: TestCA) -> Iterator[Serving]:
    """Start origins: `serving(*names of the certificate, alpn=...)`; without a name in clear text."""
    with contextlib.ExitStack() as stack:

        def serve(*names: str, alpn: tuple[str, ...] = ()) -> Origin:
            context = origin_ca.server_context(*names, alpn=alpn) if names else None
            return stack.enter_context(Origin(context, host=HOST))

        yield serve


class Leads(InterceptHandler):
    """Sends each request to where `to` says by its path, and those of other paths where they go."""

    def __init__(self, **to: str | Upstream) -> None:
        self.decisions = {name: forward(to=there) for name, there in to.items()}
        self.shown: list[RawRequest] = []

    def on_request(self, request: RawRequest) -> HandlerDecision:
        self.shown.append(request)
        return self.decisions.get(re.split("[/?]", request.path[1:])[0], HandlerDecision.ALLOW)


def host_of(request: Request) -> str | None:
    return request.get("host") or request.get(":authority")


class TestWhereTheyArrive:
    @pytest.mark.parametrize("pairing", PAIRINGS, ids="".join)
    @pytest.mark.parametrize("kind", ["address", "origin", "upstream"])
    def test_every_pairing(self, proxy: ProxyFactory, serving: Serving, looked_up: list[str], pairing: tuple[str, str], kind: str) -> None:
        client_protocol, upstream_protocol = pairing
        there = serving("first.test", HOST, alpn=("h2",) if upstream_protocol == "h2" else ())
        to: dict[str, str | Upstream] = {
            "address": f"127.0.0.1:{there.port}",
            "origin": f"https://{HOST}:{there.port}",
            "upstream": Upstream("127.0.0.1", there.port, server_name=HOST, authority="shown.test"),
        }
        authority = {"address": "first.test", "origin": f"{HOST}:{there.port}", "upstream": "shown.test"}[kind]
        handler = Leads(echo=to[kind])
        running = proxy(handler, destinations=("*:*",), **{"http2.for_http1_clients": True})
        with running.secured(443, "first.test", *(["h2"] if client_protocol == "h2" else [])) as connection:
            if client_protocol == "h2":
                client = Http2Client(connection.socket, "first.test")
                echo = json.loads(client.request("/echo/x", method="POST", body=pattern(100_000)).text)
            else:
                echo = json.loads(connection.request("/echo/x", "first.test", "POST", pattern(100_000)).text)
        assert echo["body_length"] == 100_000
        assert host_of(there.requests[0]) == authority
        assert there.connections[0].sni == {"address": "first.test", "origin": HOST, "upstream": HOST}[kind]
        assert (there.connections[0].http2 is not None) == (upstream_protocol == "h2")
        # the client's own target is neither resolved nor dialled, and is what the handler is shown
        assert "first.test" not in looked_up
        assert handler.shown[0].authority == "first.test"
        metrics = running.metrics()
        assert (metrics.redirected_request_count, metrics.allowed_request_count, metrics.pool_miss_count) == (1, 1, 1)

    def test_to_plain_text_and_back(self, proxy: ProxyFactory, serving: Serving) -> None:
        plain, secure = serving(), serving(HOST)
        handler = Leads(plain=f"http://{HOST}:{plain.port}", bare=Upstream("127.0.0.1", plain.port, tls=False))
        running = proxy(handler, destinations=("*:*",))
        with running.secured(secure.port) as client:
            assert client.request("/plain", f"{HOST}:{secure.port}").status == 200
            assert client.request("/bare", f"{HOST}:{secure.port}").status == 200
        assert [host_of(request) for request in plain.requests] == [f"{HOST}:{plain.port}", f"{HOST}:{secure.port}"]
        with running.tunnel(plain.port) as client:
            handler.decisions["secure"] = forward(to=f"https://{HOST}:{secure.port}")
            assert client.request("/secure", f"{HOST}:{plain.port}").status == 200
        assert secure.connections[0].sni == HOST

    def test_the_next_request_goes_its_own_way(self, proxy: ProxyFactory, serving: Serving) -> None:
        own, other = serving(HOST), serving(HOST)
        running = proxy(Leads(other=f"127.0.0.1:{other.port}"))
        with running.secured(own.port) as client:
            for path in ("/a", "/other/b", "/c", "/other/d", "/e"):
                client.request(path, HOST)
        assert [request.path for request in own.requests] == ["/a", "/c", "/e"]
        assert [request.path for request in other.requests] == ["/other/b", "/other/d"]

    def test_a_request_that_names_no_destination(self, proxy: ProxyFactory, serving: Serving) -> None:
        # which is served where names are not checked
        own, there = serving(HOST), serving(HOST)
        running = proxy(Leads(x=f"127.0.0.1:{there.port}"), **{"interception.check_names": "off"})
        with running.secured(own.port) as client:
            assert client.request("/x", "127.1").status == 200
        assert (host_of(there.requests[0]), there.connections[0].sni) == ("127.1", HOST)

    def test_a_request_of_http10_without_host(self, proxy: ProxyFactory, serving: Serving) -> None:
        there = serving(HOST)
        running = proxy(Leads(x=f"https://{HOST}:{there.port}"), destinations=("*:*",))
        with running.secured(443, "first.test") as client:
            client.send(b"GET /x HTTP/1.0\r\n\r\n")
            client.read_to_end()
        assert host_of(there.requests[0]) == f"{HOST}:{there.port}"

    def test_a_forwarded_request(self, proxy: ProxyFactory, serving: Serving) -> None:
        there = serving()
        running = proxy(Leads(x=f"http://{HOST}:{there.port}", y=f"127.0.0.1:{there.port}"), destinations=("*:*",))
        with running.client() as client:
            client.request("http://first.test/x?1", "first.test")
            client.request("http://first.test:81/y", "first.test")
        assert [(request.target, host_of(request)) for request in there.requests] == [
            ("/x?1", f"{HOST}:{there.port}"),
            ("/y", "first.test:81"),
        ]

    def test_with_every_other_change(self, proxy: ProxyFactory, serving: Serving) -> None:
        there = serving(HOST)
        decision = forward(to=f"https://{HOST}:{there.port}", set={"X": "1"}, path="/echo", method="PUT", body=b"new")
        running = proxy(Recording(lambda _: decision), destinations=("*:*",))
        with running.secured(443, "first.test") as client:
            echo = json.loads(client.request("/x", "first.test", "POST", b"old").text)
        assert (echo["method"], echo["path"], echo["body_length"]) == ("PUT", "/echo", 3)
        assert running.metrics().changed_request_count == 1

    def test_an_upgrade(self, proxy: ProxyFactory, serving: Serving) -> None:
        there = serving()

        def switch(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
            connection.send(connection.receive_exactly(5))

        there.script(switch)
        running = proxy(Leads(x=f"127.0.0.1:{there.port}"), destinations=("*:*",))
        with running.tunnel(80, "first.test") as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: first.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello")
            assert client.read_head().status == 101
            assert client.read_exactly(5) == b"hello"

    def test_a_retry_goes_there_as_well(self, proxy: ProxyFactory, serving: Serving) -> None:
        own, there = serving(), serving()

        def once(connection: ScriptedConnection, request: Request) -> None:
            if len(connection.connection.requests) > 1:
                connection.close()
            else:
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        there.script(once)
        running = proxy(Leads(x=f"http://{HOST}:{there.port}"))
        with running.tunnel(own.port) as client:
            assert [client.request("/x", HOST).status for _ in range(2)] == [200, 200]
        assert [host_of(request) for request in there.requests] == [f"{HOST}:{there.port}"] * 3
        assert (own.requests, running.metrics().retry_count) == ([], 1)

    def test_the_response_says_which_upstream_it_was(self, proxy: ProxyFactory, serving: Serving) -> None:
        own, other = serving(HOST), serving(HOST)
        running = proxy(
            Recording(lambda request: forward(to=f"127.0.0.1:{other.port}") if request.path == "/other" else HandlerDecision.ALLOW)
        )
        with running.secured(own.port) as client:
            for path in ("/own", "/other", "/own"):
                client.request(path, HOST)
        metas = [response.connection_meta for response in running.handler.wait("on_response", 3)]
        digests = [meta.tls_info.upstream_certificate_sha256 for meta in metas]
        assert digests[0] == digests[2] != digests[1]
        assert {meta.target for meta in metas} == {(HOST, own.port)}


class TestNames:
    """A certificate is checked for the name in use, and a connection serves only that name."""

    def refused(self, running: Running, own: Origin, path: str) -> str:
        with running.secured(own.port) as client:
            answer = client.request(path, HOST)
        assert answer.status == 502, answer.text
        return str(answer.text)

    def test_the_certificate_of_another_address(self, proxy: ProxyFactory, serving: Serving) -> None:
        own, other = serving(HOST), serving("other.test")
        running = proxy(Leads(x=f"127.0.0.1:{other.port}", y=f"https://{HOST}:{other.port}"), destinations=("*:*",))
        for path in ("/x", "/y"):
            self.refused(running, own, path)
        assert other.requests == []

    def test_the_certificate_of_an_upstream(self, proxy: ProxyFactory, serving: Serving) -> None:
        own, other = serving(HOST), serving("other.test")
        good = Upstream("127.0.0.1", other.port, server_name="other.test")
        running = proxy(
            Leads(good=good, authority=Upstream("127.0.0.1", other.port, authority="other.test"), bad=Upstream("127.0.0.1", other.port))
        )
        with running.secured(own.port) as client:
            assert client.request("/good", HOST).status == 200
            assert client.request("/authority", HOST).status == 200
        self.refused(running, own, "/bad")
        assert [host_of(request) for request in other.requests] == [HOST, "other.test"]
        # the first two by one name, and so over one connection; the third ended in its handshake
        assert [len(connection.requests) for connection in other.connections] == [2, 0]
        assert other.connections[0].sni == "other.test"

    @pytest.mark.parametrize("alpn", [(), ("h2",)], ids=["h1", "h2"])
    def test_a_connection_serves_one_name(self, proxy: ProxyFactory, serving: Serving, alpn: tuple[str, ...]) -> None:
        own, other = serving(HOST), serving("a.test", "b.test", alpn=alpn)
        to = {name: Upstream("127.0.0.1", other.port, server_name=f"{name}.test") for name in "abc"}
        running = proxy(Leads(**to), **{"http2.for_http1_clients": True})
        with running.secured(own.port) as client:
            for name in "abab":
                assert client.request(f"/{name}", HOST).status == 200
        # a kept connection that was verified for one name is of no use to another name
        self.refused(running, own, "/c")
        names = [(connection.sni, len(connection.requests)) for connection in other.connections if connection.requests]
        assert names == [("a.test", 2), ("b.test", 2)]


class TestWhatIsRefused:
    """403 and nothing resolved or dialled, whatever the handler or `handler.failure_policy` says."""

    KEYS: dict[str, Any] = {
        "interception.blocked": ["*.blocked.test:*"],
        "interception.passthrough_unlisted": False,
        "handler.failure_policy": "allow",
        "destinations": ("first.test:*", "listed.test:*", "127.0.0.1:*"),
    }

    @pytest.mark.parametrize(
        ("to", "text"),
        [
            ("a.blocked.test:443", "destination_blocked: a.blocked.test:443 matches"),
            ("A.BLOCKED.test.:443", "destination_blocked: a.blocked.test:443 matches"),
            ("https://a.blocked.test", "destination_blocked: a.blocked.test:443 matches"),
            ("http://a.blocked.test", "destination_blocked: a.blocked.test:80 matches"),
            ("unlisted.test:443", "destination_not_allowed: unlisted.test:443 is not listed"),
            ("https://unlisted.test:8443/", "destination_not_allowed: unlisted.test:8443 is not listed"),
            (Upstream("listed.test", 443, server_name="a.blocked.test"), "destination_blocked: a.blocked.test:443 matches"),
            (Upstream("listed.test", 443, server_name="unlisted.test"), "destination_not_allowed: unlisted.test:443 is not listed"),
            (Upstream("listed.test", 443, authority="a.blocked.test"), "destination_blocked: a.blocked.test:443 matches"),
            (Upstream("listed.test", 80, tls=False, authority="unlisted.test"), "destination_not_allowed: unlisted.test:80 is not listed"),
            (
                Upstream("a.blocked.test", 443, server_name="listed.test", authority="listed.test"),
                "destination_blocked: a.blocked.test:443",
            ),
        ],
        ids=repr,
    )
    def test_by_the_policy(self, proxy: ProxyFactory, looked_up: list[str], to: str | Upstream, text: str) -> None:
        running = proxy(Leads(x=to), **self.KEYS)
        with running.secured(443, "first.test") as client:
            answer = client.request("/x", "first.test")
            assert (answer.status, answer.text.startswith(f"redirect_denied: {text}")) == (403, True), answer.text
        running.wait_idle()
        metrics = running.metrics()
        assert looked_up == [] and metrics.pool_miss_count == 0
        assert (metrics.handler_panic_count, metrics.blocked_request_count, metrics.redirected_request_count) == (1, 1, 0)

    def test_names_of_the_blocked_without_check_names(self, proxy: ProxyFactory, looked_up: list[str]) -> None:
        keys = {**self.KEYS, "interception.check_names": "off"}
        running = proxy(Leads(x=Upstream("listed.test", 443, server_name="a.blocked.test")), **keys)
        with running.secured(443, "first.test") as client:
            assert client.request("/x", "first.test").status == 403
        assert looked_up == []

    def test_the_proxy_itself(self, proxy: ProxyFactory) -> None:
        handler = Leads()
        running = proxy(handler, destinations=("*:*",))
        for number, to in enumerate((f"127.0.0.1:{running.port}", f"http://localhost:{running.port}")):
            handler.decisions[str(number)] = forward(to=to)
            with running.tunnel(80, "first.test") as client:
                answer = client.request(f"/{number}", "first.test")
                assert (answer.status, "is this proxy itself" in answer.text) == (403, True)
        assert running.metrics().pool_miss_count == 0

    @pytest.mark.parametrize("how", ["127.0.0.1:{}", "https://localhost:{}", "http://[::ffff:127.0.0.1]:{}"])
    def test_by_the_address_guard(self, proxy: ProxyFactory, how: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(0)
            keys = {"upstream.denied_addresses": ["loopback"]}
            running = proxy(Leads(x=how.format(listening.getsockname()[1])), destinations=("*:*",), **keys)
            with running.secured(443, "first.test") as client:
                answer = client.request("/x", "first.test")
                assert (answer.status, "is denied by `loopback`" in answer.text) == (403, True), answer.text
            with pytest.raises(BlockingIOError):
                listening.accept()
            assert running.metrics().denied_address_count == 1

    def test_plain_text_under_the_strict_preset(self, proxy: ProxyFactory, serving: Serving) -> None:
        there = serving()
        handler = Leads(x=Upstream("10.0.0.1", 80, tls=False), y="http://10.0.0.1", z=f"http://127.0.0.1:{there.port}")
        running = proxy(handler, destinations=("first.test:443", "10.0.0.1:*", "127.0.0.1:*"), **STRICT_KEYS)
        with running.secured(443, "first.test") as client:
            for path in ("/x", "/y"):
                answer = client.request(path, "first.test")
                assert (answer.status, "nothing would be encrypted on the way to 10.0.0.1:80" in answer.text) == (403, True), answer.text
            assert client.request("/z", "first.test").status == 200
        assert len(there.requests) == 1

    def test_with_recover_off_nothing_is_answered(self, proxy: ProxyFactory) -> None:
        running = proxy(Leads(x="a.blocked.test:443"), **{**self.KEYS, "handler.recover_from_panics": False})
        with running.tunnel(80, "first.test") as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: first.test\r\n\r\n")
            with pytest.raises(OSError):
                assert client.read_to_end() == b""
                raise ConnectionResetError
        assert running.metrics().pool_miss_count == 0

    def test_http2(self, proxy: ProxyFactory, looked_up: list[str]) -> None:
        running = proxy(Leads(x="https://a.blocked.test"), **self.KEYS)
        with running.tunnel(80, "first.test") as connection:
            client = Http2Client(connection.socket, "first.test", "http")
            assert client.request("/x").status == 403
        assert looked_up == []


def test_a_destination_that_the_policy_would_tunnel_is_reached(proxy: ProxyFactory, serving: Serving) -> None:
    own, unlisted = serving(HOST), serving("127.0.0.1")
    running = proxy(Leads(x=f"https://127.0.0.1:{unlisted.port}"), destinations=("localhost:*",))
    with running.secured(own.port) as client:
        assert client.request("/x", HOST).status == 200
    assert len(unlisted.requests) == 1


def test_monitor_mode_sends_nothing_elsewhere(proxy: ProxyFactory, serving: Serving) -> None:
    own, other = serving(HOST), serving(HOST)
    running = proxy(Leads(x=f"127.0.0.1:{other.port}"), intercept_mode="monitor")
    with running.secured(own.port) as client:
        assert client.request("/x", HOST).status == 200
    running.wait_idle()
    assert (len(own.requests), other.connections) == (1, [])
