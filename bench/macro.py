"""Measure whole proxies side by side: ``python -m bench.macro --help``. See bench/README.md for how to read the result."""

import argparse
import contextlib
import json
import platform
import signal
import ssl
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from bench import native_tools, opponents, report, scenarios
from bench.certificates import NAME, Certificates, make_certificates
from bench.process_cpu import Cores, ProcessTree, prefix_command
from bench.report import Run
from bench.running import ProxyStartError, RunningProxy, free_port
from bench.scenarios import Scenario

RESULTS = Path(__file__).parent / "results"


@dataclass
class Bench:
    """Everything that stays the same during a run of the program."""

    console: Console
    cores: Cores
    tools: Path
    directory: Path
    certificates: Certificates
    origins: dict[bool, native_tools.Origin]
    """The servers that answer: those of HTTP/2 under True, those of HTTP/1 under False."""
    amount: list[str]
    """The options of load that say how long to measure."""

    def start(self, stack: contextlib.ExitStack, opponent: opponents.Opponent, scenario: Scenario) -> RunningProxy:
        """Start the opponent for the scenario's route; the stack ends it."""
        directory = self.directory / f"{scenario.name}-{opponent.name}"
        directory.mkdir()
        port = free_port()
        origin = self.origins[scenario.route.speaks_http2]
        ground = opponents.Ground(f"127.0.0.1:{origin.tls_port}", self.certificates, port, directory)
        launch = opponent.plans[scenario.route](ground)
        return stack.enter_context(RunningProxy(opponent.name, launch, port, directory, prefix_command(self.cores.proxy)))

    def measure(self, scenario: Scenario, proxy: RunningProxy | None, round_number: int) -> Run:
        """Run the scenario once, through the proxy or directly, and return what it cost."""
        origin = self.origins[scenario.route.speaks_http2]
        target = f"127.0.0.1:{origin.tls_port}"
        arguments = [*scenario.load_arguments(), *self.amount, "--target", target, "--name", NAME]
        arguments += ["--connect", proxy.address if proxy else target]
        arguments += ["--ca", str(proxy.launch.trusted_ca if proxy else self.certificates.ca)]
        if proxy and proxy.launch.connect:
            arguments.append("--proxy")
        origin_tree = ProcessTree(origin.pid)
        clocks: list[tuple[float, float]] = []
        resident: list[int] = []

        def read_clocks() -> None:
            clocks.append((proxy.tree.cpu_seconds() if proxy else 0.0, origin_tree.cpu_seconds()))

        def after() -> None:
            read_clocks()
            if proxy:
                resident.append(proxy.tree.resident_bytes())

        outcome = native_tools.run_load(
            self.tools,
            arguments,
            prefix=prefix_command(self.cores.load),
            on_warm=read_clocks,
            on_measured=after,
            http2=scenario.route.speaks_http2,
        )
        errors = {name: count for name, count in outcome["errors"].items() if count and name != "total"}
        if errors or outcome["error_text"] or not outcome["requests"]:
            raise native_tools.NativeToolError(f"errors {errors}, {outcome['requests']} answers\n{outcome['error_text'].strip()}")
        per_request = 1e6 / outcome["requests"]
        (proxy_before, origin_before), (proxy_after, origin_after) = clocks
        return Run(
            scenario=scenario.name,
            opponent=proxy.name if proxy else opponents.DIRECT,
            round=round_number,
            requests=outcome["requests"],
            rate=outcome["rate"],
            proxy_cpu_us=(proxy_after - proxy_before) * per_request if proxy else None,
            load_cpu_us=outcome["cpu_seconds"] * per_request,
            origin_cpu_us=(origin_after - origin_before) * per_request,
            resident_bytes=resident[0] if resident else None,
            p50_us=outcome["latency_us"]["p50"],
            p99_us=outcome["latency_us"]["p99"],
            full_handshakes=outcome["handshakes"]["full"],
            resumed_handshakes=outcome["handshakes"]["resumed"],
        )

    def run_scenario(self, scenario: Scenario, rounds: int, chosen: Sequence[opponents.Opponent], *, direct: bool) -> tuple[list[Run], int]:
        """Measure all opponents of one scenario in interleaved rounds; return the runs and how many opponents failed."""
        runs: list[Run] = []
        failures = 0
        with contextlib.ExitStack() as stack:
            contestants: list[RunningProxy | None] = [None] if direct else []
            for opponent in chosen:
                try:
                    contestants.append(self.start(stack, opponent, scenario))
                except ProxyStartError as error:
                    failures += 1
                    self.console.print(f"[red]{scenario.name}: {error}[/red]")
            for number in range(rounds):
                # Each round begins with another one, so that drift and neighbours hit everybody alike.
                turn = number % max(1, len(contestants))
                for contestant in contestants[turn:] + contestants[:turn]:
                    name = contestant.name if contestant else opponents.DIRECT
                    if self.console.is_terminal:
                        self.console.print(f"[dim]{scenario.name} · round {number + 1}/{rounds} · {name:16}[/dim]", end="\r")
                    try:
                        runs.append(self.measure(scenario, contestant, number))
                    except native_tools.NativeToolError as error:
                        failures += 1
                        said = f"\n{contestant.said()}" if contestant else ""
                        self.console.print(f"[red]{scenario.name}: {name} failed and is left out from here on: {error}{said}[/red]")
                        contestants = [other for other in contestants if other is not contestant]
        order = [opponents.DIRECT, *opponents.BY_NAME]
        return sorted(runs, key=lambda run: (order.index(run.opponent), run.round)), failures


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; names are checked here, so that a typo is no empty table."""
    names = [opponents.DIRECT, *opponents.BY_NAME]
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure proxies side by side: rate and CPU time per request.")
    parser.add_argument("--scenarios", nargs="+", choices=scenarios.BY_NAME, default=list(scenarios.BY_NAME), metavar="NAME")
    parser.add_argument("--opponents", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--rounds", type=int, help="runs of each opponent per scenario [5; quick: 1]")
    parser.add_argument("--seconds", type=float, help="length of one run [1.5; quick: 0.4]")
    parser.add_argument("--requests", type=int, help="measure so many requests in each run, however long it takes")
    parser.add_argument("--quick", action="store_true", help="all in one or two minutes: good for order of magnitude only")
    parser.add_argument("--no-pin", action="store_true", help="leave it to the system which core runs what")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables instead of a terminal's")
    parser.add_argument("--out", type=Path, help="where the JSON goes [bench/results/<time>.json]")
    parser.epilog = f"scenarios: {', '.join(scenarios.BY_NAME)}. opponents: {', '.join(names)}."
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.4 if options.quick else 1.5)
    return options


def available(console: Console, names: Sequence[str], wanted: Sequence[Scenario]) -> dict[scenarios.Route, list[opponents.Opponent]]:
    """Return who can run on each route, and say what is missing for the others."""
    found: dict[scenarios.Route, list[opponents.Opponent]] = {}
    told: set[str] = set()
    for route in dict.fromkeys(scenario.route for scenario in wanted):
        found[route] = []
        for opponent in (opponents.BY_NAME[name] for name in names if name != opponents.DIRECT):
            if route not in opponent.plans:
                continue
            missing = opponent.missing(route)
            if missing is None:
                found[route].append(opponent)
            elif missing not in told:
                told.add(missing)
                console.print(f"[yellow]{opponent.name} is left out ({route.value}): {missing}[/yellow]")
    return found


def machine() -> dict[str, Any]:
    """Return what a reader of the figures must know about this machine."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    return {"cpu": model, "system": platform.platform(), "python": sys.version.split()[0], "openssl": ssl.OPENSSL_VERSION}


