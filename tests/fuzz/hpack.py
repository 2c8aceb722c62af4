"""HPACK against the `hpack` library over whole connections: the same fields or both refuse, and the same tables.

Input: segments, each a byte that says what it is, a byte for a number, a byte for its length, and its data:

- a block as it is (`RAW`), or one that the library makes of field lines, with Huffman coding (`CODED`) or without (`PLAIN`);
- field lines that our encoder is given (`ENCODE`), which both decoders must read back;
- what the peer allows our encoder's table to take (`ALLOW`), and another size that the library's encoder announces (`RESIZE`).
"""

from __future__ import annotations

from collections.abc import Iterator

import hpack
from hpack.exceptions import HPACKError

from soth_mitm._dataplane.http2.hpack_decoder import HpackDecoder
from soth_mitm._dataplane.http2.hpack_encoder import HpackEncoder

RAW, CODED, PLAIN, ENCODE, ALLOW, RESIZE = range(6)
MOST_SEGMENTS = 24
# Of a field list, in octets: what is beyond is not kept, and all the same moves the table
LIMITS = (65536, 100, 1000, 1 << 28)
SIZES = (4096, 0, 31, 64, 300, 1000)
# RFC 7541 section 7.1; nghttp2's rule for cookies
HIDDEN = (b"authorization", b"proxy-authorization")
SHORT_COOKIE = 20
ENTRY_OVERHEAD = 32

Field = tuple[bytes, bytes, bool]
WORDS = (
    b"\x82\x86\x84",
    b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    b"\x40\x01a\x01b",
    b"\x10\x01a\x01b",
    b"\xbe\xbf\xc0",
    b"\x3f\xe1\x1f",
    b"\x3f\xe2\x1f",
    b"\xff\x80\x80\x80\x80\x00",
    b"\x7f\xff\xff\xff\x7f",
    b"cookie:a=1\n",
    b"authorization:x\n",
    b":path:/\n",
)


class Connection:
    """Both directions of one connection: our encoder and decoder, and the library's."""

    def __init__(self) -> None:
        self.encoder, self.decoder = HpackEncoder(), HpackDecoder()
        self.their_encoder = hpack.Encoder()
        self.their_decoder = library_decoder()
        # what our encoder writes is read by both
        self.readers = HpackDecoder(), library_decoder()

    def act(self, kind: int, number: int, data: bytes) -> bool:
        """Let one segment happen; False when both have refused a block, behind which nothing can be read."""
        if kind == RAW:
            return self.decode(data, LIMITS[number % len(LIMITS)])
        if kind in (CODED, PLAIN):
            return self.decode(self.their_encoder.encode(fields_of(data), huffman=kind == CODED), LIMITS[number % len(LIMITS)])
        if kind == ENCODE:
            self.encode(fields_of(data))
        elif kind == ALLOW:
            self.encoder.allow_table(SIZES[number % len(SIZES)])
        elif kind == RESIZE:
            self.their_encoder.header_table_size = SIZES[number % len(SIZES)]
        return True

    def decode(self, block: bytes, limit: int) -> bool:
        try:
            expected = [field_of(field) for field in self.their_decoder.decode(block, raw=True)]
        except HPACKError:
            expected = None
        try:
            found, is_over = self.decoder.decode_block(block, limit)
        except ValueError as error:
            # the library takes integers that no legal block needs
            assert expected is None or "integer" in str(error), f"only we refuse {block!r}: {error}"
            return False
        assert expected is not None, f"only the library refuses {block!r}"
        kept = within(expected, limit)
        assert found == kept and is_over == (len(kept) < len(expected)), f"{block!r} is {found!r} to us and {expected!r} to the library"
        assert self.decoder.table_size == table_size(self.their_decoder)
        return True

    def encode(self, fields: list[Field]) -> None:
        block = self.encoder.encode_block(fields)
        expected = [(name, value, is_sensitive or is_hidden(name, value)) for name, value, is_sensitive in fields]
        ours, theirs = self.readers
        assert ours.decode_block(block, 1 << 28) == (expected, False)
        assert [field_of(field) for field in theirs.decode(block, raw=True)] == expected
        assert self.encoder.table_size == ours.table_size == table_size(theirs)


