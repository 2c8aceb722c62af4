"""Process attribution as connections use it: off the loop, with a deadline, counted."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from soth_mitm._dataplane.endpoint import Endpoint
from soth_mitm.config import MitmConfig
from soth_mitm.connection import ProcessInfo, SocketAddress, SocketFamily, UnixDomain
from soth_mitm.process.attribution import ProcessAttribution

# A look-up holds its thread for microseconds to milliseconds; more threads would only queue for the interpreter.
THREADS = 2


def is_on_this_machine(local: SocketAddress, remote: SocketAddress) -> bool:
    """Tell whether the client at `remote` runs on this machine: a connection to itself has one address at both ends."""
    return local[0] == remote[0] or remote[0].startswith("127.")


class ProcessLookup:
    """Finds the process behind a client connection. One for all loops' connections of a proxy; closed with it."""

    def __init__(self, config: MitmConfig) -> None:
        process_attribution = config.process_attribution
        ttl = process_attribution.cache_ttl_ms
        self.attribution = ProcessAttribution(process_attribution.cache_capacity, None if ttl is None else ttl / 1000)
        self.seconds = process_attribution.lookup_timeout_ms / 1000
        self.enabled = process_attribution.enabled
        self.timeouts = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="soth-mitm process")

    async def find(self, endpoint: Endpoint, family: SocketFamily) -> ProcessInfo | None:
        """Return the client's process; None when it is not on this machine, not found, or not found in time."""
        loop = asyncio.get_running_loop()
        if isinstance(family, UnixDomain):
            assert endpoint.transport is not None
            future = loop.run_in_executor(self._threads, self.attribution.lookup_unix, endpoint.transport.get_extra_info("socket"))
        else:
            local, remote = family.local, family.remote
            if not is_on_this_machine(local, remote):
                return None
            future = loop.run_in_executor(self._threads, self.attribution.lookup, local, remote)
        try:
            return await asyncio.wait_for(future, self.seconds)
        except TimeoutError:
            self.timeouts += 1
            return None

    def close(self) -> None:
        """Stop the threads, without waiting for a look-up that hangs."""
        self._threads.shutdown(wait=False, cancel_futures=True)
