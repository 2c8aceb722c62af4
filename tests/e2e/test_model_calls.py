"""Calls of models through the proxy: each provider's format from a server that plays it, over both protocols, and the providers' SDKs."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from soth_mitm import InterceptHandler, MitmConfig, MitmProxyBuilder, StreamChunk
from soth_mitm.llm import LlmObserver, ModelCall
from support import model_answers as answers
from support.certs import TestCA
from support.leaks import what_remains
from support.model_answers import ANSWERS, Spoken, counts, told, wanted
from support.origin import Origin, ScriptedConnection
from support.origin_answers import head
from support.origin_messages import Request
from support.programs import CLIENTS, PATIENCE, run
from support.running import Running


class Calls:
    """What an observer told, from whatever thread."""

    def __init__(self) -> None:
        self._calls: list[ModelCall] = []
        self._changed = threading.Condition()

    def add(self, call: ModelCall) -> None:
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()

    async def add_later(self, call: ModelCall) -> None:
        await asyncio.sleep(0)
        self.add(call)

    def wait(self, count: int = 1) -> list[ModelCall]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._calls) >= count, 10), f"{len(self._calls)} of {count} calls"
            return list(self._calls)


def host_of(spoken: Spoken) -> tuple[str, int]:
    name, _, port = spoken.host.partition(":")
    return name, int(port or 443)


@pytest.fixture(params=[False, True], ids=["http1", "http2"])
def http2(request: pytest.FixtureRequest) -> bool:
    """Whether both sides speak HTTP/2."""
    return bool(request.param)


@pytest.fixture
def server(http2: bool, origin_ca: TestCA) -> Iterator[Origin]:
    """A TLS server that plays every provider."""
    names = {host_of(spoken)[0] for spoken in ANSWERS}
    alpn = ("h2", "http/1.1") if http2 else ("http/1.1",)
    with Origin(origin_ca.server_context(*sorted(names), alpn=alpn)) as origin:
        yield origin


@pytest.fixture
def connect(http2: bool) -> Callable[[Running], httpx.Client]:
    """Make clients of a proxy."""

    def make(running: Running) -> httpx.Client:
        return httpx.Client(proxy=running.url, verify=running.client_context(), http2=http2, trust_env=False, timeout=20)

    return make


Watch = Callable[..., Running]
Connect = Callable[[Running], httpx.Client]


@pytest.fixture
def watch(make_config: Callable[..., MitmConfig], server: Origin) -> Iterator[Watch]:
    """Start proxies that lead every provider's name to the server."""
    started: list[Running] = []

    def start(handler: InterceptHandler, **keys: Any) -> Running:
        pairs = {host_of(spoken) for spoken in ANSWERS}
        config = make_config(tuple(f"{name}:{port}" for name, port in pairs), **keys)
        config.upstream.connect_to = [f"{name}:{port}=127.0.0.1:{server.port}" for name, port in pairs]
        started.append(Running(MitmProxyBuilder(config, handler).build().start_in_thread(), handler))
        return started[-1]

    yield start
    for running in started:
        running.handle.shutdown(10)


def play(server: Origin, body: bytes, media: str, *, status: int = 200, coded: bool = False, cut: int | None = None) -> None:
    """Let the server answer with this body in pieces, coded as a whole, and cut after so many pieces."""
    deflate = zlib.compressobj(wbits=31)
    pieces = [body[at : at + 200] for at in range(0, len(body), 200)]
    if coded:
        pieces = [deflate.compress(piece) + deflate.flush(zlib.Z_SYNC_FLUSH) for piece in pieces] + [deflate.flush()]
    fields = [("Content-Type", media), ("Transfer-Encoding", "chunked")] + ([("Content-Encoding", "gzip")] if coded else [])

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        connection.send(head(status, *fields))
        for piece in pieces[:cut]:
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        if cut is None:
            connection.send(b"0\r\n\r\n")
        else:
            connection.reset()

    server.script(script)


def ask(client: httpx.Client, spoken: Spoken, *, whole: bool = False) -> httpx.Response:
    request = spoken.request(whole=whole)
    return client.post(request.url, content=request.body, headers=dict(request.headers.items()))


@pytest.mark.parametrize("coded", [False, True], ids=["plain", "gzip"])
def test_every_provider(watch: Watch, server: Origin, connect: Connect, coded: bool) -> None:
    """Each answer streamed and whole reaches the client as it is, and is told of as it was."""
    calls = Calls()
    running = watch(LlmObserver(calls.add))
    with connect(running) as client:
        for spoken in ANSWERS:
            play(server, spoken.stream, spoken.media, coded=coded)
            answer = ask(client, spoken)
            assert (answer.status_code, answer.content) == (200, spoken.stream)
            whole = json.dumps(spoken.whole).encode()
            play(server, whole, "application/json", coded=coded)
            assert ask(client, spoken, whole=True).content == whole
    found = calls.wait(2 * len(ANSWERS))
    for number, spoken in enumerate(ANSWERS):
        stream, plain = found[2 * number : 2 * number + 2]
        assert told(stream) == told(plain) == wanted(spoken), spoken.name
        assert (stream.streamed, plain.streamed, plain.first_token) == (True, False, None)
        assert stream.first_token is not None and stream.duration is not None and plain.duration is not None
        assert 0 < stream.first_token <= stream.duration < 30 and 0 < plain.duration < 30
        assert stream.request is not None and stream.request.connection_meta.connection_id == stream.connection_id
        assert stream.request.http_version == answer.http_version
    metrics = running.metrics()
    assert (metrics.handler_panic_count, metrics.stream_framing_error_count, metrics.blocked_request_count) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["enforce", "monitor"])
