"""What was said on both sides of exchanges fits together: who was asked what, who was answered what, and what the handler was shown."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from fuzz.conversations import SWITCHED, Message, finals
from fuzz.scene import Client, Peer, Scene
from fuzz.scripted_handler import HOOKS
from soth_mitm._dataplane.http1.encoder import rewrite_request, rewrite_response
from soth_mitm._dataplane.wire.decode import decoder_for
from soth_mitm._dataplane.wire.framer import Framer
from soth_mitm._dataplane.wire.grpc import GrpcFramer
from soth_mitm._dataplane.wire.head import Head
from soth_mitm._dataplane.wire.ndjson import NdjsonFramer
from soth_mitm._dataplane.wire.sse import SseFramer
from support.feeding import facts, frames_of

ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OWN_TYPE = (b"Content-Type", b"text/plain; charset=utf-8")
OWN_STATUSES = {400, 403, 408, 413, 415, 421, 431, 501, 502, 503, 504}
# No input is decoded to as much
FAR_BEYOND = 1 << 30
# What IANA's registry of HTTP methods calls idempotent
REPEATABLE = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"} | set(
    "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE "
    "ORDERPATCH PROPFIND PROPPATCH QUERY REBIND REPORT SEARCH UNBIND UNCHECKOUT UNLINK UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)


class Exchanged(NamedTuple):
    """A request that an upstream was sent, and what it answered, if it did."""

    sent: Message
    answer: Message | None
    upstream: Peer


def exchanged(scene: Scene) -> list[Exchanged]:
    """Return everything that upstreams were sent, with the answers: on one connection they come in the order of the requests."""
    found = []
    for peer in scene.upstreams:
        answers = finals(peer.responses)
        for number, sent in enumerate(peer.requests.messages):
            found.append(Exchanged(sent, answers[number] if number < len(answers) else None, peer))
    return found


def is_forwarded(sent: Message, received: Message) -> bool:
    """Tell whether what an upstream was sent is what a client said, as far as it went."""
    heads = [rewrite_request(received.head, upgrade, sent.head.host or "") for upgrade in (False, True)]
    if sent.head.raw not in heads:
        return False
    return sent.raw == received.raw if sent.complete else received.raw.startswith(sent.raw)


def without(name: bytes, head: bytes) -> bytes:
    """Return a head without the fields of a name."""
    return b"\r\n".join(line for line in head.split(b"\r\n") if line.partition(b":")[0].lower() != name)


def is_relayed(message: Message, answer: Message, stripped: bytes) -> bool:
    """Tell whether what a client was sent is what an upstream said, as far as it went; `stripped` is a field that stops here."""
    heads = [rewrite_response(answer.head, *way) for way in itertools.product((False, True), repeat=4)]
    if message.head.raw not in ([without(stripped, head) for head in heads] if stripped else heads):
        return False
    return body_of(message, answer).startswith(message.raw)


def body_of(message: Message, answer: Message) -> bytes:
    """Return an answer's body as a client is to be sent it: one that speaks HTTP/1.0 without its chunks."""
    return bytes(answer.content if answer.body.kind == "chunked" and message.body.kind == "until_close" else answer.raw)


def is_all(message: Message, answer: Message, upstream: Peer) -> bool:
    """Tell whether a message that ends with its connection is all of what an upstream said."""
    said_all = answer.complete if answer.body.kind == "chunked" else upstream.has_ended
    return said_all and body_of(message, answer) == message.raw


def check_requests(scene: Scene, retries: int) -> None:
    """What upstreams were sent was asked for, each as often as it was: a retry is one more, and not of what does harm twice."""
    asked = [message for client in scene.clients for message in client.requests.messages]
    for sent, _, _ in exchanged(scene):
        assert any(is_forwarded(sent, message) for message in asked), f"nobody asked for {sent.head!r} {bytes(sent.raw)!r}"
    more = Counter(map(name_of, (sent for sent, _, _ in exchanged(scene)))) - Counter(map(name_of, asked))
    assert sum(more.values()) <= retries, f"sent more often than it was asked for: {more}"
    assert all(method in REPEATABLE for method, _ in more), f"repeated, and it may do harm: {more}"


