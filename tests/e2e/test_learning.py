"""Clients that refuse our certificate: what they teach us, about whom, and how it is forgotten, forbidden or turned off."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soth_mitm import ConnectDecision, ConnectTarget, MitmConfig, MitmProxyBuilder, TlsBypass, load_ca
from support import hellos
from support.certs import TestCA
from support.handshakes import client_hello_bytes
from support.leaks import what_remains
from support.origin import Origin
from support.origin_answers import pattern
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient

LEARNS: dict[str, Any] = {"tls.learn_bypass": True}


def issuer(client: WireClient) -> str:
    names = dict(pair for (pair,) in client.tls.getpeercert()["issuer"])
    return names["commonName"]


class Refuser:
    """A program (this one) that trusts the origin's CA and not ours."""

    def __init__(self, running: Running, origin: Origin, origin_ca: TestCA) -> None:
        self.running = running
        self.port = origin.port
        self.context = origin_ca.client_context()

    def ended(self) -> int:
        return len(self.running.handler.of("on_connection_close"))

    def refuse(self, times: int = 1, *, host: str = HOST, port: int = 0, name: str = "") -> None:
        """Do handshakes with our certificate, one after another, and refuse it."""
        for _ in range(times):
            before = self.ended()
            with self.running.tunnel(port or self.port, host) as client, pytest.raises(ssl.SSLCertVerificationError):
                client.start_tls(self.context, name or host)
            self.running.handler.wait("on_connection_close", before + 1)

    def leave(self, times: int = 1, then: Callable[[WireClient], None] = WireClient.close) -> None:
        """Accept our certificate, and go without a request."""
        for _ in range(times):
            before = self.ended()
            then(self.running.secured(self.port))
            self.running.handler.wait("on_connection_close", before + 1)

    def reaches_the_origin(self, host: str = HOST, port: int = 0, name: str = "") -> bool:
        """Tell who answers the handshake: the origin, or we."""
        with self.running.tunnel(port or self.port, host) as client:
            try:
                client.start_tls(self.context, name or host)
            except ssl.SSLCertVerificationError:
                return False
            assert issuer(client) == "Origin Root"
            return True

    def succeed(self) -> None:
        """Send a request under our certificate."""
        with self.running.secured(self.port) as client:
            assert client.request("/bytes/3", HOST).body == pattern(3)