def test_a_coroutine_is_told_and_a_failing_one_ends_nothing(watch: Watch, server: Origin, connect: Connect, mode: str) -> None:
    calls = Calls()

    async def on_call(call: ModelCall) -> None:
        await calls.add_later(call)
        raise LookupError("on purpose")

    running = watch(LlmObserver(on_call), intercept_mode=mode)
    spoken = answers.ANTHROPIC
    play(server, spoken.stream, spoken.media)
    with connect(running) as client:
        assert [ask(client, spoken).content for _ in range(2)] == [spoken.stream] * 2
    assert [told(call) for call in calls.wait(2)] == [wanted(spoken)] * 2
    running.wait_idle()
    assert running.metrics().handler_panic_count == 2


def test_other_requests_are_not_told_of(watch: Watch, server: Origin, connect: Connect) -> None:
    calls = Calls()
    running = watch(LlmObserver(calls.add))
    spoken = answers.OPENAI_CHAT
    with connect(running) as client:
        play(server, b"data: {}\n\n", "text/event-stream")
        assert client.get("https://api.openai.com/v1/models").status_code == 200
        assert client.post("https://api.openai.com/v1/files", content=b"{}").status_code == 200
        assert client.post("https://api.anthropic.com/v1/messages/count_tokens", json={"messages": []}).status_code == 200
        play(server, spoken.stream, spoken.media)
        ask(client, spoken)
    running.wait_idle()
    assert [told(call) for call in calls.wait()] == [wanted(spoken)]


def test_errors(watch: Watch, server: Origin, connect: Connect) -> None:
    calls = Calls()
    running = watch(LlmObserver(calls.add))
    with connect(running) as client:
        error = b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'
        play(server, error, "application/json", status=529)
        assert ask(client, answers.ANTHROPIC).status_code == 529
        play(server, b"<html>", "text/html", status=502)
        assert ask(client, answers.ANTHROPIC).status_code == 502
    assert [(call.status, call.error, call.outcome, call.tokens.missing) for call in calls.wait(2)] == [
        (529, "overloaded_error: Overloaded", "failed", "error"),
        (502, "HTTP 502", "failed", "error"),
    ]


def test_a_server_that_cuts_its_answer(watch: Watch, server: Origin, connect: Connect) -> None:
    calls = Calls()
    running = watch(LlmObserver(calls.add))
    spoken = answers.ANTHROPIC
    play(server, spoken.stream, spoken.media, cut=6)
    with connect(running) as client, pytest.raises(httpx.RemoteProtocolError):
        ask(client, spoken)
    (call,) = calls.wait()
    assert (call.outcome, call.complete, call.error, call.problems) == ("cut", False, None, ())
    assert counts(call)[:1] == (442,) and call.tokens.missing is None
    assert call.reasoning.startswith("I need")


def test_a_client_that_leaves_before_the_counts(watch: Watch, server: Origin, connect: Connect) -> None:
    """What it has read is told of, and nothing is estimated."""
    calls, gone = Calls(), threading.Event()
    running = watch(LlmObserver(calls.add))
    spoken = answers.OPENAI_CHAT
    begin = spoken.stream[: spoken.stream.index(b"data: ", 800)]

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        connection.send(head(200, ("Content-Type", spoken.media), ("Transfer-Encoding", "chunked")))
        connection.send(b"%x\r\n%b\r\n" % (len(begin), begin))
        connection.wait(gone)
        connection.close()

    server.script(script)
    asked = spoken.request()
    with connect(running) as client:
        with client.stream("POST", asked.url, content=asked.body, headers=dict(asked.headers.items())) as answer:
            received = b""
            for piece in answer.iter_raw():
                received += piece
                if len(received) >= len(begin):
                    break
    (call,) = calls.wait()
    gone.set()
    assert (call.outcome, call.tokens.missing, call.text) == ("cut", "cut", "It is sünny 🌞")


