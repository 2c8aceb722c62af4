"""Ask for one new name after another and see what is kept: ``scripts/bench churn``. Linux only.

Each name gets a connection of its own, with a handshake, a certificate, an upstream connection and one request. What the proxy holds
must come to rest once its caches are full: names beyond those must not make it grow.
"""

import argparse
import contextlib
import os
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import native_tools, opponents
from bench.certificates import make_certificates
from bench.memory import MIB, WrongBytesError, read_head
from bench.running import RunningProxy, free_port
from bench.scenarios import Route

DOMAIN = "churn.test"
# When caches of origins are full, 4096 of each
FULL = 5000
LIMIT = 8 * MIB


@dataclass(frozen=True)
class Row:
    """The proxy after so many names."""

    names: int
    resident: int
    descriptors: int
    cpu_ms: float
    """CPU of the proxy for each of the names since the row before."""


def ask(proxy: RunningProxy, trust: ssl.SSLContext, port: int, name: str) -> None:
    """Connect as a client that has never asked for `name` before, make one request and leave."""
    host, _, own = proxy.address.rpartition(":")
    with socket.create_connection((host, int(own))) as stream:
        stream.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        read_head(stream)
        with trust.wrap_socket(stream, server_hostname=name) as secured:
            secured.sendall(f"GET /3 HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            head, _ = read_head(secured)
            if " 200 " not in head:
                raise WrongBytesError(f"{name}: {head}")
            while secured.recv(65536):
                pass


def measure(proxy: RunningProxy, port: int, names: int) -> Iterator[Row]:
    """Ask for names and look at the proxy from time to time."""
    trust = ssl.create_default_context(cafile=str(proxy.launch.trusted_ca))
    pid = proxy.tree.processes()[0].pid
    looks = sorted({50, *(step for step in (1000, 2000, FULL, 10_000, 15_000) if step < names), names})
    done, cpu = 0, proxy.tree.cpu_seconds()
    for look in looks:
        for number in range(done, look):
            ask(proxy, trust, port, f"name-{number}.{DOMAIN}")
        now = proxy.tree.cpu_seconds()
        yield Row(look, proxy.tree.resident_bytes(), len(os.listdir(f"/proc/{pid}/fd")), (now - cpu) * 1000 / (look - done))
        done, cpu = look, now


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status is 1 when it went on growing with its caches full."""
    parser = argparse.ArgumentParser(prog="scripts/bench churn", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=20_000, help="how many names [20000]")
    options = parser.parse_args(arguments)
    table = Table("names", "resident MiB", "descriptors", "CPU ms each", title="New names")
    rows = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soth-mitm-churn-") as scratch, contextlib.ExitStack() as stack:
        certificates = make_certificates(Path(scratch) / "certificates", f"*.{DOMAIN}")
        origin = stack.enter_context(native_tools.Origin(native_tools.build(), certificates.chain, certificates.key))
        port = free_port()
        ground = opponents.Ground(f"127.0.0.1:{origin.tls_port}", certificates, port, Path(scratch) / "proxy")
        ground.directory.mkdir(mode=0o700)
        launch = opponents.BY_NAME["soth-mitm"].plans[Route.INTERCEPT](ground)
        proxy = stack.enter_context(RunningProxy("soth-mitm", launch, port, ground.directory, []))
        for row in measure(proxy, origin.tls_port, options.names):
            rows.append(row)
            table.add_row(str(row.names), f"{row.resident / MIB:.1f}", str(row.descriptors), f"{row.cpu_ms:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{options.names} names in {time.monotonic() - started:.0f} s")
    grown = rows[-1].resident - next(row.resident for row in rows if row.names >= min(FULL, options.names))
    return 0 if grown < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
