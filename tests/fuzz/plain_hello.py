"""A ClientHello read as plainly as can be, with its JA3 and JA4: what the data plane must agree with, and shares nothing with.

RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3, RFC 7301 section 3.1; JA3 and JA4 by their authors' descriptions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

LONGEST_RECORD, LONGEST_HELLO = 16384, 65536
NAME_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:")
SERVER_NAME, GROUPS, FORMATS, SIGNATURES, ALPN, VERSIONS, ECH = 0, 10, 11, 13, 16, 43, 0xFE0D
JA4_VERSIONS = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}


class Refused(Exception):
    """These bytes begin no ClientHello."""


def insist(good: bool, why: str) -> None:
    """Refuse unless it is good."""
    if not good:
        raise Refused(why)


class Reader:
    """Reads numbers and vectors; what is not there is refused."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        insist(count <= len(self.data), "past the end")
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int, least: int = 0) -> bytes:
        taken = self.take(self.number(size))
        insist(len(taken) >= least, "a vector that is too short")
        return taken

    def numbers(self, size: int) -> list[int]:
        return numbers_in(self.vector(size, 2))

    def end(self) -> None:
        insist(not self.data, "bytes too many")


def numbers_in(data: bytes) -> list[int]:
    """Return numbers of two bytes."""
    insist(len(data) % 2 == 0, "half a number")
    return [int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2)]


@dataclass
class PlainHello:
    """What a client offers, as lists of numbers."""

    raw_length: int = 0
    version: int = 0
    session_id: bytes = b""
    suites: list[int] = field(default_factory=list)
    extensions: list[int] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    formats: list[int] = field(default_factory=list)
    signatures: list[int] = field(default_factory=list)
    protocols: list[bytes] = field(default_factory=list)
    name: bytes = b""


def read_hello(data: bytes) -> PlainHello | None:
    """Read the hello at the start of `data`; None when more has to come."""
    message, raw_length = join_records(data)
    if message is None:
        return None
    hello = PlainHello(raw_length)
    body = Reader(message)
    hello.version = body.number(2)
    body.take(32)
    hello.session_id = body.vector(1)
    insist(len(hello.session_id) <= 32, "a long session id")
    hello.suites = body.numbers(2)
    body.vector(1, 1)
    extensions = Reader(body.vector(2) if body.data else b"")
    body.end()
    while extensions.data:
        code = extensions.number(2)
        insist(code not in hello.extensions, "an extension twice")
        hello.extensions.append(code)
        read_extension(hello, code, Reader(extensions.vector(2)))
    return hello


def first_word_ends_in_a_blank(data: bytes) -> bool:
    """Tell whether some server might take this for a request: a word, a blank and whatever follows, behind any white space."""
    begun = data.lstrip(b" \t\n\v\f\r")
    word = begun.split(b" ")[0].split(b"\t")[0]
    return 0 < len(word) < len(begun) and not any(byte <= 0x20 or byte == 0x7F for byte in word)


def join_records(data: bytes) -> tuple[bytes | None, int]:
    """Return the message without its header, None when it is not whole, and where its last record ends."""
    message, at = b"", 0
    while at + 5 <= LONGEST_HELLO:
        insist(data[at : at + 1] in (b"", b"\x16") and data[at + 1 : at + 2] in (b"", b"\x03"), "no handshake record of TLS")
        if len(data) < at + 5:
            return None, 0
        length = int.from_bytes(data[at + 3 : at + 5])
        insist(0 < length <= LONGEST_RECORD, "an empty record, or one that is too long")
        insist(at + 5 + length <= LONGEST_HELLO, "too many bytes of records")
        piece = data[at + 5 : at + 5 + length]
        message += piece
        insist(message[:1] in (b"", b"\x01"), "another message")
        total = 4 + int.from_bytes(message[1:4])
        insist(len(message) < 4 or total <= LONGEST_HELLO - 5, "a message that is too long")
        if len(piece) < length:
            return None, 0
        at += 5 + length
        if len(message) >= max(4, total):
            return message[4:total], at
    raise Refused("too many bytes of records")


def read_extension(hello: PlainHello, code: int, content: Reader) -> None:
    """Read one extension, if it is one that anybody looks into."""
    if code == SERVER_NAME:
        names = Reader(content.vector(2, 1))
        insist(names.number(1) == 0, "a name that is no host name")
        hello.name = names.vector(2, 1)
        names.end()
        insist(len(hello.name) <= 255 and NAME_BYTES.issuperset(hello.name), "no name of a host")
    elif code == ALPN:
        protocols = Reader(content.vector(2, 2))
        while protocols.data:
            hello.protocols.append(protocols.vector(1, 1))
    elif code == VERSIONS:
        hello.versions = content.numbers(1)
    elif code == GROUPS:
        hello.groups = content.numbers(2)
    elif code == SIGNATURES:
        hello.signatures = content.numbers(2)
    elif code == FORMATS:
        hello.formats = list(content.vector(1, 1))
    else:
        return
    content.end()


def no_grease(numbers: list[int]) -> list[int]:
    """Return what is not reserved by RFC 8701."""
    return [number for number in numbers if number not in {0x0A0A + 0x1010 * step for step in range(16)}]


def ja3_of(hello: PlainHello) -> str:
    """Return the JA3 text."""
    lists = [no_grease(hello.suites), no_grease(hello.extensions), no_grease(hello.groups), hello.formats]
    return ",".join([str(hello.version), *("-".join(map(str, numbers)) for numbers in lists)])


def ja4_of(hello: PlainHello) -> str:
    """Return the JA4 fingerprint, of a client over TCP."""
    suites, extensions = no_grease(hello.suites), no_grease(hello.extensions)
    version = JA4_VERSIONS.get(max(no_grease(hello.versions), default=hello.version), "00")
    ends = "00"
    if hello.protocols:
        first = hello.protocols[0]
        ends = chr(first[0]) + chr(first[-1])
        if not (ends.isascii() and ends.isalnum()):
            ends = first.hex()[0] + first.hex()[-1]
    hashed = hexadecimal(sorted(code for code in extensions if code not in (SERVER_NAME, ALPN)))
    signatures = hexadecimal(no_grease(hello.signatures))
    if hashed and signatures:
        hashed += "_" + signatures
    named = "d" if SERVER_NAME in extensions else "i"
    counts = f"{min(len(suites), 99):02}{min(len(extensions), 99):02}"
    return f"t{version}{named}{counts}{ends}_{digest(hexadecimal(sorted(suites)))}_{digest(hashed)}"


def hexadecimal(numbers: list[int]) -> str:
    """Return numbers as JA4 writes them."""
    return ",".join(f"{number:04x}" for number in numbers)


def digest(text: str) -> str:
    """Return what JA4 makes of a list."""
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12