def test_a_slow_handler_behind_it_is_named(watch: Watch, server: Origin, connect: Connect) -> None:
    """Events that the proxy drops since a handler does not keep up are missed, and the call says so."""
    calls, full, loops = Calls(), asyncio.Event(), []
    drained, steps = threading.Event(), [threading.Event(), threading.Event()]

    class Slow(LlmObserver):
        async def on_stream_chunk(self, chunk: StreamChunk) -> None:  # type: ignore[override]
            loops.append(asyncio.get_running_loop())
            await full.wait()
            super().on_stream_chunk(chunk)
            if len(loops) == 4:
                drained.set()

    spoken = answers.ANTHROPIC
    # more than the queue holds, and what is read when it has been full for its time
    begin, dropped = (answers.sse(*answers.ANTHROPIC_EVENTS[part], names=True) for part in (slice(4), slice(4, 12)))

    def script(connection: ScriptedConnection, request: Request) -> None:
        connection.read_body()
        connection.send(head(200, ("Content-Type", spoken.media), ("Content-Length", str(len(spoken.stream)))) + begin)
        connection.wait(steps[0])
        connection.send(dropped)
        connection.wait(steps[1])
        connection.send(spoken.stream[len(begin + dropped) :])

    server.script(script)
    keys = {"flow_runtime.dispatch_queue_capacity": 2, "flow_runtime.dispatch_queue_send_timeout_ms": 1}
    running = watch(Slow(calls.add), **keys)
    asked = spoken.request()
    with connect(running) as client, client.stream("POST", asked.url, content=asked.body, headers=dict(asked.headers.items())) as answer:
        received = b""
        for piece in answer.iter_raw():
            received += piece
            if received == begin:
                # all of it was read, and shown or queued
                steps[0].set()
            elif received == begin + dropped:
                assert not what_remains(lambda: {} if running.metrics().dropped_dispatch_work_count == 8 else {"events": 8})
                loops[0].call_soon_threadsafe(full.set)
                assert drained.wait(10)
                steps[1].set()
        assert received == spoken.stream
    (call,) = calls.wait()
    assert call.truncated and call.problems == ("events of the answer were not shown, since a handler was slow",)
    assert (call.complete, call.outcome, call.tokens.input) == (True, "answered", 442)


@pytest.fixture
def environment(server: Origin) -> Callable[[Running], dict[str, str]]:
    """What a program is given to find the proxy and trust its CA."""

    def of(running: Running) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return kept | dict(running.handle.client_environment())

    return of


SDKS: dict[str, tuple[str, list[Spoken], dict[str, Any], tuple[str, ...]]] = {
    "openai": (
        "openai_sdk.py",
        [answers.OPENAI_CHAT, answers.OPENAI_RESPONSES],
        {
            "chat": ["It is sünny 🌞", 99],
            "chat stream": ["It is sünny 🌞", 99],
            "response": ["Let me look.", 160],
            "response stream": ["Let me look.", 160],
        },
        (),
    ),
    "anthropic": (
        "anthropic_sdk.py",
        [answers.ANTHROPIC],
        {name: [["thinking", "text", "tool_use", "tool_use"], 89] for name in ("message", "message stream")},
        (),
    ),
    "google.genai": (
        "google_genai_sdk.py",
        [answers.GEMINI],
        {name: ["Thinking of weather.Sunny today.", 77] for name in ("content", "content stream")},
        (),
    ),
    "ollama": (
        "ollama_sdk.py",
        [answers.OLLAMA_CHAT],
        {"chat": ["Sunny.", 282], "chat stream": ["Sunny.", 282]},
        ("https://models.corp.example",),
    ),
    "boto3": ("bedrock_sdk.py", [answers.CONVERSE], {"converse": ["Looking.", 193], "converse stream": ["Looking.", 193]}, ()),
}


def last_of(path: str) -> str:
    return path.rpartition("/")[2]


# they speak HTTP/1.1
@pytest.mark.parametrize("http2", [False], indirect=True, ids=["http1"])
@pytest.mark.parametrize("sdk", SDKS)
def test_sdks(watch: Watch, server: Origin, environment: Callable[[Running], dict[str, str]], sdk: str) -> None:
    """What an SDK understands of an answer is what the observer tells of it."""
    pytest.importorskip(sdk, reason=f"the SDK {sdk} is not installed")
    name, spoken_here, expected, arguments = SDKS[sdk]
    plays: dict[str, tuple[Spoken, bool]] = {}
    for spoken in spoken_here:
        streamed, whole = (last_of(path.partition("?")[0]) for path in (spoken.path, spoken.whole_path or spoken.path))
        plays |= {whole: (spoken, False), streamed: (spoken, True)}

    def script(connection: ScriptedConnection, request: Request) -> None:
        asked = json.loads(connection.read_body())
        spoken, is_stream = plays[last_of(request.path)]
        # where one path does for both, the body says which
        if not spoken.whole_path:
            is_stream = asked.get("stream", False)
        body, media = (spoken.stream, spoken.media) if is_stream else (json.dumps(spoken.whole).encode(), "application/json")
        fields = [("Content-Type", media)]
        if "gzip" in (request.get("accept-encoding") or ""):
            body = gzip.compress(body)
            fields.append(("Content-Encoding", "gzip"))
        connection.send(head(200, *fields, ("Content-Length", str(len(body)))) + body)

    server.script(script)
    calls = Calls()
    running = watch(LlmObserver(calls.add))
    done = run(sys.executable, CLIENTS / name, *arguments, environment=environment(running), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == expected
    found = calls.wait(len(expected))
    assert [call.streamed for call in found] == [False, True] * (len(expected) // 2)
    for call in found:
        spoken = next(spoken for spoken in spoken_here if spoken.said["family"] == call.family)
        assert told(call) == wanted(spoken)
