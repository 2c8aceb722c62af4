"""Reaching an upstream: names to addresses off the loop, the first address that answers, TLS when wanted."""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.transport.awaitable_endpoint import Intake
from soth_mitm.address_guard import AddressGuard
from soth_mitm.addresses import format_host_port, is_address
from soth_mitm.config import MitmConfig
from soth_mitm.connection import SocketAddress
from soth_mitm.destinations import DestinationMap, DestinationPattern, parse_redirect
from soth_mitm.errors import AddressDeniedError, ConnectFailedError, StageTimeoutError, TlsFailedError, WireError
from soth_mitm.escaping import get_logger
from soth_mitm.proxy.protocols import UpstreamEndpoint
from soth_mitm.proxy.resolver import Resolver
from soth_mitm.proxy.tally import Tally
from soth_mitm.proxy.tls_facts import upstream_facts
from soth_mitm.tls.contexts import ClientCertificate, UpstreamContexts
from soth_mitm.tls.failures import advise, classify, describe

log = get_logger("soth_mitm.proxy")

# RFC 8305 section 5 recommends 250 ms between attempts
STAGGER_SECONDS = 0.25


class Origin(NamedTuple):
    """Where to connect, and as whom: the key of a pool. `server_name` is None for plain text."""

    host: str
    port: int
    server_name: str | None = None
    client_cert: ClientCertificate | None = None

    def __str__(self) -> str:
        return f"{'https' if self.server_name else 'http'}://{format_host_port(self.host, self.port)}"


class LoopsBackError(ConnectFailedError):
    """The target is one of our own listening addresses."""


