"""What a proxy tells of itself at `prometheus_bind`: figures, whether it lives, whether it takes connections, and what it is."""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import TypeVar

import msgspec

from soth_mitm.addresses import format_host_port
from soth_mitm.config import MitmConfig
from soth_mitm.errors import InvalidConfigError
from soth_mitm.observe.families import Figures
from soth_mitm.proxy.listener import Listener
from soth_mitm.proxy.service import Service
from soth_mitm.proxy.status_server import Page, line

T = TypeVar("T")

# How long the loop of the proxy may take to answer; it answers between two events.
ANSWER_SECONDS = 5.0
DRAINING = "draining: the proxy is shutting down"
HELD_UP = f"the event loop of the proxy has not answered within {ANSWER_SECONDS:g} s: a hook or another program holds it"
NEEDED = "needs the package prometheus-client, which is not installed: `pip install prometheus-client` (the extra `metrics` brings it)"


def check_exposition(config: MitmConfig) -> None:
    """Raise `InvalidConfigError` if figures are to be told and cannot be written."""
    if config.prometheus_bind is None:
        return
    try:
        import soth_mitm.observe.exposition  # noqa: F401 - whether it can be imported
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise InvalidConfigError("prometheus_bind", NEEDED) from error


class StatusPages:
    """The pages of one proxy. Made on its loop; the pages are made on another."""

    def __init__(self, service: Service, listener: Listener) -> None:
        # not at the top: it takes a package that need not be there
        from soth_mitm.observe.exposition import Exposition

        self._service = service
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._began = time.monotonic()
        self._exposition = Exposition()
        self._digest: tuple[MitmConfig, str] | None = None
        self._pages = {"/metrics": self._metrics, "/healthz": self._health, "/readyz": self._readiness, "/status": self._status}

    async def page(self, path: str, accept: str) -> Page:
        """Return the page of a path; 503 where the loop of the proxy does not answer in time."""
        make = self._pages.get(path)
        if make is None:
            return line(404, f"there is no such page; there are {', '.join(self._pages)}")
        try:
            return await make(accept)
        except TimeoutError:
            return line(503, HELD_UP)

    async def _ask(self, question: Callable[[], T]) -> T:
        """Call `question` on the loop of the proxy. `TimeoutError`: it is held up."""

        async def ask() -> T:
            return question()

        async with asyncio.timeout(ANSWER_SECONDS):
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), self._loop))

    def _figures(self) -> Figures:
        return Figures(self._service.metrics(), self._service.ca.certificate.not_valid_after_utc.timestamp())

    async def _metrics(self, accept: str) -> Page:
        figures = await self._ask(self._figures)
        content, media_type = self._exposition.written(figures, accept)
        return Page(200, content, media_type)

    async def _health(self, accept: str) -> Page:
        await self._ask(lambda: None)
        return line(200, "ok")

    async def _readiness(self, accept: str) -> Page:
        return line(503, DRAINING) if self._service.is_draining else line(200, "ready")

    async def _status(self, accept: str) -> Page:
        figures = await self._ask(self._figures)
        metrics, service = figures.metrics, self._service
        config = service.config
        told = {
            "version": version("soth-mitm"),
            "pid": os.getpid(),
            "state": "draining" if service.is_draining else "ready",
            "uptime_seconds": round(time.monotonic() - self._began, 3),
            "bind": [format_host_port(host, port) for host, port in self._listener.addresses],
            "unix_socket": None if config.unix_socket_path is None else str(config.unix_socket_path),
            "connections": {"active": metrics.active_connections, "accepted": metrics.total_connections},
            "flows": {"active": metrics.active_flows, "total": metrics.total_flows},
            "config_sha256": self._digest_of(config),
            "ca": {"sha256": service.ca.fingerprint, "not_after": service.ca.certificate.not_valid_after_utc.isoformat()},
        }
        return Page(200, msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n", "application/json")

    def _digest_of(self, config: MitmConfig) -> str:
        # a configuration is not changed, but replaced; that of a hundred thousand patterns takes long to write out
        if self._digest is None or self._digest[0] is not config:
            written = msgspec.json.encode(config.to_mapping(), order="sorted", enc_hook=repr)
            self._digest = config, hashlib.sha256(written).hexdigest()
        return self._digest[1]