@pytest.fixture(autouse=True)
def any_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not to decide whether a departure was prompt."""
    monkeypatch.setattr("soth_mitm.proxy.learning.PROMPT_SECONDS", 60.0)


@pytest.fixture
def make(proxy: ProxyFactory, origin: Origin, origin_ca: TestCA) -> Callable[..., Refuser]:
    return lambda **keys: Refuser(proxy(**{"tls.learn_bypass": True, "tls.bypass_after_failures": 2, **keys}), origin, origin_ca)


@pytest.fixture
def refuser(make: Callable[..., Refuser]) -> Refuser:
    """A refuser whose second refusal opens a bypass."""
    return make()


class TestOpening:
    def test_three_refusals_by_default(self, make: Callable[..., Refuser], origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
        refuser = make(**{"tls.bypass_after_failures": MitmConfig().tls.bypass_after_failures})
        running = refuser.running
        with caplog.at_level(logging.WARNING, "soth_mitm.proxy"):
            refuser.refuse(2)
            assert (running.handle.tls_bypasses(), caplog.messages) == ([], [])
            refuser.refuse()
        with running.tunnel(origin.port) as client:
            client.start_tls(refuser.context)
            assert issuer(client) == "Origin Root"
            assert client.request("/bytes/5", HOST).body == pattern(5)
        running.handler.wait("on_connection_close", 4)
        assert running.handler.requests == []
        failures = [(host, error.side, error.certificate_refused) for host, error in running.handler.of("on_tls_failure")]
        assert failures == [(HOST, "client", True)] * 3
        assert running.handler.of("should_intercept_tls") == [HOST] * 4, "the handler goes on being asked"
        (bypass,) = running.handle.tls_bypasses()
        assert isinstance(bypass, TlsBypass)
        assert (bypass.host, bypass.port, bypass.server_name) == (HOST, origin.port, HOST)
        assert bypass.process.startswith(str(Path(sys.executable).resolve()))
        assert (bypass.failures, bypass.connections) == (3, 1)
        assert abs((bypass.expires_at - bypass.opened_at).total_seconds() - 900) < 1
        metrics = running.metrics()
        assert (metrics.tls_client_refusal_count, metrics.tls_client_failure_count) == (3, 3)
        assert (metrics.tls_bypass_opened_count, metrics.tls_bypassed_connection_count, metrics.tls_bypasses) == (1, 1, 1)
        message, shown = caplog.messages
        assert shown == f"TLS of {bypass.process} to localhost:{origin.port} is tunnelled, unread (tls.learn_bypass)"
        assert f'add "localhost:{origin.port}" to interception.must_intercept' in message and "tls.learn_bypass = false" in message

    def test_silence_after_the_handshake_is_a_refusal_too(self, refuser: Refuser) -> None:
        refuser.leave()
        assert not refuser.running.handle.tls_bypasses()
        refuser.leave(then=WireClient.reset)
        assert refuser.reaches_the_origin()
        assert refuser.running.handler.of("on_tls_failure") == [], "no handshake failed"

    def test_a_request_in_between_starts_the_count_anew(self, refuser: Refuser) -> None:
        for _ in range(3):
            refuser.refuse()
            before = refuser.ended()
            refuser.succeed()
            refuser.running.handler.wait("on_connection_close", before + 1)
        assert not refuser.reaches_the_origin()

    def test_who_goes_on_speaking_with_us_does_not_refuse(self, refuser: Refuser) -> None:
        with refuser.running.secured(refuser.port) as client:
            assert client.request("/bytes/3", HOST).body == pattern(3)
            refuser.leave(5)
            assert client.request("/bytes/3", HOST).body == pattern(3)
        assert refuser.running.handle.tls_bypasses() == []

    def test_unexplained_departures_after_a_request_have_other_reasons(self, refuser: Refuser) -> None:
        refuser.succeed()
        refuser.running.handler.wait("on_connection_close")
        refuser.leave(5)
        assert refuser.running.handle.tls_bypasses() == []


class TestExactly:
    def test_other_destinations_stay_intercepted(self, refuser: Refuser, origin_ca: TestCA) -> None:
        refuser.refuse(2)
        assert refuser.reaches_the_origin()
        assert not refuser.reaches_the_origin("127.0.0.1")
        with Origin(origin_ca.server_context(HOST), host=HOST) as other:
            assert not refuser.reaches_the_origin(port=other.port)

    def test_another_name_at_the_same_address_stays_intercepted(self, refuser: Refuser) -> None:
        refuser.refuse(2, host="127.0.0.1", name=HOST)
        assert [(record.host, record.server_name) for record in refuser.running.handle.tls_bypasses()] == [("127.0.0.1", HOST)]
        assert refuser.reaches_the_origin("127.0.0.1", name=HOST)
        assert not refuser.reaches_the_origin("127.0.0.1")

    def test_other_programs_stay_intercepted(self, refuser: Refuser, origin: Origin) -> None:
        refuser.refuse(2)
        script = (
            "import ssl, sys, urllib.request as u\n"
            "context = ssl.create_default_context(cafile=sys.argv[2])\n"
            "opener = u.build_opener(u.ProxyHandler({'https': sys.argv[1]}), u.HTTPSHandler(context=context))\n"
            "sys.stdout.buffer.write(opener.open(sys.argv[3], timeout=20).read())\n"
        )
        running = refuser.running
        command = [sys.executable, "-I", "-c", script, running.url, str(running.ca_path), origin.url("/bytes/7")]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.stdout == pattern(7), done.stderr.decode()
        assert [request.path for request in running.handler.requests] == ["/bytes/7"]

    def test_plain_http_inside_connect_stays_intercepted(self, refuser: Refuser) -> None:
        refuser.refuse(2)
        with refuser.running.tunnel(refuser.port) as client:
            assert client.request("/plain", HOST).status == 502, "the origin speaks TLS only"
        assert [request.path for request in refuser.running.handler.requests] == ["/plain"]


class TestForbidding:
    def test_a_name_that_the_policy_blocks(self, make: Callable[..., Refuser]) -> None:
        refuser = make(destinations=("127.0.0.1:*",), **{"interception.passthrough_unlisted": False})
        refuser.refuse(4, host="127.0.0.1", name=HOST)
        assert not refuser.reaches_the_origin("127.0.0.1", name=HOST)
        assert refuser.running.handle.tls_bypasses() == []

    @pytest.mark.parametrize(
        ("keys", "host"),
        [
            ({"tls.learn_bypass": MitmConfig().tls.learn_bypass}, HOST),
            ({"interception.must_intercept": ["local*:*"]}, HOST),
            ({"interception.must_intercept": ["LOCALHOST:*"]}, "127.0.0.1"),
            ({"process_attribution.enabled": False}, HOST),
        ],
        ids=["the default", "host", "name asked for in TLS", "no process known"],
    )
    def test_never(self, make: Callable[..., Refuser], keys: dict[str, object], host: str) -> None:
        refuser = make(**keys)
        refuser.refuse(4, host=host, name=HOST)
        assert not refuser.reaches_the_origin(host, name=HOST)
        assert refuser.running.handle.tls_bypasses() == []
        assert refuser.running.metrics().tls_client_refusal_count >= 4

    @pytest.mark.parametrize(("answer", "opens"), [(ConnectDecision.INTERCEPT, False), (None, True)], ids=["intercept", "by the policy"])
    def test_where_on_connect_says_intercept(
        self, proxy: ProxyFactory, origin: Origin, origin_ca: TestCA, answer: ConnectDecision | None, opens: bool
    ) -> None:
        class Told(Recording):
            def on_connect(self, target: ConnectTarget) -> ConnectDecision | None:
                return answer

        refuser = Refuser(proxy(Told(), **{"tls.learn_bypass": True, "tls.bypass_after_failures": 2}), origin, origin_ca)
        refuser.refuse(2)
        assert refuser.reaches_the_origin() == opens

    def test_a_pattern_for_others_forbids_nothing(self, make: Callable[..., Refuser]) -> None:
        refuser = make(**{"interception.must_intercept": ["localhost:1", "*.localhost:*"]})
        refuser.refuse(2)
        assert refuser.reaches_the_origin()

    @pytest.mark.parametrize(
        ("section", "key", "value"), [("tls", "learn_bypass", False), ("interception", "must_intercept", ["localhost:*"])]
    )
    def test_by_a_reload(self, refuser: Refuser, section: str, key: str, value: object) -> None:
        refuser.refuse(2)
        handle = refuser.running.handle
        before = handle.current_config()
        forbidding = handle.current_config()
        setattr(getattr(forbidding, section), key, value)
        handle.reload(forbidding)
        assert handle.tls_bypasses() == []
        assert not refuser.reaches_the_origin()
        handle.reload(before)
        assert not refuser.reaches_the_origin(), "what was forgotten does not come back"

    def test_any_other_reload_leaves_it_open(self, refuser: Refuser) -> None:
        refuser.refuse(2)
        handle = refuser.running.handle
        config = handle.current_config()
        config.interception.must_intercept.append("127.0.0.1:*")
        config.tls.bypass_ttl_ms = 1
        handle.reload(config)
        assert refuser.reaches_the_origin()


class TestEnding:
    def test_it_expires(self, make: Callable[..., Refuser]) -> None:
        refuser = make(**{"tls.bypass_ttl_ms": 1})
        refuser.refuse(2)
        handle = refuser.running.handle
        assert not what_remains(lambda: {record.host: record for record in handle.tls_bypasses()})
        assert not refuser.reaches_the_origin()
        assert refuser.running.metrics().tls_bypass_opened_count == 1

    def test_clearing(self, refuser: Refuser) -> None:
        refuser.refuse(2)
        handle = refuser.running.handle
        (record,) = handle.tls_bypasses()
        assert handle.clear_tls_bypass("127.0.0.1") == handle.clear_tls_bypass(process="/bin/other") == 0
        assert handle.clear_tls_bypass("LOCALHOST.", "/bin/other") == 0
        assert handle.clear_tls_bypass("LOCALHOST.", record.process) == 1
        assert handle.tls_bypasses() == []
        refuser.refuse()
        assert handle.clear_tls_bypass() == 0
        refuser.refuse()
        assert not refuser.reaches_the_origin(), "the first refusal was forgotten, the second is one again"
        with pytest.raises(ValueError, match="not a name"):
            handle.clear_tls_bypass("no host")

    def test_another_ca_is_given_a_chance(self, refuser: Refuser, origin_ca: TestCA) -> None:
        refuser.refuse(2)
        refuser.running.handle.rotate_ca(load_ca(origin_ca.cert_pem, origin_ca.key_pem))
        assert refuser.running.handle.tls_bypasses() == []
        with refuser.running.tunnel(refuser.port) as client:
            client.start_tls(refuser.context)
            assert client.request("/bytes/3", HOST).body == pattern(3)
        assert len(refuser.running.handler.requests) == 1

    def test_an_open_tunnel_goes_on(self, refuser: Refuser) -> None:
        refuser.refuse(2)
        with refuser.running.tunnel(refuser.port) as client:
            client.start_tls(refuser.context)
            assert refuser.running.handle.clear_tls_bypass() == 1
            assert client.request("/bytes/3", HOST).body == pattern(3)

    def test_what_was_learnt_can_be_read_after_the_end(self, refuser: Refuser) -> None:
        refuser.refuse(2)
        refuser.running.handle.shutdown(5)
        assert len(refuser.running.handle.tls_bypasses()) == refuser.running.handle.clear_tls_bypass() == 1


class TestNoRefusal:
    """What ends early for other reasons than our certificate."""

    def not_refused(self, running: Running, act: Callable[[Running], None], times: int = 3) -> None:
        for count in range(1, times + 1):
            act(running)
            running.handler.wait("on_connection_close", count)
        metrics = running.metrics()
        assert (metrics.tls_client_refusal_count, metrics.tls_bypasses) == (0, 0)

    def test_no_version_in_common(self, proxy: ProxyFactory, origin: Origin) -> None:
        def old(running: Running) -> None:
            context = running.client_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with running.tunnel(origin.port) as client, pytest.raises(ssl.SSLError):
                client.start_tls(context)

        self.not_refused(proxy(**LEARNS, **{"tls.min_version": "tls1.3"}), old)

    def test_no_cipher_suite_in_common(self, proxy: ProxyFactory, origin: Origin) -> None:
        def old(running: Running) -> None:
            context = running.client_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            # of a kind of key that ours is not
            context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
            with running.tunnel(origin.port) as client, pytest.raises(ssl.SSLError):
                client.start_tls(context)

        self.not_refused(proxy(**LEARNS), old)

    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    def test_a_client_that_speaks_none_of_our_protocols(self, proxy: ProxyFactory, origin: Origin, version: str) -> None:
        """It leaves when no protocol is chosen, whatever the certificate is."""

        def imap_only(running: Running) -> None:
            context = running.client_context()
            context.maximum_version = ssl.TLSVersion[version]
            context.set_alpn_protocols(["imap"])
            with running.tunnel(origin.port) as client:
                client.start_tls(context)
                assert client.tls.selected_alpn_protocol() is None

        running = proxy(**LEARNS)
        self.not_refused(running, imap_only)
        assert running.metrics().tls_client_abandoned_count == 3

    def test_a_client_that_leaves_its_handshake_because_of_our_protocols(self, proxy: ProxyFactory, origin: Origin) -> None:
        def leave(running: Running) -> None:
            context = running.client_context()
            context.set_alpn_protocols(["imap"])
            with running.tunnel(origin.port) as client:
                client.send(client_hello_bytes(context, HOST))
                client.read_exactly(700)

        self.not_refused(proxy(**LEARNS), leave)

    def test_a_client_that_leaves_before_our_certificate(self, proxy: ProxyFactory, origin: Origin) -> None:
        """It offers no key share that we take, is asked for another, and goes."""

        def leave(running: Running) -> None:
            body = hellos.hello_body(
                ciphers=(0x1301,),
                session_id=bytes(32),
                extensions=[
                    hellos.server_name(HOST.encode()),
                    hellos.supported_versions(0x0304),
                    hellos.groups(29),
                    hellos.signature_algorithms(0x0403, 0x0804),
                    (51, b"\0\0"),
                ],
            )
            with running.tunnel(origin.port) as client:
                client.send(hellos.records(hellos.handshake(body)))
                # a HelloRetryRequest
                assert client.read_exactly(80)[:1] == b"\x16"

        running = proxy(**LEARNS)
        self.not_refused(running, leave)
        assert running.metrics().tls_client_failures_by_class["eof_or_reset"] == 3

    @pytest.mark.parametrize("alert", [10, 40, 43, 44, 45, 51, 70, 80], ids=lambda alert: f"alert {alert}")
    def test_alerts_about_something_else(self, proxy: ProxyFactory, origin: Origin, alert: int) -> None:
        def complain(running: Running) -> None:
            with running.tunnel(origin.port) as client:
                client.send(client_hello_bytes(running.client_context(), HOST))
                client.read_exactly(100)
                client.send(b"\x15\x03\x03\x00\x02\x02" + bytes([alert]))
                client.end_writing()

        self.not_refused(proxy(**LEARNS), complain, 1)

    def test_garbage_in_the_handshake(self, proxy: ProxyFactory, origin: Origin) -> None:
        def spoil(running: Running) -> None:
            with running.tunnel(origin.port) as client:
                client.send(client_hello_bytes(running.client_context(), HOST))
                client.read_exactly(100)
                client.send(b"GET / HTTP/1.1\r\n\r\n")
                client.end_writing()

        self.not_refused(proxy(**LEARNS), spoil)

    def test_a_client_that_stops_in_its_hello(self, proxy: ProxyFactory, origin: Origin) -> None:
        def stop(running: Running) -> None:
            with running.tunnel(origin.port) as client:
                client.send(client_hello_bytes(running.client_context(), HOST)[:100])

        self.not_refused(proxy(**LEARNS), stop)

    def test_a_client_that_is_late(self, proxy: ProxyFactory, origin: Origin) -> None:
        def wait(running: Running) -> None:
            with running.tunnel(origin.port) as client:
                client.send(client_hello_bytes(running.client_context(), HOST))
                client.read_to_end()

        self.not_refused(proxy(**LEARNS, **{"timeouts.client_tls_handshake_ms": 500}), wait, 1)

    def test_a_client_that_we_gave_up(self, proxy: ProxyFactory, origin: Origin) -> None:
        def wait(running: Running) -> None:
            with running.secured(origin.port) as client:
                assert client.read_to_end() == b""

        self.not_refused(proxy(**LEARNS, **{"timeouts.client_idle_ms": 1000}), wait, 1)

    def test_a_resumed_session_that_was_not_needed(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**LEARNS)
        context = running.client_context()
        with running.tunnel(origin.port) as client:
            client.start_tls(context)
            assert client.request("/bytes/3", HOST).body == pattern(3)
            session = client.tls.session
        running.handler.wait("on_connection_close")
        assert running.handle.clear_tls_bypass() == 0, "forgets that we were accepted"
        for count in range(2, 5):
            with running.tunnel(origin.port) as client:
                client.socket = context.wrap_socket(client.socket, server_hostname=HOST, session=session)
                assert client.tls.session_reused
            running.handler.wait("on_connection_close", count)
        assert running.metrics().tls_client_refusal_count == 0

    def test_clients_that_are_there_when_we_stop(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(**LEARNS)
        clients = [running.secured(origin.port) for _ in range(3)]
        running.handle.shutdown(5)
        for client in clients:
            client.close()
        assert running.metrics().tls_client_refusal_count == 0


def test_an_unreachable_origin_is_not_reported_inside_the_tunnel(refuser: Refuser) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        refuser.refuse(2, port=port)
        with refuser.running.tunnel(port) as client:
            client.send(client_hello_bytes(refuser.context, HOST))
            assert client.read_to_end() == b""


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_over_a_unix_socket(make: Callable[..., Refuser], tmp_path: Path) -> None:
    refuser = make(unix_socket_path=str(tmp_path / "s"))
    for count in (1, 2, 3):
        with socket.socket(socket.AF_UNIX) as plain:
            plain.settimeout(5)
            plain.connect(str(tmp_path / "s"))
            plain.sendall(f"CONNECT localhost:{refuser.port} HTTP/1.1\r\nHost: localhost:{refuser.port}\r\n\r\n".encode())
            assert plain.recv(1000).startswith(b"HTTP/1.1 200")
            if count < 3:
                with pytest.raises(ssl.SSLCertVerificationError):
                    refuser.context.wrap_socket(plain, server_hostname=HOST)
                refuser.running.handler.wait("on_connection_close", count)
            else:
                refuser.context.wrap_socket(plain, server_hostname=HOST).close()
    assert [record.failures for record in refuser.running.handle.tls_bypasses()] == [2]


@pytest.mark.anyio
async def test_on_a_loop_of_the_programs_own(make_config: Callable[..., MitmConfig], origin: Origin, origin_ca: TestCA) -> None:
    handler = Recording()
    async with MitmProxyBuilder(make_config(**LEARNS, **{"tls.bypass_after_failures": 2}), handler).build() as handle:

        def refuse() -> None:
            with WireClient(handle.port) as client, pytest.raises(ssl.SSLCertVerificationError):
                assert client.connect(f"{HOST}:{origin.port}").status == 200
                client.start_tls(origin_ca.client_context())

        for count in (1, 2):
            await asyncio.to_thread(refuse)
            await asyncio.to_thread(handler.wait, "on_connection_close", count)
        assert [record.host for record in handle.tls_bypasses()] == [HOST]
        assert handle.clear_tls_bypass(HOST) == 1
        assert handle.tls_bypasses() == []
