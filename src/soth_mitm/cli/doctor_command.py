"""`soth-mitm doctor`: each program that is here, through the proxy, and what came of it."""

import asyncio
import json
import os
import sys
from dataclasses import asdict

import click
from rich.console import Console
from rich.status import Status
from rich.text import Text

from soth_mitm.cli.configured import as_json, config_file, configured_ca, read_config
from soth_mitm.cli.exits import RUN_FAILED, explained
from soth_mitm.doctor.examination import Examination, Verdict
from soth_mitm.doctor.programs import PROGRAMS, Program
from soth_mitm.proxy.loops import new_event_loop
from soth_mitm.tls.bundle import write_trust_files

STYLES = {"green": "bold green", "red": "bold red", "absent": "dim"}


@click.command(short_help="Try whether the programs of this machine get through.")
@click.option("--only", multiple=True, type=click.Choice([program.slug for program in PROGRAMS]), help="Try only this program. Repeatable.")
@click.option("--python", metavar="PATH", help="Try this Python instead of the first one on the path.")
@click.option(
    "--timeout",
    "seconds",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds that a program may take, once it is built.",
)
@as_json
@config_file
def doctor(only: tuple[str, ...], python: str | None, seconds: float, as_json: bool, config_path: str | None) -> None:
    """Try the programs of this machine: start each with the variables of `ca env` and see whether it gets through the proxy.

    The proxy is one of its own, with your CA; the server behind it is on this machine, too. Nothing is installed. Exit code 0 if every
    program that is here is green, 23 if one is not.
    """
    console = Console(highlight=False, stderr=as_json)
    with explained():
        config = read_config(config_path)
        authority, cert_path = configured_ca(config)
        files = write_trust_files(authority, cert_path)
        examination = Examination(
            authority, files, dict(os.environ), sys.platform, seconds, min_version=config.tls.min_version, python=python
        )
        programs = [program for program in PROGRAMS if not only or program.slug in only]
        with Status("", console=console) as status, asyncio.Runner(loop_factory=new_event_loop) as runner:
            verdicts = runner.run(
                examination.run(programs, lambda program: _begin(status, program), lambda verdict: _tell(console, verdict))
            )
    counts = {state: sum(verdict.state == state for verdict in verdicts) for state in STYLES}
    if as_json:
        click.echo(json.dumps({"counts": counts, "programs": [asdict(verdict) for verdict in verdicts]}, indent=2))
    else:
        console.print(Text(f"{counts['green']} green, {counts['red']} red, {counts['absent']} not here", style="bold"))
    if counts["red"]:
        sys.exit(RUN_FAILED)


def _begin(status: Status, program: Program) -> None:
    status.update(f"{program.name}: building a test program, which may take minutes" if program.build else program.name)


def _tell(console: Console, verdict: Verdict) -> None:
    name = f"{verdict.program} {verdict.version}".strip()
    took = f"{verdict.protocol:<8} {verdict.seconds:5.1f} s" if verdict.state != "absent" else verdict.reason
    console.print(Text.assemble((f"{verdict.state:<7}", STYLES[verdict.state]), f" {name:<24} ", (took, "dim")), soft_wrap=True)
    if verdict.state == "red":
        console.print(Text(f"        why   {verdict.reason}"), soft_wrap=True)
        console.print(Text(f"        next  {verdict.remedy}"), soft_wrap=True)
