"""What the handler decided about a message is what was done with it, and credentials went where they may go, and nowhere else.

Messages are compared as `http2_agreement` has them, whatever they were said in; the order of their fields is left to tests/core. What a
decision makes of a message is written down here once more, in plain Python.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fuzz.agreement import FAR_BEYOND, check_order, check_wire, frames_in
from fuzz.http2_agreement import Said, is_forwarded, is_own, is_passed_on, is_shown, neutral, pairs_of
from fuzz.http2_wire import Fields
from fuzz.scene import Peer
from fuzz.scripted_handler import MARK, Question
from soth_mitm import Credential, Secret
from soth_mitm._dataplane.wire.decode import decoder_for

PLACEHOLDER = b"placeholder-0000"
VALUE = b"SECRET-VALUE-999"
CREDENTIAL = Credential(
    PLACEHOLDER.decode(), Secret(VALUE), ["a.example:*"], place=("header:authorization", "query:key", "path", "body"), redact=True
)
MARKED = MARK.encode()
DIGESTS = {b"content-md5", b"digest", b"content-digest", b"repr-digest"}
# What describes the body of a request, that of a response, and what is wrong once something in a body has changed
OF_REQUESTS = DIGESTS | {b"content-encoding", b"trailer", b"expect"}
OF_RESPONSES = DIGESTS | {b"content-encoding", b"trailer", b"etag", b"last-modified", b"accept-ranges"}
OF_CHANGED = DIGESTS | {b"content-encoding", b"etag", b"last-modified", b"accept-ranges"}
GRPC = b"application/grpc"
GRPCS = (GRPC, b"application/grpc-web", b"application/grpc-web-text")
FRAMED = (b"text/event-stream", b"application/x-ndjson", b"application/jsonl", b"application/stream+json", GRPC)
STREAMS = (*FRAMED, *GRPCS, b"application/json-seq", b"application/vnd.amazon.eventstream")


class Expected(NamedTuple):
    """What a message may be. `flow_id` is that of the question that it depends on, None without one; `is_filtered`: frames are decided."""

    said: Said
    flow_id: int | None = None
    is_filtered: bool = False


class Record:
    """What was said to whom, and decided, in one scene."""

    def __init__(self, scene: Any) -> None:
        self.scene = scene
        self.asked = [pair for client in scene.clients for pair in pairs_of(client) if pair.request.method != "CONNECT"]
        self.exchanged = [(pair, peer) for peer in scene.upstreams for pair in pairs_of(peer)]
        hooks = scene.settings.hooks
        self.applies = bool(scene.settings.enforce and scene.observed)
        self.lets_failures_pass = bool(hooks.recover and not hooks.block_on_failure)
        self.questions: dict[str, list[Question]] = {}
        for question in scene.handler.questions:
            self.questions.setdefault(question.hook, []).append(question)

    def is_decided(self, hook: str) -> bool:
        """Tell whether what a hook says is applied."""
        return self.applies and hook in self.scene.handler.names

    def passes(self, question: Question) -> bool:
        """Tell whether a question has let something pass, be it by failing."""
        return question.outcome == ["allowed"] or (self.lets_failures_pass and question.outcome == ["failed"])

    def passes_of_responses(self) -> Counter[tuple[str, str]]:
        """Count the responses that were let pass as they came, by what was asked for."""
        bodies = {each.flow_id: each for each in self.questions.get("on_response_body", ())}
        found: Counter[tuple[str, str]] = Counter()
        for question in self.questions.get("on_response_head", ()):
            last: Question | None = question
            if getattr(question.decision, "kind", "") == "hold":
                last = bodies.get(question.flow_id)
            if last is not None and self.passes(last) and getattr(last.decision, "kind", "unfiltered") == "unfiltered":
                found[question.shown.request.method, question.shown.request.path] += 1
        return found

    # --- requests

    def forwarded(self, request: Said) -> Iterator[Said]:
        """Yield what may be sent of a request."""
        if not self.is_decided("on_request"):
            yield from self._filled(request)
            return
        for question in self.questions.get("on_request", ()):
            if self.passes(question) and is_about(question.shown, request):
                yield from self._filled(changed_request(request, question))

    def _filled(self, request: Said) -> Iterator[Said]:
        if not self.scene.has_credentials:
            yield request
            return
        if self.scene.routed:
            # it may not be for the credential's destination
            yield request
        yield filled(request)
        if any(name == b"content-encoding" for name, _ in request.fields):
            # where a value is put into it, or may be, it leaves decoded
            yield filled(decoded(request))

    def is_sent(self, sent: Said, request: Said) -> bool:
        """Tell whether a request is one that a client said, as it was decided about."""
        return any(is_forwarded(ordered(sent), ordered(loosened(sent, each, self))) for each in self.forwarded(request))

    # --- responses

    def responses(self, request: Said) -> Iterator[Expected]:
        """Yield what may be answered to a request: what an upstream said, or the handler."""
        for pair, peer in self.exchanged:
            if pair.response is not None and self.is_sent(pair.request, request):
                yield from self._decided(self.relayed(pair.response, request, peer), request)
        if self.applies:
            for question in self.questions.get("on_request", ()):
                if getattr(question.decision, "kind", "") in ("block", "respond") and is_about(question.shown, request):
                    yield Expected(of_handler(question))

    def relayed(self, response: Said, request: Said, peer: Peer) -> Said:
        """Return a response without what is turned back in it."""
        if not self.scene.has_credentials or getattr(peer, "host", "") != "a.example":
            return response
        return redacted(response, request)

    def _decided(self, response: Said, request: Said) -> Iterator[Expected]:
        if not self.is_decided("on_response_head"):
            yield self._expected(response, None, None)
            return
        for head in self.questions.get("on_response_head", ()):
            opens = request.switches and head.shown.status == 101 and is_switch(response)
            if not is_about(head.shown.request, request) or not (opens or is_head_of(head.shown, response)):
                continue
            question: Question | None = head
            if getattr(head.decision, "kind", "") == "hold":
                bodies = self.questions.get("on_response_body", ())
                question = next((each for each in bodies if each.flow_id == head.flow_id), None)
            if question is None:
                continue
            if getattr(question.decision, "kind", "") == "block":
                yield Expected(of_handler(question), head.flow_id)
            elif self.passes(question):
                yield self._expected(changed_response(response, question), head.flow_id, question)

    def _expected(self, said: Said, flow_id: int | None, question: Question | None) -> Expected:
        kind = getattr(None if question is None else question.decision, "kind", "")
        is_filtered = kind not in ("unfiltered", "replace") and self.is_filtered(said)
        return Expected(said._replace(fields=unframed(said.fields)) if is_filtered else said, flow_id, is_filtered)

    def is_filtered(self, said: Said) -> bool:
        """Tell whether the frames of a message are decided about one by one."""
        return self.is_decided("filter_stream_chunk") and media_type(said) in STREAMS

    def left(self, flow_id: int, direction: str) -> list[bytes]:
        """Return what is left of the frames of a flow that were decided about."""
        payloads: list[bytes] = []
        for question in self.questions.get("filter_stream_chunk", ()):
            if question.flow_id != flow_id or question.shown.direction != direction:
                continue
            kind = getattr(question.decision, "kind", "pass")
            if not self.passes(question) or kind == "end":
                break
            if kind == "replace":
                payloads += question.decision.payloads
            elif kind == "pass" and question.shown.complete:
                payloads.append(question.shown.payload)
        return payloads

    def flows(self, request: Said) -> set[int]:
        """Return the flows in which frames were decided about for such a request."""
        return {each.flow_id for each in self.questions.get("filter_stream_chunk", ()) if is_about(each.shown.request, request)}


# --- the checks


def check(scene: Any, limit: int) -> None:
    """All of it, when everything is over."""
    record = Record(scene)
    assert not scene.handler.wrong, scene.handler.wrong
    for question in scene.handler.questions:
        items = question.items
        assert items is None or question.decision is None or items.ended or items.closed, "a body of the handler's was not closed"
    for sent, _ in record.exchanged:
        assert any(record.is_sent(sent.request, pair.request) for pair in record.asked), f"nobody asked for {sent.request}"
    for client in scene.clients:
        if client.http2 is None:
            check_wire(client)
    check_responses(record, limit)
    check_told(record, limit)
    check_credentials(record)
    check_order(scene)


def check_so_far(scene: Any, limit: int) -> None:
    """Nothing has reached a client for which there is no decision yet."""
    if not all(question.outcome for question in scene.handler.questions):
        check_responses(Record(scene), limit)


def check_responses(record: Record, limit: int) -> None:
    """Clients are answered what was decided, as often as it was."""
    marked: Counter[bytes] = Counter()
    passed: Counter[tuple[str, str]] = Counter()
    interims = [record.relayed(interim, pair.request, peer).fields for pair, peer in record.exchanged for interim in pair.interims]
    for pair in record.asked:
        for interim in pair.interims:
            assert interim.status == 100 or interim.fields in interims, f"nobody said {interim}"
        answer = pair.response
        if answer is None or is_own(answer, pair.request):
            continue
        mark = dict(answer.fields).get(MARKED)
        if mark is None:
            passed[pair.request.method, pair.request.path] += 1
        else:
            marked[mark] += 1
        switches = pair.request.switches and answer.status == 200
        expected = list(record.responses(pair.request))
        assert any((switches and is_switch(each.said)) or is_expected(answer, each, pair.request, record, limit) for each in expected), (
            f"nobody said {answer} to {pair.request}, but {expected}"
        )
    handler = record.scene.handler
    beyond = marked - Counter(b"%d" % handler.number_of(each) for each in handler.questions)
    assert not beyond, f"decisions that were used again: {beyond}"
    if record.is_decided("on_response_head"):
        beyond_passes = passed - record.passes_of_responses()
        assert not beyond_passes, f"responses that were not let pass: {beyond_passes}"


def is_switch(said: Said) -> bool:
    """Tell whether an upstream has opened a WebSocket."""
    return said.status == 101 or said.status // 100 == 2


def is_expected(answer: Said, expected: Expected, request: Said, record: Record, limit: int) -> bool:
    """Tell whether a response is one that it may be, as far as it went."""
    said = expected.said
    if said.status == 101 or answer.status == 101 or answer.switches:
        return True
    if request.method == "HEAD":
        # its response is complete with its head, whatever would follow
        answer = answer._replace(complete=False)
    if expected.is_filtered:
        answer = answer._replace(fields=unframed(answer.fields))
        if request.method != "HEAD" and media_type(said) in FRAMED and not is_left(answer, request, "to_client", record, limit):
            return False
        said = said._replace(content=answer.content, complete=True, trailers=answer.trailers)
    if media_type(said) in GRPCS and record.scene.has_credentials:
        # what is searched for lies within one message, which leaves without compression if it is found
        said = said._replace(content=answer.content)
    return is_passed_on(ordered(answer._replace(method=said.method, path=said.path)), ordered(said))


def is_left(message: Said, request: Said, direction: str, record: Record, limit: int) -> bool:
    """Tell whether the frames of a message are those that were left by the decisions about one flow, in order."""
    frames = frames_of(message, limit)
    return not frames or any(frames == record.left(flow_id, direction)[: len(frames)] for flow_id in record.flows(request))


def check_told(record: Record, limit: int) -> None:
    """The handler is shown what was said, and the responses as they were decided about."""
    handler = record.scene.handler
    for request, _ in handler.asked:
        shown = Said(
            *(request.method, request.path, 0, neutral(request.headers.raw), request.raw_body),
            *(neutral(request.trailers.raw), request.body_complete and not request.body_truncated),
        )
        assert any(is_shown(shown, pair.request, limit) for pair in record.asked), f"nobody said {shown}"
    expected = [(pair.request, each.said) for pair in record.asked for each in record.responses(pair.request)]
    for name, _, response in handler.told:
        if name != "on_response" or response.status == 101:
            continue
        complete = not (response.body_truncated or response.streaming)
        shown = Said("", "", response.status, sorted(neutral(response.headers.raw)), response.raw_body, [], complete)
        assert any(
            is_about(response.request, request)
            and is_shown_response(shown, said._replace(content=b"") if request.method == "HEAD" else said, response.streaming, limit)
            for request, said in expected
        ), f"nobody said {shown}"


def is_shown_response(shown: Said, said: Said, is_stream: bool, limit: int) -> bool:
    """Tell whether a response is shown as it was said, or decided; of a stream the head alone, with what describes its old content."""
    fields = unframed(shown.fields) if is_stream else shown.fields
    if (shown.status, sorted(fields)) != (said.status, sorted(unframed(said.fields) if is_stream else said.fields)):
        return False
    if is_stream:
        return shown.content == b""
    return shown.content == said.content if shown.complete else said.content.startswith(shown.content) and len(shown.content) <= limit


def check_credentials(record: Record) -> None:
    """The value reaches its destination only, and comes back nowhere."""
    if not record.scene.has_credentials:
        return
    elsewhere = [pair for pair, peer in record.exchanged if getattr(peer, "host", "") != "a.example"]
    for pair in elsewhere:
        assert not holds(pair.request, PLACEHOLDER, VALUE), f"somebody else is sent a credential: {pair.request}"
    if any(holds(pair.request, VALUE) for pair in record.asked) or any(holds(pair.response, VALUE) for pair in elsewhere):
        return
    for pair in record.asked:
        for said in (pair.response, *pair.interims):
            is_grpc = said is not None and media_type(said) in GRPCS
            assert is_grpc or not holds(said, VALUE), f"a client is sent the value: {said}"
    for request, _ in record.scene.handler.asked:
        assert VALUE not in b"".join((request.path.encode("latin-1"), request.raw_body, repr(request.headers.raw).encode()))
    for name, _, told in record.scene.handler.told:
        shown = Said("", "", 0, neutral(told.headers.raw) if name == "on_response" else [], b"", [], True)
        if name == "on_response" and media_type(shown) not in GRPCS:
            assert VALUE not in told.raw_body + repr(told.headers.raw).encode(), f"the handler is shown the value: {told!r}"


def is_about(shown: Any, request: Said) -> bool:
    """Tell whether a question is about this request, or about one like it."""
    return (shown.method, shown.path) == (request.method, request.path)


def is_head_of(shown: Any, response: Said) -> bool:
    """Tell whether this is the head of a response, as the handler was shown it."""
    return shown.status == response.status and sorted(neutral(shown.headers.raw)) == sorted(response.fields)


def ordered(said: Said) -> Said:
    """Return a message in which the order of fields makes no difference."""
    return said._replace(fields=sorted(said.fields), trailers=sorted(said.trailers))


def media_type(said: Said) -> bytes:
    """Return the media type of a message; that of gRPC without the format of its messages."""
    values = [value for name, value in said.fields if name == b"content-type"]
    found = re.split(rb"[; \t]", values[0], maxsplit=1)[0].lower() if values else b""
    return found.partition(b"+")[0] if found.startswith(GRPC) else found


def changed_fields(fields: Fields, decision: Any, left_out: set[bytes]) -> Fields:
    """Return fields with the changes of a decision."""
    wanted = {name.lower(): values for name, values in decision.set}
    gone = left_out | set(decision.remove)
    kept = [field for field in fields if field[0] not in wanted and field[0] not in gone]
    kept += [(name, value) for name, values in wanted.items() for value in values]
    return kept + [(name.lower(), value) for name, value in decision.add]


def without_names(trailers: Fields, decision: Any) -> Fields:
    """Return trailers without what a decision has set or removed."""
    names = {name.lower() for name, _ in decision.set} | set(decision.remove)
    return [field for field in trailers if field[0] not in names]


def body_of(question: Question) -> tuple[bytes, bool]:
    """Return the body that a decision gave, and whether that is all of it."""
    if question.items is not None:
        return question.items.given, question.items.ended and question.items._how != "and fail"
    return question.decision.body, True


def changed_request(request: Said, question: Question) -> Said:
    """Return what a decision makes of a request."""
    decision = question.decision
    if getattr(decision, "kind", "") != "forward":
        return request
    path = request.path if decision.path is None else decision.path.decode()
    if decision.body is None:
        fields = changed_fields(request.fields, decision, set())
        return request._replace(path=path, fields=fields, trailers=without_names(request.trailers, decision))
    content, complete = body_of(question)
    fields = changed_fields(request.fields, decision, OF_REQUESTS)
    return request._replace(path=path, fields=fields, content=content, trailers=[], complete=complete, length=-1)


def changed_response(response: Said, question: Question) -> Said:
    """Return what a decision makes of a response."""
    decision = question.decision
    kind = getattr(decision, "kind", "")
    if kind not in ("change", "replace"):
        return response
    status = response.status if decision.status is None else decision.status
    if kind == "change":
        fields = changed_fields(response.fields, decision, set())
        return response._replace(status=status, fields=fields, trailers=without_names(response.trailers, decision))
    if decision.headers is not None:
        return of_handler(question)._replace(status=status)
    left_out = OF_RESPONSES if status == 206 else OF_RESPONSES | {b"content-range"}
    content, complete = body_of(question)
    fields = changed_fields(response.fields, decision, left_out)
    return Said("", "", status, fields, content, [], complete)


def of_handler(question: Question) -> Said:
    """Return a response that is the handler's own."""
    decision = question.decision
    content, complete = body_of(question)
    fields = neutral(decision.headers)
    if not any(name == b"content-type" for name, _ in fields):
        fields.append((b"content-type", b"text/plain; charset=utf-8"))
    return Said("", "", decision.status, fields, content, [], complete)


