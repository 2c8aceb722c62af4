"""Content codings: every spelling, every split, every cut, and bombs."""

from __future__ import annotations

import gzip
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soth_mitm._dataplane.wire.decode import Decoder, decode_body, decoder_for, refuses_identity
from support.feeding import cut_at

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Encode = Callable[[bytes], bytes]

TEXT = b"The quick brown fox jumps over the lazy dog. " * 40
LIMIT = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


ENCODERS: dict[bytes, Encode] = {
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"Deflate": raw_deflate,
    b"br": brotli.compress,
    b"zstd": zstd.compress,
}
each_coding = pytest.mark.parametrize(("coding", "encode"), list(ENCODERS.items()), ids=[coding.decode() for coding in ENCODERS])


def decoder(coding: bytes, limit: int = LIMIT, per_feed: bool = False) -> Decoder:
    made = decoder_for(coding, limit, per_feed)
    assert made is not None
    return made


def decoded(coding: bytes, pieces: list[bytes], limit: int = LIMIT) -> tuple[bytes, str | None]:
    made = decoder(coding, limit)
    content = b"".join([made.feed(piece) for piece in pieces]) + made.finish()
    assert made.produced == len(content)
    return content, made.error


@each_coding
def test_each_coding_whole_byte_by_byte_and_cut_anywhere(coding: bytes, encode: Encode) -> None:
    packed = encode(TEXT)
    assert decode_body(coding, packed, LIMIT) == (TEXT, None)
    assert decoded(coding, [packed[at : at + 1] for at in range(len(packed))]) == (TEXT, None)
    for at in range(len(packed)):
        assert decoded(coding, [packed[:at], packed[at:]]) == (TEXT, None)


@each_coding
def test_an_empty_content_has_an_encoding_too(coding: bytes, encode: Encode) -> None:
    assert decode_body(coding, encode(b""), LIMIT) == (b"", None)


@each_coding
def test_a_cut_body_is_an_error_unless_it_is_known_to_be_cut(coding: bytes, encode: Encode) -> None:
    packed = encode(TEXT)
    for end in (1, len(packed) // 2, len(packed) - 1):
        cut = packed[:end]
        name = coding.decode().lower()
        assert decode_body(coding, cut, LIMIT) == (cut, f"{name}: the stream is cut")
        content, error = decode_body(coding, cut, LIMIT, True)
        assert error is None and TEXT.startswith(content)


@each_coding
def test_the_limit_is_exact(coding: bytes, encode: Encode) -> None:
    packed = encode(TEXT)
    assert decode_body(coding, packed, len(TEXT)) == (TEXT, None)
    assert decode_body(coding, packed, len(TEXT) - 1) == (packed, f"the decoded body is longer than {len(TEXT) - 1} bytes")
    assert decode_body(coding, packed, 0)[1] == "the decoded body is longer than 0 bytes"


@each_coding
def test_beyond_the_limit_what_fits_has_been_given_out_and_nothing_follows(coding: bytes, encode: Encode) -> None:
    made = decoder(coding, 100)
    assert made.feed(encode(TEXT)) == TEXT[:100]
    assert made.overflow and made.error is not None
    assert made.feed(encode(TEXT)) == b"" and made.finish() == b""


@each_coding
def test_garbage_is_an_error_that_names_the_coding(coding: bytes, encode: Encode) -> None:
    garbage = b"\xff\xfe not compressed at all"
    body, error = decode_body(coding, garbage, LIMIT)
    assert body == garbage
    assert error is not None and error.startswith(coding.decode().lower() + ": ")


@each_coding
def test_what_a_coding_could_not_take_at_once_is_not_lost(coding: bytes, encode: Encode) -> None:
    """An outer coding that gives out far more than one step may, out of few bytes and of many."""
    content = b"".join(b"%d " % number for number in range(150_000))
    # stored, so that it is the outer coding that makes it small
    stored = gzip.compress(content, compresslevel=0)
    packed = encode(stored)
    assert decode_body(b"gzip, " + coding, packed, LIMIT) == (content, None)
    assert decoded(b"gzip, " + coding, [packed[at : at + 5000] for at in range(0, len(packed), 5000)]) == (content, None)
    zeros = encode(gzip.compress(bytes(LIMIT), compresslevel=0))
    assert decode_body(b"gzip, " + coding, zeros, LIMIT) == (bytes(LIMIT), None)


@pytest.mark.parametrize("value", [None, b"", b" ", b"identity", b"Identity, ,identity"])
def test_no_coding_needs_no_decoder(value: bytes | None) -> None:
    assert decoder_for(value, LIMIT) is None
    assert decode_body(value, b"as it is", 1) == (b"as it is", None)


def test_an_unknown_coding_is_named() -> None:
    assert decode_body(b"compress", b"x", LIMIT) == (b"x", "the content coding 'compress' is not known")
    assert decode_body(b"gzip, \xe9" + b"x" * 100, b"y", LIMIT)[1] == "the content coding 'é" + "x" * 39 + "' is not known"
    made = decoder(b"compress")
    assert made.feed(b"x") == b"" and made.error is not None


def test_a_body_of_no_bytes_is_no_error_whatever_its_coding() -> None:
    assert decode_body(b"gzip", b"", LIMIT) == (b"", None)
    assert decode_body(b"gzip, br", b"", LIMIT) == (b"", None)
    assert decoded(b"gzip", []) == (b"", None)
    assert decoded(b"gzip, br", [brotli.compress(b"")]) == (b"", None)


def test_gzip_members_padding_and_what_follows() -> None:
    one, two = gzip.compress(b"one "), gzip.compress(b"two")
    for tail in (b"", b"\0" * 7, b"\x1f", b"\0\0trailing", b"\x1f\x8a" + one):
        stream = one + b"\0\0" + two + tail
        for at in range(len(stream) + 1):
            assert decoded(b"gzip", [stream[:at], stream[at:]]) == (b"one two", None), (tail, at)
    assert decode_body(b"gzip", one + two[:-1], LIMIT)[1] == "gzip: the stream is cut"


def test_zstd_frames_follow_one_another() -> None:
    stream = zstd.compress(b"one ") + zstd.compress(b"two")
    for at in range(len(stream) + 1):
        assert decoded(b"zstd", [stream[:at], stream[at:]]) == (b"one two", None)


def test_zstd_may_not_ask_for_a_window_that_http_forbids() -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 24}
    packer = zstd.ZstdCompressor(options=options)
    packed = packer.compress(b"x" * 100) + packer.flush()
    _, error = decode_body(b"zstd", packed, LIMIT)
    assert error is not None and error.startswith("zstd: ")


