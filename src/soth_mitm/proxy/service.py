"""A running proxy on its loop: accepts connections, keeps account of them, reloads, drains."""

import asyncio
import contextlib
import functools
import itertools
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from soth_mitm._dataplane.exchange.open_websockets import OpenWebSockets
from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import HookCounters
from soth_mitm._dataplane.http1.encoder import own_explanation
from soth_mitm._dataplane.memory.budget import Budget
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.transport.callbacks import EndpointCallbacks
from soth_mitm._dataplane.transport.lingering_close import linger_and_close
from soth_mitm._dataplane.websocket.message_writer import MessageWriter
from soth_mitm.addresses import format_host_port
from soth_mitm.config import MitmConfig
from soth_mitm.connection import SocketAddress, SocketFamily, TcpV4, TcpV6, UnixDomain
from soth_mitm.errors import InvalidConfigError, ShutdownTimeoutError
from soth_mitm.escaping import get_logger
from soth_mitm.metrics import ProxyMetrics
from soth_mitm.observe.event_sink import EventSink, SinkInfo
from soth_mitm.observe.flow_event import FlowEventKind
from soth_mitm.observe.observation import Observation, Observer
from soth_mitm.observe.recording import ProxyRecording
from soth_mitm.observe.sink_feeds import SinkFeeds
from soth_mitm.policy import Policy
from soth_mitm.proxy.calls import HandlerReports
from soth_mitm.proxy.connection_setup import ConnectionSetup
from soth_mitm.proxy.counters import ConnectionCounters
from soth_mitm.proxy.descriptors import DescriptorWatch
from soth_mitm.proxy.flow_counts import PatternCounts
from soth_mitm.proxy.generation import ConfigGeneration
from soth_mitm.proxy.inbound.http_proxy import HttpProxy
from soth_mitm.proxy.learning import Learning
from soth_mitm.proxy.leaves import Leaves
from soth_mitm.proxy.listener import Listener
from soth_mitm.proxy.metrics_collection import collect_metrics
from soth_mitm.proxy.own_address import THE_PROXY, THE_STATUS_PAGES, THE_VIEW, OwnAddress, reaches
from soth_mitm.proxy.process_lookup import ProcessLookup
from soth_mitm.proxy.protocols import ClientEndpoint
from soth_mitm.proxy.resources import ProxyResources
from soth_mitm.proxy.start_warnings import start_warnings
from soth_mitm.proxy.status_server import StatusServer
from soth_mitm.proxy.threads import Threads
from soth_mitm.tls.ca import CertificateAuthority

log = get_logger("soth_mitm.proxy")

Direction = Literal["to_client", "to_upstream"]

# How long what goes on after a connection was cut may take before it is cancelled.
ABORT_SECONDS = 1.0
# WebSockets that are still open so long before the end of a drain are closed.
GOODBYE_SECONDS = 1.0
# Of a Close: what RFC 6455 section 5.5 leaves behind the code.
LONGEST_REASON = 123
HTTP_PROXY = HttpProxy()


class Accepting(ClientEndpoint):
    """The protocol of an accepted socket, which tells the service as soon as it is connected, and as soon as it is lost."""

    _service: "Service"
    _local: SocketAddress | None
    _remote: SocketAddress | None = None

    def __new__(cls, service: "Service", local: SocketAddress | None) -> "Accepting":
        accepting: Accepting = super().__new__(cls, service.arena, EndpointCallbacks())
        accepting._service = service
        accepting._local = local
        return accepting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        family = _family(transport, self._local)
        if not isinstance(family, UnixDomain):
            self._remote = family.remote
        self._service.descriptors.accepted(transport.get_extra_info("socket").fileno())
        self._service.accept(self, family)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self._remote is not None:
            # its program is likely to connect again, in the same way
            self._service.lookup.connection_ended(self._remote)


# Each proxy of the process numbers its flows in a range of its own, so that a flow's number is unique among all of them.
FLOW_ID_BITS = 40
_SERVICES = itertools.count()


