"""Waiting until what one socket of this process sent lies in another, whether anybody reads it or not."""

from __future__ import annotations

import os
import select
import socket

PATIENCE_MS = 20_000


def wait_arrival(address: tuple[str, int], *, reset: bool = False) -> None:
    """Wait until the socket of this process that is bound to `address` has something to read, or with `reset` until an RST has come."""
    for entry in os.listdir("/dev/fd"):
        try:
            descriptor = os.dup(int(entry))
        except OSError:
            # closed meanwhile
            continue
        try:
            theirs = socket.socket(fileno=descriptor)
        except OSError:
            # no socket
            os.close(descriptor)
            continue
        with theirs:
            if theirs.family == socket.AF_INET and theirs.getsockname() == address:
                poll = select.poll()
                # errors are told of in any case
                poll.register(theirs, 0 if reset else select.POLLIN)
                assert poll.poll(PATIENCE_MS), "what was sent did not arrive"
                return
    raise AssertionError(f"no descriptor of this process is bound to {address}")
