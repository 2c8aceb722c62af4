"""Updates of flows, as a sink is given them, made without a proxy: `exchange`, `model_stream`, `websocket`, `mixed` and others."""

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from soth_mitm.connection import ConnectionMeta, ProcessInfo, TcpV4, TlsInfo
from soth_mitm.observe.event_sink import SinkInfo
from soth_mitm.observe.flow_event import FlowEvent, FlowEventKind
from soth_mitm.observe.flow_record import Fields, FlowKind, FlowMessage, FlowRecord, FlowUpdate, Piece, Timings

BEGAN = 1_764_500_000.0
"""When the first made flow began: seconds since 1970."""


def sink_info(**changes: Any) -> SinkInfo:
    """Return what a sink is told of the proxy."""
    given: dict[str, Any] = {"proxy_id": UUID(int=7), "version": "0.1.0", "pid": 4242, "started": BEGAN, "listening": ("127.0.0.1:8080",)}
    return SinkInfo(**(given | changes))


def connection(number: int = 1, program: str | None = "claude", pid: int = 48121) -> ConnectionMeta:
    """Return a client's connection over TCP, from a program of that name; None: it is not known."""
    process = None if program is None else ProcessInfo(pid=pid, exe_name=program, exe_path=f"/usr/bin/{program}", parent_process_name="zsh")
    return ConnectionMeta(
        connection_id=UUID(int=1000 + number),
        socket_family=TcpV4(local=("127.0.0.1", 8080), remote=("127.0.0.1", 50000 + number % 10000)),
        process_info=process,
        tls_info=TlsInfo(sni="api.example.com", negotiated_proto="h2", version="TLSv1.3", cipher="TLS_AES_128_GCM_SHA256"),
        target=("api.example.com", 443),
        connected_at=datetime.fromtimestamp(BEGAN, UTC),
    )


def fields(**named: str) -> Fields:
    """Return header fields; an underscore in a name stands for a hyphen."""
    return tuple((name.replace("_", "-").encode(), value.encode()) for name, value in named.items())


def record(flow_id: int = 1, **changes: Any) -> FlowRecord:
    """Return the record of a flow that was answered 200 by its upstream, with whatever is to be otherwise."""
    given: dict[str, Any] = {
        "flow_id": flow_id,
        "kind": FlowKind.HTTP,
        "connection": connection(flow_id),
        "is_over": True,
        "started": BEGAN + flow_id,
        "took": 0.31,
        "outcome": "answered",
        "decision": "allowed",
        "protocol": "http2",
        "pattern": "api.example.com:443",
        "scheme": "https",
        "host": "api.example.com",
        "port": 443,
        "method": "GET",
        "path": f"/items/{flow_id}?page=2",
        "http_version": "HTTP/2",
        "upstream_http_version": "HTTP/2",
        "status": 200,
        "answered_by": "upstream",
        "request_fields": fields(host="api.example.com", user_agent="made/1.0", accept="*/*"),
        "response_fields": fields(content_type="application/json", date="Sun, 30 Nov 2025 10:53:20 GMT"),
        "timings": Timings(decided=0.0004, acquired=0.03, dialled=0.029, tls=0.018, sent=0.031, first_byte=0.29, ended=0.31),
        "upstream_address": ("127.0.0.9", 443),
        "upstream_connection_id": 5,
    }
    return FlowRecord(**(given | changes))


def exchange(flow_id: int = 1, request: bytes = b"", response: bytes = b'{"ok": true}', **changes: Any) -> FlowUpdate:
    """Return the one update of a short flow with these bodies."""
    given: dict[str, Any] = {
        "request_size": len(request),
        "response_size": len(response),
        "request_kept": len(request),
        "response_kept": len(response),
    }
    if request:
        given["method"] = "POST"
    pieces = [Piece(0.001, False, request)] if request else []
    if response:
        pieces.append(Piece(0.3, True, response))
    return FlowUpdate(record(flow_id, **(given | changes)), tuple(pieces))


