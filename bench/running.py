"""Start a measured proxy, wait until it serves, and end it again: by its own id, never by name."""

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from bench.opponents import Launch
from bench.process_cpu import ProcessTree

START_DEADLINE = 30.0
STOP_DEADLINE = 10.0


class ProxyStartError(RuntimeError):
    """A proxy ended, or did not serve in time; the message ends with what it said."""


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RunningProxy:
    """A proxy process; a context manager that ends it together with its children. Its output goes to ``proxy.log`` in its directory."""

    def __init__(self, name: str, launch: Launch, port: int, directory: Path, prefix: list[str]) -> None:
        self.name = name
        self.launch = launch
        self.address = f"127.0.0.1:{port}"
        self._port = port
        self._log = directory / "proxy.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*prefix, *launch.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **launch.environment},
                cwd=directory,
                start_new_session=True,
            )
        try:
            self._wait_until_serving()
        except BaseException:
            self.stop()
            raise
        self.tree = ProcessTree(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def said(self) -> str:
        """Return the end of what the proxy wrote so far."""
        return self._log.read_text(errors="replace")[-2000:]

    def _wait_until_serving(self) -> None:
        # Another program's readiness has no event to wait for: its port is asked every 20 ms.
        deadline = time.monotonic() + START_DEADLINE
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ProxyStartError(f"{self.name} ended with status {self._process.returncode}: {self.said()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                if self.launch.trusted_ca.exists():
                    return
            time.sleep(0.02)
        raise ProxyStartError(f"{self.name} did not serve {self.address} within {START_DEADLINE:.0f} s: {self.said()}")

    def stop(self) -> None:
        """End the process and whatever children it leaves."""
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in psutil.wait_procs(children, timeout=2)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