def test_brotli_ends_where_it_ends() -> None:
    packed = brotli.compress(TEXT)
    for pieces in ([packed + b"more"], [packed, b"more"]):
        assert "br: " in (decoded(b"br", pieces)[1] or "")


def test_stacked_codings_are_removed_in_reverse() -> None:
    packed = zstd.compress(brotli.compress(gzip.compress(TEXT)))
    for pieces in ([packed], [packed[at : at + 1] for at in range(len(packed))]):
        assert decoded(b"gzip, BR ,identity, zstd", pieces) == (TEXT, None)
    assert decode_body(b"zstd, br", brotli.compress(zstd.compress(TEXT)[:-2]), LIMIT)[1] == "zstd: the stream is cut"


def test_eight_codings_are_decoded_and_nine_are_not() -> None:
    packed = TEXT
    for _ in range(8):
        packed = zlib.compress(packed)
    assert decode_body(b",".join([b"deflate"] * 8), packed, LIMIT) == (TEXT, None)
    _, error = decode_body(b",".join([b"deflate"] * 9), packed, LIMIT)
    assert error == "9 content codings are stacked, and no more than 8 are decoded"


@given(
    st.binary(max_size=3000),
    st.lists(st.integers(0, 5000), max_size=6),
    st.lists(st.sampled_from(sorted(ENCODERS)), min_size=1, max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_any_content_any_stack_any_split(content: bytes, places: list[int], codings: list[bytes]) -> None:
    packed = content
    for coding in codings:
        packed = ENCODERS[coding](packed)
    assert decoded(b", ".join(codings), cut_at(packed, places)) == (content, None)


@given(st.sampled_from(sorted(ENCODERS)), st.binary(max_size=200), st.integers(0, 200))
@settings(max_examples=200, deadline=None)
def test_damage_never_raises(coding: bytes, noise: bytes, place: int) -> None:
    packed = ENCODERS[coding](TEXT)
    damaged = packed[:place] + noise + packed[place + len(noise) :]
    content, error = decode_body(coding, damaged, LIMIT)
    assert content == damaged if error else len(content) <= LIMIT


def zeros(encode_step: Callable[[bytes], bytes], flush: Callable[[], bytes], mebibytes: int) -> bytes:
    return b"".join([encode_step(bytes(1 << 20)) for _ in range(mebibytes)]) + flush()


def bombs() -> dict[bytes, bytes]:
    """Some KiB each that stand for 256 MiB of zeros."""
    gzip_packer, brotli_packer, zstd_packer = zlib.compressobj(9, wbits=31), brotli.Compressor(quality=5), zstd.ZstdCompressor()
    return {
        b"gzip": zeros(gzip_packer.compress, gzip_packer.flush, 256),
        b"br": zeros(brotli_packer.process, brotli_packer.finish, 256),
        b"zstd": zeros(zstd_packer.compress, zstd_packer.flush, 256),
    }


@pytest.fixture(scope="module")
def bomb_of() -> dict[bytes, bytes]:
    made = bombs()
    # twice packed, a bomb whose middle is the long part as well
    made[b"gzip, gzip"] = gzip.compress(made[b"gzip"])
    made[b"br, br"] = brotli.compress(made[b"br"])
    return made


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"zstd", b"gzip, gzip", b"br, br"], ids=bytes.decode)
def test_a_bomb_ends_in_an_error_and_not_in_memory(coding: bytes, bomb_of: dict[bytes, bytes]) -> None:
    limit = 4 << 20
    tracemalloc.start()
    try:
        body, error = decode_body(coding, bomb_of[coding], limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert body is bomb_of[coding] and error == f"the decoded body is longer than {limit} bytes"
    assert peak < 5 * limit


def test_a_bomb_in_the_middle_of_a_stack_is_bounded_though_nothing_comes_out() -> None:
    # 1 MiB of empty gzip members, many times over, whose content is nothing
    packed = gzip.compress(gzip.compress(b"") * 500_000)
    _, error = decode_body(b"gzip, gzip", packed, 1 << 20)
    assert error in ("the body with gzip removed is longer than 1048576 bytes", "gzip: more than 10000 members in one body")


@pytest.mark.parametrize(("coding", "encode"), [(b"gzip", gzip.compress), (b"zstd", zstd.compress)])
def test_members_without_content_are_counted(coding: bytes, encode: Encode) -> None:
    member = encode(b"")
    assert decode_body(coding, member * 10_000, LIMIT) == (b"", None)
    _, error = decode_body(coding, member * 10_001, LIMIT)
    assert error == f"{coding.decode()}: more than 10000 members in one body"


def test_a_stream_may_be_longer_than_what_one_feed_may_give() -> None:
    packer = zlib.compressobj(wbits=31)
    made = decoder(b"gzip", 1000, per_feed=True)
    for _ in range(20):
        assert made.feed(packer.compress(b"x" * 900) + packer.flush(zlib.Z_SYNC_FLUSH)) == b"x" * 900
    assert made.produced == 18_000 and made.error is None
    assert len(made.feed(packer.compress(b"x" * 1001) + packer.flush(zlib.Z_SYNC_FLUSH))) == 1000
    assert made.overflow


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"zstd"], ids=bytes.decode)
def test_every_flush_of_the_sender_is_given_out_at_once(coding: bytes) -> None:
    gzip_packer, brotli_packer, zstd_packer = zlib.compressobj(wbits=31), brotli.Compressor(), zstd.ZstdCompressor()
    flushed: dict[bytes, Encode] = {
        b"gzip": lambda data: gzip_packer.compress(data) + gzip_packer.flush(zlib.Z_SYNC_FLUSH),
        b"br": lambda data: bytes(brotli_packer.process(data) + brotli_packer.flush()),
        b"zstd": lambda data: zstd_packer.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK),
    }
    made = decoder(coding)
    for number in range(50):
        event = b"data: %d\n\n" % number
        assert made.feed(flushed[coding](event)) == event


