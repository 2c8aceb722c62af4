"""Run the cases of Autobahn's test suite for WebSocket through the proxy and beside it, and compare what came of each.

`wstest` 0.8.2 is a program for Python 2.7; it is installed into `build/autobahn`. It is the server of a client that echoes, and the client
of a server that echoes, each time directly and through a proxy that reads every message and holds it for a filter. A case whose
verdict differs is printed, and the exit code is 1. OK and NON-STRICT are one verdict: a proxy that judges frames early may answer earlier.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import socketserver
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, WSMsgType, web

from soth_mitm import ChunkDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, StreamChunk

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "build/autobahn"
SUITE = "autobahntestsuite==0.8.2"
# limits of size and of time, and what takes minutes
QUICK = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.1.*", "6.2.*", "6.3.*", "6.4.*", "7.*", "10.*", "12.1.1", "12.1.2", "13.1.1", "13.1.2"]
NIGHTLY = ["*"]
SAME = {"OK": "pass", "NON-STRICT": "pass", "INFORMATIONAL": "pass"}
PATIENCE = 3600.0

Verdicts = dict[str, str]


class Reader(InterceptHandler):
    """Reads each message and lets it pass."""

    def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        return ChunkDecision.PASS

    def on_stream_chunk(self, chunk: StreamChunk) -> None:
        pass


def install() -> Path:
    """Return the `wstest` program, installed if it is not there."""
    program = TOOL / "bin/wstest"
    if program.exists():
        return program
    python = shutil.which("python2.7")
    if python is None:
        sys.exit("scripts/autobahn: there is no python2.7; Autobahn's test suite runs on nothing newer")
    subprocess.run([python, "-m", "pip", "install", "-q", "virtualenv"], check=True)
    subprocess.run([python, "-m", "virtualenv", "-q", str(TOOL)], check=True)
    subprocess.run([str(TOOL / "bin/pip"), "install", "-q", SUITE], check=True)
    return program


@contextlib.asynccontextmanager
async def running(program: Path, mode: str, specification: dict[str, object], folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `wstest` in one of its modes."""
    path = folder / f"{mode}.json"
    path.write_text(json.dumps(specification))
    process = await asyncio.create_subprocess_exec(
        str(program), "-m", mode, "-s", str(path), cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def proxy(folder: Path) -> AsyncIterator[str]:
    """Run a proxy that intercepts this machine; its URL."""
    config = MitmConfig(bind="127.0.0.1:0")
    config.interception.destinations.append("127.0.0.1:*")
    # behind the bridge `Host` has another port
    config.interception.check_names = "off"
    config.upstream.denied_addresses = []
    config.tls.ca_cert_path, config.tls.ca_key_path = str(folder / "ca.pem"), str(folder / "ca-key.pem")
    async with MitmProxyBuilder(config, Reader()).build() as handle:
        yield handle.url


async def echo(socket: ClientWebSocketResponse | web.WebSocketResponse) -> None:
    """Send each message back."""
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)


async def is_listening(port: int) -> bool:
    """Tell whether somebody listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as probe:
        return int(probe.server_address[1])


def read_report(folder: Path) -> Verdicts:
    """Return the verdicts on the one agent of a report."""
    (agent,) = json.loads((folder / "reports/index.json").read_text()).values()
    return {case: SAME.get(result["behavior"], result["behavior"]) for case, result in agent.items()}


async def test_client(program: Path, folder: Path, cases: list[str], through: str | None) -> Verdicts:
    """Let a client that echoes take the cases of the fuzzing server."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    specification = {"url": url, "outdir": "reports", "cases": cases, "exclude-cases": [], "exclude-agent-cases": {}}
    async with running(program, "fuzzingserver", specification, folder), ClientSession() as session:
        while not await is_listening(port):  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.1)
        async with session.ws_connect(f"{url}/getCaseCount") as socket:
            count = int((await socket.receive()).data)
        async with bridge(port, through) as entrance:
            for number in range(1, count + 1):
                # what the peer does wrong ends a case
                with contextlib.suppress(ClientError, OSError):
                    case = f"ws://127.0.0.1:{entrance}/runCase?case={number}&agent=echo"
                    async with session.ws_connect(case, compress=15, max_msg_size=0) as socket:
                        await echo(socket)
        async with session.ws_connect(f"{url}/updateReports?agent=echo") as socket:
            await socket.receive()
    return read_report(folder)


async def test_server(program: Path, folder: Path, cases: list[str], through: str | None) -> Verdicts:
    """Let the fuzzing client take a server that echoes through its cases."""

    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=True, max_msg_size=0)
        await socket.prepare(request)
        await echo(socket)
        return socket

    app = web.Application()
    app.router.add_get("/", talk)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with bridge(port, through) as entrance:
            specification = {
                "servers": [{"agent": "echo", "url": f"ws://127.0.0.1:{entrance}"}],
                "outdir": "reports",
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
            async with running(program, "fuzzingclient", specification, folder) as process:
                await process.wait()
    finally:
        await runner.cleanup()
    return read_report(folder)


@contextlib.asynccontextmanager
async def bridge(port: int, through: str | None) -> AsyncIterator[int]:
    """Listen for a client that knows no proxy, and bring it to `port` by CONNECT; the port to listen on."""
    if through is None:
        yield port
        return
    host, _, proxy_port = through.removeprefix("http://").partition(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            there, back = await asyncio.open_connection(host, int(proxy_port))
            back.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            await there.readuntil(b"\r\n\r\n")
            await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def compare(cases: list[str]) -> int:
    """Run both halves both ways; return how many verdicts differ."""
    program = install()
    different = 0
    for name, half in (("client", test_client), ("server", test_server)):
        verdicts: list[Verdicts] = []
        with tempfile.TemporaryDirectory() as directory:
            for way in ("direct", "proxy"):
                folder = Path(directory) / way
                folder.mkdir()
                async with contextlib.AsyncExitStack() as stack:
                    through = await stack.enter_async_context(proxy(folder)) if way == "proxy" else None
                    verdicts.append(await asyncio.wait_for(half(program, folder, cases, through), PATIENCE))
        direct, proxied = verdicts
        counts = {verdict: list(proxied.values()).count(verdict) for verdict in sorted(set(proxied.values()))}
        print(f"{name}: {len(proxied)} cases through the proxy: {counts}")
        for case in sorted(direct.keys() | proxied.keys()):
            if direct.get(case) != proxied.get(case):
                different += 1
                print(f"{name}: {case}: {direct.get(case)} without the proxy, {proxied.get(case)} with it")
    return different


def main(arguments: list[str]) -> int:
    """Compare, and say how."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="leave out the cases that take long: sizes, most of compression")
    options = parser.parse_args(arguments)
    return 1 if asyncio.run(compare(QUICK if options.quick else NIGHTLY)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
