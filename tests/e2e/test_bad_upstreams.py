"""Upstreams whose TLS is wrong: the client reads why inside its own TLS with us, and the handler and the counters hear of it once."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from soth_mitm import HandlerDecision, InvalidConfigError, MitmConfig, MitmProxyBuilder, RawRequest
from soth_mitm.proxy import upstream_pools
from soth_mitm.tls.failures import FailureClass
from support.bad_upstreams import CERTIFICATE_FAULTS, FAULTS, HOST, BadUpstream, Fault, asks_for_certificate, long_chain
from support.certs import TestCA, load_pair, self_signed
from support.origin import Origin
from support.origin_answers import pattern
from support.recording import Observing, Recording
from support.running import ProxyFactory, Running
from support.wire_client import Answer

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
TITLES = {fault.title: fault for fault in FAULTS}


def ask(running: Running, port: int, name: str | None = HOST, path: str = "/x") -> Answer:
    """GET from the upstream at `port` as `name`; with None as its address."""
    target = HOST if name == HOST else "127.0.0.1"
    with running.tunnel(port, target) as client:
        client.start_tls(running.client_context(), name or target)
        return client.request(path, f"{target}:{port}")


def test_there_are_enough_faults() -> None:
    assert len(TITLES) == len(FAULTS) >= 40 and len(CERTIFICATE_FAULTS) >= 25


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_client_reads_why(proxy: ProxyFactory, origin: Origin, origin_ca: TestCA, fault: Fault) -> None:
    limit = {"timeouts.upstream_tls_handshake_ms": 1000} if fault.reason == "timeout" else {}
    running = proxy(**limit)
    with BadUpstream(fault, origin_ca) as upstream:
        answer = ask(running, upstream.port, fault.name)
        assert answer.status == fault.status, answer.text
        where = f"{HOST if fault.name == HOST else '127.0.0.1'}:{upstream.port}"
        assert where in answer.text and "TLS handshake" in answer.text and fault.words in answer.text, answer.text
        assert fault.name is None or fault.name in answer.text
        assert answer.text.removesuffix("\n").isprintable()
        running.wait_idle()
        assert (upstream.connections, upstream.requests) == (1, [])
    ((host, error),) = running.handler.of("on_tls_failure")
    assert (host, error.side, error.reason, error.certificate_refused) == (where.partition(":")[0], "upstream", fault.reason, False)
    assert f"{error}\n" == answer.text and error.detail in answer.text and error.__cause__ is not None
    metrics = running.metrics()
    assert (metrics.tls_upstream_failure_count, metrics.upstream_connect_error_count) == (1, 1)
    assert metrics.tls_upstream_failures_by_class == dict.fromkeys(FailureClass, 0) | {fault.reason: 1}
    assert metrics.upstream_timeout_count == (fault.status == 504)
    assert (metrics.tls_client_handshake_count, metrics.tls_client_failure_count, metrics.tls_client_abandoned_count) == (1, 0, 0)
    assert (metrics.upstream_error_count, metrics.upstream_connections) == (1, 0)
    assert [request.path for request in running.handler.requests] == ["/x"]
    assert ask(running, origin.port, path="/bytes/3").body == pattern(3)
    assert len(running.handler.of("on_tls_failure")) == 1


def test_the_next_client_tries_again(proxy: ProxyFactory, origin_ca: TestCA) -> None:
    running = proxy()
    with BadUpstream(TITLES["expired"], origin_ca) as upstream:
        for count in (1, 2, 3):
            assert ask(running, upstream.port).status == 502
            running.wait_idle()
            assert upstream.connections == len(running.handler.of("on_tls_failure")) == count
    assert running.metrics().tls_upstream_failure_count == 3


def test_a_request_in_absolute_form(proxy: ProxyFactory, origin_ca: TestCA) -> None:
    running = proxy()
    with BadUpstream(TITLES["expired"], origin_ca) as upstream, running.client() as client:
        answer = client.request(f"https://{HOST}:{upstream.port}/x", f"{HOST}:{upstream.port}")
        assert answer.status == 502 and "expired" in answer.text
    ((host, error),) = running.handler.wait("on_tls_failure")
    assert (host, error.side, error.reason) == (HOST, "upstream", "cert_validation")


def test_an_upstream_that_goes_bad(proxy: ProxyFactory, origin: Origin, origin_ca: TestCA) -> None:
    """What is remembered of an origin is no reason to trust it: a client whose handshake needed no upstream learns it at its request."""
    running = proxy(**{"connection_pool.max_idle_per_host": 0})
    assert ask(running, origin.port, path="/bytes/3").body == pattern(3)
    with running.secured(origin.port) as client:
        port = origin.port
        origin.close()
        with Origin(origin_ca.server_context(pair=origin_ca.issue_expired(HOST)), host=HOST, port=port) as bad:
            answer = client.request("/x", f"{HOST}:{port}")
            assert answer.status == 502 and "expired" in answer.text and bad.requests == []
    running.wait_idle()
    assert [error.reason for _, error in running.handler.of("on_tls_failure")] == ["cert_validation"]
    assert running.metrics().tls_upstream_failure_count == 1


class TestRefusedAfterTheHandshake:
    """With TLS 1.3 our handshake is over before the upstream has seen that we have no certificate."""

    def test_before_anybody_asks(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        running = proxy(Observing())
        with BadUpstream(TITLES["client certificate required, TLS 1.3"], origin_ca) as upstream:
            with running.secured(upstream.port) as client:
                running.handler.wait("on_tls_failure")
                answer = client.request("/x", HOST)
            assert answer.status == 502 and "client_cert_path" in answer.text
            assert upstream.connections == 1
            # and it is tried again, not remembered
            assert "client_cert_path" in ask(running, upstream.port).text
            assert upstream.connections == 2
        assert running.metrics().tls_upstream_failure_count == len(running.handler.of("on_tls_failure")) == 2

    def test_an_old_refusal_is_not_told_to_anybody(self, proxy: ProxyFactory, origin_ca: TestCA, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(upstream_pools, "REFUSAL_SECONDS", 0.0)
        running = proxy(Observing())
        with BadUpstream(TITLES["client certificate required, TLS 1.3"], origin_ca) as upstream:
            for number in range(20):
                with running.secured(upstream.port) as client:
                    running.handler.wait("on_tls_failure", 2 * number + 1)
                    # the next one is refused while the request is written, and the reset behind the alert may be there before it was read
                    assert "client_cert_path" in client.request("/x", HOST).text
                assert upstream.connections == len(running.handler.wait("on_tls_failure", 2 * number + 2)) == 2 * number + 2

    def test_while_the_request_is_under_way(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        asked = threading.Event()

        def refuse_late(ca: TestCA) -> Callable[[socket.socket, threading.Event], None]:
            def serve(sock: socket.socket, over: threading.Event) -> None:
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                context = asks_for_certificate(ca, required=True, version=ssl.TLSVersion.TLSv1_3)
                engine = context.wrap_bio(incoming, outgoing, server_side=True)
                with contextlib.suppress(ssl.SSLError):
                    while True:
                        incoming.write(sock.recv(65536))
                        with contextlib.suppress(ssl.SSLWantReadError):
                            engine.do_handshake()
                        sock.sendall(outgoing.read())
                        asked.wait(10)
                sock.sendall(outgoing.read())

            return serve

        def allow(request: RawRequest) -> HandlerDecision:
            asked.set()
            return HandlerDecision.ALLOW

        running = proxy(Recording(allow))
        with BadUpstream(Fault("refuses late", "cert_validation", "", wire=refuse_late), origin_ca) as upstream:
            answer = ask(running, upstream.port)
            assert answer.status == 502 and "client_cert_path" in answer.text
            running.wait_idle()
            assert upstream.connections == 1
        ((_, error),) = running.handler.of("on_tls_failure")
        assert (error.side, error.reason) == ("upstream", "cert_validation")


def test_a_handler_that_fails_cuts_the_connection_when_told_so(proxy: ProxyFactory, origin_ca: TestCA) -> None:
    class Failing(Observing):
        async def on_tls_failure(self, host: str, error: object) -> None:
            raise RuntimeError("no")

    with BadUpstream(TITLES["expired"], origin_ca) as upstream:
        assert ask(proxy(Failing()), upstream.port).status == 502
        strict = proxy(Failing(), **{"handler.recover_from_panics": False})
        with strict.tunnel(upstream.port) as client, pytest.raises(OSError):
            client.start_tls(strict.client_context())
        with strict.client() as client, pytest.raises((OSError, EOFError)):
            client.request(f"https://{HOST}:{upstream.port}/x", f"{HOST}:{upstream.port}")


def test_the_policy_still_decides(proxy: ProxyFactory, origin_ca: TestCA) -> None:
    def block(request: RawRequest) -> HandlerDecision:
        return HandlerDecision.block(451, b"not this one")

    with BadUpstream(TITLES["unknown root"], origin_ca) as upstream:
        assert ask(proxy(Recording(block)), upstream.port).status == 451


def test_verification_can_be_turned_off(proxy: ProxyFactory, origin_ca: TestCA, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "soth_mitm"):
        running = proxy(**{"upstream.verify_upstream_tls": False})
        for pair in (self_signed(HOST), origin_ca.issue_expired(HOST), origin_ca.issue("elsewhere.test"), TestCA("Stranger").issue(HOST)):
            with Origin(origin_ca.server_context(pair=pair), host=HOST) as bad:
                assert ask(running, bad.port, path="/bytes/3").body == pattern(3)
        running.handle.reload(running.handle.current_config())
    assert running.handler.of("on_tls_failure") == []
    assert sum(record.message.startswith("upstream.verify_upstream_tls is false") for record in caplog.records) == 1


class TestNotAFault:
    def test_a_chain_of_12_kilobytes(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        with Origin(origin_ca.server_context(pair=long_chain(origin_ca, 12_000)), host=HOST) as origin:
            assert ask(proxy(), origin.port, path="/bytes/3").body == pattern(3)

    @pytest.mark.parametrize("version", VERSIONS)
    def test_a_client_certificate_that_is_asked_for_and_not_required(
        self, proxy: ProxyFactory, origin_ca: TestCA, version: ssl.TLSVersion
    ) -> None:
        with Origin(asks_for_certificate(origin_ca, required=False, version=version), host=HOST) as origin:
            assert ask(proxy(), origin.port, path="/bytes/3").body == pattern(3)

    def test_a_wildcard_for_the_name(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        with Origin(origin_ca.server_context("*.example.test"), host=HOST) as origin:
            assert ask(proxy(), origin.port, "a.example.test", "/bytes/3").body == pattern(3)

    def test_an_address_in_the_certificate(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        with Origin(origin_ca.server_context("127.0.0.1"), host=HOST) as origin:
            assert ask(proxy(), origin.port, None, "/bytes/3").body == pattern(3)

    def test_an_intermediate_that_is_sent_along(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        with Origin(origin_ca.intermediate().server_context(HOST), host=HOST) as origin:
            assert ask(proxy(), origin.port, path="/bytes/3").body == pattern(3)

    def test_a_bundle_that_holds_an_intermediate_only(self, proxy: ProxyFactory, tmp_path: Path) -> None:
        middle = TestCA("Elsewhere").intermediate()
        (tmp_path / "middle.pem").write_bytes(middle.cert_pem)
        with Origin(middle.server_context(HOST), host=HOST) as origin:
            running = proxy(**{"upstream.ca_bundle_path": str(tmp_path / "middle.pem")})
            assert ask(running, origin.port, path="/bytes/3").body == pattern(3)

    def test_the_lowest_version_is_configured(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        def tls_1_2(ca: TestCA) -> ssl.SSLContext:
            context = ca.server_context(HOST)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            return context

        with BadUpstream(Fault("TLS 1.2 at most", "handshake", "tls.min_version", tls_1_2), origin_ca) as upstream:
            assert ask(proxy(), upstream.port).text == "no"
            answer = ask(proxy(**{"tls.min_version": "tls1.3"}), upstream.port)
            assert answer.status == 502 and "tls.min_version" in answer.text, answer.text


class TestCiphers:
    """Upstreams that only speak what is not offered by default."""

    OLD = ["AES256-GCM-SHA384:@SECLEVEL=0", "AES128-SHA:@SECLEVEL=0", "ECDHE-RSA-AES128-SHA:@SECLEVEL=0"]

    @staticmethod
    def old_context(ca: TestCA, ciphers: str) -> ssl.SSLContext:
        context = ca.server_context(pair=ca.issue(HOST, key=rsa.generate_private_key(65537, 2048)))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
        return context

    @pytest.mark.parametrize("ciphers", OLD)
    def test_older_ones_are_offered_when_the_key_says_so(self, proxy: ProxyFactory, origin_ca: TestCA, ciphers: str) -> None:
        with Origin(self.old_context(origin_ca, ciphers), host=HOST) as old:
            answer = ask(proxy(), old.port)
            assert answer.status == 502 and "upstream.ciphers" in answer.text, answer.text
            running = proxy(**{"upstream.ciphers": "DEFAULT:@SECLEVEL=1"})
            assert ask(running, old.port, path="/bytes/3").body == pattern(3)
            (response,) = running.handler.wait("on_response")
            assert response.connection_meta.tls_info.upstream_cipher == ciphers.partition(":")[0]

    def test_a_list_of_one_is_obeyed(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        with Origin(self.old_context(origin_ca, self.OLD[0]), host=HOST) as old:
            assert ask(proxy(**{"upstream.ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}), old.port).status == 502

    def test_the_security_level_is_part_of_it(self, proxy: ProxyFactory, origin_ca: TestCA) -> None:
        """An RSA key of 1024 bits."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")
        load_pair(context, origin_ca.issue(HOST, key=rsa.generate_private_key(65537, 1024)))
        with Origin(context, host=HOST) as weak:
            answer = ask(proxy(), weak.port)
            assert answer.status == 502 and "key too weak" in answer.text and "upstream.ciphers" in answer.text
            running = proxy(**{"upstream.ciphers": "DEFAULT:@SECLEVEL=1"})
            assert ask(running, weak.port, path="/bytes/3").body == pattern(3)

    def test_no_list_gives_up_verification(self, proxy: ProxyFactory) -> None:
        """A suite without a certificate would: whoever answers could be anybody."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("aNULL:@SECLEVEL=0")
        with Origin(context, host=HOST) as anonymous:
            answer = ask(proxy(**{"upstream.ciphers": "ALL:COMPLEMENTOFALL:@SECLEVEL=0"}), anonymous.port)
            assert answer.status == 502 and "TLS handshake" in answer.text
            assert anonymous.requests == []

    @pytest.mark.parametrize("text", ["", "AES-NONSENSE", "aNULL", "eNULL:@SECLEVEL=0", "AES128-SHA\0", "@SECLEVEL=9"])
    def test_a_list_of_none_is_refused_by_its_key(self, make_config: Callable[..., MitmConfig], text: str) -> None:
        with pytest.raises(InvalidConfigError, match=r"^upstream\.ciphers: .*cipher") as caught:
            MitmProxyBuilder(make_config(**{"upstream.ciphers": text}), Recording()).build()
        assert caught.value.key == "upstream.ciphers"
