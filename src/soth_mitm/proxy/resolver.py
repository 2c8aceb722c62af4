"""Names to addresses: off the loop, one look-up of a name at a time, and a short memory."""

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address

from soth_mitm.proxy.counters import ConnectionCounters
from soth_mitm.proxy.threads import Threads

# Names remembered, and names looked up at once
MAX_NAMES = 4096
# Where a name server is gone, the system keeps a thread for many seconds. The loops have few for look-ups (uvloop four), and asyncio's are
# those that a handler may fill with `asyncio.to_thread`.
MAX_THREADS = 32

Addresses = tuple[str, ...]
LookUp = Callable[[str], Awaitable[Addresses]]


def system_addresses(host: str) -> Addresses:
    """Ask the system's resolver, and wait for it; addresses in its order, each once. Raises `socket.gaierror`."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(info[4][0]) for info in found))


@dataclass(frozen=True, slots=True)
class _Known:
    addresses: Addresses
    until: float


class Resolver:
    """Addresses of names, remembered for `seconds` (0: not at all). Belongs to one loop.

    The system does not say how long an answer is good, so the time is to be short. A failed look-up is not remembered: the next one asks
    again. Whoever waits for a look-up may give up; it goes on for the others.
    """

    def __init__(self, seconds: float, counters: ConnectionCounters, look_up: LookUp | None = None, max_names: int = MAX_NAMES) -> None:
        self._seconds = seconds
        self._counters = counters
        self._look_up = look_up or self._ask_system
        self._threads = Threads(MAX_THREADS, "soth-mitm name")
        self._max_names = max_names
        self._now = time.monotonic
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._running: dict[str, asyncio.Task[Addresses]] = {}

    async def addresses(self, host: str) -> Addresses:
        """Return the addresses of `host`, at least one; those of an address are itself. Raises `socket.gaierror`."""
        try:
            return (str(ip_address(host)),)
        except ValueError:
            pass
        known = self._known.get(host)
        if known is not None and self._now() < known.until:
            self._counters.dns_cache_hits += 1
            self._known.move_to_end(host)
            return known.addresses
        look_up = self._running.get(host) or self._begin(host)
        # unlike awaiting it, this does not cancel it for the others
        await asyncio.wait((look_up,))
        return look_up.result()

    def _begin(self, host: str) -> asyncio.Task[Addresses]:
        if len(self._running) >= self._max_names:
            raise socket.gaierror(socket.EAI_AGAIN, f"{self._max_names} names are being looked up already")
        self._counters.dns_lookups += 1
        look_up = asyncio.get_running_loop().create_task(self._ask(host), name=f"soth-mitm look up {host}")
        self._running[host] = look_up
        look_up.add_done_callback(lambda done: self._ended(host, done))
        return look_up

    async def _ask_system(self, host: str) -> Addresses:
        return await asyncio.get_running_loop().run_in_executor(self._threads, system_addresses, host)

    async def _ask(self, host: str) -> Addresses:
        addresses = await self._look_up(host)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        return addresses

    def _ended(self, host: str, look_up: asyncio.Task[Addresses]) -> None:
        del self._running[host]
        # asked for in any case, because every waiter may have given up
        if look_up.cancelled() or look_up.exception() is not None or self._seconds == 0:
            return
        self._known[host] = _Known(look_up.result(), self._now() + self._seconds)
        self._known.move_to_end(host)
        if len(self._known) > self._max_names:
            self._known.popitem(last=False)

    def forget(self, host: str, addresses: Addresses) -> None:
        """Drop what is remembered of `host` if it is still these `addresses`, because none of them answered."""
        known = self._known.get(host)
        if known is not None and known.addresses is addresses:
            del self._known[host]

    async def close(self) -> None:
        """End the look-ups under way. What hangs in the system is not waited for."""
        running = list(self._running.values())
        for look_up in running:
            look_up.cancel()
        if running:
            await asyncio.wait(running)
        self._threads.close()
