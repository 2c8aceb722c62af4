"""What a handler may answer about a response."""

import copy
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

from soth_mitm.errors import DecisionError, DecisionValueError
from soth_mitm.response_decision import ResponseDecision

change, replace, block = ResponseDecision.change, ResponseDecision.replace, ResponseDecision.block
FIXED = [ResponseDecision.PASS, ResponseDecision.HOLD, ResponseDecision.UNFILTERED]


@pytest.mark.parametrize(("decision", "kind"), list(zip(FIXED, ["pass", "hold", "unfiltered"], strict=True)), ids=repr)
def test_those_without_parts_are_one_object_each(decision: ResponseDecision, kind: str) -> None:
    assert (decision.kind, decision.is_block, decision.status, decision.body, decision.headers) == (kind, False, None, None, None)
    assert (decision.set, decision.add, decision.remove) == ((), (), ())
    assert repr(decision) == f"ResponseDecision.{kind.upper()}"
    assert pickle.loads(pickle.dumps(decision)) is copy.deepcopy(decision) is decision


def test_change_carries_the_changes() -> None:
    decision = change(set={"X-One": "1", b"X-Two": [b"2", "3"]}, add=[("A", "b"), ("A", "c")], remove=["GONE", b"gone"], status=201)
    assert decision.set == ((b"X-One", (b"1",)), (b"X-Two", (b"2", b"3")))
    assert (decision.add, decision.remove, decision.status) == (((b"A", b"b"), (b"A", b"c")), (b"gone",), 201)
    assert (decision.kind, decision.body, decision.headers) == ("change", None, None)
    assert change() == change(status=None) != ResponseDecision.PASS


def test_replace_keeps_the_head_or_makes_one() -> None:
    kept = replace(body="ä", set={"Content-Type": "text/plain"}, remove=["Server"])
    assert (kept.kind, kept.status, kept.body, kept.headers) == ("replace", None, "ä".encode(), None)
    assert (kept.set, kept.remove) == (((b"Content-Type", (b"text/plain",)),), (b"server",))
    made = replace(404, b"gone", {"X": "1"})
    assert (made.status, made.body, made.headers) == (404, b"gone", ((b"X", b"1"),))
    assert replace() == replace(None, b"", None) != replace(headers=())
    assert replace(204).body == b""


def test_block_carries_the_answer() -> None:
    assert (block().kind, block().status, block().body, block().headers, block().is_block) == ("block", 502, b"", (), True)
    decision = block(403, "no", {"X-Why": "secret"})
    assert (decision.status, decision.body, decision.headers) == (403, b"no", ((b"X-Why", b"secret"),))


@pytest.mark.parametrize(
    "decision",
    [
        *FIXED,
        change(set={"A": ["1", "2"]}, add={"B": "3"}, remove=["c"], status=404),
        change(),
        replace(200, "text", [("A", "1"), ("A", "2")]),
        replace(body=b"x", set={"A": "1"}, remove=["b"]),
        block(),
        block(403, b"no", [("A", "1")]),
    ],
    ids=repr,
)
def test_a_decision_survives_pickle_and_copy(decision: ResponseDecision) -> None:
    again = pickle.loads(pickle.dumps(decision))
    assert again == copy.deepcopy(decision) == decision
    assert (hash(again), repr(again), again.kind) == (hash(decision), repr(decision), decision.kind)


def test_what_is_shown_of_changes_is_no_credential() -> None:
    decision = change(set={"Set-Cookie": "secret"}, add={"X-Key": "secret"}, remove=["A"], status=201)
    assert repr(decision) == "ResponseDecision.change(set=[b'Set-Cookie'], add=[b'X-Key'], remove=[b'a'], status=201)"
    assert repr(replace(body=b"x" * 99, set={"A": "1"})).startswith("ResponseDecision.replace(set=[b'A'], body=b'xxx")
    assert repr(replace(200, headers={"A": "1"})) == "ResponseDecision.replace(status=200, body=b'', headers=[(b'A', b'1')])"
    assert repr(block(403, b"no")) == "ResponseDecision.block(403, b'no')"


OURS = ["Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade"]
OF_HANDSHAKES = ["Sec-WebSocket-Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Key", "Sec-WebSocket-Version"]


@pytest.mark.parametrize("name", OURS + OF_HANDSHAKES)
def test_framing_and_connection_are_left_alone(name: str) -> None:
    calls = [
        lambda: change(set={name: "1"}),
        lambda: change(add=[(name.encode(), b"1")]),
        lambda: change(remove=[name.upper()]),
        lambda: replace(set={name: "1"}),
        lambda: replace(remove=[name]),
    ]
    if name in OURS:
        calls += [lambda: replace(headers={name: "1"}), lambda: block(headers={name: "1"})]
    for call in calls:
        with pytest.raises(DecisionValueError, match="is set by the proxy; leave it out"):
            call()


