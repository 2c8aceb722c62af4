"""The commands: `run`, `ca`, `config`."""

import logging
import os
from pathlib import Path

import click
from rich.console import Console

from soth_mitm import __version__
from soth_mitm.cli.exits import RUN_FAILED, Failure, explained
from soth_mitm.cli.handler_loading import load_handler
from soth_mitm.cli.serving import Serving, ca_paths
from soth_mitm.config import MitmConfig
from soth_mitm.config_reference import default_toml
from soth_mitm.errors import InvalidConfigError
from soth_mitm.tls.ca_files import default_ca_paths, load_or_create_ca

config_file = click.option("--config", "config_path", metavar="FILE", help="Read this TOML file; `soth-mitm config --defaults` writes one.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="soth-mitm")
def cli() -> None:
    """An intercepting HTTPS proxy: see, decide about and stream what programs send.

    Exit codes: 0 done, 2 wrong usage, 20 wrong configuration, 22 could not start, 23 failed while running.
    """


@cli.command()
@click.option("--bind", metavar="HOST:PORT", help="Listen here; port 0 takes a free one.  [default: 127.0.0.1:8080]")
@click.option("--destination", "destinations", multiple=True, metavar="PATTERN", help="Intercept this: '*.example.com:443'. Repeatable.")
@config_file
@click.option("--handler", metavar="MODULE:CLASS", help="The class that decides; the current directory is searched first.")
@click.option("--block-unlisted", is_flag=True, help="Answer 403 for other destinations instead of tunnelling them.")
@click.option("--upstream-ca", metavar="FILE", help="Trust the CAs of this PEM file for upstreams, besides the system's.")
@click.option("--quiet", is_flag=True, help="No line per request.")
def run(
    bind: str | None,
    destinations: tuple[str, ...],
    config_path: str | None,
    handler: str | None,
    block_unlisted: bool,
    upstream_ca: str | None,
    quiet: bool,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Options win over the environment (SOTH_MITM__SECTION__KEY), which wins over the file; destinations add up. SIGHUP reads the file again.
    The first signal lets requests finish, a second one cuts them.
    """

    def read() -> MitmConfig:
        config = _read_config(config_path)
        config.interception.destinations.extend(destinations)
        if not config.interception.destinations:
            what = "nothing to intercept; add --destination 'api.example.com:443', or list destinations in the file"
            raise InvalidConfigError("interception.destinations", what)
        if bind is not None:
            config.bind = bind
        if block_unlisted:
            config.interception.passthrough_unlisted = False
        if upstream_ca is not None:
            config.upstream.ca_bundle_path = upstream_ca
        return config

    with explained():
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
        chosen = load_handler(handler) if handler is not None else None
        Serving(read, chosen, Console(highlight=False), quiet=quiet, reloadable=config_path is not None).run()


@cli.command()
@click.option("--print-path", is_flag=True, help="Print where the CA certificate is.")
@click.option("--export", "target", type=click.Path(path_type=Path), metavar="FILE", help="Copy the certificate, never the key, to FILE.")
@click.option("--force", is_flag=True, help="Let --export replace FILE.")
@config_file
def ca(print_path: bool, target: Path | None, force: bool, config_path: str | None) -> None:
    """Show or copy the certificate that clients must trust; the CA is made if there is none."""
    if not print_path and target is None:
        raise click.UsageError("say what to do: --print-path, or --export FILE")
    with explained():
        cert_path, key_path = ca_paths(_read_config(config_path), default_ca_paths())
        authority, made = load_or_create_ca(cert_path, key_path)
    if made:
        click.echo(f"a CA was made: {cert_path}", err=True)
    if target is not None:
        _export(authority.cert_pem, target, force)
    if print_path:
        click.echo(cert_path)


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
        _read_config(path).validate()
    click.echo(f"{path} is valid")


def _read_config(path: str | None) -> MitmConfig:
    return MitmConfig.from_file(path) if path is not None else MitmConfig().with_environment(os.environ)


def _export(certificate: bytes, target: Path, force: bool) -> None:
    try:
        with open(target, "wb" if force else "xb") as file:
            file.write(certificate)
    except FileExistsError:
        raise Failure(RUN_FAILED, f"{target} exists; --force replaces it") from None
    except OSError as error:
        raise Failure(RUN_FAILED, f"{target} cannot be written: {error.strerror}") from error
    click.echo(f"wrote {target}", err=True)
