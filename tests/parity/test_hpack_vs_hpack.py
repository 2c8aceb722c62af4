"""HPACK against the `hpack` library, both ways, over whole connections: the same fields, the same tables, and the same blocks refused."""

import random

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm._dataplane.http2.hpack_decoder import HpackDecoder
from soth_mitm._dataplane.http2.hpack_encoder import HpackEncoder

Field = tuple[bytes, bytes, bool]

COMMON = [
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"api.example.com"),
    (b":path", b"/v1/messages"),
    (b":status", b"200"),
    (b":status", b"431"),
    (b"content-type", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"authorization", b"Bearer sk-0123456789"),
    (b"cookie", b"a=1"),
    (b"cookie", b"session=" + b"0123456789abcdef" * 3),
    (b"set-cookie", b"id=1; Path=/"),
    (b"date", b"Sat, 28 Nov 2026 10:00:00 GMT"),
    (b"content-length", b"1024"),
    (b"user-agent", b"curl/8.5.0"),
]
names = st.sampled_from(sorted({name for name, _ in COMMON})) | st.from_regex(rb"[a-z0-9-]{1,40}", fullmatch=True)
# every byte, some values longer than the table
values = st.binary(max_size=60) | st.integers(0, 9).map(lambda n: b"v%d" % n) | st.just(b"x" * 5000) | st.just(b"")
fields = st.tuples(names, values, st.booleans()) | st.tuples(st.sampled_from(COMMON), st.booleans()).map(lambda pair: (*pair[0], pair[1]))
blocks = st.lists(fields, max_size=12)
sizes = st.none() | st.sampled_from([0, 31, 64, 300, 4096])


def oracle_decoder() -> hpack.Decoder:
    decoder = hpack.Decoder(max_header_list_size=2**30)
    decoder.max_allowed_table_size = 4096
    return decoder


@given(st.lists(st.tuples(sizes, sizes, blocks), min_size=1, max_size=8))
def test_what_we_encode_is_what_it_decodes(connection: list[tuple[int | None, int | None, list[Field]]]) -> None:
    ours, theirs = HpackEncoder(), oracle_decoder()
    for first, second, block in connection:
        for size in (first, second):
            if size is not None:
                ours.allow_table(size)
        decoded = theirs.decode(ours.encode_block(block), raw=True)
        assert [tuple(field) for field in decoded] == [(name, value) for name, value, _ in block]
        assert ours.table_size == theirs.header_table._current_size
        for field, (name, value, sensitive) in zip(decoded, block, strict=True):
            must_hide = sensitive or name in (b"authorization", b"proxy-authorization") or (name == b"cookie" and len(value) < 20)
            assert isinstance(field, hpack.NeverIndexedHeaderTuple) == must_hide


@given(st.lists(st.tuples(sizes, blocks, st.booleans()), min_size=1, max_size=8))
def test_what_it_encodes_is_what_we_decode(connection: list[tuple[int | None, list[Field], bool]]) -> None:
    ours, theirs = HpackDecoder(), hpack.Encoder()
    for size, block, huffman in connection:
        if size is not None:
            theirs.header_table_size = size
        made = theirs.encode(block, huffman=huffman)
        decoded, is_over = ours.decode_block(made, 2**30)
        # the library writes a sensitive field that a table holds as an index
        assert [(name, value) for name, value, _ in decoded] == [(name, value) for name, value, _ in block]
        assert not is_over
        assert ours.table_size == theirs.header_table._current_size


@given(st.lists(blocks, min_size=1, max_size=6))
def test_what_we_encode_is_what_we_decode(connection: list[list[Field]]) -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    for block in connection:
        decoded, _ = decoder.decode_block(encoder.encode_block(block), 2**30)
        assert [(name, value) for name, value, _ in decoded] == [(name, value) for name, value, _ in block]
        assert encoder.table_size == decoder.table_size


@settings(max_examples=300)
@given(st.lists(blocks, min_size=1, max_size=4), st.integers(0), st.integers(0, 3))
def test_damaged_blocks_get_the_same_verdict(connection: list[list[Field]], seed: int, damages: int) -> None:
    rng = random.Random(seed)
    encoder, ours, theirs = hpack.Encoder(), HpackDecoder(), oracle_decoder()
    for block in connection:
        made = bytearray(encoder.encode(block))
        for _ in range(damages if made else 0):
            at = rng.randrange(len(made))
            match rng.randrange(3):
                case 0:
                    made[at] = rng.randrange(256)
                case 1:
                    del made[at:]
                    break
                case _:
                    made.insert(at, rng.randrange(256))
        try:
            expected = [tuple(field) for field in theirs.decode(bytes(made), raw=True)]
        except (hpack.HPACKError, UnicodeDecodeError):
            expected = None
        if expected is None:
            with pytest.raises(ValueError, match="header block"):
                ours.decode_block(bytes(made), 2**30)
            return
        try:
            decoded, _ = ours.decode_block(bytes(made), 2**30)
        except ValueError as error:
            # what the library lets pass: integers over 2^28, and updates of the table's size in the middle of a block
            assert "integer" in str(error) or "table's size" in str(error)
            return
        assert [(name, value) for name, value, _ in decoded] == expected
