"""JA3 and JA4 by their authors' published examples."""

from __future__ import annotations

import hashlib

import pytest

from soth_mitm.tls.client_hello import parse_client_hello
from soth_mitm.tls.fingerprint import is_grease, ja3, ja4
from support.hellos import (
    alpn,
    groups,
    handshake,
    hello_body,
    point_formats,
    records,
    server_name,
    signature_algorithms,
    supported_versions,
)

# The worked example of FoxIO's technical details (Chrome), in the order given there.
CHROME_CIPHERS = [0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC013, 0xC014, 0x9C, 0x9D, 0x2F, 0x35]
CHROME_SIGNATURES = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601]
CHROME_EXTENSIONS = [
    (0x001B, b""),
    server_name(b"a.example"),
    (0x0033, b""),
    alpn(b"h2", b"http/1.1"),
    (0x4469, b""),
    (0x0017, b""),
    (0x002D, b""),
    signature_algorithms(*CHROME_SIGNATURES),
    (0x0005, b""),
    (0x0023, b""),
    (0x0012, b""),
    supported_versions(0x0304, 0x0303),
    (0xFF01, b""),
    point_formats(0),
    groups(29, 23, 24),
    (0x0015, b""),
]
CHROME = "t13d1516h2_8daaf6152771_e5627efa2ab1"


def parse(extensions, **fields):
    return parse_client_hello(records(handshake(hello_body(extensions=extensions, **fields))))


def test_ja4_of_the_published_example():
    assert ja4(parse(CHROME_EXTENSIONS, ciphers=CHROME_CIPHERS)) == CHROME


def test_grease_anywhere_changes_neither_fingerprint():
    plain = parse(CHROME_EXTENSIONS, ciphers=CHROME_CIPHERS)
    extensions = [(0x0A0A, b""), *CHROME_EXTENSIONS[:-5], supported_versions(0xFAFA, 0x0304, 0x0303), *CHROME_EXTENSIONS[-4:]]
    extensions[8] = signature_algorithms(0x2A2A, *CHROME_SIGNATURES)
    extensions[-2] = groups(0x4A4A, 29, 23, 24)
    greased = parse([*extensions, (0x3A3A, b"\x00")], ciphers=[0x1A1A, *CHROME_CIPHERS])
    assert len(greased.extensions) == len(plain.extensions) + 2
    assert ja4(greased) == CHROME and ja3(greased) == ja3(plain)


def test_order_changes_ja3_and_not_ja4():
    plain = parse(CHROME_EXTENSIONS, ciphers=CHROME_CIPHERS)
    shuffled = parse(CHROME_EXTENSIONS[::-1], ciphers=CHROME_CIPHERS[::-1])
    assert ja4(shuffled) == CHROME and ja3(shuffled) != ja3(plain)


def test_ja4_without_signature_algorithms_has_no_underscore():
    extensions = [signature_algorithms(0x2A2A) if each[0] == 13 else each for each in CHROME_EXTENSIONS]
    assert ja4(parse(extensions, ciphers=CHROME_CIPHERS)) == "t13d1516h2_8daaf6152771_6d807ffa2a79"


def test_ja3_of_empty_lists_keeps_its_commas():
    assert ja3(parse(None, version=0x0301, ciphers=[47]))[0] == "769,47,,,"


def test_ja4_of_a_bare_hello_is_zeros():
    assert ja4(parse(None, version=0x0301, ciphers=[0x0A0A])) == "t10i000000_000000000000_000000000000"


def test_ja4_counts_stop_at_99_and_include_scsv():
    hello = parse([(0x5000 + code, b"") for code in range(120)], ciphers=[0x00FF, 0x5600, *range(0xC000, 0xC080)])
    assert ja4(hello).startswith("t12i999900_")
    assert ja4(parse([], ciphers=[0x00FF, 0x5600, 0x1301])).startswith("t12i030000_")


@pytest.mark.parametrize(
    ("versions", "text"),
    [((0x0304,), "13"), ((0x0303, 0x0301), "12"), ((0x0302,), "11"), ((0x0300,), "s3"), ((0x7F1C,), "00"), ((0,), "00"), ((0x1A1A,), "12")],
)
def test_ja4_version_is_the_highest_offered(versions, text):
    assert ja4(parse([supported_versions(*versions)]))[1:3] == text


@pytest.mark.parametrize(
    ("protocol", "ends"),
    [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"h", "hh"),
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"\x30\xab", "3b"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
    ],
)
def test_ja4_alpn_is_the_ends_of_the_first_value(protocol, ends):
    assert ja4(parse([alpn(protocol, b"zz")]))[8:10] == ends


def test_ja3_of_the_published_examples():
    hello = parse(
        [server_name(b"a.example"), groups(23, 24, 25), point_formats(0)],
        version=0x0301,
        ciphers=[47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4],
    )
    text = "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0"
    assert ja3(hello) == (text, "ada70206e40642a3e4461f35503241d5")
    bare = parse(None, version=0x0301, ciphers=[4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99])
    assert ja3(bare) == ("769,4-5-10-9-100-98-3-6-19-18-99,,,", "de350869b8c85de67a350c8d186f11e6")


def test_ja3_digest_is_the_md5_of_its_string():
    text, digest = ja3(parse(CHROME_EXTENSIONS, ciphers=CHROME_CIPHERS))
    assert hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() == digest and text.startswith("771,4865-4866-4867-")


def test_there_are_sixteen_grease_values():
    assert [f"{value:04x}" for value in range(65536) if is_grease(value)] == [f"{digit:x}a{digit:x}a" for digit in range(16)]
