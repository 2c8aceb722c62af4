"""Names as certificates carry them: the spelling of policies and pools, and nothing that a certificate cannot hold."""

from __future__ import annotations

import ipaddress

import pytest

from soth_mitm.addresses import normalise_host
from soth_mitm.tls.names import parse_name

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
        ("::ffff:10.0.0.1", "10.0.0.1"),
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
