"""A collector for tests: takes OTLP over HTTP on a loopback port, and decodes it."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


def plain(value: Any) -> Any:
    """Return an attribute's value as Python has it."""
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [plain(each) for each in found.values] if kind == "array_value" else found


def attributes_of(item: Any) -> dict[str, Any]:
    """Return the attributes of a span, a point or a resource."""
    return {each.key: plain(each.value) for each in item.attributes}


class OtlpReceiver:
    """What a collector was sent. `status` is what it answers; while `holds` is set, it does not answer."""

    def __init__(self) -> None:
        self.status = 200
        self.holds = threading.Event()
        self.release = threading.Event()
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.metrics: dict[str, Any] = {}
        """The last state of each, by name."""
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.url = ""

    def take(self, path: str, body: bytes) -> None:
        """Decode one request."""
        self.paths.append(path)
        if path == "/v1/traces":
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

            traces = ExportTraceServiceRequest.FromString(body)
            for resource in traces.resource_spans:
                self.resources.append(attributes_of(resource.resource))
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        else:
            from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

            metrics = ExportMetricsServiceRequest.FromString(body)
            for each in metrics.resource_metrics:
                for scope in each.scope_metrics:
                    self.metrics |= {metric.name: metric for metric in scope.metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Return the points of a metric with their attributes."""
        metric = self.metrics[name]
        data = getattr(metric, metric.WhichOneof("data"))
        return [(attributes_of(point), point) for point in data.data_points]


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """Run a collector; tests that use it are skipped where the packages of the extra `otel` are missing."""
    for needed in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"):
        pytest.importorskip(needed, reason="the extra `otel` is not installed")
    receiver = OtlpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if receiver.holds.is_set():
                receiver.release.wait(60)
            receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
            if receiver.status == 200:
                receiver.take(self.path, body)
            self.send_response(receiver.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
