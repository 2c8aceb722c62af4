"""Several handlers as one: who is asked, what each sees, and what becomes of it."""

from __future__ import annotations

import asyncio
import inspect
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
    StreamChunk,
    Upstream,
)
from soth_mitm.decision import merged
from soth_mitm.handler import check_handler, overridden_hooks

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
    with pytest.raises(DecisionValueError, match="serves one request"):
        first._take_body()


def test_decisions_about_responses_are_those_of_one_member() -> None:
    class Decides(InterceptHandler):
        def on_response_head(self, response: RawResponse) -> ResponseDecision:
            return ResponseDecision.PASS

    with pytest.raises(TypeError, match="2 members of the Chain have on_response_head, and a chain combines no such decisions"):
        Chain(Decides(), Decides())
    one = Decides()
    assert Chain(InterceptHandler(), one).on_response_head == one.on_response_head


def test_a_filter_is_that_of_one_member() -> None:
    class Filters(InterceptHandler):
        filter_kinds = frozenset({FrameKind.SSE_DATA})

        def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
            return ChunkDecision.PASS

    with pytest.raises(TypeError, match="2 members of the Chain have filter_stream_chunk"):
        Chain(Filters(), Filters())
    one = Filters()
    chain = Chain(InterceptHandler(), one)
    assert chain.filter_stream_chunk == one.filter_stream_chunk
    assert chain.filter_kinds == {FrameKind.SSE_DATA}
