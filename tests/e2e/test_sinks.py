"""The ready-made sinks on real traffic: what stands in their files, and what a collector is sent, of the same flows."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from soth_mitm.observe import (
    EventLog,
    EventSink,
    FlowEvent,
    FlowEventKind,
    FlowUpdate,
    HarSink,
    NdjsonSink,
    SqliteSink,
    comparable,
    har_document,
)
from soth_mitm.observe.har_stored import stored_har_flow
from soth_mitm.observe.store.reader import StoreReader, all_rows
from support.certs import TestCA
from support.har_rules import problems_of
from support.http2_inside import Http2Client
from support.made_flows import model_events
from support.origin import Origin, Request, ScriptedConnection
from support.otlp_receiver import attributes_of, otlp_receiver
from support.running import HOST, ProxyFactory, Running
from support.source import ROOT
from support.websocket import FIN, MASK, TEXT, accept, ask, closing, frame

SECRET = "sk-live-0123456789abcdefghij"
STEADY = frozenset(FlowEventKind) - {FlowEventKind.REQUEST_BODY_CHUNK, FlowEventKind.RESPONSE_BODY_CHUNK}
"""Events whose number does not depend on how bytes come in."""


class Gate(InterceptHandler):
    def on_request(self, request: RawRequest) -> HandlerDecision:
        return HandlerDecision.block(403, "no") if request.path == "/block" else HandlerDecision.ALLOW


def answer_as_model(connection: ScriptedConnection, request: Request) -> None:
    connection.read_body()
    body = b"".join(model_events())
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def chat(connection: ScriptedConnection, request: Request) -> None:
    connection.send(accept(request))
    connection.send(frame(FIN | TEXT, json.dumps({"api_key": SECRET}).encode()))
    heard = b""
    while b"\x88" not in heard:
        heard += connection.receive()
    connection.send(closing(1000, b""))
    connection.close()


def play(running: Running, origin: Origin, plain_origin: Origin) -> None:
    """Have one flow of each kind."""
    origin.script(answer_as_model, "/v1/messages")
    plain_origin.script(chat, "/chat")
    body = json.dumps({"password": SECRET, "n": 1}).encode()
    asked = json.dumps({"model": "claude-sonnet-4-5", "stream": True, "messages": [{"role": "user", "content": "Why?"}]}).encode()
    with running.secured(origin.port) as client:
        head = (
            f"POST /echo?key={SECRET} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        client.send(head.encode() + body)
        assert client.read_answer().status == 200
        assert client.request("/sse/3/1", HOST).status == 200
        assert client.request("/block", HOST).status == 403
        head = f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {SECRET}\r\nContent-Length: {len(asked)}\r\n\r\n"
        client.send(head.encode() + asked)
        assert client.read_answer().status == 200
    with running.secured(origin.port, HOST, "h2") as client:
        assert Http2Client(client.socket, f"{HOST}:{origin.port}").request("/bytes/10").status == 200
    with running.tunnel(plain_origin.port) as client:
        client.send(ask())
        assert client.read_head().status == 101
        client.send(frame(FIN | TEXT, b"hello", MASK) + closing(1000, b"", MASK))
        client.read_to_end()
    running.wait_idle()


PATHS = ["/echo", "/sse/3/1", "/block", "/v1/messages", "/bytes/10", "/chat"]


def har_entries(document: bytes) -> list[dict[str, Any]]:
    har = json.loads(document)
    assert problems_of(har) == []
    return sorted(har["log"]["entries"], key=lambda entry: entry["startedDateTime"])


def check_entries(entries: list[dict[str, Any]]) -> None:
    """Check what both HAR files have, that of the sink and that of the store."""
    assert [entry["request"]["url"].partition("?")[0].rpartition(":")[2].partition("/")[2] for entry in entries] == [
        path[1:] for path in PATHS
    ]
    echo, sse, block, call, binary, socket = entries
    assert echo["request"]["headers"][1]["value"].startswith("Bearer masked #")
    assert json.loads(echo["request"]["postData"]["text"])["n"] == 1
    assert echo["response"]["content"]["size"] == echo["response"]["bodySize"] > 100
    assert all(echo["timings"][name] > 0 for name in ("connect", "ssl", "wait"))
    assert sse["timings"]["connect"] == -1
    assert sse["response"]["content"]["text"].count("event: tick") == 3
    assert (block["response"]["status"], block["_sothmitm"]["outcome"]) == (403, "blocked")
    assert call["_sothmitm"]["modelCall"]["model"] == "claude-sonnet-4-5"
    assert call["_sothmitm"]["modelCall"]["tokens"]["output"] == 318
    assert binary["request"]["httpVersion"] == "http/2.0"
    # who speaks first is not said
    assert sorted((message["type"], message["data"].partition("masked")[0]) for message in socket["_webSocketMessages"]) == [
        ("receive", '{"api_key": "'),
        ("send", "hello"),
    ]
    assert socket["_webSocketClose"] == {"code": 1000, "by": "client"}


class MadeProducer:
    """Delivers at once."""

    def __init__(self) -> None:
        self.values: list[dict[str, Any]] = []

    def list_topics(self, timeout: float) -> None:
        pass

    def produce(self, topic: str, *, key: bytes, value: bytes, on_delivery: Any) -> None:
        self.values.append(json.loads(value))
        on_delivery(None, None)

    def poll(self, timeout: float) -> int:
        return 0

    def flush(self, timeout: float) -> int:
        return 0


class TestAllAtOnce:
    def test_each_has_every_flow_and_none_has_a_credential(
        self, proxy: ProxyFactory, origin: Origin, plain_origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with otlp_receiver() as receiver:
            from soth_mitm.observe import OtelSink

            log, har, store = tmp_path / "events.ndjson", tmp_path / "a.har", tmp_path / "flows.db"
            producer = MadeProducer()
            kafka = runpy.run_path(str(ROOT / "docs/examples/kafka_sink.py"))["KafkaSink"](producer, "flows")
            otel = OtelSink(receiver.url)
            sinks = [NdjsonSink(log), HarSink(har), SqliteSink(store, full_text="off", min_free_bytes=0), otel, kafka]
            running = proxy(Gate(), sinks=sinks)
            play(running, origin, plain_origin)
            running.handle.shutdown(10)
        events = EventLog(log)
        kinds = Counter(event.kind for event in events if event.flow_id)
        assert (events.missing, events.torn) == (0, 0)
        assert kinds[FlowEventKind.REQUEST_HEADERS] == kinds[FlowEventKind.STREAM_CLOSED] == 6
        assert kinds[FlowEventKind.SSE_EVENT] == 3 + len(model_events())
        check_entries(har_entries(har.read_bytes()))
        with StoreReader(store) as reader:
            flows = [reader.flow(row.id) for row in sorted(all_rows(reader), key=lambda row: row.started)]
        check_entries(har_entries(b"".join(har_document((stored_har_flow(flow) for flow in flows if flow is not None), "1"))))
        assert [value["path"].partition("?")[0] for value in producer.values if value["kind"] == "http"] == PATHS[:-1]
        assert otel.lost == 0
        spans = [span for span in receiver.spans if not span.name.startswith("chat ")]
        urls = [str(attributes_of(span)["url.full"]).partition("?")[0] for span in spans]
        assert sorted("/" + url.partition("://")[2].partition("/")[2] for url in urls) == sorted(PATHS)
        (child,) = (span for span in receiver.spans if span.name.startswith("chat "))
        assert attributes_of(child)["gen_ai.usage.output_tokens"] == 318
        # nowhere, in no spelling that any of them uses
        kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith(("events", "a.har", "flows.db")))
        assert SECRET.encode() not in kept
        assert SECRET not in str(receiver.spans) + json.dumps(producer.values)

    def test_none_that_fails_harms_traffic_or_another(
        self, proxy: ProxyFactory, origin: Origin, plain_origin: Origin, tmp_path: Path
    ) -> None:
        class Failing(EventSink):
            flows = True

            def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
                raise RuntimeError("it cannot")

        running = proxy(Gate(), sinks=[Failing(), HarSink(tmp_path / "a.har")])
        play(running, origin, plain_origin)
        running.handle.shutdown(10)
        check_entries(har_entries((tmp_path / "a.har").read_bytes()))


class TestTheSameTraffic:
    def test_two_runs_give_the_same_log(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path) -> None:
        logs = []
        for name in ("one", "two"):
            running = proxy(Gate(), sinks=[NdjsonSink(tmp_path / name, kinds=STEADY)])
            with running.secured(origin.port) as client:
                for path in ("/bytes/10", "/sse/3/1", "/block", "/status/404"):
                    assert client.request(path, HOST).status in (200, 403, 404)
                running.wait_idle("active_flows")
            with running.secured(origin.port, HOST, "h2") as client:
                assert Http2Client(client.socket, f"{HOST}:{origin.port}").request("/bytes/10").status == 200
            running.wait_idle()
            running.handle.shutdown(10)
            logs.append(comparable(EventLog(tmp_path / name)))
        assert len(logs[0]) > 20
        assert logs[0] == logs[1]

    def test_an_archive_can_be_read_while_the_proxy_runs(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path) -> None:
        running = proxy(Gate(), sinks=[HarSink(tmp_path / "a.har")])
        assert har_entries((tmp_path / "a.har").read_bytes()) == []
        with running.secured(origin.port) as client:
            assert client.request("/bytes/10", HOST).status == 200
        running.handle.shutdown(10)
        assert len(har_entries((tmp_path / "a.har").read_bytes())) == 1


class TestStreams:
    def test_what_is_cut_is_kept_as_far_as_it_came(self, proxy: ProxyFactory, origin: Origin, origin_ca: TestCA, tmp_path: Path) -> None:
        running = proxy(Gate(), sinks=[HarSink(tmp_path / "a.har")])
        with running.secured(origin.port) as client:
            client.send(b"GET /sse/1000/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.read_head().status == 200
        running.wait_idle()
        running.handle.shutdown(10)
        (entry,) = har_entries((tmp_path / "a.har").read_bytes())
        assert entry["_sothmitm"]["outcome"] == "cut_by_client"
        assert entry["response"]["_error"]
        assert 0 <= entry["response"]["content"].get("text", "").count("event: tick") < 1000
