"""Which addresses may be connected to: names, networks, exceptions, and IPv4 addresses in every IPv6 dress."""

import pytest

from soth_mitm import InvalidConfigError, MitmConfig
from soth_mitm.address_guard import AddressGuard
from soth_mitm.address_ranges import RANGES, parse_range


def guard(denied: list[str], allowed: list[str] | None = None, *, passthrough: bool = True) -> AddressGuard:
    config = MitmConfig()
    config.interception.destinations.append("example.com:443")
    config.interception.passthrough_unlisted = passthrough
    config.upstream.denied_addresses = denied
    config.upstream.allowed_addresses = allowed or []
    config.validate()
    return AddressGuard(config)


METADATA = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254", "fe80::a9fe:a9fe%eth0"]
# 169.254.169.254 as a gateway or a system unpacks it
IN_DISGUISE = [
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe%2",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:a9fe:a9:fe00::",
    "64:ff9b:1:a9:fe:a9fe::",
    "64:ff9b:1:0:a9:fea9:fe00:0",
    "64:ff9b:1:ffff:1234::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2002:a9fe:a9fe:1:2:3:4:5",
    "2001:0:a9fe:a9fe::1",
    "2001:0:808:808:0:0:5601:5601",
    "2001:db8::5efe:a9fe:a9fe",
    "fe80::200:5efe:a9fe:a9fe",
]


@pytest.mark.parametrize("address", METADATA + IN_DISGUISE)
def test_metadata_is_denied_in_each_form(address: str) -> None:
    refusal = guard(["metadata"]).refusal(address)
    assert refusal is not None
    text = refusal.text(address)
    assert address in text and "`metadata` in upstream.denied_addresses" in text and "upstream.allowed_addresses" in text


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "169.254.1.1", "10.0.0.1", "2606:4700::1111", "64:ff9b::5db8:d822", "64:ff9b:1::5db8:d822"]
)
def test_other_addresses_are_no_metadata(address: str) -> None:
    assert guard(["metadata"]).refusal(address) is None


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        (
            "loopback",
            ["127.0.0.1", "127.255.0.9", "0.0.0.0", "0.1.2.3", "::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"],
        ),
        ("link_local", ["169.254.0.1", "169.254.169.254", "fe80::1", "fe80::1%eth0", "febf::1", "::ffff:169.254.9.9"]),
        ("private", ["10.0.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12::1", "fec0::1", "64:ff9b:1::a00:1"]),
    ],
)
def test_named_ranges(name: str, addresses: list[str]) -> None:
    ranges = guard([name])
    assert [address for address in addresses if ranges.refusal(address) is None] == []
    for public in ("8.8.8.8", "172.32.0.1", "192.169.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808", "64:ff9b:1::808:808"):
        assert ranges.refusal(public) is None, public


@pytest.mark.parametrize(
    ("denied", "allowed", "address", "is_denied"),
    [
        (["private"], [], "10.1.2.3", True),
        (["private"], ["10.1.2.0/24"], "10.1.2.3", False),
        (["private"], ["10.1.2.0/24"], "10.1.3.3", True),
        (["10.1.2.3"], ["10.0.0.0/8"], "10.1.2.3", True),
        (["10.1.2.3"], ["10.0.0.0/8"], "10.1.2.4", False),
        (["0.0.0.0/0", "::/0"], ["10.0.0.0/8"], "10.1.2.3", False),
        (["0.0.0.0/0", "::/0"], ["10.0.0.0/8"], "8.8.8.8", True),
        (["0.0.0.0/0", "::/0"], ["10.0.0.0/8"], "::ffff:10.1.2.3", False),
        # a gateway's address and what it carries are both judged
        (["0.0.0.0/0", "::/0"], ["10.0.0.0/8"], "64:ff9b::a01:203", True),
        (["0.0.0.0/0", "::/0"], ["64:ff9b::/96"], "64:ff9b::a01:203", True),
        (["0.0.0.0/0", "::/0"], ["64:ff9b::/96", "10.0.0.0/8"], "64:ff9b::a01:203", False),
        (["::ffff:10.0.0.0/104"], [], "10.9.9.9", True),
        # equally specific: an error where both are spelt alike
        (["10.0.0.0/8"], ["10.0.0.0/8"], "10.1.1.1", None),
        (["private"], ["10.0.0.0/8"], "10.1.1.1", False),
        # what is wide does not open what is narrow
        (["metadata"], ["link_local"], "169.254.169.254", True),
        (["metadata"], ["private"], "100.100.100.200", True),
        (["metadata"], ["169.254.169.254"], "169.254.169.254", False),
        (["metadata"], ["169.254.169.254"], "169.254.170.2", True),
    ],
)
def test_the_most_specific_entry_decides(denied: list[str], allowed: list[str], address: str, is_denied: bool | None) -> None:
    if is_denied is None:
        with pytest.raises(InvalidConfigError, match=r"^upstream.allowed_addresses: .* is in `upstream.denied_addresses` as well"):
            guard(denied, allowed)
        return
    assert (guard(denied, allowed).refusal(address) is not None) == is_denied


def test_metadata_is_denied_whenever_unlisted_destinations_are_blocked() -> None:
    refusal = guard([], passthrough=False).refusal("169.254.169.254")
    assert refusal is not None
    assert "`metadata`, because interception.passthrough_unlisted is false" in refusal.text("169.254.169.254")
    assert guard([], passthrough=True).refusal("169.254.169.254") is None
    assert guard([], ["metadata"], passthrough=False).refusal("169.254.169.254") is None
    assert guard(["private"], passthrough=False).refusal("fd00:ec2::254") is not None
    assert guard([], passthrough=False).refusal("10.0.0.1") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "metadatas",
            "is neither an address nor a network such as `10.0.0.0/8`, and none of `metadata`, `link_local`, `loopback`, `private`",
        ),
        ("10.0.0.1/8", "has bits set behind its prefix; write `10.0.0.0/8`"),
        ("fe80::1%eth0", "has a zone"),
        ("", "is neither"),
        ("10.0.0.0/33", "is neither"),
        ("example.com", "is neither"),
    ],
)
def test_an_entry_is_refused_with_the_reason(text: str, words: str) -> None:
    config = MitmConfig()
    config.interception.destinations.append("example.com:443")
    config.upstream.denied_addresses = [text]
    with pytest.raises(InvalidConfigError) as caught:
        config.validate()
    assert caught.value.key == "upstream.denied_addresses" and words in str(caught.value)


def test_names_are_networks() -> None:
    for name in RANGES:
        assert parse_range(name)
