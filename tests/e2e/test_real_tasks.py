"""Real tasks of who changes traffic, each by itself and in a chain, with the programs that are used for them."""

from __future__ import annotations

import contextlib
import json
import re
import runpy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e.test_credentials_in_sdks import SDKS, ask_anthropic, ask_openai, serving
from tests.e2e.test_filters import encoded, serve
from tests.e2e.test_response_decisions import says
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websockets

from soth_mitm import Chain, ChunkDecision, FrameKind, HandlerDecision, InterceptHandler, RawRequest, SseEvent, StreamChunk, rules
from support.certs import TestCA
from support.origin import Origin
from support.pairings import PAIRINGS, PairedClient, paired_origin
from support.recording import Recording
from support.running import HOST, ProxyFactory, Running
from support.source import ROOT

__all__ = ["serving"]

MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
WORDS = "Ask ann.lee@mail.example about it. Bye."
CLEAN = "Ask [redacted] about it. Bye."


class Allows(InterceptHandler):
    """Looks at requests, as the client is offered HTTP/2 only where a proxy does."""

    def on_request(self, request: RawRequest) -> HandlerDecision:
        return HandlerDecision.ALLOW


class Pair:
    def __init__(self, running: Running, origin: Origin, client: PairedClient) -> None:
        self.running, self.origin, self.client = running, origin, client


@pytest.fixture(params=PAIRINGS, ids="".join)
def pair(request: pytest.FixtureRequest, proxy: ProxyFactory, origin_ca: TestCA) -> Iterator[Callable[..., Pair]]:
    client, upstream = request.param
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(paired_origin(origin_ca, upstream))

        def make(handler: Any, **keys: Any) -> Pair:
            running = proxy(handler, **{"http2.for_http1_clients": True, **keys})
            made = Pair(running, origin, PairedClient(running, origin.port, client))
            stack.callback(made.client.close)
            return made

        yield make


def in_chain(rule: Any) -> Chain:
    return Chain(rules.set_header("X-Own", "yes", where="response"), rule, Recording())


ALONE = pytest.mark.parametrize("form", [lambda rule: Chain(Allows(), rule), in_chain], ids=["alone", "chain"])
Form = Callable[[Any], Chain]


def has_own(form: Form) -> str | None:
    return "yes" if form is in_chain else None


@ALONE
class TestRedactMail:
    def test_in_a_body(self, pair: Callable[..., Pair], form: Form) -> None:
        made = pair(form(rules.redact(MAIL)))
        body = json.dumps({"to": WORDS}).encode()
        made.origin.script(
            says(b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b' % (len(body), body))
        )
        answer = made.client.ask("/x", fields=[("If-None-Match", '"1"'), ("Range", "bytes=0-9")])
        assert (json.loads(answer.body), answer.get("etag"), answer.get("x-own")) == ({"to": CLEAN}, None, has_own(form))
        sent = made.origin.requests[-1]
        assert (sent.get("if-none-match"), sent.get("range")) == (None, None)

    @pytest.mark.parametrize("coding", [None, "gzip", "br"])
    @pytest.mark.parametrize("form_of", ["openai", "anthropic"])
    def test_in_text_that_is_divided_over_events(self, pair: Callable[..., Pair], form: Form, form_of: str, coding: str | None) -> None:
        made = pair(form(rules.redact(MAIL)))
        pieces = [WORDS[at : at + 4] for at in range(0, len(WORDS), 4)]
        if form_of == "openai":
            events: list[Any] = [{"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
            events += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, "[DONE]"]
        else:
            events = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in pieces]
            events += [{"type": "content_block_stop", "index": 0}]
        sent = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode() for event in events]
        head = ""
        if coding is not None:
            whole = encoded(coding, b"".join(sent))
            sent, head = [whole[at : at + 50] for at in range(0, len(whole), 50)], f"Content-Encoding: {coding}\r\n"
        serve(made.origin, *sent, head=head)
        answer = made.client.ask("/x", fields=[("Accept-Encoding", coding or "identity")])
        left = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
        if form_of == "openai":
            text = "".join(choice["delta"].get("content", "") for event in left for choice in event["choices"])
        else:
            text = "".join(event["delta"]["text"] for event in left if event["type"] == "content_block_delta")
        assert text == CLEAN
        assert b"ann" not in answer.body and b"mail" not in answer.body
        assert (answer.get("x-own"), answer.get("content-encoding")) == (has_own(form), None)

    def test_what_was_held_of_a_stream_goes_with_it(self, pair: Callable[..., Pair], form: Form) -> None:
        rule: Any = rules.redact(MAIL)
        made = pair(form(rule))
        event = json.dumps({"choices": [{"index": 0, "delta": {"content": "ann@ma"}}]})
        serve(made.origin, f"data: {event}\n\n".encode())
        assert b"ann" not in made.client.ask("/x").body
        made.client.close()
        made.running.wait_idle("active_connections", "active_flows", "buffered_bytes")
        assert rule._streams == {}

    @pytest.mark.parametrize(
        ("keys", "size"), [({"body.max_size_bytes": 1024}, 2000), ({"body.max_size_bytes": 1024, "body.overflow": "reject"}, 2000)]
    )
    def test_what_is_too_long_to_be_searched(self, pair: Callable[..., Pair], form: Form, keys: dict[str, Any], size: int) -> None:
        made = pair(form(rules.redact(MAIL)), **keys)
        body = b"x" * size + WORDS.encode()
        made.origin.script(says(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)))
        answer = made.client.ask("/x")
        assert answer.status == 502 and b"mail" not in answer.body


