"""Process attribution as connections use it: processes that connected lately are recalled at once, others are looked up off the loop."""

import asyncio

from soth_mitm._dataplane.transport.endpoint import Endpoint
from soth_mitm.config import MitmConfig
from soth_mitm.connection import ProcessInfo, SocketFamily, TcpV4, TcpV6, UnixDomain
from soth_mitm.process.attribution import ProcessAttribution
from soth_mitm.proxy.threads import Threads

# A look-up holds its thread for microseconds to milliseconds; more threads would only queue for the interpreter.
THREADS = 2


def is_local(family: TcpV4 | TcpV6) -> bool:
    """Tell whether a client is on this machine: its connection has one address at both ends; any other has its process elsewhere."""
    return family.local[0] == family.remote[0] or family.remote[0].startswith("127.")


class ProcessLookup:
    """Finds the process behind a client connection. One for all loops' connections of a proxy; closed with it."""

    def __init__(self, config: MitmConfig) -> None:
        process_attribution = config.process_attribution
        ttl = process_attribution.cache_ttl_ms
        self.attribution = ProcessAttribution(process_attribution.cache_capacity, None if ttl is None else ttl / 1000)
        self.seconds = process_attribution.lookup_timeout_ms / 1000
        self.timeouts = 0
        self.connection_ended = self.attribution.connection_ended
        self._threads = Threads(THREADS, "soth-mitm process")

    def recall(self, family: SocketFamily) -> ProcessInfo | None:
        """Return the client's process if it is one of those that connected lately; None to have it looked up by `find`."""
        if isinstance(family, UnixDomain) or not is_local(family):
            return None
        return self.attribution.recall(family.local, family.remote)

    async def find(self, endpoint: Endpoint, family: SocketFamily) -> ProcessInfo | None:
        """Return the client's process; None when it is not on this machine, not found, or not found in time."""
        loop = asyncio.get_running_loop()
        if isinstance(family, UnixDomain):
            assert endpoint.transport is not None
            future = loop.run_in_executor(self._threads, self.attribution.lookup_unix, endpoint.transport.get_extra_info("socket"))
        elif is_local(family):
            future = loop.run_in_executor(self._threads, self.attribution.lookup, family.local, family.remote)
        else:
            return None
        try:
            return await asyncio.wait_for(future, self.seconds)
        except TimeoutError:
            self.timeouts += 1
            return None

    def close(self) -> None:
        """Stop the threads, without waiting for a look-up that hangs."""
        self._threads.close()
        self.attribution.close()
