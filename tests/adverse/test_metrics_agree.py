"""What is counted agrees with what happened, and with itself: each flow ends once, in one way, and nothing is left when all is over."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from soth_mitm import ProxyMetrics
from soth_mitm.observe.families import Figures, all_families
from support.acts import ACTS, Act, Expected, Scene, reset_by_a_client_of_http2, tunnel, websocket


def ended(metrics: ProxyMetrics) -> Counter[Expected]:
    return Counter({Expected(*labels.split(" ")): count for labels, count in metrics.ended_flow_count_by_labels.items()})


def check_agreement(metrics: ProxyMetrics) -> None:
    """Check what holds whenever no flow is under way, whatever has happened."""
    flows = metrics.total_flows
    labelled = ended(metrics)
    outcomes = metrics.ended_flow_count_by_outcome
    assert metrics.active_flows == 0
    assert flows == labelled.total() == sum(outcomes.values()) == sum(metrics.request_count_by_seconds.values())
    assert sum(metrics.first_byte_count_by_seconds.values()) == sum(
        count for each, count in labelled.items() if each.status_class != "none"
    )
    assert metrics.first_byte_seconds <= metrics.request_seconds
    decided = metrics.allowed_request_count + metrics.blocked_request_count + metrics.answered_request_count + metrics.aborted_request_count
    assert decided <= flows
    assert outcomes["blocked"] >= metrics.blocked_request_count
    assert outcomes["responded"] <= metrics.answered_request_count
    assert outcomes["aborted"] == metrics.aborted_request_count
    assert outcomes["tunnelled"] == metrics.upgrade_count
    assert outcomes["upstream_error"] + outcomes["cut_by_upstream"] <= metrics.upstream_error_count
    assert outcomes["cut_by_upstream"] <= metrics.cut_response_count
    assert metrics.relayed_response_count == outcomes["answered"]
    assert sum(metrics.flows_by_pairing.values()) <= metrics.pool_hit_count + metrics.pool_miss_count + metrics.pool_wait_count
    assert sum(metrics.handler_call_count_by_hook_and_seconds.values()) == metrics.handler_call_count
    assert sum(metrics.handler_failure_count_by_hook.values()) == metrics.handler_panic_count
    assert sum(metrics.handler_timeout_count_by_hook.values()) == metrics.handler_timeout_count
    dials = metrics.upstream_connect_failures_by_reason
    assert sum(dials.values()) - dials["denied"] == metrics.upstream_connect_error_count
    assert dials["denied"] == metrics.denied_address_count
    assert sum(metrics.rejected_connections_by_reason.values()) == metrics.rejected_connection_count
    assert sum(metrics.tls_client_failures_by_class.values()) == metrics.tls_client_failure_count
    assert sum(metrics.websocket_violation_count_by_rule.values()) == metrics.websocket_violation_count


# Connections to upstreams are kept, and the CA does not expire
AT_REST = ("upstream_connections", "http2_connections", "ca_not_after_timestamp_seconds")


def gauges(metrics: ProxyMetrics) -> dict[str, float]:
    """Return what there is of each gauge that is not zero."""
    figures = Figures(metrics, 0.0)
    return {
        family.name + "".join(values): value
        for family in all_families()
        if family.kind == "gauge"
        for values, value in family.samples(figures)
        if value
    }


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_each_flow_is_counted_once_and_as_what_it_was(scene: Scene, act: Act) -> None:
    for number in (1, 2):
        expected = act(scene)
        scene.running.wait_idle()
        metrics = scene.running.metrics()
        found = ended(metrics)
        if act is reset_by_a_client_of_http2:
            found[Expected("localhost:*", "http2", "answered", "2xx")] -= number
        assert +found == ({} if expected is None else {expected: number})
        check_agreement(metrics)
        assert {name: value for name, value in gauges(metrics).items() if not name.startswith(AT_REST)} == {}
    scene.running.handle.shutdown(10)
    assert gauges(scene.running.metrics()) == {}


@pytest.mark.parametrize("seed", range(3))
def test_a_mix_of_all_adds_up(scene: Scene, seed: int) -> None:
    acts = [act for act in ACTS for _ in range(2)]
    random.Random(seed).shuffle(acts)
    before = Counter[Expected]()
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda act: act(scene), acts))
    before.update(result for result in results if result is not None)
    before[Expected("localhost:*", "http2", "answered", "2xx")] += acts.count(reset_by_a_client_of_http2)
    scene.running.wait_idle()
    metrics = scene.running.metrics()
    assert ended(metrics) == before
    check_agreement(metrics)
    assert metrics.tunnel_count == acts.count(tunnel) + acts.count(websocket)
    scene.running.handle.shutdown(10)
    assert gauges(scene.running.metrics()) == {}
