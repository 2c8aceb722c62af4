"""A child process with the proxy's environment, and destinations that are connected to elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from soth_mitm import CaError, MitmConfig, MitmProxyBuilder, generate_ca
from soth_mitm.tls.bundle import trust_files
from support.certs import TestCA
from support.origin import Origin
from support.origin_answers import pattern
from support.running import ProxyFactory, Running

NAME = "api.example.test"
SCRIPT = "import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1], timeout=20).read())"


@pytest.fixture
def named(origin_ca: TestCA) -> Iterator[Origin]:
    """An HTTPS origin whose certificate is for a name that no resolver knows."""
    with Origin(origin_ca.server_context(NAME)) as running:
        yield running


def redirected(proxy: ProxyFactory, port: int, **keys: object) -> Running:
    return proxy(destinations=(f"{NAME}:*",), **{"upstream.connect_to": [f"*.example.test:443=127.0.0.1:{port}"], **keys})


def fetched(running: Running, url: str) -> subprocess.CompletedProcess[bytes]:
    environment = running.handle.client_environment()
    return subprocess.run((sys.executable, "-c", SCRIPT, url), env=os.environ | environment, capture_output=True, timeout=60, check=False)


def test_a_child_goes_through_and_trusts(proxy: ProxyFactory, named: Origin) -> None:
    running = redirected(proxy, named.port)
    done = fetched(running, f"https://{NAME}/bytes/9")
    assert done.stdout == pattern(9), done.stderr.decode()
    (request,) = running.handler.requests
    assert (request.authority, request.connection_meta.tls_info.sni, request.connection_meta.target) == (NAME, NAME, (NAME, 443))
    assert named.requests[0].get("host") == NAME


def test_the_environment_has_the_proxys_address(proxy: ProxyFactory) -> None:
    running = proxy()
    environment = running.handle.client_environment({"NO_PROXY": "direct.example"})
    assert environment["NO_PROXY"] == "direct.example,::1"
    assert environment["HTTPS_PROXY"] == running.url
    assert environment["SSL_CERT_FILE"] == str(running.ca_path.with_name("ca-bundle.pem"))


def test_a_ca_in_memory_has_no_files() -> None:
    config = MitmConfig(bind="127.0.0.1:0")
    config.interception.destinations.append("a.example:443")
    with MitmProxyBuilder(config).with_ca(generate_ca()).build().start_in_thread() as handle:
        with pytest.raises(CaError, match=r"tls\.ca_cert_path"):
            handle.client_environment()


def test_the_targets_name_is_what_is_verified(proxy: ProxyFactory, origin: Origin) -> None:
    # this origin's certificate is for localhost
    running = redirected(proxy, origin.port)
    assert b"502" in fetched(running, f"https://{NAME}/").stderr
    ((host, failure),) = running.handler.wait("on_tls_failure")
    assert (host, failure.side, failure.reason) == (NAME, "upstream", "cert_validation")


def test_other_ports_and_names_go_where_they_always_went(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(**{"upstream.connect_to": [f"localhost:{origin.port + 1}=127.0.0.1:9", f"*.localhost:{origin.port}=127.0.0.1:9"]})
    with running.secured(origin.port) as client:
        assert client.request("/bytes/3", "localhost").body == pattern(3)


def test_tunnels_and_plain_requests_are_redirected_too(proxy: ProxyFactory, plain_origin: Origin) -> None:
    running = proxy(destinations=("else.test:1",), **{"upstream.connect_to": [f"{NAME}:*=127.0.0.1:{plain_origin.port}"]})
    with running.client() as client:
        assert client.request(f"http://{NAME}/bytes/4", NAME).body == pattern(4)
    with running.tunnel(8443, NAME) as tunnel:
        assert tunnel.request("/bytes/5", NAME).body == pattern(5)
    assert running.metrics().tunnel_count == 1


def test_a_redirection_to_the_proxy_itself_is_a_loop(proxy: ProxyFactory) -> None:
    running = proxy(destinations=("else.test:1",))
    config = running.handle.current_config()
    config.upstream.connect_to = [f"{NAME}:443=127.0.0.1:{running.port}"]
    running.handle.reload(config)
    with running.client() as client:
        assert client.connect(f"{NAME}:443").status == 508


def test_a_failure_names_both_places(proxy: ProxyFactory, named: Origin) -> None:
    named.close()
    running = redirected(proxy, named.port, **{"upstream.retry_on_failure": False})
    with running.client() as client:
        client.send(f"GET http://{NAME}:443/ HTTP/1.1\r\nHost: {NAME}:443\r\n\r\n".encode())
        answer = client.read_answer()
    assert answer.status == 502
    assert f"{NAME}:443 at 127.0.0.1:{named.port} (upstream.connect_to)" in answer.text


def test_variables_for_a_container(make_config: Callable[..., MitmConfig]) -> None:
    """It knows the proxy by another name, and has the CA's directory elsewhere."""
    with MitmProxyBuilder(make_config()).build().start_in_thread() as handle:
        assert handle.url == f"http://127.0.0.1:{handle.port}"
        environment = handle.client_environment({}, host="host.docker.internal", ca_directory="/run/ca/", no_proxy=["db.example"])
        bundle = trust_files(handle.ca_certificate_path).bundle
    assert environment["HTTPS_PROXY"] == environment["https_proxy"] == f"http://host.docker.internal:{handle.port}"
    assert environment["SSL_CERT_FILE"] == f"/run/ca/{bundle.name}"
    assert environment["NO_PROXY"] == "::1,db.example"
    assert "-Dhttps.proxyHost=host.docker.internal" in environment["JAVA_TOOL_OPTIONS"]
    assert "=/run/ca/" in environment["JAVA_TOOL_OPTIONS"]
