"""`OtelSink`: flows and calls of models as spans and figures, sent to an OpenTelemetry collector by OTLP over HTTP.

The only module that takes OpenTelemetry's packages, which the extra `otel` brings.
"""

import importlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from soth_mitm.escaping import get_logger
from soth_mitm.llm.conventions import span_attributes, span_name
from soth_mitm.llm.model_call import ModelCall
from soth_mitm.observe.event_sink import EventSink, SinkInfo
from soth_mitm.observe.flow_call import call_of
from soth_mitm.observe.flow_event import FlowEvent
from soth_mitm.observe.flow_gathering import FlowGathering
from soth_mitm.observe.flow_record import FlowRecord, FlowUpdate
from soth_mitm.observe.masking import Masker
from soth_mitm.observe.model_reading import CallReading
from soth_mitm.observe.otel_attributes import (
    Attributes,
    encodable,
    error_type_of,
    flow_attributes,
    message_attributes,
    method_of,
    version_of,
)
from soth_mitm.observe.otel_export import SpanExport
from soth_mitm.observe.otel_names import CALL_SECONDS, HTTP_SECONDS, OTHER, TOKENS, Bounded, call_names

log = get_logger("soth_mitm.observe")

NEEDED = (
    "OtelSink needs the packages opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http, which are not installed: "
    "`pip install 'soth-mitm[otel]'`"
)
MOST_OPEN_OCTETS = 64 << 20
"""Bytes of content that are held of calls of models that have not ended, all together."""
MOST_HOSTS = 200
MOST_MODELS = 100


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"opentelemetry.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("opentelemetry", "google", "requests"):
            raise
        raise ImportError(NEEDED) from error


