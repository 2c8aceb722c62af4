"""The direct way to an upstream: its name is resolved here, and the first of its addresses that answers is connected to."""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm.address_guard import AddressGuard
from soth_mitm.addresses import format_host_port, is_address
from soth_mitm.config import MitmConfig
from soth_mitm.connection import SocketAddress
from soth_mitm.destinations import DestinationMap, Redirect
from soth_mitm.errors import AddressDeniedError, ConnectFailedError, ConnectFailure, StageTimeoutError, WireError
from soth_mitm.proxy.detached import detached
from soth_mitm.proxy.outbound.origin import Origin, abandon
from soth_mitm.proxy.own_address import OwnAddress
from soth_mitm.proxy.protocols import UpstreamEndpoint
from soth_mitm.proxy.resolver import Resolver

# RFC 8305 section 5 recommends 250 ms between attempts
STAGGER_SECONDS = 0.25


class Direct:
    """Connects to origins themselves, or to where `connect_to` leads. `own_address` tells those at which we listen ourselves."""

    def __init__(
        self,
        config: MitmConfig,
        connect_to: DestinationMap[Redirect],
        resolver: Resolver,
        arena: Arena,
        own_address: Callable[[SocketAddress], OwnAddress | None],
    ) -> None:
        self._connect_seconds = config.upstream.connect_timeout_ms / 1000
        self._elsewhere = connect_to
        self._guard = AddressGuard(config)
        self._resolver = resolver
        self._arena = arena
        self._own_address = own_address

    async def connect(self, origin: Origin) -> UpstreamEndpoint:
        """See `Outbound`."""
        where = format_host_port(origin.host, origin.port)
        host, port = origin.host, origin.port
        # an address in upstream.connect_to is the owner's own word; what a name leads to is the word of a name server
        guarded = True
        if (there := self._elsewhere.get(host, port)) is not None:
            host, port = there.host, there.port
            where = f"{where} at {there} (upstream.connect_to)"
            guarded = not is_address(host)
        try:
            async with asyncio.timeout(self._connect_seconds):
                found = await self._resolver.addresses(host)
                addresses = _interleaved([(address, port) for address in found])
                for own in map(self._own_address, addresses):
                    if own is not None:
                        raise ConnectFailedError(f"{where} {own.text}", side="upstream", reason="itself", status=own.status)
                if guarded:
                    addresses = self._permitted(where, addresses)
                try:
                    return await self._first_to_answer(addresses)
                except (OSError, asyncio.CancelledError):
                    # refused or late; the name may have moved
                    self._resolver.forget(host, found)
                    raise
        except TimeoutError:
            raise StageTimeoutError(
                f"connecting to {where} took longer than {self._connect_seconds:g} s (upstream.connect_timeout_ms)",
                side="upstream",
                status=504,
                retryable=True,
            ) from None
        except socket.gaierror as error:
            raise ConnectFailedError(f"cannot resolve {host}: {error.strerror}", side="upstream", reason="name", retryable=True) from error
        except OSError as error:
            if isinstance(error, WireError):
                raise
            # asyncio's own loop puts the address in the place of the system's words
            reason = os.strerror(error.errno) if error.errno else error.strerror or error
            kind: ConnectFailure = "refused" if isinstance(error, ConnectionRefusedError) else "unreachable"
            raise ConnectFailedError(f"cannot connect to {where}: {reason}", side="upstream", reason=kind, retryable=True) from detached(
                error
            )

    def _permitted(self, where: str, addresses: Sequence[SocketAddress]) -> list[SocketAddress]:
        """Return the addresses that may be connected to. They are what is connected to: nothing is looked up again."""
        refusals = {address: self._guard.refusal(address[0]) for address in addresses}
        permitted = [address for address, refusal in refusals.items() if refusal is None]
        if not permitted:
            denied, refusal = next(iter(refusals.items()))
            assert refusal is not None
            raise AddressDeniedError(f"not connected to {where}: {refusal.text(denied[0])}", side="upstream", reason="denied", status=403)
        return permitted

    async def _first_to_answer(self, addresses: Sequence[SocketAddress]) -> UpstreamEndpoint:
        """Try the addresses one after another, not waiting for a slow one before the next is tried (RFC 8305)."""
        loop = asyncio.get_running_loop()
        attempts: set[asyncio.Task[UpstreamEndpoint]] = set()
        failures: list[BaseException] = []
        waiting = list(addresses)
        try:
            while waiting or attempts:
                if waiting:
                    attempts.add(loop.create_task(self._connect_to(waiting.pop(0))))
                done, _ = await asyncio.wait(attempts, timeout=STAGGER_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    attempts.discard(attempt)
                    failure = attempt.exception()
                    if failure is None:
                        return attempt.result()
                    failures.append(failure)
        finally:
            # two may have been answered in the same moment
            for attempt in attempts:
                abandon(attempt)
        raise failures[0]

    async def _connect_to(self, address: SocketAddress) -> UpstreamEndpoint:
        loop = asyncio.get_running_loop()
        intake = AwaitableEndpoint(loop)
        _, endpoint = await loop.create_connection(lambda: UpstreamEndpoint(self._arena, intake), *address)
        intake.attach(endpoint)
        return endpoint


def _interleaved(addresses: Sequence[SocketAddress]) -> list[SocketAddress]:
    """Return the addresses with the families taking turns, in the resolver's order otherwise."""
    unique = list(dict.fromkeys(addresses))
    sixes = [address for address in unique if ":" in address[0]]
    fours = [address for address in unique if ":" not in address[0]]
    first, second = (sixes, fours) if unique and ":" in unique[0][0] else (fours, sixes)
    mixed: list[SocketAddress] = []
    for index in range(max(len(first), len(second))):
        mixed += first[index : index + 1] + second[index : index + 1]
    return mixed
