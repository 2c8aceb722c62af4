"""TLS sessions on both sides: resumed wherever that is right, and nowhere else. Client certificates towards upstreams."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from soth_mitm import MitmConfig
from support.bad_upstreams import BadUpstream, Fault, asks_for_certificate
from support.certs import TestCA
from support.origin import Origin
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory, Running

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
NO_POOL = {"connection_pool.max_idle_per_host": 0}
REPEATS = 25


@pytest.fixture(params=VERSIONS, ids=["TLS 1.2", "TLS 1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return request.param


@pytest.fixture
def limited(origin_ca: TestCA, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The context of an origin that speaks one version at most."""
    context = origin_ca.server_context(HOST, "127.0.0.1", "*.example.test")
    context.maximum_version = version
    return context


def fetch(running: Running, port: int, path: str = "/bytes/3", name: str = HOST, target: str = HOST) -> bytes:
    with running.tunnel(port, target) as client:
        client.start_tls(running.client_context(), name)
        return client.request(path, f"{target}:{port}").body


def upstream_counts(running: Running) -> tuple[int, int]:
    running.wait_idle()
    metrics = running.metrics()
    return metrics.tls_upstream_handshake_count, metrics.tls_upstream_resumed_count


class TestUpstream:
    @pytest.mark.parametrize("path", ["/bytes/3", "/close/3"], ids=["kept open", "closed by the upstream"])
    def test_repeat_connections_resume(self, proxy: ProxyFactory, limited: ssl.SSLContext, path: str) -> None:
        with Origin(limited, host=HOST) as origin:
            running = proxy(**NO_POOL)
            for _ in range(REPEATS):
                assert fetch(running, origin.port, path) == pattern(3)
        made, resumed = upstream_counts(running)
        # the first knows no session; the second is the first one to miss a session, and has it kept for the third
        assert made == REPEATS and resumed / (made - 2) >= 0.95, (made, resumed)
        seen = [response.connection_meta.tls_info.upstream_resumed for response in running.handler.wait("on_response", REPEATS)]
        assert seen[0] is False and seen.count(True) / (REPEATS - 1) >= 0.95

    def test_many_at_once_resume_the_same_session(self, proxy: ProxyFactory, limited: ssl.SSLContext) -> None:
        # closed by the upstream: else a request may be handed a connection that another one has done with
        path = "/close/3"
        with Origin(limited, host=HOST) as origin:
            running = proxy(**NO_POOL)
            for _ in range(3):
                fetch(running, origin.port, path)
            before = upstream_counts(running)
            with ThreadPoolExecutor(8) as pool:
                assert list(pool.map(lambda _: fetch(running, origin.port, path), range(REPEATS))) == [pattern(3)] * REPEATS
        after = upstream_counts(running)
        made, resumed = after[0] - before[0], after[1] - before[1]
        assert made >= REPEATS and resumed / made >= 0.95, (made, resumed)

    def test_the_certificate_is_known_of_a_resumed_session_too(self, proxy: ProxyFactory, limited: ssl.SSLContext) -> None:
        with Origin(limited, host=HOST) as origin:
            running = proxy(**NO_POOL)
            for _ in range(4):
                fetch(running, origin.port)
        infos = [response.connection_meta.tls_info for response in running.handler.wait("on_response", 4)]
        assert infos[-1].upstream_resumed and not infos[0].upstream_resumed
        assert len({info.upstream_certificate_sha256 for info in infos}) == 1 and infos[0].upstream_certificate_sha256

    def test_a_server_that_forgot_is_asked_anew(self, proxy: ProxyFactory, origin_ca: TestCA, version: ssl.TLSVersion) -> None:
        running = proxy(**NO_POOL)
        port = 0
        for _ in range(2):
            context = origin_ca.server_context(HOST)
            context.maximum_version = version
            with Origin(context, host=HOST, port=port) as origin:
                port = origin.port
                for _ in range(3):
                    assert fetch(running, port) == pattern(3)
        made, resumed = upstream_counts(running)
        assert resumed and made - resumed >= 2 and running.metrics().tls_upstream_failure_count == 0

    def test_another_name_is_another_session(self, proxy: ProxyFactory, limited: ssl.SSLContext) -> None:
        """Resuming verifies nothing: a session that was made for one name says nothing about another."""
        with Origin(limited, host=HOST) as origin:
            running = proxy(**NO_POOL)
            for name in (HOST, "a.example.test", "b.example.test"):
                fetch(running, origin.port, name=name)
                assert not running.handler.requests[-1].connection_meta.tls_info.upstream_resumed

    def test_a_certificate_that_is_not_trusted_any_more_is_not_resumed(
        self, proxy: ProxyFactory, make_config: Callable[..., MitmConfig], limited: ssl.SSLContext, tmp_path: Path
    ) -> None:
        with Origin(limited, host=HOST) as origin:
            running = proxy(**NO_POOL)
            for _ in range(3):
                fetch(running, origin.port)
            other = tmp_path / "other.pem"
            other.write_bytes(TestCA("Other").cert_pem)
            running.handle.reload(make_config(bind="127.0.0.1:0", **NO_POOL, **{"upstream.ca_bundle_path": str(other)}))
            assert b"upstream.ca_bundle_path" in fetch(running, origin.port)
        ((_, error),) = running.handler.of("on_tls_failure")
        assert error.reason == "unknown_ca"

    def test_what_was_not_verified_is_not_resumed_as_verified(
        self, proxy: ProxyFactory, make_config: Callable[..., MitmConfig], limited: ssl.SSLContext
    ) -> None:
        with Origin(limited, host=HOST) as origin:
            running = proxy(**NO_POOL, **{"upstream.verify_upstream_tls": False})
            for _ in range(3):
                fetch(running, origin.port)
            running.handle.reload(make_config(bind="127.0.0.1:0", **NO_POOL))
            fetch(running, origin.port)
            assert not running.handler.requests[-1].connection_meta.tls_info.upstream_resumed


