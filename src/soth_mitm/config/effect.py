"""Keys that are set and do nothing: because their behaviour is not built yet, or because another key turns off what they are about.

They are warned about, once, at the start.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from soth_mitm.address_guard import denied_entries
from soth_mitm.config.not_built import LATER_KEYS, NEVER, SATISFIED_LATER
from soth_mitm.config.schema import Spec, specs
from soth_mitm.config.tree import MitmConfig


class Idle(NamedTuple):
    """Keys that mean nothing while something holds, which `because` says."""

    keys: tuple[str, ...]
    holds: Callable[[MitmConfig], bool]
    because: str


IDLE = (
    Idle(
        ("tls.bypass_after_failures", "tls.bypass_window_ms", "tls.bypass_ttl_ms"),
        lambda config: not config.tls.learn_bypass,
        "tls.learn_bypass is false",
    ),
    Idle(
        ("body.buffer_timeout_ms", "body.overflow"),
        lambda config: not config.body.buffer_request_bodies,
        "body.buffer_request_bodies is false",
    ),
    Idle(("prometheus_open_to_network",), lambda config: config.prometheus_bind is None, "prometheus_bind is not set"),
    Idle(("unix_socket_mode",), lambda config: config.unix_socket_path is None, "unix_socket_path is not set"),
    Idle(
        ("process_attribution.lookup_timeout_ms", "process_attribution.cache_capacity", "process_attribution.cache_ttl_ms"),
        lambda config: not config.process_attribution.enabled,
        "process_attribution.enabled is false",
    ),
    Idle(("upstream.retry_delay_ms",), lambda config: not config.upstream.retry_on_failure, "upstream.retry_on_failure is false"),
    Idle(("upstream.ca_bundle_path",), lambda config: not config.upstream.verify_upstream_tls, "upstream.verify_upstream_tls is false"),
    Idle(("upstream.allowed_addresses",), lambda config: not denied_entries(config), "upstream.denied_addresses is empty"),
    Idle(
        ("connection_pool.idle_timeout_ms", "connection_pool.max_hosts"),
        lambda config: config.connection_pool.max_idle_per_host == 0,
        "connection_pool.max_idle_per_host is 0",
    ),
    Idle(
        (
            *("http2_max_header_list_size", "http2_max_concurrent_streams", "http2.max_streams_per_upstream"),
            *("http2.initial_window_bytes", "http2.max_window_bytes", "http2.reset_burst", "http2.resets_per_second"),
            *("http2.glitch_burst", "http2.glitches_per_second", "http2.max_queued_replies", "http2.stall_timeout_ms"),
            *("http2.settings_timeout_ms", "http2.ping_timeout_ms", "http2.keepalive_ms", "http2.for_http1_clients", "http2.misdirected"),
            *("upstream.h2_header_stage_timeout_ms", "upstream.h2_body_idle_timeout_ms", "upstream.h2_response_overflow_mode"),
        ),
        lambda config: not config.http2_enabled,
        "http2_enabled is false",
    ),
    Idle(("handler.failure_policy",), lambda config: config.intercept_mode == "monitor", "intercept_mode is monitor"),
)


def without_effect(config: MitmConfig) -> list[str]:
    """Return a sentence for each key that is set to another value than its default and does nothing."""
    reasons = {name: idle.because for idle in IDLE if idle.holds(config) for name in idle.keys}
    sentences = []
    for spec in _set(config):
        if spec.name in LATER_KEYS:
            if spec.plain(spec.read(config)) != SATISFIED_LATER.get(spec.name, spec.default):
                reason = NEVER.get(spec.name, "this build does not have what it is about")
                sentences.append(f"{spec.name} has no effect: {reason}")
        elif spec.name in reasons:
            sentences.append(f"{spec.name} has no effect: {reasons[spec.name]}")
    return sentences


def _set(config: MitmConfig) -> Iterator[Spec]:
    for spec in specs(MitmConfig).values():
        if spec.differs(spec.read(config), spec.default):
            yield spec
