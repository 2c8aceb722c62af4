"""`soth-mitm check-policy`: what would happen to a connection, and why, without making one."""

import json
import socket
from urllib.parse import urlsplit

import click

from soth_mitm.address_guard import AddressGuard
from soth_mitm.addresses import DEFAULT_PORTS, format_host_port, is_address, parse_authority, parse_target, refuse_zone
from soth_mitm.cli.configured import add_destinations, as_json, config_file, read_config, strict_preset
from soth_mitm.cli.exits import BLOCKED, explained
from soth_mitm.openings import openings
from soth_mitm.policy import Action, Policy
from soth_mitm.proxy.resolver import system_addresses

SCHEMES = {"https": "https", "http": "http", "wss": "https", "ws": "http"}


def read_target(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or of a URL; `ValueError` says what is wrong with it, worded to follow the text."""
    host, port = _split_target(text)
    refuse_zone(host, port)
    return host, port


def _split_target(text: str) -> tuple[str, int]:
    if "://" not in text:
        return parse_target(text)
    for character in text:
        # clients drop them, or take them for something else, and would not go where this says
        if character <= " " or character in "\\\x7f":
            raise ValueError(f"has U+{ord(character):04X}, which no URL contains")
    url = urlsplit(text)
    scheme = SCHEMES.get(url.scheme.lower())
    if scheme is None:
        raise ValueError(f"has the scheme `{url.scheme}`; write {', '.join(SCHEMES)}, or HOST:PORT")
    return parse_authority(url.netloc.rpartition("@")[2], DEFAULT_PORTS[scheme])


@click.command("check-policy", short_help="Print what would happen to a connection, and why.")
@click.argument("target", metavar="HOST:PORT|URL")
@config_file
@click.option("--destination", "destinations", multiple=True, metavar="PATTERN", help="Intercept this as well, as for `run`. Repeatable.")
@click.option("--block-unlisted", is_flag=True, help="As for `run`: answer 403 for other destinations.")
@strict_preset
@click.option("--resolve", is_flag=True, help="Look the name up, and judge its addresses by upstream.denied_addresses.")
@as_json
def check_policy(
    target: str,
    config_path: str | None,
    destinations: tuple[str, ...],
    block_unlisted: bool,
    strict: bool,
    resolve: bool,
    as_json: bool,
) -> None:
    """Print what would happen to a connection, by which pattern of which key, and what the configuration leaves open for it.

    No connection is made, and no name is looked up unless --resolve says so. Exit code 0: it would be intercepted or tunnelled; 10: it
    would be blocked; 2 and 20: the target or the configuration is wrong. No handler is asked: it may still block, open what is not listed
    (on_connect), and, where no key forbids it, tunnel.
    """
    try:
        host, port = read_target(target)
    except ValueError as error:
        raise click.BadParameter(f"`{target}` {error}", param_hint="HOST:PORT|URL") from None
    with explained():
        config = read_config(config_path, strict=strict)
        add_destinations(config, destinations)
        if block_unlisted:
            config.interception.passthrough_unlisted = False
        config.validate()
    policy = Policy(config)
    explanation = policy.explain(host, port)
    action, reason, key = explanation.decision.action, explanation.decision.reason, explanation.key
    pattern = None if explanation.pattern is None else str(explanation.pattern)
    if pattern is not None:
        because = f"it matches `{pattern}` in {key}"
    else:
        because = f"interception.destinations does not list it, and {key} is {str(config.interception.passthrough_unlisted).lower()}"
    addresses: dict[str, str | None] = {}
    if action is not Action.BLOCK and (resolve or is_address(host)):
        addresses = _judged(AddressGuard(config), host)
        if addresses and all(addresses.values()):
            action, reason, key, pattern = Action.BLOCK, "address_denied", "upstream.denied_addresses", None
            because = next(text for text in addresses.values() if text is not None)
    left_open = [] if action is Action.BLOCK else openings(config, policy, host, port)
    if as_json:
        fields = {
            "target": format_host_port(host, port),
            "action": action.value,
            "reason": reason,
            "key": key,
            "pattern": pattern,
            "because": because,
            "addresses": [{"address": address, "denied": text} for address, text in addresses.items()],
            "open": [opening._asdict() for opening in left_open],
        }
        click.echo(json.dumps(fields))
    else:
        click.echo(f"{format_host_port(host, port)}  {action.value}")
        click.echo(f"  because  {because}")
        for address, text in addresses.items():
            click.echo(f"  address  {address}  {'may be connected to' if text is None else text}")
        for opening in left_open:
            click.echo(f"  open     {opening.key}: {opening.text}")
    if action is Action.BLOCK:
        raise SystemExit(BLOCKED)


def _judged(guard: AddressGuard, host: str) -> dict[str, str | None]:
    """Return the addresses of a host, each with why it is denied, None if it is not."""
    try:
        found = (host,) if is_address(host) else system_addresses(host)
    except socket.gaierror as error:
        raise click.ClickException(f"cannot resolve {host}: {error.strerror}") from error
    refusals = {address: guard.refusal(address) for address in found}
    return {address: None if refusal is None else refusal.text(address) for address, refusal in refusals.items()}
