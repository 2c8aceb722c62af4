"""The handle of a running proxy."""

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal

from soth_mitm.addresses import ANY_ADDRESS, format_host_port
from soth_mitm.config import MitmConfig
from soth_mitm.errors import CaError
from soth_mitm.metrics import ProxyMetrics
from soth_mitm.policy import Policy
from soth_mitm.proxy.listener import Listener
from soth_mitm.proxy.service import Service
from soth_mitm.tls.bundle import TrustFiles, trust_files, write_trust_files
from soth_mitm.tls.bypass import TlsBypass
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.ca_rotation import replace_ca
from soth_mitm.tls.environment import client_environment, direct_hosts


def seconds_of(timeout: float | timedelta | None, otherwise_ms: int) -> float:
    """Return a timeout in seconds; None stands for `otherwise_ms`."""
    if timeout is None:
        return otherwise_ms / 1000
    return timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)


class MitmProxyHandle:
    """A running proxy. All methods belong to the loop that it was started on; see `start_in_thread` for other threads."""

    def __init__(self, service: Service, listener: Listener, ca_paths: tuple[Path, Path] | None, status: Listener | None = None) -> None:
        self._service = service
        self._listener = listener
        self._status_url = None if status is None else _url(*status.addresses[0])
        self._reloading = asyncio.Lock()
        self._closed = asyncio.Event()
        self._was_told = False
        service.on_fatal = service.on_over = self._closed.set
        self._ca_paths = ca_paths

    @property
    def address(self) -> str:
        """The address that is listened on, without the port."""
        return self._listener.addresses[0][0]

    @property
    def port(self) -> int:
        """The port that is listened on; the real one when `bind` asked for port 0."""
        return self._listener.addresses[0][1]

    @property
    def url(self) -> str:
        """The proxy's URL as clients on this machine write it: `http://127.0.0.1:8080`."""
        return _url(self.address, self.port)

    @property
    def status_url(self) -> str | None:
        """Where the proxy tells of itself: `http://127.0.0.1:9464`, before `/metrics`, `/healthz`, `/readyz` or `/status`.

        None if it does not (`prometheus_bind`).
        """
        return self._status_url

    @property
    def ca(self) -> CertificateAuthority:
        """The CA that signs the certificates which clients are shown."""
        return self._service.ca

    @property
    def ca_certificate_path(self) -> Path:
        """The file with the certificate that clients must trust. `CaError` if the CA was given in memory and no path configured."""
        if self._ca_paths is None:
            raise CaError("this CA was given in memory; set tls.ca_cert_path and tls.ca_key_path, or write handle.ca.cert_pem yourself")
        return self._ca_paths[0]

    def current_config(self) -> MitmConfig:
        """Return a copy of the configuration that connections are accepted under now."""
        return self._service.config.copy()

    def metrics(self) -> ProxyMetrics:
        """Return a consistent snapshot of all counters."""
        return self._service.metrics()

    def tls_bypasses(self) -> list[TlsBypass]:
        """Return the destinations whose TLS is tunnelled for a program now, because it kept refusing our certificate there."""
        return self._service.learning.bypasses()

    def clear_tls_bypass(self, host: str | None = None, process: str | None = None) -> int:
        """End the bypasses of a host, of a process (as a `TlsBypass` names them), of both, or all; return how many there were.

        The next connections are intercepted, and the refusals counted so far are forgotten too; open tunnels go on. `ValueError` if
        `host` is none.
        """
        return self._service.learning.clear(host, process)

    async def reload(self, config: MitmConfig) -> None:
        """Apply `config` to connections that are accepted from now on; those in flight keep theirs.

        Raises `InvalidConfigError`, and changes nothing, when it is invalid or differs in what needs a new socket or CA.
        """
        config = config.copy()
        # one after the other, so that the latest stands
        async with self._reloading:
            # with a hundred thousand patterns this takes seconds, in which the traffic goes on
            with self._service.counted_reload():
                policy = await asyncio.to_thread(_verified, config)
                self._service.reload(config, policy)

    def reload_here(self, config: MitmConfig) -> None:
        """Do as `reload`, at once: blocks while the patterns are checked."""
        config = config.copy()
        with self._service.counted_reload():
            self._service.reload(config, _verified(config))

    async def rotate_ca(self, ca: CertificateAuthority) -> None:
        """Sign with `ca` from the next TLS handshake on; connections whose handshake is done go on under the old one.

        Where the CA is in files, the pair is written there first, the old pair is kept beside it as `NAME.previous.pem`, and the
        combined bundle, if there is one, is made anew with both: a client that reads the bundle before the rotation and one that reads it
        after both trust the proxy. `soth-mitm ca rotate --finish` ends that. Raises `CaError`, and changes nothing that is running, when
        the files cannot be written.
        """
        if self._ca_paths is not None:
            await asyncio.to_thread(_write_rotated, ca, *self._ca_paths)
        self._sign_with(ca)

    def rotate_ca_here(self, ca: CertificateAuthority) -> None:
        """Do as `rotate_ca`, at once: blocks while the files are written."""
        if self._ca_paths is not None:
            _write_rotated(ca, *self._ca_paths)
        self._sign_with(ca)

    def _sign_with(self, ca: CertificateAuthority) -> None:
        self._service.rotate_ca(ca)

    async def client_environment(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        host: str | None = None,
        ca_directory: str | None = None,
        no_proxy: Iterable[str] = (),
    ) -> dict[str, str]:
        """Return the variables with which a program goes through this proxy and trusts its CA: Python, Node, curl, git, Go, Java and more.

        Give a child process `os.environ | await handle.client_environment()`. Writes the combined bundle (the system's roots and the CA)
        and a truststore for Java beside the CA's certificate when they are not up to date. `environ` (None: the process's) is what
        NO_PROXY and JAVA_TOOL_OPTIONS are added to.

        For a container: `host` is the name under which it reaches the proxy (`host.docker.internal`), `ca_directory` where it has the
        directory of the CA's certificate mounted, `no_proxy` more hosts that it reaches without the proxy.
        """
        files = await asyncio.to_thread(write_trust_files, self.ca, self.ca_certificate_path)
        return self._environment(files, environ, host, ca_directory, no_proxy)

    def client_environment_here(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        host: str | None = None,
        ca_directory: str | None = None,
        no_proxy: Iterable[str] = (),
    ) -> dict[str, str]:
        """Do as `client_environment`, at once: blocks while the files are written."""
        files = write_trust_files(self.ca, self.ca_certificate_path)
        return self._environment(files, environ, host, ca_directory, no_proxy)

    def _environment(
        self, files: TrustFiles, environ: Mapping[str, str] | None, host: str | None, ca_directory: str | None, no_proxy: Iterable[str]
    ) -> dict[str, str]:
        # a path of POSIX is seen by a program on POSIX, wherever the proxy runs
        platform = "linux" if ca_directory is not None and ca_directory.startswith("/") else sys.platform
        return client_environment(
            files,
            self.url if host is None else f"http://{format_host_port(host, self.port)}",
            direct=(*direct_hosts(self.current_config().interception.destinations), *no_proxy),
            environ=os.environ if environ is None else environ,
            platform=platform,
            ca_directory=ca_directory,
        )

    async def inject(self, flow_id: int, payload: str | bytes, *, direction: Literal["to_client", "to_upstream"] = "to_client") -> None:
        """Send a message of our own on a WebSocket: text for str, else binary. Returns when it is in the write buffer.

        It goes between two messages of its direction, in one frame without compression, and is no question for `filter_stream_chunk`;
        `on_stream_chunk` is shown it with `injected`. 64 messages of a direction wait, of `body.max_size_bytes` together; a further one
        waits for its place. The messages of the WebSocket have to be read: the handler has an `on_stream_chunk`, or a
        `filter_stream_chunk` for messages of WebSockets, or there are credentials. Otherwise it is not known where one ends.
        `LookupError`: the flow is over or closing, or is no WebSocket that is read. `ValueError`: the payload is over
        `body.max_size_bytes`, or text that is no Unicode, or has a credential in it that may not go to this upstream; then the WebSocket
        closes with 1008.
        """
        await self._service.inject(flow_id, payload, direction)

    def inject_here(self, flow_id: int, payload: str | bytes, *, direction: Literal["to_client", "to_upstream"] = "to_client") -> None:
        """Do as `inject`, without waiting: raises `BlockingIOError` if too many messages wait already."""
        self._service.inject_here(flow_id, payload, direction)

    async def close_flow(self, flow_id: int, code: int = 1001, reason: str = "") -> None:
        """Send both sides of a WebSocket a Close with a code (RFC 6455 section 7.4) and end it, or cut any other flow.

        A side that is within a message gets its end without a Close, and so do both of a WebSocket that nobody reads. Where a response
        has begun, its client can tell that it is not all; else the client's stream or connection is cut.
        `LookupError`: the flow is over. `ValueError`: a Close must not have this code, or the reason is over 123 bytes.
        """
        self._service.close_flow(flow_id, code, reason)

    def close_flow_here(self, flow_id: int, code: int = 1001, reason: str = "") -> None:
        """Do as `close_flow`."""
        self._service.close_flow(flow_id, code, reason)

    async def shutdown(self, timeout: float | timedelta | None = None) -> None:  # noqa: ASYNC109 - the name is the contract's
        """Stop accepting, finish what is under way within `timeout` (seconds; `timeouts.drain_ms` when None), cut the rest.

        Raises `ShutdownTimeoutError` when connections had to be cut. Nothing of the proxy is left afterwards, either way. A second call
        waits for the first and returns; if its timeout ends earlier, so does the first one's. A call that is cancelled cuts what is left.
        """
        await self._service.shutdown(seconds_of(timeout, self._service.config.timeouts.drain_ms))

    async def wait_closed(self) -> None:
        """Wait until the proxy was shut down.

        Raises what a method of the handler raised that is no `Exception` (`SystemExit`, `KeyboardInterrupt`, ...), as soon as it does; the
        proxy serves on until it is shut down.
        """
        await self._closed.wait()
        self._was_told = True
        if self._service.fatal is not None:
            raise self._service.fatal

    async def wait_ended(self) -> None:
        """Wait like `wait_closed`, and leave what it would raise to `take_fatal`."""
        await self._closed.wait()

    def take_fatal(self) -> BaseException | None:
        """Return what `wait_closed` would raise, unless the owner has been told already, or is now."""
        if self._was_told:
            return None
        self._was_told = self._service.fatal is not None
        return self._service.fatal

    def __repr__(self) -> str:
        return f"<MitmProxyHandle on {self.address}:{self.port}>"


def _url(host: str, port: int) -> str:
    return f"http://{format_host_port(ANY_ADDRESS.get(host, host), port)}"


def _verified(config: MitmConfig) -> Policy:
    config.validate()
    return Policy(config)


def _write_rotated(ca: CertificateAuthority, cert_path: Path, key_path: Path) -> None:
    replace_ca(ca, cert_path, key_path)
    if trust_files(cert_path).bundle.exists():
        write_trust_files(ca, cert_path)
