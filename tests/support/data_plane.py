"""Objects of the data plane for tests that need one and do not care about its values."""

from collections.abc import Callable
from typing import Any

from soth_mitm._dataplane.exchange.open_websockets import OpenWebSockets
from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import HookCounters, Hooks
from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.http2.limits import Http2Limits
from soth_mitm._dataplane.http2.session import HeadMemory
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.memory.deadline import DeadlineQueue

NUMBERS = {"head_limit": 65536, "most_fields": 100, "body_limit": 65536, "queue_limit": 16, "read_ahead": 65536, "unsafe_idle": 1.0}
FLAGS = (
    *("enforce", "buffer_requests", "reject_overflow", "refuse_incomplete", "retry", "strip_alt_svc", "http2_strict_overflow"),
    *("websocket_closes", "websocket_recompresses"),
)
OBJECTS = (
    "decision_type",
    "allow",
    "response_decision_type",
    "response_pass",
    "chunk_decision_type",
    "chunk_pass",
    "observer",
    "meant_to_block",
    "on_ignored_decision",
    "on_redirect",
    "stream_types",
    "decode_apart",
    "http2_keepalive",
)
DEADLINES = (
    *("half_closed", "client_head", "client_idle", "body_idle", "body_buffer", "response_head", "claim", "tunnel_idle"),
    *("tunnel_quiet", "linger", "settling", "pace", "own_body_close", "websocket_close", "websocket_idle"),
    *("http2_settings", "http2_ping", "http2_drain", "http2_stall", "http2_response_head", "http2_body_idle"),
)
MADE: dict[str, Callable[[], object]] = {
    "http2_memory": HeadMemory,
    "client_http2": Http2Limits,
    "upstream_http2": Http2Limits,
    "websockets": OpenWebSockets,
}


def every_setting(call_later: Callable[..., Any]) -> dict[str, Any]:
    """Return a value for each keyword argument of `Settings`; each deadline is a minute."""
    minute = DeadlineQueue(call_later, 60.0)
    values = {**NUMBERS, **dict.fromkeys(FLAGS, False), **dict.fromkeys(OBJECTS), **dict.fromkeys(DEADLINES, minute)}
    return {**values, **{name: make() for name, make in MADE.items()}}


def make_settings(loop: Any, **changed: Any) -> Settings:
    """Return settings on `loop`, without a handler, with `changed` in place of the values of `every_setting`."""
    hooks = Hooks(loop, None, lambda *_: None, lambda *_: None, HookCounters(), slow_seconds=1.0)
    return Settings(Arena(), hooks, Counters(), **{**every_setting(loop.call_later), **changed})
