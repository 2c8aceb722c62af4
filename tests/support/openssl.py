"""`openssl s_client` and `s_server`, with their commands on standard input: K and k update keys, R and r renegotiate."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_TIMEOUT = 10.0


class OpenSsl:
    """One running `openssl`; what it prints, errors included, is collected."""

    def __init__(self, *arguments: object) -> None:
        if shutil.which("openssl") is None or shutil.which("stdbuf") is None:
            pytest.skip("openssl or stdbuf is not installed")
        # what it prints when it has obeyed a command it would otherwise keep to itself
        self._process = subprocess.Popen(
            ["stdbuf", "-o0", "openssl", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self._output = b""
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @classmethod
    def client(cls, proxy_port: int, port: int, root: Path, *arguments: object) -> Self:
        """A client of `localhost:port` through the proxy; returns when its handshake is done."""
        started = cls(
            "s_client", "-proxy", f"127.0.0.1:{proxy_port}", "-connect", f"localhost:{port}", "-servername", "localhost",
            "-CAfile", root, "-verify_return_error", "-no_ign_eof", *arguments,
        )  # fmt: skip
        started.expect(b"Verify return code: 0 (ok)")
        return started

    @classmethod
    def server(cls, cert: Path, key: Path, *arguments: object) -> tuple[Self, int]:
        """A server with a certificate, for one connection, and its port."""
        started = cls("s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-cert", cert, "-key", key, *arguments)
        line = started.expect(b"ACCEPT 127.0.0.1:", b"\n")
        return started, int(line.rpartition(b":")[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def say(self, data: bytes) -> None:
        """Write to its standard input; a command must come alone."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    def expect(self, first: bytes, then: bytes = b"") -> bytes:
        """Wait until it has printed `first` and after it `then`; return what it has printed up to there and forget that."""

        def found() -> int:
            start = self._output.find(first)
            end = self._output.find(then, start + len(first)) if start >= 0 else -1
            return end + len(then) if end >= 0 else 0

        with self._changed:
            if not self._changed.wait_for(lambda: found() or self._ended, _TIMEOUT) or not found():
                raise AssertionError(f"openssl did not print {first!r}, then {then!r}, but: {self._output!r}")
            end = found()
            taken, self._output = self._output[:end], self._output[end:]
            return taken

    def wait(self) -> tuple[int, bytes]:
        """Wait until it has ended; return its status and what else it has printed."""
        status = self._process.wait(_TIMEOUT)
        self._reader.join()
        return status, self._output

    def _read(self) -> None:
        assert self._process.stdout is not None
        while data := self._process.stdout.read(65536):
            with self._changed:
                self._output += data
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
