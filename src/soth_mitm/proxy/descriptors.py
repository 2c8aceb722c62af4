"""Running out of descriptors, told before it looks like a network that drops clients.

When the process may open no more files, uvloop's library accepts a client and closes it at once, and reports nothing. The system gives
out the lowest free number, so the number of an accepted socket says how close that is.
"""

import sys
import time

from soth_mitm.escaping import get_logger

log = get_logger("soth_mitm.proxy")

# So few numbers are left that a burst of clients takes them.
RESERVE = 16
WARNING_SECONDS = 60.0


def limit_of_descriptors() -> int | None:
    """Return how many files this process may have open; None when there is no such limit."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


class DescriptorWatch:
    """Warns, once a minute, when accepted sockets come close to the limit of this process."""

    def __init__(self) -> None:
        self._warned = float("-inf")
        self._look()

    def _look(self) -> None:
        self._limit = limit_of_descriptors()
        self._from = sys.maxsize if self._limit is None else self._limit - RESERVE

    def accepted(self, descriptor: int) -> None:
        """A client's socket has that number."""
        if descriptor < self._from:
            return
        # it may have been raised since
        self._look()
        now = time.monotonic()
        if descriptor < self._from or now - self._warned < WARNING_SECONDS:
            return
        self._warned = now
        log.warning(
            "descriptors run out: this process may open %s files, and a client has just been given the number %d. Clients beyond them are "
            "dropped without an answer, and upstreams cannot be reached. Raise the limit (`ulimit -n`, LimitNOFILE= in systemd) or lower "
            "max_concurrent_flows (said once a minute)",
            self._limit,
            descriptor,
        )
