"""Ranges of addresses as a configuration writes them: names for those that matter, addresses, networks in CIDR notation."""

from ipaddress import IPv4Network, IPv6Network, ip_network

Network = IPv4Network | IPv6Network

RANGES: dict[str, tuple[str, ...]] = {
    # where clouds hand credentials to whatever asks from inside a machine
    "metadata": (
        "169.254.169.254/32",  # AWS, Azure, Google, Oracle, OpenStack, DigitalOcean, Hetzner
        "169.254.170.2/32",  # AWS ECS
        "169.254.170.23/32",  # AWS EKS
        "169.254.0.23/32",  # Tencent
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure, its agent
        "192.0.0.192/32",  # Oracle, older
        "fd00:ec2::254/128",  # AWS
        "fd00:ec2::23/128",  # AWS EKS
        "fd20:ce::254/128",  # Google
        "fe80::a9fe:a9fe/128",  # OpenStack
    ),
    "link_local": ("169.254.0.0/16", "fe80::/10"),
    # the whole of 0.0.0.0/8 and the unspecified address lead to this machine on some systems
    "loopback": ("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10"),
}


def parse_range(text: str) -> tuple[Network, ...]:
    """Return the networks that an entry stands for; `ValueError` says what is wrong with it, worded to follow the text."""
    if text in RANGES:
        return tuple(ip_network(network) for network in RANGES[text])
    names = ", ".join(f"`{name}`" for name in RANGES)
    if "%" in text:
        raise ValueError("has a zone; write the address without it")
    try:
        network = ip_network(text)
    except ValueError as error:
        if "host bits set" in str(error):
            raise ValueError(f"has bits set behind its prefix; write `{ip_network(text, strict=False)}`") from None
        raise ValueError(f"is neither an address nor a network such as `10.0.0.0/8`, and none of {names}") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped is not None:
        network = IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return (network,)
