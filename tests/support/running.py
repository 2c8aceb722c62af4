"""A running proxy as tests hold it, with clients for it."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soth_mitm import MitmConfig
from soth_mitm.metrics import ProxyMetrics
from soth_mitm.proxy.threaded import ThreadedHandle
from support.certs import TestCA
from support.leaks import what_remains
from support.wire_client import WireClient

HOST = "localhost"


@dataclasses.dataclass
class Running:
    """A running proxy, its handler, and clients for it."""

    handle: ThreadedHandle
    handler: Any

    @property
    def port(self) -> int:
        return self.handle.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ca_path(self) -> Path:
        return self.handle.ca_certificate_path

    def client_context(self, *alpn: str) -> ssl.SSLContext:
        """Return a context that trusts the proxy's CA and nothing else."""
        context = ssl.create_default_context(cafile=str(self.ca_path))
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def client(self) -> WireClient:
        """Return a client that is connected to the proxy and has said nothing."""
        return WireClient(self.port)

    def tunnel(self, port: int, host: str = HOST) -> WireClient:
        """Return a client whose CONNECT was answered 200."""
        client = self.client()
        answer = client.connect(f"{host}:{port}")
        assert answer.status == 200, (answer.status, answer.text)
        return client

    def secured(self, port: int, host: str = HOST, *alpn: str) -> WireClient:
        """Return a client that speaks TLS with the proxy in place of an origin, and offers `alpn`."""
        client = self.tunnel(port, host)
        client.start_tls(self.client_context(*alpn), host)
        return client

    def metrics(self) -> ProxyMetrics:
        return self.handle.metrics()

    def wait_idle(self, *names: str) -> None:
        """Wait until no connection and no request is left; or, by the names of their metrics, nothing else that is counted."""

        def active() -> dict[str, int]:
            metrics = self.metrics().as_dict()
            return {name: int(metrics[name]) for name in names or ("active_connections", "active_flows") if metrics[name]}

        left = what_remains(active)
        assert not left, left


def configure(folder: Path, origin_ca: TestCA, destinations: tuple[str, ...] = ("localhost:*",), **keys: object) -> MitmConfig:
    """Return a configuration that trusts `origin_ca` and keeps its files in `folder`; `keys` are dotted names with their values."""
    roots = folder / "origin-roots.pem"
    roots.write_bytes(origin_ca.cert_pem)
    config = MitmConfig(bind="127.0.0.1:0")
    config.interception.destinations.extend(destinations)
    config.upstream.ca_bundle_path = str(roots)
    config.upstream.retry_delay_ms = 0
    config.tls.ca_cert_path = str(folder / "ca.pem")
    config.tls.ca_key_path = str(folder / "ca-key.pem")
    for key, value in keys.items():
        section, _, name = key.rpartition(".")
        setattr(getattr(config, section) if section else config, name, value)
    return config


ProxyFactory = Callable[..., Running]
"""Called with a handler and dotted keys of the configuration."""
