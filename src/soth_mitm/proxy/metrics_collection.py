"""Which counter each metric is."""

from collections.abc import Sequence
from typing import get_args

from soth_mitm._dataplane.http.counters import Counters, Histogram
from soth_mitm._dataplane.http2.frame import name_error_code
from soth_mitm._dataplane.http2.limits import LIMIT_NAMES
from soth_mitm._dataplane.websocket.violations import VIOLATION_NAMES
from soth_mitm.errors import ConnectFailure
from soth_mitm.metrics import FLOW_OUTCOMES, ProxyMetrics
from soth_mitm.observe.observation import CLOSED_BY
from soth_mitm.proxy.resources import ProxyResources
from soth_mitm.tls.failures import FailureClass

MESSAGES = ("to_upstream_text", "to_upstream_binary", "to_client_text", "to_client_binary")
PAIRINGS = ("h1h1", "h1h2", "h2h1", "h2h2")
CONNECT_FAILURES = (*get_args(ConnectFailure), "timeout", "tls")
# of RFC 9113 section 7
CODES = (*(name_error_code(code) for code in range(14)), "other")


def goaways_by_reason(counters: Counters) -> dict[str, int]:
    """Return why no new streams were wanted, and how often."""
    faults = dict(zip(CODES, counters.http2_goaways_sent, strict=True))
    limits = counters.http2_goaways_of_limits
    return {
        "drain": counters.http2_drains,
        "idle": counters.http2_idle_ends,
        **{name.lower(): count for name, count in faults.items() if name not in {"NO_ERROR", "other"}},
        **{f"calm_{name}": limits[limit] for limit, name in LIMIT_NAMES.items() if name != "polite"},
    }


