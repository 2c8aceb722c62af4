"""A proxy for programs without asyncio: on a loop of its own, in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from soth_mitm.config import MitmConfig
from soth_mitm.errors import ShutdownTimeoutError
from soth_mitm.escaping import get_logger
from soth_mitm.metrics import ProxyMetrics
from soth_mitm.proxy.handle import MitmProxyHandle
from soth_mitm.proxy.loops import new_event_loop
from soth_mitm.tls.bypass import TlsBypass
from soth_mitm.tls.ca import CertificateAuthority

log = get_logger("soth_mitm.proxy")

T = TypeVar("T")
Start = Callable[[], Coroutine[Any, Any, MitmProxyHandle]]
Timeout = float | timedelta | None

log = get_logger("soth_mitm.proxy")

# How long a call that is under way when the proxy has ended may take; then it raises.
LAST_CALLS_SECONDS = 2.0


class _Ended(RuntimeError):
    """The proxy has ended, before a call or during it."""

    def __init__(self) -> None:
        super().__init__("the proxy was shut down")


class _LoopThread(threading.Thread):
    """The thread of a handle, by which a call knows that it comes from inside a hook."""

    def __init__(self, owner: "ThreadedHandle", run: Callable[[], None]) -> None:
        super().__init__(target=run, name="soth-mitm", daemon=True)
        self.owner = owner


class ThreadedHandle:
    """A running proxy as other threads see it; every method may be called from any of them. Also a context manager.

    Each call returns, or raises: `RuntimeError` when the proxy ends before the call is done. From inside a hook, which runs in the
    proxy's own thread, the calls are made there and then, and the proxy stands still meanwhile; `shutdown` begins and returns, because it
    would wait for the hook that waits for it; `wait_closed` raises `RuntimeError` for the same reason.
    """

    def __init__(self, start: Start, shutdown_timeout: Timeout = None) -> None:
        self._shutdown_timeout = shutdown_timeout
        self._started = threading.Event()
        self._handle: MitmProxyHandle | None = None
        self._error: BaseException | None = None
        self._fatal: BaseException | None = None
        self._was_told = False
        self._loop: asyncio.AbstractEventLoop | None = None
        # guards the next two: a call is either made known to the loop while it lives, or told that it does not
        self._lock = threading.Lock()
        self._over = False
        self._calls: set[Future[Any]] = set()
        # of the loop's thread
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waits_for: ThreadedHandle | None = None
        self._thread = _LoopThread(self, lambda: self._run(start))
        self._thread.start()
        self._started.wait()
        if self._handle is None:
            self._thread.join()
            assert self._error is not None
            raise self._error

    # --- in the thread

    def _run(self, start: Start) -> None:
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                self._loop = runner.get_loop()
                runner.run(self._serve(start))
        except BaseException as error:
            # raised again in the thread that called start_in_thread, or waits for the end
            self._error = error
        finally:
            with self._lock:
                self._over = True
                left = list(self._calls)
            for call in left:
                call.set_exception(_Ended())
            self._started.set()

    async def _serve(self, start: Start) -> None:
        self._handle = await start()
        self._started.set()
        try:
            await self._handle.wait_ended()
            self._fatal = self._handle.take_fatal()
            if self._fatal is not None:
                await self._shut_down(self._shutdown_timeout)
        finally:
            with self._lock:
                self._over = True
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=LAST_CALLS_SECONDS)

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(self, call: Callable[[], Coroutine[Any, Any, T]], answer: Future[T]) -> None:
        self._keep(call()).add_done_callback(lambda task: self._finish(task, answer))

    def _finish(self, task: asyncio.Task[T], answer: Future[T]) -> None:
        with self._lock:
            self._calls.discard(answer)
        if task.cancelled():
            answer.set_exception(_Ended())
        elif (error := task.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(task.result())

    # --- from any thread

    @property
    def _running(self) -> MitmProxyHandle:
        assert self._handle is not None
        return self._handle

    @property
    def _is_inside(self) -> bool:
        return threading.current_thread() is self._thread

    def _on_loop(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await `call()` on the loop, from another thread; `_Ended` if the loop ends before it is done."""
        assert self._loop is not None
        answer: Future[T] = Future()
        with self._lock:
            if self._over:
                raise _Ended
            self._calls.add(answer)
            self._loop.call_soon_threadsafe(self._begin, call, answer)
        thread = threading.current_thread()
        if not isinstance(thread, _LoopThread):
            return answer.result()
        # a hook of another proxy, which stands still until this one answers: it must not wait for that one meanwhile
        thread.owner._waits_for = self
        try:
            if self._waits_in_turn_for(thread.owner):
                raise RuntimeError("hooks of two proxies call each other's handle, and each would wait for the other for ever")
            return answer.result()
        finally:
            thread.owner._waits_for = None

    def _waits_in_turn_for(self, other: "ThreadedHandle") -> bool:
        seen: set[ThreadedHandle] = set()
        handle: ThreadedHandle | None = self
        while handle is not None and handle not in seen:
            if handle is other:
                return True
            seen.add(handle)
            handle = handle._waits_for
        return False

    def _ask(self, question: Callable[[], T]) -> T:
        """Call `question` on the loop; here, where this is its thread, or once it has ended and nothing changes any more."""

        async def ask() -> T:
            return question()

        if self._is_inside:
            return question()
        try:
            return self._on_loop(ask)
        except _Ended:
            self._thread.join()
            return question()

    @property
    def address(self) -> str:
        """The address that is listened on, without the port."""
        return self._running.address

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._running.port

    @property
    def url(self) -> str:
        """The proxy's URL as clients on this machine write it: `http://127.0.0.1:8080`."""
        return self._running.url

    @property
    def status_url(self) -> str | None:
        """Where the proxy tells of itself, None if it does not; see `MitmProxyHandle.status_url`."""
        return self._running.status_url

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
        if self._is_inside:
            self._running.reload_here(config)
        else:
            self._on_loop(lambda: self._running.reload(config))

    def rotate_ca(self, ca: CertificateAuthority) -> None:
        """Sign with `ca` from the next TLS handshake on; see `MitmProxyHandle.rotate_ca`."""
        if self._is_inside:
            self._running.rotate_ca_here(ca)
        else:
            self._on_loop(lambda: self._running.rotate_ca(ca))

    def client_environment(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        host: str | None = None,
        ca_directory: str | None = None,
        no_proxy: Iterable[str] = (),
    ) -> dict[str, str]:
        """Return the variables with which a program goes through this proxy and trusts its CA; see `MitmProxyHandle`."""
        running = self._running
        if self._is_inside:
            return running.client_environment_here(environ, host=host, ca_directory=ca_directory, no_proxy=no_proxy)
        return self._on_loop(lambda: running.client_environment(environ, host=host, ca_directory=ca_directory, no_proxy=no_proxy))

    def inject(self, flow_id: int, payload: str | bytes, *, direction: Literal["to_client", "to_upstream"] = "to_client") -> None:
        """Send a message of our own on a WebSocket; see `MitmProxyHandle.inject`.

        From inside a hook it does not wait: the message leaves after the hook, and `BlockingIOError` says that too many wait already.
        """
        if self._is_inside:
            self._running.inject_here(flow_id, payload, direction=direction)
        else:
            self._on_loop(lambda: self._running.inject(flow_id, payload, direction=direction))

    def close_flow(self, flow_id: int, code: int = 1001, reason: str = "") -> None:
        """Close a WebSocket with a code, or cut any other flow; see `MitmProxyHandle.close_flow`."""
        if self._is_inside:
            self._running.close_flow_here(flow_id, code, reason)
        else:
            self._on_loop(lambda: self._running.close_flow(flow_id, code, reason))

    def shutdown(self, timeout: Timeout = None) -> None:
        """Drain and stop, and end the thread. Raises `ShutdownTimeoutError` when connections had to be cut.

        `timeout` is `start_in_thread`'s `shutdown_timeout` when None, else `timeouts.drain_ms`. A further call with a shorter one shortens
        the drain; it waits for the end and returns. From inside a hook it begins the shutdown and returns at once.
        """
        timeout = self._shutdown_timeout if timeout is None else timeout
        if self._is_inside:
            self._keep(self._shut_down(timeout))
            return
        try:
            self._on_loop(lambda: self._running.shutdown(timeout))
        except _Ended:
            # it has ended, which was asked for
            pass
        finally:
            self._thread.join()

    async def _shut_down(self, drain: Timeout) -> None:
        try:
            await self._running.shutdown(drain)
        except ShutdownTimeoutError as error:
            log.warning("%s", error)

    def wait_closed(self) -> None:
        """Wait until the proxy was shut down.

        A method of the handler that raises what is no `Exception` (`SystemExit`, `KeyboardInterrupt`, ...) ends the proxy, and this raises
        it; leaving a `with` block does so too.
        """
        if self._is_inside:
            raise RuntimeError("wait_closed() was called from inside a hook, for which the shutdown would wait in turn")
        self._thread.join()
        if self._fatal is not None:
            self._was_told = True
            raise self._fatal
        if self._error is not None:
            raise self._error

    def __enter__(self) -> "ThreadedHandle":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Shut down; connections that had to be cut are logged, and are no error of the block."""
        try:
            self.shutdown()
        except ShutdownTimeoutError as late:
            log.warning("%s", late)
        if not self._was_told:
            self.wait_closed()
