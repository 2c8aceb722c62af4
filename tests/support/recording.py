"""A handler that remembers every call, for tests that run a proxy on another thread."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from soth_mitm import ConnectionMeta, HandlerDecision, InterceptHandler, ProcessInfo, RawRequest, RawResponse, StreamChunk
from soth_mitm.errors import TlsFailedError

Decide = Callable[[RawRequest], HandlerDecision | Awaitable[HandlerDecision]]


class Recording(InterceptHandler):
    """Notes each call in `calls` as (name of the method, argument), in order.

    `decide` and `intercept` answer in place of the defaults and may be replaced while the proxy runs.
    """

    def __init__(self, decide: Decide | None = None, intercept: Callable[[str], bool] | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.decide = decide
        self.intercept = intercept
        self._changed = threading.Condition()

    def _note(self, name: str, argument: object) -> None:
        with self._changed:
            self.calls.append((name, argument))
            self._changed.notify_all()

    def of(self, name: str) -> list[Any]:
        """Return the arguments of the calls of one method so far."""
        with self._changed:
            return [argument for called, argument in self.calls if called == name]

    @property
    def names(self) -> list[str]:
        """The methods called so far, in order."""
        with self._changed:
            return [name for name, _ in self.calls]

    def wait(self, name: str, count: int = 1, timeout: float = 10.0) -> list[Any]:
        """Wait until a method was called `count` times; return the arguments of all its calls."""
        with self._changed:
            if not self._changed.wait_for(lambda: sum(called == name for called, _ in self.calls) >= count, timeout):
                raise TimeoutError(f"{name} was not called {count} times within {timeout:g} s; calls: {[name for name, _ in self.calls]}")
            return [argument for called, argument in self.calls if called == name]

    @property
    def requests(self) -> list[RawRequest]:
        """The requests that were asked about."""
        return self.of("on_request")

    def on_connection_open(self, meta: ConnectionMeta) -> None:
        self._note("on_connection_open", meta)

    def should_intercept_tls(self, host: str, process_info: ProcessInfo | None) -> bool:
        self._note("should_intercept_tls", host)
        return True if self.intercept is None else self.intercept(host)

    async def on_tls_failure(self, host: str, error: TlsFailedError) -> None:
        self._note("on_tls_failure", (host, error))

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        self._note("on_request", request)
        if self.decide is None:
            return HandlerDecision.ALLOW
        answer = self.decide(request)
        return await answer if isinstance(answer, Awaitable) else answer

    async def on_response(self, response: RawResponse) -> None:
        self._note("on_response", response)

    async def on_stream_chunk(self, chunk: StreamChunk) -> None:
        self._note("on_stream_chunk", chunk)

    def on_stream_end(self, connection_id: UUID, flow_id: int) -> None:
        self._note("on_stream_end", flow_id)

    async def on_connection_close(self, connection_id: UUID) -> None:
        self._note("on_connection_close", connection_id)


class Observing(Recording):
    """The same without a say about requests: nothing of a connection waits for a decision."""

    on_request = InterceptHandler.on_request  # type: ignore[assignment]

    @property
    def requests(self) -> list[RawRequest]:
        """The requests that were answered."""
        return [response.request for response in self.of("on_response")]
