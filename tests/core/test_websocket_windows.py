"""Compressed messages that are changed, left out or put in: the receiver reads what it should, and raw relay comes back."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm._dataplane.websocket.deflate import Inflater
from soth_mitm._dataplane.websocket.windows import Windows
from support.doubles import load_double

TAIL = b"\x00\x00\xff\xff"
EQUAL, OWN = 0, 1
LARGE = 1 << 30
WORDS = [b"temperature", b"voltage", b"ok", b'{"id":', b'"value":', b"},", b"0", b"17", b"null", b" "]


@pytest.fixture(scope="module")
def engine() -> Any:
    """The functions of the engine."""
    return load_double("websocket")


def text(chance: random.Random, size: int) -> bytes:
    return b"".join(chance.choice(WORDS) for _ in range(size))


class Receiver:
    """An end of a WebSocket: its window is no larger than was agreed on."""

    def __init__(self, bits: int, takeover: bool) -> None:
        self.bits, self.takeover = bits, takeover
        self.stream = zlib.decompressobj(-bits)

    def read(self, payload: bytes, is_compressed: bool) -> bytes:
        if not is_compressed:
            return payload
        if not self.takeover:
            self.stream = zlib.decompressobj(-self.bits)
        found, rest = b"", payload + TAIL
        while rest:
            found += self.stream.decompress(rest)
            rest = b""
            if self.stream.eof:
                rest = self.stream.unused_data
                self.stream = zlib.decompressobj(-self.bits)
                rest = b"" if rest == TAIL else rest
        return found


class Sender:
    """The other end; `last_block` ends its stream, as a compressor without a flush has to."""

    def __init__(self, bits: int, level: int, takeover: bool) -> None:
        self.bits, self.level, self.takeover = bits, level, takeover
        self.stream = zlib.compressobj(level, zlib.DEFLATED, -bits)

    def payload(self, message: bytes, last_block: bool) -> bytes:
        if not self.takeover:
            self.stream = zlib.compressobj(self.level, zlib.DEFLATED, -self.bits)
        if not message:
            return b"\0"
        done = self.stream.compress(message) + self.stream.flush(zlib.Z_FINISH if last_block else zlib.Z_SYNC_FLUSH)
        if last_block:
            self.stream = zlib.compressobj(self.level, zlib.DEFLATED, -self.bits)
            return done + b"\0"
        return done.removesuffix(TAIL)


@dataclass
class Relay:
    """What the proxy does with each message of one direction, between a Sender and a Receiver."""

    engine: Any
    bits: int
    takeover: bool = True
    recompresses: bool = True
    level: int = 6
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("raw", "ours", "plain"), 0))

    def __post_init__(self) -> None:
        self.sender = Sender(self.bits, self.level, self.takeover)
        self.receiver = Receiver(self.bits, self.takeover)
        self.inflater = Inflater(self.takeover)
        self.windows = Windows(self.bits, self.takeover, self.recompresses)

    def bring(self, payload: bytes | None, is_compressed: bool, expected: bytes, raw: bytes = b"") -> None:
        kind = "raw" if payload is None else "ours" if is_compressed else "plain"
        self.counts[kind] += 1
        assert self.receiver.read(raw if payload is None else payload, is_compressed) == expected

    def message(self, message: bytes, action: str = "keep", replacement: bytes = b"", last_block: bool = False) -> None:
        """Send one compressed message; `action` is what the handler decides."""
        raw = self.sender.payload(message, last_block)
        assert self.engine.inflate(self.inflater, [raw], LARGE)[0] == message
        if action == "keep":
            payload = self.engine.keep(self.windows, message)
            self.bring(payload, self.windows.is_compressed, message, raw)
        elif action == "drop":
            self.engine.leave_out(self.windows)
        elif action == "plain":
            # a secret is put in, or the message is too long to be held: it goes out without compression
            payload = self.engine.replace(self.windows, replacement, False)
            assert payload == replacement and not self.windows.is_compressed
            self.bring(payload, False, replacement)
        else:
            payload = self.engine.replace(self.windows, replacement)
            self.bring(payload, self.windows.is_compressed, replacement)


def test_messages_that_nobody_changes_pass_as_they_came(engine: Any) -> None:
    relay, chance = Relay(engine, 15), random.Random(1)
    for _ in range(50):
        relay.message(text(chance, 30))
    assert relay.counts == {"raw": 50, "ours": 0, "plain": 0}
    assert relay.windows.state == EQUAL and not engine.has_deflater(relay.windows)


@pytest.mark.parametrize("action", ["drop", "replace", "plain"])
@pytest.mark.parametrize("bits", range(9, 16))
def test_raw_relay_comes_back_when_the_window_is_filled(engine: Any, bits: int, action: str) -> None:
    relay, chance = Relay(engine, bits), random.Random(bits)
    relay.message(text(chance, 200))
    relay.message(text(chance, 50), action, b"instead")
    assert relay.windows.state == OWN and engine.has_deflater(relay.windows)
    passed = 0
    while passed < 1 << bits:
        assert relay.windows.state == OWN
        message = text(chance, 20)
        passed += len(message)
        relay.message(message)
    assert relay.windows.state == EQUAL and not engine.has_deflater(relay.windows)
    raw = relay.counts["raw"]
    for _ in range(60):
        relay.message(text(chance, 20))
    assert relay.counts["raw"] == raw + 60


def test_raw_relay_comes_back_at_the_octet_that_fills_the_window(engine: Any) -> None:
    for missing, state in ((1, OWN), (0, EQUAL)):
        relay = Relay(engine, 9)
        relay.message(b"a", "drop")
        relay.message(bytes(512 - missing))
        assert relay.windows.state == state
        # what the sender compressed refers to all of its window now
        relay.message(bytes(600))


def test_every_change_begins_to_count_anew(engine: Any) -> None:
    relay = Relay(engine, 9)
    relay.message(b"a", "drop")
    for action in ("drop", "replace", "plain"):
        relay.message(bytes(511))
        relay.message(b"b", action, b"c")
        assert relay.windows.state == OWN
    relay.message(bytes(511))
    assert relay.windows.state == OWN
    relay.message(b"d")
    assert relay.windows.state == EQUAL


def test_a_second_change_finds_a_compressor_that_knows_nothing_old(engine: Any) -> None:
    relay, chance = Relay(engine, 10), random.Random(7)
    for _ in range(3):
        relay.message(text(chance, 10), "replace", text(chance, 10))
        while relay.windows.state == OWN:
            relay.message(text(chance, 20))
        for _ in range(30):
            relay.message(text(chance, 10))
    assert relay.counts["raw"] >= 90


def test_without_takeover_a_change_has_no_aftermath(engine: Any) -> None:
    relay, chance = Relay(engine, 15, takeover=False), random.Random(2)
    for action in ("keep", "drop", "keep", "replace", "keep", "plain", "keep"):
        message = text(chance, 40)
        relay.message(message, action, b"instead instead instead instead")
        assert relay.windows.state == EQUAL
    assert relay.counts == {"raw": 4, "ours": 1, "plain": 1}


@pytest.mark.parametrize(("bits", "recompresses"), [(15, False), (8, True), (8, False)])
@pytest.mark.parametrize("takeover", [True, False])
def test_where_we_do_not_compress(engine: Any, bits: int, recompresses: bool, takeover: bool) -> None:
    windows = Windows(bits, takeover, recompresses)
    assert engine.keep(windows, b"one") is None
    assert engine.replace(windows, b"two") == b"two" and not windows.is_compressed
    for _ in range(100):
        # with takeover the window of the receiver stays behind for good
        message = bytes(1000)
        assert engine.keep(windows, message) == (message if takeover else None)
        assert windows.is_compressed == (not takeover)
    assert windows.state == (OWN if takeover else EQUAL)


def test_messages_that_came_without_compression_count_nothing(engine: Any) -> None:
    # the relay never asks about them
    relay = Relay(engine, 9)
    relay.message(b"a" * 100)
    relay.message(b"b" * 100, "drop")
    relay.bring(bytes(600), False, bytes(600))
    assert relay.windows.state == OWN
    relay.message(b"a" * 100)
    assert relay.counts["ours"] == 1


ACTIONS = st.sampled_from(["keep"] * 8 + ["drop", "replace", "plain"])
STEPS = st.lists(st.tuples(ACTIONS, st.integers(0, 200), st.booleans(), st.booleans()), max_size=60)


@given(
    steps=STEPS,
    bits=st.integers(9, 15),
    level=st.integers(1, 9),
    takeover=st.booleans(),
    recompresses=st.sampled_from([True, True, True, False]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_any_connection(
    engine: Any, steps: list[tuple[str, int, bool, bool]], bits: int, level: int, takeover: bool, recompresses: bool, seed: int
) -> None:
    chance = random.Random(seed)
    relay = Relay(engine, bits, takeover, recompresses, level)
    for action, size, last_block, injects in steps:
        if injects:
            # an injected message is never compressed, and touches no window
            relay.bring(b"injected", False, b"injected")
        relay.message(text(chance, size), action, text(chance, chance.randrange(40)), last_block and size % 7 == 0)


def test_long_connections(engine: Any) -> None:
    """As `test_any_connection`, long enough for windows of 15 bits to be filled again and again."""
    counts = dict.fromkeys(("raw", "ours", "plain"), 0)
    for seed in range(60):
        chance = random.Random(seed)
        relay = Relay(engine, chance.randint(9, 15), level=chance.randint(1, 9), counts=counts)
        for _ in range(chance.randint(40, 200)):
            action = chance.choices(["keep", "drop", "replace", "plain"], [92, 3, 4, 1])[0]
            relay.message(text(chance, chance.randrange(300)), action, text(chance, chance.randrange(300)), chance.random() < 0.03)
    assert min(counts.values()) > 50 and counts["raw"] > 1000
