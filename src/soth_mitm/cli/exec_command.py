"""`soth-mitm exec`: one command, with a proxy of its own before it, and what it asked for when it has ended."""

import json
import logging
import math
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

import click
from rich.console import Console
from rich.text import Text

from soth_mitm.chain import Chain
from soth_mitm.cli.child import CannotStartError, Child
from soth_mitm.cli.configured import config_file, read_config, strict_preset
from soth_mitm.cli.exits import explained
from soth_mitm.cli.handler_loading import load_handler
from soth_mitm.cli.kept_flows import KeptFlows, kept_flows, store_options
from soth_mitm.cli.run_summary import RunSummary
from soth_mitm.config import MitmConfig
from soth_mitm.errors import InvalidConfigError, ShutdownTimeoutError
from soth_mitm.escaping import get_logger, shown
from soth_mitm.llm.observer import LlmObserver
from soth_mitm.observe.store.place import default_store_path
from soth_mitm.proxy.proxy import MitmProxyBuilder
from soth_mitm.tls.bundle import write_trust_files
from soth_mitm.tls.ca import CertificateAuthority, generate_ca
from soth_mitm.tls.environment import client_environment

log = get_logger("soth_mitm.cli")

# A run that takes longer wants a CA that lasts: `soth-mitm run`
CA_DAYS = 30
# What the program has left behind may still be asking
END_SECONDS = 2.0
MOST_WARNINGS = 20


