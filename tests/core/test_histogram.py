"""How many took at most how long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm._dataplane.http.counters import FILTER_EDGES, LONG_EDGES, Histogram
from soth_mitm._dataplane.http.hooks import HOOK_EDGES

SECONDS = st.floats(0, 1000) | st.sampled_from([*LONG_EDGES, *HOOK_EDGES, *FILTER_EDGES])


@pytest.mark.parametrize("edges", [LONG_EDGES, HOOK_EDGES, FILTER_EDGES, ()], ids=["long", "hook", "filter", "none"])
@given(times=st.lists(SECONDS, max_size=20))
def test_each_time_is_counted_at_the_first_edge_that_it_does_not_pass(
    made_bytes: Any, edges: tuple[float, ...], times: list[float]
) -> None:
    histogram = Histogram(edges)
    for seconds in times:
        made_bytes.add_time(histogram, seconds)
    expected = [0] * (len(edges) + 1)
    for seconds in times:
        expected[next((place for place, edge in enumerate(edges) if seconds <= edge), len(edges))] += 1
    assert histogram.counts == expected and histogram.edges == edges
    assert histogram.seconds == pytest.approx(sum(times))


@pytest.mark.parametrize("edges", [(2.0, 1.0), tuple(float(edge) for edge in range(17))])
def test_edges_that_cannot_be(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"^edges: at most 16, ascending$"):
        Histogram(edges)
