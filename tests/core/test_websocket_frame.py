"""Frames of WebSocket: every rule of a head, lengths, masking, order, and Close (RFC 6455 section 5)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm._dataplane.websocket.frame import FrameReader, judge_close, make_frame_head
from soth_mitm._dataplane.websocket.violations import VIOLATION_NAMES, VIOLATION_TEXTS, describe_violation
from support.feeding import cut_at, splits

FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
CLIENT, UPSTREAM = True, False
KEY = b"\x01\xfe\x37\x80"

Steps = list[tuple[object, ...]]


def masked(payload: bytes, key: bytes) -> bytes:
    return bytes(octet ^ key[at % 4] for at, octet in enumerate(payload)) if key else payload


def frame(bits: int, payload: bytes = b"", key: bytes = KEY) -> bytes:
    return make_frame_head(bits, len(payload), key) + masked(payload, key)


def read(reader: FrameReader, pieces: list[bytes]) -> Steps:
    """Feed pieces as a read buffer does: what is not taken stands before the next. Payload is joined: (head, unmasked) for each frame."""
    found: Steps = []
    rest = b""
    for piece in pieces:
        rest += piece
        steps, taken = reader.steps(rest)
        rest = rest[taken:]
        assert len(rest) < 14 or reader.violation
        for name, bits, number, octets in steps:
            if name == "head":
                found.append((bits, number, octets, b""))
            elif name == "ignored":
                found.append(("ignored", number))
            else:
                bits, length, key, before = found[-1]
                assert isinstance(before, bytes) and number == (len(before) % 4)
                found[-1] = (bits, length, key, before + octets)
    return [step for step in found if step[0] != "ignored"]


def every_way(data: bytes, from_client: bool = CLIENT, **options: bool) -> tuple[Steps, str]:
    """Read `data` in every split, and see that none makes a difference."""
    seen: tuple[Steps, str] | None = None
    for pieces in splits(data):
        reader = FrameReader(from_client, **options)
        found = read(reader, pieces), VIOLATION_NAMES[reader.violation]
        seen = seen or found
        assert found == seen, f"cut as {[len(piece) for piece in pieces][:4]}"
    assert seen is not None
    return seen


def violation(data: bytes, from_client: bool = CLIENT, **options: bool) -> str:
    return every_way(data, from_client, **options)[1]


OPCODES = [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG]


@pytest.mark.parametrize("from_client", [CLIENT, UPSTREAM], ids=["client", "upstream"])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 125, 126, 127, 300])
def test_a_frame_of_each_length(length: int, from_client: bool) -> None:
    key, payload = KEY if from_client else b"", bytes(range(256))[:length].ljust(length, b"x")
    assert every_way(frame(FIN | BINARY, payload, key), from_client) == ([(FIN | BINARY, length, key, payload)], "none")


@pytest.mark.parametrize(
    ("length", "head"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        (2**32 + 1, b"\x82\x7f\x00\x00\x00\x01\x00\x00\x00\x01"),
        (2**63 - 1, b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"),
    ],
)
def test_lengths_are_written_in_their_shortest_form_and_read(length: int, head: bytes) -> None:
    assert make_frame_head(FIN | BINARY, length) == head
    assert make_frame_head(FIN | BINARY, length, KEY) == head[:1] + bytes([head[1] | 0x80]) + head[2:] + KEY
    for pieces in splits(head):
        reader = FrameReader(UPSTREAM)
        assert read(reader, pieces) == [(FIN | BINARY, length, b"", b"")]
        assert reader.steps(b"abc") == ([("payload", 0, 0, b"abc")] if length else [], 3 if length else 0)


def test_a_key_has_four_octets() -> None:
    with pytest.raises(ValueError, match="four octets"):
        make_frame_head(FIN | TEXT, 1, b"abc")


def test_payload_is_told_as_it_comes() -> None:
    reader = FrameReader(CLIENT)
    assert reader.steps(make_frame_head(FIN | BINARY, 2**62, KEY))[0] == [("head", FIN | BINARY, 2**62, KEY)]
    data = bytes(range(100))
    phase = 0
    for at in range(0, 100, 7):
        piece = data[at : at + 7]
        ((name, _, started, octets),), taken = reader.steps(masked(data, KEY)[at : at + 7])
        assert (name, started, octets, taken) == ("payload", phase, piece, len(piece))
        phase = (phase + len(piece)) % 4


@pytest.mark.parametrize("opcode", range(16))
@pytest.mark.parametrize("rsv", [0, RSV1, RSV2, RSV3, RSV1 | RSV2 | RSV3])
@pytest.mark.parametrize("may_compress", [False, True])
@pytest.mark.parametrize("fin", [FIN, 0])
def test_every_first_octet(opcode: int, rsv: int, may_compress: bool, fin: int) -> None:
    found = violation(frame(fin | rsv | opcode), may_compress=may_compress)
    if rsv & (RSV2 | RSV3):
        assert found == "reserved_bit"
    elif rsv and not (may_compress and opcode in (TEXT, BINARY)):
        assert found == "compressed_bit"
    elif opcode not in OPCODES:
        assert found == "reserved_opcode"
    elif opcode >= CLOSE and not fin:
        assert found == "control_fragment"
    elif opcode == CONTINUATION:
        assert found == "no_start"
    else:
        assert found == "none"


@pytest.mark.parametrize("rsv", [RSV1, RSV2, RSV3, RSV1 | RSV2 | RSV3])
@pytest.mark.parametrize("opcode", OPCODES)
def test_bits_of_an_extension_of_others_are_not_judged(opcode: int, rsv: int) -> None:
    data = frame(TEXT) if opcode == CONTINUATION else b""
    steps, found = every_way(data + frame(FIN | rsv | opcode), is_foreign=True)
    assert found == "none" and steps[-1][0] == FIN | rsv | opcode
    assert violation(frame(FIN | rsv | 3), is_foreign=True) == "reserved_opcode"


# RFC 7692 section 6.1: on the first frame of a data message only; a continuation inside it, even of a compressed one, has none
@pytest.mark.parametrize("first", [TEXT, RSV1 | TEXT, RSV1 | BINARY])
def test_the_compressed_bit_stands_on_the_first_frame_only(first: int) -> None:
    start = frame(first, b"a")
    assert violation(start + frame(FIN | CONTINUATION, b"b"), may_compress=True) == "none"
    assert violation(start + frame(FIN | RSV1 | CONTINUATION), may_compress=True) == "compressed_bit"
    assert violation(start + frame(FIN | RSV1 | PING), may_compress=True) == "compressed_bit"


@pytest.mark.parametrize("opcode", OPCODES[1:])
def test_masks_of_the_wrong_side(opcode: int) -> None:
    assert violation(frame(FIN | opcode, b"abc", b""), CLIENT) == "unmasked"
    assert violation(frame(FIN | opcode, b"abc", KEY), UPSTREAM) == "masked"
    # the first two octets say it, whatever else they announce
    for mask, side, name in ((0, CLIENT, "unmasked"), (0x80, UPSTREAM, "masked")):
        for length in (0, 126, 127):
            assert violation(bytes([FIN | opcode, mask | length]), side) == name


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_control_frame_has_125_octets_at_most(opcode: int) -> None:
    assert violation(frame(FIN | opcode, b"\x03\xe8" + b"x" * 123)) == "none"
    for length in (126, 127):
        assert violation(bytes([FIN | opcode, 0x80 | length])) == "control_length"


@pytest.mark.parametrize(
    ("extended", "name"),
    [
        (b"\x7e" + struct.pack(">H", 0), "length_form"),
        (b"\x7e" + struct.pack(">H", 125), "length_form"),
        (b"\x7e" + struct.pack(">H", 126), "none"),
        (b"\x7f" + struct.pack(">Q", 0), "length_form"),
        (b"\x7f" + struct.pack(">Q", 125), "length_form"),
        (b"\x7f" + struct.pack(">Q", 126), "length_form"),
        (b"\x7f" + struct.pack(">Q", 65535), "length_form"),
        (b"\x7f" + struct.pack(">Q", 65536), "none"),
        (b"\x7f" + struct.pack(">Q", 2**31), "none"),
        (b"\x7f" + struct.pack(">Q", 2**32 + 4), "none"),
        (b"\x7f" + struct.pack(">Q", 2**63 - 1), "none"),
        (b"\x7f" + struct.pack(">Q", 2**63), "length_range"),
        (b"\x7f" + struct.pack(">Q", 2**63 + 5), "length_range"),
        (b"\x7f" + struct.pack(">Q", 2**64 - 1), "length_range"),
    ],
)
def test_forms_of_the_length(extended: bytes, name: str) -> None:
    assert violation(b"\x82" + extended, UPSTREAM) == name


def test_control_frames_between_fragments() -> None:
    data = frame(TEXT, b"ab") + frame(FIN | PING, b"p") + frame(CONTINUATION) + frame(FIN | PONG) + frame(FIN | CONTINUATION, b"c")
    steps, found = every_way(data + frame(FIN | BINARY, b"next"))
    assert found == "none"
    assert [(bits, payload) for bits, _, _, payload in steps] == [
        (TEXT, b"ab"), (FIN | PING, b"p"), (CONTINUATION, b""), (FIN | PONG, b""), (FIN | CONTINUATION, b"c"), (FIN | BINARY, b"next"),
    ]  # fmt: skip


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [FIN, 0])
def test_another_message_inside_a_fragmented_one(opcode: int, fin: int) -> None:
    assert violation(frame(TEXT, b"a") + frame(fin | opcode, b"b")) == "unfinished"
    assert violation(frame(TEXT, b"a") + frame(CONTINUATION) + frame(fin | opcode)) == "unfinished"


@pytest.mark.parametrize("fin", [FIN, 0])
def test_a_continuation_of_nothing(fin: int) -> None:
    assert violation(frame(fin | CONTINUATION, b"a")) == "no_start"
    assert violation(frame(FIN | TEXT, b"a") + frame(fin | CONTINUATION)) == "no_start"
    assert violation(frame(TEXT) + frame(FIN | CONTINUATION) + frame(fin | CONTINUATION)) == "no_start"


@pytest.mark.parametrize("before", [b"", frame(TEXT, b"a")], ids=["between messages", "inside one"])
def test_what_comes_behind_a_close_is_ignored(before: bytes) -> None:
    closed = before + frame(FIN | CLOSE, b"\x03\xe8")
    steps, found = every_way(closed + b"\xff" * 40)
    assert found == "none" and len(steps) == bool(before) + 1
    reader = FrameReader(CLIENT)
    reader.steps(closed)
    assert reader.state == 2
    assert reader.steps(b"\xff\xff") == ([("ignored", 0, 2, b"")], 2)
    assert reader.steps(b"") == ([], 0)


def test_nothing_is_taken_behind_a_violation() -> None:
    reader = FrameReader(CLIENT)
    good = frame(FIN | TEXT, b"a")
    assert reader.steps(good + b"\xff")[1] == len(good)
    assert reader.violation
    assert reader.steps(good) == ([], 0)
    assert reader.steps(b"") == ([], 0)


CODES_THAT_MAY_BE_SENT = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


def test_every_close_code() -> None:
    for code in range(65536):
        expected = "none" if code in CODES_THAT_MAY_BE_SENT else "close_code"
        assert VIOLATION_NAMES[judge_close(struct.pack(">H", code) + b"why")] == expected, code


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (b"", "none"),
        (b"\x03", "close_length"),
        (b"\x03\xe8", "none"),
        (b"\x03\xe8" + "ä€😀".encode(), "none"),
        (b"\x03\xe8" + b"x" * 123, "none"),
        (b"\x03\xe8\xe2\x82", "close_reason"),
        (b"\x03\xe8\xed\xa0\x80", "close_reason"),
        (b"\x03\xe8\xff", "close_reason"),
        (b"\x03\xed\xff", "close_code"),
    ],
)
def test_the_payload_of_a_close(payload: bytes, name: str) -> None:
    assert VIOLATION_NAMES[judge_close(payload)] == name


FRAMES = st.tuples(
    st.sampled_from([FIN | opcode for opcode in OPCODES] + [TEXT, BINARY, CONTINUATION]),
    st.binary(max_size=140),
    st.binary(min_size=4, max_size=4),
)


@given(frames=st.lists(FRAMES, max_size=6), places=st.lists(st.integers(0, 900), max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_frames_in_any_pieces(frames: list[tuple[int, bytes, bytes]], places: list[int]) -> None:
    expected: Steps = []
    name, fragmented = "none", False
    for bits, payload, key in frames:
        control = bits & 0x08
        payload = payload[:125] if control else payload
        if not control and bool(bits & 0x0F == CONTINUATION) != fragmented:
            name = "unfinished" if fragmented else "no_start"
            break
        if not control:
            fragmented = not bits & FIN
        expected.append((bits, len(payload), key, payload))
        if bits & 0x0F == CLOSE:
            break
    data = b"".join(frame(bits, payload[:125] if bits & 0x08 else payload, key) for bits, payload, key in frames)
    reader = FrameReader(CLIENT)
    assert read(reader, cut_at(data, places)) == expected
    assert VIOLATION_NAMES[reader.violation] == name


def test_every_violation_has_a_code_and_a_reason() -> None:
    assert len(VIOLATION_NAMES) == len(VIOLATION_TEXTS) == len(set(VIOLATION_NAMES)) == len(set(VIOLATION_TEXTS))
    for number, name in enumerate(VIOLATION_NAMES[1:], 1):
        expected = {"close_reason": 1007, "text_not_utf8": 1007, "deflate_data": 1007, "too_long": 1009}.get(name, 1002)
        for from_client, side in ((True, b"client: "), (False, b"upstream: ")):
            code, reason = describe_violation(number, from_client)
            assert code == expected and reason == side + VIOLATION_TEXTS[number].encode()
            # RFC 6455 would allow 123
            assert len(reason) <= 60 and reason.isascii()
    assert describe_violation(VIOLATION_NAMES.index("unmasked"), True) == (1002, b"client: unmasked frame")
    for number in (0, len(VIOLATION_NAMES), -1):
        with pytest.raises(ValueError, match="no such violation"):
            describe_violation(number, True)