def name_of(message: Message) -> tuple[str, str]:
    """Return method and path."""
    return message.head.method, message.head.path


def check_wire(client: Client) -> None:
    """A client of HTTP/1 can read what it is sent: messages without a gap, as many as it asked for, none behind the last one."""
    stream, messages = client.responses, finals(client.responses)
    requests = client.requests.messages
    assert not stream.fault or stream.fault == SWITCHED, f"a client is sent {stream.fault}: {stream.rest!r}"
    assert len(messages) <= len(requests) + 1, "an answer without a question"
    assert all(message.head.facts["keeps_alive"] for message in messages[:-1]), "more on a connection that was to close"
    assert all(message.complete for message in messages[:-1])
    cut = client.is_cut
    if messages and not stream.fault and not cut:
        assert not stream.rest, "a head that was begun"
        assert messages[-1].complete or client.transport.closing or client.transport.eof_written, "a message that does not go on"
    for request, message in zip(requests, messages, strict=False):
        if request.head.method != "CONNECT":
            assert request.head.facts["keeps_alive"] or message is messages[-1], "a request behind the last one was answered"


def check_answers(client: Client, all_exchanged: list[Exchanged], stripped: bytes, *, may_be_cut: bool = False) -> None:
    """A client is answered what its upstream said or what we say, once for each request, and a cut never looks like an end.

    `may_be_cut`: a hook that fails cuts its flow, which may come behind an answer.
    """
    check_wire(client)
    stream, messages = client.responses, finals(client.responses)
    requests, cut = client.requests.messages, client.is_cut
    # what came behind the end of a connection was read for the sake of its last answer
    unanswered = len(messages) < client.asked
    # a time that has passed may close a connection that was idle when it began
    said = client.closed_in.startswith(("client", "upstream"))
    # whom the server knew by its connection is not to go on when that one is gone, whatever was said before
    known = any(scheme in message.head.raw.lower() for message in (*messages, *requests) for scheme in (b"ntlm", b"negotiate"))
    # one that ends in the middle, without a reset since the client has seen some of it, is seen to be cut
    if messages and messages[-1].complete and unanswered and said and not known and not stream.fault and not cut and not may_be_cut:
        assert not messages[-1].head.facts["keeps_alive"], "the last answer does not say that it is the last"
    for number, message in enumerate(messages):
        if is_own(message) or message.head.raw == ESTABLISHED or (number < len(requests) and is_last(requests[number], message)):
            continue
        assert number < len(requests), f"an answer to what is no request: {message.head!r}"
        assert any(
            answer is not None
            and is_forwarded(sent, requests[number])
            and is_relayed(message, answer, stripped)
            and (message.complete or cut or message.body.kind != "until_close" or is_all(message, answer, upstream))
            and (message.complete or not said_all(client, upstream) or body_of(message, answer) == message.raw)
            for sent, answer, upstream in all_exchanged
        ), f"an answer that nobody gave to this request: {message.head!r} {bytes(message.raw)!r}"
    check_interims(client, all_exchanged, stripped)


def said_all(client: Client, upstream: Peer) -> bool:
    """Tell whether an answer was cut because its upstream ended in order: then what it said before has arrived."""
    return client.ended_in == "upstream_ends" and upstream.has_ended and not upstream.transport.reset