def unframed(fields: Fields) -> Fields:
    """Return the fields of a message whose frames are decided about."""
    return [field for field in fields if field[0] not in OF_CHANGED]


# --- credentials


def filled(request: Said) -> Said:
    """Return a request with the value where it belongs."""
    fields = [field for field in request.fields if field[0] not in (b"range", b"if-range")]
    if request.method == "TRACE":
        return request._replace(fields=fields)
    fields = [(name, value.replace(PLACEHOLDER, VALUE) if name == b"authorization" else value) for name, value in fields]
    # messages of gRPC say how long they are
    content = request.content if media_type(request) in GRPCS else request.content.replace(PLACEHOLDER, VALUE)
    if content != request.content or not request.complete:
        fields = [field for field in fields if field[0] not in DIGESTS]
    path, mark, query = request.path.encode("latin-1").partition(b"?")
    path = b"/".join(filled_part(part) for part in path.split(b"/"))
    parameters = [each.partition(b"=") for each in query.split(b"&")]
    query = b"&".join(
        name + equals + (filled_part(value.replace(b"+", b" ") if b"%" in value else value) if unquote_to_bytes(name) == b"key" else value)
        for name, equals, value in parameters
    )
    return request._replace(path=(path + mark + query).decode("latin-1"), fields=fields, content=content)