class TestClient:
    def test_repeat_connections_resume(self, proxy: ProxyFactory, origin: Origin, version: ssl.TLSVersion) -> None:
        running = proxy()
        context = running.client_context()
        context.maximum_version = version
        session = None
        for number in range(REPEATS):
            with running.tunnel(origin.port) as client:
                client.start_tls(context, HOST, session)
                assert client.request("/bytes/3", HOST).body == pattern(3)
                assert client.tls.session_reused is (number > 0)
                session = client.tls.session
        running.wait_idle()
        metrics = running.metrics()
        assert (metrics.tls_client_handshake_count, metrics.tls_client_resumed_count) == (REPEATS, REPEATS - 1)
        infos = [request.connection_meta.tls_info for request in running.handler.requests]
        assert [info.resumed for info in infos] == [False] + [True] * (REPEATS - 1)
        assert len({info.cipher for info in infos}) == 1

    def test_sessions_outlive_a_reload(self, proxy: ProxyFactory, make_config: Callable[..., MitmConfig], origin: Origin) -> None:
        running = proxy()
        context = running.client_context()
        with running.tunnel(origin.port) as client:
            client.start_tls(context)
            client.request("/bytes/3", HOST)
            session = client.tls.session
        running.handle.reload(make_config())
        with running.tunnel(origin.port) as client:
            client.start_tls(context, HOST, session)
            assert client.tls.session_reused

    def test_a_session_of_one_name_is_none_of_another(self, proxy: ProxyFactory, limited: ssl.SSLContext) -> None:
        """A client that mixes them up gets a whole handshake, and the certificate of the name that it asked for."""
        with Origin(limited, host=HOST) as origin:
            running = proxy()
            context = running.client_context()
            with running.tunnel(origin.port) as client:
                client.start_tls(context, "a.example.test")
                client.request("/bytes/3", HOST)
                session = client.tls.session
            context.check_hostname = False
            with running.tunnel(origin.port) as client:
                client.start_tls(context, "b.example.test", session)
                assert not client.tls.session_reused
                assert client.tls.getpeercert()["subject"] == ((("commonName", "b.example.test"),),)