class Dialler:
    """Connects to upstreams for one configuration. `is_ours` tells the addresses that we listen on ourselves."""

    def __init__(
        self,
        config: MitmConfig,
        contexts: UpstreamContexts,
        resolver: Resolver,
        arena: Arena,
        tally: Tally,
        is_ours: Callable[[SocketAddress], bool],
    ) -> None:
        self._connect_seconds = config.upstream.connect_timeout_ms / 1000
        self._handshake_seconds = config.timeouts.upstream_tls_handshake_ms / 1000
        self._retry = config.upstream.retry_on_failure
        self._retry_seconds = config.upstream.retry_delay_ms / 1000
        self._elsewhere = DestinationMap(parse_redirect(text) for text in config.upstream.connect_to)
        self._guard = AddressGuard(config)
        self._unverified = DestinationMap((DestinationPattern.parse(text), True) for text in config.upstream.insecure_destinations)
        self._contexts = contexts
        self._resolver = resolver
        self._arena = arena
        self._tally = tally
        self._is_ours = is_ours

    def speaks_tls(self, host: str, port: int, secure: bool) -> bool:
        """Tell whether upstream connections for a target speak TLS, where requests do if `secure`."""
        there = self._elsewhere.get(host, port)
        return secure if there is None or there.secure is None else there.secure

    async def dial(self, origin: Origin) -> UpstreamEndpoint:
        """Return a connection that is ready for its first byte; its `facts` are set when it speaks TLS.

        Raises `ConnectFailedError`, `StageTimeoutError` or `TlsFailedError`, each with the status that a client is to be answered. Whatever
        it ends in, cancellation included, no connection of it stays open.
        """
        try:
            endpoint = await self._connect_or_retry(origin)
            if origin.server_name is not None:
                await self._secure_or_abort(endpoint, origin)
        except AddressDeniedError:
            self._tally.denied_addresses += 1
            raise
        except WireError as error:
            self._tally.dial_errors += 1
            self._tally.dial_timeouts += error.status == 504
            raise
        except Exception as error:
            # none of the ways in which an upstream can fail: a fault of ours. The requests that wait for the connection must hear of it too
            log.exception("connecting to %s failed in an unexpected way; please report this", origin)
            self._tally.dial_errors += 1
            raise ConnectFailedError(
                f"connecting to {origin} failed in an unexpected way ({type(error).__name__}; the log has more)", side="upstream"
            ) from error.with_traceback(None)
        return endpoint

    async def _secure_or_abort(self, endpoint: UpstreamEndpoint, origin: Origin) -> None:
        try:
            await self._secure(endpoint, origin)
        except BaseException:
            endpoint.abort()
            raise

    async def _connect_or_retry(self, origin: Origin) -> UpstreamEndpoint:
        try:
            return await self._connect(origin)
        except WireError as error:
            if not (self._retry and error.retryable):
                raise
            await asyncio.sleep(self._retry_seconds)
            return await self._connect(origin)

    async def _connect(self, origin: Origin) -> UpstreamEndpoint:
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
                if any(self._is_ours(address) for address in addresses):
                    raise LoopsBackError(
                        f"{where} is this proxy itself; the request would come back here for ever", side="upstream", status=508
                    )
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
            raise ConnectFailedError(f"cannot resolve {host}: {error.strerror}", side="upstream", retryable=True) from error
        except OSError as error:
            if isinstance(error, WireError):
                raise
            # asyncio's own loop puts the address in the place of the system's words
            reason = os.strerror(error.errno) if error.errno else error.strerror or error
            # its traceback names the attempts, which hold it
            raise ConnectFailedError(f"cannot connect to {where}: {reason}", side="upstream", retryable=True) from error.with_traceback(
                None
            )

    def _permitted(self, where: str, addresses: Sequence[SocketAddress]) -> list[SocketAddress]:
        """Return the addresses that may be connected to. They are what is connected to: nothing is looked up again."""
        refusals = {address: self._guard.refusal(address[0]) for address in addresses}
        permitted = [address for address, refusal in refusals.items() if refusal is None]
        if not permitted:
            denied, refusal = next(iter(refusals.items()))
            assert refusal is not None
            raise AddressDeniedError(f"not connected to {where}: {refusal.text(denied[0])}", side="upstream", status=403)
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
        intake = Intake(loop)
        _, endpoint = await loop.create_connection(lambda: UpstreamEndpoint(self._arena, intake), *address)
        intake.attach(endpoint)
        return endpoint

    async def _secure(self, endpoint: UpstreamEndpoint, origin: Origin) -> None:
        loop = asyncio.get_running_loop()
        assert origin.server_name is not None
        intake = Intake(loop)
        intake.attach(endpoint)
        session = None
        try:
            verify = self._unverified.get(origin.host, origin.port) is None
            context = self._contexts.context(("http/1.1",), origin.client_cert, verify=verify)
            session = self._contexts.sessions.get(origin.server_name, origin.port, context)
            if session is not None:
                endpoint.offered = session
            async with asyncio.timeout(self._handshake_seconds):
                endpoint.start_tls(context, False, origin.server_name, session)
                while not intake.is_secured:
                    if intake.tls_error is not None:
                        raise intake.tls_error
                    if intake.over:
                        raise intake.error or ConnectionResetError("the upstream closed the connection during the TLS handshake")
                    await intake.changed()
        except (TimeoutError, OSError, ValueError) as error:
            if session is not None:
                self._contexts.sessions.discard(origin.server_name, origin.port, context)
            # its traceback names the intake, which holds it
            raise self._tls_failed(origin, error) from error.with_traceback(None)
        assert endpoint.tls is not None
        facts = endpoint.facts = upstream_facts(endpoint.tls)
        self._tally.upstream_handshakes += 1
        self._tally.upstream_resumed += facts.resumed

    def refused(self, origin: Origin, error: Exception) -> TlsFailedError:
        """Count `error`, in which a connection to `origin` ended after its handshake and before anything else came; return what to tell."""
        self._tally.dial_errors += 1
        failure = self._tls_failed(origin, error)
        failure.__cause__ = error
        return failure

    def _tls_failed(self, origin: Origin, error: Exception) -> TlsFailedError:
        late = isinstance(error, TimeoutError)
        detail = f"no answer within {self._handshake_seconds:g} s (timeouts.upstream_tls_handshake_ms)" if late else describe(error)
        where = format_host_port(origin.host, origin.port)
        if origin.server_name != origin.host:
            where = f"{origin.server_name} at {where}"
        advice = advise(error)
        reason = classify(error, "upstream")
        self._tally.upstream_tls_failures[reason] += 1
        return TlsFailedError(
            f"the TLS handshake with {where} failed: {detail}" + (f"; {advice}" if advice else ""),
            side="upstream",
            reason=reason,
            detail=detail,
            status=504 if late else 502,
        )

    def keep_session(self, endpoint: UpstreamEndpoint, origin: Origin) -> None:
        """Remember the TLS session of a connection that has received data, for the next handshake with that origin."""
        if endpoint.tls is None or origin.server_name is None:
            return
        engine = endpoint.tls.ssl_object
        self._contexts.sessions.keep(origin.server_name, origin.port, engine.context, engine, endpoint.offered)


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


def abandon(attempt: asyncio.Task[UpstreamEndpoint]) -> None:
    """Cancel an attempt that nobody waits for any more, and cut the connection that it may have made all the same."""
    attempt.cancel()
    attempt.add_done_callback(_drop_late_connection)


def _drop_late_connection(attempt: asyncio.Task[UpstreamEndpoint]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()
