"""Calling the handler: which methods it has, their deadlines, and what is logged when they fail.

The methods of a connection's life are called here; those of each request are handed to the data plane.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID

from soth_mitm._dataplane.http.hooks import Asked, Hook, HookCounters, Hooks
from soth_mitm._dataplane.http.messages import FrameKind, RawRequest
from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm.config import MitmConfig
from soth_mitm.connect_decision import ConnectDecision, ConnectTarget
from soth_mitm.connection import ConnectionMeta, ProcessInfo
from soth_mitm.decision import HandlerDecision, meant_to_block
from soth_mitm.errors import TlsFailedError
from soth_mitm.escaping import get_logger
from soth_mitm.handler import filter_kinds, overridden_hooks
from soth_mitm.proxy import tasks
from soth_mitm.proxy.deadlines import Deadlines

log = get_logger("soth_mitm.handler")
proxy_log = get_logger("soth_mitm.proxy")

# How often one hook is named that holds the loop.
SLOW_WARNING_SECONDS = 60.0
# How long a hook that was cancelled at the proxy's end may take to return.
HOOK_END_SECONDS = 1.0
# Failures that are logged apart; further ones are told apart by hook and type only.
MOST_KINDS = 64
TAKE_TWO = frozenset(("should_intercept_tls", "on_tls_failure", "on_stream_end"))
# What is relayed does not wait for the handler there.
NOT_IN_MONITOR_MODE = ("on_response_head", "on_response_body")
NOT_TOLD_TO_CONNECT = ConnectDecision.block(
    "on_connect of the policy handler failed and handler.failure_policy is block, or it answered neither a ConnectDecision nor None"
)


class HandlerFailed(Exception):
    """A hook raised or was late, and `handler.recover_from_panics` is off: the connection is to be cut."""


def _kind_of(name: str, error: BaseException) -> str:
    """Return what failures of a hook have in common that come from the same lines of code."""
    lines: list[str] = []
    trace = error.__traceback__
    while trace is not None and len(lines) < 50:
        lines.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{name}:{type(error).__name__}:{hash(tuple(lines))}"


class HandlerReports:
    """What is said of a proxy's handler, whatever is reloaded. `on_fatal` is told of an exception that is no `Exception`."""

    def __init__(self, on_fatal: Callable[[BaseException], None]) -> None:
        self._logged: set[str] = set()
        self._slow: dict[str, float] = {}
        self._on_fatal = on_fatal

    def failed(self, name: str, error: BaseException, *, always: bool) -> None:
        """A hook, named with its handler's class, failed. Of each kind one is logged, unless `always`."""
        if not isinstance(error, Exception | asyncio.CancelledError):
            self._on_fatal(error)
        key = _kind_of(name, error)
        if len(self._logged) >= MOST_KINDS:
            key = f"{name}:{type(error).__name__}"
        if key in self._logged and not always:
            log.debug("%s failed again: %r", name, error)
            return
        self._logged.add(key)
        traceback = None if isinstance(error, TimeoutError) else error
        log.warning("%s failed: %r (further ones of this kind are counted only)", name, error, exc_info=traceback)

    def slow(self, name: str, seconds: float, now: float) -> None:
        """A hook held the loop at the loop's time `now`."""
        if now - self._slow.get(name, -SLOW_WARNING_SECONDS) < SLOW_WARNING_SECONDS:
            return
        self._slow[name] = now
        log.warning(
            "%s held the event loop for %.0f ms, and every connection with it: let it await what takes long, or use asyncio.to_thread "
            "(handler.slow_ms; said once a minute)",
            name,
            seconds * 1000,
        )

    def decision_ignored(self, request: RawRequest, decision: HandlerDecision) -> None:
        """A decision was not applied, because of monitor mode."""
        key = f"ignored {decision.kind}"
        if key in self._logged:
            return
        self._logged.add(key)
        proxy_log.warning(
            "the handler wanted to %s %s %s, but intercept_mode is monitor, so it was forwarded as it came; set intercept_mode = "
            '"enforce" to apply decisions (said once, counted in %s)',
            decision.kind,
            request.method,
            request.authority,
            "ignored_block_count" if decision.is_block else "ignored_decision_count",
        )


