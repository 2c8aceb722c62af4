"""Several handlers as one: who is asked, what each sees, and what becomes of it."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm import (
    Chain,
    ChunkDecision,
    ConnectDecision,
    DecisionValueError,
    FrameKind,
    HandlerDecision,
    InterceptHandler,
    RawRequest,
    RawResponse,
    ResponseDecision,
    SseEvent,
    StreamChunk,
    Upstream,
)
from soth_mitm._dataplane.http.messages import noted_chunk
from soth_mitm.decision import merged
from soth_mitm.handler import check_handler, overridden_hooks
from soth_mitm.response_decision import merged as merged_response

ALLOW, forward, block, respond = HandlerDecision.ALLOW, HandlerDecision.forward, HandlerDecision.block, HandlerDecision.respond


def request_of(*lines: tuple[str, str], method: str = "GET", body: bytes = b"") -> RawRequest:
    return RawRequest.build(method=method, headers=lines, body=body)


class Says(InterceptHandler):
    """Answers each request alike, and remembers what it was asked about."""

    def __init__(self, decision: Any) -> None:
        self.decision = decision
        self.seen: list[RawRequest] = []

    def on_request(self, request: RawRequest) -> HandlerDecision:
        self.seen.append(request)
        if isinstance(self.decision, Exception):
            raise self.decision
        return self.decision  # type: ignore[no-any-return]


class SaysLater(Says):
    async def on_request(self, request: RawRequest) -> HandlerDecision:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().on_request(request)


def asked(chain: Chain, request: RawRequest | None = None) -> Any:
    answer = chain.on_request(request or request_of())
    return asyncio.run(answer) if inspect.isawaitable(answer) else answer


@pytest.mark.parametrize("later", [Says, SaysLater])
class TestRequests:
    def test_each_sees_what_the_one_before_left(self, later: type[Says]) -> None:
        first = Says(forward(set={"X-One": "1"}, path="/new"))
        second = later(forward(set={"X-Two": "2"}, add={"X-One": "more"}))
        third = Says(ALLOW)
        decision = asked(Chain(first, second, third))
        assert decision == forward(set={"X-One": "1", "X-Two": "2"}, add={"X-One": "more"}, path="/new")
        assert first.seen[0].path == "/"
        assert (second.seen[0].path, second.seen[0].headers.get_all("x-one")) == ("/new", ["1"])
        assert third.seen[0].headers.get_all("x-one") == ["1", "more"] and third.seen[0].headers["x-two"] == "2"

    @pytest.mark.parametrize("end", [block(403), respond(200, b"mine"), HandlerDecision.abort()], ids=lambda each: each.kind)
    def test_an_end_ends_the_round(self, later: type[Says], end: HandlerDecision) -> None:
        last = Says(ALLOW)
        assert asked(Chain(Says(forward(path="/x")), later(end), last)) is end
        assert last.seen == []

    def test_what_is_no_decision_is_left_to_the_proxy(self, later: type[Says]) -> None:
        last = Says(ALLOW)
        assert asked(Chain(Says(ALLOW), later("nonsense"), last)) == "nonsense"
        assert last.seen == []

    def test_a_failure_ends_the_round(self, later: type[Says]) -> None:
        last = Says(ALLOW)
        with pytest.raises(RuntimeError, match="broken"):
            asked(Chain(Says(forward(path="/x")), later(RuntimeError("broken")), last))
        assert last.seen == []

    def test_nothing_to_say(self, later: type[Says]) -> None:
        assert asked(Chain(Says(ALLOW), later(ALLOW))) is ALLOW

    def test_a_change_that_cannot_be_applied_blocks(self, later: type[Says]) -> None:
        """It is a DecisionError, which blocks whatever `failure_policy` says."""
        with pytest.raises(DecisionValueError, match="cannot be applied: method"):
            asked(Chain(later(forward(method="HEAD")), Says(ALLOW)))


class TestOtherHooks:
    def test_it_has_the_hooks_that_a_member_has(self) -> None:
        class Watches(InterceptHandler):
            def on_response(self, response: Any) -> None: ...

        chain = Chain(Says(ALLOW), Watches(), InterceptHandler())
        assert overridden_hooks(chain) == {"on_request", "on_response"}
        check_handler(chain)

    def test_a_hook_of_one_member_is_that_members(self) -> None:
        one = Says(ALLOW)
        assert Chain(InterceptHandler(), one).on_request == one.on_request

    def test_plain_functions_stay_plain(self) -> None:
        chain = Chain(Says(ALLOW), Says(ALLOW))
        assert not inspect.iscoroutinefunction(chain.on_request)
        assert chain.on_request(request_of()) is ALLOW

    def test_observers_are_all_told(self) -> None:
        told: list[tuple[str, Any]] = []

        def watching(name: str, error: Exception | None = None, *, later: bool = False) -> object:
            class Watches:
                def on_stream_end(self, connection_id: Any, flow_id: int) -> Any:
                    async def tell() -> None:
                        await asyncio.sleep(0)
                        told.append((name, flow_id))
                        if error is not None:
                            raise error

                    if later:
                        return tell()
                    told.append((name, flow_id))
                    if error is not None:
                        raise error
                    return None

            return Watches()

        chain: Any = Chain(watching("a"), watching("b", ValueError("b")), watching("c", KeyError("c"), later=True), watching("d"))
        with pytest.raises(ValueError, match="b"):
            asyncio.run(chain.on_stream_end(uuid4(), 7))
        assert told == [("a", 7), ("b", 7), ("c", 7), ("d", 7)]

    @pytest.mark.parametrize(
        "answers, expected, asked_count",
        [
            ([None, None], None, 2),
            ([None, ConnectDecision.TUNNEL, ConnectDecision.INTERCEPT], ConnectDecision.TUNNEL, 3),
            ([ConnectDecision.INTERCEPT, ConnectDecision.block("no"), None], ConnectDecision.block("no"), 2),
            ([None, "nonsense", None], "nonsense", 2),
        ],
    )
    def test_on_connect(self, answers: list[Any], expected: Any, asked_count: int) -> None:
        asked: list[Any] = []

        def answering(answer: Any) -> object:
            class Answers:
                def on_connect(self, target: Any) -> Any:
                    asked.append(target)
                    return answer

            return Answers()

        chain: Any = Chain(*map(answering, answers))
        assert chain.on_connect("there") == expected
        assert asked == ["there"] * asked_count

    @pytest.mark.parametrize("answers, expected", [([True, True], True), ([True, False, True], False), ([True, 1], 1)])
    def test_should_intercept_tls(self, answers: list[Any], expected: Any) -> None:
        def answering(answer: Any) -> object:
            class Answers:
                def should_intercept_tls(self, host: str, process_info: Any) -> Any:
                    return answer

            return Answers()

        chain: Any = Chain(*map(answering, answers))
        assert chain.should_intercept_tls("host", None) is expected

    def test_a_cancelled_round_is_closed(self) -> None:
        closed: list[str] = []

        class Waits(InterceptHandler):
            async def on_request(self, request: RawRequest) -> HandlerDecision:
                try:
                    await asyncio.Event().wait()
                finally:
                    closed.append("closed")
                return ALLOW

        async def cancelled() -> None:
            task = asyncio.ensure_future(Chain(Says(ALLOW), Waits()).on_request(request_of()))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancelled())
        assert closed == ["closed"]

    def test_chains_in_chains(self) -> None:
        chain = Chain(Chain(Says(forward(set={"A": "1"})), Says(forward(set={"B": "2"}))), Chain(Says(forward(remove=["a"]))))
        assert asked(chain) == forward(set={"B": "2"}, remove=["a"])


@pytest.mark.parametrize("handlers, message", [((), "at least one"), ((Says,), "member 0 of the Chain: the handler is the class Says")])
def test_what_is_no_handler(handlers: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Chain(*handlers)


NAMES = st.sampled_from(["A", "b", "X-C"])
LINES = st.lists(st.tuples(NAMES, st.sampled_from(["1", "2"])), max_size=3)


def change_of(set: Any, add: Any, remove: list[str], **more: Any) -> HandlerDecision:
    return forward(set=set, add=add, remove=[name for name in remove if name not in dict(set)], **more)


CHANGES = st.builds(
    change_of,
    set=LINES,
    add=LINES,
    remove=st.lists(NAMES, max_size=2),
    method=st.sampled_from([None, "PUT", "POST"]),
    path=st.sampled_from([None, "/p", "/q?r"]),
    body=st.sampled_from([None, b"", b"body"]),
)


@given(LINES, st.lists(CHANGES, min_size=2, max_size=4))
def test_a_merged_change_is_one_after_the_other(lines: list[tuple[str, str]], changes: list[HandlerDecision]) -> None:
    request = request_of(*lines, method="POST", body=b"old")
    one_by_one, whole = request, changes[0]
    for change in changes:
        one_by_one = one_by_one.changed(change)
    for change in changes[1:]:
        whole = merged(whole, change)
    at_once = request.changed(whole)
    for name in ("a", "b", "x-c"):
        assert at_once.headers.get_all(name) == one_by_one.headers.get_all(name)
    assert (at_once.method, at_once.path, at_once.body) == (one_by_one.method, one_by_one.path, one_by_one.body)


@pytest.mark.parametrize(
    "first, later, expected",
    [
        ("https://a.example", "b.example:1", Upstream("b.example", 1, authority="a.example")),
        ("https://a.example", "https://b.example", "https://b.example"),
        ("a.example:1", "b.example:2", "b.example:2"),
        ("http://a.example:8080", "b.example:2", Upstream("b.example", 2, tls=False, authority="a.example:8080")),
    ],
)
def test_the_way_of_a_merged_change(first: str, later: str, expected: Any) -> None:
    whole = merged(forward(to=first), forward(to=later))
    assert whole._where == forward(to=expected)._where
    assert merged(forward(to=first), forward(path="/x"))._where == forward(to=first)._where


def test_a_streamed_body_is_taken_once() -> None:
    async def pieces() -> Any:
        yield b"x"

    source = pieces()
    first = forward(body=source)
    whole = merged(first, forward(set={"A": "1"}))
    assert whole.body is source
    assert whole._take_body()[0] is source
    with pytest.raises(DecisionValueError, match="serves one message"):
        first._take_body()


PASS, HOLD, UNFILTERED = ResponseDecision.PASS, ResponseDecision.HOLD, ResponseDecision.UNFILTERED
change, replace = ResponseDecision.change, ResponseDecision.replace


class Judges(InterceptHandler):
    """Answers about heads and bodies as the test says, and remembers what it was shown."""

    def __init__(self, head: Any, body: Any = PASS, *, later: bool = False) -> None:
        self.head, self.body, self.later = head, body, later
        self.seen: list[tuple[str, dict[str, str], bytes, bool]] = []

    def _says(self, hook: str, response: RawResponse, answer: Any) -> Any:
        lines = {name.lower(): response.headers[name] for name in ("A", "B", "ETag") if name in response.headers}
        self.seen.append((hook, lines, response.body, response.body_complete))

        async def say() -> Any:
            await asyncio.sleep(0)
            return answer

        if isinstance(answer, Exception):
            raise answer
        return say() if self.later else answer

    def on_response_head(self, response: RawResponse) -> Any:
        return self._says("head", response, self.head)

    def on_response_body(self, response: RawResponse) -> Any:
        return self._says("body", response, self.body)


class AtHeads(InterceptHandler):
    """Never looks at a body."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def on_response_head(self, response: RawResponse) -> Any:
        return self.answer