def opened(update: FlowUpdate, **changes: Any) -> FlowUpdate:
    """Return `update` as of a flow that is still open."""
    changed = msgspec.structs.replace(update.record, is_over=False, took=None, outcome="", **changes)
    return msgspec.structs.replace(update, record=changed)


ASKED = "The retry test is flaky on CI. Find out why and fix it."
ANSWERED = ("I will look ", "at how the deadline ", "is computed.")


def model_events() -> list[bytes]:
    """Return the events of a streamed answer in Anthropic's format: text, one tool, counts, the end."""
    usage = {"input_tokens": 467, "cache_read_input_tokens": 13_824, "cache_creation_input_tokens": 611, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": [], "usage": usage}
    tool = {"type": "tool_use", "id": "toolu_1", "name": "read_file", "input": {}}
    data: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in ANSWERED),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": tool},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"path": "src/retry.py"}'}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 318}},
        {"type": "message_stop"},
    ]
    return [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in data]


def model_stream(flow_id: int = 1, parts: int = 4, **changes: Any) -> list[FlowUpdate]:
    """Return the updates of a model call whose answer is streamed: the request, `parts` parts of the answer, the last with the end."""
    asked = {"model": "claude-sonnet-4-5", "stream": True, "messages": [{"role": "user", "content": ASKED}]}
    body = json.dumps(asked).encode()
    events = model_events()
    given: dict[str, Any] = {
        "method": "POST",
        "host": "api.anthropic.com",
        "path": "/v1/messages",
        "protocol": "sse",
        "request_fields": fields(
            host="api.anthropic.com", content_type="application/json", anthropic_version="2023-06-01", x_api_key="sk-ant-secret-0123456789"
        ),
        "response_fields": fields(content_type="text/event-stream"),
        "request_size": len(body),
        "request_kept": len(body),
        "timings": Timings(decided=0.0004, sent=0.01, first_byte=0.4, ended=4.31),
        "took": 4.31,
    }
    whole = record(flow_id, **(given | changes))
    asking = msgspec.structs.replace(whole, is_over=False, took=None, outcome="", timings=Timings(decided=0.0004, sent=0.01))
    updates = [FlowUpdate(msgspec.structs.replace(asking, status=0, response_fields=()), (Piece(0.001, False, body),))]
    size = 0
    for part in range(parts):
        chosen = events[len(events) * part // parts : len(events) * (part + 1) // parts]
        pieces = tuple(Piece(0.4 + 3.9 * (part + index / 10) / parts, True, event) for index, event in enumerate(chosen))
        size += sum(len(each.data) for each in pieces)
        source = whole if part == parts - 1 else asking
        updates.append(FlowUpdate(msgspec.structs.replace(source, response_size=size, response_kept=size), pieces))
    return updates


def websocket(flow_id: int = 1, texts: Sequence[str] = ("hello", "world"), **changes: Any) -> list[FlowUpdate]:
    """Return the updates of a WebSocket: its handshake, one message each way in turn, its end with a Close of the client."""
    given: dict[str, Any] = {"kind": FlowKind.WEBSOCKET, "protocol": "websocket", "status": 101, "path": "/socket", "took": 2.0}
    given |= {"outcome": "tunnelled", "websocket_close": (1000, "client")}
    whole = record(flow_id, **(given | changes))
    open_ = msgspec.structs.replace(whole, is_over=False, took=None, outcome="", websocket_close=None)
    updates = [FlowUpdate(open_)]
    for index, text in enumerate(texts):
        data = text.encode()
        updates.append(FlowUpdate(open_, messages=(FlowMessage(0.5 + index / 10, bool(index % 2), 1, data, len(data)),)))
    updates.append(FlowUpdate(whole, messages=(FlowMessage(1.9, False, 8, b"\x03\xe8", 2),)))
    return updates


def tunnel(flow_id: int = 1, **changes: Any) -> FlowUpdate:
    """Return the update of a tunnel that is over."""
    given: dict[str, Any] = {"kind": FlowKind.TUNNEL, "protocol": "tunnel", "scheme": "", "method": "CONNECT", "path": "", "status": 200}
    given |= {"host": "updates.example.com", "outcome": "tunnelled", "cause": "unlisted", "answered_by": "proxy", "pattern": ""}
    given |= {"request_fields": (), "response_fields": (), "request_size": 1200, "response_size": 81_000, "timings": Timings(ended=0.31)}
    return FlowUpdate(record(flow_id, **(given | changes)))


def refused(flow_id: int = 1, **changes: Any) -> FlowUpdate:
    """Return the update of a CONNECT that the policy blocked."""
    given: dict[str, Any] = {"kind": FlowKind.REFUSED, "protocol": "tunnel", "scheme": "", "method": "CONNECT", "path": "", "status": 403}
    given |= {"host": "gist.github.com", "outcome": "blocked", "cause": "not listed (interception.passthrough_unlisted)", "pattern": ""}
    given |= {"answered_by": "proxy", "decision": "", "took": 0.0004, "request_fields": (), "response_fields": (), "timings": Timings()}
    return FlowUpdate(record(flow_id, **(given | changes)))


HOSTS = ("api.example.com", "api.openai.com", "registry.npmjs.org", "files.example.net", "telemetry.example.org")
PROGRAMS = ("claude", "python", "node", "curl", None)


def mixed(count: int, seed: int = 1, first_id: int = 1) -> Iterator[FlowUpdate]:
    """Yield the updates of `count` flows of all kinds, the same ones for the same `seed`."""
    rng = random.Random(seed)
    for flow_id in range(first_id, first_id + count):
        number = rng.random()
        who = connection(flow_id, rng.choice(PROGRAMS), 4000 + rng.randrange(5))
        if number < 0.1:
            yield from model_stream(flow_id, parts=rng.randrange(1, 5), connection=who)
        elif number < 0.15:
            yield from websocket(flow_id, ["ping", "pong"] * rng.randrange(1, 4), connection=who)
        elif number < 0.2:
            yield tunnel(flow_id, connection=who)
        elif number < 0.25:
            yield refused(flow_id, connection=who)
        else:
            status = rng.choice((200, 200, 200, 201, 204, 301, 404, 429, 500, 502))
            body = json.dumps({"id": flow_id, "words": rng.choices(("alpha", "beta", "gamma", "delta"), k=rng.randrange(200))}).encode()
            sent = json.dumps({"ask": rng.choice(("alpha", "omega"))}).encode() if rng.random() < 0.4 else b""
            host = rng.choice(HOSTS)
            outcome = "answered" if rng.random() < 0.95 else rng.choice(("cut_by_client", "upstream_error", "blocked"))
            cause = "" if outcome == "answered" else outcome.replace("_", " ")
            yield exchange(
                flow_id, sent, body, status=status, host=host, connection=who, outcome=outcome, cause=cause, took=rng.expovariate(4)
            )


def event(sequence_id: int = 1, kind: FlowEventKind = FlowEventKind.REQUEST_HEADERS, flow_id: int = 1, **changes: Any) -> FlowEvent:
    """Return an event, by default that of a request's head."""
    attributes: dict[str, str | int] = {"method": "GET", "authority": "api.example.com", "path": "/items?page=2", "http2_stream_id": 7}
    given: dict[str, Any] = {
        "sequence_id": sequence_id,
        "flow_id": flow_id,
        "flow_sequence_id": sequence_id,
        "kind": kind,
        "protocol": "http2",
        "stream_key": "h2:7",
        "connection_id": str(UUID(int=1000 + flow_id)),
        "client_addr": f"127.0.0.1:{50000 + flow_id}",
        "server_host": "api.example.com",
        "server_port": 443,
        "attributes": attributes if kind is FlowEventKind.REQUEST_HEADERS else {},
        "unix_us": int(BEGAN * 1e6) + sequence_id,
    }
    return FlowEvent(**(given | changes))
