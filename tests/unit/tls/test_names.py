"""Names as certificates carry them: the spelling of policies and pools, and nothing that a certificate cannot hold."""

from __future__ import annotations

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm.addresses import normalise_host
from soth_mitm.tls.names import alternative_names, parse_name

LONG = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("A.Example.", "a.example"),
        # IDNA 2003 makes somebody else's domains of these three
        ("faß.example", "xn--fa-hia.example"),
        ("βόλος.example", "xn--nxasmm1c.example"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("_dmarc.a_b.example", "_dmarc.a_b.example"),
        ("r3---sn-.-a.example", "r3---sn-.-a.example"),
        (LONG, LONG),
        (LONG + ".", LONG),
    ],
)
def test_host_names_are_spelt_as_policies_spell_them(spelling: str, name: str) -> None:
    assert parse_name(spelling) == name == normalise_host(spelling)


@pytest.mark.parametrize(
    ("spelling", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]", "fe80::1"),
        # what a client that connects to it compares, unlike the policy
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("[::FFFF:a00:1%1]", "::ffff:10.0.0.1"),
        ("10.0.0.1.", "10.0.0.1"),
    ],
)
def test_addresses_are_addresses(spelling: str, address: str) -> None:
    assert parse_name(spelling) == ipaddress.ip_address(address)


@pytest.mark.parametrize("name", ["*.a.example", "*.bücher.example", "*.A.example."])
def test_a_wildcard_may_stand_for_the_leftmost_label(name: str) -> None:
    assert str(parse_name(name, wildcard=True)).startswith("*.")
    with pytest.raises(ValueError, match="not a name"):
        parse_name(name)


@pytest.mark.parametrize("name", ["*", "*.", "*.com", "**.a.example", "a.*.example", "a*.example", "*.10.0.0.1", "*.*.example", "*.::1"])
def test_wildcards_that_no_client_would_accept(name: str) -> None:
    with pytest.raises(ValueError, match=r"^the name "):
        parse_name(name, wildcard=True)


@pytest.mark.parametrize("name", ["", ".", "a..b", "a b", "a\0.b", "127.1", "0x7f000001", "a" * 64, LONG + "e", "[::1", "ü" * 70])
def test_what_no_certificate_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"^the name .* has "):
        parse_name(name)


def certificate_with(*extensions: tuple[str, bytes]) -> bytes:
    """Return the DER of a certificate with extensions of any content."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    for oid, content in extensions:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), content), critical=oid == SAN)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def element(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    return bytes([tag, 0x82]) + len(content).to_bytes(2) + content


SAN, KEY_USAGE = "2.5.29.17", "2.5.29.15"
LOCALHOST = element(0x82, b"localhost")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (element(0x30, LOCALHOST), ("localhost",)),
        (element(0x30, element(0x87, bytes([127, 0, 0, 1])) + element(0x87, bytes(15) + b"\1")), ("127.0.0.1", "::1")),
        (element(0x30, element(0x82, b"m\xfcnchen.example") + LOCALHOST), ("localhost",)),
        (element(0x30, element(0x81, b"j\xfcrgen@example.com") + LOCALHOST + element(0x86, b"http://\xe9/")), ("localhost",)),
        (element(0x30, element(0x87, b"\1\2\3") + element(0x82, b"") + LOCALHOST), ("localhost",)),
        (
            element(0x30, b"".join(element(0x82, b"%d.example" % number) for number in range(500))),
            tuple(f"{n}.example" for n in range(500)),
        ),
        (element(0x30, LOCALHOST + b"\x82\x7fcut"), ("localhost",)),
        (element(0x30, LOCALHOST + b"\x82\x80without end\0\0"), ("localhost",)),
        (element(0x30, LOCALHOST + b"\x82\xff" + b"\xff" * 10), ("localhost",)),
        (b"", ()),
        (b"\x30", ()),
        (LOCALHOST, ()),
    ],
)
def test_the_names_of_a_certificate_are_read_as_far_as_they_can_be(content: bytes, names: tuple[str, ...]) -> None:
    assert alternative_names(certificate_with((KEY_USAGE, b"\3\2\5\xa0"), (SAN, content))) == names


def test_a_certificate_without_names_and_what_is_none() -> None:
    assert alternative_names(certificate_with()) == alternative_names(b"") == ()


@given(st.data())
def test_nothing_in_a_certificate_raises(data: st.DataObject) -> None:
    """Cut, and changed at any place."""
    der = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    assert all(isinstance(name, str) for name in alternative_names(bytes(der[: data.draw(st.integers(0, len(der)))])))


WHOLE = certificate_with((SAN, element(0x30, LOCALHOST + element(0x87, bytes(16)))))
