"""What a person wants to see first: requests as the handler sees them, one blocked, a stream as it arrives, the figures.

Everything is local: an upstream in this process, a CA in a temporary directory, curl or httpx as the client. With --keep it stays up.
"""

import asyncio
import logging
import shutil
import signal
import ssl
import sys
import tempfile
import time
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo_upstream import Upstream
from soth_mitm import (
    HandlerDecision,
    InterceptHandler,
    MitmConfig,
    MitmProxyBuilder,
    MitmProxyHandle,
    RawRequest,
    RawResponse,
    StreamChunk,
    generate_ca,
    new_event_loop,
)
from soth_mitm.tls.leaf import LeafStore

console = Console(highlight=False)
FIGURES = (
    "total_connections",
    "total_flows",
    "allowed_request_count",
    "blocked_request_count",
    "stream_chunk_count",
    "tls_client_handshake_count",
    "tls_upstream_handshake_count",
    "leaf_minted_count",
    "pool_hit_count",
    "bytes_from_clients",
    "bytes_to_clients",
    "handler_call_count",
    "handler_seconds",
    "active_connections",
)


class Show(InterceptHandler):
    """Prints what it is given, and blocks what has /blocked in its path."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        meta = request.connection_meta
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="cyan", min_width=12)
        facts.add_row("request", Text(f"{request.method} {request.url}", style="bold"))
        facts.add_row("protocol", Text(request.http_version))
        process, tls = meta.process_info, meta.tls_info
        if process is not None:
            facts.add_row("process", Text(f"{process.exe_name}, pid {process.pid}, started by {process.parent_process_name}"))
        if tls is not None:
            facts.add_row("client TLS", Text(f"{tls.version} {tls.cipher}, SNI {tls.sni}"))
            facts.add_row("JA4", Text(f"{tls.ja4}"))
            is_known = tls.upstream_version is not None
            known = f"{tls.upstream_version} {tls.upstream_cipher}"
            facts.add_row("upstream TLS", Text(known if is_known else "none yet: nothing is dialled before the decision"))
        for name, value in request.headers.items():
            facts.add_row("header", Text(f"{name}: {value}", style="dim"))
        if request.body:
            facts.add_row("body", Text(request.body.decode(errors="replace")))
        console.print(facts)
        if "/blocked" in request.path:
            console.print(Text("decision: block with 403, before the upstream hears of it", style="bold red"))
            return HandlerDecision.block(403, b"blocked by policy\n")
        console.print(Text("decision: allow", style="bold green"))
        return HandlerDecision.ALLOW

    def on_response(self, response: RawResponse) -> None:
        kind = "a stream begins" if response.streaming else f"{len(response.body)} bytes"
        console.print(Text(f"on_response: {response.status}, {kind}", style="magenta"))

    def on_stream_chunk(self, chunk: StreamChunk) -> None:
        self.tell("handler", "magenta", f"event {chunk.sequence}: {chunk.payload.decode()}")

    def tell(self, who: str, style: str, what: str) -> None:
        """Print one moment of the stream."""
        console.print(Text.assemble((f"{time.monotonic() - self.began:7.3f} s  ", "dim"), (f"{who:<9}", style), what))


async def get(handle: MitmProxyHandle, url: str) -> str:
    """Fetch `url` through the proxy, with curl where there is one, so that the handler sees another process."""
    proxy, ca = f"http://127.0.0.1:{handle.port}", str(handle.ca_certificate_path)
    if shutil.which("curl") is None:
        async with client_through(handle) as client:
            response = await client.get(url)
            return f"{response.text.strip()}  [{response.status_code}]"
    command = ("curl", "-sS", "--max-time", "10", "--noproxy", "", "-x", proxy, "--cacert", ca, "-w", "  [%{http_code}]", url)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    output, _ = await process.communicate()
    if process.returncode:
        sys.exit(f"curl failed ({process.returncode}): {output.decode(errors='replace')}")
    return output.decode().replace("\n", "")


def client_through(handle: MitmProxyHandle) -> httpx.AsyncClient:
    """Return an httpx client that goes through the proxy and trusts its CA."""
    trust = ssl.create_default_context(cafile=str(handle.ca_certificate_path))
    return httpx.AsyncClient(proxy=f"http://127.0.0.1:{handle.port}", verify=trust, trust_env=False, http2=True, timeout=10)


async def watch_stream(handle: MitmProxyHandle, url: str, show: Show) -> None:
    """Ask for a stream and print its events as this client gets them, between the handler's own lines."""
    async with client_through(handle) as client:
        show.began = time.monotonic()
        async with client.stream("POST", url, json={"stream": True, "prompt": "What is a proxy?"}) as response:
            async for line in response.aiter_lines():
                if line:
                    show.tell("client", "green", line)


def headline(text: str) -> None:
    """Begin the next act."""
    console.print()
    console.rule(Text(text, style="bold"), align="left")


def figures(handle: MitmProxyHandle) -> Table:
    """Return the metrics that this demo moved."""
    table = Table("metric", "value", title="handle.metrics()", title_justify="left")
    counted = handle.metrics().as_dict()
    for name in FIGURES:
        table.add_row(name, f"{counted[name]:.4f}" if isinstance(counted[name], float) else str(counted[name]))
    return table


async def demo(directory: Path, keep: bool) -> None:
    """Play all acts."""
    authority = generate_ca("Demo upstream CA")
    roots = directory / "upstream-ca.pem"
    roots.write_bytes(authority.cert_pem)
    async with Upstream(LeafStore(authority).context_for("localhost", alpn=("h2", "http/1.1"))) as upstream:
        site = f"https://localhost:{upstream.port}"
        config = MitmConfig(bind="127.0.0.1:0")
        config.interception.destinations.append(f"localhost:{upstream.port}")
        config.upstream.ca_bundle_path = roots
        config.tls.ca_cert_path, config.tls.ca_key_path = directory / "ca.pem", directory / "ca-key.pem"
        show = Show()
        async with MitmProxyBuilder(config, show).build() as handle:
            console.print(Text.assemble("upstream ", (site, "bold"), "   proxy ", (f"http://127.0.0.1:{handle.port}", "bold")))
            headline("1  A request, as the handler sees it")
            console.print(Text(f"the client got: {await get(handle, f'{site}/api/models?limit=2')}"))
            headline("2  A request that the handler blocks")
            console.print(Text(f"the client got: {await get(handle, f'{site}/blocked/upload')}"))
            heard = "/blocked/upload" in upstream.paths
            console.print(Text(f"the upstream heard of it: {'yes' if heard else 'no'}", style="bold red" if heard else "bold green"))
            headline("3  A stream of events, relayed and shown as it arrives")
            await watch_stream(handle, f"{site}/v1/chat/completions", show)
            headline("4  The figures")
            console.print(figures(handle))
            if keep:
                await stay(handle, site)
    console.print("\nNext: the quick start in README.md, docs/examples/, or [bold]scripts/demo --keep[/] to try your own requests.")


async def stay(handle: MitmProxyHandle, site: str) -> None:
    """Wait for Ctrl-C, with lines to paste."""
    headline("Staying up; Ctrl-C ends it")
    curl = f"curl -x http://127.0.0.1:{handle.port} --cacert {handle.ca_certificate_path}"
    for rest in (f"{site}/api/models", f"{site}/blocked", f"-N -d '{{}}' {site}/v1/chat/completions"):
        console.print(Text(f"{curl} {rest}"), soft_wrap=True)
    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    await asked.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="soth-mitm-demo-") as name, asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(demo(Path(name), "--keep" in sys.argv[1:]))
