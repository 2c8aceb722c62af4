"""The table of metrics: names as Prometheus has them, every counter in it, and the page of the documentation made from it."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain_text

from soth_mitm import ProxyMetrics
from soth_mitm.observe.exposition import OPENMETRICS, PLAIN_TEXT, Exposition, prefers_openmetrics
from soth_mitm.observe.families import FAMILIES, Family, Figures, all_families
from soth_mitm.observe.metrics_page import metrics_markdown

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
REWRITE = "python -c \"from soth_mitm.observe.metrics_page import metrics_markdown as page; print(page(), end='')\" > docs/metrics.md"
NAMES = [family.full_name for family in all_families()]


def numbered() -> ProxyMetrics:
    """Return metrics in which no two are alike."""
    values: dict[str, object] = {}
    for number, field in enumerate(msgspec.structs.fields(ProxyMetrics), 1):
        if field.type in (int, float):
            values[field.name] = number
    for whole in ("upstream_connections", "retry_count", "tls_client_handshake_count", "tls_upstream_handshake_count"):
        values[whole] = 1000
    values["filter_count_by_seconds"] = {"0.0001": 3, "0.001": 2, "10": 0, "longer": 1}
    values["request_count_by_seconds"] = {"0.005": 2, "300": 1, "longer": 0}
    values["first_byte_count_by_seconds"] = {"0.005": 2, "longer": 0}
    values["ended_flow_count_by_labels"] = {"*.a.example:443 sse answered 2xx": 2, "unlisted http1 refused 4xx": 1}
    values["handler_failure_count_by_hook"] = {"on_request": 1}
    values["handler_timeout_count_by_hook"] = {"on_request": 2}
    values["handler_call_count_by_hook_and_seconds"] = {"on_request 0.1": 1, "on_request longer": 0}
    values["handler_seconds_by_hook"] = {"on_request": 0.07}
    values["flows_by_pairing"] = {"h1h1": 1, "h1h2": 2, "h2h1": 3, "h2h2": 4}
    values["websocket_message_count_by_kind"] = {"to_upstream_text": 5, "to_client_binary": 6}
    values["websocket_violation_count_by_rule"] = {"client_unmasked": 7, "upstream_text_not_utf8": 8}
    values["tls_client_failures_by_class"] = {"timeout": 9}
    values["tls_upstream_failures_by_class"] = {"unknown_ca": 10}
    values["upstream_connect_failures_by_reason"] = {"name": 11}
    values["credentials_put_in_by_placeholder"] = {"one": 12, "other": 13}
    values["dropped_event_count_by_sink_and_kind"] = {"NdjsonSink sse_event": 14, "Other_2 flow_update": 15}
    values["event_sink_failure_count_by_sink"] = {"NdjsonSink": 16}
    values["event_sink_lag_seconds_by_sink"] = {"NdjsonSink": 0.25}
    return ProxyMetrics(**values)  # type: ignore[arg-type]


FIGURES = Figures(numbered(), 1795998356.0)


@pytest.mark.parametrize("family", list(all_families()), ids=lambda family: family.name)
def test_a_name_is_one_that_prometheus_has(family: Family) -> None:
    """https://prometheus.io/docs/practices/naming and the specification of OpenMetrics."""
    assert re.fullmatch(r"sothmitm_[a-z0-9]+(_[a-z0-9]+)*", family.full_name)
    assert family.full_name.endswith("_total") == (family.kind == "counter")
    if family.kind == "histogram":
        assert family.full_name.endswith("_seconds")
    assert not re.search(r"_(count|sum|bucket|created|info|gauge|ms|milliseconds)$", family.full_name)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in family.labels)
    assert family.meaning.endswith(".")


def test_no_two_families_share_a_stem() -> None:
    """The family of a counter has its name without `_total`."""
    stems = [name.removesuffix("_total") for name in NAMES]
    assert len(set(stems)) == len(stems)


def test_every_metric_of_the_handle_is_told() -> None:
    told = set(chain.from_iterable(family.fields for family in all_families()))
    assert told == {field.name for field in msgspec.structs.fields(ProxyMetrics)}


@pytest.mark.parametrize("accept", ["", OPENMETRICS], ids=["plain", "openmetrics"])
def test_what_is_written_is_read_back_with_the_same_figures(accept: str) -> None:
    content, media_type = Exposition().written(FIGURES, accept)
    read = read_openmetrics if accept else read_plain_text
    assert media_type == (OPENMETRICS if accept else PLAIN_TEXT)
    families = {family.name: family for family in read(content.decode())}
    for family in all_families():
        found = families[family.full_name.removesuffix("_total")]
        assert (found.type, found.documentation) == (family.kind, family.meaning.replace("`", ""))
        if family.kind != "histogram":
            samples = {tuple(sample.labels.get(label) for label in family.labels): sample.value for sample in found.samples}
            assert samples == dict(family.samples(FIGURES))
            assert {sample.name for sample in found.samples} <= {family.full_name}
    assert {name for name in families if name.startswith("sothmitm_")} == {
        *(name.removesuffix("_total") for name in NAMES),
        "sothmitm_build" if accept else "sothmitm_build_info",
    }


def test_a_histogram_is_cumulative() -> None:
    families = {family.name: family for family in read_openmetrics(Exposition().written(FIGURES, OPENMETRICS)[0].decode())}
    samples = families["sothmitm_stream_filter_seconds"].samples
    buckets = [(sample.labels["le"], sample.value) for sample in samples if sample.name.endswith("_bucket")]
    assert buckets == [("0.0001", 3), ("0.001", 5), ("10.0", 5), ("+Inf", 6)]
    others = {sample.name: sample.value for sample in samples if not sample.name.endswith("_bucket")}
    assert others == {
        "sothmitm_stream_filter_seconds_count": 6,
        "sothmitm_stream_filter_seconds_sum": FIGURES.metrics.filter_seconds,
    }


def test_two_expositions_write_side_by_side() -> None:
    """Two proxies of a process have figures of their own, and neither is in the registry of the program."""
    first, second = Exposition(), Exposition()
    other = Figures(msgspec.structs.replace(FIGURES.metrics, total_connections=77), 0.0)
    assert b"sothmitm_client_connections_accepted_total 77.0\n" in second.written(other, "")[0]
    assert b"sothmitm_client_connections_accepted_total 1.0\n" in first.written(FIGURES, "")[0]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", True),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.5", False),
        ("application/openmetrics-text; q=0", False),
        ("application/openmetrics-text; q=nonsense", False),
        ("application/openmetrics-text; version=not.a.version", True),
        (";;;,,, =;q", False),
    ],
)
def test_what_a_client_would_rather_have(accept: str, wanted: bool) -> None:
    assert prefers_openmetrics(accept) == wanted


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == metrics_markdown(), f"docs/metrics.md is not what the table says; run: {REWRITE}"


def test_page_has_one_row_for_each_family() -> None:
    rows = [line for line in metrics_markdown().splitlines() if re.match(r"\| `[a-z0-9_]+` \| (counter|gauge|histogram) ", line)]
    assert [row.split("`")[1] for row in rows] == [family.name for families in FAMILIES.values() for family in families]
    assert all(row.count("|") == 6 for row in rows)
