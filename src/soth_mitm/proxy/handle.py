"""The handle of a running proxy."""

import asyncio
from datetime import timedelta
from pathlib import Path

from soth_mitm.config import MitmConfig
from soth_mitm.errors import CaError
from soth_mitm.metrics import ProxyMetrics
from soth_mitm.proxy.listener import Listener
from soth_mitm.proxy.service import Service
from soth_mitm.tls.bypass import TlsBypass
from soth_mitm.tls.ca import CertificateAuthority


def seconds_of(timeout: float | timedelta | None, otherwise_ms: int) -> float:
    """Return a timeout in seconds; None stands for `otherwise_ms`."""
    if timeout is None:
        return otherwise_ms / 1000
    return timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)


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
        config.validate()
        self._service.reload(config)

    async def shutdown(self, timeout: float | timedelta | None = None) -> None:  # noqa: ASYNC109 - the name is the contract's
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
