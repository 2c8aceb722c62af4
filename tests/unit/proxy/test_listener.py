"""Which addresses lead back to the proxy's own listening sockets."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from soth_mitm.proxy.listener import BACKLOG, Listener
from soth_mitm.proxy.protocols import ClientEndpoint


@pytest.fixture
def listening(request: pytest.FixtureRequest) -> Iterator[Listener]:
    """A listener on the address that the test names."""
    listener = Listener.open(request.param, None, 0o600)
    yield listener
    listener.close()


EVERYWHERE = ["127.0.0.1", "127.9.9.9", "::1", "::1%1", "::ffff:127.0.0.1", "::ffff:7f00:1", "0.0.0.0", "0.1.2.3", "::", "::%1"]
ELSEWHERE = ["192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize(
    ("listening", "ours", "others"),
    [
        (
            "127.0.0.1:0",
            ["127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:127.0.0.1%1", "0.0.0.0", "0.1.2.3", "::ffff:0.0.0.0", "::"],
            ["127.0.0.2", "::1", *ELSEWHERE],
        ),
        ("[::1]:0", ["::1", "::1%1", "0:0:0:0:0:0:0:1", "::", "::%1", "0.0.0.0"], ["127.0.0.1", "::2", *ELSEWHERE]),
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


SOMAXCONN = int(Path("/proc/sys/net/core/somaxconn").read_text(encoding="ascii")) if sys.platform == "linux" else 0


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="tells how long the queue of a listening socket is")
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
async def test_as_many_may_wait_for_us_to_accept_as_the_system_allows(tmp_path: Path, unix: bool) -> None:
    """The loop, which listens again, has a backlog of its own."""
    # the descriptors of a test run are bounded as well; the loops' own backlog is 100
    allowed = min(BACKLOG, 600, SOMAXCONN)
    path = tmp_path / "proxy.sock"
    listener = Listener.open("127.0.0.1:0", path, 0o600)

    def refuse(local: object) -> ClientEndpoint:
        raise AssertionError("the loop does not run while the test connects")

    clients = []
    try:
        await listener.serve(refuse)
        for _ in range(allowed):
            client = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
            clients.append(client)
            client.setblocking(False)
            client.connect_ex(str(path) if unix else listener.addresses[0])
        connected = 0
        for client in clients:
            try:
                client.getpeername()
                connected += 1
            except OSError:
                pass
        assert connected == allowed
    finally:
        listener.close()
        for client in clients:
            client.close()
