"""`soth-mitm run`: a proxy from the first line on the terminal to the last signal."""

import asyncio
import gc
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable

from rich.console import Console
from rich.text import Text

from soth_mitm.addresses import ANY_ADDRESS, format_host_port
from soth_mitm.cli.descriptors import allow_connections
from soth_mitm.cli.request_lines import RequestLines
from soth_mitm.config import MitmConfig
from soth_mitm.destinations import DestinationPattern
from soth_mitm.errors import CaError, InvalidConfigError, ShutdownTimeoutError
from soth_mitm.handler import InterceptHandler
from soth_mitm.proxy.handle import MitmProxyHandle
from soth_mitm.proxy.loops import new_event_loop
from soth_mitm.proxy.proxy import MitmProxyBuilder
from soth_mitm.proxy.signals import StopSignals
from soth_mitm.tls.bundle import trust_files
from soth_mitm.tls.ca_files import ca_paths, load_ca_from_files

ReadConfig = Callable[[], MitmConfig]


class Serving:
    """One run of the command. `read` gives the configuration, at the start and on SIGHUP."""

    def __init__(self, read: ReadConfig, handler: object | None, console: Console, *, quiet: bool, config_path: str | None) -> None:
        self._read = read
        self._console = console
        self._config_path = config_path
        # with nobody to decide, requests need not be held until their bodies are complete
        self._holds_bodies = handler is not None
        handler = handler if handler is not None else InterceptHandler()
        # under the name of the user's class, which is what is logged when a hook fails
        lines: type[RequestLines] = type(type(handler).__name__, (RequestLines,), {})
        self._lines = None if quiet else lines(handler, self._say)
        self._handler = handler if self._lines is None else self._lines
        self._reloads: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, and drain; a second signal cuts what is left. Raises what `MitmProxy.start` raises."""
        config = self._configured()
        proxy = MitmProxyBuilder(config, self._handler).build()
        too_few = allow_connections(config.max_concurrent_flows)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            fatal = runner.run(self._serve(proxy.start, too_few))
        if fatal is not None:
            raise fatal

    def _configured(self) -> MitmConfig:
        config = self._read()
        if self._lines is not None:
            self._lines.applies_blocks = config.intercept_mode == "enforce"
            refuses = config.body.incomplete == "refuse"
            config.body.buffer_request_bodies = config.body.buffer_request_bodies and (self._holds_bodies or refuses)
        return config

    async def _serve(self, start: Callable[[], Awaitable[MitmProxyHandle]], warning: str | None) -> BaseException | None:
        loop = asyncio.get_running_loop()
        # without a file there is nothing to read again: SIGHUP says that the terminal is closed
        signals = StopSignals(loop, hangup=self._config_path is None)
        handle = await start()
        if self._config_path is not None and sys.platform != "win32":
            loop.add_signal_handler(signal.SIGHUP, self._reload_soon, handle)
        await self._refresh_bundle(handle)
        self._greet(handle)
        if warning is not None:
            self._say(Text(warning, style="yellow"))
        # what is there now stays: the collector need not look through it again and again
        gc.collect()
        gc.freeze()
        await signals.wait_for_one(handle)
        await self._stop(handle, signals)
        return handle.take_fatal()

    def _greet(self, handle: MitmProxyHandle) -> None:
        config = handle.current_config()
        address = format_host_port(handle.address, handle.port)
        reachable = format_host_port(ANY_ADDRESS.get(handle.address, handle.address), handle.port)
        self._say(Text.assemble("listening on  ", (f"http://{address}", "bold green")))
        self._say(Text.assemble("intercepts    ", (", ".join(config.interception.destinations), "bold")))
        self._say(Text.assemble("CA            ", (str(handle.ca_certificate_path), "bold")))
        url = _example_url(config.interception.destinations)
        ca = shlex.quote(str(handle.ca_certificate_path))
        self._say(Text.assemble("try           ", (f"curl -x http://{reachable} --cacert {ca} {url}", "bold")))
        config_option = "" if self._config_path is None else f" --config {shlex.quote(self._config_path)}"
        self._say(Text.assemble("or a shell    ", (f'eval "$(soth-mitm ca env --proxy http://{reachable}{config_option})"', "bold")))

    async def _refresh_bundle(self, handle: MitmProxyHandle) -> None:
        """Bring the combined bundle up to date, if `ca env` or somebody else has made one."""
        if trust_files(handle.ca_certificate_path).bundle.exists():
            try:
                await handle.client_environment()
            except (CaError, OSError) as error:
                self._say(Text(f"the combined bundle is not up to date: {error}", style="yellow"))

    async def _stop(self, handle: MitmProxyHandle, signals: StopSignals) -> None:
        metrics = handle.metrics()
        if metrics.active_connections:
            self._say(Text(f"stopping: {metrics.active_connections} connection(s) may finish; a second signal cuts them", style="dim"))
        try:
            if await signals.shut_down(handle):
                self._say(Text("cut", style="dim"))
        except ShutdownTimeoutError as error:
            self._say(Text(str(error), style="yellow"))
        metrics = handle.metrics()
        total = f"{metrics.total_flows} requests, {metrics.blocked_request_count} blocked, {metrics.tunnel_count} tunnels"
        self._say(Text(f"stopped after {metrics.total_connections} connections: {total}", style="dim"))

    def _reload_soon(self, handle: MitmProxyHandle) -> None:
        task = asyncio.ensure_future(self._reload(handle))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self, handle: MitmProxyHandle) -> None:
        before = handle.current_config()
        try:
            config = self._configured()
            await handle.reload(config)
        except InvalidConfigError as error:
            self._say(Text(f"not reloaded, nothing changed: {error}", style="bold red"))
        else:
            self._say(Text(f"reloaded; changed: {', '.join(before.diff(config)) or 'nothing'}", style="green"))
        await self._take_new_ca(handle)

    async def _take_new_ca(self, handle: MitmProxyHandle) -> None:
        """Sign with what `soth-mitm ca rotate` or `import` has put into the CA's files since the start."""
        tls = handle.current_config().tls
        paths = ca_paths(tls.ca_cert_path, tls.ca_key_path)
        try:
            ca = await asyncio.to_thread(load_ca_from_files, *paths)
            if ca.fingerprint != handle.ca.fingerprint:
                await handle.rotate_ca(ca)
                self._say(Text(f"new connections get certificates of the CA {ca.fingerprint}", style="green"))
        except (CaError, OSError) as error:
            self._say(Text(f"the CA was not read again: {error}", style="bold red"))

    def _say(self, line: Text) -> None:
        # a line stays a line, for those who grep
        self._console.print(line, soft_wrap=True)


def _example_url(destinations: list[str]) -> str:
    patterns = [DestinationPattern.parse(text) for text in destinations]
    for pattern in patterns:
        if not pattern.is_glob:
            port = 443 if pattern.port is None else pattern.port
            return f"https://{format_host_port(pattern.host, port).removesuffix(':443')}/"
    return "https://example.com/"
