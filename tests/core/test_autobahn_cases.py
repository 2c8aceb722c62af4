"""The cases of Autobahn|Testsuite, categories 1 to 7, as frames: what each is to our reader, from a client and from an upstream.

The suite asks an endpoint. A proxy has other duties: control frames and Closes pass. So each case
has the verdict of a reader: the messages that it tells, or the violation at which both sides are closed, or that what came behind a Close
to be dropped. `scripts/test-autobahn` runs the suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from soth_mitm._dataplane.websocket.frame import make_frame_head
from soth_mitm._dataplane.websocket.message_reader import MessageReader
from soth_mitm._dataplane.websocket.violations import VIOLATION_NAMES
from support.feeding import splits

FIN = 0x80
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = b"\x01\xfe\x37\x80"
HELLO = b"Hello, world!"
OCTETS = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
GREEK = "κόσμε".encode()
NORMAL = (1000).to_bytes(2, "big")
MOST = 1 << 17
# the first octet, and the payload
Frame = tuple[int, bytes]


class Case(NamedTuple):
    """One case: its number in the suite, what is sent, and what the reader says of it."""

    number: str
    frames: list[Frame]
    told: list[Frame]
    violation: str = "none"


def passes(number: str, *frames: Frame) -> Case:
    """Return a case that no rule is against; its messages are those of its frames."""
    told: list[Frame] = []
    kind, message = 0, b""
    for bits, payload in frames:
        opcode = bits & 15
        if opcode >= CLOSE:
            if opcode == CLOSE:
                told.append((CLOSE, payload))
            continue
        kind = opcode or kind
        message += payload
        if bits & FIN:
            told.append((kind, message))
            message = b""
    return Case(number, list(frames), told)


def fails(number: str, violation: str, *frames: Frame, told: tuple[Frame, ...] = ()) -> Case:
    """Return a case with a violation, `told` being the messages before it."""
    return Case(number, list(frames), list(told), violation)


def lengths() -> Iterator[Case]:
    """1: messages of each form of length."""
    for section, kind, octet in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for number, size in enumerate((0, 125, 126, 127, 128, 65535, 65536, 65536), 1):
            yield passes(f"1.{section}.{number}", (FIN | kind, octet * size))


def pings() -> Iterator[Case]:
    """2: control frames."""
    yield passes("2.1", (FIN | PING, b""))
    yield passes("2.2", (FIN | PING, HELLO))
    yield passes("2.3", (FIN | PING, OCTETS))
    yield passes("2.4 2.6", (FIN | PING, b"\xfe" * 125))
    yield fails("2.5", "control_length", (FIN | PING, b"\xfe" * 126))
    yield passes("2.7", (FIN | PONG, b""), (FIN | CLOSE, NORMAL))
    yield passes("2.8", (FIN | PONG, b"unsolicited"), (FIN | CLOSE, NORMAL))
    yield passes("2.9", (FIN | PONG, b"unsolicited"), (FIN | PING, b"ping"))
    yield passes("2.10 2.11", *((FIN | PING, b"payload-%d" % number) for number in range(10)))


def reserved() -> Iterator[Case]:
    """3 and 4: reserved bits and opcodes; the message before them is told."""
    first = (FIN | TEXT, HELLO)
    yield fails("3.1", "reserved_bit", (FIN | 1 << 4 | TEXT, HELLO))
    yield fails("3.2", "reserved_bit", first, (FIN | 2 << 4 | TEXT, HELLO), (FIN | PING, b""), told=((TEXT, HELLO),))
    yield fails("3.3", "reserved_bit", first, (FIN | 3 << 4 | TEXT, HELLO), (FIN | PING, b""), told=((TEXT, HELLO),))
    yield fails("3.4", "compressed_bit", first, (FIN | 4 << 4 | TEXT, HELLO), (FIN | PING, b""), told=((TEXT, HELLO),))
    yield fails("3.5", "reserved_bit", (FIN | 5 << 4 | BINARY, OCTETS))
    yield fails("3.6", "reserved_bit", (FIN | 6 << 4 | PING, HELLO))
    yield fails("3.7", "reserved_bit", (FIN | 7 << 4 | CLOSE, b""))
    for section, opcodes in ((1, range(3, 8)), (2, range(11, 16))):
        for number, opcode in enumerate(opcodes, 1):
            before = [first] if number > 2 else []
            told = tuple((TEXT, HELLO) for _ in before)
            payload = b"" if number in (1, 3) else b"reserved opcode"
            yield fails(f"4.{section}.{number}", "reserved_opcode", *before, (FIN | opcode, payload), (FIN | PING, b""), told=told)


def fragments() -> Iterator[Case]:
    """5: fragments, also of what may have none."""
    one, two = (TEXT, b"fragment1"), (FIN | CONTINUATION, b"fragment2")
    whole = (FIN | TEXT, HELLO)
    yield fails("5.1", "control_fragment", (PING, b"fragment1"), two)
    yield fails("5.2", "control_fragment", (PONG, b"fragment1"), two)
    yield passes("5.3 5.4 5.5", one, two)
    yield passes("5.6 5.7 5.8", one, (FIN | PING, b"ping"), two)
    yield fails("5.9 5.10 5.11", "no_start", (FIN | CONTINUATION, b"nothing"), whole)
    yield fails("5.12 5.13 5.14", "no_start", (CONTINUATION, b"nothing"), whole)
    yield fails("5.15", "no_start", one, two, (CONTINUATION, b"fragment3"), whole, told=((TEXT, b"fragment1fragment2"),))
    yield fails("5.16", "no_start", (CONTINUATION, b"nothing"), one, two)
    yield fails("5.17", "no_start", (FIN | CONTINUATION, b"nothing"), one, two)
    yield fails("5.18", "unfinished", one, (FIN | TEXT, b"fragment2"))
    piece, ping = (CONTINUATION, b"more"), (FIN | PING, b"ping")
    yield passes("5.19 5.20", one, piece, ping, piece, piece, ping, two)


def texts() -> Iterator[Case]:
    """6.1 to 6.4: empty fragments, and where text is wrong."""
    yield passes("6.1.1", (FIN | TEXT, b""))
    yield passes("6.1.2", (TEXT, b""), (CONTINUATION, b""), (FIN | CONTINUATION, b""))
    yield passes("6.1.3", (TEXT, b""), (CONTINUATION, b"middle"), (FIN | CONTINUATION, b""))
    good = "Hello-µ@ßöäüàá-UTF-8!!".encode()
    yield passes("6.2.1", (FIN | TEXT, good))
    yield passes("6.2.2", (TEXT, good[:12]), (FIN | CONTINUATION, good[12:]))
    yield passes("6.2.3", *in_octets(good))
    yield passes("6.2.4", *in_octets(GREEK))
    yield fails("6.3.1", "text_not_utf8", (FIN | TEXT, GREEK + b"\xed\xa0\x80edited"))
    yield fails("6.3.2", "text_not_utf8", *in_octets(GREEK + b"\xed\xa0\x80edited"))
    beyond = b"\xf4\x90\x80\x80"
    yield fails("6.4.1", "text_not_utf8", (TEXT, GREEK), (CONTINUATION, beyond), (FIN | CONTINUATION, b"edited"))
    yield fails("6.4.2", "text_not_utf8", (TEXT, GREEK + beyond[:1]), (CONTINUATION, beyond[1:2]), (FIN | CONTINUATION, beyond[2:]))
    yield fails("6.4.3 6.4.4", "text_not_utf8", (FIN | TEXT, GREEK + beyond + b"edited"))


def in_octets(text: bytes) -> list[Frame]:
    """Return a message in a frame for each octet."""
    last = len(text) - 1
    return [((0 if at else TEXT) | (FIN if at == last else 0), text[at : at + 1]) for at in range(len(text))]


def encodings() -> Iterator[Case]:
    """6.5 to 6.23: what is UTF-8. Python's codec, which is as strict as RFC 3629, says it."""
    greek = [GREEK[:size] for size in range(1, len(GREEK) + 1)]
    firsts = [b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]
    lasts = [
        b"\x7f",
        b"\xdf\xbf",
        b"\xef\xbf\xbf",
        b"\xf4\x8f\xbf\xbf",
        b"\xf7\xbf\xbf\xbf",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\xfd" + b"\xbf" * 5,
    ]
    borders = [b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"]
    inner = [(b"\x80\xbf" * 3)[:size] for size in range(1, 7)] + [b"\xbf", bytes(range(0x80, 0xC0))]
    starts = [b"".join(bytes((octet, 0x20)) for octet in range(low, high)) for low, high in STARTS]
    short = [octets[:-1] for octets in lasts[1:]] + [octets[:-1] for octets in firsts[1:]]
    never = [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]
    slashes = [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"]
    overlong = [b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"]
    zeros = [b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"]
    halves = [surrogate(code) for code in (0xD800, 0xDB7F, 0xDB80, 0xDBFF, 0xDC00, 0xDF80, 0xDFFF)]
    pairs = [surrogate(high) + surrogate(low) for high in (0xD800, 0xDB7F, 0xDB80, 0xDBFF) for low in (0xDC00, 0xDFFF)]
    planes = [chr(plane << 16 | 0xFFFE | odd).encode() for plane in range(17) for odd in (0, 1)]
    specials = [chr(code).encode() for code in range(0xFFF9, 0x10000)]
    words = [f"hello{sign}world".encode() for sign in "$¢€𤭢"]
    all_of_them = (words, greek, firsts, lasts, borders, inner, starts, short, [b"".join(short)], never, slashes, overlong, zeros)
    for group in (*all_of_them, halves, pairs, planes, specials):
        for octets in group:
            name = f"6.5+ {octets[:8].hex()} {len(octets)}"
            if is_utf8(octets):
                yield passes(name, (FIN | TEXT, octets))
            else:
                yield fails(name, "text_not_utf8", (FIN | TEXT, octets))


# the octets that begin a sequence of 2, 3, 4, 5 and 6
STARTS = ((0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8), (0xF8, 0xFC), (0xFC, 0xFE))


def surrogate(code: int) -> bytes:
    """Return a half of a surrogate pair, which is no character."""
    return chr(code).encode("utf-8", "surrogatepass")


def is_utf8(octets: bytes) -> bool:
    """Ask Python's codec."""
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def closes() -> Iterator[Case]:
    """7: Closes. What a sender has behind its own is no ping, no message and no second Close."""
    close = (FIN | CLOSE, NORMAL)
    whole = (FIN | TEXT, HELLO)
    yield passes("7.1.1", whole, close)
    yield fails("7.1.2", "ignored", close, (FIN | CLOSE, b""), told=((CLOSE, NORMAL),))
    yield fails("7.1.3", "ignored", close, (FIN | PING, b""), told=((CLOSE, NORMAL),))
    yield fails("7.1.4", "ignored", close, whole, told=((CLOSE, NORMAL),))
    fragment = (TEXT, b"fragment1")
    yield fails("7.1.5", "ignored", fragment, close, (FIN | CONTINUATION, b"fragment2"), told=((CLOSE, NORMAL),))
    long = b"BAsd7&jh23" * 9000
    yield fails(
        "7.1.6", "ignored", (FIN | TEXT, long), whole, close, (FIN | PING, b""), told=((TEXT, long), (TEXT, HELLO), (CLOSE, NORMAL))
    )
    yield passes("7.3.1", (FIN | CLOSE, b""))
    yield fails("7.3.2", "close_length", (FIN | CLOSE, b"a"))
    yield passes("7.3.3", close)
    yield passes("7.3.4", (FIN | CLOSE, NORMAL + b"Hello World!"))
    yield passes("7.3.5", (FIN | CLOSE, NORMAL + b"*" * 123))
    yield fails("7.3.6", "control_length", (FIN | CLOSE, NORMAL + b"*" * 124))
    yield fails("7.5.1", "close_reason", (FIN | CLOSE, NORMAL + GREEK + b"\xed\xa0\x80edited"))
    for number, code in enumerate((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999), 1):
        yield passes(f"7.7.{number}", (FIN | CLOSE, code.to_bytes(2, "big")))
    for number, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield fails(f"7.9.{number}", "close_code", (FIN | CLOSE, code.to_bytes(2, "big")))
    for number, code in enumerate((5000, 65535), 1):
        yield fails(f"7.13.{number}", "close_code", (FIN | CLOSE, code.to_bytes(2, "big")))


CASES = [case for group in (lengths, pings, reserved, fragments, texts, encodings, closes) for case in group()]


def wire(frames: list[Frame], key: bytes) -> bytes:
    """Return the frames as they are sent, with `key` as the mask."""
    masked = b""
    for bits, payload in frames:
        mask = (key * (len(payload) // 4 + 1))[: len(payload)] if key else bytes(len(payload))
        octets = (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(payload), "big")
        masked += make_frame_head(bits, len(payload), key) + octets
    return masked


def read(pieces: list[bytes], from_client: bool) -> tuple[list[Frame], str]:
    """Read pieces as they come; return what was told, and the violation."""
    reader = MessageReader(from_client, MOST)
    told: list[Frame] = []
    rest = b""
    for piece in pieces:
        rest += piece
        while True:
            name, taken = reader.read(rest)
            rest = rest[taken:]
            if name == "turn":
                reader.renew_turn()
            elif name == "ignored":
                return told, name
            elif name in ("more", "violation"):
                break
            elif name in ("message", "close"):
                assert reader.payload is not None
                told.append((reader.kind, reader.payload))
    return told, VIOLATION_NAMES[reader.violation]


@pytest.mark.parametrize("from_client", [True, False], ids=["client", "upstream"])
@pytest.mark.parametrize("case", CASES, ids=[case.number for case in CASES])
def test_case(case: Case, from_client: bool) -> None:
    data = wire(case.frames, KEY if from_client else b"")
    # a long message is cut at its two ends and at its middle, any other one everywhere
    ways = (
        splits(data)
        if len(data) < 1000
        else iter([[data], [data[:1], data[1:-1], data[-1:]], [data[: len(data) // 2], data[len(data) // 2 :]]])
    )
    for pieces in ways:
        assert read(pieces, from_client) == (case.told, case.violation), [len(piece) for piece in pieces][:4]