def _stop(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when every run of every available opponent was clean."""
    options = parse_arguments(arguments)
    console = Console(stderr=True, highlight=False)
    # A table cut to the width of a pipe or of a narrow window is worth less than one whose lines wrap.
    tables = Console(width=max(report.TABLE_WIDTH, console.width), highlight=False)
    if sys.platform != "linux":
        console.print("The benchmark needs Linux: its native ends use epoll.")
        return 2
    signal.signal(signal.SIGTERM, _stop)
    wanted = [scenario for scenario in scenarios.ALL if scenario.name in options.scenarios]
    http2 = any(scenario.route.speaks_http2 for scenario in wanted)
    missing = native_tools.missing_for_http2() if http2 else None
    if missing:
        wanted = [scenario for scenario in wanted if not scenario.route.speaks_http2]
        console.print(f"[yellow]all HTTP/2 scenarios are left out: {missing}[/yellow]")
    tools = native_tools.build(http2=http2 and not missing)
    contestants = available(console, options.opponents, wanted)
    versions = {one.name: one.version() for one in dict.fromkeys(one for many in contestants.values() for one in many)}
    cores = Cores(pin=not options.no_pin)
    started = datetime.now(UTC)
    console.print(f"{machine()['cpu']}, {machine()['openssl']}; {cores}")
    for name, version in versions.items():
        console.print(f"[dim]{name}: {version}[/dim]")

    runs: list[Run] = []
    failures = 0
    amount = ["--requests", str(options.requests)] if options.requests else ["--seconds", str(options.seconds)]
    with tempfile.TemporaryDirectory(prefix="soth-mitm-bench-") as scratch:
        directory = Path(scratch)
        certificates = make_certificates(directory / "certificates")
        with contextlib.ExitStack() as stack:
            origins = {}
            for speaks_http2 in {scenario.route.speaks_http2 for scenario in wanted}:
                origin = native_tools.Origin(tools, certificates.chain, certificates.key, prefix_command(cores.origin), http2=speaks_http2)
                origins[speaks_http2] = stack.enter_context(origin)
            bench = Bench(console, cores, tools, directory, certificates, origins, amount)
            for scenario in wanted:
                direct = opponents.DIRECT in options.opponents
                own, failed = bench.run_scenario(scenario, options.rounds, contestants[scenario.route], direct=direct)
                runs += own
                failures += failed
                if not options.markdown:
                    report.print_tables(tables, report.summarise(own), [scenario])

    rows = report.summarise(runs)
    if options.markdown:
        print(report.markdown(rows, wanted))
    out = options.out or RESULTS / f"{started:%Y%m%dT%H%M%SZ}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"started": started.isoformat(), "machine": machine(), "cores": str(cores), "versions": versions, "load": amount}
    out.write_text(json.dumps({**facts, **report.as_json(runs, rows)}, indent=1) + "\n")
    console.print(f"[dim]written: {out}[/dim]")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
