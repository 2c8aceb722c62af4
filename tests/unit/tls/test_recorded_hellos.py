"""ClientHellos of real programs: what is read from them, and their fingerprints as others compute them (tests/corpus/hellos)."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from soth_mitm.tls.client_hello import NEED_MORE, ClientHello, parse_client_hello, sniff
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
from support.source import ROOT

CORPUS = ROOT / "tests" / "corpus" / "hellos"
BOTH = ("h2", "http/1.1")
X25519, P256, X25519_MLKEM768 = 29, 23, 4588


class Expected(NamedTuple):
    """What is in a recorded hello."""

    alpn: tuple[str, ...]
    first_group: int
    ja3: str
    ja4: str
    has_ech: bool = False
    sni: str | None = "localhost"


HELLOS = {
    "chromium": Expected(BOTH, X25519_MLKEM768, "0b9a46def452c621d41538bf8e22c945", "t13d1517h2_8daaf6152771_cb7bf5808d99", has_ech=True),
    "curl": Expected(BOTH, X25519, "0149f47eabf9a20d0893e2a44e5a6323", "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6"),
    "firefox": Expected(BOTH, X25519_MLKEM768, "6447ab086255d194909d4013b1a89e87", "t13d1617h2_86a278354501_3cbfd9057e0d", has_ech=True),
    "go": Expected((), X25519_MLKEM768, "9b7dcdf3f997f1fb7b4409c94cb7ef36", "t13d131100_f57a46bbacb6_ab7e3b40a677"),
    "java-17": Expected(BOTH, X25519, "eea0a26d87c4721f5818bb176368f238", "t13d3713h2_db35923f8641_7c76daad20ec"),
    "java-25": Expected(BOTH, X25519, "bddb16608b241c89053080cf80771423", "t13d3113h2_1d947a95fc68_7e1102d2036b"),
    "node": Expected((), X25519, "0cce74b0d9b7f8528fb2181588d23793", "t13d591000_a33745022dd6_1f22a2ca17c4"),
    "node-fetch": Expected(("http/1.1",), X25519, "1a28e69016765d92e3b381168d68922c", "t13d5911h1_a33745022dd6_1f22a2ca17c4"),
    "openssl-no-sni": Expected((), X25519, "c216e752cae6f8755fd27f561d031636", "t13i310900_e8f1e7e78f70_1f22a2ca17c4", sni=None),
    "openssl-tls12": Expected((), X25519, "871a754af286dfb70c1b53c6887c62e0", "t12d280700_d943125447b4_e7e480e5a997"),
    "python-3.11": Expected(("http/1.1",), X25519, "331a436afb23d4e31134c11b301bdcb5", "t13d1813h1_85036bcba153_d339722ba4af"),
    "python-3.8": Expected((), X25519, "86d37534033d9c5b60a83ff8b2fbeea3", "t13d311200_e8f1e7e78f70_d339722ba4af"),
    "wget": Expected((), P256, "bb4f9fef542ff6b4b29aa653bf0c1d31", "t13d291300_723694b0fccc_899037bd0b8c"),
}


def recorded(name: str) -> bytes:
    return bytes.fromhex((CORPUS / f"{name}.hex").read_text("ascii"))


def test_every_recording_is_expected() -> None:
    assert {path.stem for path in CORPUS.glob("*.hex")} == set(HELLOS)


@pytest.mark.parametrize("name", HELLOS)
def test_what_programs_offer(name: str) -> None:
    data, expected = recorded(name), HELLOS[name]
    hello = parse_client_hello(data)
    assert isinstance(hello, ClientHello)
    assert sniff(data) == "tls"
    assert (hello.sni, hello.alpn, hello.has_ech, hello.raw_length) == (expected.sni, expected.alpn, expected.has_ech, len(data))
    assert next(group for group in hello.groups if not is_grease(group)) == expected.first_group
    assert max(version for version in hello.versions or (hello.legacy_version,) if not is_grease(version)) == (
        0x0303 if name == "openssl-tls12" else 0x0304
    )
    assert (ja3(hello)[1], ja4(hello)) == (expected.ja3, expected.ja4)


def test_grease_is_kept_as_it_came() -> None:
    hello = parse_client_hello(recorded("chromium"))
    assert isinstance(hello, ClientHello)
    for values in (hello.ciphers, hello.extensions, hello.groups, hello.versions):
        assert any(map(is_grease, values))
    assert len(recorded("chromium")) > 1460  # more than one segment of Ethernet


@pytest.mark.parametrize("name", HELLOS)
def test_nothing_is_known_before_the_last_byte(name: str) -> None:
    data = recorded(name)
    assert all(parse_client_hello(data[:end]) is NEED_MORE for end in range(0, len(data), 7))
    assert parse_client_hello(data[:-1]) is NEED_MORE
    assert parse_client_hello(data + b"what follows") == parse_client_hello(data)


@pytest.mark.parametrize("name", HELLOS)
@pytest.mark.parametrize("size", [1, 100, 1400])
def test_a_hello_over_many_records_is_the_same(name: str, size: int) -> None:
    message = recorded(name)[5:]
    size = max(size, len(message) // 250 + 1)
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    whole, split = (
        parse_client_hello(recorded(name)),
        parse_client_hello(b"".join(b"\x16\x03\x01" + len(p).to_bytes(2) + p for p in pieces)),
    )
    assert isinstance(whole, ClientHello) and isinstance(split, ClientHello)
    assert (split.sni, split.alpn, ja3(split), ja4(split)) == (whole.sni, whole.alpn, ja3(whole), ja4(whole))


# A browser's fingerprints as a public echo service reported them with all their parts (Chrome 143, GREASE left out by the service).
CHROME_143_JA3 = (
    "771,4865-4866-4867-49195-49199-49196-49200-52393-52392-49171-49172-156-157-47-53,"
    "45-51-16-65037-23-17613-0-11-10-43-65281-35-18-5-13-27,4588-29-23-24,0"
)


def test_published_fingerprints_of_a_post_quantum_browser() -> None:
    _, ciphers, extensions, offered, formats = ([int(value) for value in part.split("-")] for part in CHROME_143_JA3.split(","))
    known = dict(
        (
            server_name(b"a.example"),
            alpn(b"h2", b"http/1.1"),
            groups(0x0A0A, *offered),
            point_formats(*formats),
            signature_algorithms(0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601),
            supported_versions(0xDADA, 0x0304, 0x0303),
        )
    )
    listed = [(code, known.get(code, b"")) for code in (0x7A7A, *extensions, 0xFAFA)]
    hello = parse_client_hello(records(handshake(hello_body(ciphers=[0x2A2A, *ciphers], extensions=listed))))
    assert isinstance(hello, ClientHello) and hello.has_ech
    assert ja3(hello) == (CHROME_143_JA3, "98487aa16281980e7d1120d399efb6a4")
    assert ja4(hello) == "t13d1516h2_8daaf6152771_d8a2da3f94cd"