def at_head(*lines: tuple[str, str], status: int = 200, note: Any = None) -> RawResponse:
    return RawResponse.build(status=status, headers=lines)._shown(False, note or ())


def decided(chain: Any, *lines: tuple[str, str], body: bytes = b"old") -> tuple[Any, int]:
    """Ask as the proxy does; return the last decision, and how many hooks it took."""
    whole = RawResponse.build(headers=lines, body=body)
    answer = chain.on_response_head(whole._shown(False, ()))
    answer = asyncio.run(answer) if inspect.isawaitable(answer) else answer
    if getattr(answer, "kind", None) != "hold":
        return answer, 1
    answer = chain.on_response_body(whole._shown(True, answer._note))
    return (asyncio.run(answer) if inspect.isawaitable(answer) else answer), 2


@pytest.mark.parametrize("later", [False, True])
class TestResponses:
    def test_each_sees_the_head_that_the_one_before_left(self, later: bool) -> None:
        first, second = Judges(change(set={"A": "1"}, status=404)), Judges(change(set={"B": "2"}, remove=["a"]), later=later)
        third = Judges(PASS)
        assert decided(Chain(first, second, third)) == (change(set={"B": "2"}, remove=["a"], status=404), 1)
        assert [member.seen for member in (first, second, third)] == [
            [("head", {}, b"", False)],
            [("head", {"a": "1"}, b"", False)],
            [("head", {"b": "2"}, b"", False)],
        ]

    def test_each_sees_the_body_that_the_one_before_left(self, later: bool) -> None:
        first, second = Judges(HOLD, replace(body="one")), Judges(HOLD, replace(body="two", set={"B": "2"}), later=later)
        third = Judges(HOLD)
        assert decided(Chain(first, second, third), ("ETag", "x")) == (replace(body="two", set={"B": "2"}), 2)
        assert first.seen == [("head", {"etag": "x"}, b"", False), ("body", {"etag": "x"}, b"old", True)]
        assert second.seen == [("head", {}, b"", False), ("body", {}, b"one", True)]
        assert third.seen == [("head", {"b": "2"}, b"", False), ("body", {"b": "2"}, b"two", True)]

    def test_a_change_before_a_hold_is_kept(self, later: bool) -> None:
        holds = Judges(HOLD, change(add={"A": "2"}), later=later)
        behind = Judges(change(set={"B": "1"}))
        assert decided(Chain(AtHeads(change(set={"A": "1"})), holds, behind)) == (change(set={"A": "1", "B": "1"}, add={"A": "2"}), 2)
        assert holds.seen == [("head", {"a": "1"}, b"", False), ("body", {"a": "1"}, b"old", True)]
        assert behind.seen == [("head", {"a": "1"}, b"", False)]

    def test_one_that_did_not_hold_is_not_shown_the_body(self, later: bool) -> None:
        before, behind = Judges(PASS), Judges(PASS)
        assert decided(Chain(before, Judges(HOLD, later=later), behind)) == (PASS, 2)
        assert [hook for hook, *_ in before.seen + behind.seen] == ["head", "head"]

    def test_a_replacement_at_the_head_is_shown_to_the_others(self, later: bool) -> None:
        behind = Judges(HOLD, replace(body="later"), later=later)
        assert decided(Chain(AtHeads(replace(status=201, body="mine", headers={"A": "1"})), behind)) == (
            replace(status=201, body="later", headers={"A": "1"}),
            1,
        )
        assert behind.seen == [("head", {"a": "1"}, b"", False), ("body", {"a": "1"}, b"mine", True)]

    def test_a_block_ends_the_round(self, later: bool) -> None:
        last, stop = Judges(PASS), ResponseDecision.block(451)
        assert decided(Chain(AtHeads(change(set={"A": "1"})), Judges(stop, later=later), last)) == (stop, 1)
        assert decided(Chain(AtHeads(change(set={"A": "1"})), Judges(HOLD, stop, later=later), last)) == (stop, 2)
        assert last.seen == []

    def test_what_is_no_decision_is_left_to_the_proxy(self, later: bool) -> None:
        last = Judges(PASS)
        assert decided(Chain(Judges("nonsense", later=later), last)) == ("nonsense", 1)
        assert decided(Chain(Judges(HOLD, None, later=later), last)) == (None, 2)
        assert last.seen == []

    @pytest.mark.parametrize(
        "members, message",
        [
            ([AtHeads(HOLD), AtHeads(PASS)], "HOLD: member 0 of the Chain has no on_response_body"),
            ([Judges(HOLD, HOLD), AtHeads(PASS)], "HOLD: the body is here"),
            ([AtHeads(replace(body="x")), Judges(HOLD, HOLD)], "HOLD: the body is here"),
            ([AtHeads(PASS), AtHeads(replace(status=206, body="x"))], "cannot be applied: body: the body of a 206"),
            ([Judges(HOLD, replace(status=206, body="x")), AtHeads(PASS)], "cannot be applied: body: the body of a 206"),
        ],
    )
    def test_what_cannot_be_done_blocks(self, later: bool, members: Any, message: str) -> None:
        """It is a DecisionError, which blocks whatever `failure_policy` says."""
        with pytest.raises(DecisionValueError, match=message):
            decided(Chain(*members, Judges(PASS, later=later)))

    def test_a_failure_ends_the_round(self, later: bool) -> None:
        last = Judges(PASS, later=later)
        with pytest.raises(RuntimeError, match="broken"):
            decided(Chain(Judges(HOLD, RuntimeError("broken")), last))
        assert last.seen == []

    def test_a_streamed_replacement_cannot_be_replaced_unread(self, later: bool) -> None:
        async def pieces() -> Any:
            yield b"x"

        source = pieces()
        members = AtHeads(replace(body=source)), Judges(change(set={"A": "1"}), later=later)
        whole, _ = decided(Chain(*members))
        assert whole._take_body()[0] is source and whole.set == ((b"A", (b"1",)),)
        with pytest.raises(DecisionValueError, match="was not shown whole"):
            decided(Chain(AtHeads(replace(body=pieces())), Judges(HOLD, replace(body="y"), later=later)))

    def test_chains_in_chains(self, later: bool) -> None:
        """Each remembers how far it has come."""
        inner = Chain(AtHeads(change(set={"A": "1"})), Judges(HOLD, replace(body="one"), later=later))
        second = Judges(HOLD, replace(body="two"))
        outer = Chain(AtHeads(change(set={"B": "2"})), inner, Chain(AtHeads(PASS), second))
        assert decided(outer) == (replace(body="two", set={"B": "2", "A": "1"}), 2)
        assert second.seen[-1] == ("body", {"a": "1", "b": "2"}, b"one", True)

    def test_a_body_that_somebody_else_held(self, later: bool) -> None:
        first, second = Judges(PASS, replace(body="one"), later=later), Judges(PASS, change(set={"A": "1"}))
        answer = Chain(first, second, AtHeads(PASS)).on_response_body(RawResponse.build(body=b"old"))
        answer = asyncio.run(answer) if inspect.isawaitable(answer) else answer
        assert answer == replace(body="one", set={"A": "1"})
        assert [hook for hook, *_ in first.seen + second.seen] == ["body", "body"]


