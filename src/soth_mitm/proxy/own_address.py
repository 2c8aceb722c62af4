"""Where this proxy itself listens, and in which spellings an address leads there. Nothing is looked up."""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import NamedTuple

Address = IPv4Address | IPv6Address

# Some systems take the whole of it for themselves, where RFC 1122 section 3.2.1.3 has it for nobody
_THIS_NETWORK = IPv4Network("0.0.0.0/8")


class OwnAddress(NamedTuple):
    """Why no request goes to an address at which we listen: `status` is what its client is answered, `text` follows the address."""

    status: int
    text: str


THE_PROXY = OwnAddress(508, "is this proxy itself; the request would come back here for ever")
THE_VIEW = OwnAddress(403, "is where flows are shown, and no request is let through to it")
THE_STATUS_PAGES = OwnAddress(403, "is where this proxy tells of itself (prometheus_bind), and no request is let through to it")


def reaches(host: str, bound: str) -> bool:
    """Tell whether connecting to `host` would lead to a socket of this machine that is bound to `bound`; for a name the answer is no."""
    try:
        wanted, own = _plain(host), _plain(bound)
    except ValueError:
        # a name, which the system would look up here and now; the dialler asks again with its addresses
        return False
    if wanted == own:
        return True
    if own.is_unspecified:
        return _is_of_this_machine(host, wanted)
    return own.is_loopback and _stands_for_this_machine(wanted)


def _plain(host: str) -> Address:
    # a zone says by which interface, and an address that needs none may have one: `::1%1`
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _stands_for_this_machine(address: Address) -> bool:
    return address.is_unspecified or (isinstance(address, IPv4Address) and address in _THIS_NETWORK)


def _is_of_this_machine(host: str, address: Address) -> bool:
    if address.is_loopback or _stands_for_this_machine(address):
        return True
    # only an address of this machine can be bound
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host if address.version == 6 else str(address), 0))
        except OSError:
            return False
    return True
