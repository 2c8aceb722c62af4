"""Flows by pattern: few names, none of which a client chose."""

from __future__ import annotations

from typing import Any

from soth_mitm._dataplane.http.counters import FlowCounts
from soth_mitm.destinations import DestinationPattern
from soth_mitm.metrics import FLOW_OUTCOMES, FLOW_PROTOCOLS, STATUS_CLASSES
from soth_mitm.proxy.flow_counts import MAX_PATTERNS, PatternCounts


def pattern(number: int) -> DestinationPattern:
    return DestinationPattern.parse(f"h{number}.example:443")


def test_a_pattern_keeps_its_counts_and_those_beyond_the_limit_share_one() -> None:
    unlisted = FlowCounts()
    patterns = PatternCounts(unlisted)
    own = [patterns.of(pattern(number)) for number in range(MAX_PATTERNS)]
    assert len({id(counts) for counts in own}) == MAX_PATTERNS
    assert patterns.of(None) is unlisted
    beyond = patterns.of(pattern(MAX_PATTERNS))
    assert beyond is patterns.of(pattern(MAX_PATTERNS + 1)) and beyond not in own
    assert [patterns.of(pattern(number)) for number in range(MAX_PATTERNS)] == own


def test_what_was_counted_has_the_names_of_the_metrics(made_bytes: Any) -> None:
    patterns = PatternCounts(FlowCounts())
    for protocol, end, status in ((0, 0, 200), (0, 0, 299), (6, 10, 101), (1, 3, 0), (2, 9, 599), (2, 9, 600), (2, 9, 999)):
        made_bytes.count_flow(patterns.of(pattern(protocol)), protocol, end, status)
    made_bytes.count_flow(patterns.of(None), 0, 4, 400)
    assert patterns.counts() == {
        "h0.example:443 http1 answered 2xx": 2,
        "h6.example:443 tunnel tunnelled 1xx": 1,
        "h1.example:443 http2 aborted none": 1,
        "h2.example:443 sse cut_by_proxy 5xx": 1,
        "h2.example:443 sse cut_by_proxy other": 2,
        "unlisted http1 refused 4xx": 1,
    }


def test_the_names_are_as_many_as_the_data_plane_has(made_bytes: Any) -> None:
    assert made_bytes.flow_sizes() == (len(FLOW_PROTOCOLS), len(FLOW_OUTCOMES), len(STATUS_CLASSES))