def filled_part(text: bytes) -> bytes:
    """Return a part of a target with the value in the place of the placeholder."""
    if PLACEHOLDER in text or PLACEHOLDER not in unquote_to_bytes(text):
        return text.replace(PLACEHOLDER, VALUE)
    return quote_from_bytes(unquote_to_bytes(text).replace(PLACEHOLDER, VALUE), safe="").encode()


def decoded(message: Said) -> Said:
    """Return a message without its content codings; what cannot be decoded is left as far as it goes."""
    codings = [value for name, value in message.fields if name == b"content-encoding"]
    decoder = decoder_for(b", ".join(codings), FAR_BEYOND, True)
    if decoder is None:
        return message
    content = b"".join(decoder.feed(message.content[at : at + 1]) for at in range(len(message.content))) + decoder.finish()
    return message._replace(content=content, length=-1, fields=[field for field in message.fields if field[0] != b"content-encoding"])


def redacted(response: Said, request: Said) -> Said:
    """Return a response with the placeholder in the place of the value, decoded."""
    fields = [(name.replace(VALUE, PLACEHOLDER), value.replace(VALUE, PLACEHOLDER)) for name, value in response.fields]
    if response.status < 200 or response.status in (204, 304) or request.method == "HEAD":
        return response._replace(fields=fields)
    content = decoded(response).content
    stars = media_type(response) in GRPCS
    content = content.replace(VALUE, b"*" * len(VALUE) if stars else PLACEHOLDER)
    fields = [field for field in fields if field[0] not in OF_CHANGED]
    trailers = [(name.replace(VALUE, PLACEHOLDER), value.replace(VALUE, PLACEHOLDER)) for name, value in response.trailers]
    if stars:
        trailers = [(name, value.replace(PLACEHOLDER, b"*" * len(VALUE))) for name, value in trailers]
    return response._replace(fields=fields, content=content, trailers=trailers, length=-1)