class HandlerCalls:
    """One handler on one loop, under one configuration."""

    def __init__(
        self,
        handler: object,
        config: MitmConfig,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        counts: HookCounters,
        reports: HandlerReports,
    ) -> None:
        self._handler = handler
        self._loop = loop
        self._overridden = overridden_hooks(handler)
        self.hears_of_connections = "on_connection_open" in self._overridden
        self.hears_of_ends = "on_connection_close" in self._overridden
        self.is_asked_to_connect = "on_connect" in self._overridden
        self.is_asked_to_intercept = "should_intercept_tls" in self._overridden
        self._reports = reports
        self._recover = config.handler.recover_from_panics
        self._enforces = config.intercept_mode == "enforce"
        self.block_on_failure = config.handler.failure_policy == "block" and self._enforces
        request = deadlines.after(config.handler.request_timeout_ms)
        response = deadlines.after(config.handler.response_timeout_ms)
        connect = deadlines.after(config.handler.connect_timeout_ms)
        not_called = [name for name in NOT_IN_MONITOR_MODE if name in self._overridden]
        if not_called and not self._enforces:
            proxy_log.warning(
                "intercept_mode is monitor: %s %s not called, and responses pass as they came; set intercept_mode = "
                '"enforce" to decide about them',
                " and ".join(not_called),
                "is" if len(not_called) == 1 else "are",
            )
        self._on_connection_open = self._hook("on_connection_open", response)
        self._on_connection_close = self._hook("on_connection_close", response)
        self._on_tls_failure = self._hook("on_tls_failure", request)
        self._should_intercept_tls = self._hook("should_intercept_tls", request)
        self.hooks = Hooks(
            loop,
            tasks,
            self._report,
            self._report_slow,
            counts,
            on_connect=self._hook("on_connect", connect),
            on_request=self._hook("on_request", request),
            on_response_head=self._hook("on_response_head", response) if self._enforces else None,
            on_response_body=self._hook("on_response_body", response) if self._enforces else None,
            on_response=self._hook("on_response", response),
            filter_stream_chunk=self._hook("filter_stream_chunk", response),
            filtered=sum(1 << place for place, kind in enumerate(FrameKind) if kind in filter_kinds(handler)),
            on_stream_chunk=self._hook("on_stream_chunk", response),
            on_stream_end=self._hook("on_stream_end", response),
            slow_seconds=config.handler.slow_ms / 1000,
            recover=self._recover,
            block_on_failure=self.block_on_failure,
        )

    def _hook(self, name: str, deadline: DeadlineQueue) -> Hook | None:
        if name not in self._overridden:
            return None
        return Hook(getattr(self._handler, name), name, deadline, name in TAKE_TWO)

    def _report(self, name: str, error: BaseException) -> None:
        # what is only a warning ends no flow
        always = not self._recover and not isinstance(error, Warning)
        self._reports.failed(f"{type(self._handler).__name__}.{name}", error, always=always)

    def _report_slow(self, name: str, seconds: float) -> None:
        self._reports.slow(f"{type(self._handler).__name__}.{name}", seconds, self._loop.time())

    async def opened(self, meta: ConnectionMeta) -> None:
        """A client connected."""
        await self._call(self._on_connection_open, meta)

    async def closed(self, connection_id: UUID) -> None:
        """A connection is over, and every other hook of it has returned."""
        await self._call(self._on_connection_close, connection_id)

    async def tls_failed(self, host: str, error: TlsFailedError) -> None:
        """A handshake failed."""
        await self._call(self._on_tls_failure, host, error)

    def ask_to_connect(self, target: ConnectTarget) -> Asked:
        """Call `on_connect`, which is overridden; `connect_answer` says what comes of it."""
        assert self.hooks.on_connect is not None
        return Asked(self.hooks, self.hooks.on_connect, target)

    def connect_answer(self, answer: object, error: BaseException | None) -> ConnectDecision | None:
        """Return what is to be done after `on_connect` returned `answer` or failed; None leaves it to the policy."""
        hook = self.hooks.on_connect
        assert hook is not None
        if error is not None:
            if self.hooks.ends_flow(error):
                raise HandlerFailed(hook.name) from error
            return NOT_TOLD_TO_CONNECT if self.block_on_failure or meant_to_block(error) else None
        if answer is None or type(answer) is ConnectDecision:
            return answer
        if self.hooks.mistook(hook, "a ConnectDecision or None", answer):
            raise HandlerFailed(hook.name)
        # whatever failure_policy says: an answer without a meaning opens nothing
        return NOT_TOLD_TO_CONNECT if self._enforces else None

    async def should_intercept(self, host: str, process_info: ProcessInfo | None) -> bool | None:
        """Ask whether to intercept; None when the handler failed, and nothing is to go on for that reason."""
        hook = self._should_intercept_tls
        if hook is None:
            return True
        asked = await self._call(hook, host, process_info)
        if asked is None:
            return None if self.block_on_failure else False
        if not isinstance(asked.result, bool):
            if self.hooks.mistook(hook, "True to intercept or False to tunnel", asked.result):
                raise HandlerFailed(hook.name)
            # whatever failure_policy says: an answer without a meaning opens no tunnel
            return None if self._enforces else False
        return asked.result

    async def _call(self, hook: Hook | None, first: object, second: object = None) -> Asked | None:
        """Call a hook and wait until it has returned or is late; None if it is not overridden or failed."""
        if hook is None:
            return None
        asked = Asked(self.hooks, hook, first, second)
        if asked.future is not None:
            try:
                await asked.future
            finally:
                asked.abandon()
        if asked.error is None:
            return asked
        if self.hooks.ends_flow(asked.error):
            raise HandlerFailed(hook.name) from asked.error
        return None

    async def close(self) -> None:
        """Cancel the hooks that have not returned, and wait for them for a bounded time. When no connection is left."""
        hooks = self.hooks.close()
        if not hooks:
            return
        _, hanging = await asyncio.wait(hooks, timeout=HOOK_END_SECONDS)
        for task in hanging:
            proxy_log.warning(
                "%s has not returned %g s after it was cancelled: it swallows CancelledError, and the proxy ends without it",
                hooks[task],
                HOOK_END_SECONDS,
            )
            tasks.leave_behind(task)
