"""What a client may name inside an intercepted connection: target x SNI x Host, and what comes of each.

`interception.check_names` in one table. "target" is the name of the CONNECT, "listed" another one in `interception.destinations`,
"blocked" one of `interception.blocked`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from support.certs import TestCA
from support.origin import Origin
from support.origin_answers import pattern
from support.programs import needed, run
from support.running import HOST, ProxyFactory, Running
from support.wire_client import Answer, WireClient

NAMES = {"target": HOST, "listed": "listed.test", "unlisted": "unlisted.test", "blocked": "blocked.test"}
DESTINATIONS = ("localhost:*", "listed.test:*")


class Case(NamedTuple):
    """One row: `sni` None is TLS without a name, "plain" no TLS at all; `host` None is a request without Host."""

    unlisted: str
    check: str
    sni: str | None
    host: str | None
    status: int


def cases() -> Iterator[Case]:
    """Yield the whole table."""
    for unlisted in ("tunnel", "block"):
        for check in ("strict", "off"):
            refused = {"blocked"} if unlisted == "tunnel" or check == "off" else {"blocked", "unlisted"}
            for sni in ("target", "listed", "unlisted", "blocked", None, "plain"):
                for host in (*NAMES, None):
                    yield Case(unlisted, check, sni, host, 403 if sni in refused else 421 if host in refused else 200)


@pytest.fixture
def named(origin_ca: TestCA) -> Iterator[Origin]:
    with Origin(origin_ca.server_context(*NAMES.values()), host=HOST) as origin:
        yield origin


def start(proxy: ProxyFactory, case: Case, **keys: Any) -> Running:
    return proxy(
        **{
            "destinations": DESTINATIONS,
            "interception.passthrough_unlisted": case.unlisted == "tunnel",
            "interception.check_names": case.check,
            "interception.blocked": ["blocked.test:*"],
            **keys,
        },
    )


def opened(running: Running, port: int, sni: str | None) -> WireClient:
    """Return a client inside a CONNECT to the target."""
    client = running.tunnel(port)
    if sni != "plain":
        context = running.client_context()
        context.check_hostname = sni is not None
        client.start_tls(context, NAMES.get(sni or ""))
    return client


def ask(client: WireClient, host: str | None) -> Answer:
    if host is not None:
        return client.request("/bytes/3", host)
    client.send(b"GET /bytes/3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    return client.read_answer()


@pytest.mark.parametrize("unlisted", ["tunnel", "block"])
@pytest.mark.parametrize("check", ["strict", "off"])
def test_the_matrix_for_raw_clients(proxy: ProxyFactory, named: Origin, plain_origin: Origin, unlisted: str, check: str) -> None:
    table = [case for case in cases() if (case.unlisted, case.check) == (unlisted, check)]
    running = start(proxy, table[0])
    expected: list[str] = []
    for case in table:
        origin = plain_origin if case.sni == "plain" else named
        with opened(running, origin.port, case.sni) as client:
            answer = ask(client, NAMES.get(case.host or ""))
            assert answer.status == case.status, (case, answer.text)
            if case.status == 200:
                assert answer.body == pattern(3)
                expected.append(f"{NAMES[case.host or 'target']}:{origin.port}")
            elif case.status == 403:
                assert NAMES[case.sni or ""] in answer.text and "the TLS handshake asks for that name" in answer.text
            else:
                assert NAMES[case.host or ""] in answer.text and f"localhost:{origin.port} (interception.check_names)" in answer.text
    assert [request.authority for request in running.handler.requests] == expected
    assert [request.url.split("/")[2] for request in running.handler.requests] == expected
    refused = [case for case in table if case.status != 200]
    # a handshake that is refused counts once more for the name in it
    assert running.metrics().refused_name_count == len(refused)
    assert len(named.requests) + len(plain_origin.requests) == len(expected)


@pytest.mark.parametrize(("sni", "host", "status"), [(sni, host, None) for sni in ("target", "listed", "blocked") for host in NAMES])
def test_the_matrix_for_curl(proxy: ProxyFactory, named: Origin, sni: str, host: str, status: None) -> None:
    """curl names in SNI what is in the URL; the target of its CONNECT is where --connect-to sends it."""
    needed("curl")
    running = start(proxy, Case("tunnel", "strict", sni, host, 0))
    url = f"https://{NAMES[sni]}:{named.port}/bytes/3"
    done: subprocess.CompletedProcess[bytes] = run(
        "curl", "-q", "-sS", "--http1.1", "--max-time", "25", "--proxy", running.url, "--cacert", running.ca_path,
        "-o", "-", "-w", "%{http_code}",
        "--connect-to", f"::{HOST}:{named.port}", "-H", f"Host: {NAMES[host]}", url,
    )  # fmt: skip
    expected = 403 if sni == "blocked" else 421 if host == "blocked" else 200
    assert done.stdout[-3:] == b"%d" % expected, (done.stdout, done.stderr)
    assert len(named.requests) == (expected == 200)


class TestSpellings:
    """Spellings of what may not be named, and of the target."""

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("blocked.test", 421),
            ("BLOCKED.Test", 421),
            ("blocked.test.", 421),
            ("blocked.test:8443", 421),
            ("BLOCKED.TEST.:1", 421),
            ("unlisted.test", 421),
            ("listed.test", 200),
            ("Listed.Test.:443", 200),
            ("onlyhere.test", 421),
            ("onlyhere.test:1", 200),
            ("LOCALHOST", 200),
            ("localhost.", 200),
            ("127.0.0.1", 421),
            ("[::ffff:127.0.0.1]", 421),
            ("[::1]", 421),
            ("0x7f.1", 421),
            ("2130706433", 421),
            ("127.1", 421),
            ("017700000001", 421),
            ("bl%6fcked.test", 421),
            ("a+b.test", 421),
            ("xn--bcher-kva.test", 421),
        ],
    )
    def test_hosts(self, proxy: ProxyFactory, plain_origin: Origin, host: str, status: int) -> None:
        running = start(proxy, Case("block", "strict", "plain", "", 0), destinations=(*DESTINATIONS, "onlyhere.test:1"))
        with running.tunnel(plain_origin.port) as client:
            for _ in range(2):
                assert client.request("/bytes/3", host).status == status
            # the connection goes on
            assert client.request("/bytes/3", HOST).body == pattern(3)
            assert client.request(f"http://{host}/bytes/3", host).status == status
        assert running.metrics().refused_name_count == (3 if status == 421 else 0)

    @pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])
    def test_the_target_for_another_port(self, proxy: ProxyFactory, named: Origin, plain_origin: Origin, secure: bool) -> None:
        """The name of the target stands for the target's port only."""
        origin = named if secure else plain_origin
        running = start(proxy, Case("block", "strict", "target", "", 0), destinations=(f"localhost:{origin.port}",))
        with opened(running, origin.port, "target" if secure else "plain") as client:
            assert client.request("/bytes/3", f"{HOST}:1").status == 421
            for host in (HOST, f"{HOST}:{origin.port}"):
                assert client.request("/bytes/3", host).body == pattern(3)
        assert running.metrics().refused_name_count == 1

    def test_an_international_name_that_is_listed(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = start(proxy, Case("block", "strict", "plain", "", 0), destinations=("localhost:*", "bücher.test:*"))
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/bytes/3", "xn--bcher-kva.test").body == pattern(3)
        assert running.handler.requests[0].authority == f"xn--bcher-kva.test:{plain_origin.port}"

    def test_what_is_no_name_passes_when_names_are_not_checked(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = start(proxy, Case("block", "off", "plain", "", 0))
        with running.tunnel(plain_origin.port) as client:
            assert client.request("/bytes/3", "0x7f.1").body == pattern(3)
        assert running.handler.requests[0].authority == "0x7f.1"

    def test_the_second_request_of_a_connection(self, proxy: ProxyFactory, named: Origin) -> None:
        running = start(proxy, Case("tunnel", "strict", "target", "", 0))
        with running.secured(named.port) as client:
            assert client.request("/bytes/3", HOST).body == pattern(3)
            assert client.request("/bytes/3", "blocked.test").status == 421
            assert client.request("/bytes/3", HOST).body == pattern(3)
            assert client.request("/bytes/3", "blocked.test", "POST", b"x").status == 421
        assert len(named.requests) == len(running.handler.requests) == 2
        first, second = running.handler.requests
        # what was learnt of the upstream stays with the connection
        assert second.connection_meta.tls_info.upstream_version == "TLSv1.3"
        assert first.authority == second.authority == f"{HOST}:{named.port}"


class TestBlocked:
    """`interception.blocked` on the proxy port: no name of it is resolved, and nothing is connected to."""

    @pytest.mark.parametrize("passthrough", [True, False])
    def test_connect_and_forwarded_requests(self, proxy: ProxyFactory, plain_origin: Origin, passthrough: bool) -> None:
        running = proxy(
            destinations=("*:*",),
            **{"interception.blocked": ["localhost:*", "*.blocked.test:*"], "interception.passthrough_unlisted": passthrough},
        )
        for target in (f"localhost:{plain_origin.port}", f"LOCALHOST.:{plain_origin.port}", "a.blocked.test:443"):
            with running.client() as client:
                answer = client.connect(target)
                assert answer.status == 403 and "interception.blocked" in answer.text and answer.text.startswith("destination_blocked: ")
            with running.client() as client:
                for _ in range(2):
                    assert client.request(f"http://{target}/x", target).status == 403
        running.wait_idle()
        assert plain_origin.connections == [] and running.handler.requests == []
        assert (running.metrics().dns_lookup_count, running.metrics().pool_miss_count) == (0, 0)
        # said before anybody is asked
        assert running.handler.of("should_intercept_tls") == []