def library_decoder() -> hpack.Decoder:
    decoder = hpack.Decoder(max_header_list_size=1 << 30)
    decoder.max_allowed_table_size = SIZES[0]
    return decoder


def table_size(decoder: hpack.Decoder) -> int:
    return int(decoder.header_table._current_size)


def field_of(field: object) -> Field:
    name, value = field  # type: ignore[misc]
    return bytes(name), bytes(value), isinstance(field, hpack.NeverIndexedHeaderTuple)


def is_hidden(name: bytes, value: bytes) -> bool:
    return name in HIDDEN or (name == b"cookie" and len(value) < SHORT_COOKIE)


def within(fields: list[Field], limit: int) -> list[Field]:
    """Return the fields up to the first one that is over the limit."""
    total = 0
    for at, (name, value, _) in enumerate(fields):
        total += len(name) + len(value) + ENTRY_OVERHEAD
        if total > limit:
            return fields[:at]
    return fields


def fields_of(data: bytes) -> list[Field]:
    """Read ``name:value`` lines; `!` before a name has it never indexed, `*` behind the value repeats it to more than a table holds."""
    fields = []
    for line in data.split(b"\n"):
        begin = 1 if line.startswith(b":") else 0
        at = line.find(b":", begin)
        name, value = (line, b"") if at < 0 else (line[:at], line[at + 1 :])
        if value.endswith(b"*"):
            value *= 1 + 4096 // len(value)
        fields.append((name.removeprefix(b"!"), value, name.startswith(b"!")))
    return fields


def segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Read the segments; whatever the fuzzer writes is one."""
    at = 0
    for _ in range(MOST_SEGMENTS):
        if at + 3 > len(data):
            return
        kind, number, length = data[at : at + 3]
        yield kind % 6, number, data[at + 3 : at + 3 + length]
        at += 3 + length


def run(data: bytes) -> None:
    """Test one input."""
    connection = Connection()
    for segment in segments(data):
        if not connection.act(*segment):
            return


def segment(kind: int, data: bytes = b"", number: int = 0) -> bytes:
    return bytes((kind, number, len(data))) + data


def seeds() -> Iterator[bytes]:
    """Requests and responses both ways, tables that grow, shrink and are refused, and what is malformed in one place."""
    request = b":method:GET\n:scheme:https\n:authority:a.example\n:path:/\nuser-agent:x\ncookie:a=1\n!x-key:secret"
    response = b":status:200\ncontent-type:text/html\ndate:Sat, 28 Nov 2026 10:00:00 GMT\nset-cookie:id=1"
    for lines in (request, response):
        yield b"".join(segment(kind, lines) for kind in (CODED, PLAIN, ENCODE, CODED, PLAIN, ENCODE))
    for number in range(len(SIZES)):
        sizes = segment(RESIZE, number=number) + segment(ALLOW, number=number)
        yield segment(CODED, request) + segment(ENCODE, request) + sizes + segment(CODED, request) + segment(ENCODE, request)
    for number in range(len(LIMITS)):
        yield segment(CODED, b"x:" + b"y" * 200) + segment(RAW, b"\xbe" * 200, number) + segment(CODED, response, number)
    yield segment(ENCODE, b"x:y*\na:b") + segment(CODED, b"x:y*\na:b") + segment(RAW, b"\xbe")
    # RFC 7541 appendix C.4
    for block in ("828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf", "100870617373776f726406736563726574"):
        yield segment(RAW, bytes.fromhex(block))
    for block in ("80", "be", "ff808080800a", "ff808080808000", "40016182ffff", "3fe21f", "8220", "203f01", "ff", "4001617fff"):
        yield segment(RAW, bytes.fromhex("82")) + segment(RAW, bytes.fromhex(block))
