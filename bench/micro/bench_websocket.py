"""What a WebSocket frame and a message cost in the engine, beside wsproto.

`python -m pytest bench/micro/bench_websocket.py --benchmark-enable` prints a table. `extra_info` of each row, and the lines that come
with `-s`, are nanoseconds for one message, or GB/s. Our side is driven by a compiled loop (`websocket_messages.pyx`, built here).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import wsproto
from bench.micro.compiled import compiled_loop
from pytest_benchmark.fixture import BenchmarkFixture
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol

from soth_mitm._dataplane.websocket.frame import FrameReader
from soth_mitm._dataplane.websocket.message_reader import MessageReader
from soth_mitm._dataplane.websocket.message_writer import MessageWriter

FIN, RSV1, TEXT = 0x80, 0x40, 1
SIZES = [32, 125, 1024, 16384]
PACKED_SIZES = [100, 300, 1024, 4096, 16384]
MOST = 1 << 25
SAMPLE = b'{"id":17,"name":"temperature","value":21.5,"unit":"celsius","tags":["room","north"],"at":"2026-11-23T09:00:00Z"},'


@pytest.fixture(scope="session")
def loops(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The compiled loops."""
    return compiled_loop("websocket_messages", tmp_path_factory.mktemp("websocket_messages"))


def texts(size: int, count: int) -> list[bytes]:
    """Texts that resemble each other, as messages of one connection do."""
    return [(b"%d " % number + SAMPLE * (size // len(SAMPLE) + 1))[:size] for number in range(count)]


def stream(payloads: list[bytes], bits: int = FIN | TEXT) -> bytes:
    writer = MessageWriter(True)
    return b"".join(writer.write_frame(bits, payload) for payload in payloads)


def packed(payloads: list[bytes]) -> list[bytes]:
    compressor = zlib.compressobj(wbits=-15)
    return [(compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff") for payload in payloads]


def report(benchmark: Any, name: str, count: int, octets: int = 0) -> None:
    if benchmark.stats is None:
        return
    best = benchmark.stats.stats.min / count * 1e9
    benchmark.extra_info["gigabytes_per_second" if octets else "nanoseconds"] = round(octets / best if octets else best, 1)
    # with -s only: what pytest captures says nothing
    sys.stderr.write(f"\n{name}: {octets / best:.1f} GB/s\n" if octets else f"\n{name}: {best:.0f} ns\n")


def measure(benchmark: BenchmarkFixture, name: str, work: Callable[[], Any], count: int) -> None:
    assert benchmark(work) in (count, None)
    report(benchmark, name, count)


def times(size: int) -> int:
    return max(20, min(2000, (1 << 21) // size))


@pytest.mark.parametrize("size", SIZES)
def test_check_frames(benchmark: BenchmarkFixture, loops: ModuleType, size: int) -> None:
    count = times(size)
    data = stream(texts(size, count))
    measure(benchmark, f"check only, {size} octets", lambda: loops.check_frames(FrameReader(True), data), count)


@pytest.mark.parametrize("size", SIZES)
def test_read_messages(benchmark: BenchmarkFixture, loops: ModuleType, size: int) -> None:
    count = times(size)
    data = stream(texts(size, count))
    measure(benchmark, f"read a text, {size} octets", lambda: loops.read_messages(MessageReader(True, MOST), data), count)


@pytest.mark.parametrize("size", SIZES)
def test_write_messages(benchmark: BenchmarkFixture, loops: ModuleType, size: int) -> None:
    count = times(size)
    (payload,) = texts(size, 1)
    measure(benchmark, f"write and mask, {size} octets", lambda: loops.write_messages(MessageWriter(True), payload, count), count)


@pytest.mark.parametrize("size", PACKED_SIZES)
def test_read_compressed_messages(benchmark: BenchmarkFixture, loops: ModuleType, size: int) -> None:
    count = times(size)
    data = stream(packed(texts(size, count)), FIN | RSV1 | TEXT)
    measure(benchmark, f"read a compressed text, {size} octets", lambda: loops.read_messages(MessageReader(True, MOST, True), data), count)


@pytest.mark.parametrize("size", PACKED_SIZES)
def test_compress_messages(benchmark: BenchmarkFixture, loops: ModuleType, size: int) -> None:
    count = times(size)
    (payload,) = texts(size, 1)
    measure(benchmark, f"compress, {size} octets", lambda: loops.compress_messages(payload, 12, count), count)


@pytest.mark.parametrize("size", [16, 40, 125, 1024, 16384, 65536])
def test_unmask(benchmark: BenchmarkFixture, loops: ModuleType, size: int) -> None:
    count = times(size) * 10
    data = bytes(size)
    benchmark(lambda: loops.unmask(data, count))
    report(benchmark, f"unmask, {size} octets", count, size)


@pytest.mark.parametrize(
    ("name", "text"), [("ASCII", "the quick brown fox "), ("mixed", "größer als größte "), ("Chinese", "今天天气很好")]
)
def test_check_text(benchmark: BenchmarkFixture, loops: ModuleType, name: str, text: str) -> None:
    data = (text * 1000).encode()
    assert benchmark(lambda: loops.check_text(data, 100)) == 0
    report(benchmark, f"UTF-8, {name}", 100, len(data))


def read_by_wsproto(data: bytes, *extensions: PerMessageDeflate) -> int:
    protocol = FrameProtocol(False, list(extensions))
    protocol.receive_bytes(data)
    return sum(1 for _ in protocol.received_frames())


@pytest.mark.parametrize("size", SIZES)
def test_wsproto_reads(benchmark: BenchmarkFixture, size: int) -> None:
    data = stream(texts(size, 50))
    measure(benchmark, f"wsproto {wsproto.__version__} reads a text, {size} octets", lambda: read_by_wsproto(data), 50)


@pytest.mark.parametrize("size", PACKED_SIZES)
def test_wsproto_reads_compressed_messages(benchmark: BenchmarkFixture, size: int) -> None:
    data = stream(packed(texts(size, 50)), FIN | RSV1 | TEXT)

    def work() -> int:
        extension = PerMessageDeflate()
        extension.finalize("permessage-deflate")
        return read_by_wsproto(data, extension)

    measure(benchmark, f"wsproto reads a compressed text, {size} octets", work, 50)


@pytest.mark.parametrize("size", SIZES)
def test_wsproto_writes(benchmark: BenchmarkFixture, size: int) -> None:
    (payload,) = [text.decode() for text in texts(size, 1)]

    def work() -> None:
        protocol = FrameProtocol(True, [])
        for _ in range(50):
            protocol.send_data(payload)

    measure(benchmark, f"wsproto writes and masks, {size} octets", work, 50)
