"""Ways to reach a destination that is refused, or to have its name looked up: by any spelling, any form, and inside of what is allowed.

Every name leads to an origin that colludes, so that nothing but the refusal keeps a byte from it. Each way says what the client reads.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from adverse.test_no_way_around import Colluder, heard
from soth_mitm import ConnectDecision, ConnectTarget
from soth_mitm.config.strict import STRICT
from soth_mitm.proxy import resolver
from support.certs import TestCA
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.tap import Journal
from support.wire_client import WireClient

SECRET = "secret.test"
STATUS = 451


class Gate(Recording):
    """Lets connect to everything but `SECRET`, and lets every request through."""

    def on_connect(self, target: ConnectTarget) -> ConnectDecision | None:
        return ConnectDecision.block("no", STATUS) if target.host == SECRET else None


class LaterGate(Gate):
    async def on_connect(self, target: ConnectTarget) -> ConnectDecision | None:  # type: ignore[override]
        return Gate.on_connect(self, target)


# What refuses the name, with the status of a refused destination and that of a refused Host
REFUSALS: dict[str, tuple[type[Recording], dict[str, object], int, int]] = {
    "blocked": (Recording, {"interception.blocked": [f"{SECRET}:*"]}, 403, 421),
    "blocked by a glob, names unchecked": (
        Recording,
        {"interception.blocked": ["*ecret.*:*"], "interception.check_names": "off", "destinations": ("*:*",)},
        403,
        421,
    ),
    "not listed": (Recording, {"interception.passthrough_unlisted": False}, 403, 421),
    "strict": (Recording, {"preset": "strict", **STRICT}, 403, 421),
    "on_connect": (Gate, {}, STATUS, STATUS),
    "on_connect, later, and listed": (LaterGate, {"destinations": (f"{HOST}:*", f"{SECRET}:*")}, STATUS, STATUS),
}
CASES = pytest.mark.parametrize("refusal", REFUSALS)


class World:
    """A proxy in front of two origins that have every name."""

    def __init__(self, running: Running, plain: Colluder, secure: Colluder, looked_up: list[str]) -> None:
        self.running, self.plain, self.secure, self.looked_up = running, plain, secure, looked_up

    def close(self, *, reached: bool) -> None:
        """End everything, and check that nothing came: no look-up of the name, no connection unless to the target, none of its requests."""
        self.running.handle.shutdown(10)
        assert SECRET not in self.looked_up
        for origin in (self.plain, self.secure):
            origin.settle()
            assert not [entry for entry in origin.journal.since(0, "plain") if b"secret" in entry.value.lower()]
            if not reached:
                assert origin.journal.since(0, "accepted") == []


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def record(host: str) -> resolver.Addresses:
        names.append(host)
        return ("127.0.0.1",)

    monkeypatch.setattr(resolver, "system_addresses", record)
    return names


@pytest.fixture
def origins(origin_ca: TestCA) -> Iterator[tuple[Colluder, Colluder]]:
    with Colluder(Journal()) as plain, Colluder(Journal(), origin_ca.server_context(HOST, SECRET)) as secure:
        yield plain, secure


def start(proxy: ProxyFactory, origins: tuple[Colluder, Colluder], looked_up: list[str], refusal: str, **more: Any) -> World:
    handler, keys, _, _ = REFUSALS[refusal]
    return World(proxy(handler(), **{**keys, **more}), *origins, looked_up)


def fill(data: bytes, port: int) -> bytes:
    return data.replace(b"PORT", b"%d" % port)


REFUSED, HOST_REFUSED = "refused", "host refused"
TAIL = b"X: secret\r\n\r\n"
# Sent to the proxy itself
DIRECT: dict[str, tuple[bytes, int | str]] = {
    "a CONNECT": (b"CONNECT secret.test:PORT HTTP/1.1\r\nHost: secret.test:PORT\r\n" + TAIL, REFUSED),
    "a CONNECT in capitals": (b"CONNECT SECRET.TEST:PORT HTTP/1.1\r\nHost: x\r\n" + TAIL, REFUSED),
    "a CONNECT with a dot": (b"CONNECT secret.test.:PORT HTTP/1.1\r\nHost: x\r\n" + TAIL, REFUSED),
    "a CONNECT with two dots": (b"CONNECT secret.test..:PORT HTTP/1.1\r\nHost: x\r\n" + TAIL, 400),
    "a CONNECT with a port of six digits": (b"CONNECT secret.test:0PORT HTTP/1.1\r\nHost: x\r\n" + TAIL, 400),
    "a CONNECT of HTTP/1.0": (b"CONNECT secret.test:PORT HTTP/1.0\r\n\r\n", REFUSED),
    "a CONNECT in percent encoding": (b"CONNECT s%65cret.test:PORT HTTP/1.1\r\nHost: x\r\n" + TAIL, 400),
    "a CONNECT in UTF-8": ("CONNECT ｓecret.test:PORT HTTP/1.1\r\nHost: x\r\n".encode() + TAIL, 400),
    "a CONNECT with user information": (b"CONNECT localhost@secret.test:PORT HTTP/1.1\r\nHost: x\r\n" + TAIL, 400),
    "a CONNECT with a zone": (b"CONNECT [::1%25lo]:PORT HTTP/1.1\r\nHost: x\r\n" + TAIL, 400),
    "a CONNECT to an address in octal": (b"CONNECT 0177.0.0.1:PORT HTTP/1.1\r\nHost: x\r\n" + TAIL, 400),
    "a CONNECT to an address in one number": (b"CONNECT 2130706433:PORT HTTP/1.1\r\nHost: x\r\n" + TAIL, 400),
    "a CONNECT to a short address": (b"CONNECT 127.1:PORT HTTP/1.1\r\nHost: x\r\n" + TAIL, 400),
    "a CONNECT with a request behind it": (
        b"CONNECT secret.test:PORT HTTP/1.1\r\nHost: x\r\n\r\nGET /secret HTTP/1.1\r\nHost: localhost\r\n\r\n",
        REFUSED,
    ),
    "a CONNECT with an allowed Host": (b"CONNECT secret.test:PORT HTTP/1.1\r\nHost: localhost:PORT\r\n" + TAIL, REFUSED),
    "a CONNECT with content": (b"CONNECT localhost:PORT HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nsecret", 400),
    "a URL": (b"GET http://secret.test:PORT/secret HTTP/1.1\r\nHost: secret.test:PORT\r\n" + TAIL, REFUSED),
    "a URL in capitals": (b"GET HTTP://SECRET.TEST.:PORT/secret HTTP/1.1\r\nHost: SECRET.TEST.:PORT\r\n" + TAIL, REFUSED),
    "a URL of https": (b"GET https://secret.test:PORT/secret HTTP/1.1\r\nHost: secret.test:PORT\r\n" + TAIL, REFUSED),
    "a URL with another Host": (b"GET http://secret.test:PORT/secret HTTP/1.1\r\nHost: localhost:PORT\r\n" + TAIL, REFUSED),
    "a URL with user information": (b"GET http://localhost@secret.test:PORT/secret HTTP/1.1\r\nHost: localhost\r\n" + TAIL, 400),
    "a URL with a backslash": (b"GET http://localhost:PORT\\@secret.test/ HTTP/1.1\r\nHost: localhost:PORT\r\n" + TAIL, 400),
    "a URL with a fragment": (b"GET http://localhost:PORT#@secret.test/ HTTP/1.1\r\nHost: localhost:PORT\r\n" + TAIL, 400),
    "a URL of HTTP/1.0": (b"GET http://secret.test:PORT/secret HTTP/1.0\r\n\r\n", REFUSED),
    "a URL with a body": (b"POST http://secret.test:PORT/ HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nsecret", REFUSED),
    "a URL that waits for 100": (
        b"POST http://secret.test:PORT/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 6\r\n" + TAIL,
        REFUSED,
    ),
    "an upgrade": (
        b"GET http://secret.test:PORT/secret HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + TAIL,
        REFUSED,
    ),
    "a TRACE": (b"TRACE http://secret.test:PORT/secret HTTP/1.1\r\nHost: x\r\nMax-Forwards: 5\r\n" + TAIL, REFUSED),
    "two Hosts": (b"GET http://localhost:PORT/ HTTP/1.1\r\nHost: localhost:PORT\r\nHost: secret.test\r\n" + TAIL, 400),
    "a Host alone": (b"GET /secret HTTP/1.1\r\nHost: secret.test:PORT\r\n" + TAIL, 400),
    "another protocol's URL": (b"GET wss://secret.test:PORT/secret HTTP/1.1\r\nHost: x\r\n" + TAIL, 400),
}
# Sent inside a connection to a destination that is allowed
INSIDE: dict[str, tuple[bytes, int | str]] = {
    "Host": (b"GET /secret HTTP/1.1\r\nHost: secret.test\r\n" + TAIL, HOST_REFUSED),
    "Host with the port": (b"GET /secret HTTP/1.1\r\nHost: secret.test:PORT\r\n" + TAIL, HOST_REFUSED),
    "Host with another port": (b"GET /secret HTTP/1.1\r\nHost: secret.test:1\r\n" + TAIL, HOST_REFUSED),
    "Host in capitals, with a dot": (b"GET /secret HTTP/1.1\r\nhOST:\tSECRET.TEST. \r\n" + TAIL, HOST_REFUSED),
    "Host of HTTP/1.0": (b"GET /secret HTTP/1.0\r\nHost: secret.test\r\n" + TAIL, HOST_REFUSED),
    "Host with white space": (b"GET /secret HTTP/1.1\r\nHost: localhost secret.test\r\n" + TAIL, 400),
    "Host with a comma": (b"GET /secret HTTP/1.1\r\nHost: localhost, secret.test\r\n" + TAIL, 400),
    "Host with a path": (b"GET /secret HTTP/1.1\r\nHost: secret.test/localhost\r\n" + TAIL, 400),
    "Host with user information": (b"GET /secret HTTP/1.1\r\nHost: localhost@secret.test\r\n" + TAIL, 400),
    "Host twice": (b"GET /secret HTTP/1.1\r\nHost: localhost\r\nHost: secret.test\r\n" + TAIL, 400),
    "Host folded": (b"GET /secret HTTP/1.1\r\nHost:\r\n secret.test\r\n" + TAIL, 400),
    "Host with a blank before the colon": (b"GET /secret HTTP/1.1\r\nHost : secret.test\r\n" + TAIL, 400),
    "an empty Host": (b"GET /secret HTTP/1.1\r\nHost:\r\n" + TAIL, 400),
    "a URL": (b"GET http://secret.test/secret HTTP/1.1\r\nHost: localhost\r\n" + TAIL, HOST_REFUSED),
    "a URL of https": (b"GET https://secret.test/secret HTTP/1.1\r\nHost: localhost\r\n" + TAIL, HOST_REFUSED),
    "OPTIONS of a server": (b"OPTIONS * HTTP/1.1\r\nHost: secret.test\r\n" + TAIL, HOST_REFUSED),
    "a body": (b"POST /secret HTTP/1.1\r\nHost: secret.test\r\nContent-Length: 6\r\n\r\nsecret", HOST_REFUSED),
    "chunks": (b"POST /secret HTTP/1.1\r\nHost: secret.test\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n", HOST_REFUSED),
    "an upgrade": (b"GET /secret HTTP/1.1\r\nHost: secret.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + TAIL, HOST_REFUSED),
    "a Host that Connection names": (b"GET /secret HTTP/1.1\r\nHost: secret.test\r\nConnection: host\r\n" + TAIL, HOST_REFUSED),
    "a CONNECT": (b"CONNECT secret.test:PORT HTTP/1.1\r\nHost: secret.test:PORT\r\n" + TAIL, 501),
}
FIRST = b"GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n"


def statuses(told: bytes) -> list[int]:
    return [int(line.split(b" ")[1]) for line in told.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def expected(refusal: str, status: int | str) -> int:
    _, _, refused, host_refused = REFUSALS[refusal]
    return {REFUSED: refused, HOST_REFUSED: host_refused}.get(status, status) if isinstance(status, str) else status


@CASES
def test_to_the_proxy(proxy: ProxyFactory, origins: tuple[Colluder, Colluder], looked_up: list[str], refusal: str) -> None:
    world = start(proxy, origins, looked_up, refusal)
    read = {}
    for way, (data, _) in DIRECT.items():
        with world.running.client() as client:
            client.send(fill(data, world.plain.port))
            client.end_writing()
            read[way] = statuses(heard(client))
    world.close(reached=False)
    assert read == {way: [expected(refusal, status)] for way, (_, status) in DIRECT.items()}
    assert looked_up == []


@CASES
@pytest.mark.parametrize("inside", ["plain", "tls"])
@pytest.mark.parametrize("first", [b"", FIRST], ids=["first", "pipelined"])
def test_inside_an_allowed_connection(
    proxy: ProxyFactory, origins: tuple[Colluder, Colluder], looked_up: list[str], refusal: str, inside: str, first: bytes
) -> None:
    world = start(proxy, origins, looked_up, refusal)
    origin = world.secure if inside == "tls" else world.plain
    read = {}
    for way, (data, _) in INSIDE.items():
        with world.running.secured(origin.port) if inside == "tls" else world.running.tunnel(origin.port) as client:
            client.send(first + fill(data, origin.port))
            if first:
                assert client.read_answer().status == 200
            read[way] = client.read_answer().status
    world.close(reached=bool(first))
    assert read == {way: expected(refusal, status) for way, (_, status) in INSIDE.items()}


@CASES
@pytest.mark.parametrize("name", [SECRET, SECRET.upper()])
@pytest.mark.parametrize("host", [HOST, SECRET])
def test_in_the_handshake_of_an_allowed_connection(
    proxy: ProxyFactory, origins: tuple[Colluder, Colluder], looked_up: list[str], refusal: str, name: str, host: str
) -> None:
    world = start(proxy, origins, looked_up, refusal)
    with world.running.tunnel(world.secure.port) as client:
        client.start_tls(world.running.client_context(), name)
        for _ in range(2):
            assert client.request("/secret", host).status == expected(refusal, REFUSED)
    world.close(reached=False)


@pytest.mark.parametrize("refusal", ["blocked", "on_connect", "on_connect, later, and listed"])
def test_in_the_handshake_of_a_tunnel(proxy: ProxyFactory, origins: tuple[Colluder, Colluder], looked_up: list[str], refusal: str) -> None:
    world = start(proxy, origins, looked_up, refusal)
    context = world.running.client_context()
    with world.running.tunnel(world.secure.port, "elsewhere.test") as client, pytest.raises(ssl.SSLError, match="(?i)unrecognized_name"):
        client.start_tls(context, SECRET)
    world.close(reached=True)


@CASES
def test_explained_inside(proxy: ProxyFactory, origins: tuple[Colluder, Colluder], looked_up: list[str], refusal: str) -> None:
    """The CONNECT is answered 200, and still nothing goes anywhere."""
    world = start(proxy, origins, looked_up, refusal, **{"interception.explain_blocks": True})
    for secured in (False, True):
        with world.running.tunnel(world.secure.port, SECRET) as client:
            if secured:
                client.start_tls(world.running.client_context(), SECRET)
            for host in (SECRET, HOST):
                assert client.request("/secret", host).status == expected(refusal, REFUSED)
    world.close(reached=False)
    assert looked_up == []


@pytest.mark.skipif(os.name != "posix", reason="Unix sockets")
@CASES
@pytest.mark.parametrize("target", ["/secret", "http://secret.test:PORT/secret"])
def test_by_the_unix_socket(
    proxy: ProxyFactory, origins: tuple[Colluder, Colluder], looked_up: list[str], refusal: str, target: str, tmp_path: Any
) -> None:
    path = tmp_path / "proxy.sock"
    world = start(proxy, origins, looked_up, refusal, unix_socket_path=str(path))
    with WireClient.to_unix(path) as client:
        port = world.plain.port
        for host in (f"{HOST}:{port}", f"{SECRET}:{port}", f"SECRET.test.:{port}"):
            answer = client.request(target.replace("PORT", str(port)), host)
            if host.startswith(HOST) and target.startswith("/"):
                # the only one that is allowed, and no word of it is about the secret
                assert answer.status == 200
            else:
                assert answer.status == expected(refusal, REFUSED)
    world.running.handle.shutdown(10)
    assert SECRET not in looked_up
    world.plain.settle()
    assert [entry.value.count(b"secret.test") for entry in world.plain.journal.since(0, "plain")] in ([0], [])


def test_requests_one_after_the_other(proxy: ProxyFactory, origins: tuple[Colluder, Colluder], looked_up: list[str]) -> None:
    """Allowed and refused ones on one client connection, in one write: each has its own answer."""
    world = start(proxy, origins, looked_up, "on_connect, later, and listed")
    port = world.plain.port
    with world.running.client() as client:
        client.send(
            b"".join(
                fill(b"GET http://%b:PORT/%b HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n" % (name, path), port)
                for name, path in ((b"localhost", b"a"), (b"secret.test", b"secret"), (b"LOCALHOST", b"b"), (b"secret.TEST", b"secret"))
            )
        )
        assert [client.read_answer().status for _ in range(4)] == [200, STATUS, 200, STATUS]
    world.close(reached=True)


def test_there_are_enough_ways() -> None:
    assert len(DIRECT) + len(INSIDE) >= 40
