"""What was said on both sides of exchanges fits together where some of them speak HTTP/2: messages are compared without what belongs to
one connection, or to one protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fuzz.agreement import OWN_STATUSES, check_order, fields_of
from fuzz.conversations import Message, Stream, finals
from fuzz.http2_wire import Fields, StreamMessage
from fuzz.plain_http import passes_as_trailer
from fuzz.scene import Peer, Scene

OWN_TYPE = (b"content-type", b"text/plain; charset=utf-8")
# What belongs to one connection, to one protocol, or to the way there, and so may differ
DROPPED = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te", b"trailer", b"host", b"content-length"),
    *(b"proxy-authorization", b"proxy-authenticate", b"http2-settings", b"max-forwards", b"alt-svc"),
    *(b"sec-websocket-key", b"sec-websocket-accept"),
}


class Said(NamedTuple):
    """One message, comparable. `length` is what Content-Length says, -1 without one.

    `is_open`: it ends with its connection, so that nobody can say whether it is complete. `switches`: what follows is not HTTP.
    """

    method: str
    path: str
    status: int
    fields: Fields
    content: bytes
    trailers: Fields
    complete: bool
    length: int = -1
    is_open: bool = False
    switches: bool = False


class Pair(NamedTuple):
    """A request on one connection, and the final response to it, if there is one."""

    request: Said
    response: Said | None
    interims: list[Said]


def neutral(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Return fields in lower case, without those that may differ, and cookies as crumbs behind the others."""
    pairs = [(name.lower(), value.strip(b" \t")) for name, value in fields if not name.startswith(b":")]
    named = {part.strip(b" \t").lower() for name, value in pairs if name == b"connection" for part in value.split(b",")}
    crumbs = [(name, part) for name, value in pairs if name == b"cookie" for part in value.split(b"; ")]
    return [(name, value) for name, value in pairs if name not in DROPPED | named | {b"cookie"}] + crumbs


def length_of(fields: Iterable[tuple[bytes, bytes]]) -> int:
    """Return what Content-Length says, -1 without one."""
    values = [value.strip(b" \t") for name, value in fields if name.lower() == b"content-length"]
    return int(values[0]) if values and values[0].isdigit() and len(values[0]) < 18 else -1


def of_message(message: Message, peer: Peer, is_response: bool) -> Said:
    """Read a message of HTTP/1."""
    head = message.head
    is_open = is_response and message.body.kind == "until_close"
    complete = message.complete or (is_open and peer.has_ended and not peer.is_cut)
    names = ("", "", head.status) if is_response else (head.method, head.path, 0)
    switches = is_response and head.status == 101
    return Said(
        *names,
        neutral(head.fields),
        bytes(message.content),
        neutral(fields_of(message)),
        complete,
        length_of(head.fields),
        is_open,
        switches,
    )


def of_stream(message: StreamMessage, unfinished: tuple[int, bytes] = (0, b"")) -> Said:
    """Read a message of HTTP/2."""
    more = unfinished[1] if unfinished[0] == message.number and not message.ended and message.reset is None else b""
    method, path, status = message.head
    trailers = [field for field in neutral(message.trailers or []) if passes_as_trailer(field[0])]
    switches = bool(message.pseudo(b":protocol"))
    content = bytes(message.content) + more
    length = length_of(message.fields)
    return Said(method, path, status, neutral(message.fields), content, trailers, message.ended, length, switches=switches)


def pairs_of(peer: Peer) -> Iterator[Pair]:
    """Yield what was asked and answered on one connection."""
    if peer.http2 is not None:
        requests_in, responses_in = peer.http2.directions
        for message in requests_in.messages:
            answer = responses_in.streams.get(message.number)
            interims = [] if answer is None else [of_stream(StreamMessage(answer.number, fields)) for fields in answer.interims]
            response = of_stream(answer, responses_in.unfinished) if answer and answer.fields else None
            yield Pair(of_stream(message, requests_in.unfinished), response, interims)
        return
    requests, responses = peer.requests, peer.responses
    assert isinstance(requests, Stream) and isinstance(responses, Stream)
    answers = finals(responses) + ([responses.switched] if responses.switched else [])
    interims = [of_message(message, peer, True) for message in responses.messages if message.head.status < 200]
    for number, request in enumerate(requests.messages):
        answered = of_message(answers[number], peer, True) if number < len(answers) else None
        yield Pair(of_message(request, peer, False), answered, interims)


def check(scene: Scene, retries: int, limit: int) -> None:
    """All of it."""
    asked = [pair for client in scene.clients for pair in pairs_of(client)]
    exchanged = [pair for peer in scene.upstreams for pair in pairs_of(peer)]
    check_requests(asked, exchanged, retries)
    for pair in asked:
        check_response(pair, exchanged)
    check_shown(scene, asked, exchanged, limit)
    check_order(scene)


