"""Compression of WebSocket messages (RFC 7692) against zlib: takeover, windows, last blocks, empty messages, limits."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm._dataplane.websocket.deflate import Inflater
from support.doubles import load_double
from support.feeding import cut_at, splits

TAIL = b"\x00\x00\xff\xff"
MEBIBYTE = 1 << 20
WORDS = [b"temperature", b"voltage", b"ok", b'{"id":', b'"value":', b"},", b"0", b"17", b"null", b" "]


@pytest.fixture(scope="module")
def engine() -> Any:
    """The functions of the engine."""
    return load_double("websocket")


def text(chance: random.Random, size: int) -> bytes:
    return b"".join(chance.choice(WORDS) for _ in range(size))


class Sender:
    """A compressor as peers have it."""

    def __init__(self, bits: int = 15, level: int = 6, takeover: bool = True) -> None:
        self.bits, self.level, self.takeover = bits, level, takeover
        self.stream = self.fresh()

    def fresh(self) -> zlib._Compress:
        return zlib.compressobj(self.level, zlib.DEFLATED, -self.bits)

    def payload(self, message: bytes, last_block: bool = False, octet: bytes = b"\0") -> bytes:
        """Compress one message; with `last_block` as RFC 7692 section 7.2.3.4 has it, which ends the stream."""
        if not self.takeover:
            self.stream = self.fresh()
        if not message:
            return b"\0"
        if last_block:
            done = self.stream.compress(message) + self.stream.flush(zlib.Z_FINISH)
            self.stream = self.fresh()
            return done + octet
        done = self.stream.compress(message) + self.stream.flush(zlib.Z_SYNC_FLUSH)
        assert done.endswith(TAIL)
        return done[:-4]


def read(engine: Any, inflater: Inflater, payload: bytes, allowance: int = MEBIBYTE) -> bytes | None:
    found: bytes | None = engine.inflate(inflater, [payload], allowance)[0]
    return found


# RFC 7692 section 7.2.3
@pytest.mark.parametrize(
    ("payloads", "messages"),
    [
        (["f248cdc9c90700"], [b"Hello"]),
        (["f248cdc9c90700", "f200110000"], [b"Hello", b"Hello"]),
        # no compression
        (["000500faff48656c6c6f00"], [b"Hello"]),
        # with BFINAL, and the octet behind it
        (["f348cdc9c9070000"], [b"Hello"]),
        # two blocks
        (["f248050000 00ffff cac9c90700"], [b"Hello"]),
        (["00"], [b""]),
    ],
)
def test_examples_of_the_rfc(engine: Any, payloads: list[str], messages: list[bytes]) -> None:
    for pieces in range(1, 4):
        inflater = Inflater(True)
        for payload, message in zip(payloads, messages, strict=True):
            octets = bytes.fromhex(payload)
            size = len(octets) // pieces + 1
            cut = [octets[at : at + size] for at in range(0, len(octets), size)]
            assert engine.inflate(inflater, cut, MEBIBYTE)[0] == message


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("takeover", [True, False])
def test_every_window_and_every_split(engine: Any, bits: int, takeover: bool) -> None:
    chance = random.Random(bits)
    sender, messages = Sender(bits, takeover=takeover), [text(chance, size) for size in (1, 20, 0, 300, 7)]
    inflater = Inflater(takeover)
    for message in messages:
        payload = sender.payload(message)
        if takeover:
            assert engine.inflate(inflater, cut_at(payload, [3, 11, 12]), 50)[0] == message
        else:
            for pieces in splits(payload):
                assert engine.inflate(inflater, pieces, 50)[0] == message


def test_without_takeover_nothing_is_remembered(engine: Any) -> None:
    sender = Sender()
    first, second = sender.payload(b"Hello Hello Hello"), sender.payload(b"Hello Hello Hello")
    inflater = Inflater(False)
    assert read(engine, inflater, first) == b"Hello Hello Hello"
    assert read(engine, inflater, second) is None
    # each message begins anew, whatever came before it
    assert read(engine, inflater, first) == b"Hello Hello Hello"


@pytest.mark.parametrize("octet", [b"\0", b""], ids=["with its octet", "without"])
@pytest.mark.parametrize("takeover", [True, False])
def test_a_last_block_ends_a_stream_and_no_message_behind_it_is_lost(engine: Any, takeover: bool, octet: bytes) -> None:
    chance = random.Random(1)
    for order in range(16):
        sender, inflater = Sender(takeover=takeover), Inflater(takeover)
        for number in range(4):
            message = text(chance, 30)
            payload = sender.payload(message, bool(order >> number & 1), octet)
            for pieces in splits(payload) if not takeover else [[payload]]:
                assert engine.inflate(inflater, pieces, 1000)[0] == message, f"{order:04b}, message {number}"


def test_streams_inside_one_message(engine: Any) -> None:
    parts = []
    for part in (b"one ", b"two ", b"three"):
        stream = zlib.compressobj(wbits=-15)
        parts.append(stream.compress(part) + stream.flush())
    for pieces in splits(b"".join(parts) + b"\0"):
        assert engine.inflate(Inflater(True), pieces, 5000)[0] == b"one two three"


def test_both_spellings_of_an_empty_message(engine: Any) -> None:
    sender, inflater = Sender(), Inflater(True)
    for empty in (b"", b"\0", b"\x02\x00", b"", b"\0"):
        # 02 00: an empty block with fixed codes, as some compressors begin a flush
        assert read(engine, inflater, sender.payload(b"abc abc")) == b"abc abc"
        assert read(engine, inflater, empty) == b""
        assert read(engine, inflater, sender.payload(b"abc abc abc")) == b"abc abc abc"
    assert read(engine, Inflater(True), b"") == b""


@pytest.mark.parametrize("payload", [b"\xff\xff", b"\x06abc", b"\x00\x05\x00\xfa\xfe", b"\x07\x00\x00"])
def test_what_is_no_deflate(engine: Any, payload: bytes) -> None:
    assert read(engine, Inflater(True), payload) is None
    for pieces in splits(payload):
        assert engine.inflate(Inflater(True), pieces, 100)[0] is None


def test_what_is_given_out_keeps_to_the_allowance(engine: Any) -> None:
    message = bytes(5 * MEBIBYTE)
    payload = Sender(level=9).payload(message)
    assert len(payload) < 6000
    found, pieces, _ = engine.inflate(Inflater(True), [payload], MEBIBYTE)
    assert found == message
    assert len(pieces) >= 5 and max(map(len, pieces)) <= MEBIBYTE
    # one octet at a time is slow, and right
    assert engine.inflate(Inflater(True), [Sender().payload(b"abcabcabc")], 1)[0] == b"abcabcabc"


def test_without_allowance_nothing_is_done(engine: Any) -> None:
    assert engine.inflate_nothing_without_allowance(Inflater(True), Sender().payload(b"abc")) == (b"", 0, True)


def test_beginning_streams_is_paid_for(engine: Any) -> None:
    # 03 00: an empty last block; each makes zlib begin anew
    payload = b"\x03\x00" * 3000
    found, pieces, _ = engine.inflate(Inflater(True), [payload], MEBIBYTE)
    assert found == b"" and len(pieces) == 3000
    _, _, left = engine.inflate(Inflater(True), [b"\x03\x00"], MEBIBYTE)
    assert left == MEBIBYTE - 1024


def test_the_compressor_of_ours_fits_each_agreed_window(engine: Any) -> None:
    chance = random.Random(3)
    messages = [text(chance, size) for size in (300, 0, 5, 4000, 1)]
    assert engine.compress(8, True, messages) is None
    for bits in range(9, 16):
        for takeover in (True, False):
            payloads = engine.compress(bits, takeover, messages)
            reader = zlib.decompressobj(-bits)
            for payload, message in zip(payloads, messages, strict=True):
                if not takeover:
                    reader = zlib.decompressobj(-bits)
                assert reader.decompress(payload + TAIL) == message and not reader.eof
            assert payloads[1] == b"\0"
            assert sum(map(len, payloads)) < sum(map(len, messages)) / 2


def test_our_compressor_remembers_only_if_that_was_agreed(engine: Any) -> None:
    message = text(random.Random(5), 40)
    first, second = engine.compress(12, True, [message, message])
    assert len(second) < len(first) / 2
    first, second = engine.compress(12, False, [message, message])
    assert first == second


MESSAGES = st.lists(st.one_of(st.binary(max_size=80), st.text(max_size=60).map(str.encode)), max_size=6)


@given(
    messages=MESSAGES,
    bits=st.integers(9, 15),
    level=st.integers(0, 9),
    takeover=st.booleans(),
    last=st.sets(st.integers(0, 5)),
    places=st.lists(st.integers(0, 200), max_size=4),
    allowance=st.integers(1, 2000),
)
@settings(max_examples=250, deadline=None)
def test_any_messages_of_any_sender(
    engine: Any, messages: list[bytes], bits: int, level: int, takeover: bool, last: set[int], places: list[int], allowance: int
) -> None:
    sender, inflater = Sender(bits, level, takeover), Inflater(takeover)
    for number, message in enumerate(messages):
        payload = sender.payload(message, number in last)
        assert engine.inflate(inflater, cut_at(payload, places), allowance)[0] == message
