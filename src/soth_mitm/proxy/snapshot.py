"""One configuration as connections use it: those that began under it keep it, whatever is reloaded."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Executor

from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import HookCounts
from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.wire.decode import decode_body
from soth_mitm._dataplane.wire.streams import STREAMS
from soth_mitm.config import MitmConfig
from soth_mitm.config.sections import parse_stream_type
from soth_mitm.decision import HandlerDecision, meant_to_block
from soth_mitm.escaping import get_logger
from soth_mitm.observe.observation import Observation
from soth_mitm.policy import Policy
from soth_mitm.proxy.calls import HandlerCalls, HandlerReports
from soth_mitm.proxy.deadlines import Deadlines
from soth_mitm.proxy.tasks import leave_behind

log = get_logger("soth_mitm.proxy")

# How long the last bytes of a connection that ends may take to arrive.
LINGER_SECONDS = 5.0
# How long a tunnel or an upgraded connection may be silent while the proxy drains.
QUIET_SECONDS = 1.0
# How often it is looked whether the system has sent what a connection had to be sent before it is reset.
SETTLING_MILLISECONDS = 20
# How long a hook that was cancelled at the proxy's end may take to return.
HOOK_END_SECONDS = 1.0
# How long idle upstream connections beyond connection_pool.max_idle_per_host are kept for the next wave of requests.
SURPLUS_MILLISECONDS = 1000


def stream_types(entries: list[str]) -> dict[bytes, int] | None:
    """Return `streams.types` as the data plane asks it."""
    pairs = [parse_stream_type(entry) for entry in entries]
    return {media_type.encode(): STREAMS[framer] for media_type, framer in pairs} or None


def queue_capacity(config: MitmConfig) -> int:
    """Return how many stream chunks of a flow, and flows of a connection, may wait for the handler."""
    flow_runtime = config.flow_runtime
    connections = config.connection_pool.max_connections_per_host * len(config.interception.destinations)
    return flow_runtime.dispatch_queue_capacity or max(128, min(connections, 1024))


def queue_wait_ms(config: MitmConfig) -> int:
    """Return how long a full queue pauses its flow before chunks are dropped."""
    flow_runtime = config.flow_runtime
    return flow_runtime.dispatch_queue_send_timeout_ms or config.handler.response_timeout_ms


class Snapshot:
    """A validated configuration, its policy, its handler calls and its data plane, on one loop."""

    def __init__(
        self,
        config: MitmConfig,
        policy: Policy,
        handler: object,
        loop: asyncio.AbstractEventLoop,
        arena: Arena,
        counters: Counters,
        hook_counts: HookCounts,
        reports: HandlerReports,
        observation: Observation | None = None,
        decoding: Executor | None = None,
    ) -> None:
        """`decoding` is where long request bodies are decoded; without it that holds the loop."""
        self.config = config
        self.policy = policy
        self.calls = HandlerCalls(handler, config, loop, hook_counts, reports)
        self._logged = reports.logged
        self.observation = observation
        self.deadlines = Deadlines(loop)
        self.loop = loop
        timeouts = config.timeouts
        arena.allow_buffer(config.max_http_head_bytes)
        self.pool_idle = self.deadlines.after(config.connection_pool.idle_timeout_ms)
        self.client_head = self.deadlines.after(timeouts.client_head_ms)
        self.client_idle = self.deadlines.after(timeouts.client_idle_ms)
        self.client_first_bytes = self.deadlines.after(timeouts.client_first_bytes_ms)
        self.client_tls_handshake = self.deadlines.after(timeouts.client_tls_handshake_ms)
        self.client_end = self.deadlines.after(int(2 * LINGER_SECONDS * 1000))
        self.pool_surplus = self.deadlines.after(min(SURPLUS_MILLISECONDS, config.connection_pool.idle_timeout_ms))
        self.settings = Settings(
            arena,
            self.calls.hooks,
            counters,
            head_limit=config.max_http_head_bytes,
            most_fields=config.max_header_fields,
            body_limit=config.body.max_size_bytes,
            queue_limit=queue_capacity(config),
            enforce=config.intercept_mode == "enforce",
            buffer_requests=config.body.buffer_request_bodies,
            reject_overflow=config.body.overflow == "reject",
            refuse_incomplete=config.body.incomplete == "refuse",
            retry=config.upstream.retry_on_failure,
            decode_apart=None if decoding is None else functools.partial(self._decode_apart, decoding),
            stream_types=stream_types(config.streams.types),
            strip_alt_svc=config.interception.strip_alt_svc,
            decision_type=HandlerDecision,
            allow=HandlerDecision.ALLOW,
            observer=observation,
            meant_to_block=meant_to_block,
            on_ignored_block=self._block_ignored,
            read_ahead=config.connection_pool.read_ahead_bytes,
            unsafe_idle=config.connection_pool.unsafe_reuse_idle_ms / 1000,
            half_closed=self.deadlines.after(timeouts.half_closed_client_ms),
            client_head=self.client_head,
            client_idle=self.client_idle,
            body_idle=self.deadlines.after(timeouts.body_idle_ms),
            body_buffer=self.deadlines.after(config.body.buffer_timeout_ms),
            response_head=self.deadlines.after(config.upstream.timeout_ms),
            # twice the connect deadline and the delay between, because a failed connect is tried again
            claim=self.deadlines.after(
                2 * (config.upstream.connect_timeout_ms + timeouts.upstream_tls_handshake_ms) + config.upstream.retry_delay_ms
            ),
            tunnel_idle=self.deadlines.after(timeouts.tunnel_idle_ms),
            tunnel_quiet=self.deadlines.after(min(timeouts.tunnel_idle_ms, int(QUIET_SECONDS * 1000))),
            linger=self.deadlines.after(int(LINGER_SECONDS * 1000)),
            settling=self.deadlines.after(SETTLING_MILLISECONDS),
            pace=self.deadlines.after(queue_wait_ms(config)),
        )

    def _decode_apart(self, decoding: Executor, arguments: tuple[bytes, bytes, int, bool, bool], done: Callable[[object], object]) -> None:
        def decoded(future: asyncio.Future[tuple[bytes, str | None]]) -> None:
            # what was cancelled or failed here is decoded where it is looked at, and fails there
            done(None if future.cancelled() or future.exception() is not None else future.result())

        self.loop.run_in_executor(decoding, decode_body, *arguments).add_done_callback(decoded)

    def warn_once(self, message: str) -> None:
        """Log a warning that a proxy gives once in its life, however often it is reloaded."""
        if message not in self._logged:
            self._logged.add(message)
            log.warning("%s", message)

    def _block_ignored(self, request: RawRequest) -> None:
        if "block ignored" in self._logged:
            return
        self._logged.add("block ignored")
        log.warning(
            'the handler blocked %s %s, but intercept_mode is monitor, so it was forwarded; set intercept_mode = "enforce" to apply '
            "blocks (said once, counted in ignored_block_count)",
            request.method,
            request.authority,
        )

    async def close(self) -> None:
        """End what waits in the background: the hooks' carrier and the loop's timers. When no connection is left."""
        hooks = self.calls.hooks.close()
        if hooks:
            _, hanging = await asyncio.wait(hooks, timeout=HOOK_END_SECONDS)
            for task in hanging:
                log.warning(
                    "%s has not returned %g s after it was cancelled: it swallows CancelledError, and the proxy ends without it",
                    hooks[task],
                    HOOK_END_SECONDS,
                )
                leave_behind(task)
        self.deadlines.close()
        for queue in self.calls.deadlines:
            queue.close()
