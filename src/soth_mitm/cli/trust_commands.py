"""`soth-mitm ca install`, `uninstall`, `status` and `env`: making programs trust the CA."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from soth_mitm.addresses import ANY_ADDRESS, format_host_port, parse_bind_address
from soth_mitm.cli.configured import as_json, config_file, configured_ca, configured_paths, existing_ca, read_config
from soth_mitm.cli.exits import CONFIG_WRONG, START_FAILED, Failure, explained
from soth_mitm.cli.shells import SHELLS, as_document, default_shell, saving, script, undoing
from soth_mitm.config import MitmConfig
from soth_mitm.tls.bundle import write_trust_files
from soth_mitm.tls.ca_files import load_ca_from_files
from soth_mitm.tls.ca_rotation import previous_anchors
from soth_mitm.tls.environment import RUNTIMES, client_environment, direct_hosts, runtimes_of
from soth_mitm.tls.trust.installed import forget, installed_anchors, remember
from soth_mitm.tls.trust.stores import TrustReport, ca_trust_status, install_ca_system_trust, uninstall_ca_system_trust

no_browsers = click.option("--no-browsers", is_flag=True, help="Leave the databases of Firefox and Chromium alone.")


@click.command(short_help="Make this machine's programs trust the CA.")
@no_browsers
@as_json
@config_file
def install(no_browsers: bool, as_json: bool, config_path: str | None) -> None:
    """Make this machine's programs trust the CA: the system's trust store, and browsers with one of their own."""
    with explained():
        authority, cert_path = configured_ca(read_config(config_path))
        remember(cert_path, authority.trust_anchor)
        _report(install_ca_system_trust(authority, browsers=not no_browsers, certificate_path=cert_path), as_json)


@click.command(short_help="Undo `install`.")
@no_browsers
@as_json
@config_file
def uninstall(no_browsers: bool, as_json: bool, config_path: str | None) -> None:
    """Undo `install`: take this CA, and every one before it that was installed, out of the trust stores; no other."""
    with explained():
        _report(take_out(configured_paths(read_config(config_path)), browsers=not no_browsers), as_json)


@click.command(short_help="Show which trust stores trust the CA.")
@as_json
@config_file
def status(as_json: bool, config_path: str | None) -> None:
    """Show which trust stores trust the CA now, and which still trust one before it."""
    with explained():
        authority, cert_path = existing_ca(read_config(config_path))
        reports = ca_trust_status(authority)
        for other in other_anchors(cert_path, authority.trust_anchor):
            fingerprint = other.fingerprint(hashes.SHA256()).hex()
            note = f"the CA {fingerprint[:16]} from before; soth-mitm ca uninstall takes it out as well"
            reports += [replace(report, store=f"{report.store}: {note}") for report in ca_trust_status(other) if report.trusted]
        _print(reports, as_json)


@click.command(short_help="Print the variables for a shell and its programs.")
@click.option("--proxy", metavar="URL", help="Where the proxy is: http://host:port.  [default: from the configuration's bind]")
@click.option("--direct", multiple=True, metavar="HOST", help="Reach this host without the proxy, as localhost is. Repeatable.")
@click.option("--shell", type=click.Choice(SHELLS), help="The shell to write for.  [default: by your system and $SHELL]")
@click.option("--undo", is_flag=True, help="Print what takes the variables back to what they were.")
@as_json
@config_file
def env(proxy: str | None, direct: tuple[str, ...], shell: str | None, undo: bool, as_json: bool, config_path: str | None) -> None:
    """Print the variables that send programs through the proxy and make them trust the CA.

    \b
    sh, bash, zsh    eval "$(soth-mitm ca env)"
    and back         eval "$(soth-mitm ca env --undo)"
    fish             soth-mitm ca env | source
    PowerShell       soth-mitm ca env | Out-String | Invoke-Expression
    cmd              soth-mitm ca env --shell cmd > proxy.cmd, then: call proxy.cmd
    """
    shell = shell or default_shell()
    if undo:
        if as_json or shell == "dotenv":
            raise click.UsageError("--undo is for shells")
        click.echo(undoing(os.environ, [name for runtime in RUNTIMES for name in runtime.variables], shell), nl=False)
        return
    with explained():
        config = read_config(config_path)
        authority, cert_path = configured_ca(config)
        files = write_trust_files(authority, cert_path)
        url = proxy if proxy is not None else proxy_url(config)
        try:
            reached = (*direct_hosts(config.interception.destinations), *direct)
            environment = client_environment(files, url, direct=reached, environ=os.environ, platform=sys.platform)
        except ValueError as error:
            raise click.UsageError(f"--proxy: {error}") from None
    groups = runtimes_of(environment)
    if as_json:
        click.echo(as_document(environment, groups), nl=False)
        return
    click.echo(script(groups, shell), nl=False)
    if shell != "dotenv":
        click.echo(saving(os.environ, environment, shell), nl=False)


def other_anchors(cert_path: Path, anchor: x509.Certificate | None) -> list[x509.Certificate]:
    """Return the CAs besides `anchor` that stores may trust because of us."""
    known = [*installed_anchors(cert_path), *previous_anchors(cert_path).values()]
    return [other for index, other in enumerate(known) if other != anchor and other not in known[:index]]


def take_out(paths: tuple[Path, Path], *, browsers: bool, replaced_only: bool = False) -> list[TrustReport]:
    """Take the CA, unless `replaced_only`, and all before it out of the trust stores; return one report for each store.

    Raises what `uninstall_ca_system_trust` raises, or `CaError` when there is neither a CA nor one that was installed.
    """
    cert_path, key_path = paths
    current = None
    if key_path.exists() or not installed_anchors(cert_path):
        current = load_ca_from_files(cert_path, key_path).trust_anchor
    anchors = other_anchors(cert_path, current)
    if current is not None and not replaced_only:
        anchors.append(current)
    reports: dict[str, TrustReport] = {}
    for anchor in anchors:
        found = uninstall_ca_system_trust(anchor, browsers=browsers)
        if browsers and not any(report.error or report.trusted for report in found):
            forget(cert_path, [anchor])
        for report in found:
            before = reports.get(report.store, report)
            trusted = None if None in (report.trusted, before.trusted) else report.trusted or before.trusted
            error = report.error or before.error
            reports[report.store] = TrustReport(report.store, trusted, report.changed or before.changed, error)
    return list(reports.values())


TRUST_COMMANDS = (install, uninstall, status, env)


def proxy_url(config: MitmConfig) -> str:
    """Return the URL of a proxy that runs with `config`, as clients on this machine write it."""
    host, port = parse_bind_address(config.bind)
    if port == 0:
        raise Failure(CONFIG_WRONG, f"bind is {config.bind}, a port that is not known before the proxy runs; say --proxy http://host:port")
    return f"http://{format_host_port(ANY_ADDRESS.get(host, host), port)}"


def _report(reports: list[TrustReport], as_json: bool) -> None:
    _print(reports, as_json)
    failed = [report for report in reports if report.error is not None]
    if failed:
        raise Failure(START_FAILED, f"{failed[0].store}: {failed[0].error}")


def _print(reports: list[TrustReport], as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "store": report.store,
                "trusted": report.trusted,
                "changed": report.changed,
                "error": None if report.error is None else str(report.error),
            }
            for report in reports
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for report in reports:
        state = "unknown" if report.trusted is None else "trusted" if report.trusted else "not trusted"
        note = f"  ({report.error})" if report.error is not None else "  (changed now)" if report.changed else ""
        click.echo(f"{state:<12} {report.store}{note}")
