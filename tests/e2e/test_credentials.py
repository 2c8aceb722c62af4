"""Credentials: the value reaches its destination, in the place that is meant for it, and nothing else sees it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.test_filters import encoded as encoded_once

from soth_mitm import Credential, HandlerDecision, InterceptHandler, InvalidConfigError, MitmProxyBuilder, RawRequest, Secret, Upstream
from support.certs import TestCA
from support.http2_inside import Http2Client
from support.origin import Origin, Request, ScriptedConnection
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running

forward = HandlerDecision.forward
PAIRINGS = [(client, upstream) for client in ("h1", "h2") for upstream in ("h1", "h2")]
PLACEHOLDER = "key-placeholder-1"
VALUE = "sk-live-0123456789"
Fields = tuple[tuple[str, str], ...]


class Asking:
    """A client of either protocol."""

    def __init__(self, running: Running, port: int, is_h2: bool = False, host: str = HOST, authority: str = "") -> None:
        self.wire = running.secured(port, host, *(["h2", "http/1.1"] if is_h2 else ["http/1.1"]))
        self.authority = authority or f"{host}:{port}"
        # in monitor mode the upstream's protocol is the client's
        self.h2 = Http2Client(self.wire.socket, self.authority) if self.wire.tls.selected_alpn_protocol() == "h2" else None

    def ask(self, path: str = "/", fields: Fields = (), body: bytes | None = None, method: str = "") -> Any:
        method = method or ("GET" if body is None else "POST")
        if self.h2 is not None:
            lowered = [(name.lower(), value) for name, value in fields]
            length = [] if body is None else [("content-length", str(len(body)))]
            return self.h2.request(path, method=method, body=body, fields=[*length, *lowered])
        return self.wire.request(path, self.authority, method, body, "".join(f"{name}: {value}\r\n" for name, value in fields))


Serving = Callable[..., Origin]


@pytest.fixture
def serving(origin_ca: TestCA) -> Iterator[Serving]:
    """Start origins: `serving(*names of the certificate, alpn=...)`; without a name in clear text."""
    with contextlib.ExitStack() as stack:

        def serve(*names: str, alpn: tuple[str, ...] = (), **how: Any) -> Origin:
            context = origin_ca.server_context(*names, alpn=alpn) if names else None
            return stack.enter_context(Origin(context, host=HOST, **how))

        yield serve


@pytest.fixture
def asking() -> Iterator[Callable[..., Asking]]:
    with contextlib.ExitStack() as stack:

        def ask(*arguments: Any, **keys: Any) -> Asking:
            made = Asking(*arguments, **keys)
            stack.callback(made.wire.socket.close)
            return made

        yield ask


def credential(*destinations: str, place: tuple[str, ...] = ("header:authorization",), source: Any = None, **more: Any) -> Credential:
    return Credential(PLACEHOLDER, source or Secret(VALUE), destinations or ["localhost:*"], place=place, redact=False, **more)


def encoded(coding: str, data: bytes) -> bytes:
    return zlib.compress(data) if coding == "deflate" else encoded_once(coding, data)


def named(request: Request, name: str) -> list[str]:
    return [value for each, value in request.headers if each.lower() == name.lower()]


@pytest.fixture(params=PAIRINGS, ids="".join)
def pairing(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param  # type: ignore[no-any-return]


class TestPlaces:
    @pytest.fixture
    def scene(
        self, pairing: tuple[str, str], proxy: ProxyFactory, serving: Serving, asking: Callable[..., Asking]
    ) -> Callable[..., tuple[Running, Origin, Asking]]:
        def make(*credentials: Credential, handler: object = None, **keys: Any) -> tuple[Running, Origin, Asking]:
            client, upstream = pairing
            origin = serving(HOST, alpn=("h2",) if upstream == "h2" else ())
            running = proxy(handler, **{"credentials": list(credentials), "http2.for_http1_clients": True, **keys})
            return running, origin, asking(running, origin.port, client == "h2")

        return make

    def test_a_header(self, scene: Any) -> None:
        running, origin, client = scene(credential(place=("header:authorization", "header:x-api-key")))
        for _ in range(2):
            fields = (("Authorization", f"Bearer {PLACEHOLDER}"), ("X-Api-Key", PLACEHOLDER), ("X-Other", PLACEHOLDER))
            assert client.ask("/bytes/10", fields).status == 200
            request = origin.requests[-1]
            assert named(request, "authorization") == [f"Bearer {VALUE}"]
            assert (named(request, "x-api-key"), named(request, "x-other")) == ([VALUE], [PLACEHOLDER])
            shown = running.handler.wait("on_response")[-1].request
            assert shown.headers["authorization"] == f"Bearer {PLACEHOLDER}"
        assert running.metrics().credentials_put_in_by_placeholder == {PLACEHOLDER: 2}

    def test_what_a_handler_sets(self, scene: Any) -> None:
        running, origin, client = scene(credential(), handler=Recording(lambda _: forward(set={"Authorization": f"Bearer {PLACEHOLDER}"})))
        client.ask("/bytes/10")
        assert named(origin.requests[-1], "authorization") == [f"Bearer {VALUE}"]

    def test_basic(self, scene: Any) -> None:
        _, origin, client = scene(credential(place=("basic",)))
        client.ask("/bytes/1", (("Authorization", f"Basic {base64.b64encode(f'user:{PLACEHOLDER}'.encode()).decode()}"),))
        (sent,) = named(origin.requests[-1], "authorization")
        assert base64.b64decode(sent.removeprefix("Basic ")) == f"user:{VALUE}".encode()

    def test_the_target(self, scene: Any) -> None:
        _, origin, client = scene(credential(place=("query:key", "path"), source=Secret("a/b c&d=0")))
        client.ask(f"/bot{PLACEHOLDER}/send?x=1&key={PLACEHOLDER}&other={PLACEHOLDER}")
        assert origin.requests[-1].target == f"/bota%2Fb%20c%26d%3D0/send?x=1&key=a%2Fb%20c%26d%3D0&other={PLACEHOLDER}"

    @pytest.mark.parametrize("collected", [True, False], ids=["collected", "streamed"])
    def test_a_body(self, scene: Any, collected: bool) -> None:
        running, origin, client = scene(
            credential(place=("body",), source=Secret('sk"live"\\0123')), **{"body.buffer_request_bodies": collected}
        )
        body = json.dumps({"pad": "x" * 100_000, "key": PLACEHOLDER}).encode()
        fields = (("Content-Type", "application/json"), ("Content-Digest", "sha-256=:AAAA:"))
        assert client.ask("/", fields, body).status == 200
        request = origin.requests[-1]
        assert json.loads(request.body) == {"pad": "x" * 100_000, "key": 'sk"live"\\0123'}
        assert named(request, "content-digest") == []
        if collected:
            assert named(request, "content-length") == [str(len(request.body))]
            assert running.handler.requests[-1].body == body

    @pytest.mark.parametrize("collected", [True, False])
    @pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
    def test_a_coded_body(self, scene: Any, coding: str, collected: bool) -> None:
        """It leaves without its coding, as that would have to be put on again."""
        running, origin, client = scene(credential(place=("body",)), **{"body.buffer_request_bodies": collected})
        body = json.dumps({"pad": "x" * 300_000, "key": PLACEHOLDER}).encode()
        sent = body
        for each in coding.split(", "):
            sent = encoded(each, sent)
        fields = (("Content-Type", "application/json"), ("Content-Encoding", coding), ("Content-Digest", "sha-256=:AAAA:"))
        for _ in range(2):
            assert client.ask("/", fields, sent).status == 200
            request = origin.requests[-1]
            assert bytes(request.body) == body.replace(PLACEHOLDER.encode(), VALUE.encode())
            assert (named(request, "content-encoding"), named(request, "content-digest")) == ([], [])
            if collected:
                assert named(request, "content-length") == [str(len(request.body))]
                seen = running.handler.requests[-1]
                assert (seen.raw_body, seen.body, seen.headers["content-encoding"]) == (sent, body, coding)
        assert running.metrics().credentials_put_in_by_placeholder == {PLACEHOLDER: 2}
        running.wait_idle("active_flows", "buffered_bytes")

    def test_a_coded_body_without_the_placeholder_is_not_touched(self, scene: Any) -> None:
        running, origin, client = scene(credential(place=("body",)))
        sent = gzip.compress(b'{"key": "none"}')
        assert client.ask("/", (("Content-Type", "application/json"), ("Content-Encoding", "gzip")), sent).status == 200
        request = origin.requests[-1]
        assert (bytes(request.body), named(request, "content-encoding")) == (sent, ["gzip"])

    @pytest.mark.parametrize("collected", [True, False])
    @pytest.mark.parametrize(
        "coding, body", [("lzma", b"x"), ("gzip", gzip.compress(b"x" * 1000)[:-1]), ("gzip", b"none"), ("gzip", gzip.compress(b"x") + b"y")]
    )
    def test_a_coded_body_that_cannot_be_decoded(self, scene: Any, coding: str, body: bytes, collected: bool) -> None:
        running, origin, client = scene(credential(place=("body",)), **{"body.buffer_request_bodies": collected})
        answer = client.ask("/", (("Content-Encoding", coding),), body)
        assert answer.status == 415 and "credential_unsearched: the request body is encoded" in answer.text
        assert not any(request.complete for request in origin.requests)

    @pytest.mark.parametrize("collected", [True, False])
    @pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
    def test_misdirected_in_a_coded_body(self, scene: Any, coding: str, collected: bool) -> None:
        running, origin, client = scene(credential("localhost:1"), **{"body.buffer_request_bodies": collected})
        good = encoded(coding, b"good" * 1000)
        assert client.ask("/", (("Content-Encoding", coding),), good).status == 200
        assert (bytes(origin.requests[-1].body), named(origin.requests[-1], "content-encoding")) == (good, [coding])
        bad = encoded(coding, os.urandom(100_000) + VALUE.encode() + b"y" * 1000)
        answer = client.ask("/", (("Content-Encoding", coding),), bad)
        assert answer.status == 403 and answer.text.startswith("placeholder_misdirected")
        running.wait_idle("active_flows")
        assert not any(request.complete for request in origin.requests[1:])
        assert running.metrics().blocked_placeholder_count == 1

    def test_a_coding_that_is_not_known_passes_where_no_value_is_put_in(self, scene: Any) -> None:
        """An `aws-chunked` body, for example: it is searched as it is."""
        running, origin, client = scene(credential("localhost:1"))
        assert client.ask("/", (("Content-Encoding", "aws-chunked"),), b"4\r\nsome\r\n0\r\n\r\n").status == 200
        assert client.ask("/", (("Content-Encoding", "aws-chunked"),), b"12\r\n" + VALUE.encode()).status == 403

    def test_a_body_without_the_placeholder_is_not_touched(self, scene: Any) -> None:
        running, origin, client = scene(credential(place=("body",)))
        body = b'{"key": "none"}'
        client.ask("/", (("Content-Type", "application/json"), ("Content-Digest", "sha-256=:AAAA:")), body)
        assert bytes(origin.requests[-1].body) == body
        assert named(origin.requests[-1], "content-digest") == ["sha-256=:AAAA:"]
        assert running.metrics().credentials_put_in_by_placeholder == {}

    def test_in_monitor_mode(self, scene: Any) -> None:
        running, origin, client = scene(credential(), intercept_mode="monitor")
        client.ask("/bytes/1", (("Authorization", PLACEHOLDER),))
        assert named(origin.requests[-1], "authorization") == [VALUE]
        assert running.handler.wait("on_request")[0].headers["authorization"] == PLACEHOLDER

    def test_misdirected(self, scene: Any) -> None:
        running, origin, client = scene(credential("localhost:1"))
        for secret in (PLACEHOLDER, VALUE):
            encoded = base64.b64encode(f"user:{secret}".encode()).decode()
            for path, fields, body in (
                ("/", (("Authorization", f"Bearer {secret}"),), None),
                ("/", (("X-Other", secret),), None),
                ("/", ((f"x-{secret}", "1"),), None),
                ("/", (("Authorization", f"Basic {encoded}"),), None),
                (f"/a/{secret}", (), None),
                (f"/?a={secret.replace('-', '%2d')}", (), None),
                ("/", (), f"x{secret}y".encode()),
                ("/", (), b"x" * 70_000 + secret.encode()),
            ):
                answer = client.ask(path, fields, body)
                assert answer.status == 403, (path, fields)
                assert answer.text.startswith("placeholder_misdirected: ")
                assert VALUE not in answer.text
        assert origin.requests == []
        assert running.metrics().blocked_placeholder_count == 16

    @pytest.mark.parametrize("secret", [PLACEHOLDER, VALUE])
    def test_misdirected_in_a_streamed_body(self, scene: Any, secret: str) -> None:
        running, origin, client = scene(credential("localhost:1"), **{"body.buffer_request_bodies": False})
        answer = client.ask("/", (), b"x" * 150_000 + secret.encode() + b"y" * 1000)
        assert answer.status == 403
        running.wait_idle("active_flows")
        assert running.metrics().blocked_placeholder_count == 1
        for request in origin.requests:
            assert not request.complete
            assert secret.encode()[:8] not in request.body


class TestDestinations:
    def test_the_name_that_a_request_asks_for_counts_too(self, proxy: ProxyFactory, serving: Serving, asking: Any) -> None:
        """Behind one certificate there may be servers of several owners."""
        origin = serving(HOST, "other.localhost")
        running = proxy(credentials=[credential(f"{HOST}:*")], **{"interception.destinations": ["*localhost:*"]})
        mine = asking(running, origin.port)
        assert mine.ask("/", (("Authorization", PLACEHOLDER),)).status == 200
        other = asking(running, origin.port, authority=f"other.localhost:{origin.port}")
        answer = other.ask("/", (("Authorization", PLACEHOLDER),))
        assert answer.status == 403 and "placeholder_misdirected" in answer.text
        assert len(origin.requests) == 1

    def test_a_redirect_to_another_address_keeps_it_and_to_another_origin_loses_it(
        self, proxy: ProxyFactory, serving: Serving, asking: Any
    ) -> None:
        first, same, other = serving(HOST), serving(HOST), serving("other.localhost")

        class Leads(InterceptHandler):
            def on_request(self, request: RawRequest) -> HandlerDecision:
                there = {
                    "/same": f"{HOST}:{same.port}",
                    "/other": Upstream(HOST, other.port, authority=f"other.localhost:{other.port}"),
                    "/plain": Upstream(HOST, plain.port, tls=False),
                }
                return forward(to=there[request.path])

        plain = serving()
        running = proxy(Leads(), credentials=[credential(f"{HOST}:{first.port}")], **{"interception.destinations": ["*localhost:*"]})
        client = asking(running, first.port)
        fields = (("Authorization", PLACEHOLDER),)
        assert client.ask("/same", fields).status == 200
        assert named(same.requests[-1], "authorization") == [VALUE]
        assert [client.ask(path, fields).status for path in ("/other", "/plain")] == [403, 403]
        assert other.requests == plain.requests == []

    def test_plain_text_is_no_destination(self, proxy: ProxyFactory, serving: Serving) -> None:
        origin = serving()
        running = proxy(credentials=[credential()])
        with running.client() as client:
            answer = client.request(
                f"http://{HOST}:{origin.port}/", f"{HOST}:{origin.port}", "GET", None, f"Authorization: {PLACEHOLDER}\r\n"
            )
        assert answer.status == 403 and "placeholder_misdirected" in answer.text
        assert origin.requests == []

    def test_a_chunk_extension_and_trailers_hide_nothing(self, proxy: ProxyFactory, serving: Serving, asking: Any) -> None:
        origin = serving(HOST)
        for collected in (True, False):
            running = proxy(credentials=[credential("localhost:1")], **{"body.buffer_request_bodies": collected})
            head = f"POST / HTTP/1.1\r\nHost: {HOST}:{origin.port}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            for body in (
                f"3;a={PLACEHOLDER}\r\nabc\r\n0\r\n\r\n".encode(),
                f"3\r\nabc\r\n0\r\nX-Trailer: {PLACEHOLDER}\r\n\r\n".encode(),
                b"".join(b"1\r\n%c\r\n" % letter for letter in PLACEHOLDER.encode()) + b"0\r\n\r\n",
            ):
                client = asking(running, origin.port)
                client.wire.send(head + body)
                status = client.wire.read_answer("POST").status
                seen = [bytes(request.raw_head) + bytes(request.raw_body) for request in origin.requests]
                assert not any(PLACEHOLDER.encode() in each for each in seen)
                # an extension does not go on from a body that is streamed
                assert status == 403 or (not collected and body.startswith(b"3;"))

    def test_a_trace_is_sent_none(self, proxy: ProxyFactory, serving: Serving, asking: Any) -> None:
        origin = serving(HOST)
        running = proxy(credentials=[credential()])
        client = asking(running, origin.port)
        answer = client.ask("/", (("Authorization", PLACEHOLDER),), method="TRACE")
        assert named(origin.requests[-1], "authorization") == [PLACEHOLDER]
        answer = client.ask("/", (("Authorization", PLACEHOLDER), ("Max-Forwards", "0")), method="TRACE")
        assert answer.status == 200 and VALUE not in answer.text


class Vault:
    """A source that can be told to fail or to wait."""

    ttl = 60.0

    def __init__(self) -> None:
        self.asked: list[tuple[str, RawRequest]] = []
        self.error: Exception | None = None
        self.value: Any = Secret(VALUE)
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    async def resolve(self, name: str, request: RawRequest) -> Secret:
        self.asked.append((name, request))
        await asyncio.to_thread(self.may_go_on.wait, 10)
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[no-any-return]


class TestSources:
    FIELDS = (("Authorization", PLACEHOLDER),)

    @pytest.fixture
    def origin(self, serving: Serving) -> Origin:
        return serving(HOST)

    def test_one_question_for_all_that_wait(self, proxy: ProxyFactory, origin: Origin, asking: Any) -> None:
        vault = Vault()
        vault.may_go_on.clear()
        running = proxy(credentials=[credential(source=vault)])
        clients = [asking(running, origin.port) for _ in range(5)]
        for client in clients:
            client.wire.send(f"GET / HTTP/1.1\r\nHost: {client.authority}\r\nAuthorization: {PLACEHOLDER}\r\n\r\n".encode())
        running.handler.wait("on_request", 5)
        assert origin.requests == []
        vault.may_go_on.set()
        assert [client.wire.read_answer().status for client in clients] == [200] * 5
        assert clients[0].ask("/", self.FIELDS).status == 200
        ((name, request),) = vault.asked
        assert name == PLACEHOLDER and request.headers["authorization"] == PLACEHOLDER
        assert all(named(each, "authorization") == [VALUE] for each in origin.requests)

    def test_a_request_that_needs_none_asks_for_none(self, proxy: ProxyFactory, origin: Origin, asking: Any) -> None:
        vault = Vault()
        running = proxy(credentials=[credential(source=vault)])
        assert asking(running, origin.port).ask("/").status == 200
        assert vault.asked == []

    @pytest.mark.parametrize("failure", [RuntimeError(f"no {VALUE} today"), "not a secret"], ids=["raises", "returns"])
    def test_a_source_that_fails(
        self, proxy: ProxyFactory, origin: Origin, asking: Any, failure: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        vault = Vault()
        vault.error, vault.value = (failure, None) if isinstance(failure, Exception) else (None, failure)
        running = proxy(credentials=[credential(source=vault)])
        client = asking(running, origin.port)
        answer = client.ask("/", self.FIELDS)
        assert answer.status == 502 and answer.text.startswith("credential_unavailable: the value of credentials[0] could not be had")
        assert origin.requests == [] and running.metrics().unavailable_credential_count == 1
        assert "credentials[0]: the value could not be had" in caplog.text
        assert VALUE not in caplog.text and VALUE not in answer.text
        vault.error, vault.value = None, Secret(VALUE)
        assert client.ask("/", self.FIELDS).status == 200

    def test_a_source_that_takes_too_long(self, proxy: ProxyFactory, origin: Origin, asking: Any) -> None:
        vault = Vault()
        vault.may_go_on.clear()
        running = proxy(credentials=[credential(source=vault)], **{"handler.request_timeout_ms": 50})
        assert asking(running, origin.port).ask("/", self.FIELDS).status == 502
        vault.may_go_on.set()

    def test_a_client_that_leaves_meanwhile(self, proxy: ProxyFactory, origin: Origin, asking: Any) -> None:
        vault = Vault()
        vault.may_go_on.clear()
        running = proxy(credentials=[credential(source=vault)])
        client = asking(running, origin.port)
        client.wire.send(f"GET / HTTP/1.1\r\nHost: {client.authority}\r\nAuthorization: {PLACEHOLDER}\r\n\r\n".encode())
        running.handler.wait("on_request")
        client.wire.reset()
        running.wait_idle()
        vault.may_go_on.set()
        assert asking(running, origin.port).ask("/", self.FIELDS).status == 200
        assert len(origin.requests) == 1

    def test_it_is_asked_again_after_its_time(self, proxy: ProxyFactory, origin: Origin, asking: Any, tmp_path: Path) -> None:
        path = tmp_path / "key"
        path.write_text("first-value-1\n")
        running = proxy(credentials=[credential(source=f"file:{path}", ttl_ms=1)])
        client = asking(running, origin.port)
        client.ask("/", self.FIELDS)
        path.write_text("second-value-2\n")
        client.ask("/", self.FIELDS)
        assert [named(each, "authorization") for each in origin.requests] == [["first-value-1"], ["second-value-2"]]

    def test_a_command(self, proxy: ProxyFactory, origin: Origin, asking: Any) -> None:
        running = proxy(credentials=[credential(source="command:printf 'made by %s' printf")])
        asking(running, origin.port).ask("/", self.FIELDS)
        assert named(origin.requests[-1], "authorization") == ["made by printf"]

    def test_a_command_that_fails(self, proxy: ProxyFactory, origin: Origin, asking: Any, caplog: pytest.LogCaptureFixture) -> None:
        running = proxy(credentials=[credential(source=f"command:sh -c 'echo {VALUE}; exit 3'")])
        assert asking(running, origin.port).ask("/", self.FIELDS).status == 502
        assert "`sh` ended with exit code 3" in caplog.text and VALUE not in caplog.text

    def test_the_environment(self, proxy: ProxyFactory, origin: Origin, asking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOME_LLM_KEY", VALUE)
        running = proxy(credentials=[credential(source="env:SOME_LLM_KEY")])
        asking(running, origin.port).ask("/", self.FIELDS)
        assert named(origin.requests[-1], "authorization") == [VALUE]

    @pytest.mark.parametrize("source", ["env:NOT_SET_HERE", "file:/nowhere/key"])
    def test_what_cannot_be_read_is_said_at_the_start(self, proxy: ProxyFactory, source: str) -> None:
        assert "NOT_SET_HERE" not in os.environ
        with pytest.raises(InvalidConfigError) as caught:
            proxy(credentials=[credential(source=source)])
        assert caught.value.key == "credentials[0].source"

    def test_a_value_that_cannot_stand_in_a_head(self, proxy: ProxyFactory, origin: Origin, asking: Any) -> None:
        running = proxy(credentials=[credential(source=Secret("bell\x07bell"))])
        answer = asking(running, origin.port).ask("/", self.FIELDS)
        assert answer.status == 502 and "credential_unavailable" in answer.text and "bell" not in answer.text
        assert origin.requests == []

    def test_too_many_for_one_destination(self, proxy: ProxyFactory) -> None:
        many = [Credential(f"key-placeholder-{number:03}", Secret(f"value-number-{number:03}"), ["localhost:*"]) for number in range(40)]
        with pytest.raises(InvalidConfigError, match="spellings would be looked for; 256 are allowed") as caught:
            proxy(credentials=many)
        assert caught.value.key.endswith(".destinations")


class TestNothingShows:
    def test_no_log_event_metric_or_traceback(
        self, proxy: ProxyFactory, serving: Serving, make_config: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        told: list[str] = []

        class Watches:
            def __getattr__(self, name: str) -> Callable[..., None]:
                return lambda *arguments, **keys: told.append(f"{name} {arguments!r} {keys!r}")

        def fails(request: RawRequest) -> HandlerDecision:
            raise RuntimeError(repr(request))

        def drops(connection: ScriptedConnection, request: Request) -> None:
            connection.reset()

        origin = serving(HOST)
        origin.script(drops)
        config = make_config(credentials=[credential()], **{"handler.failure_policy": "allow"})
        handle = MitmProxyBuilder(config, Recording(fails)).with_observer(Watches()).build().start_in_thread()
        running = Running(handle, None)
        try:
            client = Asking(running, origin.port)
            assert client.ask("/", (("Authorization", PLACEHOLDER),)).status == 502
            client.wire.close()
            shown = repr(handle.metrics()) + repr(handle.current_config()) + "".join(told) + caplog.text
            assert PLACEHOLDER in shown and VALUE not in shown
        finally:
            handle.shutdown(10)
        assert named(origin.requests[-1], "authorization") == [VALUE]

    def test_a_request_that_is_sent_again(self, proxy: ProxyFactory, serving: Serving, asking: Any) -> None:
        def once(connection: ScriptedConnection, request: Request) -> None:
            if len(origin.requests) == 2:
                connection.reset()
            else:
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        origin = serving(HOST)
        origin.script(once)
        running = proxy(credentials=[credential()])
        client = asking(running, origin.port)
        assert [client.ask("/", (("Authorization", PLACEHOLDER),)).status for _ in range(2)] == [200, 200]
        assert [named(each, "authorization") for each in origin.requests] == [[VALUE]] * 3
        assert running.metrics().retry_count == 1
