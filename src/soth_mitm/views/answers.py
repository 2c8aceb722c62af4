"""What a view shows of one flow and has to be worked out first: conversations of models, bodies as text, commands. It may take its time."""

import functools
from collections.abc import Iterable
from typing import Any

from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm.llm.answer_reader import AnswerReader
from soth_mitm.llm.model_request import ModelRequest, Turn, read_model_request
from soth_mitm.llm.recognition import Recogniser
from soth_mitm.observe.framers import framer_for
from soth_mitm.views.source import Body, FlowDetails, FlowSource, Side
from soth_mitm.views.texts import dump, is_text

# characters of an answer, and bytes of a body, that are shown
TEXT_LIMIT = 1 << 20
BODY_LIMIT = 1 << 20
_BINARY_SHOWN = 2048
# calls before one that are looked at, to find the conversation that it goes on with; and digests of calls that are kept
_CALLS_BEFORE = 8
_CALLS_KEPT = 128


class Answers:
    """Works on what `source` gives. Each method takes the id of a flow, and returns None if it is not kept."""

    def __init__(self, source: FlowSource) -> None:
        self._source = source
        self._recogniser = Recogniser()
        # a request does not change once its flow is listed as a call
        self._turn_hashes = functools.lru_cache(_CALLS_KEPT)(self._read_turn_hashes)

    def body_text(self, flow: int, side: Side) -> dict[str, Any] | None:
        """Return a body as text, or what its first octets are."""
        body = self._source.body(flow, side)
        if body is None:
            return None
        data = body.data
        is_binary = not is_text(data[: BODY_LIMIT + 4])
        if is_binary and (charset := _charset(body.media)):
            try:
                data = data.decode(charset).encode("utf-8", "replace")
                is_binary = False
            except (LookupError, UnicodeDecodeError):
                pass
        text = "\n".join(dump(data[:_BINARY_SHOWN])) if is_binary else data[:BODY_LIMIT].decode("utf-8", "replace")
        return {
            "text": text,
            "is_binary": is_binary,
            "is_cut": len(data) > (_BINARY_SHOWN if is_binary else BODY_LIMIT),
            "decoded": len(data),
            "size": body.size,
            "media": body.media,
            "coding": body.coding,
            "problem": body.problem,
            "lost": body.lost,
        }

    def conversation(self, flow: int, only_answer: bool) -> dict[str, Any] | None:
        """Return a call of a model: what was asked, unless only the answer is wanted, and what came of it by now."""
        details = self._source.details(flow)
        asked = self._source.body(flow, "request")
        answered = self._source.body(flow, "response")
        if details is None or asked is None or answered is None:
            return None
        request = _request_of(details, asked)
        call = None if request is None else self._recogniser.recognise(request)
        found: dict[str, Any] = {"call": None, "turns": (), "tools": (), "problems": (), "earlier": None}
        if call is not None:
            reader = AnswerReader(call, status=details.line.status, text_limit=TEXT_LIMIT, streamed=details.line.has_messages, began=0.0)
            found["call"] = _call_of(reader, details, answered)
        if only_answer:
            return found
        read = read_model_request(details.family or ("" if call is None else call.family.name), asked.data)
        problems = list(read.problems)
        if asked.lost:
            problems.append(f"of the request: {asked.lost}")
        if call is None:
            problems.append("this request is no longer recognised as a call of a model; its answer is in the response")
        found |= {"turns": read.turns, "tools": read.tools, "problems": problems, "earlier": self._earlier(flow, read)}
        return found

    def _earlier(self, flow: int, read: ModelRequest) -> dict[str, int] | None:
        """Find the call before whose messages this one repeats, and how many of them."""
        own = _hashes(read.turns)
        best: dict[str, int] | None = None
        for other in self._source.calls_before(flow, _CALLS_BEFORE):
            known = self._turn_hashes(other)
            same = 0
            while same < min(len(known), len(own)) and known[same] == own[same]:
                same += 1
            # the last message of this call is new, even where it is asked once more
            same = min(same, len(own) - 1)
            said = sum(turn.role != "system" for turn in read.turns[:same])
            if said and (best is None or same > best["count"]):
                best = {"flow": other, "count": same}
        return best

    def _read_turn_hashes(self, flow: int) -> tuple[int, ...]:
        details, body = self._source.details(flow), self._source.body(flow, "request")
        if details is None or body is None:
            return ()
        request = _request_of(details, body)
        call = None if request is None else self._recogniser.recognise(request)
        return () if call is None else _hashes(read_model_request(call.family.name, body.data).turns)


def _hashes(turns: Iterable[Turn]) -> tuple[int, ...]:
    return tuple(hash(turn) for turn in turns)


def _request_of(details: FlowDetails, body: Body) -> RawRequest | None:
    fields = [(name, value) for name, value in details.request_fields if name.lower() in ("content-type", "anthropic-version")]
    try:
        return RawRequest.build(method=details.line.method, url=details.url, headers=fields, body=body.data, body_truncated=bool(body.lost))
    except ValueError:
        # of a request that HTTP would not have let pass; the store may be another program's
        return None


def _call_of(reader: AnswerReader, details: FlowDetails, answered: Body) -> dict[str, Any]:
    line = details.line
    media = answered.media_type
    last = answered.chunks[-1][0] if answered.chunks else 0.0
    now = last if line.took is None else line.took
    if line.has_messages:
        framer = framer_for(media)
        assert framer is not None, "what has messages is a stream"
        frames = [(at, frame) for at, data in answered.chunks for frame in framer.frames(data)]
        if not line.is_open:
            frames += [(last, frame) for frame in framer.last_frames()]
        for at, frame in frames:
            reader.feed(frame.payload, frame.event_type or "", now=at, complete=frame.complete, truncated=frame.truncated)
        if answered.lost:
            reader.miss(f"of the answer: {answered.lost}")
    elif answered.chunks or not line.is_open:
        reader.read(answered.data, now=now, truncated=bool(answered.lost) or line.is_open, problem=answered.problem or None)
    told = reader.end(now=now).as_dict()
    return {name: value for name, value in told.items() if name not in ("flow_id", "connection_id")}


def _charset(media: str) -> str:
    for parameter in media.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"')
    return ""