def texts(said: Said) -> Iterator[bytes]:
    """Yield all that a message says."""
    yield said.path.encode("latin-1")
    yield said.content
    for name, value in (*said.fields, *said.trailers):
        yield name
        yield value


def holds(said: Said | None, *searched: bytes) -> bool:
    """Tell whether something stands in a message, in whatever case: names are in lower case here."""
    return said is not None and any(each.lower() in text.lower() for text in texts(said) for each in searched)


# --- frames


@dataclasses.dataclass
class Headers:
    """The headers of a message, as `frames_in` reads them."""

    said: Said

    def __getitem__(self, name: str) -> str:
        return self.get(name, "")

    def get(self, name: str, default: str) -> str:
        values = self.get_all(name)
        return values[0] if values else default

    def get_all(self, name: str) -> list[str]:
        return [value.decode("latin-1") for each, value in self.said.fields if each == name.encode()]

    @property
    def headers(self) -> Headers:
        return self


def frames_of(said: Said, limit: int) -> list[bytes]:
    """Return the payloads of the frames of a message that are whole, or longer than is looked at."""
    frames: list[Any] = frames_in(Headers(said), said.content, limit)
    return [frame[0] for frame in frames if frame[-1]]


def loosened(sent: Said, expected: Said, record: Record) -> Said:
    """Return a request of which frames are decided about one by one without its content, which is compared by frames."""
    if not (record.is_filtered(expected) and media_type(expected) == GRPC):
        return expected
    if not is_left(sent, expected, "to_upstream", record, record.scene.settings.body_limit):
        return expected._replace(method="")
    return expected._replace(content=sent.content, complete=True, trailers=sent.trailers, fields=unframed(expected.fields))
