"""What the data plane is told of a configuration."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import Hooks
from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.wire.decode import decode_body
from soth_mitm._dataplane.wire.streams import STREAMS
from soth_mitm.config import MitmConfig
from soth_mitm.config.sections import parse_stream_type
from soth_mitm.decision import HandlerDecision, meant_to_block
from soth_mitm.observe.observation import Observation
from soth_mitm.proxy.calls import HandlerReports
from soth_mitm.proxy.deadlines import Deadlines

# How long the last bytes of a connection that ends may take to arrive.
LINGER_SECONDS = 5.0
# How long a tunnel or an upgraded connection may be silent while the proxy drains.
QUIET_SECONDS = 1.0
# How often it is looked whether the system has sent what a connection had to be sent before it is reset.
SETTLING_MILLISECONDS = 20


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


def client_end_ms() -> int:
    """Return how long a client connection may take to end after everything was said."""
    return int(2 * LINGER_SECONDS * 1000)


def make_settings(
    config: MitmConfig,
    arena: Arena,
    counters: Counters,
    hooks: Hooks,
    deadlines: Deadlines,
    reports: HandlerReports,
    observation: Observation | None = None,
    decoding: Executor | None = None,
) -> Settings:
    """Return `config` as the data plane uses it.

    `decoding` is where long request bodies are decoded; without it that holds the loop.
    """
    timeouts = config.timeouts
    arena.allow_buffer(config.max_http_head_bytes)
    return Settings(
        arena,
        hooks,
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
        decode_apart=None if decoding is None else _decode_in(decoding, hooks.loop),
        stream_types=stream_types(config.streams.types),
        strip_alt_svc=config.interception.strip_alt_svc,
        decision_type=HandlerDecision,
        allow=HandlerDecision.ALLOW,
        observer=observation,
        meant_to_block=meant_to_block,
        on_ignored_block=reports.block_ignored,
        read_ahead=config.connection_pool.read_ahead_bytes,
        unsafe_idle=config.connection_pool.unsafe_reuse_idle_ms / 1000,
        half_closed=deadlines.after(timeouts.half_closed_client_ms),
        client_head=deadlines.after(timeouts.client_head_ms),
        client_idle=deadlines.after(timeouts.client_idle_ms),
        body_idle=deadlines.after(timeouts.body_idle_ms),
        body_buffer=deadlines.after(config.body.buffer_timeout_ms),
        response_head=deadlines.after(config.upstream.timeout_ms),
        # twice the connect deadline and the delay between, because a failed connect is tried again
        claim=deadlines.after(
            2 * (config.upstream.connect_timeout_ms + timeouts.upstream_tls_handshake_ms) + config.upstream.retry_delay_ms
        ),
        tunnel_idle=deadlines.after(timeouts.tunnel_idle_ms),
        tunnel_quiet=deadlines.after(min(timeouts.tunnel_idle_ms, int(QUIET_SECONDS * 1000))),
        linger=deadlines.after(int(LINGER_SECONDS * 1000)),
        settling=deadlines.after(SETTLING_MILLISECONDS),
        pace=deadlines.after(queue_wait_ms(config)),
    )


def _decode_in(decoding: Executor, loop: asyncio.AbstractEventLoop) -> Callable[..., None]:
    """Return a function that has a body decoded in `decoding` and calls back on `loop`."""

    def decode(arguments: tuple[bytes, bytes, int, bool, bool], done: Callable[[object], object]) -> None:
        def decoded(future: asyncio.Future[tuple[bytes, str | None]]) -> None:
            # what was cancelled or failed here is decoded where it is looked at, and fails there
            done(None if future.cancelled() or future.exception() is not None else future.result())

        loop.run_in_executor(decoding, decode_body, *arguments).add_done_callback(decoded)

    return decode