def violations_by_rule(counters: Counters) -> dict[str, int]:
    """Return how often each rule of WebSocket was broken, by side."""
    counts = counters.websocket_violations_by_rule
    sides = (("client", counts[: len(counts) // 2]), ("upstream", counts[len(counts) // 2 :]))
    return {f"{side}_{name}": of_side[place] for side, of_side in sides for place, name in enumerate(VIOLATION_NAMES) if place}


def _by_edge(times: Histogram) -> dict[str, int]:
    return dict(zip((*(f"{edge:g}" for edge in times.edges), "longer"), times.counts, strict=True))


def _by_outcome(labelled: dict[str, int]) -> dict[str, int]:
    counts = dict.fromkeys(FLOW_OUTCOMES, 0)
    for labels, count in labelled.items():
        counts[labels.split(" ")[2]] += count
    return counts


def collect_metrics(
    resources: ProxyResources, active_connections: int, pools: Sequence[tuple[int, int]], leaves_minted: int
) -> ProxyMetrics:
    """Return all counters of a proxy. `pools` has, for each generation, how many upstream connections are open and idle."""
    counters, hooks, connections, budget = resources.counters, resources.hook_counters, resources.connection_counters, resources.budget
    labelled = resources.flow_counts.counts()
    sinks = resources.sinks
    attribution = resources.lookup.attribution.counters()
    return ProxyMetrics(
        total_connections=connections.accepted,
        active_connections=active_connections,
        handler_panic_count=hooks.failures,
        handler_timeout_count=hooks.timeouts,
        handler_failure_count_by_hook={name: figures.failures for name, figures in hooks.by_hook.items()},
        handler_timeout_count_by_hook={name: figures.timeouts for name, figures in hooks.by_hook.items()},
        handler_call_count_by_hook_and_seconds={
            f"{name} {edge}": count for name, figures in hooks.by_hook.items() for edge, count in _by_edge(figures.times).items()
        },
        handler_seconds_by_hook={name: figures.times.seconds for name, figures in hooks.by_hook.items()},
        upstream_connect_error_count=connections.dial_errors,
        upstream_connect_failures_by_reason={reason: connections.dial_failures[reason] for reason in CONNECT_FAILURES},
        denied_address_count=connections.denied_addresses,
        upstream_timeout_count=counters.upstream_timeouts + connections.dial_timeouts.total(),
        process_attribution_failure_count=attribution.failure,
        process_attribution_timeout_count=resources.lookup.timeouts,
        process_cache_identity_hit_count=attribution.identity_hit,
        process_cache_miss_count=attribution.miss,
        process_cache_eviction_count=attribution.eviction,
        process_pid_reuse_detected_count=attribution.pid_reuse,
        dropped_dispatch_work_count=counters.dropped_chunks,
        total_flows=counters.flows,
        active_flows=counters.active_flows,
        ended_flow_count_by_outcome=_by_outcome(labelled),
        ended_flow_count_by_labels=labelled,
        request_count_by_seconds=_by_edge(counters.request_times),
        request_seconds=counters.request_times.seconds,
        first_byte_count_by_seconds=_by_edge(counters.first_byte_times),
        first_byte_seconds=counters.first_byte_times.seconds,
        allowed_request_count=counters.requests_allowed,
        blocked_request_count=counters.requests_blocked,
        ignored_block_count=counters.blocks_ignored,
        answered_request_count=counters.requests_answered,
        aborted_request_count=counters.requests_aborted,
        ignored_decision_count=counters.decisions_ignored,
        changed_request_count=counters.requests_changed,
        redirected_request_count=counters.requests_redirected,
        changed_signed_message_count=counters.changed_signed_messages,
        cancelled_own_body_count=counters.own_bodies_cancelled,
        credentials_put_in_by_placeholder=dict(connections.credentials_put_in),
        redacted_value_count=connections.credentials_redacted,
        blocked_placeholder_count=counters.placeholders_blocked,
        unavailable_credential_count=counters.credentials_unavailable,
        refused_request_count=counters.requests_refused,
        refused_name_count=counters.names_refused,
        changed_response_count=counters.responses_changed,
        replaced_response_count=counters.responses_replaced,
        blocked_response_count=counters.responses_blocked,
        held_responses=counters.held_responses,
        held_bytes=counters.held_bytes,
        relayed_response_count=counters.responses_relayed,
        cut_response_count=counters.responses_cut,
        upstream_error_count=counters.upstream_errors,
        retry_count=counters.retries,
        upgrade_count=counters.upgrades,
        websocket_upgrade_count=counters.websocket_upgrades,
        websocket_bad_handshake_count=counters.websocket_bad_handshakes,
        websocket_removed_offer_count=counters.websocket_offers_removed,
        websocket_decode_error_count=counters.websocket_decode_errors,
        websocket_connections=counters.websocket_connections,
        websocket_message_count_by_kind=dict(zip(MESSAGES, counters.websocket_messages_by_kind, strict=True)),
        websocket_compressed_message_count=counters.websocket_compressed,
        websocket_recoded_message_count=counters.websocket_recoded,
        websocket_injected_message_count=counters.websocket_injected,
        websocket_close_count_by_side=dict(zip(CLOSED_BY, counters.websocket_closes_by_side, strict=True)),
        websocket_violation_count_by_rule=violations_by_rule(counters),
        websocket_violation_count=counters.websocket_violations,
        tunnel_count=counters.tunnels,
        dropped_trailers_count=counters.trailers_dropped,
        dropped_interim_count=counters.interims_dropped,
        stream_chunk_count=counters.stream_chunks,
        stream_framing_error_count=counters.framing_errors,
        filtered_chunk_count_by_decision={
            "pass": counters.chunks_passed,
            "drop": counters.chunks_dropped,
            "replace": counters.chunks_replaced,
            "end": counters.chunks_ended,
        },
        filter_seconds=counters.filter_times.seconds,
        filter_count_by_seconds=_by_edge(counters.filter_times),
        rejected_connection_count=connections.rejected.total(),
        rejected_connections_by_reason={reason: connections.rejected[reason] for reason in ("limit", "draining")},
        config_reloads_by_result={result: connections.reloads[result] for result in ("applied", "refused")},
        tls_client_handshake_count=connections.client_handshakes,
        tls_client_resumed_count=connections.client_resumed,
        tls_client_failure_count=connections.client_tls_failures.total(),
        tls_client_failures_by_class={str(each): connections.client_tls_failures[each] for each in FailureClass},
        tls_client_abandoned_count=connections.client_abandoned,
        tls_client_refusal_count=connections.client_refusals,
        tls_bypass_opened_count=connections.bypasses_opened,
        tls_bypassed_connection_count=connections.bypassed_connections,
        tls_bypasses=resources.learning.bypass_count(),
        unknown_protocol_count=connections.unknown_protocols,
        tls_upstream_handshake_count=connections.upstream_handshakes,
        tls_upstream_resumed_count=connections.upstream_resumed,
        tls_upstream_failure_count=connections.upstream_tls_failures.total(),
        tls_upstream_failures_by_class={str(each): connections.upstream_tls_failures[each] for each in FailureClass},
        leaf_minted_count=leaves_minted,
        pool_hit_count=counters.pool_hits,
        pool_miss_count=counters.pool_misses,
        pool_wait_count=counters.pool_waits,
        pool_stale_count=counters.pool_stale,
        pool_pin_count=counters.pool_pins,
        dns_lookup_count=connections.dns_lookups,
        dns_cache_hit_count=connections.dns_cache_hits,
        upstream_connections=sum(opened for opened, _ in pools),
        idle_upstream_connections=sum(idle for _, idle in pools),
        bytes_from_clients=counters.bytes_from_clients,
        bytes_to_clients=counters.bytes_to_clients,
        bytes_from_upstreams=counters.bytes_from_upstreams,
        bytes_to_upstreams=counters.bytes_to_upstreams,
        buffered_bytes=budget.held,
        paced_flow_count=budget.waits,
        waiting_flows=budget.waiting_count,
        shortened_copy_count=counters.shortened_copies,
        http2_upstream_connections=counters.http2_upstream_connections,
        http2_goaways_received=counters.http2_goaways_received,
        http2_dead_connections=counters.http2_dead_connections,
        http2_retries=counters.http2_retries,
        flows_by_pairing=dict(zip(PAIRINGS, counters.flows_by_pairing, strict=True)),
        http2_client_connections=counters.http2_client_connections,
        http2_streams=counters.http2_streams,
        http2_streams_total=counters.http2_streams_total,
        http2_refused_streams=counters.http2_refused_streams,
        http2_resets_received_by_code=dict(zip(CODES, counters.http2_resets_received, strict=True)),
        http2_resets_sent_by_code=dict(zip(CODES, counters.http2_resets_sent, strict=True)),
        http2_goaways_sent_by_reason=goaways_by_reason(counters),
        http2_glitches=counters.http2_glitches,
        http2_oversized_heads=counters.http2_oversized_heads,
        http2_misdirected=counters.http2_misdirected,
        http2_stalled_streams=counters.http2_stalled_streams,
        http2_window_growths=counters.http2_window_growths,
        dropped_event_count_by_sink_and_kind={} if sinks is None else sinks.dropped(),
        event_sink_failure_count_by_sink={} if sinks is None else sinks.failures(),
        event_sink_lag_seconds_by_sink={} if sinks is None else sinks.lags(),
        disabled_event_sinks=0 if sinks is None else sinks.disabled(),
        illegal_event_count=0 if sinks is None else sinks.illegal_steps,
        handler_call_count=hooks.calls,
        handler_seconds=hooks.seconds,
    )