def is_passed_on(sent: Said, received: Said) -> bool:
    """Tell whether a message is another one, passed on as far as it went: a cut never looks like an end."""
    if (sent.method, sent.path, sent.status, sent.fields) != (received.method, received.path, received.status, received.fields):
        return False
    if not received.content.startswith(sent.content):
        return False
    if not sent.complete or sent.is_open:
        return True
    # by its length a message of HTTP/1 is known to be all there before END_STREAM has come
    is_all = received.complete or received.length == len(received.content)
    # trailers that the other protocol has no place for are left out
    return is_all and sent.content == received.content and sent.trailers in ([], received.trailers)


def check_requests(asked: list[Pair], exchanged: list[Pair], retries: int) -> None:
    """What upstreams were sent was asked for, each as often as it was, but for retries."""
    for sent, _, _ in exchanged:
        assert any(is_forwarded(sent, pair.request) for pair in asked), f"nobody asked for {sent}"
    more = Counter((sent.method, sent.path) for sent, _, _ in exchanged) - Counter((one.request.method, one.request.path) for one in asked)
    assert sum(more.values()) <= retries, f"sent more often than it was asked for: {more}"


def is_forwarded(sent: Said, received: Said) -> bool:
    """Tell whether a request is another one, passed on. What follows the head of an upgrade is not its content."""
    if sent.switches or received.switches:
        return (sent.method, sent.path, sent.fields) == (received.method, received.path, received.fields)
    return is_passed_on(sent, received)


def check_response(pair: Pair, exchanged: list[Pair]) -> None:
    """A client is answered what its upstream said or what we say."""
    answer = pair.response
    answers = [one for one in exchanged if is_forwarded(one.request, pair.request)]
    # those of a connection of HTTP/1 are not told apart by request
    said = [interim.fields for one in exchanged for interim in one.interims]
    for interim in pair.interims:
        assert interim.status == 100 or interim.fields in said, f"nobody said {interim}"
    if answer is None or is_own(answer, pair.request):
        return
    if pair.request.switches and answer.status == 200:
        # each success of an upstream means the same there
        assert any(one.response and (one.response.status == 101 or one.response.status // 100 == 2) for one in answers), answer
        return
    if pair.request.method == "HEAD":
        # its response is complete with its head, whatever follows from an upstream that is wrong
        answer = answer._replace(complete=False)
    assert any(one.response and is_answer(answer, one.response) for one in answers), f"nobody said {answer} to {pair.request}"


def is_answer(sent: Said, received: Said) -> bool:
    """Tell whether a response is another one, passed on."""
    if received.switches or sent.switches or received.status == 101 or sent.status == 101:
        return True
    return is_passed_on(sent, received)


def is_own(message: Said, request: Said) -> bool:
    """Tell whether it is a response of the proxy's own: to a gRPC call it has its text in the head."""
    if any(name == b"grpc-status" for name, _ in message.fields) and not message.content:
        return message.status == 200 or message.status in OWN_STATUSES
    if message.status == 200:
        return request.method in ("TRACE", "OPTIONS")
    # the session refuses a head over its limit before there is an exchange, and says nothing but that
    return message.status in OWN_STATUSES and (OWN_TYPE in message.fields or (message.status == 431 and not message.content))


def check_shown(scene: Scene, asked: list[Pair], exchanged: list[Pair], limit: int) -> None:
    """The handler is shown what was said: heads whole, bodies whole or marked."""
    flows = [request.flow_id for request, _ in scene.handler.asked]
    assert len(set(flows)) == len(flows), "two requests of one number"
    for request, _ in scene.handler.asked:
        shown = Said(
            *(request.method, request.path, 0, neutral(request.headers.raw), request.raw_body),
            *(neutral(request.trailers.raw), request.body_complete and not request.body_truncated),
        )
        assert any(is_shown(shown, pair.request, limit) for pair in asked), f"nobody said {shown}"
    for name, _, response in scene.handler.told:
        if name == "on_response":
            complete = not (response.body_truncated or response.streaming)
            trailers = neutral(response.trailers.raw)
            shown = Said("", "", response.status, neutral(response.headers.raw), response.raw_body, trailers, complete)
            is_switch = shown.status == 101 and any(pair.request.switches for pair in exchanged)
            assert is_switch or any(pair.response and is_shown(shown, pair.response, limit) for pair in exchanged), f"nobody said {shown}"


def is_shown(shown: Said, said: Said, limit: int) -> bool:
    """Tell whether a message is shown as it was said."""
    if said.switches or said.status == 101:
        return (shown.method, shown.path) == (said.method, said.path)
    if (shown.method, shown.path, shown.status, shown.fields) != (said.method, said.path, said.status, said.fields):
        return False
    if shown.complete:
        return shown.content == said.content and shown.trailers == said.trailers
    return said.content.startswith(shown.content) and len(shown.content) <= limit