def test_one_member_that_decides_is_asked_as_if_there_were_no_chain() -> None:
    one = Judges(PASS)
    chain = Chain(InterceptHandler(), one)
    assert chain.on_response_head == one.on_response_head
    assert chain.on_response_body == one.on_response_body


RESPONSE_CHANGES = st.builds(
    lambda set, add, remove, status: change(set=set, add=add, remove=[name for name in remove if name not in dict(set)], status=status),
    set=LINES,
    add=LINES,
    remove=st.lists(NAMES, max_size=2),
    status=st.sampled_from([None, 200, 404]),
)
RESPONSE_NAMES = st.sampled_from(["A", "ETag", "Content-Type", "Content-Encoding"])
REPLACEMENTS = st.one_of(
    st.builds(
        lambda set, remove, status, body: replace(status, body, set=set, remove=[name for name in remove if name not in dict(set)]),
        set=st.lists(st.tuples(RESPONSE_NAMES, st.sampled_from(["1", "2"])), max_size=3),
        remove=st.lists(RESPONSE_NAMES, max_size=2),
        status=st.sampled_from([None, 200, 404]),
        body=st.sampled_from([b"", b"body"]),
    ),
    st.builds(replace, st.sampled_from([None, 201]), st.sampled_from([b"", b"body"]), st.lists(st.tuples(RESPONSE_NAMES, st.just("3")))),
    st.builds(lambda names: change(remove=names), st.lists(RESPONSE_NAMES, max_size=2)),
    st.builds(lambda lines: change(set=lines), st.lists(st.tuples(RESPONSE_NAMES, st.just("4")), max_size=2)),
)


