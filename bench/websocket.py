"""CPU per message of proxies between two ends of a WebSocket that echo: ``scripts/bench websocket --help``.

Both ends speak TLS 1.3. Each connection has one message under way: a masked frame to the upstream, the same payload back. A message is one
frame in one direction. The figures are the CPU time of the proxy's processes for each, the median of the rounds, and the median of what
that is ÷ nginx in the same round. A round begins with another proxy than the one before.
"""

import argparse
import asyncio
import base64
import contextlib
import functools
import hashlib
import re
import ssl
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import uvloop

from bench import opponents
from bench.certificates import NAME, Certificates, make_certificates
from bench.opponents import Ground, Launch, Plan
from bench.process_cpu import Cores, prefix_command
from bench.running import RunningProxy, free_port

SIZES = (32, 1024, 16384)
CONNECTIONS = 10
MANY = 100
MIB = 1 << 20
GIB = 1 << 30
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = b"\x01\x02\x03\x04"


def text_of(size: int) -> bytes:
    """Return the payload of a message."""
    return (b"All that is gold does not glitter. " * (size // 35 + 1))[:size]


def frame(payload: bytes, key: bytes = b"") -> bytes:
    """Return one text frame."""
    masked = 0x80 if key else 0
    size = bytes((masked | len(payload),)) if len(payload) < 126 else bytes((masked | 126,)) + len(payload).to_bytes(2, "big")
    return b"\x81" + size + key + bytes(octet ^ key[at % 4] for at, octet in enumerate(payload)) if key else b"\x81" + size + payload


class Echo(asyncio.Protocol):
    """The upstream: accepts, and answers each so many octets with the same frame."""

    def __init__(self, asked: int, answer: bytes) -> None:
        self._asked, self._answer = asked, answer
        self._head: bytes | None = b""
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # that of uvloop is none of its class
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return
            found = re.search(rb"(?i)sec-websocket-key: *(\S+)", self._head)
            assert found is not None
            accept = base64.b64encode(hashlib.sha1(found[1] + GUID, usedforsecurity=False).digest())
            self._head = None
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                + accept
                + b"\r\n\r\n"
            )
            return
        self._count += len(data)
        while self._count >= self._asked:
            self._count -= self._asked
            self._transport.write(self._answer)


class Talk(asyncio.Protocol):
    """A client's connection: sends the next frame when the answer to the last one is here."""

    def __init__(self, message: bytes, answer: int) -> None:
        self._message, self._answer = message, answer
        self._count = 0
        self.messages = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # that of uvloop is none of its class
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        self._count += len(data)
        if self._count >= self._answer:
            self._count -= self._answer
            self.messages += 2
            self._transport.write(self._message)


async def open_socket(address: str, trusted: Path, target: str, *, connect: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a WebSocket through a proxy."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=str(trusted))
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=None if connect else context, server_hostname=None if connect else NAME
    )
    if connect:
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(context, server_hostname=NAME)
    key = base64.b64encode(bytes(16)).decode()
    writer.write(
        f"GET / HTTP/1.1\r\nHost: {target}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head, head
    return reader, writer


@contextlib.asynccontextmanager
async def talking(proxy: RunningProxy, target: str, size: int, connections: int) -> AsyncIterator[list[Talk]]:
    """Let so many connections echo."""
    payload = text_of(size)
    message, answer = frame(payload, KEY), frame(payload)
    talks: list[Talk] = []
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(connections):
            _, writer = await open_socket(proxy.address, proxy.launch.trusted_ca, target, connect=proxy.launch.connect)
            talk = Talk(message, len(answer))
            writer.transport.set_protocol(talk)
            stack.callback(writer.transport.abort)
            talks.append(talk)
            talk.connection_made(writer.transport)
        await asyncio.sleep(0.5)
        yield talks


async def measure(proxy: RunningProxy, target: str, size: int, seconds: float) -> float:
    """Return microseconds of the proxy's CPU for each message."""
    async with talking(proxy, target, size, CONNECTIONS) as talks:
        began, cpu = sum(talk.messages for talk in talks), proxy.tree.cpu_seconds()
        await asyncio.sleep(seconds)
        count = sum(talk.messages for talk in talks) - began
        return (proxy.tree.cpu_seconds() - cpu) / count * 1e6


async def grow(proxy: RunningProxy, target: str, size: int) -> int:
    """Return by how many octets the proxy is larger at its peak, while a GiB of messages passes on many connections."""
    async with talking(proxy, target, size, MANY) as talks:
        before = peak = proxy.tree.resident_bytes()
        began = sum(talk.messages for talk in talks)
        while (sum(talk.messages for talk in talks) - began) * size < GIB:
            await asyncio.sleep(0.2)
            peak = max(peak, proxy.tree.resident_bytes())
        return peak - before


def soth(handler: str) -> Plan:
    """Return how the proxy is started with a handler of `bench.handlers`."""
    return lambda ground: opponents.plan_soth(ground, handler)


def nginx(ground: Ground) -> Launch:
    """Return how nginx is started as a reverse proxy that lets upgrades pass."""
    launch = opponents.plan_nginx(ground)
    path = Path(launch.command[-1])
    text = path.read_text()
    text = text.replace(
        'proxy_set_header Connection "";', "proxy_set_header Connection upgrade;\n      proxy_set_header Upgrade websocket;"
    )
    path.write_text(text)
    return replace(launch)


PLANS: dict[str, Plan] = {
    "nginx": nginx,
    "unread": soth("Noop"),
    "chunk hook": soth("MessageHook"),
    "filter": soth("MessageFilter"),
    "both": soth("MessageFilterAndHook"),
}


@dataclass(frozen=True)
class Course:
    """What is measured, and where."""

    directory: Path
    certificates: Certificates
    cores: Cores
    names: tuple[str, ...]

    @contextlib.asynccontextmanager
    async def proxies(self, size: int) -> AsyncIterator[tuple[str, dict[str, RunningProxy]]]:
        """Start an upstream that echoes messages of this size, and each proxy before it; yield its target and them."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificates.chain, self.certificates.key)
        payload = text_of(size)
        make = functools.partial(Echo, len(frame(payload, KEY)), frame(payload))
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, ssl=context)
        target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with contextlib.ExitStack() as stack:
            started: dict[str, RunningProxy] = {}
            for name in self.names:
                port, folder = free_port(), self.directory / f"{size}-{name}".replace(" ", "-")
                folder.mkdir()
                launch = PLANS[name](Ground(target, self.certificates, port, folder))
                started[name] = stack.enter_context(RunningProxy(name, launch, port, folder, prefix_command(self.cores.proxy)))
            yield target, started
        server.close()

    async def costs(self, size: int, rounds: int, seconds: float) -> dict[str, list[float]]:
        """Return microseconds for a message in each round, by the name of the proxy."""
        found: dict[str, list[float]] = {name: [] for name in self.names}
        async with self.proxies(size) as (target, proxies):
            for number in range(rounds):
                turn = number % len(self.names)
                for name in self.names[turn:] + self.names[:turn]:
                    found[name].append(await measure(proxies[name], target, size, seconds))
        return found

    async def growth(self, size: int) -> dict[str, int]:
        """Return by how many octets each proxy is larger at its peak."""
        async with self.proxies(size) as (target, proxies):
            return {name: await grow(proxy, target, size) for name, proxy in proxies.items()}


def main(arguments: list[str]) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--memory", action="store_true", help="let a GiB of messages pass on 100 connections, and say how much that takes")
    options = parser.parse_args(arguments)
    cores = Cores(pin=True)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        certificates = make_certificates(path)
        if options.memory:
            grown = uvloop.run(Course(path, certificates, cores, tuple(PLANS)[2:]).growth(SIZES[-1]))
            for name, octets in grown.items():
                print(f"{name}: {MANY} connections, 1 GiB: the proxy grew by {octets / MIB:.1f} MiB")
            return 0
        course = Course(path, certificates, cores, tuple(PLANS))
        costs = {size: uvloop.run(course.costs(size, options.rounds, options.seconds)) for size in SIZES}
    print(f"CPU µs per message, {CONNECTIONS} connections, {options.rounds} rounds, {cores}; and ÷ nginx")
    print(f"{'':<12}" + "".join(f"{f'{size} B':>8}{'÷ nginx':>9}{'':11}" for size in SIZES))
    for name in PLANS:
        line = f"{name:<12}"
        for rounds in costs.values():
            ratios = [ours / theirs for ours, theirs in zip(rounds[name], rounds["nginx"], strict=True)]
            span = f"{min(ratios):.2f}–{max(ratios):.2f}"
            line += f"{statistics.median(rounds[name]):>8.2f}{statistics.median(ratios):>7.2f}  {span:<11}"
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
