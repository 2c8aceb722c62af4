"""WebSocket streams read as plainly as can be, over octets that are all there: what the engine must agree with."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
TAIL = b"\x00\x00\xff\xff"


@dataclass
class Rules:
    """What was agreed, and limits."""

    from_client: bool
    may_compress: bool
    takeover: bool
    when_long: int
    most: int


CUT_LONG, SHOW_LONG, REFUSE_LONG = range(3)


@dataclass
class Plain:
    """Events as (name, kind, payload, is_complete, is_compressed, begin, end), and the violations one of which ends the stream: none, one,
    or several of a message that is malformed, of which `maybe` was told before."""

    events: list[tuple[str, int, bytes | None, bool, bool, int, int]] = field(default_factory=list)
    maybe: bool = False
    wrong: frozenset[str] = frozenset()


class Inflater:
    """Inflates messages that are all there."""

    def __init__(self, takeover: bool) -> None:
        self.takeover = takeover
        self.stream: zlib._Decompress | None = None

    def message(self, payload: bytes, is_last: bool) -> bytes | None:
        """Inflate what has come of a message; nothing is remembered unless it is all. None: it is malformed."""
        stream = self.stream.copy() if self.stream is not None and self.takeover else None
        rest = payload + TAIL if payload and is_last else payload
        found = b""
        try:
            # behind the last block of a stream another may follow, and what was left out of the first is no part of it
            while rest and not (is_last and stream is None and rest == TAIL):
                stream = stream or zlib.decompressobj(wbits=-15)
                found += stream.decompress(rest)
                rest = b""
                if stream.eof:
                    rest, stream = stream.unused_data, None
        except zlib.error:
            return None
        if is_last:
            self.stream = stream
        return found


def read_stream(stream: bytes, rules: Rules) -> Plain:
    """Read a stream that may be cut anywhere."""
    found, inflater = Plain(), Inflater(rules.takeover)
    at, kind, compressed, message, begin, is_shown = 0, -1, False, b"", 0, False
    while at < len(stream):
        head = read_head(stream[at:], rules, kind >= 0)
        if isinstance(head, str):
            found.wrong = frozenset({head} if head else ())
            return found
        bits, size, length, key = head
        opcode, start = bits & 15, at
        payload = unmasked(stream[at + size : at + size + length], key)
        at += size + length
        is_cut = at > len(stream)
        if opcode < CLOSE:
            if opcode != CONTINUATION:
                kind, compressed, message, begin, is_shown = opcode, bool(bits & 0x40), b"", start, False
            message += payload
            is_last = bool(bits & 0x80) and not is_cut
            content = inflater.message(message, is_last) if compressed else message
            found.wrong = judge_message(content, rules, kind, compressed, is_last)
            found.maybe = content is None and rules.when_long == SHOW_LONG and not is_shown
            if content is not None and rules.when_long == SHOW_LONG and not is_shown and len(content) > rules.most:
                shown = content[: rules.most]
                if kind != TEXT or not text_fault(shown, may_be_cut=True):
                    shown = shown.decode("utf-8", "ignore").encode() if kind == TEXT else shown
                    found.events.append(("long", kind, shown, False, compressed, begin, 0))
                    is_shown = True
            if is_last and not found.wrong:
                assert content is not None
                shown = content[: rules.most]
                shown = shown.decode("utf-8", "ignore").encode() if kind == TEXT else shown
                if is_shown:
                    found.events.append(("end", kind, None, False, compressed, begin, at))
                else:
                    found.events.append(("message", kind, shown, len(content) <= rules.most, compressed, begin, at))
                kind = -1
        elif not is_cut:
            found.wrong = frozenset(judge_close(payload) if opcode == CLOSE else ())
            if not found.wrong:
                name = "close" if opcode == CLOSE else "control"
                found.events.append((name, opcode, payload if opcode == CLOSE else None, True, False, start, at))
        if is_cut or found.wrong or opcode == CLOSE:
            return found
    return found


def read_head(data: bytes, rules: Rules, is_inside: bool) -> tuple[int, int, int, bytes] | str:
    """Read a head: (FIN, RSV and opcode, its octets, octets of payload, key). Or its first violation, "" where it is cut before one."""
    bits, opcode = data[0], data[0] & 15
    if bits & 0x30:
        return "reserved_bit"
    if bits & 0x40 and not (rules.may_compress and opcode in (TEXT, BINARY)):
        return "compressed_bit"
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        return "reserved_opcode"
    if opcode >= CLOSE and not bits & 0x80:
        return "control_fragment"
    if opcode < CLOSE and (opcode == CONTINUATION) != is_inside:
        return "unfinished" if is_inside else "no_start"
    if len(data) < 2:
        return ""
    if bool(data[1] & 0x80) != rules.from_client:
        return "unmasked" if rules.from_client else "masked"
    length = data[1] & 0x7F
    if opcode >= CLOSE and length > 125:
        return "control_length"
    size = {126: 4, 127: 10}.get(length, 2)
    if len(data) < size:
        return ""
    if size > 2:
        length = int.from_bytes(data[2:size], "big")
        if length >= 1 << 63:
            return "length_range"
        if length < (126 if size == 4 else 65536):
            return "length_form"
    key = data[size : size + 4] if rules.from_client else b""
    size += 4 if rules.from_client else 0
    return (bits, size, length, key) if len(data) >= size else ""


def unmasked(payload: bytes, key: bytes) -> bytes:
    if not key:
        return payload
    keys = int.from_bytes((key * (len(payload) // 4 + 1))[: len(payload)], "big")
    return (int.from_bytes(payload, "big") ^ keys).to_bytes(len(payload), "big")


def judge_close(payload: bytes) -> set[str]:
    if not payload:
        return set()
    if len(payload) == 1:
        return {"close_length"}
    code = int.from_bytes(payload[:2], "big")
    if not (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) and not 3000 <= code <= 4999:
        return {"close_code"}
    return {"close_reason"} if text_fault(payload[2:]) else set()


def text_fault(octets: bytes, may_be_cut: bool = False) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError as error:
        return not (may_be_cut and error.reason == "unexpected end of data")
    return False


def judge_message(content: bytes | None, rules: Rules, kind: int, compressed: bool, is_last: bool) -> frozenset[str]:
    if content is None:
        # what came before the fault is judged too, if it was given out before
        return frozenset({"deflate_data", "text_not_utf8", "too_long"})
    most = rules.most if rules.when_long == REFUSE_LONG else 8 * rules.most if compressed else len(content)
    # up to there it is judged
    if kind == TEXT and text_fault(content[:most], may_be_cut=len(content) > most or not is_last):
        return frozenset({"text_not_utf8"})
    return frozenset({"too_long"} if len(content) > most else ())
