"""Values that follow from several keys where the user set none."""

from msgspec import Struct

from soth_mitm.config import MitmConfig


class FlowRuntime(Struct, kw_only=True, frozen=True):
    """The section `flow_runtime` with every value in place; the fields are its keys."""

    dispatch_queue_capacity: int
    closed_flow_lru_capacity: int
    stale_flow_ttl_ms: int
    stale_reap_max_batch: int
    dispatch_queue_send_timeout_ms: int
    dispatch_close_join_timeout_ms: int


def derive_flow_runtime(config: MitmConfig) -> FlowRuntime:
    """Return the limits of the flow queues for a validated configuration: what it sets, else what the documentation says follows."""
    flows = config.connection_pool.max_connections_per_host * len(config.interception.destinations)
    response_timeout = config.handler.response_timeout_ms
    section = config.flow_runtime
    return FlowRuntime(
        dispatch_queue_capacity=section.dispatch_queue_capacity or _clamp(flows, 128, 1024),
        closed_flow_lru_capacity=section.closed_flow_lru_capacity or _clamp(8 * flows, 4096, 65536),
        stale_flow_ttl_ms=section.stale_flow_ttl_ms or max(3 * config.connection_pool.idle_timeout_ms, 30_000),
        stale_reap_max_batch=section.stale_reap_max_batch or _clamp(flows, 16, 256),
        dispatch_queue_send_timeout_ms=section.dispatch_queue_send_timeout_ms or response_timeout,
        dispatch_close_join_timeout_ms=section.dispatch_close_join_timeout_ms or 2 * response_timeout,
    )


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
