"""One line per request, stream, tunnel by choice and failed handshake, around the user's handler."""

import inspect
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from rich.text import Text

from soth_mitm._dataplane.messages import RawRequest, RawResponse, StreamChunk
from soth_mitm.connection import ConnectionMeta, ProcessInfo
from soth_mitm.decision import HandlerDecision
from soth_mitm.errors import TlsFailedError
from soth_mitm.handler import InterceptHandler, overridden_hooks

Print = Callable[[Text], None]


@dataclass(slots=True)
class _Flow:
    """A request without an end so far."""

    who: str
    method: str
    url: str
    began: float = field(default_factory=time.monotonic)
    answered: bool = False
    chunks: int = 0
    size: int = 0

    @property
    def took(self) -> str:
        return f"{(time.monotonic() - self.began) * 1000:.0f} ms"


class RequestLines:
    """A handler that prints what happens and otherwise is the handler it is given.

    Hooks that it does not need itself are the user's own methods, or are lacking where the user's handler lacks them.
    """

    def __init__(self, handler: object, show: Print) -> None:
        given = overridden_hooks(handler)
        nothing = InterceptHandler()
        source = {name: handler if name in given else nothing for name in _USED}
        self._show = show
        self._intercept = source["should_intercept_tls"].should_intercept_tls  # type: ignore[attr-defined]
        self._tls_failed = source["on_tls_failure"].on_tls_failure  # type: ignore[attr-defined]
        self._request = source["on_request"].on_request  # type: ignore[attr-defined]
        self._response = source["on_response"].on_response  # type: ignore[attr-defined]
        self._chunk = source["on_stream_chunk"].on_stream_chunk  # type: ignore[attr-defined]
        self._stream_end = source["on_stream_end"].on_stream_end  # type: ignore[attr-defined]
        self._close = source["on_connection_close"].on_connection_close  # type: ignore[attr-defined]
        self._flows: dict[UUID, dict[int, _Flow]] = {}
        if "on_connection_open" in given:
            self.on_connection_open = handler.on_connection_open  # type: ignore[attr-defined]
        self.applies_blocks = True
        """False while `intercept_mode` is monitor: a block is shown, and said not to be applied."""

    async def should_intercept_tls(self, host: str, process_info: ProcessInfo | None) -> bool:
        """Ask the handler, and show a tunnel that it chose."""
        wanted = await _settled(self._intercept(host, process_info))
        if not wanted:
            self._line(_name(process_info), "CONNECT", host, ("tunnel", "cyan"), "by should_intercept_tls")
        return bool(wanted)

    async def on_tls_failure(self, host: str, error: TlsFailedError) -> None:
        """Show the failure, and tell the handler."""
        self._line("", "TLS", host, ("failed", "bold red"), f"{error.side}: {error.reason}: {error.detail}")
        await _settled(self._tls_failed(host, error))

    async def on_request(self, request: RawRequest) -> Any:
        """Ask the handler, and show the request if it is blocked; otherwise its response will be its line."""
        meta: ConnectionMeta = request.connection_meta
        flow = _Flow(_client(meta), request.method, without_query_values(request.url))
        flows = self._flows.setdefault(meta.connection_id, {})
        if request.http_version.startswith("HTTP/1."):
            # one at a time there: what is still open got no answer
            self._unanswered(flows)
        flows[request.flow_id] = flow
        decision = await _settled(self._request(request))
        if isinstance(decision, HandlerDecision) and decision.is_block:
            del flows[request.flow_id]
            note = "BLOCKED" if self.applies_blocks else "would be BLOCKED (monitor)"
            self._line(flow.who, flow.method, flow.url, (f"{note} {decision.status}", "bold red"), _size(len(decision.body)), flow.took)
        return decision

    async def on_response(self, response: RawResponse) -> None:
        """Show the request with its response, and tell the handler."""
        meta: ConnectionMeta = response.connection_meta
        flows = self._flows.get(meta.connection_id, {})
        flow = flows.get(response.flow_id)
        if flow is not None:
            flow.answered = True
            style = "green" if response.status < 300 else "yellow" if response.status < 400 else "red"
            if response.streaming:
                self._line(flow.who, flow.method, flow.url, (f"{response.status} stream", style), flow.took)
            else:
                del flows[response.flow_id]
                size = _size(len(response.raw_body)) + ("+" if response.body_truncated else "")
                self._line(flow.who, flow.method, flow.url, (str(response.status), style), size, flow.took)
        await _settled(self._response(response))

    async def on_stream_chunk(self, chunk: StreamChunk) -> None:
        """Count the chunk, and tell the handler."""
        flow = self._flows.get(chunk.connection_id, {}).get(chunk.flow_id)
        if flow is not None:
            flow.chunks += 1
            flow.size += len(chunk.payload)
        await _settled(self._chunk(chunk))

    async def on_stream_end(self, connection_id: UUID, flow_id: int) -> None:
        """Show how much the stream was, and tell the handler."""
        flow = self._flows.get(connection_id, {}).pop(flow_id, None)
        if flow is not None:
            self._line(flow.who, flow.method, flow.url, ("stream ended", "magenta"), f"{flow.chunks} events", _size(flow.size), flow.took)
        await _settled(self._stream_end(connection_id, flow_id))

    async def on_connection_close(self, connection_id: UUID) -> None:
        """Show what got no answer, and tell the handler."""
        self._unanswered(self._flows.pop(connection_id, {}))
        await _settled(self._close(connection_id))

    def _unanswered(self, flows: dict[int, _Flow]) -> None:
        # a stream's last hooks may still be to come while the next request is there
        for flow_id in [flow_id for flow_id, flow in flows.items() if not flow.answered]:
            flow = flows.pop(flow_id)
            self._line(flow.who, flow.method, flow.url, ("failed", "bold red"), "no whole response from the upstream", flow.took)

    def _line(self, who: str, method: str, url: str, outcome: tuple[str, str], *rest: str) -> None:
        head = (f"{datetime.now():%H:%M:%S} ", "dim"), (f"{who:<16} ", "blue"), (f"{method:<7} ", "bold"), f"{url} "
        self._show(Text.assemble(*head, outcome, (f" {'  '.join(rest)}", "dim")))


_USED = (
    "should_intercept_tls",
    "on_tls_failure",
    "on_request",
    "on_response",
    "on_stream_chunk",
    "on_stream_end",
    "on_connection_close",
)


def without_query_values(url: str) -> str:
    """Return a URL in which the values of the query, where keys and tokens stand, are left out."""
    place, mark, query = url.partition("?")
    return f"{place}{mark}{re.sub(r'=[^&]*', '=…', query)}"


async def _settled(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


def _name(process: ProcessInfo | None) -> str:
    return "" if process is None else process.exe_name or f"pid {process.pid}"


def _client(meta: ConnectionMeta) -> str:
    remote: tuple[str, int] | None = getattr(meta.socket_family, "remote", None)
    return _name(meta.process_info) or (remote[0] if remote else "unix socket")


def _size(count: float) -> str:
    if count < 1024:
        return f"{count} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} GiB"