class Service:
    """One proxy on one loop, from its first socket to its last."""

    def __init__(
        self,
        config: MitmConfig,
        handler: object,
        ca: CertificateAuthority,
        listener: Listener,
        observer: Observer | None = None,
        status_listener: Listener | None = None,
        sinks: Sequence[EventSink] = (),
        views: Sequence[SocketAddress] = (),
    ) -> None:
        self._listener = listener
        self._loop = loop = asyncio.get_running_loop()
        self._budget = Budget(config.max_in_flight_bytes, loop.call_soon)
        self.arena = Arena(config.max_http_head_bytes, self._budget)
        counters = Counters()
        counters.last_flow_id = next(_SERVICES) << FLOW_ID_BITS
        self._counters = ConnectionCounters()
        self._observation = None if observer is None else Observation(loop, observer)
        self._sinks = SinkFeeds(sinks, loop) if sinks else None
        self.fatal: BaseException | None = None
        """The first exception that is no `Exception` which a hook raised: it is the owner's to hear."""
        self.on_fatal: Callable[[], object] | None = None
        """Called when there is one."""
        self.on_over: Callable[[], object] | None = None
        """Called when nothing of the proxy is left."""
        self.descriptors = DescriptorWatch()
        self.lookup = ProcessLookup(config)
        policy = Policy(config)
        self.learning = Learning(config, policy, self._counters)
        self._connections: set[ConnectionSetup] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.is_draining = False
        """Whether the proxy is being shut down; then it takes no connections."""
        self.status_server: StatusServer | None = None
        """Where it tells of itself, from its start to its end."""
        self._drain_until = 0.0
        self._timeout: asyncio.Timeout | None = None
        self._ending: asyncio.Task[int] | None = None
        self._over = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self.ca = ca
        """What signs the certificates that clients are shown."""
        self._leaves = Leaves(ca, config)
        # one thread: many new names at a time are not to take the interpreter from the traffic
        self._minting = Threads(1, "soth-mitm leaf")
        self._decoding = Threads(1, "soth-mitm decoding")
        self._websockets = OpenWebSockets()
        self._goodbye: asyncio.TimerHandle | None = None
        self._warned: set[str] = set()
        recording = None if self._sinks is None else ProxyRecording(self._sinks, loop, counters)
        if recording is not None and FlowEventKind.TLS_LEARNING_AUDIT in recording.kinds:
            self.learning.audit = recording.learning_audit
        self._resources = ProxyResources(
            loop=loop,
            handler=handler,
            reports=HandlerReports(self._failed),
            budget=self._budget,
            arena=self.arena,
            counters=counters,
            flow_counts=PatternCounts(counters.unlisted),
            hook_counters=HookCounters(),
            connection_counters=self._counters,
            lookup=self.lookup,
            learning=self.learning,
            observation=self._observation,
            sinks=self._sinks,
            recording=recording,
            minting=self._minting,
            decoding=self._decoding,
            websockets=self._websockets,
            own_address=functools.partial(_own_address, listener, status_listener, tuple(views)),
        )
        self._generations = [self._generation(config, policy)]

    def _generation(self, config: MitmConfig, policy: Policy) -> ConfigGeneration:
        generation = ConfigGeneration(config, policy, self._leaves.store, self._resources)
        for sentence in start_warnings(config):
            # once in the life of a proxy, however often it is reloaded
            if sentence not in self._warned:
                self._warned.add(sentence)
                log.warning("%s", sentence)
        return generation

    @property
    def config(self) -> MitmConfig:
        """The configuration of connections that are accepted now; not to be changed."""
        return self._generations[-1].config

    async def start(self) -> None:
        """Open the sinks, and begin to accept. Raises `EventSinkError`."""
        if self._sinks is not None:
            await self._sinks.open(self._sink_info())
        try:
            await self._listener.serve(functools.partial(Accepting, self))
        except BaseException:
            if self._sinks is not None:
                await self._sinks.close()
            raise
        if self.status_server is not None:
            self.status_server.start()
        self._watch = self._loop.create_task(self._until_shut_down(), name="soth-mitm")

    def _sink_info(self) -> SinkInfo:
        listening = [format_host_port(*address) for address in self._listener.addresses]
        if self.config.unix_socket_path is not None:
            listening.append(f"unix:{self.config.unix_socket_path}")
        return SinkInfo(
            proxy_id=uuid.uuid4(), version=version("soth-mitm"), pid=os.getpid(), started=time.time(), listening=tuple(listening)
        )

    async def _until_shut_down(self) -> None:
        # a loop that ends cancels what it has of tasks, and connections are none: without this they would be left as they are
        try:
            await self._over.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ShutdownTimeoutError):
                await self.shutdown(0)
            raise

    def _failed(self, error: BaseException) -> None:
        if self.fatal is not None:
            return
        self.fatal = error
        if self.on_fatal is not None:
            self.on_fatal()

    # --- connections

    def accept(self, endpoint: ClientEndpoint, family: SocketFamily) -> None:
        """A client connected. Called by its protocol."""
        generation = self._generations[-1]
        if len(self._connections) >= generation.config.max_concurrent_flows or self.is_draining:
            self._counters.rejected["draining" if self.is_draining else "limit"] += 1
            reason = "the proxy is shutting down" if self.is_draining else "too many connections (max_concurrent_flows)"
            endpoint.write(own_explanation(503, reason))
            linger_and_close(endpoint, generation.settings)
            return
        self._counters.accepted += 1
        connection = ConnectionSetup(generation, endpoint, family, HTTP_PROXY)
        self._connections.add(connection)
        self._idle.clear()
        connection.run(self._serve(connection))

    async def _serve(self, connection: ConnectionSetup) -> None:
        try:
            try:
                await connection.serve()
            except asyncio.CancelledError:
                connection.abort()
            finally:
                await connection.report_end()
        except asyncio.CancelledError:
            log.debug("on_connection_close was cancelled: the proxy is shutting down")
        finally:
            self._connections.remove(connection)
            if not self._connections:
                self._idle.set()
            self._retire_unused()

    def _retire_unused(self) -> None:
        if len(self._generations) == 1:
            return
        used = {connection.generation for connection in self._connections}
        for generation in self._generations[:-1]:
            if generation not in used:
                self._generations.remove(generation)
                task = self._loop.create_task(generation.close())
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    # --- control

    @contextlib.contextmanager
    def counted_reload(self) -> Iterator[None]:
        """Count what comes of a reload."""
        try:
            yield
        except InvalidConfigError:
            self._counters.reloads["refused"] += 1
            raise
        self._counters.reloads["applied"] += 1

    def reload(self, config: MitmConfig, policy: Policy) -> None:
        """Serve connections that are accepted from now on by `config`, which must be valid, and its policy.

        `InvalidConfigError` changes nothing.
        """
        if self.is_draining:
            raise RuntimeError("the proxy is shutting down; nothing was reloaded")
        frozen = self.config.frozen_differences(config)
        if frozen:
            raise InvalidConfigError(frozen[0], f"cannot be changed by a reload; restart the proxy (all such changes: {', '.join(frozen)})")
        generation = self._generation(config, policy)
        self._leaves.configure(config)
        generation.sign_with(self._leaves.store)
        for before in self._generations:
            before.pools.limit(config.connection_pool)
        self._generations.append(generation)
        self.learning.configure(config, policy)
        self._budget.set_limit(config.max_in_flight_bytes)
        self._retire_unused()

    def rotate_ca(self, ca: CertificateAuthority) -> None:
        """Sign with `ca` from the next TLS handshake on; connections that have done their handshake go on as they are."""
        # a client that refused the old one may trust the new one
        self.learning.clear()
        self.ca = ca
        self._leaves.rotate(ca)
        # contexts are new with the leaves, so a session of the old CA is not resumed but answered by a full handshake
        for generation in self._generations:
            generation.sign_with(self._leaves.store)

    async def shutdown(self, seconds: float) -> None:
        """Stop accepting, let flows finish for `seconds`, cut the rest. `ShutdownTimeoutError` says how many were cut.

        A second call can only shorten that, and returns when all is over. To cancel the first one is to cut what is left.
        """
        until = self._loop.time() + seconds
        first = self._ending is None
        if self._ending is None:
            self._drain_until = until
            self._begin_to_drain()
            # a task of its own: the caller may be a hook, and is cancelled then
            self._ending = self._loop.create_task(self._end(), name="soth-mitm shutdown")
        else:
            self._end_by(until)
        try:
            aborted = await asyncio.shield(self._ending)
        except asyncio.CancelledError:
            if first:
                self._end_by(self._loop.time())
                await asyncio.wait((self._ending,))
            raise
        if self._watch is not None and self._watch is not asyncio.current_task():
            await asyncio.wait((self._watch,))
        if first and aborted:
            raise ShutdownTimeoutError(aborted, seconds)

    def _begin_to_drain(self) -> None:
        self.is_draining = True
        self.learning.end()
        self._listener.close()
        for generation in self._generations:
            generation.settings.draining = True
            generation.pools.retire()
        for connection in list(self._connections):
            connection.drain()
        self._set_goodbye()

    def _set_goodbye(self) -> None:
        if self._goodbye is not None:
            self._goodbye.cancel()
        left = self._drain_until - self._loop.time()
        # before the end, so that the peers can answer
        self._goodbye = self._loop.call_later(max(0.0, left - min(GOODBYE_SECONDS, left / 2)), self._say_goodbye)

    def _say_goodbye(self) -> None:
        self._websockets.end_all(1001, b"the proxy is shutting down")

    def _end_by(self, until: float) -> None:
        if until < self._drain_until:
            self._drain_until = until
            self._set_goodbye()
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(self._drain_until)

    async def _end(self) -> int:
        """Wait for what is under way, then cut; return how many connections were cut."""
        aborted = 0
        try:
            async with asyncio.timeout_at(self._drain_until) as self._timeout:
                await self._idle.wait()
        except TimeoutError:
            aborted = len(self._connections)
            await self._abort_all()
        except asyncio.CancelledError:
            await self._abort_all()
            raise
        finally:
            self._timeout = None
            if self._goodbye is not None:
                self._goodbye.cancel()
            await self._close()
        return aborted

    async def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.abort()
        while self._connections:
            try:
                async with asyncio.timeout(ABORT_SECONDS):
                    await self._idle.wait()
            except TimeoutError:
                # what hangs now is user code or a dial; and then its on_connection_close
                for connection in list(self._connections):
                    connection.end()

    async def _close(self) -> None:
        try:
            if self._retiring:
                await asyncio.wait(self._retiring)
            for generation in self._generations:
                await generation.close()
            if self._observation is not None:
                self._observation.tell()
            self.lookup.close()
            self._minting.close()
            self._decoding.close()
            if self._sinks is not None:
                await self._sinks.close()
        finally:
            if self.status_server is not None:
                self.status_server.close()
            self._over.set()
            if self.on_over is not None:
                self.on_over()

    # --- flows

    async def inject(self, flow_id: int, payload: str | bytes, direction: Direction) -> None:
        """Send a message on a WebSocket; return when it is in the write buffer."""
        sent = self._loop.create_future()
        self._inject(flow_id, payload, direction, sent)
        await sent

    def inject_here(self, flow_id: int, payload: str | bytes, direction: Direction) -> None:
        """Have a message sent on a WebSocket in one of the next turns of the loop."""
        self._inject(flow_id, payload, direction, None)

    def _inject(self, flow_id: int, payload: str | bytes, direction: Direction, sent: asyncio.Future[None] | None) -> None:
        if direction not in ("to_client", "to_upstream"):
            raise ValueError(f'direction: "to_client" or "to_upstream", not {direction!r}')
        if not isinstance(payload, str | bytes | bytearray | memoryview):
            raise TypeError(f"payload: expected str or bytes, got {type(payload).__name__}")
        octets = payload.encode() if isinstance(payload, str) else bytes(payload)
        limit = self.config.body.max_size_bytes
        if len(octets) > limit:
            raise ValueError(f"payload: {len(octets)} bytes are over body.max_size_bytes ({limit})")
        self._websockets.inject(flow_id, octets, isinstance(payload, str), direction == "to_client", sent)

    def close_flow(self, flow_id: int, code: int, reason: str) -> None:
        """Close a WebSocket, or cut another flow, in the next turn of the loop."""
        _check_close(code, reason)
        if flow_id in self._websockets:
            self._loop.call_soon(self._websockets.close, flow_id, code, reason.encode())
            return
        for connection in self._connections:
            if connection.has_flow(flow_id):
                # it may be a hook of this flow that calls
                self._loop.call_soon(connection.cut_flow, flow_id)
                return
        raise LookupError(f"flow {flow_id} is over")

    # --- figures

    def metrics(self) -> ProxyMetrics:
        """Return all counters at this moment."""
        return collect_metrics(
            self._resources, len(self._connections), [generation.pools.counts() for generation in self._generations], self._leaves.minted
        )