def check_interims(client: Client, all_exchanged: list[Exchanged], stripped: bytes) -> None:
    """What comes before an answer is ours, or an upstream said it."""
    upstreams = {id(upstream): upstream for _, _, upstream in all_exchanged}.values()
    said = [interim for upstream in upstreams for interim in upstream.responses.messages if interim.head.status < 200]
    heard = [message for message in client.responses.messages if message.head.status < 200]
    goes_on = sum(message.head.raw == CONTINUE for message in heard)
    expected = sum(bool(request.head.facts["expect_continue"]) for request in client.requests.messages)
    assert goes_on <= expected + sum(interim.head.status == 100 for interim in said), "told to go on, and did not ask"
    for message in heard:
        if message.head.raw != CONTINUE:
            assert any(is_relayed(message, interim, stripped) for interim in said), f"nobody said {message.head!r}"


def check_owners(scene: Scene) -> None:
    """Who authenticated a connection has it alone (RFC 4559 section 6)."""
    for peer in scene.upstreams:
        owners: list[Client] = []
        for sent, answer, _ in (one for one in exchanged(scene) if one.upstream is peer):
            said_so = [client for client in scene.clients if any(is_forwarded(sent, message) for message in client.requests.messages)]
            assert not owners or any(client in owners for client in said_so), f"{sent.head!r} goes over somebody else's connection"
            if not owners and answer is not None and authenticates(sent.head, answer.head):
                owners = said_so


def authenticates(request: Head, response: Head) -> bool:
    """Tell whether this proves, or asks to prove, who a connection's client is."""
    said = [value for name, value in request.fields if name.lower() == b"authorization"]
    if response.status == 401:
        said += [part for name, value in response.fields if name.lower() == b"www-authenticate" for part in value.split(b",")]
    return any(re.match(rb"(?i)[ \t]*(ntlm|negotiate)([ \t,]|$)", value) for value in said)


def is_last(request: Message, message: Message) -> bool:
    """Tell whether it is the answer of the proxy's own to what is to be forwarded no more."""
    forwards = [value.strip(b"0") for name, value in request.head.fields if name.lower() == b"max-forwards"]
    return message.head.status == 200 and forwards == [b""] and request.head.method in ("TRACE", "OPTIONS")


def is_own(message: Message) -> bool:
    """Tell whether it is an answer of the proxy's own."""
    return message.head.status in OWN_STATUSES and OWN_TYPE in message.head.fields and message.complete


def check_shown(scene: Scene, all_exchanged: list[Exchanged], limit: int) -> None:
    """The handler is shown what was said: heads whole, bodies whole or marked, and each response with the request that it answers."""
    asked = [message for client in scene.clients for message in client.requests.messages]
    flows = [request.flow_id for request, _ in scene.handler.asked]
    assert len(set(flows)) == len(flows), "two requests of one number"
    for request, _ in scene.handler.asked:
        assert any(is_shown_request(request, message, limit) for message in asked), f"nobody said {request!r} {request.raw_body!r}"
    for name, flow_id, response in scene.handler.told:
        if name != "on_response":
            continue
        assert response.request.flow_id == flow_id == response.flow_id
        assert any(
            answer is not None
            and (sent.head.method, sent.head.path) == (response.request.method, response.request.path)
            and is_shown_response(response, answer, limit)
            for sent, answer in answers(all_exchanged)
        ), f"nobody said {response!r} {response.raw_body!r} to {response.request!r}"


def answers(all_exchanged: list[Exchanged]) -> Iterator[tuple[Message, Message | None]]:
    """Yield requests and what answers them; the 101 after which nobody reads is not among what was exchanged."""
    for sent, answer, upstream in all_exchanged:
        yield sent, answer
        if answer is None and upstream.responses.fault == SWITCHED:
            yield sent, upstream.responses.switched


def is_shown_request(request: Any, message: Message, limit: int) -> bool:
    """Tell whether a request is shown as it was said."""
    if (request.method, request.path, request.headers.raw) != (message.head.method, message.head.path, message.head.fields):
        return False
    if request.body_complete and not (message.complete and request.trailers.raw == fields_of(message)):
        return False
    return is_shown_body(request, message, limit, request.body_complete)


