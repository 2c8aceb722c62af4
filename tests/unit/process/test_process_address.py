"""Addresses as kernels compare them."""

from __future__ import annotations

import socket

import pytest

from soth_mitm.process.address import interface_of, map_to_v6, pack_host


@pytest.mark.parametrize(
    ("host", "packed"),
    [
        ("127.0.0.1", b"\x7f\x00\x00\x01"),
        ("::ffff:127.0.0.1", b"\x7f\x00\x00\x01"),
        ("::1", bytes(15) + b"\x01"),
        ("fe80::1%lo", b"\xfe\x80" + bytes(13) + b"\x01"),
    ],
)
def test_pack_host(host, packed):
    assert pack_host(host) == packed


@pytest.mark.parametrize("host", ["localhost", "", "127.0.0.1.5", "::g"])
def test_names_are_refused(host):
    with pytest.raises(ValueError, match="is not an IP address"):
        pack_host(host)


def test_map_to_v6():
    assert map_to_v6(b"\x7f\x00\x00\x01") == bytes(10) + b"\xff\xff\x7f\x00\x00\x01"
    assert map_to_v6(bytes(16)) == bytes(16)


def test_interface_of_a_scope():
    index, name = socket.if_nameindex()[0]
    assert interface_of(f"fe80::1%{name}") == index
    assert interface_of("fe80::1%7") == 7
    assert interface_of("fe80::1") == 0
    assert interface_of("fe80::1%no-such-interface") == 0
