"""The opening handshake of WebSocket: who may ask, what answers, and what both agree on (RFC 6455 section 4, RFC 7692 section 7.1)."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import generate_accept_token

from soth_mitm._dataplane.http1.encoder import rewrite_request
from soth_mitm._dataplane.websocket.handshake import FAULT_TEXTS, GUID
from soth_mitm._dataplane.wire.head import Head
from soth_mitm._dataplane.wire.head_edits import HeadEdits
from support.doubles import load_double
from support.heads import parse_request, parse_response

# RFC 6455 section 1.3
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

FAULTS = (
    "ok", "method", "content", "upgrade", "version", "key", "response upgrade", "accept", "malformed", "not offered", "twice", "parameter",
)  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Any:
    """The functions of the handshake."""
    return load_double("websocket")


def request(*lines: bytes, start: bytes = b"GET /chat HTTP/1.1", without: tuple[bytes, ...] = ()) -> Head:
    usual = [b"Host: a", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Key: " + KEY, b"Sec-WebSocket-Version: 13"]
    kept = [line for line in usual if line.partition(b":")[0] not in without]
    parsed = parse_request(b"\r\n".join([start, *kept, *lines]) + b"\r\n\r\n")
    assert parsed is not None
    return parsed[0]


def response(*lines: bytes, without: tuple[bytes, ...] = ()) -> Head:
    usual = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT]
    kept = [line for line in usual if line.partition(b":")[0] not in without]
    parsed = parse_response(b"\r\n".join([b"HTTP/1.1 101 Switching Protocols", *kept, *lines]) + b"\r\n\r\n")
    assert parsed is not None
    return parsed[0]


def test_every_fault_has_a_text() -> None:
    assert len(FAULTS) == len(FAULT_TEXTS) == len(set(FAULT_TEXTS))


def test_the_guid_is_that_of_the_rfc() -> None:
    assert GUID == b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Origin: null", b"Sec-WebSocket-Protocol: a, b", b"Content-Length: 0"),
        (b"sec-websocket-extensions: permessage-deflate",),
    ],
)
def test_a_request_that_may_open_a_websocket(engine: Any, lines: tuple[bytes, ...]) -> None:
    assert engine.asks(request(*lines))
    assert FAULTS[engine.fault_of_request(request(*lines))] == "ok"


@pytest.mark.parametrize("upgrade", [b"WebSocket", b"WEBSOCKET", b"websocket, x", b"x, websocket"])
@pytest.mark.parametrize("connection", [b"upgrade", b"keep-alive, Upgrade"])
def test_spellings_of_an_upgrade(engine: Any, upgrade: bytes, connection: bytes) -> None:
    head = request(b"Upgrade: " + upgrade, b"Connection: " + connection, without=(b"Upgrade", b"Connection"))
    assert engine.asks(head) and FAULTS[engine.fault_of_request(head)] == "ok"


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (request(start=b"POST /chat HTTP/1.1"), "method"),
        (request(start=b"HEAD /chat HTTP/1.1"), "method"),
        (request(b"Content-Length: 1"), "content"),
        (request(b"Transfer-Encoding: chunked"), "content"),
        (request(without=(b"Upgrade",)), "upgrade"),
        (request(without=(b"Connection",)), "upgrade"),
        (request(b"Upgrade: websockets", without=(b"Upgrade",)), "upgrade"),
        (request(b"Upgrade: web socket", without=(b"Upgrade",)), "upgrade"),
        (request(start=b"GET /chat HTTP/1.0"), "upgrade"),
        (request(without=(b"Sec-WebSocket-Version",)), "version"),
        (request(b"Sec-WebSocket-Version: 13"), "version"),
        (request(b"Sec-WebSocket-Version: 8", without=(b"Sec-WebSocket-Version",)), "version"),
        (request(b"Sec-WebSocket-Version: 13, 8", without=(b"Sec-WebSocket-Version",)), "version"),
        (request(without=(b"Sec-WebSocket-Key",)), "key"),
        (request(b"Sec-WebSocket-Key: " + KEY), "key"),
        (request(b"Sec-WebSocket-Key: " + b64encode(bytes(15)), without=(b"Sec-WebSocket-Key",)), "key"),
        (request(b"Sec-WebSocket-Key: " + b64encode(bytes(17)), without=(b"Sec-WebSocket-Key",)), "key"),
        (request(b"Sec-WebSocket-Key: " + b64encode(bytes(18)), without=(b"Sec-WebSocket-Key",)), "key"),
        (request(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=!", without=(b"Sec-WebSocket-Key",)), "key"),
        (request(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!==", without=(b"Sec-WebSocket-Key",)), "key"),
        (request(b"Sec-WebSocket-Key:", without=(b"Sec-WebSocket-Key",)), "key"),
        # what Connection names stays here, so that the upstream sees none
        (request(b"Connection: Upgrade, Sec-WebSocket-Key", without=(b"Connection",)), "key"),
        (request(b"Connection: Upgrade, Sec-WebSocket-Version", without=(b"Connection",)), "version"),
    ],
)
def test_a_request_that_opens_none(engine: Any, head: Head, fault: str) -> None:
    assert FAULTS[engine.fault_of_request(head)] == fault
    assert engine.asks(head) == (fault != "upgrade")


def test_the_answer_to_a_key(engine: Any) -> None:
    assert FAULTS[engine.fault_of_response(request(), response())] == "ok"
    assert generate_accept_token(KEY) == ACCEPT


@given(octets=st.binary(min_size=16, max_size=16))
@settings(max_examples=50, deadline=None)
def test_the_answer_to_any_key(engine: Any, octets: bytes) -> None:
    key = b64encode(octets)
    asked = request(b"Sec-WebSocket-Key: " + key, without=(b"Sec-WebSocket-Key",))
    answer = response(b"Sec-WebSocket-Accept: " + generate_accept_token(key), without=(b"Sec-WebSocket-Accept",))
    assert FAULTS[engine.fault_of_request(asked)] == FAULTS[engine.fault_of_response(asked, answer)] == "ok"
    assert FAULTS[engine.fault_of_response(asked, response())] == ("ok" if key == KEY else "accept")


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (response(without=(b"Upgrade",)), "response upgrade"),
        (response(without=(b"Connection",)), "response upgrade"),
        (response(b"Upgrade: WebSocket", without=(b"Upgrade",)), "ok"),
        (response(b"Upgrade: x", without=(b"Upgrade",)), "response upgrade"),
        (response(b"Upgrade: x"), "response upgrade"),
        (response(b"Upgrade: websocket, x", without=(b"Upgrade",)), "response upgrade"),
        (response(without=(b"Sec-WebSocket-Accept",)), "accept"),
        (response(b"Sec-WebSocket-Accept: " + ACCEPT), "accept"),
        (response(b"Sec-WebSocket-Accept: " + ACCEPT.lower(), without=(b"Sec-WebSocket-Accept",)), "accept"),
        (response(b"Sec-WebSocket-Accept: " + ACCEPT[:-1], without=(b"Sec-WebSocket-Accept",)), "accept"),
        (response(b"Sec-WebSocket-Accept:", without=(b"Sec-WebSocket-Accept",)), "accept"),
        (response(b"Connection: Upgrade, Sec-WebSocket-Accept", without=(b"Connection",)), "accept"),
        # the business of both ends
        (response(b"Sec-WebSocket-Protocol: never-offered"), "ok"),
        (response(b"Sec-WebSocket-Version: 8"), "ok"),
    ],
)
def test_responses(engine: Any, head: Head, fault: str) -> None:
    assert FAULTS[engine.fault_of_response(request(), head)] == fault


EXTENSIONS = b"Sec-WebSocket-Extensions: "


def agree(
    engine: Any, answer: bytes | list[bytes] | None, offer: bytes | list[bytes] = b"permessage-deflate"
) -> tuple[str, dict[str, Any]]:
    offers = [offer] if isinstance(offer, bytes) else offer
    answers = [answer] if isinstance(answer, bytes) else answer or []
    fault, agreed = engine.agreement(request(*[EXTENSIONS + line for line in offers]), response(*[EXTENSIONS + line for line in answers]))
    assert agreed["is_foreign"] == bool(fault)
    return FAULTS[fault], agreed


NOTHING = {"compresses": False, "is_foreign": False, "client": (True, 15), "upstream": (True, 15)}


@pytest.mark.parametrize("answer", [None, b"", b" , ,", b"\t"])
def test_nothing_is_agreed_on(engine: Any, answer: bytes | None) -> None:
    assert agree(engine, answer) == ("ok", NOTHING)


@pytest.mark.parametrize(
    ("answer", "client", "upstream"),
    [
        (b"permessage-deflate", (True, 15), (True, 15)),
        (b"PerMessage-Deflate", (True, 15), (True, 15)),
        (b", permessage-deflate ,", (True, 15), (True, 15)),
        (b"permessage-deflate; client_no_context_takeover", (False, 15), (True, 15)),
        (b"permessage-deflate;server_no_context_takeover", (True, 15), (False, 15)),
        (b"permessage-deflate; client_max_window_bits=8", (True, 8), (True, 15)),
        (b"permessage-deflate; client_max_window_bits=15", (True, 15), (True, 15)),
        (b'permessage-deflate; server_max_window_bits="10"', (True, 15), (True, 10)),
        (b'permessage-deflate; server_max_window_bits="1\\0"', (True, 15), (True, 10)),
        (b"permessage-deflate ;\tSERVER_MAX_WINDOW_BITS = 9 ; client_no_context_takeover", (False, 15), (True, 9)),
        (
            b"permessage-deflate; server_no_context_takeover; client_no_context_takeover;"
            b" server_max_window_bits=12; client_max_window_bits=11",
            (False, 11),
            (False, 12),
        ),
    ],
)
def test_what_of_compression_is_agreed_on(engine: Any, answer: bytes, client: tuple[bool, int], upstream: tuple[bool, int]) -> None:
    assert agree(engine, answer) == ("ok", {"compresses": True, "is_foreign": False, "client": client, "upstream": upstream})


@pytest.mark.parametrize(
    "parameter",
    [
        b"client_max_window_bits",
        b"server_max_window_bits",
        b"client_max_window_bits=7",
        b"client_max_window_bits=16",
        b"server_max_window_bits=08",
        b"server_max_window_bits=0",
        b"server_max_window_bits=150",
        b"server_max_window_bits=1e1",
        b"server_max_window_bits=-9",
        b"server_max_window_bits=99999999999999999999",
        b"client_no_context_takeover=1",
        b'server_no_context_takeover="true"',
        b"client_no_context_takeover; client_no_context_takeover",
        b"client_max_window_bits=9; client_max_window_bits=9",
        b"client_max_window_bits=9; CLIENT_MAX_WINDOW_BITS=10",
        b"mystery",
        b"mystery=1",
    ],
)
def test_parameters_that_cannot_be_agreed_on(engine: Any, parameter: bytes) -> None:
    assert agree(engine, b"permessage-deflate; " + parameter)[0] == "parameter"


@pytest.mark.parametrize(
    "value",
    [
        b"permessage-deflate;",
        b"permessage-deflate; ;",
        b"permessage-deflate; =1",
        b"permessage-deflate; a=",
        b"permessage-deflate; a=,",
        b"permessage-deflate a",
        b"permessage-deflate; a b",
        b"permessage-deflate; a=b c",
        b'permessage-deflate; a="b',
        b'permessage-deflate; a="b\\',
        b'permessage-deflate; a=""',
        b'permessage-deflate; a="b c"',
        b'permessage-deflate; a="b"c',
        b'permessage-deflate; a="b,c"',
        b"=permessage-deflate",
        b";permessage-deflate",
        b'"permessage-deflate"',
        b"permessage-deflate, ;",
        b"perm\xe9ssage-deflate",
    ],
)
def test_lists_that_are_malformed(engine: Any, value: bytes) -> None:
    assert agree(engine, value)[0] == "malformed"
    # an offer that cannot be read offers nothing
    assert agree(engine, b"permessage-deflate", offer=value)[0] == "not offered"


def test_more_than_one_extension(engine: Any) -> None:
    assert agree(engine, b"permessage-deflate, permessage-deflate")[0] == "twice"
    assert agree(engine, [b"permessage-deflate", b"permessage-deflate"])[0] == "twice"
    assert agree(engine, b"permessage-deflate, x-private")[0] == "not offered"
    assert agree(engine, [b"x-private; a=1", b"permessage-deflate"])[0] == "not offered"


@pytest.mark.parametrize("offer", [[], [b"x-webkit-deflate-frame"], [b""], [b"x; permessage-deflate"]])
def test_an_answer_to_no_offer(engine: Any, offer: list[bytes]) -> None:
    assert agree(engine, b"permessage-deflate", offer)[0] == "not offered"


def test_one_of_several_offers_is_enough_and_only_the_answer_counts(engine: Any) -> None:
    offers = [b"x-private, permessage-deflate; server_max_window_bits=10; mystery", b"permessage-deflate"]
    assert agree(engine, b"permessage-deflate", offers) == ("ok", {**NOTHING, "compresses": True})


def test_fields_that_stay_here_do_not_count(engine: Any) -> None:
    asked, answer = request(EXTENSIONS + b"permessage-deflate"), response(
        EXTENSIONS + b"permessage-deflate", b"Connection: Upgrade, Sec-WebSocket-Extensions", without=(b"Connection",)
    )  # fmt: skip
    assert engine.agreement(asked, answer) == (0, NOTHING)
    asked = request(EXTENSIONS + b"permessage-deflate", b"Connection: Upgrade, Sec-WebSocket-Extensions", without=(b"Connection",))
    assert FAULTS[engine.agreement(asked, response(EXTENSIONS + b"permessage-deflate"))[0]] == "not offered"


@pytest.mark.parametrize("bits", [None, *range(9, 16)])
@pytest.mark.parametrize("takeover", [True, False])
def test_answers_of_wsproto(engine: Any, bits: int | None, takeover: bool) -> None:
    upstream = PerMessageDeflate(server_no_context_takeover=not takeover)
    wish = b"permessage-deflate; client_max_window_bits" + (b"; server_max_window_bits=%d" % bits if bits else b"")
    answer = upstream.accept(wish.decode())
    assert isinstance(answer, str)
    fault, agreed = agree(engine, f"permessage-deflate; {answer}".encode(), offer=wish)
    assert fault == "ok" and agreed["compresses"]
    assert agreed["upstream"] == (takeover, upstream.server_max_window_bits)
    assert agreed["client"] == (True, upstream.client_max_window_bits)


def without_others(engine: Any, *lines: bytes) -> tuple[int, list[bytes]]:
    """Take the offers of others out: how many there were, and the field lines that leave."""
    head, edits = request(*lines, b"X-Last: 1"), HeadEdits()
    removed = engine.without_other_offers(head, edits)
    sent = rewrite_request(head, keep_upgrade=True, edits=edits).split(b"\r\n")
    assert b"X-Last: 1" in sent and b"Sec-WebSocket-Key: " + KEY in sent
    if not removed:
        assert sent == rewrite_request(head, keep_upgrade=True).split(b"\r\n")
    return removed, [line for line in sent if line.lower().startswith(b"sec-websocket-extensions")]


@pytest.mark.parametrize(
    ("lines", "removed", "sent"),
    [
        ([], 0, []),
        ([b"permessage-deflate"], 0, [b"permessage-deflate"]),
        # bytes stay as they are, and so do lines
        ([b"permessage-deflate ;a=  1,,"], 0, [b"permessage-deflate ;a=  1,,"]),
        ([b"permessage-deflate", b"PERMESSAGE-DEFLATE; b"], 0, [b"permessage-deflate", b"PERMESSAGE-DEFLATE; b"]),
        ([b"x-webkit-deflate-frame"], 1, []),
        ([b"x-a, x-b; c=1"], 2, []),
        ([b"x-a", b"x-b"], 2, []),
        ([b'x-a, permessage-deflate;server_max_window_bits="10" ; c, x-b'], 2, [b'permessage-deflate;server_max_window_bits="10" ; c']),
        (
            [b"permessage-deflate; client_max_window_bits, permessage-deflate , x-a"],
            1,
            [b"permessage-deflate; client_max_window_bits, permessage-deflate"],
        ),
        ([b"x-a", b"permessage-deflate; b", b"permessage-deflate"], 1, [b"permessage-deflate; b, permessage-deflate"]),
        # a name inside a quoted value is no offer
        ([b'x-a; b="permessage-deflate"'], 1, []),
        # what cannot be read is no offer of compression
        ([b"permessage-deflate;"], 1, []),
        ([b'x; a=", permessage-deflate'], 1, []),
        ([b"permessage-deflate;", b"permessage-deflate; a"], 1, [b"permessage-deflate; a"]),
    ],
)
@pytest.mark.parametrize("name", [b"Sec-WebSocket-Extensions", b"sec-websocket-extensions"])
def test_offers_of_others_are_taken_out(engine: Any, name: bytes, lines: list[bytes], removed: int, sent: list[bytes]) -> None:
    found = without_others(engine, *[name + b": " + line for line in lines])
    assert found == (removed, [name + b": " + line for line in sent])


def test_offers_that_stay_here_are_not_counted(engine: Any) -> None:
    head = request(EXTENSIONS + b"x-a", b"Connection: Upgrade, Sec-WebSocket-Extensions", without=(b"Connection",))
    assert engine.without_other_offers(head, HeadEdits()) == 0


TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-_0123456789", min_size=1, max_size=8)
PARAMETERS = st.lists(st.tuples(TOKENS, st.none() | TOKENS | TOKENS.map(lambda token: f'"{token}"')), max_size=3)
OFFERS = st.lists(st.tuples(st.just("permessage-deflate") | TOKENS, PARAMETERS, st.sampled_from([";", "; ", " ;\t"])), max_size=5)


@given(offers=OFFERS)
@settings(max_examples=150, deadline=None)
def test_any_offers(engine: Any, offers: list[tuple[str, list[tuple[str, str | None]], str]]) -> None:
    written = [
        separator.join([name, *[key if value is None else f"{key}={value}" for key, value in parameters]]).encode()
        for name, parameters, separator in offers
    ]
    kept = [text for text, (name, _, _) in zip(written, offers, strict=True) if name == "permessage-deflate"]
    removed, sent = without_others(engine, EXTENSIONS + b", ".join(written))
    assert removed == len(written) - len(kept)
    assert sent == ([EXTENSIONS + b", ".join(kept)] if kept or not removed else [])
    assert FAULTS[engine.agreement(request(EXTENSIONS + b", ".join(written)), response(EXTENSIONS + b"permessage-deflate"))[0]] == (
        "ok" if kept else "not offered"
    )
