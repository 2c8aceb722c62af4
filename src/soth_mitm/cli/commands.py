"""The command `soth-mitm`, with `run` and `config`; `ca`, `doctor` and `flows` have rooms of their own."""

import sys

import click
from rich.console import Console

from soth_mitm import __version__
from soth_mitm.cli.ca_commands import ca
from soth_mitm.cli.check_command import check_policy
from soth_mitm.cli.configured import add_destinations, config_file, read_config, strict_preset
from soth_mitm.cli.display import logging_to
from soth_mitm.cli.doctor_command import doctor
from soth_mitm.cli.exec_command import exec_
from soth_mitm.cli.exits import Commands, explained
from soth_mitm.cli.flows_command import flows
from soth_mitm.cli.handler_loading import load_handler
from soth_mitm.cli.kept_flows import kept_flows, store_options
from soth_mitm.cli.serving import Serving
from soth_mitm.cli.trust_commands import TRUST_COMMANDS
from soth_mitm.cli.view_command import view as view_command
from soth_mitm.cli.view_process import DEFAULT_VIEW, ViewProcess, view_address
from soth_mitm.config import MitmConfig
from soth_mitm.config.effect import without_effect
from soth_mitm.config.reference import default_toml
from soth_mitm.tls.ciphers import check_ciphers


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="soth-mitm")
def cli() -> None:
    """An intercepting HTTPS proxy: see, decide about and stream what programs send.

    Exit codes: 0 done, 1 nothing matches (flows), 2 wrong usage, 10 blocked (check-policy), 20 wrong configuration, 21 flows cannot be
    kept, 22 could not start, or not use the CA, 23 failed while running, or was interrupted.
    """


@cli.command()
@click.option("--bind", metavar="HOST:PORT", help="Listen here; port 0 takes a free one.  [default: 127.0.0.1:8080]")
@click.option("--destination", "destinations", multiple=True, metavar="PATTERN", help="Intercept this: '*.example.com:443'. Repeatable.")
@config_file
@click.option("--handler", metavar="MODULE:CLASS", help="The class that decides; the current directory is searched first.")
@click.option("--block-unlisted", is_flag=True, help="Answer 403 for other destinations instead of tunnelling them.")
@strict_preset
@click.option("--upstream-ca", metavar="FILE", help="Trust the CAs of this PEM file for upstreams, besides the system's.")
@click.option("--quiet", is_flag=True, help="No line per request.")
@store_options
@click.option(
    "--view",
    is_flag=False,
    flag_value=DEFAULT_VIEW,
    metavar="[HOST:PORT]",
    help=f"Show the flows in a browser, from this loopback address. They are kept then.  [without one: {DEFAULT_VIEW}]",
)
def run(
    bind: str | None,
    destinations: tuple[str, ...],
    config_path: str | None,
    handler: str | None,
    block_unlisted: bool,
    strict: bool,
    upstream_ca: str | None,
    quiet: bool,
    store: str | None,
    no_store: bool,
    view: str | None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Options win over the environment (SOTH_MITM__SECTION__KEY), which wins over the file; destinations add up. SIGHUP reads the file and
    the CA again. The first signal lets requests finish, a second one cuts them. On a terminal flows are kept, for `soth-mitm flows`.
    """

    def read() -> MitmConfig:
        config = read_config(config_path, strict=strict)
        add_destinations(config, destinations)
        if bind is not None:
            config.bind = bind
        if block_unlisted:
            config.interception.passthrough_unlisted = False
        if upstream_ca is not None:
            config.upstream.ca_bundle_path = upstream_ca
        return config

    with explained(), logging_to(sys.stderr):
        chosen = load_handler(handler) if handler is not None else None
        console = Console(highlight=False)
        kept = kept_flows(store, no_store, by_default=console.is_terminal or view is not None)
        if view is not None and kept is None:
            raise click.UsageError("--view shows what is kept, and nothing is; leave out --no-store, or give --store FILE")
        shown = None if view is None else ViewProcess(view_address(view))
        try:
            Serving(read, chosen, console, quiet=quiet, config_path=config_path, kept=kept, view=shown).run()
        finally:
            if shown is not None:
                shown.close()


@cli.command()
@click.option("--defaults", is_flag=True, help="Print a TOML file with every key, its meaning and its default.")
@click.option("--check", "path", metavar="FILE", help="Check FILE, with what the environment overrides.")
def config(defaults: bool, path: str | None) -> None:
    """Print the defaults, or check a file."""
    if defaults == (path is not None):
        raise click.UsageError("say what to do: --defaults, or --check FILE")
    if defaults:
        click.echo(default_toml(), nl=False)
        return
    with explained():
        document = read_config(path)
        lists_nothing = not document.interception.destinations
        if lists_nothing:
            # `run --destination` may add some
            document.interception.destinations.append("api.example.com:443")
        document.validate()
        check_ciphers(document.upstream.ciphers)
    for sentence in without_effect(document):
        click.echo(f"warning: {sentence}", err=True)
    click.echo(f"{path} is valid")
    if lists_nothing:
        click.echo("it lists nothing to intercept: set interception.destinations, or start with `soth-mitm run --destination PATTERN`")


for command in TRUST_COMMANDS:
    ca.add_command(command)
cli.add_command(ca)
cli.add_command(check_policy)
cli.add_command(doctor)
cli.add_command(exec_)
cli.add_command(flows)
cli.add_command(view_command)