@given(
    st.lists(st.tuples(RESPONSE_NAMES, st.sampled_from(["5", "6"])), max_size=4),
    st.lists(st.one_of(RESPONSE_CHANGES, REPLACEMENTS), min_size=2, max_size=4),
)
def test_a_merged_change_of_a_response_is_one_after_the_other(lines: Any, changes: list[ResponseDecision]) -> None:
    response = RawResponse.build(headers=lines, body=b"old")
    one_by_one, whole = response, changes[0]
    for each in changes:
        one_by_one = one_by_one.changed(each)
    for each in changes[1:]:
        whole = merged_response(whole, each)
    at_once = response.changed(whole)
    for name in ("a", "b", "x-c", "etag", "content-type", "content-encoding", "content-length"):
        assert at_once.headers.get_all(name) == one_by_one.headers.get_all(name), name
    assert (at_once.status, at_once.raw_body) == (one_by_one.status, one_by_one.raw_body)
    assert pickle.loads(pickle.dumps(whole)) == whole


class Filters(InterceptHandler):
    """Decides about each chunk by its payload."""

    def __init__(self, answers: Any, kinds: Any = frozenset(FrameKind), head: Any = None, *, later: bool = False) -> None:
        self.answers, self.filter_kinds, self.later = answers, kinds, later  # type: ignore[misc]
        self.seen: list[StreamChunk] = []
        if head is not None:
            self.on_response_head = lambda response: head  # type: ignore[method-assign]

    def filter_stream_chunk(self, chunk: StreamChunk) -> Any:
        self.seen.append(chunk)
        answer = self.answers(chunk) if callable(self.answers) else self.answers

        async def say() -> Any:
            await asyncio.sleep(0)
            return answer

        return say() if self.later else answer

    @property
    def payloads(self) -> list[bytes]:
        return [chunk.payload for chunk in self.seen]


