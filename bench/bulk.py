"""Move one large body over a long link, directly and through the proxy: ``scripts/bench bulk``. Linux only.

The link is a relay of ours on loopback that delays and carries only so many bytes a second. It stands before the proxy (the client is far)
or behind it (the origin is far). Each body goes over new connections, so that a window that grows with use has to grow here. The time is
that from dialling to the last byte; the ratio is the rate through the proxy divided by the rate over the same link without it.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import native_tools, opponents
from bench.certificates import NAME, Certificates, make_certificates
from bench.relay import DelayingRelay
from bench.running import ProxyStartError, RunningProxy, free_port
from bench.scenarios import Route

MIB = 1 << 20
GOAL = 0.8
TIMEOUT = 100
FAR = ("client", "origin")
WAYS = ("download", "upload")
PROTOCOLS = {"http1": Route.INTERCEPT, "http2": Route.HTTP2}
PROXIES = sorted({one.name for one in opponents.ALL for route in PROTOCOLS.values() if route in one.plans})


@dataclass
class Bench:
    """Everything that stays the same during a run of the program."""

    tools: Path
    directory: Path
    certificates: Certificates
    origins: dict[bool, native_tools.Origin]
    size: int
    round_trip: float
    rate: float
    number: int = 0

    def move(self, route: Route, way: str, port: int, ca: Path, target: int, *, connect: bool) -> float:
        """Move one body and return bytes a second."""
        arguments = ["--requests", "1", "--connections", "1", "--timeout", str(TIMEOUT), "--tls", "1.3", "--name", NAME, "--ca", str(ca)]
        arguments += ["--connect", f"127.0.0.1:{port}", "--target", f"127.0.0.1:{target}", *(["--proxy"] if connect else [])]
        down, up = (self.size, 0) if way == "download" else (1, self.size)
        arguments += ["--path", f"/{down}", "--expect", str(down), *(["--post", str(up)] if up else [])]
        outcome = native_tools.run_load(self.tools, arguments, http2=route.speaks_http2)
        if outcome["requests"] != 1:
            raise native_tools.NativeToolError(outcome["error_text"])
        return self.size / float(outcome["seconds"])

    def directly(self, route: Route, way: str) -> float:
        """Return the rate over the link alone."""
        port = self.origins[route.speaks_http2].tls_port
        with DelayingRelay(port, self.round_trip, self.rate) as relay:
            return self.move(route, way, relay.port, self.certificates.ca, port, connect=False)

    def through(self, name: str, route: Route, way: str, far: str) -> float:
        """Return the rate through a new process of this proxy."""
        self.number += 1
        directory = self.directory / str(self.number)
        directory.mkdir(mode=0o700)
        target, port = self.origins[route.speaks_http2].tls_port, free_port()
        with contextlib.ExitStack() as stack:
            if far == "origin":
                target = stack.enter_context(DelayingRelay(target, self.round_trip, self.rate)).port
            ground = opponents.Ground(f"127.0.0.1:{target}", self.certificates, port, directory)
            launch = opponents.BY_NAME[name].plans[route](ground)
            stack.enter_context(RunningProxy(name, launch, port, directory, []))
            if far == "client":
                port = stack.enter_context(DelayingRelay(port, self.round_trip, self.rate)).port
            return self.move(route, way, port, launch.trusted_ca, target, connect=launch.connect)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status is 1 when soth-mitm is below the goal."""
    parser = argparse.ArgumentParser(prog="scripts/bench bulk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=100, help="size of each body [100]")
    parser.add_argument("--round-trip", type=float, default=100.0, help="of the link, in milliseconds [100]")
    parser.add_argument("--mbit", type=float, default=400.0, help="what the link carries a second, in each direction [400]")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind; their median counts [3]")
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument(
        "--opponents", nargs="+", choices=PROXIES, default=["soth-mitm+hook"], metavar="NAME", help=f"of {', '.join(PROXIES)}"
    )
    options = parser.parse_args(arguments)
    tools = native_tools.build(http2="http2" in options.protocols)
    title = f"{options.mib} MiB over {options.mbit:g} Mbit/s with a round trip of {options.round_trip:g} ms, MiB/s"
    table = Table("proxy", "protocol", "far", "body", "direct", "through", "ratio", title=title)
    console = Console(highlight=False)
    below = False
    with tempfile.TemporaryDirectory(prefix="soth-mitm-bulk-") as scratch, contextlib.ExitStack() as stack:
        certificates = make_certificates(Path(scratch) / "certificates")
        routes = {name: PROTOCOLS[name] for name in options.protocols}
        origins = {
            http2: stack.enter_context(native_tools.Origin(tools, certificates.chain, certificates.key, http2=http2))
            for http2 in {route.speaks_http2 for route in routes.values()}
        }
        bench = Bench(tools, Path(scratch), certificates, origins, options.mib * MIB, options.round_trip / 1000, options.mbit * 1e6 / 8)
        for protocol, route in routes.items():
            for way in WAYS:
                direct = statistics.median(bench.directly(route, way) for _ in range(options.rounds))
                for name in options.opponents:
                    if route not in opponents.BY_NAME[name].plans:
                        continue
                    for far in FAR:
                        try:
                            rate = statistics.median(bench.through(name, route, way, far) for _ in range(options.rounds))
                        except (ProxyStartError, native_tools.NativeToolError) as error:
                            console.print(f"{name}, {protocol}, far {far}, {way}: {error}")
                            rate = 0.0
                        below = below or (name.startswith("soth-mitm") and rate < GOAL * direct)
                        table.add_row(name, protocol, far, way, f"{direct / MIB:.1f}", f"{rate / MIB:.1f}", f"{rate / direct:.2f}")
    console.print(table)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
