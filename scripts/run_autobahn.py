"""Autobahn's fuzzing client and its fuzzing server, each against its own counterpart: bare, and through the proxy.

The counterpart is what Autobahn calls a testee: it echoes. Bare tells what the two say of each other. Through the proxy a case may not
end worse, whether messages are only shown to a handler or written again by one. The suite is of 2015 and needs Python 2.7, for which an
environment is made below `build/`; reports with every frame are in `build/autobahn/`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prepare import ROOT, require
from soth_mitm import ChunkDecision, HandlerDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, RawRequest, StreamChunk

WORK = ROOT / "build/autobahn"
SUITE = "autobahntestsuite==0.8.2"
HOST = "localhost"
# The best first; what is not named here is worse than all of them
GRADES = ("OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED")
SECONDS_TO_LISTEN = 20
# A good message stands before the violation there. The proxy closes both sides when it sees the violation, so the echo of that message,
# which has to come back from the other side, does not arrive. RFC 6455 section 7.1.7 allows that; the suite says NON-STRICT.
ECHO_IS_LOST = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}


class Redirects(InterceptHandler):
    """Sends each request to the fuzzing server or the testee."""

    def __init__(self, port: int) -> None:
        self.to = f"http://{HOST}:{port}"

    def on_request(self, request: RawRequest) -> HandlerDecision:
        return HandlerDecision.forward(to=self.to)


class Shown(Redirects):
    """Is shown each message."""

    def on_stream_chunk(self, chunk: StreamChunk) -> None:
        pass


class Rewritten(Redirects):
    """Writes each message again as it is."""

    def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        return ChunkDecision.replace(chunk.payload)


THROUGH: dict[str, type[Redirects]] = {"shown": Shown, "rewritten": Rewritten}


class Forwarder:
    """Listens as if it were the peer, and asks the proxy for a tunnel: neither end of Autobahn knows proxies."""

    def __init__(self, proxy_port: int) -> None:
        self._proxy_port = proxy_port
        self.port = 0

    async def serve(self) -> None:
        """Listen until it is cancelled."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._proxy_port)
        inner_writer.write(f"CONNECT {HOST}:{self.port} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n\r\n".encode())
        head = await inner_reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head:
            raise RuntimeError(f"the proxy refused the tunnel: {head!r}")
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wstest() -> Path:
    """Return the command of the suite, in an environment that is made for it."""
    place = WORK / "python2"
    command = place / "bin/wstest"
    if command.exists():
        return command
    pyenv = sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python2.7"))
    found = pyenv[0] if pyenv else shutil.which("python2.7")
    if found is None:
        sys.exit("scripts/test-autobahn needs Python 2.7 (pyenv install 2.7.18): the suite is written for it")
    require("install virtualenv for Python 2.7", [found, "-m", "pip", "install", "--quiet", "--target", WORK / "virtualenv", "virtualenv"])
    within = {**os.environ, "PYTHONPATH": str(WORK / "virtualenv")}
    require("make an environment of Python 2.7", [found, "-m", "virtualenv", "--quiet", place], within)
    require(f"install {SUITE}", [place / "bin/pip", "install", "--quiet", SUITE])
    return command


@contextlib.contextmanager
def proxied(handler: Redirects) -> Iterator[int]:
    """Run a proxy with this handler, and yield the port where its clients arrive without knowing of it."""
    with tempfile.TemporaryDirectory() as folder:
        config = MitmConfig(bind="127.0.0.1:0")
        config.interception.destinations.append(f"{HOST}:*")
        config.tls.ca_cert_path, config.tls.ca_key_path = f"{folder}/ca.pem", f"{folder}/ca-key.pem"
        # cases hold messages of 16 MiB
        config.body.max_size_bytes = 64 << 20
        config.max_in_flight_bytes = 256 << 20
        handle = MitmProxyBuilder(config, handler).build().start_in_thread()
        forwarder = Forwarder(handle.port)
        loop = asyncio.new_event_loop()

        async def serve() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await forwarder.serve()

        serving: asyncio.Task[None] = loop.create_task(serve())
        thread = threading.Thread(target=loop.run_until_complete, args=(serving,))
        thread.start()
        try:
            while not forwarder.port:
                time.sleep(0.01)
            yield forwarder.port
        finally:
            loop.call_soon_threadsafe(serving.cancel)
            thread.join()
            handle.shutdown(5)