def test_the_largest_limit_is_accepted() -> None:
    for coding, encode in ENCODERS.items():
        assert decode_body(coding, encode(TEXT), sys.maxsize) == (TEXT, None)


def stored_twice() -> bytes:
    """Return a zlib stream that is, without the wrapper, a stored block of 94 bytes and an empty last one."""
    shown = 0xFFFF - 94
    content = (b"x" * 92 + b"\1\0\0\xff\xff").ljust(shown)
    prefix = bytes((0x78, 94, 0, 94 ^ 0xFF, 0xFF)) + (shown ^ 0xFFFF).to_bytes(2, "little")
    return prefix + content + b"\1\0\0\xff\xff" + zlib.adler32(content).to_bytes(4)


def exactly(coding: bytes, pieces: list[bytes]) -> tuple[bytes, str | None]:
    made = decoder_for(coding, LIMIT, exact=True)
    assert made is not None
    content = b"".join([made.feed(piece) for piece in pieces])
    made.finish()
    return content, made.error


@each_coding
def test_an_exact_decoder_takes_one_whole_stream(coding: bytes, encode: Encode) -> None:
    for content in (b"", b"x", TEXT):
        packed = encode(content)
        assert decode_body(coding, packed, LIMIT, exact=True) == (content, None)
        assert exactly(coding, [packed[at : at + 1] for at in range(len(packed))]) == (content, None)