class OtelSink(EventSink):
    """Sends a span for each flow that has ended, a child of it for a call of a model, and figures of both (docs/sinks.md).

    `endpoint` is the collector's, such as `http://127.0.0.1:4318`; None: what OpenTelemetry's environment variables say. `headers` are sent
    along. `content`: what models were asked and what they answered is sent, masked. `calls` False: calls of models are not recognised,
    and no content is looked at. `metrics` False: spans only; `interval` is how often figures are sent, `timeout` how long one sending may
    take, in seconds. `attributes` describe this proxy (a resource, in OpenTelemetry's words). `mask` are more names of what is masked.

    `ImportError`: a package is missing, and which extra brings it. What could not be sent is counted (`lost`).
    """

    name = "otel"
    flows = True

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        service_name: str = "soth-mitm",
        attributes: Mapping[str, str] | None = None,
        content: bool = False,
        calls: bool = True,
        metrics: bool = True,
        interval: float = 60.0,
        timeout: float = 10.0,
        mask: Iterable[str] = (),
    ) -> None:
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint must be an http or https URL, such as http://127.0.0.1:4318, not {endpoint!r}")
        if not interval > 0 or not timeout > 0:
            raise ValueError("interval and timeout must be more than 0 seconds")
        for needed in ("sdk.trace", "sdk.metrics", "exporter.otlp.proto.http.trace_exporter", "exporter.otlp.proto.http.metric_exporter"):
            _module(needed)
        self.content = 1 << 20 if calls else 0
        self._endpoint = None if endpoint is None else endpoint.rstrip("/")
        self._headers = None if headers is None else dict(headers)
        self._resource = {"service.name": service_name} | dict(attributes or {})
        self._shows_content = content
        self._metrics = metrics
        self._interval = interval
        self._timeout = timeout
        # without tags: the conventions have one word for all that is masked
        self._masker = Masker(mask, key=None)
        self._gathering = FlowGathering(MOST_OPEN_OCTETS)
        self._spans: SpanExport | None = None
        self._exporter: Any = None
        self._trace: Any = _module("trace")
        self._tracer: Any = None
        self._figures: _Figures | None = None
        self.dropped_updates = 0
        """Updates of flows that did not reach the sink, since the proxy's queue for it was full."""

    @property
    def sent(self) -> int:
        """Spans that the collector has taken."""
        return 0 if self._spans is None else self._spans.sent

    @property
    def lost(self) -> int:
        """Spans that it has not."""
        return 0 if self._spans is None else self._spans.lost

    def open(self, info: SinkInfo) -> None:
        """Make what sends. Whether there is a collector shows with the first sending."""
        resource = _module("sdk.resources").Resource.create(
            self._resource | {"service.version": info.version, "service.instance.id": f"{info.proxy_id}/{info.worker}"}
        )
        http = _module("exporter.otlp.proto.http.trace_exporter")
        given: dict[str, Any] = {"headers": self._headers, "timeout": self._timeout}
        self._exporter = http.OTLPSpanExporter(endpoint=self._url("traces"), **given)
        success = _module("sdk.trace.export").SpanExportResult.SUCCESS
        self._spans = SpanExport(lambda spans: self._exporter.export(spans) is success)
        provider = _module("sdk.trace").TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracer = provider.get_tracer("soth_mitm", info.version)
        if self._metrics:
            self._figures = _Figures(resource, self._url("metrics"), given, info.version, self._interval)

    def _url(self, signal: str) -> str | None:
        return None if self._endpoint is None else f"{self._endpoint}/v1/{signal}"

    def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
        """Send what has ended."""
        if self._spans is None:
            return
        spans: list[Any] = []
        for update in batch:
            if not isinstance(update, FlowUpdate):
                continue
            record = update.record
            if not self.content or not CallReading.may_be(record):
                if record.is_over:
                    self._tell(update, None, spans)
                continue
            whole = self._gathering.add(update)
            if whole is not None:
                self._tell(whole, call_of(whole, limit=self.content), spans)
        if spans:
            self._spans.add(spans)

    def dropped(self, count: int) -> None:
        """Count what did not reach the sink."""
        self.dropped_updates += count

    def _tell(self, flow: FlowUpdate, call: ModelCall | None, spans: list[Any]) -> None:
        record = flow.record
        trace = self._trace
        started = int(record.started * 1e9)
        ended = started + int((record.took or 0.0) * 1e9)
        attributes = flow_attributes(record, self._masker)
        method = attributes["http.request.method"]
        span = self._span("HTTP" if method == OTHER else str(method), _parent(record), started, attributes)
        failed = "error.type" in attributes
        if failed:
            span.set_status(trace.StatusCode.ERROR, encodable(record.cause) or None)
        if call is not None:
            child = self._span(encodable(span_name(call)), trace.set_span_in_context(span), started, span_attributes(call))
            if self._shows_content:
                child.set_attributes(message_attributes(call, flow, self._masker))
            if call.outcome != "answered":
                child.set_status(trace.StatusCode.ERROR, call.error)
            self._end(child, ended, spans)
        self._end(span, ended, spans)
        if self._figures is not None:
            self._figures.count(record, call)

    def _span(self, name: str, context: Any, started: int, attributes: Mapping[str, Any]) -> Any:
        kind = self._trace.SpanKind.CLIENT
        plain = {each: encodable(value) if isinstance(value, str) else value for each, value in attributes.items()}
        return self._tracer.start_span(name, context=context, kind=kind, start_time=started, attributes=plain)

    def _end(self, span: Any, at: int, spans: list[Any]) -> None:
        # a client may have asked, in its `traceparent`, that nothing be recorded
        if span.is_recording():
            span.end(at)
            spans.append(span)

    def close(self, timeout: float) -> None:
        """Send what is left, as far as there is time."""
        if self._spans is None:
            return
        until = time.monotonic() + timeout * 0.9
        figures = self._figures
        ending = threading.Thread(target=figures.close, args=(timeout * 0.9,), daemon=True) if figures is not None else None
        if ending is not None:
            ending.start()
        self._spans.close(until - time.monotonic())
        self._exporter.shutdown()
        if ending is not None:
            ending.join(max(0.0, until - time.monotonic()))


def _parent(record: FlowRecord) -> Any:
    """Return the context of the client's own span, if it sent one."""
    carrier = {}
    for name, value in record.request_fields:
        if name.lower() in (b"traceparent", b"tracestate"):
            carrier[name.lower().decode()] = value.decode("latin-1")
    context = _module("context").Context()
    if "traceparent" not in carrier:
        return context
    return _module("trace.propagation.tracecontext").TraceContextTextMapPropagator().extract(carrier, context)


