"""Which addresses may be connected to, whatever name led there.

The most specific entry decides, as in a routing table; of two equally specific ones the allowed one. An address that carries an IPv4
address, because a gateway will unpack it, is judged in each of its forms, and one form that is denied is enough.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from soth_mitm.address_ranges import parse_range
from soth_mitm.config.strict import STRICT_ADDRESSES
from soth_mitm.config.tree import MitmConfig

Address = IPv4Address | IPv6Address

_COMPATIBLE = IPv6Network("::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
# where RFC 6052 section 2.2 puts the four bytes, for each length that a prefix below /48 may have
_LOCAL_NAT64_PLACES = ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), (12, 13, 14, 15))
_SIX_TO_FOUR = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_ISATAP = (bytes.fromhex("00005efe"), bytes.fromhex("02005efe"))


class Entry(NamedTuple):
    """One entry of a list, and the key it stands in or follows from."""

    text: str
    key: str

    def __str__(self) -> str:
        return f"`{self.text}` in {self.key}" if self.key.startswith("upstream.") else f"`{self.text}`, because {self.key}"


class Refusal(NamedTuple):
    """Why an address is not connected to: the form of it that is denied, and by which entry."""

    form: str
    entry: Entry

    def text(self, address: str) -> str:
        """Return the reason for people, who are told what to change."""
        carried = "" if self.form == address else f", which carries {self.form},"
        return f"the address {address}{carried} is denied by {self.entry}; list it in upstream.allowed_addresses to allow it"


def denied_entries(config: MitmConfig) -> list[Entry]:
    """Return what is denied under a configuration, and because of which key."""
    written = config.upstream.denied_addresses
    entries = [Entry(text, "upstream.denied_addresses") for text in written]
    if config.preset == "strict":
        entries += [Entry(text, 'preset = "strict"') for text in STRICT_ADDRESSES if text not in written]
    elif not config.interception.passthrough_unlisted and "metadata" not in written:
        entries.append(Entry("metadata", "interception.passthrough_unlisted is false"))
    return entries


class AddressGuard:
    """The lists of one configuration. A look-up costs one dictionary read for each length of prefix that the lists have."""

    __slots__ = ("_lengths", "_networks")

    def __init__(self, config: MitmConfig) -> None:
        self._networks: dict[tuple[int, int, int], Entry | None] = {}
        """By version, length of the prefix and first address: the entry that denies, None where the network is allowed."""
        lengths: dict[int, set[int]] = {4: set(), 6: set()}
        allowed = ((None, parse_range(text)) for text in config.upstream.allowed_addresses)
        denied = ((entry, parse_range(entry.text)) for entry in denied_entries(config))
        for entry, networks in (*allowed, *denied):
            for network in networks:
                self._networks.setdefault((network.version, network.prefixlen, int(network.network_address)), entry)
                lengths[network.version].add(network.prefixlen)
        self._lengths = {version: sorted(of_version, reverse=True) for version, of_version in lengths.items()}

    def refusal(self, address: str) -> Refusal | None:
        """Return why `address`, an IP address as text, is not to be connected to; None if it may be."""
        if not self._networks:
            return None
        parsed = ip_address(address.partition("%")[0])
        for form in _forms(parsed):
            entry = self._denied_by(form)
            if entry is not None:
                return Refusal(str(form) if form != parsed else address, entry)
        return None

    def _denied_by(self, address: Address) -> Entry | None:
        number, size = int(address), address.max_prefixlen
        for length in self._lengths[address.version]:
            key = (address.version, length, number >> (size - length) << (size - length))
            if key in self._networks:
                return self._networks[key]
        return None


def _forms(address: Address) -> Iterator[Address]:
    """Yield the address as it is dialled, then what it carries."""
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        # a system connects to it by IPv4
        yield address.ipv4_mapped
        return
    yield address
    packed = address.packed
    if (address in _COMPATIBLE and int(address) > 1) or address in _TRANSLATED or address in _NAT64:
        yield IPv4Address(packed[12:])
    if address in _LOCAL_NAT64:
        # which length the prefix has is known to its gateway only; what begins with 0 is no address that it could forward to
        yield from (IPv4Address(bytes(packed[at] for at in places)) for places in _LOCAL_NAT64_PLACES if packed[places[0]])
    if address in _SIX_TO_FOUR:
        yield IPv4Address(packed[2:6])
    if address in _TEREDO:
        yield IPv4Address(packed[4:8])
        yield IPv4Address(bytes(byte ^ 0xFF for byte in packed[12:]))
    if packed[8:12] in _ISATAP:
        yield IPv4Address(packed[12:])