def test_a_subprotocol_may_be_changed() -> None:
    assert change(set={"Sec-WebSocket-Protocol": "chat"}).set == ((b"Sec-WebSocket-Protocol", (b"chat",)),)


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (change, {"status": 204}, ValueError, "status: a response with status 204 has no body, and `change` keeps"),
        (change, {"status": 205}, ValueError, "status: a response with status 205 has no body"),
        (change, {"status": 304}, ValueError, "status: a response with status 304 has no body"),
        (change, {"status": 101}, ValueError, "status: expected a final status from 200 to 599, got 101"),
        (change, {"status": 600}, ValueError, "status: expected a final status from 200 to 599, got 600"),
        (change, {"status": True}, TypeError, "status: expected a whole number, got True"),
        (change, {"status": "200"}, TypeError, "status: expected a whole number, got '200'"),
        (change, {"set": {"X": "a\r\nB: c"}}, ValueError, "set: the value of 'X' contains a control character"),
        (change, {"set": {":status": "200"}}, ValueError, "set: ':status' is not a header name"),
        (change, {"set": {"X": []}}, ValueError, "set: 'X' has no value"),
        (change, {"set": {"X": "1"}, "remove": ["x"]}, ValueError, "remove: 'x' is set as well"),
        (change, {"remove": "Cookie"}, TypeError, "remove: expected an iterable of names"),
        (change, {"add": [("X", "1")] * 65}, ValueError, "one decision changes 64 header lines at most, got 65"),
        (replace, {"status": 204, "body": b"x"}, ValueError, "body: a response with status 204 has none, got 1 bytes"),
        (replace, {"status": 205, "body": "x"}, ValueError, "body: a response with status 205 has none"),
        (replace, {"status": 304, "body": b"x"}, ValueError, "body: a response with status 304 has none"),
        (replace, {"status": 100}, ValueError, "status: expected a final status"),
        (replace, {"body": 5}, TypeError, "body: expected str or bytes, got int"),
        (replace, {"body": None}, TypeError, "body: expected str or bytes, got NoneType"),
        (replace, {"headers": {"A": "1"}, "set": {"B": "1"}}, ValueError, "headers: these make a new head, which `set` and `remove`"),
        (replace, {"headers": (), "remove": ["B"]}, ValueError, "headers: these make a new head"),
        (replace, {"body": "ä", "headers": {"Content-Type": "text/plain; charset=latin-1"}}, ValueError, "Content-Type says latin-1"),
        (replace, {"body": "ä", "set": {"Content-Type": "text/plain; charset=latin-1"}}, ValueError, "Content-Type says latin-1"),
        (block, {"status": 204, "body": b"x"}, ValueError, "body: a response with status 204 has none"),
        (block, {"status": 700}, ValueError, "status: expected a final status"),
        (block, {"headers": {"A B": "1"}}, ValueError, "headers: 'A B' is not a header name"),
        (block, {"headers": [("a",)]}, ValueError, "not enough values"),
    ],
)
def test_a_wrong_decision_fails_where_it_is_made(make: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make(**arguments)
    assert message in str(caught.value)
    assert isinstance(caught.value, DecisionError)


class Items:
    def __aiter__(self) -> AsyncIterator[bytes]:
        raise NotImplementedError


def test_an_iterable_is_taken_once() -> None:
    items = Items()
    decision = replace(body=items)
    assert decision.body is items
    assert repr(decision) == "ResponseDecision.replace(body=<Items>)"
    with pytest.raises(TypeError, match="a ResponseDecision with an async iterable cannot be hashed"):
        hash(decision)
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        pickle.dumps(decision)
    assert decision._take_body()[0] is items
    with pytest.raises(DecisionValueError, match="an async iterable serves one"):
        decision._take_body()
    with pytest.raises(DecisionValueError, match="a response with status 304 has none, got an async iterable"):
        replace(304, items)
    with pytest.raises(TypeError, match="body: expected str or bytes, got Items"):
        block(502, items)  # type: ignore[arg-type]


def test_nothing_of_it_can_be_changed() -> None:
    with pytest.raises(TypeError, match=r"use ResponseDecision\.PASS, \.HOLD"):
        ResponseDecision()
    with pytest.raises(AttributeError, match="a ResponseDecision cannot be changed; make another one"):
        change().status = 200
    with pytest.raises(AttributeError, match="a ResponseDecision cannot be changed"):
        del ResponseDecision.PASS.kind