def _own_address(
    listener: Listener, status_listener: Listener | None, views: Sequence[SocketAddress], address: SocketAddress
) -> OwnAddress | None:
    if listener.is_ours(address):
        return THE_PROXY
    for host, port in views:
        if port == address[1] and reaches(address[0], host):
            return THE_VIEW
    return THE_STATUS_PAGES if status_listener is not None and status_listener.is_ours(address) else None


def _check_close(code: int, reason: str) -> None:
    if not 0 <= code < 1 << 16:
        raise ValueError(f"code: {code} is no code of a Close")
    octets = reason.encode()
    if len(octets) > LONGEST_REASON:
        raise ValueError(f"reason: {len(octets)} bytes are over the {LONGEST_REASON} that a Close has room for")
    MessageWriter(False).write_close(code, octets)


def _family(transport: asyncio.BaseTransport, local: SocketAddress | None) -> SocketFamily:
    local = local or transport.get_extra_info("sockname")
    remote = transport.get_extra_info("peername")
    if not isinstance(local, tuple):
        return UnixDomain(str(Path(local or "")))
    if remote is None:
        # it has gone already
        remote = ("0.0.0.0" if transport.get_extra_info("socket").family == socket.AF_INET else "::", 0)
    kind = TcpV6 if ":" in local[0] else TcpV4
    return kind(local=local[:2], remote=remote[:2])
