"""Programs that know the origin's CA and not ours, each refusing in its own way: broken twice, then connected to the origin itself.

How each of them refuses is in test_programs_that_refuse.py.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from soth_mitm.tls.ca_formats import to_java_truststore
from support.certs import TestCA
from support.origin import Origin
from support.programs import build_rust
from support.running import ProxyFactory, Running

PROGRAMS = Path(__file__).with_name("programs")
REFUSED, TRUSTED = 0, 1
"""How the programs there end."""


@pytest.fixture
def running(proxy: ProxyFactory, monkeypatch: pytest.MonkeyPatch) -> Running:
    # a busy machine is not to decide whether a departure was prompt
    monkeypatch.setattr("soth_mitm.proxy.learning.PROMPT_SECONDS", 60.0)
    return proxy(**{"tls.bypass_after_failures": 2})


@pytest.fixture
def environment(origin_ca: TestCA, tmp_path: Path) -> dict[str, str]:
    """Variables by which Go, Node, Java and OpenSSL's users know the origin's CA."""
    roots, java_roots = tmp_path / "known.pem", tmp_path / "known.p12"
    roots.write_bytes(origin_ca.cert_pem)
    java_roots.write_bytes(to_java_truststore([origin_ca.certificate]))
    java = f"-Djavax.net.ssl.trustStore={java_roots} -Djavax.net.ssl.trustStorePassword=changeit"
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy") and "SSL" not in name}
    return {**kept, "SSL_CERT_FILE": str(roots), "NODE_EXTRA_CA_CERTS": str(roots), "JAVA_TOOL_OPTIONS": java}


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Compile the Go program when it is first asked for."""

    def build() -> str:
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if go is None:
            pytest.skip("go is not installed")
        out = tmp_path_factory.mktemp("go") / "refuse"
        subprocess.run([go, "build", "-o", str(out), "refuse.go"], cwd=PROGRAMS, check=True, timeout=110)
        return str(out)

    return build


def run(command: list[str], environment: dict[str, str]) -> int:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    request = b"GET /close/5 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    return subprocess.run(command, input=request, capture_output=True, timeout=60, cwd=PROGRAMS, env=environment, check=False).returncode


def tunnelled_at_last(
    running: Running, origin: Origin, command: list[str], environment: dict[str, str], refused: int = REFUSED, trusted: int = TRUSTED
) -> None:
    for count in (1, 2):
        assert run(command, environment) == refused
        running.handler.wait("on_connection_close", count)
        assert running.metrics().tls_client_refusal_count == count
    (bypass,) = running.handle.tls_bypasses()
    assert (bypass.host, bypass.port, bypass.failures, bypass.connections) == ("localhost", origin.port, 2, 0)
    assert run(command, environment) == trusted
    metrics = running.metrics()
    assert (metrics.tls_client_refusal_count, metrics.tls_bypassed_connection_count) == (2, 1)
    assert running.handler.requests == []


def words(running: Running, origin: Origin, *how: str) -> list[str]:
    return [running.url, origin.url("/"), str(running.ca_path), *how]


@pytest.mark.parametrize("way", ["url", "client"])
def test_java(running: Running, origin: Origin, environment: dict[str, str], way: str) -> None:
    tunnelled_at_last(running, origin, ["java", "Refuse.java", *words(running, origin, way)], environment)


def test_node(running: Running, origin: Origin, environment: dict[str, str]) -> None:
    tunnelled_at_last(running, origin, ["node", "refuse.js", *words(running, origin, "unknown")], environment)


def test_go(running: Running, origin: Origin, environment: dict[str, str], go_program: Callable[[], str]) -> None:
    tunnelled_at_last(running, origin, [go_program(), *words(running, origin, "unknown")], environment)


def test_rust(running: Running, origin: Origin, environment: dict[str, str]) -> None:
    tunnelled_at_last(running, origin, [str(build_rust()), "refuse", *words(running, origin, "unknown")], environment)


@pytest.mark.parametrize("way", ["urllib", "aiohttp"])
def test_python(running: Running, origin: Origin, environment: dict[str, str], way: str) -> None:
    tunnelled_at_last(running, origin, [sys.executable, "refuse.py", *words(running, origin, way)], environment)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl(running: Running, origin: Origin, environment: dict[str, str], version: str) -> None:
    target = ("-proxy", f"127.0.0.1:{running.port}", "-connect", f"localhost:{origin.port}", "-servername", "localhost")
    command = ["openssl", "s_client", *target, "-CAfile", environment["SSL_CERT_FILE"], "-verify_return_error", "-quiet", version]
    tunnelled_at_last(running, origin, command, environment, refused=1, trusted=0)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl(running: Running, origin: Origin, environment: dict[str, str], version: str) -> None:
    command = ["curl", "-q", "-sS", "--proxy", running.url, "--cacert", environment["SSL_CERT_FILE"], "--tls-max", version, origin.url()]
    tunnelled_at_last(running, origin, command, environment, refused=60, trusted=0)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_that_pins_the_origin(running: Running, origin: Origin, environment: dict[str, str], version: str) -> None:
    certificate = load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", origin.port)).encode())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = "sha256//" + base64.b64encode(hashlib.sha256(key).digest()).decode()
    command = ["curl", "-q", "-sS", "--proxy", running.url, "-k", "--pinnedpubkey", pin, "--tls-max", version, origin.url()]
    tunnelled_at_last(running, origin, command, environment, refused=90, trusted=0)
