"""`OtelSink`: the spans and figures that a collector gets, and what becomes of them where it is slow, refuses, or is not there."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from soth_mitm.observe.flow_record import FlowUpdate
from soth_mitm.observe.masking import Masker
from soth_mitm.observe.otel_attributes import url_of
from soth_mitm.observe.otel_export import MOST_WAITING, SpanExport
from soth_mitm.observe.otel_names import OTHER, Bounded
from support.made_flows import BEGAN, event, exchange, fields, mixed, model_stream, record, refused, sink_info, tunnel
from support.otlp_receiver import OtlpReceiver, attributes_of, otlp_receiver

SECRET = "sk-0123456789abcdef"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with otlp_receiver() as found:
        yield found


def sent(receiver: OtlpReceiver, *updates: FlowUpdate, **options: Any) -> list[Any]:
    """Send what has happened, and return the spans that came."""
    from soth_mitm.observe.otel import OtelSink

    sink = OtelSink(receiver.url, **options)
    sink.open(sink_info())
    sink.accept([event(), *updates])
    sink.close(20.0)
    assert sink.sent == len(receiver.spans) and sink.lost == 0
    return receiver.spans


class TestSpans:
    def test_a_flow(self, receiver: OtlpReceiver) -> None:
        (span,) = sent(receiver, exchange(1, request=b'{"a": 1}'))
        assert span.name == "POST"
        assert span.kind == 3
        assert span.start_time_unix_nano == int((BEGAN + 1) * 1e9)
        assert span.end_time_unix_nano - span.start_time_unix_nano == pytest.approx(0.31e9)
        assert span.parent_span_id == b""
        assert span.status.code == 0
        assert attributes_of(span) == {
            "http.request.method": "POST",
            "url.full": "https://api.example.com/items/1?page=2",
            "server.address": "api.example.com",
            "server.port": 443,
            "http.response.status_code": 200,
            "network.protocol.name": "http",
            "network.protocol.version": "2",
            "network.peer.address": "127.0.0.9",
            "network.peer.port": 443,
            "http.request.body.size": 8,
            "http.response.body.size": 12,
            "sothmitm.flow.id": 1,
            "sothmitm.flow.kind": "http",
            "sothmitm.outcome": "answered",
            "sothmitm.protocol": "http2",
            "sothmitm.pattern": "api.example.com:443",
            "sothmitm.decision": "allowed",
            "sothmitm.program": "claude",
            "sothmitm.pid": 48121,
        }
        resource = receiver.resources[0]
        assert resource["service.name"] == "soth-mitm" and resource["service.version"] == "0.1.0"

    def test_the_span_of_the_client_is_its_parent(self, receiver: OtlpReceiver) -> None:
        head = fields(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate="vendor=1")
        (span,) = sent(receiver, exchange(request_fields=head))
        assert span.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
        assert span.parent_span_id.hex() == "b7ad6b7169203331"
        assert span.trace_state == "vendor=1"

    def test_a_client_that_does_not_record(self, receiver: OtlpReceiver) -> None:
        head = fields(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
        assert sent(receiver, exchange(request_fields=head)) == []

    @pytest.mark.parametrize("text", ["no", "00-0-0-0", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
    def test_what_is_no_traceparent(self, receiver: OtlpReceiver, text: str) -> None:
        (span,) = sent(receiver, exchange(request_fields=fields(traceparent=text)))
        assert span.parent_span_id == b""

    @pytest.mark.parametrize(
        ("changes", "error", "words"),
        [
            ({"status": 404}, "404", ""),
            ({"status": 0, "outcome": "upstream_timeout", "cause": "no answer in 30 s"}, "upstream_timeout", "no answer in 30 s"),
            ({"status": 403, "outcome": "blocked", "cause": "not allowed"}, "blocked", "not allowed"),
        ],
    )
    def test_errors(self, receiver: OtlpReceiver, changes: dict[str, Any], error: str, words: str) -> None:
        (span,) = sent(receiver, exchange(**changes))
        assert attributes_of(span)["error.type"] == error
        assert (span.status.code, span.status.message) == (2, words)

    def test_methods_that_are_not_known(self, receiver: OtlpReceiver) -> None:
        (span,) = sent(receiver, exchange(method="BREW"))
        assert span.name == "HTTP"
        found = attributes_of(span)
        assert (found["http.request.method"], found["http.request.method_original"]) == ("_OTHER", "BREW")

    def test_tunnels_and_refusals(self, receiver: OtlpReceiver) -> None:
        spans = sent(receiver, tunnel(1), refused(2))
        assert [span.name for span in spans] == ["CONNECT", "CONNECT"]
        assert "url.full" not in attributes_of(spans[0])
        assert [attributes_of(span)["sothmitm.flow.kind"] for span in spans] == ["tunnel", "refused"]

    def test_only_what_has_ended(self, receiver: OtlpReceiver) -> None:
        assert sent(receiver, FlowUpdate(record(1, is_over=False)), *model_stream(2)[:-1]) == []

    def test_no_credential_is_sent(self, receiver: OtlpReceiver) -> None:
        path = f"/v1?key={SECRET}&a=%2F1&to=https%3A%2F%2Fh%2F%3Fsig%3D{SECRET}%26b%3D1"
        (span,) = sent(receiver, exchange(path=path, request_fields=fields(authorization=f"Bearer {SECRET}")))
        assert SECRET not in str(span)
        expected = "https://api.example.com/v1?key=REDACTED&a=%2F1&to=https%3A%2F%2Fh%2F%3Fsig%3DREDACTED%26b%3D1"
        assert attributes_of(span)["url.full"] == expected

    def test_what_peers_send_is_no_harm(self, receiver: OtlpReceiver) -> None:
        odd = exchange(host="\udcff", path="/\ud800?key=\udcff", method="\udcff", cause="\udcff", outcome="refused", grpc_status="²")
        (span,) = sent(receiver, odd)
        assert attributes_of(span)["server.address"] == "\\udcff"

    def test_names_and_headers_of_ones_own(self, receiver: OtlpReceiver) -> None:
        sent(receiver, exchange(), service_name="gate", attributes={"deployment.environment.name": "test"}, headers={"x-token": "1"})
        assert receiver.resources[0]["service.name"] == "gate"
        assert receiver.resources[0]["deployment.environment.name"] == "test"
        assert all(headers["x-token"] == "1" for headers in receiver.headers)

    def test_many(self, receiver: OtlpReceiver) -> None:
        spans = sent(receiver, *mixed(2000))
        assert len([span for span in spans if not span.parent_span_id]) == 2000


class TestCalls:
    def test_a_call(self, receiver: OtlpReceiver) -> None:
        child, span = sent(receiver, *model_stream())
        assert span.name == "POST" and child.name == "chat claude-sonnet-4-5"
        assert child.parent_span_id == span.span_id and child.trace_id == span.trace_id
        found = attributes_of(child)
        assert found["gen_ai.provider.name"] == "anthropic"
        assert found["gen_ai.usage.input_tokens"] == 467 + 13_824 + 611
        assert found["gen_ai.usage.output_tokens"] == 318
        assert found["gen_ai.response.finish_reasons"] == ["tool_use"]
        assert found["gen_ai.response.time_to_first_chunk"] > 0.4
        assert found["server.address"] == "api.anthropic.com"
        # what was said is not sent
        assert not [name for name in found if "messages" in name or "instructions" in name]
        assert "flaky" not in str(child)

    def test_what_was_said_where_it_is_asked_for(self, receiver: OtlpReceiver) -> None:
        child, _ = sent(receiver, *model_stream(), content=True)
        found = attributes_of(child)
        (asked,) = json.loads(found["gen_ai.input.messages"])
        assert asked["role"] == "user" and asked["parts"][0]["type"] == "text" and "flaky" in asked["parts"][0]["content"]
        (answer,) = json.loads(found["gen_ai.output.messages"])
        assert answer["parts"][0] == {"type": "text", "content": "I will look at how the deadline is computed."}
        assert answer["parts"][1]["name"] == "read_file"
        assert answer["finish_reason"] == "tool_calls"

    def test_other_forms_of_messages(self, receiver: OtlpReceiver) -> None:
        body = {
            "model": "gpt",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "file_id": "f"}]}, "and"],
            "instructions": "be kind",
            "tools": [],
        }
        answer = {"id": "r", "object": "response", "status": "completed", "model": "gpt", "output": []}
        updates = exchange(
            request=json.dumps(body).encode(), response=json.dumps(answer).encode(), host="api.openai.com", path="/v1/responses"
        )
        child, _ = sent(receiver, updates, content=True)
        found = attributes_of(child)
        assert json.loads(found["gen_ai.system_instructions"]) == [{"type": "text", "content": "be kind"}]
        first, second = json.loads(found["gen_ai.input.messages"])
        assert [part["type"] for part in first["parts"]] == ["text", "input_image"]
        assert second == {"role": "user", "parts": [{"type": "text", "content": "and"}]}

    def test_what_was_said_is_masked(self, receiver: OtlpReceiver) -> None:
        asked = {"model": "m", "messages": [{"role": "user", "content": json.dumps({"password": SECRET})}]}
        answer = {
            "id": "1",
            "object": "chat.completion",
            "model": "m",
            "choices": [{"index": 0, "message": {"content": f'{{"api_key":"{SECRET}"}}'}}],
        }
        update = exchange(
            request=json.dumps(asked).encode(), response=json.dumps(answer).encode(), host="api.openai.com", path="/v1/chat/completions"
        )
        child, _ = sent(receiver, update, content=True)
        assert SECRET not in str(child)
        assert "masked" in attributes_of(child)["gen_ai.input.messages"]

    def test_none_are_looked_for(self, receiver: OtlpReceiver) -> None:
        from soth_mitm.observe.otel import OtelSink

        assert OtelSink(receiver.url, calls=False).content == 0
        (span,) = sent(receiver, *model_stream(), calls=False)
        assert span.name == "POST"


class TestFigures:
    def test_flows(self, receiver: OtlpReceiver) -> None:
        sent(receiver, exchange(1), exchange(2), exchange(3, status=500), tunnel(4))
        points = receiver.points("http.client.request.duration")
        assert receiver.metrics["http.client.request.duration"].unit == "s"
        assert {(found.get("error.type"), point.count) for found, point in points} == {(None, 2), ("500", 1)}
        assert list(points[0][1].explicit_bounds)[:3] == [0.005, 0.01, 0.025]
        counts = {(found["outcome"], found["pattern"]): point.as_int for found, point in receiver.points("sothmitm.flows")}
        assert counts == {("answered", "api.example.com:443"): 3, ("tunnelled", "unlisted"): 1}

    def test_calls(self, receiver: OtlpReceiver) -> None:
        sent(receiver, *model_stream(1), *model_stream(2))
        tokens = {found["gen_ai.token.type"]: point.sum for found, point in receiver.points("gen_ai.client.token.usage")}
        assert tokens == {"input": 2 * 14_902, "output": 2 * 318}
        found, point = receiver.points("gen_ai.client.operation.duration")[0]
        assert point.count == 2 and found["gen_ai.response.model"] == "claude-sonnet-4-5"
        assert receiver.points("gen_ai.client.operation.time_to_first_chunk")[0][1].count == 2

    def test_calls_by_the_newer_names(self, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http, gen_ai_latest_experimental")
        sent(receiver, *model_stream())
        assert receiver.points("gen_ai.client.inference.usage.input_tokens")[0][1].as_int == 14_902
        assert receiver.points("gen_ai.client.inference.usage.cache_read.input_tokens")[0][1].as_int == 13_824
        assert receiver.points("gen_ai.client.inference.operation.output_tokens")[0][1].sum == 318
        assert "gen_ai.client.token.usage" not in receiver.metrics

    def test_counts_that_were_not_observed_are_not_zero(self, receiver: OtlpReceiver) -> None:
        answer = {"id": "1", "object": "chat.completion", "model": "m", "choices": [{"index": 0, "message": {"content": "yes"}}]}
        asked = b'{"model": "m", "messages": []}'
        child, _ = sent(receiver, exchange(request=asked, response=json.dumps(answer).encode(), path="/v1/chat/completions"))
        assert child.name == "chat m"
        assert "gen_ai.client.token.usage" not in receiver.metrics
        assert "gen_ai.client.operation.duration" in receiver.metrics

    def test_none(self, receiver: OtlpReceiver) -> None:
        sent(receiver, exchange(), metrics=False)
        assert receiver.paths == ["/v1/traces"]

    def test_labels_that_peers_choose_are_bounded(self, receiver: OtlpReceiver) -> None:
        sent(receiver, *(exchange(number, host=f"h{number}.example") for number in range(300)))
        points = receiver.points("http.client.request.duration")
        assert len(points) == 201
        other = next(point for found, point in points if found["server.address"] == "_OTHER")
        assert other.count == 100

    def test_so_many_words(self) -> None:
        bounded = Bounded(2)
        assert [bounded(word) for word in "abcab"] == ["a", "b", OTHER, "a", "b"]


class TestFaults:
    def test_a_collector_that_refuses(self, receiver: OtlpReceiver) -> None:
        from soth_mitm.observe.otel import OtelSink

        receiver.status = 400
        sink = OtelSink(receiver.url)
        sink.open(sink_info())
        sink.accept([exchange(1), exchange(2)])
        sink.close(20.0)
        assert (sink.sent, sink.lost) == (0, 2)

    def test_a_collector_that_hangs_holds_up_nothing(self, receiver: OtlpReceiver) -> None:
        from soth_mitm.observe.otel import OtelSink

        receiver.holds.set()
        sink = OtelSink(receiver.url, metrics=False)
        sink.open(sink_info())
        sink.accept([exchange(number) for number in range(1000)])
        sink.close(0.5)
        assert sink.lost == 1000 - 512
        receiver.release.set()

    def test_no_collector(self) -> None:
        with otlp_receiver() as gone:
            url = gone.url
        from soth_mitm.observe.otel import OtelSink

        sink = OtelSink(url, metrics=False, timeout=0.2)
        sink.open(sink_info())
        sink.accept([exchange()])
        sink.close(20.0)
        assert (sink.sent, sink.lost) == (0, 1)

    def test_who_adds_waits_where_too_much_waits(self) -> None:
        import threading

        release, begun = threading.Event(), threading.Event()

        def export(spans: Any) -> bool:
            begun.set()
            return release.wait(60)

        sending = SpanExport(export)
        sending.add([0] * 512)
        assert begun.wait(60)
        sending.add([0] * MOST_WAITING)
        adding = threading.Thread(target=sending.add, args=([0],))
        adding.start()
        release.set()
        adding.join(60)
        sending.close(60)
        assert (sending.sent, sending.lost) == (512 + MOST_WAITING + 1, 0)

    @pytest.mark.parametrize("options", [{"endpoint": "collector:4318"}, {"interval": 0}, {"timeout": -1}, {"mask": ("a b",)}])
    def test_wrong_arguments(self, receiver: OtlpReceiver, options: dict[str, Any]) -> None:
        from soth_mitm.observe.otel import OtelSink

        with pytest.raises(ValueError):
            OtelSink(**options)

    def test_a_package_that_is_missing_is_named_with_its_extra(self) -> None:
        code = (
            "import sys; sys.modules['opentelemetry'] = None\n"
            "from soth_mitm.observe import OtelSink\n"
            "try: OtelSink('http://127.0.0.1:1')\nexcept ImportError as error: print(error)"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "opentelemetry-sdk" in ran.stdout and "soth-mitm[otel]" in ran.stdout


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"host": "::1", "port": 8443, "path": "/"}, "https://[::1]:8443/"),
        ({"scheme": "http", "port": 80, "path": "*"}, "http://api.example.com/"),
        ({"path": "/?sig=0123456789abcdef&b=masked%20x"}, "https://api.example.com/?sig=REDACTED&b=REDACTED"),
    ],
)
def test_urls(changes: dict[str, Any], url: str) -> None:
    assert url_of(record(1, **changes), Masker(key=None)) == url
