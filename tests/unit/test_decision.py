"""What a handler may answer."""

import copy
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

from soth_mitm.decision import HandlerDecision, Upstream
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
        HandlerDecision.forward(),
        HandlerDecision.forward(set={"A": ["1", "2"]}, add={"B": "3"}, remove=["c"], method="PUT", path="/", body=b"x"),
    ],
    ids=repr,
)
def test_a_decision_survives_pickle_and_copy(decision: HandlerDecision) -> None:
    again = pickle.loads(pickle.dumps(decision))
    assert again == copy.deepcopy(decision) == decision
    assert (hash(again), repr(again), again.kind) == (hash(decision), repr(decision), decision.kind)


def test_each_kind_says_what_it_is() -> None:
    decisions = [HandlerDecision.ALLOW, HandlerDecision.block(403), HandlerDecision.respond(403), HandlerDecision.abort("close")]
    decisions.append(HandlerDecision.forward())
    assert [decision.kind for decision in decisions] == ["allow", "block", "respond", "abort", "forward"]
    assert [decision.is_block for decision in decisions] == [False, True, False, False, False]
    assert len(set(decisions)) == len(decisions)
    assert HandlerDecision.respond() == HandlerDecision.respond(200, b"", ())
    assert HandlerDecision.abort() == HandlerDecision.abort("reset") != HandlerDecision.abort("close")
    assert repr(HandlerDecision.respond(200, "hi", {"A": "b"})) == "HandlerDecision.respond(200, b'hi', headers=[(b'A', b'b')])"
    assert repr(HandlerDecision.abort()) == "HandlerDecision.abort('reset')"


def test_forward_carries_the_changes() -> None:
    decision = HandlerDecision.forward(
        set={"X-One": "1", b"X-Two": [b"2", "3"]},
        add=[("A", "b"), ("A", "c")],
        remove=["GONE", b"gone"],
        method="PUT",
        path="/x?y",
        body="ä",
    )
    assert decision.set == ((b"X-One", (b"1",)), (b"X-Two", (b"2", b"3")))
    assert (decision.add, decision.remove) == (((b"A", b"b"), (b"A", b"c")), (b"gone",))
    assert (decision.method, decision.path, decision.body) == (b"PUT", b"/x?y", "ä".encode())
    # a repeated name is several lines, whatever its case
    assert HandlerDecision.forward(set=[("X", "1"), ("x", "2")]) == HandlerDecision.forward(set={"X": ["1", "2"]})
    nothing = HandlerDecision.forward()
    assert (nothing.set, nothing.add, nothing.remove, nothing.method, nothing.path, nothing.body) == ((), (), (), None, None, None)
    assert nothing != HandlerDecision.ALLOW and nothing != HandlerDecision.forward(body=b"")


def test_what_is_shown_of_forward_is_no_credential() -> None:
    decision = HandlerDecision.forward(
        set={"Authorization": "Bearer 1"}, add={"X-Key": "2"}, remove=["A"], method="PUT", path="/", body=b"3"
    )
    assert repr(decision) == (
        "HandlerDecision.forward(set=[b'Authorization'], add=[b'X-Key'], remove=[b'a'], method=b'PUT', path=b'/', body=b'3')"
    )


OURS = ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade", "Expect"]
OURS += ["Max-Forwards", "Proxy-Authorization", "HTTP2-Settings", "Sec-WebSocket-Key", "sec-websocket-version", "Sec-WebSocket-Accept"]
OURS += ["Sec-WebSocket-Extensions"]


