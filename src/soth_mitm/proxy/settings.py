"""What the data plane is told of a configuration."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from soth_mitm._dataplane.exchange.open_websockets import OpenWebSockets
from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import Hooks
from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.http2.limits import Http2Limits
from soth_mitm._dataplane.http2.session import HeadMemory
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.wire.decode import decode_body
from soth_mitm._dataplane.wire.streams import STREAMS
from soth_mitm.chunk_decision import ChunkDecision
from soth_mitm.config import MitmConfig
from soth_mitm.config.sections import parse_stream_type
from soth_mitm.decision import HandlerDecision, meant_to_block
from soth_mitm.observe.observation import Observation
from soth_mitm.observe.recording import ProxyRecording
from soth_mitm.proxy.calls import HandlerReports
from soth_mitm.proxy.deadlines import Deadlines
from soth_mitm.response_decision import ResponseDecision

# How long the last bytes of a connection that ends may take to arrive.
LINGER_SECONDS = 5.0
# How long a tunnel or an upgraded connection may be silent while the proxy drains.
QUIET_SECONDS = 1.0
# How long an HTTP/2 client may take to answer the PING that goes with the first GOAWAY of a drain.
GOAWAY_SECONDS = 1.0
# How often it is looked whether the system has sent what a connection had to be sent before it is reset.
SETTLING_MILLISECONDS = 20
# How often HTTP/2 streams that do not move are looked for, as a part of the time that they have.
STALL_LOOKS = 4


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


def http2_limits(config: MitmConfig, max_streams: int, head_ms: int) -> Http2Limits:
    """Return what an HTTP/2 peer may cost that may have `max_streams`, and `head_ms` for one header block."""
    http2 = config.http2
    return Http2Limits(
        max_streams=max_streams,
        list_size=config.http2_max_header_list_size,
        initial_window=http2.initial_window_bytes,
        max_window=http2.max_window_bytes,
        reset_burst=http2.reset_burst,
        resets_per_second=http2.resets_per_second,
        glitch_burst=http2.glitch_burst,
        glitches_per_second=http2.glitches_per_second,
        max_queued_replies=http2.max_queued_replies,
        head_seconds=head_ms / 1000,
        stall_seconds=http2.stall_timeout_ms / 1000,
    )


def make_settings(
    config: MitmConfig,
    arena: Arena,
    counters: Counters,
    hooks: Hooks,
    deadlines: Deadlines,
    reports: HandlerReports,
    observation: Observation | None = None,
    recording: ProxyRecording | None = None,
    decoding: Executor | None = None,
    websockets: OpenWebSockets | None = None,
) -> Settings:
    """Return `config` as the data plane uses it.

    `decoding` is where long request bodies are decoded; without it that holds the loop.
    """
    timeouts, http2 = config.timeouts, config.http2
    arena.allow_buffer(config.max_http_head_bytes)
    settings = Settings(
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
        # of the generation, which has the pools
        on_redirect=None,
        stream_types=stream_types(config.streams.types),
        strip_alt_svc=config.interception.strip_alt_svc,
        decision_type=HandlerDecision,
        allow=HandlerDecision.ALLOW,
        response_decision_type=ResponseDecision,
        response_pass=ResponseDecision.PASS,
        chunk_decision_type=ChunkDecision,
        chunk_pass=ChunkDecision.PASS,
        observer=observation,
        meant_to_block=meant_to_block,
        on_ignored_decision=reports.decision_ignored,
        read_ahead=config.connection_pool.read_ahead_bytes,
        unsafe_idle=config.connection_pool.unsafe_reuse_idle_ms / 1000,
        half_closed=deadlines.after(timeouts.half_closed_client_ms),
        client_head=deadlines.after(timeouts.client_head_ms),
        client_idle=deadlines.after(timeouts.client_idle_ms),
        body_idle=deadlines.after(timeouts.body_idle_ms),
        body_buffer=deadlines.after(config.body.buffer_timeout_ms),
        response_head=deadlines.after(config.upstream.timeout_ms),
        own_body_close=deadlines.after(config.handler.response_timeout_ms),
        # twice the connect deadline and the delay between, because a failed connect is tried again
        claim=deadlines.after(
            2 * (config.upstream.connect_timeout_ms + timeouts.upstream_tls_handshake_ms) + config.upstream.retry_delay_ms
        ),
        tunnel_idle=deadlines.after(timeouts.tunnel_idle_ms),
        tunnel_quiet=deadlines.after(min(timeouts.tunnel_idle_ms, int(QUIET_SECONDS * 1000))),
        linger=deadlines.after(int(LINGER_SECONDS * 1000)),
        settling=deadlines.after(SETTLING_MILLISECONDS),
        pace=deadlines.after(queue_wait_ms(config)),
        websocket_recompresses=config.websocket.recompress,
        websocket_closes=config.websocket.on_violation == "close",
        websocket_close=deadlines.after(config.websocket.close_timeout_ms),
        websocket_idle=deadlines.after(config.websocket.idle_timeout_ms or timeouts.tunnel_idle_ms),
        websockets=OpenWebSockets() if websockets is None else websockets,
        http2_memory=HeadMemory(),
        client_http2=http2_limits(config, config.http2_max_concurrent_streams, timeouts.client_head_ms),
        upstream_http2=http2_limits(config, http2.max_streams_per_upstream, config.upstream.h2_header_stage_timeout_ms),
        http2_strict_overflow=config.upstream.h2_response_overflow_mode == "strict_fail",
        http2_settings=deadlines.after(http2.settings_timeout_ms),
        http2_ping=deadlines.after(http2.ping_timeout_ms),
        http2_drain=deadlines.after(int(GOAWAY_SECONDS * 1000)),
        http2_stall=deadlines.after(max(1, http2.stall_timeout_ms // STALL_LOOKS)),
        http2_keepalive=deadlines.after(http2.keepalive_ms) if http2.keepalive_ms else None,
        http2_response_head=deadlines.after(config.upstream.h2_header_stage_timeout_ms),
        http2_body_idle=deadlines.after(config.upstream.h2_body_idle_timeout_ms),
    )
    settings.recorder = None if recording is None else recording.recorder
    return settings


def _decode_in(decoding: Executor, loop: asyncio.AbstractEventLoop) -> Callable[..., None]:
    """Return a function that has a body decoded in `decoding` and calls back on `loop`."""

    def decode(arguments: tuple[bytes, bytes, int, bool, bool], done: Callable[[object], object]) -> None:
        def decoded(future: asyncio.Future[tuple[bytes, str | None]]) -> None:
            # what was cancelled or failed here is decoded where it is looked at, and fails there
            done(None if future.cancelled() or future.exception() is not None else future.result())

        loop.run_in_executor(decoding, decode_body, *arguments).add_done_callback(decoded)

    return decode
