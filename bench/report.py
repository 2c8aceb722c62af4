"""Turn runs into medians and paired ratios, and those into tables for a terminal or for Markdown."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.scenarios import Scenario

BASELINES = ("nginx", "mitmproxy", "nghttpx")


@dataclass(frozen=True)
class Run:
    """One measured run of one opponent; times per request in microseconds."""

    scenario: str
    opponent: str
    round: int
    requests: int
    rate: float
    proxy_cpu_us: float | None
    """None for the direct run, which has no proxy."""
    load_cpu_us: float
    origin_cpu_us: float
    resident_bytes: int | None
    p50_us: float
    p99_us: float
    full_handshakes: int
    resumed_handshakes: int


@dataclass(frozen=True)
class Row:
    """The medians of one opponent in one scenario."""

    scenario: str
    opponent: str
    runs: int
    cpu_us: float | None
    cpu_us_range: tuple[float, float] | None
    rate: float
    p50_us: float
    p99_us: float
    ends_cpu_us: float
    """CPU of load and origin together: near 1 / rate, the proxy was not the bottleneck."""
    resident_bytes: int | None
    relative_cpu: dict[str, float] = field(default_factory=dict)
    """Median over the rounds of this opponent's CPU divided by that baseline's in the same round."""


def summarise(runs: Sequence[Run]) -> list[Row]:
    """Return one row per scenario and opponent, in the order of the runs."""
    cpu = {(run.scenario, run.opponent, run.round): run.proxy_cpu_us for run in runs}
    rows = []
    for scenario, opponent in dict.fromkeys((run.scenario, run.opponent) for run in runs):
        own = [run for run in runs if (run.scenario, run.opponent) == (scenario, opponent)]
        times = [run.proxy_cpu_us for run in own if run.proxy_cpu_us is not None]
        memory = [run.resident_bytes for run in own if run.resident_bytes is not None]
        relative = {}
        for baseline in BASELINES:
            pairs = [(run.proxy_cpu_us, cpu.get((scenario, baseline, run.round))) for run in own]
            ratios = [mine / theirs for mine, theirs in pairs if mine is not None and theirs]
            if ratios:
                relative[baseline] = statistics.median(ratios)
        rows.append(
            Row(
                scenario,
                opponent,
                len(own),
                statistics.median(times) if times else None,
                (min(times), max(times)) if times else None,
                statistics.median(run.rate for run in own),
                statistics.median(run.p50_us for run in own),
                statistics.median(run.p99_us for run in own),
                statistics.median(run.load_cpu_us + run.origin_cpu_us for run in own),
                max(memory) if memory else None,
                relative,
            )
        )
    return rows


TABLE_WIDTH = 124


def _columns(scenario: Scenario) -> list[str]:
    relative = ["÷ nghttpx"] if scenario.route.speaks_http2 else ["÷ nginx", "mitmproxy ÷"]
    return ["opponent", "CPU µs/req", "min–max", *relative, "requests/s", "p50 ms", "p99 ms", "ends µs/req", "RSS MiB"]


def _divided(row: Row, baseline: str) -> str:
    ratio = row.relative_cpu.get(baseline)
    return "–" if ratio is None else f"{ratio:.2f}"


def _cells(row: Row, scenario: Scenario) -> list[str]:
    spread = "–" if row.cpu_us_range is None else f"{row.cpu_us_range[0]:.1f}–{row.cpu_us_range[1]:.1f}"
    if scenario.route.speaks_http2:
        relative = [_divided(row, "nghttpx")]
    else:
        to_mitmproxy = row.relative_cpu.get("mitmproxy")
        relative = [_divided(row, "nginx"), "–" if not to_mitmproxy else f"{1 / to_mitmproxy:.1f}×"]
    return [
        row.opponent,
        "–" if row.cpu_us is None else f"{row.cpu_us:.1f}",
        spread,
        *relative,
        f"{row.rate:,.0f}" if row.rate >= 100 else f"{row.rate:.1f}",
        f"{row.p50_us / 1000:.2f}",
        f"{row.p99_us / 1000:.2f}",
        f"{row.ends_cpu_us:.1f}",
        "–" if row.resident_bytes is None else f"{row.resident_bytes / 2**20:.0f}",
    ]


def _by_scenario(rows: Iterable[Row], scenarios: Iterable[Scenario]) -> list[tuple[Scenario, list[Row]]]:
    rows = list(rows)
    return [(scenario, own) for scenario in scenarios if (own := [row for row in rows if row.scenario == scenario.name])]


def print_tables(console: Console, rows: Iterable[Row], scenarios: Iterable[Scenario]) -> None:
    """Print one table per scenario."""
    for scenario, own in _by_scenario(rows, scenarios):
        table = Table(title=f"{scenario.name}: {scenario.about}", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
        for column in _columns(scenario):
            table.add_column(column, justify="left" if column == "opponent" else "right", no_wrap=True)
        for row in own:
            table.add_row(*_cells(row, scenario))
        console.print(table)


def markdown(rows: Iterable[Row], scenarios: Iterable[Scenario]) -> str:
    """Return the same tables as Markdown."""
    lines: list[str] = []
    for scenario, own in _by_scenario(rows, scenarios):
        columns = _columns(scenario)
        lines += [f"**{scenario.name}**: {scenario.about}", "", f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)}"]
        lines += [f"| {' | '.join(_cells(row, scenario))} |" for row in own]
        lines.append("")
    return "\n".join(lines)


def as_json(runs: Iterable[Run], rows: Iterable[Row]) -> dict[str, Any]:
    """Return runs and medians in a form that ``json`` takes."""
    return {"runs": [asdict(run) for run in runs], "medians": [asdict(row) for row in rows]}