@pytest.mark.parametrize("name", OURS)
def test_forward_leaves_framing_and_connection_alone(name: str) -> None:
    for arguments in ({"set": {name: "1"}}, {"add": [(name.encode(), b"1")]}, {"remove": [name.upper()]}):
        with pytest.raises(DecisionValueError, match="is set by the proxy; leave it out"):
            HandlerDecision.forward(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"set": {"X": "a\r\nB: c"}}, ValueError, "set: the value of 'X' contains a control character"),
        ({"add": {"X Y": "a"}}, ValueError, "add: 'X Y' is not a header name"),
        ({"set": {":path": "/"}}, ValueError, "set: ':path' is not a header name"),
        ({"remove": "Cookie"}, TypeError, "remove: expected an iterable of names, got 'Cookie'"),
        ({"remove": ["a b"]}, ValueError, "remove: 'a b' is not a header name"),
        ({"set": "Cookie"}, TypeError, "set: expected a mapping or pairs"),
        ({"set": {"X": []}}, ValueError, "set: 'X' has no value; `remove` takes a header away"),
        ({"set": {"X": 5}}, TypeError, "int"),
        ({"set": {"X": "1"}, "remove": ["x"]}, ValueError, "remove: 'x' is set as well"),
        ({"set": {"X": ["1"] * 65}}, ValueError, "one decision changes 64 header lines at most, got 65"),
        ({"set": {"X": ["1"] * 32}, "add": [("Y", "1")] * 32, "remove": ["z"]}, ValueError, "at most, got 65"),
        ({"method": "CONNECT"}, ValueError, "method: a request cannot become a CONNECT"),
        ({"method": "GE T"}, ValueError, "method: 'GE T' is no method"),
        ({"method": ""}, ValueError, "method: '' is no method"),
        ({"path": "x"}, ValueError, "path: expected the origin form"),
        ({"path": ""}, ValueError, "path: expected the origin form"),
        ({"path": "http://a/"}, ValueError, "path: expected the origin form"),
        ({"path": "/a b"}, ValueError, "path: expected the origin form"),
        ({"path": "/a#b"}, ValueError, "path: expected the origin form"),
        ({"path": "/a\r\n"}, ValueError, "path: expected the origin form"),
        ({"path": "/\xe9"}, ValueError, "path: expected the origin form"),
        ({"body": 5}, TypeError, "body: expected str or bytes, got int"),
        ({"body": ["a"]}, TypeError, "body: expected str or bytes, got list"),
    ],
)
def test_a_wrong_change_fails_where_it_is_made(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        HandlerDecision.forward(**arguments)
    assert message in str(caught.value)
    assert isinstance(caught.value, DecisionError)


class Items:
    def __aiter__(self) -> AsyncIterator[bytes]:
        raise NotImplementedError


@pytest.mark.parametrize("make", [HandlerDecision.respond, HandlerDecision.forward])
def test_an_iterable_serves_one_request(make: Any) -> None:
    items = Items()
    decision = make(body=items)
    assert decision.body is items and "<Items>" in repr(decision)
    assert decision != make(body=Items()) and decision == make(body=items)
    with pytest.raises(TypeError, match="cannot be hashed"):
        hash(decision)
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        pickle.dumps(decision)
    assert decision._take_body()[0] is items
    with pytest.raises(DecisionValueError, match="serves one message"):
        decision._take_body()


def test_a_block_and_a_status_without_content_take_no_iterable() -> None:
    with pytest.raises(DecisionError, match="body: expected str or bytes, got Items"):
        HandlerDecision.block(403, Items())  # type: ignore[arg-type]
    with pytest.raises(DecisionError, match="a response with status 204 has none, got an async iterable"):
        HandlerDecision.respond(204, Items())


@pytest.mark.parametrize(
    ("to", "where"),
    [
        ("B.test.:8443", ("b.test", 8443, None, None, None)),
        ("[::1]:80", ("::1", 80, None, None, None)),
        ("[::ffff:127.0.0.1]:80", ("127.0.0.1", 80, None, None, None)),
        ("https://B.test", ("b.test", 443, True, None, "b.test")),
        ("HTTPS://b.test:8443/", ("b.test", 8443, True, None, "b.test:8443")),
        ("http://[::1]:80", ("::1", 80, False, None, "[::1]")),
        (Upstream("B.test", 1), ("b.test", 1, True, None, None)),
        (Upstream("1.2.3.4", 80, tls=False, authority="C.test:80"), ("1.2.3.4", 80, False, None, "c.test")),
        (Upstream("1.2.3.4", 443, server_name="C.test", authority="d.test:1"), ("1.2.3.4", 443, True, "c.test", "d.test:1")),
    ],
    ids=repr,
)
def test_where_a_request_is_sent(to: str | Upstream, where: tuple[object, ...]) -> None:
    decision = HandlerDecision.forward(to=to)
    assert (decision.to, decision._where) == (to, where)
    assert pickle.loads(pickle.dumps(decision)) == decision
    assert repr(decision) == f"HandlerDecision.forward(to={to!r})"


@pytest.mark.parametrize(
    ("to", "error", "message"),
    [
        ("b.test", ValueError, "to: `b.test` has no port; write `b.test:443`"),
        ("b.test:0", ValueError, "is not within 1..65535"),
        ("b.test:x", ValueError, "is not a number"),
        ("127.1:80", ValueError, "neither a name nor an IPv4 address"),
        ("", ValueError, "is empty"),
        ("ftp://b.test", ValueError, "is neither host:port nor an http:// or https:// URL"),
        ("https://b.test/path", ValueError, "names more than an origin; `path` says the rest"),
        ("https://b.test?q", ValueError, "names more than an origin"),
        ("https://b.test#f", ValueError, "names more than an origin"),
        ("https://b.test?", ValueError, "names more than an origin"),
        ("https://user@b.test", ValueError, "has a host that is not a name"),
        ("https://", ValueError, "has no host"),
        ("https://b.test:99999", ValueError, "is not within 1..65535"),
        ("https://b.te\nst", ValueError, "to: "),
        (5, TypeError, "to: expected str or Upstream, got int"),
    ],
)
def test_a_wrong_destination_fails_where_it_is_made(to: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        HandlerDecision.forward(to=to)
    assert message in str(caught.value)
    assert isinstance(caught.value, DecisionError)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"host": "a b", "port": 1}, ValueError, "to: `a b` has a host that is not a name"),
        ({"host": 5, "port": 1}, TypeError, "to: expected str as a host"),
        ({"host": "a", "port": 0}, ValueError, "to: the port is not within 1..65535: 0"),
        ({"host": "a", "port": "1"}, TypeError, "to: expected a whole number as port, got '1'"),
        ({"host": "a", "port": True}, TypeError, "to: expected a whole number as port, got True"),
        ({"host": "a", "port": 1, "tls": 1}, TypeError, "to: expected True or False as tls, got 1"),
        ({"host": "a", "port": 1, "tls": False, "server_name": "b"}, ValueError, "to: a server_name is for TLS"),
        ({"host": "a", "port": 1, "authority": "b:x"}, ValueError, "to: `b:x` has port `x`"),
        ({"host": "a", "port": 1, "authority": "[fe80::1%eth0]"}, ValueError, "has a zone"),
        ({"host": "a", "port": 1, "authority": 5}, TypeError, "to: expected str as authority"),
    ],
)
def test_an_upstream_is_checked(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        Upstream(**arguments)
    assert message in str(caught.value)
    assert isinstance(caught.value, DecisionError)


def test_an_upstream_is_a_value() -> None:
    upstream = Upstream("A.test", 443, server_name="b.test", authority="c.test")
    assert (upstream.host, upstream.port, upstream.tls, upstream.server_name, upstream.authority) == (
        "a.test",
        443,
        True,
        "b.test",
        "c.test",
    )
    assert repr(upstream) == "Upstream('a.test', 443, server_name='b.test', authority='c.test')"
    assert repr(Upstream("a", 1, tls=False)) == "Upstream('a', 1, tls=False)"
    again = pickle.loads(pickle.dumps(upstream))
    assert again == upstream == copy.deepcopy(upstream) and hash(again) == hash(upstream)
    assert upstream != Upstream("a.test", 443) and upstream != "a.test:443"
    with pytest.raises(AttributeError, match="cannot be changed"):
        upstream.port = 80  # type: ignore[misc]
    with pytest.raises(AttributeError, match="cannot be changed"):
        del upstream.host


@pytest.mark.parametrize("value", ["text/plain", "text/plain; charset=utf-8", 'text/plain;a=b; CHARSET="UTF-8"', "text/plain;charset=utf8"])
def test_text_is_utf8(value: str) -> None:
    assert HandlerDecision.respond(200, "ä", {"Content-Type": value}).body == "ä".encode()
    assert HandlerDecision.forward(body="ä", set={"content-type": value}).body == "ä".encode()


@pytest.mark.parametrize("value", ["text/plain; charset=latin-1", 'text/plain;a="b";charset="iso-8859-1"'])
def test_text_in_another_charset_is_refused(value: str) -> None:
    for make in (HandlerDecision.respond, HandlerDecision.block):
        with pytest.raises(DecisionValueError, match="text is sent as UTF-8, and Content-Type says (latin-1|iso-8859-1); give bytes"):
            make(403, "ä", {"content-TYPE": value})
        # of bytes, and of what is the same in both, it is right
        assert make(403, b"\xe4", {"Content-Type": value}).body == b"\xe4"
        assert make(403, "a", {"Content-Type": value}).body == b"a"
    with pytest.raises(DecisionValueError, match="text is sent as UTF-8"):
        HandlerDecision.forward(body="ä", set={"Content-Type": value})


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
