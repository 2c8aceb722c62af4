"""`soth-mitm run`: a proxy from the first line on the terminal to the last signal."""

import asyncio
import gc
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable

from rich.console import Console

from soth_mitm.addresses import ANY_ADDRESS, format_host_port
from soth_mitm.cli.descriptors import allow_connections
from soth_mitm.cli.display import Display
from soth_mitm.cli.exits import RUN_FAILED, Failure
from soth_mitm.cli.kept_flows import KeptFlows
from soth_mitm.cli.request_lines import RequestLines
from soth_mitm.cli.view_process import ViewProcess
from soth_mitm.config import MitmConfig
from soth_mitm.destinations import DestinationPattern
from soth_mitm.errors import CaError, InvalidConfigError, ShutdownTimeoutError
from soth_mitm.escaping import shown
from soth_mitm.proxy.handle import MitmProxyHandle
from soth_mitm.proxy.loops import new_event_loop
from soth_mitm.proxy.proxy import MitmProxyBuilder
from soth_mitm.proxy.signals import StopSignals
from soth_mitm.tls.bundle import trust_files
from soth_mitm.tls.ca_files import ca_paths, load_ca_from_files

ReadConfig = Callable[[], MitmConfig]


class Serving:
    """One run of the command. `read` gives the configuration, at the start and on SIGHUP."""

    def __init__(
        self,
        read: ReadConfig,
        handler: object | None,
        console: Console,
        *,
        quiet: bool,
        config_path: str | None,
        kept: KeptFlows | None = None,
        view: ViewProcess | None = None,
    ) -> None:
        self._read = read
        self._display = Display(console)
        self._say = self._display.say
        self._config_path = config_path
        self._handler = handler
        self._quiet = quiet
        self._kept = kept
        self._view = view
        self._reloads: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, and drain; a second signal cuts what is left. Raises what `MitmProxy.start` raises.

        A method of the handler that raises what is no `Exception` ends the command too, with a `Failure` that names it.
        """
        try:
            config = self._read()
            builder = MitmProxyBuilder(config, self._handler)
            if not self._quiet:
                builder.with_observer(RequestLines(self._say))
            if self._kept is not None:
                builder.with_event_sink(self._kept.sink)
            if self._view is not None:
                builder.with_view_at(*self._view.address)
            proxy = builder.build()
            too_few = allow_connections(config.max_concurrent_flows)
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                fatal = runner.run(self._serve(proxy.start, too_few))
        finally:
            self._display.close()
        if fatal is not None:
            raise Failure(RUN_FAILED, f"the handler raised {shown(repr(fatal))}, which ends the proxy") from fatal

    async def _serve(self, start: Callable[[], Awaitable[MitmProxyHandle]], warning: str | None) -> BaseException | None:
        loop = asyncio.get_running_loop()
        # without a file there is nothing to read again: SIGHUP says that the terminal is closed
        signals = StopSignals(loop, hangup=self._config_path is None)
        handle = await start()
        if self._config_path is not None and sys.platform != "win32":
            loop.add_signal_handler(signal.SIGHUP, self._reload_soon, handle)
        await self._refresh_bundle(handle)
        self._greet(handle)
        if self._view is not None and self._kept is not None:
            url = await asyncio.to_thread(self._view.start, self._kept.path)
            self._say("view          ", (url, "bold"), "  opens once, within 5 minutes")
        if warning is not None:
            self._say((warning, "yellow"))
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
        self._say("listening on  ", (f"http://{address}", "bold green"))
        self._say("intercepts    ", (", ".join(config.interception.destinations), "bold"))
        self._say("CA            ", (str(handle.ca_certificate_path), "bold"))
        url = _example_url(config.interception.destinations)
        ca = shlex.quote(str(handle.ca_certificate_path))
        self._say("try           ", (f"curl -x http://{reachable} --cacert {ca} {url}", "bold"))
        config_option = "" if self._config_path is None else f" --config {shlex.quote(self._config_path)}"
        self._say("or a shell    ", (f'eval "$(soth-mitm ca env --proxy http://{reachable}{config_option})"', "bold"))
        if self._kept is not None:
            self._say("keeps flows   ", (self._kept.words, "bold"))
        if handle.status_url is not None:
            self._say("metrics       ", (f"{handle.status_url}/metrics", "bold"))

    async def _refresh_bundle(self, handle: MitmProxyHandle) -> None:
        """Bring the combined bundle up to date, if `ca env` or something else has made one."""
        if trust_files(handle.ca_certificate_path).bundle.exists():
            try:
                await handle.client_environment()
            except (CaError, OSError) as error:
                self._say((f"the combined bundle is not up to date: {error}", "yellow"))

    async def _stop(self, handle: MitmProxyHandle, signals: StopSignals) -> None:
        metrics = handle.metrics()
        if metrics.active_connections:
            self._say((f"stopping: {metrics.active_connections} connection(s) may finish; a second signal cuts them", "dim"))
        try:
            if await signals.shut_down(handle):
                self._say(("cut", "dim"))
        except ShutdownTimeoutError as error:
            self._say((str(error), "yellow"))
        metrics = handle.metrics()
        counts = (
            _counted(metrics.total_flows, "request"),
            f"{metrics.blocked_request_count} blocked",
            _counted(metrics.tunnel_count, "tunnel"),
        )
        self._say((f"stopped after {_counted(metrics.total_connections, 'connection')}: {', '.join(counts)}", "dim"))

    def _reload_soon(self, handle: MitmProxyHandle) -> None:
        task = asyncio.ensure_future(self._reload(handle))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self, handle: MitmProxyHandle) -> None:
        before = handle.current_config()
        try:
            config = self._read()
            await handle.reload(config)
        except InvalidConfigError as error:
            self._say((f"not reloaded, nothing changed: {error}", "bold red"))
        else:
            self._say((f"reloaded; changed: {', '.join(before.diff(config)) or 'nothing'}", "green"))
        await self._take_new_ca(handle)

    async def _take_new_ca(self, handle: MitmProxyHandle) -> None:
        """Sign with what `soth-mitm ca rotate` or `import` has put into the CA's files since the start."""
        tls = handle.current_config().tls
        paths = ca_paths(tls.ca_cert_path, tls.ca_key_path)
        try:
            ca = await asyncio.to_thread(load_ca_from_files, *paths)
            if ca.fingerprint != handle.ca.fingerprint:
                await handle.rotate_ca(ca)
                self._say((f"new connections get certificates of the CA {ca.fingerprint}", "green"))
        except (CaError, OSError) as error:
            self._say((f"the CA was not read again: {error}", "bold red"))


def _example_url(destinations: list[str]) -> str:
    patterns = [DestinationPattern.parse(text) for text in destinations]
    for pattern in patterns:
        if not pattern.is_glob:
            port = 443 if pattern.port is None else pattern.port
            return f"https://{format_host_port(pattern.host, port).removesuffix(':443')}/"
    return "https://example.com/"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
