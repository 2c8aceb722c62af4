"""HPACK where an oracle does not tell: the examples of RFC 7541, limits, and every kind of malformed block."""

import hpack.table
import pytest

from soth_mitm._dataplane.http2.hpack_decoder import HpackDecoder
from soth_mitm._dataplane.http2.hpack_encoder import HpackEncoder


def decode(*blocks: str) -> list[tuple[bytes, bytes, bool]]:
    decoder = HpackDecoder()
    for block in blocks:
        fields, is_over = decoder.decode_block(bytes.fromhex(block))
        assert not is_over
    return fields


def test_examples_of_appendix_c() -> None:
    # C.4: three requests with Huffman coding on one connection
    first, second = "828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf"
    third = "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"
    request = [(b":method", b"GET", False), (b":scheme", b"http", False), (b":path", b"/", False)]
    host = (b":authority", b"www.example.com", False)
    assert decode(first) == [*request, host]
    assert decode(first, second) == [*request, host, (b"cache-control", b"no-cache", False)]
    assert decode(first, second, third) == [
        (b":method", b"GET", False),
        (b":scheme", b"https", False),
        (b":path", b"/index.html", False),
        host,
        (b"custom-key", b"custom-value", False),
    ]
    # C.2.3: never indexed
    assert decode("100870617373776f726406736563726574") == [(b"password", b"secret", True)]


def test_every_entry_of_the_static_table_is_found() -> None:
    for index, (name, value) in enumerate(hpack.table.HeaderTable.STATIC_TABLE, start=1):
        if value:
            assert HpackEncoder().encode_block([(name, value, False)]) == bytes([0x80 | index])
        block = HpackEncoder().encode_block([(name, b"of no entry", True)])
        # never indexed; what stands for the name is of 4 bits and, where these are all set, of one octet more
        found = block[0] & 0x0F if block[0] & 0x0F < 15 else 15 + block[1]
        assert hpack.table.HeaderTable.STATIC_TABLE[found - 1][0] == name


def test_table_follows_appendix_c() -> None:
    decoder = HpackDecoder()
    for block, size in (("828684418cf1e3c2e5f23a6ba0ab90f4ff", 57), ("828684be5886a8eb10649cbf", 110)):
        decoder.decode_block(bytes.fromhex(block))
        assert decoder.table_size == size


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ("80", "does not exist"),  # index 0
        ("be", "does not exist"),  # 62 in an empty table
        ("7e", "does not exist"),  # the same as a name
        ("ff808080800a", "integer"),
        ("ffffffffff7f", "integer"),
        ("ff8080808001", "integer"),
        ("000161" + "7f808080808000" + "78" * 127, "integer"),  # a length with more zeros than an integer needs
        ("ff", "ends in the middle"),
        ("40", "ends in the middle"),
        ("4001", "ends in the middle"),
        ("400161", "ends in the middle"),
        ("40016102", "ends in the middle"),
        ("4001617fff", "ends in the middle"),
        ("40016182ffff", "Huffman"),
        ("4081ff0161", "Huffman"),
        ("3fe21f", "table's size"),  # 4097
        ("8220", "table's size"),  # behind a field
    ],
)
def test_malformed_blocks(block: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        decode(block)


def test_blocks_that_are_just_right() -> None:
    assert decode("3fe11f82") == [(b":method", b"GET", False)]  # 4096, the announced size
    assert decode("203f0182") == [(b":method", b"GET", False)]  # two updates
    assert decode("000161" + "7f8080808000" + "78" * 127) == [(b"a", b"x" * 127, False)]  # zeros in a length, as many as may be
    assert decode("") == []


@pytest.mark.parametrize("cut", range(1, 17))
def test_a_block_that_is_cut_is_refused_or_shorter(cut: int) -> None:
    block = bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")
    whole = decode(block.hex())
    try:
        assert decode(block[:cut].hex()) == whole[: min(cut, 3)]
        assert cut <= 3
    except ValueError:
        assert cut > 3


@pytest.mark.parametrize(("limit", "count"), [(41, 0), (42, 1), (83, 1), (84, 2), (85, 2)])
def test_limit_of_the_list_is_exact(limit: int, count: int) -> None:
    # `:method: GET` counts 7 + 3 + 32
    fields, is_over = HpackDecoder().decode_block(bytes.fromhex("8282"), limit)
    assert (len(fields), is_over) == (count, limit < 84)


def test_a_bomb_is_counted_before_it_is_written() -> None:
    decoder = HpackDecoder()
    decoder.decode_block(HpackEncoder().encode_block([(b"x", b"y" * 3000, False)]))
    fields, is_over = decoder.decode_block(b"\xbe" * 1_000_000, 65536)
    assert is_over
    assert len(fields) == 65536 // 3033


def test_a_list_over_its_limit_still_moves_the_table() -> None:
    encoder, decoder = HpackEncoder(), HpackDecoder()
    assert decoder.decode_block(encoder.encode_block([(b"a", b"1" * 100, False), (b"b", b"2" * 100, False)]), 140)[1]
    fields, is_over = decoder.decode_block(encoder.encode_block([(b"a", b"1" * 100, False), (b"b", b"2" * 100, False)]))
    assert fields == [(b"a", b"1" * 100, False), (b"b", b"2" * 100, False)]
    assert not is_over


def test_a_smaller_table_is_announced_first_and_once() -> None:
    encoder = HpackEncoder()
    encoder.allow_table(100)
    encoder.allow_table(0)
    encoder.allow_table(200)
    assert encoder.encode_block([(b":method", b"GET", False)]) == bytes.fromhex("203fa90182")
    assert encoder.encode_block([(b":method", b"GET", False)]) == bytes.fromhex("82")
    encoder.allow_table(200)
    assert encoder.encode_block([(b":method", b"GET", False)]) == bytes.fromhex("82")
    encoder.allow_table(2**31)
    assert encoder.encode_block([(b":method", b"GET", False)]) == bytes.fromhex("3fe11f82")


def test_credentials_are_never_indexed() -> None:
    encoder = HpackEncoder()
    secret = [(b"authorization", b"Bearer 1", False), (b"proxy-authorization", b"Basic 2", False), (b"cookie", b"short=1", False)]
    for _ in range(2):
        assert decode(encoder.encode_block(secret).hex()) == [(name, value, True) for name, value, _ in secret]
    assert encoder.table_size == 0
