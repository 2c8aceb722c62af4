"""Calling the handler: which methods it has, their deadlines, and what is logged when they fail.

The methods of a connection's life are called here; those of each request are handed to the data plane.
"""

import asyncio
import inspect
import logging
from typing import Any
from uuid import UUID

from soth_mitm._dataplane.deadline import DeadlineQueue
from soth_mitm._dataplane.hooks import Hook, HookCounts, Hooks
from soth_mitm.config import MitmConfig
from soth_mitm.connection import ConnectionMeta, ProcessInfo
from soth_mitm.errors import TlsFailedError
from soth_mitm.handler import overridden_hooks
from soth_mitm.proxy import tasks

log = logging.getLogger("soth_mitm.handler")


class HandlerFailed(Exception):
    """A hook raised or was late, and `handler.recover_from_panics` is off: the connection is to be cut."""


class HandlerCalls:
    """One handler on one loop, under one configuration."""

    def __init__(self, handler: object, config: MitmConfig, loop: asyncio.AbstractEventLoop, counts: HookCounts, logged: set[str]) -> None:
        self._handler = handler
        self._overridden = overridden_hooks(handler)
        self.hears_of_connections = "on_connection_open" in self._overridden
        self.hears_of_ends = "on_connection_close" in self._overridden
        self.is_asked_to_intercept = "should_intercept_tls" in self._overridden
        self._counts = counts
        self._logged = logged
        self._recover = config.handler.recover_from_panics
        self.block_on_failure = config.handler.failure_policy == "block"
        self._request_seconds = config.handler.request_timeout_ms / 1000
        self._response_seconds = config.handler.response_timeout_ms / 1000
        request = DeadlineQueue(loop.call_later, self._request_seconds)
        response = DeadlineQueue(loop.call_later, self._response_seconds)
        self.deadlines = (request, response)
        self.hooks = Hooks(
            loop,
            tasks,
            self._report,
            counts,
            on_request=self._hook("on_request", request),
            on_response=self._hook("on_response", response),
            on_stream_chunk=self._hook("on_stream_chunk", response),
            on_stream_end=self._hook("on_stream_end", response),
            recover=self._recover,
            block_on_failure=self.block_on_failure,
        )

    def _hook(self, name: str, deadline: DeadlineQueue) -> Hook | None:
        return Hook(getattr(self._handler, name), name, deadline) if name in self._overridden else None

    def _report(self, name: str, error: BaseException) -> None:
        key = f"{name}:{type(error).__name__}"
        if key in self._logged and self._recover:
            log.debug("%s.%s failed again: %r", type(self._handler).__name__, name, error)
            return
        self._logged.add(key)
        traceback = None if isinstance(error, TimeoutError) else error
        log.warning(
            "%s.%s failed: %r (further ones of this kind are counted only)", type(self._handler).__name__, name, error, exc_info=traceback
        )

    async def opened(self, meta: ConnectionMeta) -> None:
        """A client connected."""
        await self._call("on_connection_open", self._response_seconds, None, meta)

    async def closed(self, connection_id: UUID) -> None:
        """A connection is over, and every other hook of it has returned."""
        await self._call("on_connection_close", self._response_seconds, None, connection_id)

    async def tls_failed(self, host: str, error: TlsFailedError) -> None:
        """A handshake failed."""
        await self._call("on_tls_failure", self._request_seconds, None, host, error)

    async def should_intercept(self, host: str, process_info: ProcessInfo | None) -> bool | None:
        """Ask whether to intercept; None when the handler failed, for `handler.failure_policy` to decide."""
        answer = await self._call("should_intercept_tls", self._request_seconds, None, host, process_info)
        return None if answer is None else bool(answer)

    async def _call(self, name: str, seconds: float, otherwise: Any, *arguments: object) -> Any:
        if name not in self._overridden:
            return otherwise
        self._counts.calls += 1
        began = asyncio.get_running_loop().time()
        try:
            answer = getattr(self._handler, name)(*arguments)
            if inspect.isawaitable(answer):
                return await asyncio.wait_for(answer, seconds)
            if asyncio.get_running_loop().time() - began > seconds:
                self._counts.timeouts += 1
                self._report(name, TimeoutError(f"took longer than {seconds:g} s"))
            return answer
        except TimeoutError as error:
            self._counts.timeouts += 1
            self._report(name, error)
        except Exception as error:
            # user code: whatever it raises is counted, logged with its traceback, and answered by the policy
            self._counts.failures += 1
            self._report(name, error)
            if not self._recover:
                raise HandlerFailed(name) from error
        return otherwise
