"""Streams cut into frames as plainly as can be, over bytes that are all there: what the framers must agree with."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from dataclasses import dataclass, field

from soth_mitm._dataplane.wire.decode import decoder_for

MOST_FIELD, MOST_RETRY_DIGITS, LINE_SLACK, PREFIX = 16384, 15, 2, 5
LINE_END = re.compile(rb"\r\n|\r|\n")
DEFAULT_TYPE = "message"
JSON_SPACE = b" \t\r\n"
FIELD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n]*"


@dataclass
class Framed:
    """Frames as (payload, truncated, event type, event id, retry, complete), how many things were wrong, whether that ended the framing,
    and whether the stream ends between two frames."""

    frames: list[tuple[object, ...]] = field(default_factory=list)
    errors: int = 0
    failed: bool = False
    at_end: bool = True


def frame_sse(stream: bytes, budget: int) -> Framed:
    """WHATWG HTML section 9.2.6; a field that is too long is an error and has no effect."""
    found = Framed()
    data: list[bytes] = []
    kind, last_id, retry = b"", None, None
    *lines, rest = LINE_END.split(stream)
    begins_with = rest.removeprefix(b"\xef\xbb\xbf") if not lines else rest
    whole = len(lines)
    if begins_with.startswith(b"data:"):
        # of a line without its end only data is of use
        lines.append(rest)
    lines.append(b"")
    for number, line in enumerate(lines):
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                joined = b"\n".join(data)
                event_type = kind.decode("utf-8", "replace") or DEFAULT_TYPE
                complete = number < whole and len(joined) <= budget
                found.frames.append((joined[:budget], len(joined) > budget, event_type, last_id, retry, complete))
                retry = None
            data, kind = [], b""
        elif name == b"data":
            data.append(value)
        elif name in (b"event", b"id", b"retry") and len(value) > (MOST_RETRY_DIGITS if name == b"retry" else MOST_FIELD):
            found.errors += 1
        elif name == b"event":
            kind = value
        elif name == b"id" and b"\0" not in value:
            last_id = value.decode("utf-8", "replace")
        elif name == b"retry" and re.fullmatch(rb"[0-9]+", value):
            retry = int(value)
    return found


def frame_lines(stream: bytes, budget: int) -> Framed:
    """Lines that are not blank, as far as that can be told within the budget."""
    found = Framed()
    for line in stream.split(b"\n"):
        seen = line[: budget + LINE_SLACK]
        if seen.strip(b" \t\r"):
            seen = seen.removesuffix(b"\r")
            found.frames.append((seen[:budget], len(seen) > budget, None, None, None, len(seen) <= budget))
    return found


def frame_texts(stream: bytes, budget: int) -> Framed:
    """RFC 7464: what stands between record separators, and a text that is whole at the end of a line ends there."""
    found = Framed()
    for record in stream.split(b"\x1e"):
        text = b""
        for line in re.findall(rb"[^\n]*\n|[^\n]+", record):
            text += line
            if line.endswith(b"\n") and text.strip(JSON_SPACE) and is_closed(text):
                add_text(found, text, budget)
                text = b""
        add_text(found, text, budget)
    return found


def is_closed(text: bytes) -> bool:
    """Tell whether as many brackets are closed as are open, outside of strings, and no string is open."""
    outside = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", text, flags=re.DOTALL)
    return b'"' not in outside and sum(outside.count(bracket) for bracket in (b"{", b"[")) <= sum(
        outside.count(bracket) for bracket in (b"}", b"]")
    )


def add_text(found: Framed, text: bytes, budget: int) -> None:
    """Add a text without the white space around it, if there is more."""
    text = text.lstrip(JSON_SPACE)
    cut = bool(text[budget:].strip(JSON_SPACE))
    text = text[:budget] if cut else text.rstrip(JSON_SPACE)
    if text:
        found.frames.append((text, cut, None, None, None, not cut))


def frame_eventstream(stream: bytes, budget: int) -> Framed:
    """Messages of AWS: prelude, headers, payload, each with its checksum."""
    found = Framed()
    while stream and not found.failed:
        if len(stream) < 12:
            found.errors += 1
            break
        total, headers, checksum = struct.unpack(">III", stream[:12])
        if zlib.crc32(stream[:8]) != checksum or headers > 131072 or headers + 16 > total:
            found.errors += 1
            found.failed = True
        elif len(stream) < total:
            found.errors += 1
            break
        elif zlib.crc32(stream[: total - 4]) != int.from_bytes(stream[total - 4 : total]):
            found.errors += 1
        else:
            payload = stream[12 + headers : total - 4]
            names, whole = names_of(stream[12 : 12 + headers])
            found.errors += not whole
            event_type = next((names[name] for name in (b":event-type", b":exception-type", b":error-code") if name in names), None)
            found.frames.append((payload[:budget], len(payload) > budget, event_type, None, None, len(payload) <= budget))
        stream = stream[total:]
    return found


def names_of(block: bytes) -> tuple[dict[bytes, str], bool]:
    """Return the headers of a message that are strings, and whether all could be read."""
    found: dict[bytes, str] = {}
    while block:
        name, rest = block[1 : 1 + block[0]], block[1 + block[0] :]
        if not rest or rest[0] > 9:
            return found, False
        kind, rest = rest[0], rest[1:]
        size = (0, 0, 1, 2, 4, 8, 2, 2, 8, 16)[kind]
        if len(rest) < size:
            return found, False
        if kind in (6, 7):
            size, rest = int.from_bytes(rest[:2]), rest[2:]
            if len(rest) < size:
                return found, False
        if kind == 7:
            found.setdefault(name, rest[:size].decode("utf-8", "replace"))
        block = rest[size:]
    return found, True


def plain_text(stream: bytes) -> tuple[bytes, bool, bool]:
    """Return what base64 in pieces stands for, whether it has a fault, and whether it ends within a group."""
    whole = re.match(rb"(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)*", stream)
    assert whole is not None
    out = b"".join(base64.b64decode(whole[0][at : at + 4]) for at in range(0, whole.end(), 4))
    rest = stream[whole.end() :]
    return out, bool(rest) and not re.fullmatch(rb"[A-Za-z0-9+/]{1,3}|[A-Za-z0-9+/]{2}=", rest), bool(rest)


def frame_grpc_web(stream: bytes, budget: int, encoding: bytes | None, text: bool) -> Framed:
    """gRPC-Web, in base64 or not."""
    if not text:
        return frame_grpc(stream, budget, encoding, True)
    stream, is_wrong, is_cut = plain_text(stream)
    found = frame_grpc(stream, budget, encoding, True)
    if found.failed or not (is_wrong or is_cut):
        return found
    if not found.at_end:
        # a message is cut, which is counted already
        found.failed = is_wrong
        return found
    found.errors += 1
    found.failed = is_wrong
    return found


def frame_grpc(stream: bytes, budget: int, encoding: bytes | None, web: bool = False) -> Framed:
    """Length-prefixed messages; what is incomplete at the end is one error."""
    found = Framed()
    ended = False
    while stream:
        if ended or stream[0] not in ((0, 1, 0x80, 0x81) if web else (0, 1)):
            found.errors += 1
            found.failed = True
            break
        length = int.from_bytes(stream[1:PREFIX])
        message = stream[PREFIX : PREFIX + min(length, budget)]
        if len(stream) < PREFIX or len(message) < min(length, budget):
            found.errors += 1
            found.at_end = False
            break
        before = len(found.frames)
        add_message(found, message, bool(stream[0] & 1), length > budget, budget, encoding)
        if stream[0] & 0x80 and len(found.frames) > before:
            payload, truncated, *_ = found.frames.pop()
            assert isinstance(payload, bytes)
            ended = True
            if truncated:
                found.errors += 1
            else:
                found.errors += sum(bool(line) and not re.fullmatch(FIELD, line) for line in payload.split(b"\r\n"))
        if len(stream) < PREFIX + length:
            found.errors += 1
            found.at_end = False
        stream = stream[PREFIX + length :]
    return found


def add_message(found: Framed, message: bytes, compressed: bool, truncated: bool, budget: int, encoding: bytes | None) -> None:
    """Add a message, without its coding; what cannot be decoded is an error."""
    if compressed:
        decoder = decoder_for(encoding, budget)
        if decoder is None:
            found.errors += 1
            return
        message = decoder.feed(message)
        if not truncated:
            decoder.finish()
        if decoder.error is not None and not decoder.overflow:
            found.errors += 1
            return
        truncated |= decoder.overflow
    found.frames.append((message, truncated, None, None, None, not truncated))