class _Figures:
    """Metrics, by the same conventions. Labels are closed sets, or bounded."""

    def __init__(self, resource: Any, url: str | None, given: dict[str, Any], version: str, interval: float) -> None:
        exporter = _module("exporter.otlp.proto.http.metric_exporter").OTLPMetricExporter(endpoint=url, **given)
        export = _module("sdk.metrics.export")
        reader = export.PeriodicExportingMetricReader(exporter, export_interval_millis=interval * 1000)
        metrics = _module("sdk.metrics")
        self._provider = metrics.MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("soth_mitm", version)
        self._host = Bounded(MOST_HOSTS)
        self._model = Bounded(MOST_MODELS)
        self._duration = meter.create_histogram(
            "http.client.request.duration", "s", "How long flows took.", explicit_bucket_boundaries_advisory=HTTP_SECONDS
        )
        self._flows = meter.create_counter("sothmitm.flows", "{flow}", "Flows that have ended, by what came of them.")
        self._octets = meter.create_counter("sothmitm.io", "By", "Bytes of content.")
        names = call_names()
        self._call_duration = meter.create_histogram(
            names.duration, "s", "How long calls of models took.", explicit_bucket_boundaries_advisory=CALL_SECONDS
        )
        self._first_chunk = meter.create_histogram(
            names.first_chunk, "s", "Until the first token of a stream.", explicit_bucket_boundaries_advisory=CALL_SECONDS
        )
        self._tokens = None
        if names.tokens:
            self._tokens = meter.create_histogram(
                names.tokens, "{token}", "Tokens of calls of models.", explicit_bucket_boundaries_advisory=TOKENS
            )
        self._tokens_of_call = {
            kind: meter.create_histogram(name, "{token}", "Tokens of one call.", explicit_bucket_boundaries_advisory=TOKENS)
            for kind, name in names.tokens_of_call.items()
        }
        self._tokens_in_all = {kind: meter.create_counter(name, "{token}", "Tokens.") for kind, name in names.tokens_in_all.items()}

    def count(self, record: FlowRecord, call: ModelCall | None) -> None:
        """Count a flow that has ended."""
        found: dict[str, str | int | None] = {
            "http.request.method": method_of(record),
            "server.address": encodable(self._host(record.host)),
            "server.port": record.port,
            "http.response.status_code": record.status or None,
            "error.type": error_type_of(record),
            "network.protocol.version": version_of(record),
        }
        if found["server.address"] == OTHER:
            found["server.port"] = None
        attributes = {name: value for name, value in found.items() if value is not None}
        if record.took is not None and record.scheme:
            self._duration.record(record.took, attributes)
        self._flows.add(1, {"outcome": record.outcome, "protocol": record.protocol, "pattern": record.pattern or "unlisted"})
        self._octets.add(record.request_size, {"network.io.direction": "transmit"})
        self._octets.add(record.response_size, {"network.io.direction": "receive"})
        if call is not None:
            self._count_call(call)

    def _count_call(self, call: ModelCall) -> None:
        all_attributes = span_attributes(call)
        attributes: Attributes = {name: all_attributes[name] for name in _LABELS_OF_CALLS if name in all_attributes}
        for name in ("gen_ai.request.model", "gen_ai.response.model"):
            if name in attributes:
                attributes[name] = encodable(self._model(str(attributes[name])))
        if call.duration is not None:
            self._call_duration.record(call.duration, attributes)
        if call.first_token is not None:
            self._first_chunk.record(call.first_token, attributes)
        counts = {
            "input": call.tokens.input,
            "output": call.tokens.output,
            "cache_read": call.tokens.cache_read,
            "cache_write": call.tokens.cache_write,
            "reasoning": call.tokens.reasoning,
        }
        for kind, count in counts.items():
            if count is None:
                # unknown is not zero
                continue
            if self._tokens is not None and kind in ("input", "output"):
                self._tokens.record(count, attributes | {"gen_ai.token.type": kind})
            if kind in self._tokens_of_call:
                self._tokens_of_call[kind].record(count, attributes)
            if kind in self._tokens_in_all:
                self._tokens_in_all[kind].add(count, attributes)

    def close(self, timeout: float) -> None:
        """Send the figures once more."""
        try:
            self._provider.shutdown(timeout_millis=timeout * 1000)
        except Exception as error:
            # of the reader, whatever it is that its exporter says
            log.warning("the last figures were not sent: %r", error)


_LABELS_OF_CALLS = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model", "error.type")
