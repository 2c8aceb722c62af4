"""The public way in: a builder, a proxy, and the handle of a running one."""

import asyncio
import signal
import sys
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from soth_mitm.config import MitmConfig
from soth_mitm.errors import CaError
from soth_mitm.handler import InterceptHandler, overridden_hooks
from soth_mitm.metrics import ProxyMetrics
from soth_mitm.proxy.listener import Listener
from soth_mitm.proxy.service import Service
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.ca_files import default_ca_paths, load_or_create_ca, save_ca


def seconds_of(timeout: float | timedelta | None, otherwise_ms: int) -> float:
    """Return a timeout in seconds; None stands for `otherwise_ms`."""
    if timeout is None:
        return otherwise_ms / 1000
    return timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)


class MitmProxyBuilder:
    """Collects what a proxy needs. `handler` is an `InterceptHandler`, or any object with methods of the same names."""

    def __init__(self, config: MitmConfig, handler: object | None = None) -> None:
        self._config = config
        self._handler = handler if handler is not None else InterceptHandler()
        self._ca: CertificateAuthority | None = None

    def with_ca(self, ca: CertificateAuthority) -> "MitmProxyBuilder":
        """Use this CA; its files are written to `tls.ca_cert_path` and `.ca_key_path` if those are set."""
        self._ca = ca
        return self

    def build(self) -> "MitmProxy":
        """Check everything and return the proxy; no file and no socket is touched.

        Raises `InvalidConfigError` with the dotted key at fault, and `TypeError` for a handler that cannot be one. Later changes of the
        configuration object have no effect.
        """
        config = self._config.copy()
        config.validate()
        overridden_hooks(self._handler)
        return MitmProxy(config, self._handler, self._ca)


class MitmProxy:
    """A proxy that can be started, once. Made by `MitmProxyBuilder`."""

    def __init__(self, config: MitmConfig, handler: object, ca: CertificateAuthority | None = None) -> None:
        self._config = config
        self._handler = handler
        self._given_ca = ca
        self._handle: MitmProxyHandle | None = None

    async def start(self) -> "MitmProxyHandle":
        """Open the sockets and serve in the background of the running loop.

        Raises `BindError` when a socket cannot be opened and `CaError` when the CA cannot be loaded or made.
        """
        if self._handle is not None:
            raise RuntimeError("this proxy was started before; build another one")
        ca, cert_path = await asyncio.to_thread(self._load_ca)
        config = self._config
        unix_path = Path(config.unix_socket_path) if config.unix_socket_path is not None else None
        listener = Listener.open(config.bind, unix_path, int(config.unix_socket_mode, 8))
        try:
            service = Service(config, self._handler, ca, listener)
            await service.start()
        except BaseException:
            listener.close()
            raise
        self._handle = MitmProxyHandle(service, listener, ca, cert_path)
        return self._handle

    def _load_ca(self) -> tuple[CertificateAuthority, Path | None]:
        tls = self._config.tls
        if self._given_ca is not None:
            if tls.ca_cert_path is None or tls.ca_key_path is None:
                return self._given_ca, None
            save_ca(self._given_ca, tls.ca_cert_path, tls.ca_key_path)
            return self._given_ca, Path(tls.ca_cert_path)
        default_cert, default_key = default_ca_paths()
        cert_path = Path(tls.ca_cert_path) if tls.ca_cert_path is not None else default_cert
        key_path = Path(tls.ca_key_path) if tls.ca_key_path is not None else default_key
        ca, _ = load_or_create_ca(cert_path, key_path)
        return ca, cert_path

    async def run(self) -> None:
        """Start and serve until cancelled, or until the handle's `shutdown`; drains for `timeouts.drain_ms` on the way out."""
        handle = await self.start()
        try:
            await handle.wait_closed()
        finally:
            await handle.shutdown()

    def run_forever(self) -> None:
        """Serve from a script, on a loop of its own (uvloop's), until SIGINT or SIGTERM."""
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(self._run_until_signal())

    async def _run_until_signal(self) -> None:
        handle = await self.start()
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            if sys.platform == "win32":
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(asked.set))
            else:
                loop.add_signal_handler(number, asked.set)
        await asked.wait()
        await handle.shutdown()

    async def __aenter__(self) -> "MitmProxyHandle":
        return await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._handle is not None:
            await self._handle.shutdown()


class MitmProxyHandle:
    """A running proxy. All methods belong to the loop that it was started on; see `start_in_thread` for other threads."""

    def __init__(self, service: Service, listener: Listener, ca: CertificateAuthority, ca_path: Path | None) -> None:
        self._service = service
        self._listener = listener
        self._closed = asyncio.Event()
        self._ca = ca
        self._ca_path = ca_path

    @property
    def address(self) -> str:
        """The address that is listened on, without the port."""
        return self._listener.addresses[0][0]

    @property
    def port(self) -> int:
        """The port that is listened on; the real one when `bind` asked for port 0."""
        return self._listener.addresses[0][1]

    @property
    def ca(self) -> CertificateAuthority:
        """The CA that signs the certificates which clients are shown."""
        return self._ca

    @property
    def ca_certificate_path(self) -> Path:
        """The file with the certificate that clients must trust. `CaError` if the CA was given in memory and no path configured."""
        if self._ca_path is None:
            raise CaError("this CA was given in memory; set tls.ca_cert_path and tls.ca_key_path, or write handle.ca.cert_pem yourself")
        return self._ca_path

    def current_config(self) -> MitmConfig:
        """Return a copy of the configuration that connections are accepted under now."""
        return self._service.config.copy()

    def metrics(self) -> ProxyMetrics:
        """Return a consistent snapshot of all counters."""
        return self._service.metrics()

    async def reload(self, config: MitmConfig) -> None:
        """Apply `config` to connections that are accepted from now on; those in flight keep theirs.

        Raises `InvalidConfigError`, and changes nothing, when it is invalid or differs in what needs a new socket or CA.
        """
        config = config.copy()
        config.validate()
        self._service.reload(config)

    async def shutdown(self, timeout: float | timedelta | None = None) -> None:
        """Stop accepting, finish what is under way within `timeout` (seconds; `timeouts.drain_ms` when None), cut the rest.

        Raises `ShutdownTimeoutError` when connections had to be cut. Nothing of the proxy is left afterwards, either way. A second call
        waits for the first and returns.
        """
        try:
            await self._service.shutdown(seconds_of(timeout, self._service.config.timeouts.drain_ms))
        finally:
            self._closed.set()

    async def wait_closed(self) -> None:
        """Wait until the proxy was shut down."""
        await self._closed.wait()

    def __repr__(self) -> str:
        return f"<MitmProxyHandle on {self.address}:{self.port}>"


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop of the fastest kind for this platform: uvloop's, or winloop's on Windows."""
    if sys.platform == "win32":
        import winloop

        return winloop.new_event_loop()  # type: ignore[no-any-return, unused-ignore]
    import uvloop

    return uvloop.new_event_loop()
