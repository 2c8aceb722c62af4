"""Which addresses lead back to the proxy's own listening sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from soth_mitm.proxy.listener import Listener


@pytest.fixture
def listening(request: pytest.FixtureRequest) -> Iterator[Listener]:
    """A listener on the address that the test names."""
    listener = Listener.open(request.param, None, 0o600)
    yield listener
    listener.close()


EVERYWHERE = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"]
ELSEWHERE = ["192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize(
    ("listening", "ours", "others"),
    [
        ("127.0.0.1:0", ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0"], ["127.0.0.2", "::1", *ELSEWHERE]),
        ("[::1]:0", ["::1", "::"], ["127.0.0.1", *ELSEWHERE]),
        ("0.0.0.0:0", EVERYWHERE, ELSEWHERE),
        ("[::]:0", EVERYWHERE, ELSEWHERE),
    ],
    indirect=["listening"],
)
def test_addresses(listening: Listener, ours: list[str], others: list[str]) -> None:
    ((_, port),) = listening.addresses
    assert [host for host in (*ours, *others) if listening.is_ours((host, port))] == ours
    assert not any(listening.is_ours((host, port ^ 1)) for host in ours)


@pytest.mark.parametrize("listening", ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"], indirect=True)
def test_names_are_not_looked_up(listening: Listener) -> None:
    """It is asked on the loop, which is not to wait for a resolver."""
    ((_, port),) = listening.addresses
    assert not listening.is_ours(("localhost", port))