def openai_text() -> list[SseEvent]:
    pieces = [WORDS[at : at + 5] for at in range(0, len(WORDS), 5)]
    common = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    events = [SseEvent(json.dumps({**common, "choices": [{"index": 0, "delta": {"content": piece}}]})) for piece in pieces]
    return [*events, SseEvent("[DONE]")]


@ALONE
def test_the_sdk_reads_what_is_left(proxy: ProxyFactory, serving: Any, form: Form) -> None:
    origin = serving(HOST)
    sent = b"".join(b"data: " + bytes(event.data) + b"\n\n" for event in openai_text())  # type: ignore[arg-type]
    serve(origin, sent, path="/v1/chat/completions")
    assert ask_openai(proxy(form(rules.redact(MAIL))), origin) == CLEAN


@SDKS
@ALONE
def test_mock_a_model(proxy: ProxyFactory, serving: Any, ask: Any, events: Callable[[], list[SseEvent]], key: str, form: Form) -> None:
    origin = serving(HOST)
    running = proxy(form(rules.mock_json("POST", "https://localhost:*/v1/*", events())))
    assert ask is ask_openai or ask is ask_anthropic
    assert ask(running, origin) == "Hello there"
    assert origin.requests == []


@ALONE
def test_delete_a_tool(pair: Callable[..., Pair], form: Form) -> None:
    made = pair(form(runpy.run_path(str(ROOT / "docs/examples/redact.py"))["Redact"]()))
    tools = [{"name": "search"}, {"name": "run_shell"}]
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).encode()
    made.origin.script(says(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)))
    answer = made.client.ask("/mcp", "POST", b'{"method": "tools/list"}')
    assert json.loads(answer.body)["result"]["tools"] == [{"name": "search"}]
    assert answer.get("x-own") == has_own(form)


class Moderates(InterceptHandler):
    """Edits, drops and ends messages of a chat."""

    filter_kinds = frozenset({FrameKind.WEBSOCKET_TEXT})

    def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        if "spam" in chunk.text:
            return ChunkDecision.DROP
        if "darn" in chunk.text:
            return ChunkDecision.replace(chunk.text.replace("darn", "****"))
        return ChunkDecision.PASS


@pytest.fixture
def chat(origin_ca: TestCA) -> Iterator[int]:
    """A server that says what it hears, louder."""

    def talk(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message.upper() if isinstance(message, str) else message)

    with serve_websockets(talk, "127.0.0.1", 0, ssl=origin_ca.server_context(HOST)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("compression", ["deflate", None])
@ALONE
def test_edit_messages_of_a_chat(proxy: ProxyFactory, chat: int, form: Form, compression: str | None) -> None:
    running = proxy(form(Chain(Moderates(), rules.redact("ANN"))))
    url = f"wss://{HOST}:{chat}/room"
    with connect(url, proxy=running.url, ssl=running.client_context(), compression=compression) as client:
        assert (client.response is not None) and client.response.headers.get("X-Own") == has_own(form)
        for said in ("hello, hello", "spam spam", "darn it", "ann is here", "x" * 100_000):
            client.send(said)
        client.send(b"\x00\x01")
        heard = [client.recv(timeout=30) for _ in range(5)]
        assert heard == ["HELLO, HELLO", "**** IT", "[redacted] IS HERE", "X" * 100_000, b"\x00\x01"]
    running.wait_idle("active_connections", "active_flows")
    assert running.metrics().filtered_chunk_count_by_decision["drop"] == 1


def test_the_example_of_the_page(pair: Callable[..., Pair], capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(ROOT / "docs/examples/redact_text.py"))
    made = pair(Chain(Allows(), example["RedactText"]()))
    body = b"Project Nightingale by ann@b.example"
    made.origin.script(says(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)))
    answer = made.client.ask("/x")
    assert (answer.body, answer.get("x-redacted")) == (b"[redacted] by [redacted]", "yes")
    made.running.wait_idle("active_flows")
    assert "200 b'[redacted] by [redacted]'" in capsys.readouterr().out
