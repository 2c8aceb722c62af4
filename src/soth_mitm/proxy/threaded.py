"""A proxy for programs without asyncio: on a loop of its own, in a thread of its own."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from soth_mitm.config import MitmConfig
from soth_mitm.errors import ShutdownTimeoutError
from soth_mitm.metrics import ProxyMetrics
from soth_mitm.proxy.handle import MitmProxyHandle
from soth_mitm.proxy.loops import new_event_loop
from soth_mitm.tls.bypass import TlsBypass
from soth_mitm.tls.ca import CertificateAuthority

log = logging.getLogger("soth_mitm.proxy")

T = TypeVar("T")
Start = Callable[[], Coroutine[Any, Any, MitmProxyHandle]]


class ThreadedHandle:
    """A running proxy as other threads see it; every method may be called from any of them. Also a context manager."""

    def __init__(self, start: Start) -> None:
        self._started = threading.Event()
        self._handle: MitmProxyHandle | None = None
        self._error: BaseException | None = None
        self._fatal: BaseException | None = None
        self._was_told = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, args=(start,), name="soth-mitm", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def _run(self, start: Start) -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            self._loop = runner.get_loop()
            runner.run(self._serve(start))

    async def _serve(self, start: Start) -> None:
        try:
            self._handle = await start()
        except BaseException as error:
            # raised again in the thread that called start_in_thread
            self._error = error
            return
        finally:
            self._started.set()
        await self._handle.wait_ended()
        self._fatal = self._handle.take_fatal()
        if self._fatal is not None:
            try:
                await self._handle.shutdown()
            except ShutdownTimeoutError as error:
                log.warning("%s", error)

    @property
    def _running(self) -> MitmProxyHandle:
        assert self._handle is not None
        return self._handle

    def _on_loop(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        assert self._loop is not None
        if not self._thread.is_alive():
            raise RuntimeError("the proxy was shut down")
        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _ask(self, question: Callable[[], T]) -> T:
        """Call `question` on the loop; here, once the loop has ended and nothing changes any more."""

        async def ask() -> T:
            return question()

        return self._on_loop(ask) if self._thread.is_alive() else question()

    @property
    def address(self) -> str:
        """The address that is listened on, without the port."""
        return self._running.address

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._running.port

    @property
    def ca(self) -> CertificateAuthority:
        """The CA that signs the certificates which clients are shown."""
        return self._running.ca

    @property
    def ca_certificate_path(self) -> Path:
        """The file with the certificate that clients must trust."""
        return self._running.ca_certificate_path

    def current_config(self) -> MitmConfig:
        """Return a copy of the configuration that connections are accepted under now."""
        return self._running.current_config()

    def metrics(self) -> ProxyMetrics:
        """Return a consistent snapshot of all counters."""

        return self._ask(self._running.metrics)

    def tls_bypasses(self) -> list[TlsBypass]:
        """Return the destinations whose TLS is tunnelled for a program now, because it kept refusing our certificate there."""
        return self._ask(self._running.tls_bypasses)

    def clear_tls_bypass(self, host: str | None = None, process: str | None = None) -> int:
        """End the bypasses of a host, of a process (as a `TlsBypass` names them), of both, or all; return how many there were.

        The next connections are intercepted, and the refusals counted so far are forgotten too; open tunnels go on. `ValueError` if
        `host` is none.
        """
        return self._ask(lambda: self._running.clear_tls_bypass(host, process))

    def reload(self, config: MitmConfig) -> None:
        """Apply `config` to connections that are accepted from now on. Raises `InvalidConfigError`, and then changes nothing."""
        self._on_loop(lambda: self._running.reload(config))

    def rotate_ca(self, ca: CertificateAuthority) -> None:
        """Sign with `ca` from the next TLS handshake on; see `MitmProxyHandle.rotate_ca`."""
        self._on_loop(lambda: self._running.rotate_ca(ca))

    def client_environment(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables with which a program goes through this proxy and trusts its CA; see `MitmProxyHandle`."""
        return self._on_loop(lambda: self._running.client_environment(environ))

    def shutdown(self, timeout: float | timedelta | None = None) -> None:
        """Drain and stop, and end the thread. Raises `ShutdownTimeoutError` when connections had to be cut."""
        if not self._thread.is_alive():
            return
        try:
            self._on_loop(lambda: self._running.shutdown(timeout))
        finally:
            self._thread.join()

    def wait_closed(self) -> None:
        """Wait until the proxy was shut down.

        A method of the handler that raises what is no `Exception` (`SystemExit`, `KeyboardInterrupt`, ...) ends the proxy, and this raises
        it; leaving a `with` block does so too.
        """
        self._thread.join()
        if self._fatal is not None:
            self._was_told = True
            raise self._fatal

    def __enter__(self) -> "ThreadedHandle":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.shutdown()
        if not self._was_told:
            self.wait_closed()
