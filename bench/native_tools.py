"""Build and run the two native ends of a measurement: ``origin`` (HTTPS server) and ``load`` (HTTPS client), each also for HTTP/2."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SOURCES = Path(__file__).parent / "native"
DEFAULT_OUT = Path(__file__).parents[1] / "build" / "bench"


class NativeToolError(RuntimeError):
    """A native tool could not be built, did not start, or ended without an answer; the message carries its own words."""


def missing_for_http2() -> str | None:
    """Say what the ends that speak HTTP/2 lack here, or None."""
    probe = [*shlex.split(os.environ.get("CC", "cc")), "-E", "-include", "nghttp2/nghttp2.h", "-x", "c", "/dev/null"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "the native ends need libnghttp2 for HTTP/2 (Debian: apt-get install libnghttp2-dev)"
    return None


def build(out: Path = DEFAULT_OUT, *, http2: bool = False) -> Path:
    """Compile what is older than its source into ``out``, with ``http2`` also the ends for it, and return that directory."""
    for tool in ("make", shlex.split(os.environ.get("CC", "cc"))[0]):
        if shutil.which(tool) is None:
            wanted = "a C compiler, make and the OpenSSL headers (Debian: build-essential libssl-dev)"
            raise NativeToolError(f"{tool} is missing; install {wanted}")
    missing = missing_for_http2() if http2 else None
    if missing:
        raise NativeToolError(missing)
    command = ["make", "-C", str(SOURCES), f"OUT={out.resolve()}", "http1", *(["http2"] if http2 else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NativeToolError(f"building the native tools failed (are the OpenSSL headers there? Debian: libssl-dev)\n{done.stderr}")
    return out


class Origin:
    """The running origin; a context manager that ends it."""

    def __init__(self, tools: Path, chain: Path, key: Path, prefix: Sequence[str] = (), *, http2: bool = False) -> None:
        command = [*prefix, str(tools / ("origin-http2" if http2 else "origin")), str(chain), str(key)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout is not None
        words = dict(word.split("=") for word in self._process.stdout.readline().split())
        if "tls" not in words:
            raise NativeToolError(f"origin did not start (exit status {self._process.wait()}): {' '.join(command)}")
        self.pid = self._process.pid
        self.tls_port = int(words["tls"])
        self.plain_port = int(words["plain"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def run_load(
    tools: Path,
    arguments: Sequence[str],
    *,
    prefix: Sequence[str] = (),
    on_warm: Callable[[], None] = lambda: None,
    on_measured: Callable[[], None] = lambda: None,
    watchdog: int = 120,
    http2: bool = False,
) -> dict[str, Any]:
    """Run one load and return its JSON object; ``error_text`` holds what it said on stderr.

    ``on_warm`` runs between warm-up and measurement, ``on_measured`` right after the last response: no request is in flight in either,
    and keep-alive connections are still open. The whole run is ended after ``watchdog`` seconds.
    """
    command = [*prefix, str(tools / ("load-http2" if http2 else "load")), "--gate", "--watchdog", str(watchdog), *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        if line == "warm\n":
            on_warm()
            process.stdin.write("go\n")
            process.stdin.flush()
            line = process.stdout.readline()
            on_measured()
        process.stdin.close()
        error_text = process.stderr.read()
        status = process.wait()
    if not line.startswith("{"):
        raise NativeToolError(f"load ended with status {status} and no result: {' '.join(command)}\n{error_text}")
    outcome: dict[str, Any] = json.loads(line)
    outcome["error_text"] = error_text
    return outcome
