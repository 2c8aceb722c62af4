"""What a handler may answer."""

import copy
import pickle
from typing import Any

import pytest

from soth_mitm.decision import HandlerDecision
from soth_mitm.errors import DecisionError, DecisionValueError


def test_allow_is_one_object_under_two_names() -> None:
    allow = HandlerDecision.ALLOW
    assert allow is HandlerDecision.Allow
    assert (allow.is_block, allow.status, allow.body, allow.headers) == (False, 0, b"", ())
    assert repr(allow) == "HandlerDecision.ALLOW"
    assert pickle.loads(pickle.dumps(allow)) is allow
    assert copy.deepcopy(allow) is allow


def test_block_carries_the_answer() -> None:
    decision = HandlerDecision.block(429, "später", [("Retry-After", "10"), (b"X-Why", b"\xff ")])
    assert (decision.is_block, decision.status, decision.body) == (True, 429, "später".encode())
    assert decision.headers == ((b"Retry-After", b"10"), (b"X-Why", b"\xff"))
    assert repr(HandlerDecision.block(403, b"no")) == "HandlerDecision.block(403, b'no')"
    assert repr(HandlerDecision.block(403, b"x" * 99, {"A": "b"})).endswith("xxx...', headers=[(b'A', b'b')])")


def test_both_spellings_and_all_kinds_of_arguments_are_the_same() -> None:
    expected = HandlerDecision.block(403, b"no", [(b"A", b"1"), (b"A", b"2")])
    assert HandlerDecision.Block(status=403, body="no", headers=(pair for pair in [("A", "1"), ("A", "2")])) == expected
    assert HandlerDecision.block(403, bytearray(b"no"), {"A": "1"}) == HandlerDecision.block(403, memoryview(b"no"), {b"A": b"1"})
    assert hash(HandlerDecision.block(403)) == hash(HandlerDecision.block(403))
    assert HandlerDecision.block(403) != HandlerDecision.block(404)
    assert HandlerDecision.block(403) != HandlerDecision.ALLOW != "ALLOW"


@pytest.mark.parametrize(
    "decision",
    [
        HandlerDecision.block(403, b"no", [("A", "1")]),
        HandlerDecision.respond(201, "made", {"Location": "/x"}),
        HandlerDecision.respond(),
        HandlerDecision.abort(),
        HandlerDecision.abort("close"),
    ],
    ids=repr,
)
def test_a_decision_survives_pickle_and_copy(decision: HandlerDecision) -> None:
    again = pickle.loads(pickle.dumps(decision))
    assert again == copy.deepcopy(decision) == decision
    assert (hash(again), repr(again), again.kind) == (hash(decision), repr(decision), decision.kind)


def test_each_kind_says_what_it_is() -> None:
    decisions = [HandlerDecision.ALLOW, HandlerDecision.block(403), HandlerDecision.respond(403), HandlerDecision.abort("close")]
    assert [decision.kind for decision in decisions] == ["allow", "block", "respond", "abort"]
    assert [decision.is_block for decision in decisions] == [False, True, False, False]
    assert len(set(decisions)) == len(decisions)
    assert HandlerDecision.respond() == HandlerDecision.respond(200, b"", ())
    assert HandlerDecision.abort() == HandlerDecision.abort("reset") != HandlerDecision.abort("close")
    assert repr(HandlerDecision.respond(200, "hi", {"A": "b"})) == "HandlerDecision.respond(200, b'hi', headers=[(b'A', b'b')])"
    assert repr(HandlerDecision.abort()) == "HandlerDecision.abort('reset')"


@pytest.mark.parametrize("how", ["", "fin", None, 1])
def test_an_abort_has_two_ways(how: Any) -> None:
    with pytest.raises(DecisionValueError, match=f"how: expected 'close' or 'reset', got {how!r}"):
        HandlerDecision.abort(how)


def test_a_decision_cannot_be_changed_or_made_by_hand() -> None:
    decision = HandlerDecision.block(403)
    with pytest.raises(AttributeError, match="cannot be changed; make another one"):
        decision.status = 200
    with pytest.raises(AttributeError, match="cannot be changed"):
        HandlerDecision.ALLOW.note = "x"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="cannot be changed"):
        del decision.body
    with pytest.raises(TypeError, match=r"use HandlerDecision\.ALLOW, \.block\("):
        HandlerDecision()


@pytest.mark.parametrize("status", [200, 204, 403, 599])
def test_final_statuses_are_accepted(status: int) -> None:
    assert HandlerDecision.block(status).status == status


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"status": 199}, ValueError, "status: expected a final status from 200 to 599, got 199"),
        ({"status": 600}, ValueError, "got 600"),
        ({"status": 100}, ValueError, "got 100"),
        ({"status": True}, TypeError, "status: expected a whole number, got True"),
        ({"status": "403"}, TypeError, "got '403'"),
        ({"status": 403, "body": None}, TypeError, "body: expected str or bytes, got NoneType"),
        ({"status": 403, "body": {"error": 1}}, TypeError, "body: expected str or bytes, got dict"),
        ({"status": 204, "body": "x"}, ValueError, "body: a response with status 204 has none, got 1 bytes"),
        ({"status": 403, "headers": [("", "x")]}, ValueError, "headers: '' is not a header name"),
        ({"status": 403, "headers": [("X Y", "x")]}, ValueError, "'X Y' is not a header name"),
        ({"status": 403, "headers": [("X:", "x")]}, ValueError, "is not a header name"),
        ({"status": 403, "headers": [("é", "x")]}, ValueError, "is not a header name"),
        ({"status": 403, "headers": [(":status", "200")]}, ValueError, "is not a header name"),
        ({"status": 403, "headers": [("X", "a\r\nSet-Cookie: b")]}, ValueError, "the value of 'X' contains a control character"),
        ({"status": 403, "headers": [("X", "a\nb")]}, ValueError, "control character"),
        ({"status": 403, "headers": [(b"X", b"a\x00b")]}, ValueError, "control character"),
        ({"status": 403, "headers": [("X", "\u20ac")]}, ValueError, "is not Latin-1"),
        ({"status": 403, "headers": [("X", 5)]}, TypeError, "headers: expected str or bytes as value, got int"),
        ({"status": 403, "headers": {"Content-Length": "0"}}, ValueError, "'Content-Length' is set by the proxy; leave it out"),
        ({"status": 403, "headers": [(b"TRANSFER-ENCODING", b"chunked")]}, ValueError, "is set by the proxy"),
        ({"status": 403, "headers": [("connection", "close")]}, ValueError, "is set by the proxy"),
    ],
)
def test_a_wrong_answer_fails_where_it_is_made(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    for make in (HandlerDecision.block, HandlerDecision.respond):
        with pytest.raises(error) as caught:
            make(**arguments)
        assert message in str(caught.value)
        assert isinstance(caught.value, DecisionError)