def wait_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something accepts connections."""
    deadline = time.monotonic() + SECONDS_TO_LISTEN
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    sys.exit(f"the suite does not listen: {WORK}/log")


class Run:
    """One half of the suite, in one way."""

    def __init__(self, half: str, way: str, command: Path, cases: list[str], without: list[str]) -> None:
        self.folder = WORK / half / way
        self._half, self._way, self._command = half, way, command
        self._cases = {"cases": cases, "exclude-cases": without, "exclude-agent-cases": {}, "outdir": str(self.folder)}

    def results(self) -> dict[str, dict[str, str]]:
        """Run the cases and return what became of each."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        port = free_port()
        with contextlib.ExitStack() as stack:
            arrival = port if self._way == "bare" else stack.enter_context(proxied(THROUGH[self._way](port)))
            log = stack.enter_context(open(self.folder / "log", "wb"))
            run = self._serve if self._half == "client" else self._attack
            run(port, arrival, log)
        (found,) = json.loads((self.folder / "index.json").read_text()).values()
        return dict(found)

    def _start(self, log: object, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([self._command, *arguments], cwd=self.folder, stdout=log, stderr=log)  # type: ignore[call-overload,no-any-return]

    def _with_spec(self, **more: object) -> str:
        path = self.folder / "spec.json"
        path.write_text(json.dumps({**self._cases, **more}))
        return str(path)

    def _serve(self, port: int, arrival: int, log: object) -> None:
        """Let the fuzzing server test the client that is its testee."""
        server = self._start(log, "-m", "fuzzingserver", "-u", "0", "-s", self._with_spec(url=f"ws://{HOST}:{port}"))
        try:
            wait_listening(port, server)
            self._start(log, "-m", "testeeclient", "-w", f"ws://{HOST}:{arrival}").wait()
        finally:
            server.kill()
            server.wait()

    def _attack(self, port: int, arrival: int, log: object) -> None:
        """Let the fuzzing client test the server that is its testee."""
        testee = self._start(log, "-m", "testeeserver", "-w", f"ws://{HOST}:{port}")
        try:
            wait_listening(port, testee)
            self._start(log, "-m", "fuzzingclient", "-s", self._with_spec(servers=[{"url": f"ws://{HOST}:{arrival}"}])).wait()
        finally:
            testee.kill()
            testee.wait()


def grade(result: dict[str, str]) -> tuple[int, int]:
    """Return how good a result is, the best being the least."""
    at = [GRADES.index(result[key]) if result[key] in GRADES else len(GRADES) for key in ("behavior", "behaviorClose")]
    return at[0], at[1]


def main() -> int:
    """Run, compare, and tell."""
    parser = argparse.ArgumentParser(prog="scripts/test-autobahn", description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="PATTERN", help="which cases, as 7.* (all)")
    parser.add_argument("--without", nargs="+", default=[], metavar="PATTERN", help="which ones not")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    command = wstest()
    worse = 0
    for half, name in (("server", "the fuzzing client"), ("client", "the fuzzing server")):
        bare: dict[str, dict[str, str]] = {}
        for way in ("bare", *THROUGH):
            began = time.monotonic()
            results = Run(half, way, command, options.cases, options.without).results()
            counts = [sum(grade(result)[0] == at for result in results.values()) for at in range(len(GRADES) + 1)]
            said = ", ".join(f"{count} {word}" for count, word in zip(counts, (*GRADES, "failed"), strict=True) if count)
            print(f"{name}, {way}: {len(results)} cases in {time.monotonic() - began:.0f} s: {said}", flush=True)
            bare = bare or results
            lost = 0
            for case in sorted(bare, key=lambda case: [int(part) for part in case.split(".")]):
                if case not in results:
                    worse += 1
                    print(f"  {case}: not run")
                elif case in ECHO_IS_LOST and results[case]["behavior"] == "NON-STRICT":
                    lost += 1
                elif grade(results[case]) > grade(bare[case]):
                    worse += 1
                    words = [f"{each['behavior']}, {each['behaviorClose']} at the close" for each in (bare[case], results[case])]
                    print(f"  {case}: {words[0]} became {words[1]}")
            if lost:
                print(f"  {lost} cases: the echo of a message before the violation does not come back, as expected")
    print(f"{worse} cases are worse through the proxy; the frames of each are in {WORK.relative_to(ROOT)}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