@click.command(
    "exec",
    short_help="Run a command behind a proxy of its own.",
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--allow", multiple=True, metavar="PATTERN", help="Allow this, and nothing else but what --config lists: '*.example.com:443'."
)
@click.option("--direct", multiple=True, metavar="HOST", help="Let the command reach this host without the proxy. Repeatable.")
@click.option("--handler", metavar="MODULE:CLASS", help="The class that decides; the current directory is searched first.")
@click.option("--upstream-ca", metavar="FILE", help="Trust the CAs of this PEM file for upstreams, besides the system's.")
@click.option(
    "--summary",
    "summary",
    metavar="FILE",
    type=click.File("w", encoding="utf-8", lazy=False),
    help="Write what was asked for to FILE, as JSON; - is standard output.",
)
@store_options
@config_file
@strict_preset
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    allow: tuple[str, ...],
    direct: tuple[str, ...],
    handler: str | None,
    upstream_ca: str | None,
    summary: IO[str] | None,
    store: str | None,
    no_store: bool,
    config_path: str | None,
    strict: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND so that everything it asks for goes through a proxy of its own, and tell what that was.

    Without --allow, and without a list in the configuration, every destination is intercepted and allowed; not so where the
    configuration denies by default (--strict, interception.passthrough_unlisted). With --allow, every other one is blocked. The CA is
    made for this run, is in no store, and its key in no file. The exit code is that of COMMAND, or 128 and the number of the signal
    that ended it. What passed is kept, for `soth-mitm flows`.

    \b
    soth-mitm exec -- curl https://example.com/
    soth-mitm exec --allow 'api.anthropic.com:443' -- claude -p 'fix the flaky test'
    """
    with explained():
        config = _configured(config_path, allow, upstream_ca, strict=strict)
        chosen = load_handler(handler) if handler is not None else None
        kept = kept_flows(store, no_store, by_default=True)
        run = _Run(command, direct, Console(stderr=True, highlight=False), summary, kept)
        code = run.through_proxy(config, chosen)
    sys.exit(code)


def _configured(path: str | None, allow: tuple[str, ...], upstream_ca: str | None, *, strict: bool) -> MitmConfig:
    config = read_config(path, strict=strict)
    config.interception.destinations.extend(allow)
    if allow:
        config.interception.passthrough_unlisted = False
    elif not config.interception.destinations:
        if not config.interception.passthrough_unlisted:
            what = "nothing is allowed; add --allow 'api.example.com:443', or list destinations in the file of --config"
            raise InvalidConfigError("interception.destinations", what)
        config.interception.destinations.append("*:*")
    if upstream_ca is not None:
        config.upstream.ca_bundle_path = upstream_ca
    # at a port that no other run knows, and with no CA of another run
    config.bind, config.unix_socket_path = "127.0.0.1:0", None
    config.tls.ca_cert_path = config.tls.ca_key_path = None
    return config


class _Run:
    """One run of the command."""

    def __init__(
        self, command: tuple[str, ...], direct: tuple[str, ...], console: Console, summary: IO[str] | None, kept: KeptFlows | None
    ) -> None:
        self._command, self._direct = command, direct
        self._console = console
        self._summary_file = summary
        self._kept = kept
        self._summary = RunSummary()

    def through_proxy(self, config: MitmConfig, handler: object | None) -> int:
        """Start a proxy, run the command, tell what it asked for; return the exit code. Raises what `start_in_thread` raises."""
        observer = LlmObserver(self._summary.on_call)
        child = Child(self._command)
        authority = generate_ca("soth-mitm, of one run", validity_days=CA_DAYS)
        builder = MitmProxyBuilder(config, observer if handler is None else Chain(handler, observer)).with_ca(authority)
        if self._kept is not None:
            builder.with_event_sink(self._kept.sink)
        with tempfile.TemporaryDirectory(prefix="soth-mitm-") as folder, _kept_warnings() as warnings:
            handle = builder.with_observer(self._summary).build().start_in_thread()
            began = time.monotonic()
            try:
                self._tell(f"{self._command[0]} goes through {handle.url}, with a CA of this run only")
                if self._kept is not None:
                    self._tell(f"keeps flows in {self._kept.words}")
                code = child.run(self._environment(authority, Path(folder) / "ca.pem", handle.url))
            except CannotStartError as error:
                click.echo(f"Error: {shown(str(error))}", err=True)
                code = error.code
            finally:
                try:
                    handle.shutdown(END_SECONDS)
                except ShutdownTimeoutError as late:
                    # of a program that the command has left behind
                    log.warning("%s", late)
            handle.wait_closed()
        self._end(code, time.monotonic() - began, warnings)
        return code

    def _environment(self, authority: CertificateAuthority, certificate: Path, url: str) -> dict[str, str]:
        certificate.write_bytes(authority.cert_pem)
        environ = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
        ours = client_environment(write_trust_files(authority, certificate), url, direct=self._direct, environ=environ)
        ours |= {"ALL_PROXY": url, "SOTH_MITM_PROXY": url, "SOTH_MITM_RUN": str(uuid4())}
        if sys.platform != "win32":
            ours["all_proxy"] = url
        return environ | ours

    def _end(self, code: int, seconds: float, warnings: "_Kept") -> None:
        if self._summary_file is not None:
            facts = {"command": list(self._command), "exit_code": code, "seconds": round(seconds, 3), **self._summary.as_json()}
            self._summary_file.write(json.dumps(facts, indent=2) + "\n")
        if self._console.is_terminal:
            self._tell(f"{self._command[0]} ended with {code} after {_duration(seconds)}")
            self._console.print(self._summary.table())
            if self._kept is not None and not self._summary.saw_nothing:
                store = "" if self._kept.path == default_store_path() else f" --store {shlex.quote(str(self._kept.path))}"
                self._tell(f"kept: soth-mitm flows list 'since:{math.ceil(seconds) + 1}s'{store}")
        for line in warnings.lines:
            self._console.print(Text(f"soth-mitm: {shown(line)}", style="yellow"), soft_wrap=True)
        if warnings.more:
            self._console.print(Text(f"and {warnings.more} more warnings", style="yellow"))

    def _tell(self, what: str) -> None:
        if self._console.is_terminal:
            self._console.print(Text.assemble(("soth-mitm: ", "bold"), shown(what)), soft_wrap=True)


class _Kept(logging.Handler):
    """Keeps the first warnings for the end, and counts the others: meanwhile the screen is the command's."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.more = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message of a record, and the place of the error."""
        if len(self.lines) < MOST_WARNINGS:
            self.lines.append(f"{record.getMessage()}{_place_of(record)}")
        else:
            self.more += 1


def _place_of(record: logging.LogRecord) -> str:
    trace = record.exc_info[2] if record.exc_info else None
    if trace is None:
        return ""
    last = traceback.extract_tb(trace)[-1]
    return f" ({last.filename}, line {last.lineno})"


@contextmanager
def _kept_warnings() -> Iterator[_Kept]:
    kept = _Kept()
    logging.root.addHandler(kept)
    try:
        yield kept
    finally:
        logging.root.removeHandler(kept)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{seconds:.1f} s"
