"""Messages of WebSocket out of octets and into octets: fragments, compression, text, limits, Close, and what comes of a violation."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm._dataplane.websocket.frame import make_frame_head
from soth_mitm._dataplane.websocket.message_reader import MessageReader
from soth_mitm._dataplane.websocket.message_writer import MessageWriter
from soth_mitm._dataplane.websocket.violations import VIOLATION_NAMES, describe_violation
from support.feeding import cut_at, splits

FIN, RSV1 = 0x80, 0x40
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = b"\x01\xfe\x37\x80"
TAIL = b"\x00\x00\xff\xff"
CUT_LONG, SHOW_LONG, REFUSE_LONG = range(3)
MEBIBYTE = 1 << 20


def masked(payload: bytes, key: bytes) -> bytes:
    return bytes(octet ^ key[at % 4] for at, octet in enumerate(payload)) if key else payload


def frame(bits: int, payload: bytes = b"", key: bytes = KEY) -> bytes:
    return make_frame_head(bits, len(payload), key) + masked(payload, key)


class Told(NamedTuple):
    """One event, as it is compared."""

    name: str
    kind: int
    payload: bytes | None
    is_complete: bool
    is_compressed: bool
    begin: int
    end: int


def told(reader: MessageReader, pieces: Iterable[bytes], turns: list[int] | None = None) -> list[Told]:
    """Feed pieces as a read buffer does, and give a new turn whenever one is used up."""
    found = []
    rest = b""
    for piece in pieces:
        rest += piece
        while True:
            name, taken = reader.read(rest)
            rest = rest[taken:]
            if name == "turn":
                if turns is not None:
                    turns.append(taken)
                reader.renew_turn()
            elif name in ("more", "violation"):
                break
            elif name != "ignored":
                found.append(Told(name, reader.kind, reader.payload, reader.is_complete, reader.is_compressed, reader.begin, reader.end))
            elif not taken:
                break
    return found


def every_way(data: bytes, from_client: bool = True, most: int = 1000, **options: Any) -> tuple[list[Told], str]:
    """Read `data` in every split, and see that none makes a difference."""
    seen: tuple[list[Told], str] | None = None
    for pieces in splits(data):
        reader = MessageReader(from_client, most, **options)
        found = told(reader, pieces), VIOLATION_NAMES[reader.violation]
        seen = seen or found
        assert found == seen, f"cut as {[len(piece) for piece in pieces][:4]}"
        assert reader.held_octets() <= most + len(data)
    assert seen is not None
    return seen


def messages(data: bytes, from_client: bool = True, most: int = 1000, **options: Any) -> list[tuple[int, bytes | None, bool]]:
    found, violation = every_way(data, from_client, most, **options)
    assert violation == "none"
    return [(event.kind, event.payload, event.is_complete) for event in found]


def violation(data: bytes, from_client: bool = True, most: int = 1000, **options: Any) -> str:
    return every_way(data, from_client, most, **options)[1]


@pytest.mark.parametrize("key", [KEY, b""], ids=["client", "upstream"])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_a_message_in_one_frame(kind: int, key: bytes) -> None:
    for payload in (b"", b"a", "ä€😀".encode(), b"x" * 126, b"y" * 300):
        assert messages(frame(FIN | kind, payload, key), bool(key)) == [(kind, payload, True)]


def test_a_message_in_fragments_with_control_frames_inside() -> None:
    data = frame(TEXT, b"ab") + frame(FIN | PING, b"ping") + frame(CONTINUATION) + frame(CONTINUATION, b"c") + frame(FIN | PONG)
    end = len(data) + 7
    data += frame(FIN | CONTINUATION, b"d") + frame(FIN | BINARY, b"\xff")
    found, _ = every_way(data)
    # a ping lies inside the message: each event says where
    assert found == [
        Told("control", PING, None, True, False, 8, 18),
        Told("control", PONG, None, True, False, 31, 37),
        Told("message", TEXT, b"abcd", True, False, 0, end),
        Told("message", BINARY, b"\xff", True, False, end, len(data)),
    ]


@pytest.mark.parametrize("first", [b"", b"a"])
@pytest.mark.parametrize("last", [b"", b"b"])
@pytest.mark.parametrize("between", [0, 1, 300])
def test_empty_fragments(first: bytes, last: bytes, between: int) -> None:
    data = frame(TEXT, first, b"") + frame(CONTINUATION, b"", b"") * between + frame(FIN | CONTINUATION, last, b"")
    reader = MessageReader(False, 1000)
    assert [(event.payload, event.is_complete) for event in told(reader, [data])] == [(first + last, True)]
    assert reader.held_octets() == 0


# ---- text


def test_text_is_judged_over_fragments_and_reads() -> None:
    for text in ("ä", "€", "😀", "a€b"):
        octets = text.encode()
        for cut in range(len(octets) + 1):
            data = frame(TEXT, octets[:cut]) + frame(FIN | PING) + frame(FIN | CONTINUATION, octets[cut:])
            assert messages(data)[-1] == (TEXT, octets, True)


@pytest.mark.parametrize(
    "octets", [b"\xff", b"a\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"x" * 200 + b"\xc3"]
)
def test_text_that_is_no_utf8(octets: bytes) -> None:
    assert violation(frame(FIN | TEXT, octets)) == "text_not_utf8"
    assert violation(frame(FIN | TEXT, octets, b""), False) == "text_not_utf8"
    assert violation(frame(TEXT, octets[:1]) + frame(FIN | CONTINUATION, octets[1:])) == "text_not_utf8"
    assert violation(frame(FIN | RSV1 | TEXT, deflated(octets)), may_compress=True) == "text_not_utf8"
    assert messages(frame(FIN | BINARY, octets)) == [(BINARY, octets, True)]


def test_text_is_refused_at_the_octet_that_is_wrong() -> None:
    # of a message that has only begun (Autobahn 6.4)
    reader = MessageReader(True, 1000)
    whole = frame(TEXT, b"a\xf4\x90bc")
    reader.read(whole[:-3])
    assert reader.violation == 0
    reader.read(whole[-3:-2])
    assert VIOLATION_NAMES[reader.violation] == "text_not_utf8"


# ---- compression


class Sender:
    """A compressor that keeps its window."""

    def __init__(self) -> None:
        self.stream = zlib.compressobj(wbits=-15)

    def payload(self, message: bytes) -> bytes:
        return (self.stream.compress(message) + self.stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL) if message else b"\0"


def deflated(message: bytes) -> bytes:
    return Sender().payload(message)


@pytest.mark.parametrize("takeover", [True, False])
def test_compressed_messages_among_others(takeover: bool) -> None:
    sender = Sender()
    compress = sender.payload if takeover else deflated
    one, two, three = compress(b"one one one"), compress("zwei, zwei, zwei €".encode()), compress(b"")
    data = (
        frame(FIN | RSV1 | TEXT, one)
        + frame(FIN | TEXT, b"plain")
        + frame(RSV1 | TEXT, two[:4])
        + frame(FIN | PING, b"p")
        + frame(CONTINUATION)
        + frame(FIN | CONTINUATION, two[4:])
        + frame(FIN | RSV1 | BINARY, three)
        + frame(FIN | RSV1 | BINARY)
    )
    found, _ = every_way(data, may_compress=True, takeover=takeover)
    assert [(event.kind, event.payload, event.is_compressed) for event in found] == [
        (TEXT, b"one one one", True),
        (TEXT, b"plain", False),
        (PING, None, False),
        (TEXT, "zwei, zwei, zwei €".encode(), True),
        (BINARY, b"", True),
        (BINARY, b"", True),
    ]


def test_a_pong_before_the_first_compressed_frame() -> None:
    # aiohttp#13274: what a control frame says of compression must not be remembered
    data = frame(FIN | PONG, b"", b"") + frame(FIN | RSV1 | TEXT, deflated(b"abc"), b"") + frame(FIN | TEXT, b"d", b"")
    assert messages(data, False, may_compress=True) == [(PONG, None, True), (TEXT, b"abc", True), (TEXT, b"d", True)]


def test_compressed_data_that_is_malformed() -> None:
    assert violation(frame(FIN | RSV1 | BINARY, b"\xff\xff"), may_compress=True) == "deflate_data"
    assert violation(frame(RSV1 | TEXT, b"\x06") + frame(FIN | CONTINUATION, b"abc"), may_compress=True) == "deflate_data"
    assert violation(frame(FIN | RSV1 | TEXT, deflated(b"abc"))) == "compressed_bit"


# ---- limits


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_a_long_message_is_cut_and_the_next_one_is_whole(kind: int, compressed: bool, fragments: int) -> None:
    for length in (9, 10, 11, 80):
        message = b"0123456789" * 8
        message = message[:length]
        sender = Sender()
        payload = sender.payload(message) if compressed else message
        size = len(payload) // fragments + 1
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
        bits = [(kind | (RSV1 if compressed else 0)) if not at else CONTINUATION for at in range(len(pieces))]
        bits[-1] |= FIN
        data = b"".join(frame(bit, piece) for bit, piece in zip(bits, pieces, strict=True))
        # the window is kept over what is not shown
        data += frame(FIN | RSV1 | kind, sender.payload(message[:10])) if compressed else frame(FIN | kind, message[:10])
        assert messages(data, most=10, may_compress=compressed) == [(kind, message[:10], length <= 10), (kind, message[:10], True)]


def test_a_text_is_cut_behind_a_whole_character() -> None:
    text = "aä€😀"
    octets = text.encode()
    for most in range(1, len(octets)):
        expected = octets[:most].decode("utf-8", "ignore").encode()
        for cut in range(len(octets)):
            data = frame(TEXT, octets[:cut]) + frame(FIN | CONTINUATION, octets[cut:])
            assert messages(data, most=most) == [(TEXT, expected, False)]
        assert messages(frame(FIN | TEXT, octets, b""), False, most) == [(TEXT, expected, False)]
        if 8 * most >= len(octets):
            assert messages(frame(FIN | RSV1 | TEXT, deflated(octets)), most=most, may_compress=True) == [(TEXT, expected, False)]


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_not_shown_of_a_text_is_judged(compressed: bool) -> None:
    for octets in (b"0123456789abc\xff", b"0123456789abc\xe2\x82", b"012345678\xe2\x82"):
        payload = deflated(octets) if compressed else octets
        for key in (KEY, b""):
            data = frame(FIN | TEXT | (RSV1 if compressed else 0), payload, key)
            assert violation(data, bool(key), most=10, may_compress=compressed) == "text_not_utf8"
    # over what is unmasked at once
    long = b"x" * 10_000 + b"\xff" + b"x" * 10
    reader = MessageReader(True, 10)
    told(reader, [frame(FIN | TEXT, long)])
    assert VIOLATION_NAMES[reader.violation] == "text_not_utf8"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_long_messages_may_be_refused(kind: int, compressed: bool) -> None:
    for length, name in ((10, "none"), (11, "too_long"), (70, "too_long")):
        payload = deflated(b"x" * length) if compressed else b"x" * length
        data = frame(FIN | kind | (RSV1 if compressed else 0), payload)
        assert violation(data, most=10, may_compress=compressed, when_long=REFUSE_LONG) == name
    assert describe_violation(VIOLATION_NAMES.index("too_long"), True)[0] == 1009


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_a_long_message_may_be_told_before_its_end(kind: int, compressed: bool) -> None:
    def sent(message: bytes) -> bytes:
        payload = deflated(message) if compressed else message
        size = max(1, len(payload) // 2)
        first = frame(kind | (RSV1 if compressed else 0), payload[:size]) + frame(FIN | PING)
        return first + frame(FIN | CONTINUATION, payload[size:])

    for length in (9, 10, 11, 70):
        data = sent(b"x" * length)
        found, name = every_way(data + sent(b"next"), most=10, may_compress=compressed, takeover=False, when_long=SHOW_LONG)
        assert name == "none"
        begins = [event for event in found if event.name == "long"]
        if length <= 10:
            assert [event.payload for event in found if event.name == "message"] == [b"x" * length, b"next"] and not begins
        else:
            assert begins == [Told("long", kind, b"x" * 10, False, compressed, 0, 0)]
            assert Told("end", kind, None, False, compressed, 0, len(data)) in found
            assert [event.payload for event in found if event.name == "message"] == [b"next"]
            assert [event.name for event in found].index("long") < [event.name for event in found].index("end")


def test_what_follows_a_beginning_that_was_told_is_judged() -> None:
    data = frame(FIN | TEXT, b"0123456789abc\xff")
    found, name = every_way(data, most=10, when_long=SHOW_LONG)
    assert [event.name for event in found] == ["long"] and name == "text_not_utf8"
    # and what is wrong before it is long is found first
    found, name = every_way(frame(FIN | TEXT, b"01234\xff6789abc"), most=10, when_long=SHOW_LONG)
    assert found == [] and name == "text_not_utf8"
    found, name = every_way(frame(FIN | RSV1 | BINARY, deflated(b"x" * 500)), most=10, may_compress=True, when_long=SHOW_LONG)
    assert [event.name for event in found] == ["long"] and name == "too_long"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("when_long", [CUT_LONG, SHOW_LONG, REFUSE_LONG])
def test_what_has_come_of_a_message_may_be_told_at_any_moment(when_long: int, compressed: bool) -> None:
    text = "aä€😀b"
    octets = text.encode()
    payload = deflated(octets) if compressed else octets
    data = frame(FIN | TEXT | (RSV1 if compressed else 0), payload) + frame(FIN | TEXT, b"next")
    for cut in range(len(data) - 10):
        reader = MessageReader(True, 100, may_compress=compressed, when_long=when_long)
        name, taken = reader.read(data[:cut])
        assert name == "more"
        if taken < 6:
            assert not reader.show_what_came()
            continue
        assert reader.show_what_came()
        shown = reader.payload
        assert shown is not None and octets.startswith(shown) and shown.decode() == text[: len(shown.decode())]
        assert compressed or shown == octets[: taken - 6].decode("utf-8", "ignore").encode()
        assert not reader.is_complete and reader.kind == TEXT and reader.held_octets() == 0
        assert not reader.show_what_came()
        found = told(reader, [data[taken:]])
        assert [(event.name, event.payload) for event in found] == [("end", None), ("message", b"next")]
        assert not reader.show_what_came()


def test_nothing_is_told_of_a_message_that_is_over_or_wrong() -> None:
    reader = MessageReader(True, 100)
    reader.read(frame(TEXT, b"a\xff"))
    assert reader.violation and not reader.show_what_came()
    reader = MessageReader(True, 100)
    reader.read(frame(FIN | PING))
    assert not reader.show_what_came()


def test_when_long_is_one_of_three() -> None:
    for number in (-1, 3):
        with pytest.raises(ValueError, match="when_long"):
            MessageReader(True, 100, when_long=number)


def test_a_message_inflates_to_eight_times_what_is_shown_and_no_more() -> None:
    for length, name in ((80, "none"), (81, "too_long"), (5000, "too_long")):
        assert violation(frame(FIN | RSV1 | BINARY, deflated(b"x" * length)), most=10, may_compress=True) == name
    # without compression there is nothing to keep, and no limit
    assert messages(frame(FIN | BINARY, b"x" * 500), most=10) == [(BINARY, b"x" * 10, False)]


def test_a_turn_inflates_a_mebibyte() -> None:
    # 64 KiB become 64 MiB; the reader gives the loop back after each of them
    payload = deflated(bytes(16 * MEBIBYTE))
    assert len(payload) < 17_000
    turns: list[int] = []
    reader = MessageReader(True, 8 * MEBIBYTE, may_compress=True)
    (message,) = told(reader, [frame(FIN | RSV1 | BINARY, payload)], turns)
    assert message.payload == bytes(8 * MEBIBYTE) and not message.is_complete
    assert 15 <= len(turns) <= 18
    # it takes the payload first, and in later turns nothing
    assert turns[0] > len(payload) and not any(turns[1:])


def test_what_cannot_be_inflated_in_this_turn_stays() -> None:
    sender = Sender()
    reader = MessageReader(True, 2 * MEBIBYTE, may_compress=True)
    first = frame(FIN | RSV1 | BINARY, sender.payload(bytes(MEBIBYTE)))
    second = frame(FIN | RSV1 | TEXT, sender.payload(b"abc"))
    third = frame(FIN | TEXT, b"plain")
    assert reader.read(first) == ("turn", len(first))
    reader.renew_turn()
    assert reader.read(b"") == ("message", 0)
    assert reader.payload == bytes(MEBIBYTE)
    # this turn has some left, and a message that is not compressed needs none
    assert reader.read(third) == ("message", len(third))
    assert reader.read(second) == ("message", len(second))
    assert reader.payload == b"abc"


def test_messages_that_begin_streams_share_a_turn() -> None:
    # without takeover each message costs a stream
    data = frame(FIN | RSV1 | TEXT, deflated(b"a")) * 3000
    turns: list[int] = []
    found = told(MessageReader(True, 100, may_compress=True, takeover=False), [data], turns)
    assert [event.payload for event in found] == [b"a"] * 3000
    assert 2 <= len(turns) <= 4


def test_nothing_is_reserved_for_what_is_announced() -> None:
    reader = MessageReader(True, 1 << 25)
    assert reader.read(make_frame_head(BINARY, 2**63 - 1, KEY)) == ("more", 14)
    assert reader.held_octets() == 0
    reader.read(bytes(1000))
    assert reader.held_octets() == 1000


def test_a_message_must_be_allowed_something() -> None:
    with pytest.raises(ValueError, match="at least one octet"):
        MessageReader(True, 0)


# ---- Close and violations


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe8bye", b"\x0f\xa0" + b"x" * 123])
@pytest.mark.parametrize("inside", [False, True])
def test_a_close(payload: bytes, inside: bool) -> None:
    before = frame(TEXT, b"half") if inside else b""
    data = before + frame(FIN | CLOSE, payload)
    found, name = every_way(data + b"\xff" * 20)
    assert name == "none"
    assert found == [Told("close", CLOSE, payload, True, False, len(before), len(data))]
    reader = MessageReader(True, 100)
    told(reader, [data])
    assert reader.read(b"more") == ("ignored", 4)
    assert reader.read(b"") == ("more", 0)


@pytest.mark.parametrize(("payload", "name"), [(b"\x03", "close_length"), (b"\x03\xed", "close_code"), (b"\x03\xe8\xff", "close_reason")])
def test_a_close_that_must_not_be_sent(payload: bytes, name: str) -> None:
    assert violation(frame(FIN | CLOSE, payload)) == name
    assert violation(frame(FIN | CLOSE, payload, b""), False) == name


def test_nothing_is_taken_behind_a_violation() -> None:
    good = frame(FIN | TEXT, b"a")
    for bad in (b"\xff", frame(FIN | TEXT, b"\xff"), frame(FIN | CLOSE, b"\x03")):
        reader = MessageReader(True, 100)
        found = told(reader, [good + bad + good])
        assert [event.payload for event in found] == [b"a"]
        assert reader.violation and reader.read(good) == ("violation", 0)


def test_an_observer_may_go_on_without_messages() -> None:
    for payload, most, name in ((b"\xff\xff", 100, "deflate_data"), (deflated(b"x" * 900), 100, "too_long")):
        tail = frame(FIN | CONTINUATION, b"rest") + frame(FIN | PING) + frame(FIN | RSV1 | TEXT, b"\xff") + frame(FIN | TEXT, b"\xff")
        data = frame(RSV1 | TEXT, payload) + tail + frame(FIN | CLOSE, b"\x03\xe8")
        for pieces in splits(data):
            reader = MessageReader(True, most, may_compress=True)
            found: list[Told] = []
            rest = b""
            for piece in pieces:
                rest += piece
                while True:
                    event, taken = reader.read(rest)
                    rest = rest[taken:]
                    if event == "violation":
                        assert VIOLATION_NAMES[reader.violation] == name
                        reader.skip_messages()
                    elif event in ("control", "close"):
                        found.append(Told(event, reader.kind, reader.payload, True, False, reader.begin, reader.end))
                    else:
                        assert event == "more"
                        break
            assert [(event.name, event.kind) for event in found] == [("control", PING), ("close", CLOSE)]
            assert found[-1].end == len(data) and rest == b"" and reader.held_octets() == 0


def test_frames_are_judged_although_messages_are_skipped() -> None:
    reader = MessageReader(True, 100, may_compress=True)
    reader.read(frame(FIN | RSV1 | TEXT, b"\xff\xff"))
    reader.skip_messages()
    assert reader.read(frame(FIN | CONTINUATION))[0] == "violation"
    assert VIOLATION_NAMES[reader.violation] == "no_start"
    # that is nothing which an observer may go on behind
    reader.skip_messages()
    assert reader.read(b"")[0] == "violation"
    reader = MessageReader(True, 100)
    reader.read(frame(FIN | TEXT, b"\xff"))
    reader.skip_messages()
    assert reader.read(b"")[0] == "violation"


# ---- any messages


PAYLOADS = st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode), st.integers(100, 3000).map(bytes))
SENT = st.tuples(st.sampled_from([TEXT, BINARY]), PAYLOADS, st.booleans(), st.lists(st.integers(0, 60), max_size=3), st.booleans())


@given(
    sent=st.lists(SENT, max_size=6), places=st.lists(st.integers(0, 4000), max_size=8), most=st.integers(1, 400), from_client=st.booleans()
)
@settings(max_examples=250, deadline=None)
def test_any_messages_any_split_any_limit(
    sent: list[tuple[int, bytes, bool, list[int], bool]], places: list[int], most: int, from_client: bool
) -> None:
    key = KEY if from_client else b""
    sender, data, expected = Sender(), b"", []
    name = "none"
    for kind, message, compressed, cuts, pings in sent:
        payload = sender.payload(message) if compressed else message
        pieces = cut_at(payload, cuts)
        for number, piece in enumerate(pieces):
            bits = CONTINUATION if number else kind | (RSV1 if compressed else 0)
            data += frame(bits | (FIN if number == len(pieces) - 1 else 0), piece, key)
            if pings and number < len(pieces) - 1:
                data += frame(FIN | PING, piece[:125], key)
        is_text = kind == TEXT
        shown = message[:most]
        if is_text:
            try:
                message.decode()
            except UnicodeDecodeError:
                name = "text_not_utf8"
        if compressed and len(message) > 8 * most:
            name = name if name == "text_not_utf8" and not is_utf8(message[: 8 * most]) else "too_long"
        if name != "none":
            break
        expected.append((kind, shown.decode("utf-8", "ignore").encode() if is_text else shown, len(message) <= most, compressed))
    reader = MessageReader(from_client, most, may_compress=True)
    found = told(reader, cut_at(data, places))
    assert [(event.kind, event.payload, event.is_complete, event.is_compressed) for event in found if event.name == "message"] == expected
    assert VIOLATION_NAMES[reader.violation] == name


def is_utf8(octets: bytes) -> bool:
    """Whether a text may begin with these octets."""
    try:
        octets.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


# ---- what we write


@pytest.mark.parametrize("masks", [True, False])
@given(payload=st.binary(max_size=400), kind=st.sampled_from([TEXT, BINARY]))
@settings(max_examples=60, deadline=None)
def test_what_we_write_is_read(masks: bool, payload: bytes, kind: int) -> None:
    payload = payload.decode("latin-1").encode()
    writer = MessageWriter(masks)
    data = writer.write_message(kind, payload) + writer.write_message(kind, deflated(payload), True)
    data += writer.write_frame(kind, payload) + writer.write_frame(FIN | CONTINUATION, payload) + writer.write_close(1001, b"bye")
    found = told(MessageReader(masks, 1000, may_compress=True), [data])
    assert [(event.name, event.kind, event.payload, event.is_compressed) for event in found] == [
        ("message", kind, payload, False),
        ("message", kind, payload, True),
        ("message", kind, payload * 2, False),
        ("close", CLOSE, b"\x03\xe9bye", False),
    ]


def test_a_message_of_ours_is_one_frame() -> None:
    payload = random.Random(1).randbytes(200_000)
    data = MessageWriter(False).write_message(BINARY, payload)
    assert data == make_frame_head(FIN | BINARY, len(payload)) + payload
    assert MessageWriter(False).write_message(TEXT, b"\0", True) == b"\xc1\x01\0"


def test_every_key_is_used_once() -> None:
    writer = MessageWriter(True)
    keys = [writer.write_message(TEXT, b"")[2:6] for _ in range(5000)]
    # 5000 of 2 ** 32: a repetition by chance is one in 340 runs, two of them one in 230 000
    assert len(set(keys)) >= 4999
    assert MessageWriter(True).write_message(TEXT, b"")[2:6] not in keys


def test_keys_come_from_the_generator_of_the_system_1024_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def urandom(size: int) -> bytes:
        calls.append(size)
        return b"".join(number.to_bytes(4, "big") for number in range(len(calls), len(calls) + size // 4))

    monkeypatch.setattr("os.urandom", urandom)
    writer = MessageWriter(True)
    assert calls == []
    keys = [writer.write_message(TEXT, b"")[2:6] for _ in range(1025)]
    assert calls == [4096, 4096]
    assert keys == [number.to_bytes(4, "big") for number in [*range(1, 1025), 2]]
    MessageWriter(False).write_message(TEXT, b"abc")
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("code", "reason"),
    [(999, b""), (1005, b""), (1006, b""), (1015, b""), (5000, b""), (1000, b"\xff"), (1000, b"x" * 124)],
)
def test_a_close_of_ours_is_one_that_may_be_sent(code: int, reason: bytes) -> None:
    with pytest.raises(ValueError, match="must not be sent|125 octets"):
        MessageWriter(True).write_close(code, reason)


def test_a_control_frame_of_ours_has_125_octets_at_most() -> None:
    assert len(MessageWriter(False).write_frame(FIN | PING, bytes(125))) == 127
    with pytest.raises(ValueError, match="125 octets"):
        MessageWriter(False).write_frame(FIN | PING, bytes(126))


@pytest.mark.parametrize("number", range(1, len(VIOLATION_NAMES)), ids=VIOLATION_NAMES[1:])
def test_the_close_for_a_violation_can_be_sent_to_both_sides(number: int) -> None:
    for from_client in (True, False):
        code, reason = describe_violation(number, from_client)
        for masks in (True, False):
            (event,) = told(MessageReader(masks, 10), [MessageWriter(masks).write_close(code, reason)])
            assert event.payload == code.to_bytes(2, "big") + reason
