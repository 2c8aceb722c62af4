"""Send bodies of gigabytes through the proxy and see how much it grows: ``scripts/bench memory``. Linux only.

Each body goes through one kept connection; every byte of it is checked where it arrives. The growth is the peak of the resident memory of
the proxy's process during the body over what it held before the first one. The limit is what the project promises for any body.
"""

import argparse
import contextlib
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import opponents
from bench.certificates import NAME, Certificates, make_certificates
from bench.running import RunningProxy, free_port
from bench.scenarios import Route

MIB = 1 << 20
LIMIT = 40 * MIB
BLOCK = bytes(range(256)) * 4096
CHUNK = b"%x\r\n" % len(BLOCK) + BLOCK + b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class WrongBytesError(AssertionError):
    """A body arrived changed, cut or followed by something else."""


def send_body(stream: socket.socket, blocks: int, *, chunked: bool) -> None:
    """Send a body of so many blocks."""
    for _ in range(blocks):
        stream.sendall(CHUNK if chunked else BLOCK)
    if chunked:
        stream.sendall(LAST_CHUNK)


def check_body(stream: socket.socket, blocks: int, begun: bytes, *, chunked: bool) -> None:
    """Read such a body, whose first bytes are `begun`, and compare each byte."""
    unit = CHUNK if chunked else BLOCK
    buffer = bytearray(len(unit))
    view = memoryview(buffer)
    filled = len(begun)
    view[:filled] = begun
    for number in range(blocks):
        while filled < len(unit):
            count = stream.recv_into(view[filled:])
            if count == 0:
                raise WrongBytesError(f"the stream ended in MiB {number}")
            filled += count
        if buffer != unit:
            raise WrongBytesError(f"MiB {number} is not what was sent")
        filled = 0
    if chunked and stream.recv(len(LAST_CHUNK)) != LAST_CHUNK:
        raise WrongBytesError("the last chunk is not what was sent")


def read_head(stream: socket.socket) -> tuple[str, bytes]:
    """Read up to an empty line; return the head and what came behind it. At the end of the stream the head is empty."""
    data = b""
    while b"\r\n\r\n" not in data:
        # less than a block, so that what comes behind the head fits into one
        piece = stream.recv(16384)
        if not piece:
            return "", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


class BodyOrigin:
    """An HTTPS server with a thread for each connection: GET /<blocks> and GET /chunked/<blocks> send, POST checks and answers 200."""

    def __init__(self, certificates: Certificates) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates.chain, certificates.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            accepted, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError), self._context.wrap_socket(accepted, server_side=True) as stream:
            while True:
                head, rest = read_head(stream)
                if not head:
                    return
                method, path, _ = head.partition("\r\n")[0].split(" ")
                blocks = int(path.rpartition("/")[2])
                chunked = "chunked" in path
                if method == "POST":
                    check_body(stream, blocks, rest, chunked=chunked)
                    stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                else:
                    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {blocks * len(BLOCK)}"
                    stream.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
                    send_body(stream, blocks, chunked=chunked)


def connect(proxy: RunningProxy, origin: BodyOrigin) -> ssl.SSLSocket:
    """Connect through the proxy, with TLS up to whoever answers it there."""
    host, _, port = proxy.address.rpartition(":")
    stream = socket.create_connection((host, int(port)))
    stream.sendall(f"CONNECT 127.0.0.1:{origin.port} HTTP/1.1\r\nHost: 127.0.0.1:{origin.port}\r\n\r\n".encode())
    read_head(stream)
    return ssl.create_default_context(cafile=str(proxy.launch.trusted_ca)).wrap_socket(stream, server_hostname=NAME)


def download(stream: socket.socket, blocks: int, *, chunked: bool) -> None:
    """GET a body."""
    stream.sendall(f"GET /{'chunked/' if chunked else ''}{blocks} HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    head, rest = read_head(stream)
    if " 200 " not in head:
        raise WrongBytesError(head)
    check_body(stream, blocks, rest, chunked=chunked)


def upload(stream: socket.socket, blocks: int, *, chunked: bool) -> None:
    """POST a body."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {blocks * len(BLOCK)}"
    stream.sendall(f"POST /{'chunked/' if chunked else ''}{blocks} HTTP/1.1\r\nHost: {NAME}\r\n{framing}\r\n\r\n".encode())
    send_body(stream, blocks, chunked=chunked)
    head, _ = read_head(stream)
    if " 200 " not in head:
        raise WrongBytesError(head)


KINDS: dict[str, tuple[Callable[..., None], bool]] = {
    "download, Content-Length": (download, False),
    "download, chunked": (download, True),
    "upload, Content-Length": (upload, False),
    "upload, chunked": (upload, True),
}


class Resident:
    """The resident memory of a process as the kernel counts it."""

    def __init__(self, pid: int) -> None:
        self._directory = Path(f"/proc/{pid}")
        self.before = self._read("VmRSS")

    def _read(self, name: str) -> int:
        lines = (self._directory / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    @contextlib.contextmanager
    def growth(self) -> Iterator[list[int]]:
        """Put the peak from now to the end, less what was held before, into the list."""
        (self._directory / "clear_refs").write_text("5")
        grown: list[int] = []
        yield grown
        grown.append(self._read("VmHWM") - self.before)


@dataclass(frozen=True)
class Row:
    """One body through one proxy."""

    proxy: str
    kind: str
    seconds: float
    growth: int


def measure(name: str, route: Route, certificates: Certificates, origin: BodyOrigin, directory: Path, blocks: int) -> Iterator[Row]:
    """Send all kinds of bodies through a new proxy, one after another on one connection."""
    directory.mkdir(mode=0o700)
    port = free_port()
    ground = opponents.Ground(f"127.0.0.1:{origin.port}", certificates, port, directory)
    launch = opponents.BY_NAME[name].plans[route](ground)
    with RunningProxy(name, launch, port, directory, []) as proxy, connect(proxy, origin) as stream:
        # what the first bytes load is no growth of a body
        for send, chunked in KINDS.values():
            send(stream, 1, chunked=chunked)
        resident = Resident(proxy.tree.processes()[0].pid)
        for kind, (send, chunked) in KINDS.items():
            started = time.monotonic()
            with resident.growth() as grown:
                send(stream, blocks, chunked=chunked)
            yield Row(f"{name} ({route.value})", kind, time.monotonic() - started, grown[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status is 1 when something grew beyond the limit."""
    parser = argparse.ArgumentParser(prog="scripts/bench memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=4.0, help="size of each body [4]")
    options = parser.parse_args(arguments)
    blocks = int(options.gib * 1024)
    table = Table("proxy", "body", "GiB", "seconds", "MiB/s", "growth MiB", title="Resident growth")
    rows = []
    with tempfile.TemporaryDirectory(prefix="soth-mitm-memory-") as scratch:
        certificates = make_certificates(Path(scratch) / "certificates")
        origin = BodyOrigin(certificates)
        for name, route in (("soth-mitm", Route.INTERCEPT), ("soth-mitm+hook", Route.INTERCEPT), ("soth-mitm", Route.TUNNEL)):
            for row in measure(name, route, certificates, origin, Path(scratch) / f"{name}-{route.value}", blocks):
                rows.append(row)
                rate = blocks / row.seconds
                table.add_row(row.proxy, row.kind, f"{blocks / 1024:g}", f"{row.seconds:.1f}", f"{rate:.0f}", f"{row.growth / MIB:.1f}")
    Console().print(table)
    return 0 if all(row.growth < LIMIT for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
