"""What happens in one input of the exchange targets, as bytes for the fuzzer and as text for people.

Bytes: a segment of settings, then operations, separated by 0xFF; an operation is its verb, a digit for whom it is about, and its data. A
verb with bit 0x80 set happens within the same turn of the loop as the next one; what an upstream then does is not seen before the turn is
over. Text: a line each, with Python's escapes, ``+`` before the verb for bit 0x80::

    settings 00 07 0f
    client 0 GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n
    upstream 0 HTTP/1.1 204 No Content\\r\\n\\r\\n
    +client_ends 0
    upstream_ends 0
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from support.samples import Block

SEPARATOR = b"\xff"
SAME_TURN = 0x80
VERBS = {
    "client": "c",
    "client_many": "m",
    "client_ends": "e",
    "client_resets": "x",
    "client_stops_reading": "s",
    "client_reads": "r",
    "upstream": "u",
    "upstream_many": "n",
    "upstream_ends": "E",
    "upstream_resets": "X",
    "upstream_stops_reading": "S",
    "upstream_reads": "R",
    "connect": "g",
    "refuse": "f",
    "answer": "h",
    "hook": "d",
    "late": "t",
    "drain": "D",
    "abort": "A",
    "retire": "i",
    "raw": "w",
    "corrupt": "k",
    "notify": "b",
    "client_queues": "q",
    "client_notifies": "y",
    "upstream_notifies": "Y",
}
NAMES = {letter: name for name, letter in VERBS.items()}
LETTERS = "".join(NAMES)
# Bytes of an operation that says much, and messages
MANY = 20_000
MOST_MESSAGES = 8


class Operation(NamedTuple):
    """One thing that happens; `number` says to whom."""

    verb: str
    number: int
    data: bytes
    same_turn: bool


def parse(data: bytes) -> tuple[bytes, list[Operation]]:
    """Return settings and operations. Whatever the fuzzer writes is an operation."""
    settings, *segments = data.split(SEPARATOR)
    return settings, [
        Operation(
            NAMES.get(chr(segment[0] & 0x7F)) or NAMES[LETTERS[segment[0] % len(LETTERS)]],
            segment[1] - 48 if len(segment) > 1 and 48 <= segment[1] < 58 else 0,
            segment[2:],
            bool(segment[0] & SAME_TURN),
        )
        for segment in segments
        if segment
    ]


def to_text(data: bytes) -> str:
    """Write an input for people."""
    settings, operations = parse(data)
    lines = [f"settings {settings.hex(' ')}"]
    for verb, number, payload, same_turn in operations:
        text = payload.decode("latin-1").encode("unicode_escape").decode("ascii")
        lines.append(f"{'+' * same_turn}{verb} {number} {text}".rstrip(" ") + ("\\x20" if text.endswith(" ") else ""))
    return "\n".join(lines)


def from_text(text: str) -> bytes:
    """Read what `to_text` writes, and what a person does."""
    segments = [b""]
    for line in text.splitlines():
        verb, _, rest = line.strip().partition(" ")
        if verb == "settings":
            segments[0] = bytes.fromhex(rest)
            continue
        number, _, payload = rest.partition(" ")
        first = ord(VERBS[verb.removeprefix("+")]) | (SAME_TURN if verb.startswith("+") else 0)
        segments.append(bytes((first, 48 + int(number or 0))) + Block(payload, {}).data)
    return SEPARATOR.join(segments)


if __name__ == "__main__":
    sys.stdout.write(to_text(Path(sys.argv[1]).read_bytes()) + "\n")