@each_coding
@pytest.mark.parametrize("more", [b"x", b"\0", b"the same again"])
def test_an_exact_decoder_refuses_what_follows_the_end(coding: bytes, encode: Encode, more: bytes) -> None:
    packed = encode(TEXT) + (encode(TEXT) if len(more) > 1 else more)
    body, error = decode_body(coding, packed, LIMIT, exact=True)
    assert body is packed
    assert error is not None
    assert coding == b"br" or error == f"{coding.decode().lower()}: bytes follow the end of the stream"
    for pieces in ([encode(TEXT), packed[len(encode(TEXT)) :]], [packed[at : at + 1] for at in range(len(packed))]):
        assert exactly(coding, pieces)[1] is not None


def test_a_stream_with_two_readings_is_refused_where_it_is_decided_on() -> None:
    packed = stored_twice()
    raw = zlib.decompressobj(wbits=-15)
    assert raw.decompress(packed)[2:] == b"x" * 92 and raw.eof
    body, error = decode_body(b"deflate", packed, LIMIT)
    assert error is None and len(body) == 0xFFFF - 94
    for pieces in ([packed], [packed[:3], packed[3:]], [packed[at : at + 1] for at in range(len(packed))]):
        assert exactly(b"deflate", pieces) == (b"", "deflate: the stream can be read with and without the zlib wrapper")


@pytest.mark.parametrize("blank", [" ", "\t", "\x0b", "\x0c", "\x85", "\xa0"])
def test_only_blanks_and_tabs_stand_around_the_name_of_a_coding(blank: str) -> None:
    body, error = decode_body(f"{blank}gzip{blank}".encode("latin-1"), gzip.compress(TEXT), LIMIT)
    assert (error is None) == (body == TEXT) == (blank in " \t")


def endless_inner_stage() -> bytes:
    """Return gzip of gzip whose inner stream is long and has no content: empty stored blocks, which no count of members bounds."""
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return gzip.compress(head + b"\0\0\0\xff\xff" * 2_000_000 + b"\3\0" + bytes(8))


def test_what_stands_between_two_codings_is_bounded() -> None:
    """Nothing comes out, so that only the bound of what is between ends it (`gzip, gzip` of blocks without content)."""
    packed = endless_inner_stage()
    assert len(packed) < 100_000
    assert decode_body(b"gzip, gzip", packed, 1 << 20) == (packed, "the body with gzip removed is longer than 1048576 bytes")
    # and a body that is a little longer in between than in the end is none
    assert decode_body(b"gzip, gzip", packed, 1 << 24) == (b"", None)


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        *((None, False), ("", False), ("gzip", False), ("identity", False), ("gzip, identity;q=0.5", False), ("*", False)),
        *(("identity;q=0", True), ("gzip;q=1, Identity ; q=0.000", True), ("*;q=0", True), ("*;q=0, identity", False)),
        *(("identity;q=, gzip", False), ("identity;x=0", False), ("*;q=0, identity;q=1", False), ("identity;q=0, *", True)),
    ],
)
def test_identity_that_is_refused(accepted: str | None, refused: bool) -> None:
    assert refuses_identity(accepted) is refused
