"""What real programs do with a certificate that they refuse, the table of docs/tls.md; and that they reach the origin itself in the end.

Learning to leave pinned hosts alone stands on this. A new version of a program that behaves differently shows here.
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
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from soth_mitm.tls.ca_formats import to_java_truststore
from support.certs import TestCA
from support.origin import Origin
from support.programs import build_rust
from support.running import HOST, ProxyFactory, Running

PROGRAMS = Path(__file__).with_name("programs")
# After the handshake, without a request; else an alert, or leaving during it
LEFT, CUT = "leaves", "eof_or_reset"


class Case(NamedTuple):
    """A command, what it says when it refuses us, and how it ends then and when it has reached an origin that it trusts."""

    command: tuple[str, ...]
    says: str
    refused: int = 0
    trusted: int | None = 1
    """None: it refuses the origin too."""


def program(words: str, *how: str) -> tuple[str, ...]:
    return (*words.split(), "{proxy}", "{url}", "{ca}", *how)


def curl(*options: str) -> tuple[str, ...]:
    return ("curl", "-q", "-sS", "--proxy", "{proxy}", *options, "{url}")


def s_client(version: str) -> tuple[str, ...]:
    where = ("-proxy", "{address}", "-connect", "{target}", "-servername", HOST)
    return ("openssl", "s_client", *where, "-CAfile", "{known}", "-verify_return_error", "-quiet", version)


CASES = {
    "curl, TLS 1.2": Case(curl("--cacert", "{known}", "--tls-max", "1.2"), "unknown_ca", 60, 0),
    "curl, TLS 1.3": Case(curl("--cacert", "{known}", "--tls-max", "1.3"), "unknown_ca", 60, 0),
    "curl, pinned, TLS 1.2": Case(curl("-k", "--pinnedpubkey", "{pin}", "--tls-max", "1.2"), LEFT, 90, 0),
    "curl, pinned, TLS 1.3": Case(curl("-k", "--pinnedpubkey", "{pin}", "--tls-max", "1.3"), LEFT, 90, 0),
    "openssl, TLS 1.2": Case(s_client("-tls1_2"), "unknown_ca", 1, 0),
    "openssl, TLS 1.3": Case(s_client("-tls1_3"), "unknown_ca", 1, 0),
    "Go": Case(program("{go}", "unknown"), "bad_certificate"),
    "Go, pinned": Case(program("{go}", "pinned"), "bad_certificate", trusted=None),
    "Java HttpsURLConnection": Case(program("java Refuse.java", "url"), "certificate_unknown"),
    "Java HttpsURLConnection, pinned": Case(program("java Refuse.java", "url-pinned"), "certificate_unknown", trusted=None),
    "Java HttpClient": Case(program("java Refuse.java", "client"), CUT),
    "Node": Case(program("node refuse.js", "unknown"), CUT),
    "Node, pinned": Case(program("node refuse.js", "pinned"), CUT, trusted=None),
    "Rust": Case(program("{rust} refuse", "unknown"), "unknown_ca"),
    "Rust, pinned": Case(program("{rust} refuse", "pinned"), "access_denied", trusted=None),
    "urllib": Case(program("{python} refuse.py", "urllib"), "unknown_ca"),
    "aiohttp": Case(program("{python} refuse.py", "aiohttp"), CUT),
    "aiohttp, pinned": Case(program("{python} refuse.py", "aiohttp pinned"), LEFT, trusted=None),
    "urllib3, pinned": Case(program("{python} refuse.py", "urllib3 pinned"), LEFT, trusted=None),
}


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Compile the Go program when it is first asked for."""
    out = tmp_path_factory.mktemp("go") / "refuse"

    def build() -> str:
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if go is None:
            pytest.skip("go is not installed")
        if not out.exists():
            subprocess.run([go, "build", "-o", str(out), "refuse.go"], cwd=PROGRAMS, check=True, timeout=110)
        return str(out)

    return build


