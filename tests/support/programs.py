"""Programs that people use as clients of the proxy: how tests run them, and what they are given to send."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.origin import Origin
from support.origin_answers import pattern
from support.running import Running
from support.source import ROOT

BODY = pattern(200_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
CLIENTS = Path(__file__).parent / "clients"
# compilers take their time when everything else runs too
PATIENCE = 100


def needed(program: str, *fallbacks: Path) -> Path:
    """Return where a program is, or skip the test and say what is missing."""
    found = shutil.which(program) or next((path for path in fallbacks if path.is_file()), None)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return Path(found)


def run(
    *command: str | Path, stdin: bytes = b"", environment: Mapping[str, str] | None = None, timeout: float = 30
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end."""
    words = [str(word) for word in command]
    return subprocess.run(words, input=stdin, capture_output=True, timeout=timeout, check=False, env=environment)


def build_rust() -> Path:
    """Compile the Rust client, or skip the test and say what is missing: what it is made of is not fetched by a test."""
    out = ROOT / "build" / "rust"
    # cargo writes beside the manifest which versions it chose
    source = shutil.copytree(CLIENTS / "rust", out / "source", dirs_exist_ok=True)
    manifest = source / "Cargo.toml"
    done = run(needed("cargo"), "build", "--offline", "--manifest-path", manifest, "--target-dir", out, timeout=PATIENCE)
    if b"--offline" in done.stderr:
        pytest.skip(f"the crates of the Rust client are not here (cargo fetch --manifest-path {manifest.relative_to(ROOT)})")
    assert done.returncode == 0, done.stderr.decode()
    return out / "debug" / "rust-client"


def curl(running: Running, *arguments: str | Path, stdin: bytes = b"") -> bytes:
    """Run curl through the proxy, with no settings but these, and return what it prints. It speaks HTTP/1.1 unless it is told otherwise."""
    needed("curl")
    proxied = ("--http1.1", "--proxy", running.url, "--cacert", running.ca_path)
    done = run("curl", "-q", "-sS", "--max-time", "25", *proxied, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def body_pieces() -> Iterator[bytes]:
    """Yield BODY in pieces, for clients that do not know its length."""
    for start in range(0, len(BODY), 30_000):
        yield BODY[start : start + 30_000]


def agree(running: Running, origin: Origin, method: str, body: bytes) -> None:
    """Check that the last request was the same for the handler and for the origin."""
    seen, received = running.handler.requests[-1], origin.requests[-1]
    assert (seen.method, seen.path, seen.body) == (method, received.target, body)
    assert (received.method, bytes(received.body)) == (method, body)
    kept = [(name, value) for name, value in received.headers if name.lower() not in ("connection", "transfer-encoding")]
    assert all(value in seen.headers.get_all(name) for name, value in kept)
    assert seen.scheme == "https"
    assert seen.authority == f"localhost:{origin.port}"
    assert seen.connection_meta.tls_info.sni == "localhost"
