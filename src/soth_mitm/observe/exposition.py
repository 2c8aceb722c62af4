"""Figures as Prometheus reads them: its text format, and OpenMetrics for a client that asks for that.

The only module that takes prometheus-client, which the extra `metrics` brings.
"""

import platform
import ssl
from collections.abc import Callable, Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client import exposition as plain_text
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from soth_mitm.observe.families import PREFIX, Distribution, Family, Figures, all_families

# without types in the package
write_plain_text: Callable[[Collector], bytes] = plain_text.generate_latest
write_openmetrics: Callable[[Collector], bytes] = openmetrics.generate_latest

PLAIN_TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Exposition(Collector):
    """Writes figures. Belongs to one thread."""

    def __init__(self) -> None:
        self._figures: Figures | None = None
        self._build = InfoMetricFamily(
            f"{PREFIX}build",
            "What runs.",
            {"version": version("soth-mitm"), "python": platform.python_version(), "openssl": ssl.OPENSSL_VERSION},
        )
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def written(self, figures: Figures, accept: str) -> tuple[bytes, str]:
        """Return `figures` as text, in the format that a client with that `Accept` prefers, and its media type."""
        self._figures = figures
        if prefers_openmetrics(accept):
            return write_openmetrics(self._registry), OPENMETRICS
        return write_plain_text(self._registry), PLAIN_TEXT

    def collect(self) -> Iterator[Metric]:
        """Yield what is told; called by the registry, also when this is registered with it."""
        if self._figures is None:
            return
        yield self._build
        for family in all_families():
            yield _metric(family, self._figures)


def _metric(family: Family, figures: Figures) -> Metric:
    meaning = family.meaning.replace("`", "")
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.full_name, meaning, labels=family.labels)
        for values, distribution in family.distributions(figures):
            histogram.add_metric(values, list(_buckets(distribution)), distribution.seconds)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.full_name, meaning, labels=family.labels)
    for values, value in family.samples(figures):
        metric.add_metric(values, value)
    return metric


def _buckets(distribution: Distribution) -> Iterator[tuple[str, float]]:
    """Yield how many took at most so long."""
    so_far = 0
    *edges, beyond = distribution.counts
    for edge in edges:
        so_far += distribution.counts[edge]
        yield str(float(edge)), so_far
    yield "+Inf", so_far + distribution.counts[beyond]


def prefers_openmetrics(accept: str) -> bool:
    """Tell whether a client that accepts such media types (RFC 9110 section 12.5.1) would rather have OpenMetrics than plain text."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for entry in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
        if media_type in weights:
            weights[media_type] = max(weights[media_type], _weight(parameters))
    return weights["application/openmetrics-text"] > weights["text/plain"]


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