def filtered(chain: Any, payload: bytes = b"one", kind: FrameKind = FrameKind.SSE_DATA, note: Any = None, **more: Any) -> Any:
    chunk = StreamChunk.build(payload, kind, **more)
    chunk = chunk if note is None else noted_chunk(chunk, note)
    answer = chain.filter_stream_chunk(chunk)
    return asyncio.run(answer) if inspect.isawaitable(answer) else answer


CHUNK_PASS, DROP, END, instead = ChunkDecision.PASS, ChunkDecision.DROP, ChunkDecision.END, ChunkDecision.replace


@pytest.mark.parametrize("later", [False, True])
class TestFilters:
    def test_each_sees_what_the_one_before_left(self, later: bool) -> None:
        first, second, third = Filters(instead("a\r\nb")), Filters(instead("two"), later=later), Filters(CHUNK_PASS)
        assert filtered(Chain(first, second, third)) == instead("two")
        assert (first.payloads, second.payloads, third.payloads) == ([b"one"], [b"a\nb"], [b"two"])
        assert [chunk.replaced for chunk in (*first.seen, *second.seen)] == [False, True]

    def test_nothing_to_say(self, later: bool) -> None:
        assert filtered(Chain(Filters(CHUNK_PASS), Filters(CHUNK_PASS, later=later))) is CHUNK_PASS

    @pytest.mark.parametrize("end", [DROP, END, "nonsense"])
    def test_an_end_ends_the_round(self, later: bool, end: Any) -> None:
        last = Filters(CHUNK_PASS)
        assert filtered(Chain(Filters(instead("x")), Filters(end, later=later), last)) == end
        assert last.seen == []

    def test_each_payload_is_asked_about(self, later: bool) -> None:
        """What takes the place of the first one has the lines of the event, and no other."""
        first = Filters(instead("a", SseEvent("b", event="e", id="7"), "c", "d"))
        second = Filters(
            lambda chunk: {b"a": DROP, b"b": instead("B", "BB"), b"c": instead("C"), b"d": CHUNK_PASS}[chunk.payload], later=later
        )
        third = Filters(CHUNK_PASS)
        assert filtered(Chain(first, second, third), event_type="mine", retry=5) == instead(
            SseEvent("B", event="e", id="7"), SseEvent("BB"), SseEvent("C"), SseEvent("d")
        )
        assert [(chunk.payload, chunk.event_type, chunk.event_id, chunk.retry) for chunk in third.seen] == [
            (b"B", "e", "7", None),
            (b"BB", "message", "7", None),
            (b"C", "message", None, None),
            (b"d", "message", None, None),
        ]
        first.answers = instead("a")
        assert filtered(Chain(first, second, third)) is DROP

    def test_the_first_payload_keeps_the_lines_of_the_event(self, later: bool) -> None:
        second = Filters(instead("b", "c"), later=later)
        assert filtered(Chain(Filters(instead("a")), second), event_type="mine", retry=5) == instead("b", SseEvent("c"))
        assert (second.seen[0].event_type, second.seen[0].retry) == ("mine", 5)

    def test_other_kinds_have_bytes_only(self, later: bool) -> None:
        first, second = Filters(instead("a", "b")), Filters(lambda chunk: instead(chunk.payload * 2), later=later)
        assert filtered(Chain(first, second), kind=FrameKind.NDJSON_LINE) == instead("aa", "bb")
        with pytest.raises(DecisionValueError, match="an SseEvent is for a stream of events"):
            filtered(Chain(Filters(instead(SseEvent("x"))), second), kind=FrameKind.NDJSON_LINE)

    def test_a_chunk_that_was_shown_cut_is_not_replaced(self, later: bool) -> None:
        second = Filters(CHUNK_PASS, later=later)
        with pytest.raises(DecisionValueError, match="the chunk was shown cut"):
            filtered(Chain(Filters(instead("x")), second), truncated=True)
        assert second.seen == []

    def test_each_is_asked_about_its_own_kinds(self, later: bool) -> None:
        text, events = Filters(instead("t"), {FrameKind.WEBSOCKET_TEXT}), Filters(instead("e"), {FrameKind.SSE_DATA}, later=later)
        chain = Chain(text, InterceptHandler(), events)
        assert chain.filter_kinds == {FrameKind.WEBSOCKET_TEXT, FrameKind.SSE_DATA}
        assert filtered(chain) == instead("e")
        assert filtered(chain, kind=FrameKind.WEBSOCKET_TEXT) == instead("t")
        assert (len(text.seen), len(events.seen)) == (1, 1)

    def test_unfiltered_is_about_the_member_that_says_it(self, later: bool) -> None:
        one, other = Filters(instead("x"), head=UNFILTERED), Filters(CHUNK_PASS, later=later)
        chain: Any = Chain(one, other)
        decision, _ = decided(chain)
        assert (decision.kind, decision._is_unfiltered) == ("pass", False)
        assert filtered(chain, note=decision._note) is CHUNK_PASS
        assert (one.payloads, other.payloads) == ([], [b"one"])
        assert filtered(chain) == instead("x"), "of another flow"

    def test_unfiltered_by_all_that_filter(self, later: bool) -> None:
        one, other = Filters(CHUNK_PASS, head=UNFILTERED), Filters(CHUNK_PASS, head=UNFILTERED)
        assert decided(Chain(one, other)) == (UNFILTERED, 1)
        decision, _ = decided(Chain(Chain(one, AtHeads(change(set={"A": "1"}))), AtHeads(PASS), other))
        assert (decision.kind, decision._is_unfiltered, decision._note) == ("change", True, ())

    def test_one_that_does_not_filter_says_nothing_about_another(self, later: bool) -> None:
        other = Filters(CHUNK_PASS, later=later)
        decision, _ = decided(Chain(AtHeads(UNFILTERED), other))
        assert (decision.kind, decision._is_unfiltered) == ("pass", False)

    def test_unfiltered_in_a_chain_in_a_chain(self, later: bool) -> None:
        one, other, third = Filters(CHUNK_PASS, head=UNFILTERED), Filters(CHUNK_PASS, later=later), Filters(CHUNK_PASS)
        chain: Any = Chain(AtHeads(change(set={"A": "1"})), Chain(one, other), third)
        decision, _ = decided(chain)
        assert (decision.kind, decision._is_unfiltered) == ("change", False)
        assert filtered(chain, note=decision._note) is CHUNK_PASS
        assert [len(member.seen) for member in (one, other, third)] == [0, 1, 1]


def test_one_filter_is_asked_as_if_there_were_no_chain() -> None:
    one = Filters(CHUNK_PASS, {FrameKind.SSE_DATA})
    chain = Chain(InterceptHandler(), one)
    assert chain.filter_stream_chunk == one.filter_stream_chunk
    assert chain.filter_kinds == {FrameKind.SSE_DATA}


def test_what_a_chunk_becomes() -> None:
    chunk = StreamChunk.build(b"one")
    assert chunk.changed(CHUNK_PASS) == (chunk,)
    assert chunk.changed(DROP) == ()
    with pytest.raises(ValueError, match="expected ChunkDecision.PASS"):
        chunk.changed(END)