class TestClientCertificates:
    @pytest.fixture
    def wanting(self, origin_ca: TestCA, version: ssl.TLSVersion) -> ssl.SSLContext:
        return asks_for_certificate(origin_ca, required=True, version=version)

    @staticmethod
    def pair(ca: TestCA, directory: Path, name: str) -> tuple[str, str]:
        (directory / name).mkdir()
        files = ca.write(directory / name, pair=ca.issue_for_clients(name))
        return str(files.cert), str(files.key)

    @staticmethod
    def shown(origin: Origin) -> list[object]:
        """The common names that the origin's clients proved, None for those that showed nothing."""
        found: list[object] = []
        for connection in origin.connections:
            certificate = connection.tls.getpeercert() if connection.tls else None
            found.append(certificate["subject"][0][0][1] if certificate else None)
        return found

    def test_each_destination_gets_its_own(self, proxy: ProxyFactory, origin_ca: TestCA, wanting: ssl.SSLContext, tmp_path: Path) -> None:
        one, other = self.pair(origin_ca, tmp_path, "one"), self.pair(origin_ca, tmp_path, "other")
        with Origin(wanting, host=HOST) as first, Origin(wanting, host=HOST) as second:
            certs = {f"{HOST}:{first.port}": one, f"local*:{second.port}": other}
            running = proxy(
                **{
                    "upstream.client_cert_path": {pattern: cert for pattern, (cert, _) in certs.items()},
                    "upstream.client_key_path": {pattern: key for pattern, (_, key) in certs.items()},
                }
            )
            assert fetch(running, first.port) == fetch(running, second.port) == pattern(3)
            assert self.shown(first) == ["one"] and self.shown(second) == ["other"]

    def test_nobody_else_is_shown_it(self, proxy: ProxyFactory, origin_ca: TestCA, tmp_path: Path, version: ssl.TLSVersion) -> None:
        curious = asks_for_certificate(origin_ca, required=False, version=version)
        cert, key = self.pair(origin_ca, tmp_path, "one")
        with Origin(curious, host=HOST) as origin:
            running = proxy(
                **{"upstream.client_cert_path": {"api.example.test:*": cert}, "upstream.client_key_path": {"api.example.test:*": key}}
            )
            assert fetch(running, origin.port) == pattern(3)
            assert self.shown(origin) == [None]

    def test_it_is_resumed_with_its_own_sessions_only(
        self, proxy: ProxyFactory, make_config: Callable[..., MitmConfig], origin_ca: TestCA, wanting: ssl.SSLContext, tmp_path: Path
    ) -> None:
        wanting.verify_mode = ssl.CERT_OPTIONAL
        cert, key = self.pair(origin_ca, tmp_path, "one")
        with Origin(wanting, host=HOST) as origin:
            where = f"{HOST}:{origin.port}"
            running = proxy(**NO_POOL, **{"upstream.client_cert_path": {where: cert}, "upstream.client_key_path": {where: key}})
            for _ in range(4):
                fetch(running, origin.port)
            assert running.handler.requests[-1].connection_meta.tls_info.upstream_resumed
            running.handle.reload(make_config(bind="127.0.0.1:0", **NO_POOL))
            fetch(running, origin.port)
            assert not running.handler.requests[-1].connection_meta.tls_info.upstream_resumed
            assert self.shown(origin)[-1] is None

    def test_one_that_the_upstream_does_not_know(
        self, proxy: ProxyFactory, origin_ca: TestCA, wanting: ssl.SSLContext, tmp_path: Path
    ) -> None:
        cert, key = self.pair(TestCA("Stranger"), tmp_path, "stranger")
        with BadUpstream(Fault("strict", "unknown_ca", "", lambda ca: wanting), origin_ca) as upstream:
            where = f"{HOST}:{upstream.port}"
            running = proxy(**{"upstream.client_cert_path": {where: cert}, "upstream.client_key_path": {where: key}})
            text = fetch(running, upstream.port).decode()
            assert where in text and "unknown_ca" in text and "upstream.client_cert_path" in text
            assert upstream.requests == []
        ((_, error),) = running.handler.wait("on_tls_failure")
        assert (error.side, error.reason) == ("upstream", "unknown_ca")
