"""`upstream.connect_to` with a scheme: a plain HTTP server in the place of a TLS one, and the other way round."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from soth_mitm import InvalidConfigError
from support.certs import TestCA
from support.origin import Origin
from support.origin_answers import pattern
from support.running import ProxyFactory

NAME = "api.example.test"


@pytest.fixture
def named(origin_ca: TestCA) -> Iterator[Origin]:
    with Origin(origin_ca.server_context(NAME)) as running:
        yield running


def test_tls_of_a_client_ends_here_and_the_server_is_plain(
    proxy: ProxyFactory, plain_origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    running = proxy(
        destinations=(f"{NAME}:*",),
        **{"upstream.connect_to": [f"{NAME}:443=http://127.0.0.1:{plain_origin.port}"], "upstream.verify_upstream_tls": True},
    )
    with running.secured(443, NAME) as client:
        for _ in range(2):
            assert client.request("/bytes/9", NAME).body == pattern(9)
    with running.secured(443, NAME) as client:
        assert client.request("/bytes/9", NAME).body == pattern(9)
    first, *_ = running.handler.requests
    assert (first.scheme, first.authority, first.connection_meta.target) == ("https", NAME, (NAME, 443))
    for request in running.handler.requests:
        facts = request.connection_meta.tls_info
        assert (facts.sni, facts.version) == (NAME, "TLSv1.3")
        assert (facts.upstream_version, facts.upstream_cipher, facts.upstream_proto, facts.upstream_resumed) == (None,) * 4
        assert facts.upstream_certificate_sha256 is None
    assert [request.get("host") for request in plain_origin.requests] == [NAME] * 3
    # one connection serves them all, and no handshake went out on it
    assert running.metrics().tls_upstream_handshake_count == 0
    assert len(plain_origin.connections) == 1
    # an address of this machine: nothing travels in clear
    assert "in clear" not in caplog.text


def test_other_destinations_keep_their_tls(proxy: ProxyFactory, plain_origin: Origin, origin: Origin) -> None:
    running = proxy(**{"upstream.connect_to": [f"localhost:443=http://127.0.0.1:{plain_origin.port}"]})
    with running.secured(443) as client:
        assert client.request("/bytes/3", "localhost").body == pattern(3)
    with running.secured(origin.port) as client:
        for _ in range(2):
            assert client.request("/bytes/4", f"localhost:{origin.port}").body == pattern(4)
    assert [len(plain_origin.requests), len(origin.requests)] == [1, 2]
    # nothing is connected to before a first request is allowed
    assert [request.connection_meta.tls_info.upstream_version for request in running.handler.requests] == [None, None, "TLSv1.3"]


def test_a_plain_request_can_be_led_to_a_tls_server(proxy: ProxyFactory, named: Origin) -> None:
    """The name of the target is asked for and verified there."""
    running = proxy(destinations=(f"{NAME}:*",), **{"upstream.connect_to": [f"{NAME}:80=https://127.0.0.1:{named.port}"]})
    with running.client() as client:
        assert client.request(f"http://{NAME}/bytes/4", NAME).body == pattern(4)
    with running.tunnel(80, NAME) as client:
        assert client.request("/bytes/5", NAME).body == pattern(5)
    assert [request.scheme for request in running.handler.requests] == ["http", "http"]
    assert len(named.connections) == running.metrics().tls_upstream_handshake_count == 1


def test_a_certificate_for_another_name_is_refused_there(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(destinations=(f"{NAME}:*",), **{"upstream.connect_to": [f"{NAME}:80=https://127.0.0.1:{origin.port}"]})
    with running.client() as client:
        assert client.request(f"http://{NAME}/", NAME).status == 502
    assert origin.requests == []


def test_a_reload_takes_the_next_connection_elsewhere(proxy: ProxyFactory, plain_origin: Origin, named: Origin) -> None:
    running = proxy(destinations=(f"{NAME}:*",), **{"upstream.connect_to": [f"{NAME}:443=http://127.0.0.1:{plain_origin.port}"]})
    with running.secured(443, NAME) as client:
        assert client.request("/bytes/3", NAME).status == 200
    config = running.handle.current_config()
    config.upstream.connect_to = [f"{NAME}:443=127.0.0.1:{named.port}"]
    running.handle.reload(config)
    with running.secured(443, NAME) as client:
        for _ in range(2):
            assert client.request("/bytes/3", NAME).status == 200
    assert [len(plain_origin.requests), len(named.requests)] == [1, 2]
    assert running.handler.requests[-1].connection_meta.tls_info.upstream_version == "TLSv1.3"


def test_what_travels_in_clear_is_said_at_the_start(proxy: ProxyFactory, caplog: pytest.LogCaptureFixture) -> None:
    running = proxy(**{"upstream.connect_to": [f"{NAME}:443=http://192.0.2.1:8000", "b.test:80=http://192.0.2.1:8000"]})
    assert f"upstream.connect_to: requests to {NAME}:443, b.test:80 may cross a network in clear" in caplog.text
    config = running.handle.current_config()
    config.preset = "strict"
    with pytest.raises(InvalidConfigError, match=r"^upstream\.connect_to: "):
        running.handle.reload(config)


def test_a_name_is_judged_by_its_addresses_whatever_the_scheme(proxy: ProxyFactory, plain_origin: Origin) -> None:
    running = proxy(
        destinations=(f"{NAME}:*",),
        **{
            "upstream.connect_to": [f"{NAME}:443=http://localhost:{plain_origin.port}"],
            "upstream.denied_addresses": ["loopback"],
        },
    )
    with running.secured(443, NAME) as client:
        answer = client.request("/", NAME)
    assert (answer.status, len(plain_origin.connections)) == (403, 0)