def is_shown_response(response: Any, message: Message, limit: int) -> bool:
    """Tell whether a response is shown as it was said; of a stream the head alone."""
    if (response.status, response.headers.raw) != (message.head.status, message.head.fields):
        return False
    if response.streaming:
        return response.raw_body == b""
    return response.trailers.raw == fields_of(message) and is_shown_body(response, message, limit, not response.body_truncated)


def is_shown_body(shown: Any, message: Message, limit: int, whole: bool) -> bool:
    """Tell whether a body is shown whole, or up to the limit."""
    content = bytes(message.content)
    if shown.body_truncated:
        more = max(len(content), message.head.facts["content_length"])
        return len(shown.raw_body) == limit < more and shown.raw_body == content[:limit]
    return content == shown.raw_body if whole else content.startswith(shown.raw_body)


def check_frames(scene: Scene, all_exchanged: list[Exchanged], limit: int) -> None:
    """Each frame that the handler is shown is the one of its number in the stream of the response that it was shown before."""
    heads: dict[int, Any] = {}
    expected: dict[int, list[list[tuple[object, ...]]]] = {}
    for name, flow_id, told in scene.handler.told:
        if name == "on_response":
            heads[flow_id] = told
        elif name == "on_stream_chunk" and flow_id in heads and told.direction == "to_client" and heads[flow_id].status != 101:
            # what a WebSocket carries is compared in tests/fuzz/websocket_streams.py
            if flow_id not in expected:
                streams = [answer for _, answer in answers(all_exchanged) if answer and is_shown_response(heads[flow_id], answer, limit)]
                expected[flow_id] = [frames_in(heads[flow_id], bytes(answer.content), limit) for answer in streams]
            assert any(facts(told) in frames[told.sequence : told.sequence + 1] for frames in expected[flow_id]), (
                f"not in the stream: {told!r}"
            )


def frames_in(response: Any, content: bytes, limit: int) -> list[tuple[object, ...]]:
    """Return the frames of a whole stream, or of one that is cut behind its last byte."""
    # a media type ends before its parameters, or before what is no part of it
    kind = re.split(r"[; \t]", response.headers["content-type"].strip(), maxsplit=1)[0].lower()
    framer: Framer = GrpcFramer(limit, response.headers.get("grpc-encoding", "").encode("latin-1"))
    if not kind.startswith("application/grpc"):
        framer = SseFramer(limit) if kind == "text/event-stream" else NdjsonFramer(limit)
    decoder = decoder_for(", ".join(response.headers.get_all("content-encoding")).encode("latin-1"), FAR_BEYOND, True)
    if decoder is not None:
        # where it has a fault, most comes out before it like this
        content = b"".join(decoder.feed(content[at : at + 1]) for at in range(len(content)))
    return [facts(frame) for frame in frames_of(framer, [content])]


def fields_of(message: Message) -> list[tuple[bytes, bytes]]:
    """Return the trailers of a message."""
    lines = (line.partition(b":") for line in bytes(message.trailers).split(b"\r\n") if line)
    return [(name, value.strip(b" \t")) for name, _, value in lines]


def check_order(scene: Scene) -> None:
    """Hooks of a flow come in order."""
    flows: dict[int, list[tuple[str, Any]]] = {}
    for name, flow_id, told in scene.handler.told:
        flows.setdefault(flow_id, []).append((name, told))
    for events in flows.values():
        uploaded = [told for name, told in events if name == "on_stream_chunk" and told.direction == "to_upstream"]
        events = [(name, told) for name, told in events if told not in uploaded]
        names = [name for name, _ in events]
        assert names.count("on_response") <= 1 and names.count("on_stream_end") <= 1, names
        assert sorted(names, key=HOOKS.index) == names, names
        for numbers in ([told.sequence for name, told in events if name == "on_stream_chunk"], [told.sequence for told in uploaded]):
            assert numbers == sorted(set(numbers)), numbers
        if not uploaded and names[0] == "on_response" and "on_stream_end" in scene.handler.names:
            assert events[0][1].streaming == (names[-1] == "on_stream_end"), names
