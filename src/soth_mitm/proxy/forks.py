"""What a forked child releases (`multiprocessing`, `os.fork`), or the other side would wait for it.

A port that a child holds cannot be bound again, and a connection does not end while a child has it. The descriptors stay taken, by the null
device: the child has objects that still hold their numbers, and will close them.
"""

import os
import socket
from typing import Protocol
from weakref import WeakSet

from soth_mitm._dataplane.transport.endpoint import Endpoint


class Listening(Protocol):
    """What has listening sockets."""

    def let_go(self, null: int) -> None:
        """Put the descriptor `null` in the place of each of them."""


listeners: "WeakSet[Listening]" = WeakSet()
connections: "WeakSet[Endpoint]" = WeakSet()


def _let_go_in_child() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for listener in listeners:
        listener.let_go(null)
    for endpoint in connections:
        _let_go(endpoint, null)
    os.close(null)


def _let_go(endpoint: Endpoint, null: int) -> None:
    transport = endpoint.transport
    if transport is None:
        return
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor >= 0 and _is_connected(descriptor, transport.get_extra_info("peername")):
        os.dup2(null, descriptor, inheritable=False)


def _is_connected(descriptor: int, peer: object) -> bool:
    """Tell whether this is still the socket that was connected to `peer`: a loop that was left without an end tells of no close."""
    try:
        found = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return False
    with found:
        try:
            return bool(found.getpeername() == peer)
        except OSError:
            # reset meanwhile, and nothing is held by keeping it
            return False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
