"""Streams cut into frames as plainly as can be, over bytes that are all there: what the framers must agree with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from soth_mitm._dataplane.decode import decoder_for

MOST_FIELD, MOST_RETRY_DIGITS, LINE_SLACK, PREFIX = 16384, 15, 2, 5
LINE_END = re.compile(rb"\r\n|\r|\n")
DEFAULT_TYPE = "message"


@dataclass
class Framed:
    """Frames as (payload, truncated, event type, event id, retry), how many things were wrong, and whether that ended the framing."""

    frames: list[tuple[object, ...]] = field(default_factory=list)
    errors: int = 0
    failed: bool = False


def frame_sse(stream: bytes, budget: int) -> Framed:
    """WHATWG HTML section 9.2.6; a field that is too long is an error and has no effect."""
    found = Framed()
    data: list[bytes] = []
    kind, last_id, retry = b"", None, None
    *lines, _ = LINE_END.split(stream)
    for number, line in enumerate(lines):
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                joined = b"\n".join(data)
                event_type = kind.decode("utf-8", "replace") or DEFAULT_TYPE
                found.frames.append((joined[:budget], len(joined) > budget, event_type, last_id, retry))
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
            found.frames.append((seen[:budget], len(seen) > budget, None, None, None))
    return found


def frame_grpc(stream: bytes, budget: int, encoding: bytes | None) -> Framed:
    """Length-prefixed messages; what is incomplete at the end is one error."""
    found = Framed()
    while stream:
        if stream[0] > 1:
            found.errors += 1
            found.failed = True
            break
        length = int.from_bytes(stream[1:PREFIX])
        message = stream[PREFIX : PREFIX + min(length, budget)]
        if len(stream) < PREFIX or len(message) < min(length, budget):
            found.errors += 1
            break
        add_message(found, message, bool(stream[0]), length > budget, budget, encoding)
        if len(stream) < PREFIX + length:
            found.errors += 1
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
    found.frames.append((message, truncated, None, None, None))
