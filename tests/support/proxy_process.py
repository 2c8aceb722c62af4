"""A proxy in a process of its own, so that its memory is its own: start it, ask for its metrics, read what it holds resident.

    with ProxyProcess(config) as proxy:
        proxy.metrics()["buffered_bytes"], proxy.resident()

The process ends when its standard input does, whatever becomes of the test.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from soth_mitm import HandlerDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, RawRequest, RawResponse


class LookingHandler(InterceptHandler):
    """Has bodies collected and copied, and keeps none of them."""

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        return HandlerDecision.ALLOW

    async def on_response(self, response: RawResponse) -> None:
        return None


HANDLERS: dict[str, type[InterceptHandler]] = {"none": InterceptHandler, "looking": LookingHandler}


class ProxyProcess:
    """A running proxy; a context manager that shuts it down in order."""

    def __init__(self, config: MitmConfig, handler: str = "none") -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, handler], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._send(config.to_mapping())
        self.port = int(self._receive()["port"])
        self._ca_path = config.tls.ca_cert_path
        self.pid = self._process.pid

    def _send(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the proxy ended with status {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def metrics(self) -> dict[str, Any]:
        """Return the proxy's counters now."""
        self._send("metrics")
        return self._receive()

    def reload(self, config: MitmConfig) -> None:
        """Apply another configuration."""
        self._send(config.to_mapping())
        self._receive()

    def resident(self) -> int:
        """Return the bytes that the process holds resident now."""
        return self._status("VmRSS")

    def resident_peak(self) -> int:
        """Return the most that it ever held, or held since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Let `resident_peak` count from now on."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))

    def client_context(self) -> ssl.SSLContext:
        """Return a context that trusts the proxy's CA and nothing else."""
        return ssl.create_default_context(cafile=str(self._ca_path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        status = self._process.wait()
        self._process.stdout.close()
        assert kind is not None or status == 0, f"the proxy ended with status {status}"


def main(handler: str) -> None:
    """Serve by the configuration on standard input; a further one is a reload, a string asks for the metrics."""
    config = MitmConfig.from_mapping(_mapping(sys.stdin.readline()))
    handle = MitmProxyBuilder(config, HANDLERS[handler]()).build().start_in_thread()
    answer: dict[str, Any] = {"port": handle.port}
    while True:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            break
        if line.startswith("{"):
            handle.reload(MitmConfig.from_mapping(_mapping(line)))
        answer = handle.metrics().as_dict()
    handle.shutdown(10)


def _mapping(line: str) -> dict[str, Any]:
    def without_none(value: Any) -> Any:
        return {key: without_none(inner) for key, inner in value.items() if inner is not None} if isinstance(value, dict) else value

    mapping: dict[str, Any] = without_none(json.loads(line))
    return mapping


if __name__ == "__main__":
    main(sys.argv[1])
