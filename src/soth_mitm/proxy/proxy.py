"""The public way in: a builder, and a proxy that can be started."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from soth_mitm.addresses import is_loopback
from soth_mitm.config import MitmConfig
from soth_mitm.connection import SocketAddress
from soth_mitm.errors import ShutdownTimeoutError
from soth_mitm.escaping import get_logger
from soth_mitm.handler import InterceptHandler, check_handler
from soth_mitm.observe.event_sink import EventSink
from soth_mitm.observe.observation import Observer
from soth_mitm.observe.sink_feeds import check_sink
from soth_mitm.proxy.handle import MitmProxyHandle
from soth_mitm.proxy.listener import Listener
from soth_mitm.proxy.loops import new_event_loop
from soth_mitm.proxy.service import Service
from soth_mitm.proxy.signals import StopSignals
from soth_mitm.proxy.status_pages import StatusPages, check_exposition
from soth_mitm.proxy.status_server import StatusServer
from soth_mitm.proxy.threaded import ThreadedHandle
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.ca_files import ca_paths, load_or_create_ca, save_ca
from soth_mitm.tls.ciphers import check_ciphers

log = get_logger("soth_mitm.proxy")


class MitmProxyBuilder:
    """Collects what a proxy needs. `handler` is an `InterceptHandler`, or any object with methods of the same names."""

    def __init__(self, config: MitmConfig, handler: object | None = None) -> None:
        self._config = config
        self._handler = handler if handler is not None else InterceptHandler()
        self._ca: CertificateAuthority | None = None
        self._observer: Observer | None = None
        self._sinks: list[EventSink] = []
        self._views: list[SocketAddress] = []

    def with_ca(self, ca: CertificateAuthority) -> "MitmProxyBuilder":
        """Use this CA; its files are written to `tls.ca_cert_path` and `.ca_key_path` if those are set."""
        self._ca = ca
        return self

    def with_observer(self, observer: Observer) -> "MitmProxyBuilder":
        """Tell `observer` what happens, after it has happened: what it does or raises touches no decision. For the command line."""
        self._observer = observer
        return self

    def with_event_sink(self, sink: EventSink) -> "MitmProxyBuilder":
        """Give `sink` the events and flows that it wants, in a thread of its own (docs/events.md). May be called for several sinks.

        `TypeError` and `ValueError` say what is wrong with a sink that could not be fed. `start` opens it, and raises `EventSinkError` if
        that fails. A sink serves one proxy at a time.
        """
        if any(known is sink for known in self._sinks):
            raise ValueError(f"{type(sink).__name__}: this sink is attached already")
        self._sinks.append(check_sink(sink))
        return self

    def with_view_at(self, host: str, port: int) -> "MitmProxyBuilder":
        """Let no request go to this loopback address, where the flows of this proxy are shown: its clients are not to read them.

        It is refused in every spelling, and by names that lead to it. `ValueError` if `host` is no IP address of this machine's loopback.
        """
        if not is_loopback(host):
            raise ValueError(f"{host!r} is no loopback address")
        self._views.append((host, port))
        return self

    def build(self) -> "MitmProxy":
        """Check everything and return the proxy; no file and no socket is touched.

        Raises `InvalidConfigError` with the dotted key at fault, and `TypeError` for a handler that cannot be one: it overrides nothing, or
        has a method whose name is a hook's misspelt; `InterceptHandler()` itself may be given, or no handler. Later changes of the
        configuration object have no effect.
        """
        config = self._config.copy()
        config.validate()
        check_ciphers(config.upstream.ciphers)
        check_exposition(config)
        check_handler(self._handler)
        return MitmProxy(config, self._handler, self._ca, self._observer, self._sinks, self._views)


class MitmProxy:
    """A proxy that can be started, once. Made by `MitmProxyBuilder`."""

    def __init__(
        self,
        config: MitmConfig,
        handler: object,
        ca: CertificateAuthority | None = None,
        observer: Observer | None = None,
        sinks: Sequence[EventSink] = (),
        views: Sequence[SocketAddress] = (),
    ) -> None:
        self._config = config
        self._handler = handler
        self._given_ca = ca
        self._observer = observer
        self._sinks = tuple(sinks)
        self._views = tuple(views)
        self._handle: MitmProxyHandle | None = None

    async def start(self) -> "MitmProxyHandle":
        """Open the sockets and serve in the background of the running loop.

        Raises `BindError` when a socket cannot be opened, `CaError` when the CA cannot be loaded or made, and `EventSinkError` when a sink
        cannot be opened.
        """
        if self._handle is not None:
            raise RuntimeError("this proxy was started before; build another one")
        ca, ca_paths = await asyncio.to_thread(self._load_ca)
        config = self._config
        unix_path = Path(config.unix_socket_path) if config.unix_socket_path is not None else None
        listener = Listener.open(config.bind, unix_path, int(config.unix_socket_mode, 8))
        status: Listener | None = None
        try:
            status = Listener.open_status(config)
            service = Service(config, self._handler, ca, listener, self._observer, status, self._sinks, self._views)
            if status is not None:
                service.status_server = StatusServer(status, StatusPages(service, listener).page)
            await service.start()
        except BaseException:
            listener.close()
            if status is not None:
                status.close()
            raise
        self._handle = MitmProxyHandle(service, listener, ca_paths, status)
        return self._handle

    def _load_ca(self) -> tuple[CertificateAuthority, tuple[Path, Path] | None]:
        tls = self._config.tls
        if self._given_ca is not None and (tls.ca_cert_path is None or tls.ca_key_path is None):
            return self._given_ca, None
        cert_path, key_path = ca_paths(tls.ca_cert_path, tls.ca_key_path)
        if self._given_ca is not None:
            save_ca(self._given_ca, cert_path, key_path)
            return self._given_ca, (cert_path, key_path)
        ca, _ = load_or_create_ca(cert_path, key_path)
        return ca, (cert_path, key_path)

    def start_in_thread(self, *, shutdown_timeout: float | timedelta | None = None) -> ThreadedHandle:
        """Start on a loop of its own in a thread of its own, and return when it listens. For programs without asyncio.

        `shutdown_timeout` (seconds; `timeouts.drain_ms` when None) is how long the handle's `shutdown()`, and leaving its `with` block, let
        open flows finish. Raises what `start` raises.
        """
        return ThreadedHandle(self.start, shutdown_timeout)

    async def run(self) -> None:
        """Start and serve until cancelled, or until the handle's `shutdown`; drains for `timeouts.drain_ms` on the way out."""
        async with self as handle:
            await handle.wait_closed()

    def run_forever(self, on_start: Callable[[MitmProxyHandle], object] | None = None) -> None:
        """Serve from a script, on a loop of its own (uvloop's), until SIGINT, SIGTERM or SIGHUP; a second one cuts what is left.

        `on_start(handle)` is called once, on the loop, when the proxy listens: to say where, or to keep the handle. Raises what `start`
        raises, what `on_start` raises, and an exception of a hook that is no `Exception`.
        """
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            fatal = runner.run(self._run_until_signal(on_start))
        if fatal is not None:
            raise fatal

    async def _run_until_signal(self, on_start: Callable[[MitmProxyHandle], object] | None) -> BaseException | None:
        signals = StopSignals(asyncio.get_running_loop())
        handle = await self.start()
        try:
            if on_start is not None:
                on_start(handle)
        except BaseException:
            await handle.shutdown(0)
            raise
        await signals.wait_for_one(handle)
        try:
            await signals.shut_down(handle)
        except ShutdownTimeoutError as late:
            log.warning("%s", late)
        return handle.take_fatal()

    async def __aenter__(self) -> "MitmProxyHandle":
        return await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Shut down; connections that had to be cut are logged, and are no error of the block."""
        if self._handle is None:
            return
        try:
            await self._handle.shutdown()
        except ShutdownTimeoutError as late:
            log.warning("%s", late)
        fatal = self._handle.take_fatal()
        if fatal is not None:
            raise fatal
