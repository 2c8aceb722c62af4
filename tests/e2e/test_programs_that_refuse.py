"""What real programs do with a certificate whose CA they do not know, or when they pin another key: the table of docs/tls.md.

Learning to leave pinned hosts alone stands on this. A new version of a program that behaves differently shows here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.origin import Origin
from support.programs import build_rust
from support.running import HOST, ProxyFactory

PROGRAMS = Path(__file__).with_name("programs")
# After the handshake, without a request; else an alert, or a class of failure without one
LEFT = "leaves"
WRONG_PIN = f"sha256//{'A' * 43}="
TO_URL = ("{proxy}", "{url}", "{ca}")


def python(how: str) -> tuple[str, ...]:
    return (sys.executable, "refuse.py", *TO_URL, how)


CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "curl": (("curl", "-q", "-sS", "--proxy", "{proxy}", "{url}"), "unknown_ca"),
    "curl, pinned": (("curl", "-q", "-sS", "--proxy", "{proxy}", "--cacert", "{ca}", "--pinnedpubkey", WRONG_PIN, "{url}"), LEFT),
    "Go": (("{go}", *TO_URL, "unknown"), "bad_certificate"),
    "Go, pinned": (("{go}", *TO_URL, "pinned"), "bad_certificate"),
    "Java HttpsURLConnection": (("java", "Refuse.java", *TO_URL, "url"), "certificate_unknown"),
    "Java HttpsURLConnection, pinned": (("java", "Refuse.java", *TO_URL, "url-pinned"), "certificate_unknown"),
    "Java HttpClient": (("java", "Refuse.java", *TO_URL, "client"), "eof_or_reset"),
    "Node": (("node", "refuse.js", *TO_URL, "unknown"), "eof_or_reset"),
    "Node, pinned": (("node", "refuse.js", *TO_URL, "pinned"), "eof_or_reset"),
    "Rust": (("{rust}", "refuse", *TO_URL, "unknown"), "unknown_ca"),
    "Rust, pinned": (("{rust}", "refuse", *TO_URL, "pinned"), "access_denied"),
    "urllib": (python("urllib"), "unknown_ca"),
    "aiohttp": (python("aiohttp"), "eof_or_reset"),
    "aiohttp, pinned": (python("aiohttp pinned"), LEFT),
    "urllib3, pinned": (python("urllib3 pinned"), LEFT),
}


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Compile the Go program when it is first asked for."""

    def build() -> str:
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if go is None:
            pytest.skip("go is not installed")
        out = tmp_path_factory.getbasetemp() / "refuse-go"
        if not out.exists():
            subprocess.run([go, "build", "-o", str(out), "refuse.go"], cwd=PROGRAMS, check=True, timeout=110)
        return str(out)

    return build


@pytest.mark.parametrize("case", CASES)
def test_how_programs_refuse(proxy: ProxyFactory, origin: Origin, go_program: Callable[[], str], case: str) -> None:
    words, expected = CASES[case]
    running = proxy()
    values = {"proxy": running.url, "url": origin.url("/"), "ca": str(running.ca_path)}
    if words[0] == "{go}":
        values["go"] = go_program()
    elif words[0] == "{rust}":
        values["rust"] = str(build_rust())
    elif shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy") and "SSL" not in name}
    command = [word.format(**values) for word in words]
    done = subprocess.run(command, capture_output=True, timeout=60, cwd=PROGRAMS, env=environment, check=False)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode in (0, 60, 90) and "Traceback" not in output, output
    running.wait_idle()
    assert running.handler.requests == [] and origin.requests == []
    failures = running.handler.of("on_tls_failure")
    metrics = running.metrics()
    if expected == LEFT:
        assert (failures, metrics.tls_client_abandoned_count, metrics.tls_client_handshake_count) == ([], 1, 1)
        return
    ((host, error),) = failures
    assert (host, error.side, error.certificate_refused) == (HOST, "client", True)
    if expected == "eof_or_reset":
        assert error.reason == expected
    else:
        # rustls says the one, and means that the certificate is fine and not the pinned one
        reason = "handshake" if expected == "access_denied" else "unknown_ca"
        assert (error.reason, error.detail) == (reason, f"the peer sent the TLS alert {expected}")
    assert (metrics.tls_client_failure_count, metrics.tls_client_abandoned_count) == (1, 0)