@pytest.fixture
def known(origin_ca: TestCA, tmp_path: Path) -> Path:
    """The origin's CA, in a file."""
    path = tmp_path / "known.pem"
    path.write_bytes(origin_ca.cert_pem)
    return path


@pytest.fixture
def environment(origin_ca: TestCA, known: Path, tmp_path: Path) -> dict[str, str]:
    """Variables by which programs know the origin's CA."""
    java_roots = tmp_path / "known.p12"
    java_roots.write_bytes(to_java_truststore([origin_ca.certificate]))
    java = f"-Djavax.net.ssl.trustStore={java_roots} -Djavax.net.ssl.trustStorePassword=changeit"
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy") and "SSL" not in name}
    return {**kept, "SSL_CERT_FILE": str(known), "NODE_EXTRA_CA_CERTS": str(known), "JAVA_TOOL_OPTIONS": java}


def pin_of(origin: Origin) -> str:
    """Return the origin's key as curl pins it."""
    certificate = load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", origin.port)).encode())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256//" + base64.b64encode(hashlib.sha256(key).digest()).decode()


def check_refusal(running: Running, says: str) -> None:
    """Check what the handler and the counters were told of the one client so far."""
    failures = running.handler.of("on_tls_failure")
    metrics = running.metrics()
    if says == LEFT:
        assert (failures, metrics.tls_client_abandoned_count, metrics.tls_client_handshake_count) == ([], 1, 1)
        return
    ((host, error),) = failures
    assert (host, error.side, error.certificate_refused) == (HOST, "client", True)
    if says == CUT:
        assert error.reason == CUT
    else:
        # rustls says the one, and means that the certificate is fine and not the pinned one
        reason = "handshake" if says == "access_denied" else "unknown_ca"
        assert (error.reason, error.detail) == (reason, f"the peer sent the TLS alert {says}")
    assert (metrics.tls_client_failure_count, metrics.tls_client_abandoned_count) == (1, 0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_refused_twice_and_then_tunnelled(
    proxy: ProxyFactory,
    origin: Origin,
    go_program: Callable[[], str],
    known: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    case: Case,
) -> None:
    # a busy machine is not to decide whether a departure was prompt
    monkeypatch.setattr("soth_mitm.proxy.learning.PROMPT_SECONDS", 60.0)
    running = proxy(**{"tls.learn_bypass": True, "tls.bypass_after_failures": 2})
    places = {"proxy": running.url, "url": origin.url("/"), "ca": str(running.ca_path), "known": str(known), "python": sys.executable}
    places |= {"address": f"127.0.0.1:{running.port}", "target": f"{HOST}:{origin.port}"}
    for place, make in {"{go}": go_program, "{rust}": lambda: str(build_rust()), "{pin}": lambda: pin_of(origin)}.items():
        if place in case.command:
            places[place.strip("{}")] = make()
    command = [word.format(**places) for word in case.command]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")

    def run() -> int:
        request = b"GET /close/5 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        done = subprocess.run(command, input=request, capture_output=True, timeout=60, cwd=PROGRAMS, env=environment, check=False)
        output = (done.stdout + done.stderr).decode()
        assert "Traceback" not in output, output
        return done.returncode

    for count in (1, 2):
        assert run() == case.refused
        running.handler.wait("on_connection_close", count)
        assert running.metrics().tls_client_refusal_count == count
        if count == 1:
            check_refusal(running, case.says)
    (bypass,) = running.handle.tls_bypasses()
    assert (bypass.host, bypass.port, bypass.failures, bypass.connections) == (HOST, origin.port, 2, 0)
    assert running.handler.requests == [] and origin.requests == []
    if case.trusted is not None:
        assert run() == case.trusted
        metrics = running.metrics()
        assert (metrics.tls_client_refusal_count, metrics.tls_bypassed_connection_count) == (2, 1)
        assert running.handler.requests == []
