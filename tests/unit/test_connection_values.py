"""The values that describe a connection: immutable, printable, copied with changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from soth_mitm.connection import ConnectionMeta, ProcessInfo, TcpV4, TcpV6, TlsInfo, UnixDomain

FAMILY = TcpV4(local=("127.0.0.1", 8080), remote=("127.0.0.1", 50000))


def test_a_new_connection_knows_only_its_addresses_and_its_time():
    before = datetime.now(UTC)
    meta = ConnectionMeta(uuid4(), FAMILY)
    assert (meta.process_info, meta.tls_info, meta.target) == (None, None, None)
    assert before <= meta.connected_at <= before + timedelta(minutes=1)
    assert meta.connected_at.tzinfo is UTC


def test_replace_makes_a_changed_copy():
    meta = ConnectionMeta(uuid4(), FAMILY)
    changed = meta.replace(target=("example.org", 443), tls_info=TlsInfo(sni="example.org"))
    assert meta.target is None
    assert changed.target == ("example.org", 443)
    assert changed.tls_info is not None and changed.tls_info.sni == "example.org"
    assert (changed.connection_id, changed.connected_at) == (meta.connection_id, meta.connected_at)


def test_replace_refuses_unknown_names():
    with pytest.raises(TypeError, match="no_such_field"):
        ConnectionMeta(uuid4(), FAMILY).replace(no_such_field=1)


@pytest.mark.parametrize(
    "value",
    [ProcessInfo(1), FAMILY, TcpV6(("::1", 1), ("::1", 2)), UnixDomain("/run/p.sock"), TlsInfo(), ConnectionMeta(uuid4(), FAMILY)],
    ids=lambda value: type(value).__name__,
)
def test_values_do_not_change(value):
    name = value.__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(value, name, None)
    with pytest.raises(AttributeError):
        value.something_else = 1


def test_the_repr_names_every_field():
    assert repr(FAMILY) == "TcpV4(local=('127.0.0.1', 8080), remote=('127.0.0.1', 50000))"
    assert "exe_name='curl'" in repr(ProcessInfo(7, exe_name="curl"))
