"""`soth-mitm ca`: making, showing, moving and replacing the CA."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives.serialization import Encoding

from soth_mitm.cli.configured import as_json, config_file, configured_ca, configured_paths, existing_ca, read_config
from soth_mitm.cli.exits import RUN_FAILED, START_FAILED, Failure, explained
from soth_mitm.cli.trust_commands import other_anchors, take_out
from soth_mitm.errors import CaError
from soth_mitm.tls.bundle import trust_files, write_trust_files
from soth_mitm.tls.ca import CertificateAuthority, generate_ca, load_ca
from soth_mitm.tls.ca_files import save_ca
from soth_mitm.tls.ca_formats import decrypt_key, load_ca_from_pkcs12, to_java_truststore, to_pkcs12
from soth_mitm.tls.ca_rotation import end_overlap, previous_anchors, replace_ca
from soth_mitm.tls.safe_files import write_atomically
from soth_mitm.tls.trust.stores import ca_trust_status

password_file = click.option(
    "--password-file", type=click.Path(path_type=Path), metavar="FILE", help="Read the password from the first line of FILE."
)


@click.group(short_help="Make, show, move, replace and install the CA.")
def ca() -> None:
    """The CA that clients must trust: make, show, move, replace and install it."""


@ca.command(short_help="Print where the certificate is.")
@config_file
def path(config_path: str | None) -> None:
    """Print where the CA's certificate is; the CA is made if there is none."""
    with explained():
        _, cert_path = configured_ca(read_config(config_path))
    click.echo(cert_path)


@ca.command()
@click.option("--common-name", default="soth-mitm Local CA", show_default=True, help="What people see in a list of CAs.")
@click.option("--organization", default="soth-mitm", show_default=True)
@click.option("--days", default=3650, show_default=True, type=click.IntRange(min=1), help="How long it is valid.")
@config_file
def generate(common_name: str, organization: str, days: int, config_path: str | None) -> None:
    """Make a CA where there is none."""
    with explained():
        cert_path, key_path = configured_paths(read_config(config_path))
        for there in (cert_path, key_path):
            if there.exists():
                raise Failure(START_FAILED, f"{there} exists; `soth-mitm ca rotate` replaces a CA and keeps the old one trusted meanwhile")
        save_ca(generate_ca(common_name, organization, days), cert_path, key_path)
    click.echo(f"a CA was made: {cert_path}")


@ca.command()
@as_json
@config_file
def show(as_json: bool, config_path: str | None) -> None:
    """Show the CA: names, fingerprint, dates, files."""
    with explained():
        config = read_config(config_path)
        authority, _ = existing_ca(config)
        facts = _facts(authority, *configured_paths(config))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{name.replace('_', ' '):<20} {', '.join(value) if isinstance(value, list) else value}")


@ca.command(short_help="Copy the certificate to a file.")
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--format", "form", type=click.Choice(["pem", "der", "p12"]), default="pem", show_default=True)
@click.option("--with-key", is_flag=True, help="With the private key, encrypted by a password; p12 only. Whoever has it is the CA.")
@click.option("--force", is_flag=True, help="Replace FILE.")
@password_file
@config_file
def export(target: Path, form: str, with_key: bool, force: bool, password_file: Path | None, config_path: str | None) -> None:
    """Copy the certificate to FILE, `-` for standard output; the CA is made if there is none.

    Without --with-key a p12 holds the certificate only; Java reads it, and its password is `changeit`.
    """
    if with_key and form != "p12":
        raise click.UsageError("--with-key needs --format p12: a key is not written without a password")
    with explained():
        authority, _ = configured_ca(read_config(config_path))
        data = _exported(authority, form, _new_password(password_file) if with_key else None)
    if str(target) == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    with explained():
        if target.exists() and not force:
            raise Failure(RUN_FAILED, f"{target} exists; --force replaces it")
        if not target.parent.is_dir():
            raise Failure(RUN_FAILED, f"{target} cannot be written: there is no directory {target.parent}")
        try:
            write_atomically(target, data, 0o600 if with_key else 0o644)
        except CaError as error:
            raise Failure(RUN_FAILED, str(error)) from error
    click.echo(f"wrote {target}", err=True)


@ca.command(name="import", short_help="Take a CA of your own.")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("key", metavar="[KEY]", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace the CA that is there; it is kept as by `ca rotate`.")
@password_file
@config_file
def import_(source: Path, key: Path | None, force: bool, password_file: Path | None, config_path: str | None) -> None:
    """Take a CA of your own: FILE is a PKCS#12 file, or a PEM certificate (with its chain) beside its KEY."""
    with explained():
        cert_path, key_path = configured_paths(read_config(config_path))
        if cert_path.exists() and not force:
            raise Failure(START_FAILED, f"{cert_path} exists; --force replaces it")
        authority = _imported(source, key, password_file)
        changed = replace_ca(authority, cert_path, key_path)
        _refresh(authority, cert_path)
    click.echo(f"{'took' if changed else 'has already'} the CA {authority.fingerprint}: {cert_path}")


@ca.command(short_help="Replace the CA; the old one stays trusted meanwhile.")
@click.option("--finish", is_flag=True, help="Delete the replaced CA, and take it out of bundle and trust stores.")
@as_json
@config_file
def rotate(finish: bool, as_json: bool, config_path: str | None) -> None:
    """Replace the CA by a new one with the same names; the old one stays trusted by the bundle until --finish."""
    with explained():
        config = read_config(config_path)
        cert_path, key_path = configured_paths(config)
        authority, _ = existing_ca(config)
        old = authority.fingerprint
        if finish:
            _distrust_replaced(authority, (cert_path, key_path))
            changed = end_overlap(cert_path, key_path)
        else:
            authority = _successor(authority)
            changed = replace_ca(authority, cert_path, key_path)
        _refresh(authority, cert_path)
    if as_json:
        click.echo(json.dumps({"changed": changed} | _facts(authority, cert_path, key_path), indent=2))
    elif finish:
        click.echo("deleted what was kept of replaced CAs" if changed else "there is no replaced CA any more")
    else:
        click.echo(f"old CA  {old}, kept as {list(previous_anchors(cert_path))[-1]}")
        click.echo(f"new CA  {authority.fingerprint}: {cert_path}")
        click.echo("next    send SIGHUP to a proxy that runs with --config, or restart it; connections that are open go on")
        click.echo("        where the old CA was installed: soth-mitm ca install")
        click.echo("        when no program has the old bundle any more: soth-mitm ca rotate --finish")


def _distrust_replaced(authority: CertificateAuthority, paths: tuple[Path, Path]) -> None:
    """Take the replaced CAs out of the stores that still trust them; raises, before anything is deleted, where that is refused."""
    if any(report.trusted for each in other_anchors(paths[0], authority.trust_anchor) for report in ca_trust_status(each)):
        refused = [report.error for report in take_out(paths, browsers=True, replaced_only=True) if report.error is not None]
        if refused:
            raise refused[0]


def _successor(old: CertificateAuthority) -> CertificateAuthority:
    def name(oid: str) -> str | None:
        found = [str(each.value) for each in old.certificate.subject if each.oid.dotted_string == oid]
        return found[0] if found else None

    if old.chain_pem:
        raise Failure(
            START_FAILED, "this CA was signed by another; have that one sign a new one, and import it: soth-mitm ca import --force"
        )
    return generate_ca(name("2.5.4.3") or "soth-mitm Local CA", name("2.5.4.10") or "soth-mitm")


def _refresh(authority: CertificateAuthority, cert_path: Path) -> None:
    """Bring the bundle up to date if there is one."""
    if trust_files(cert_path).bundle.exists():
        write_trust_files(authority, cert_path)


def _facts(authority: CertificateAuthority, cert_path: Path, key_path: Path) -> dict[str, Any]:
    certificate = authority.certificate
    bundle = trust_files(cert_path).bundle
    return {
        "subject": certificate.subject.rfc4514_string(),
        "sha256": authority.fingerprint,
        "valid_from": certificate.not_valid_before_utc.isoformat(),
        "valid_until": certificate.not_valid_after_utc.isoformat(),
        "days_left": (certificate.not_valid_after_utc - datetime.now(UTC)).days,
        "key": f"{type(authority.private_key).__name__.removesuffix('PrivateKey')} {authority.private_key.key_size}",
        "certificate": str(cert_path),
        "private_key": str(key_path),
        "bundle": str(bundle) if bundle.exists() else None,
        "replaced": [str(path) for path in previous_anchors(cert_path)] or None,
    }


def _exported(authority: CertificateAuthority, form: str, password: str | None) -> bytes:
    if form == "pem":
        return authority.cert_pem
    if form == "der":
        return authority.certificate.public_bytes(Encoding.DER)
    return to_pkcs12(authority, password) if password is not None else to_java_truststore([authority.trust_anchor])


def _imported(source: Path, key: Path | None, password_file: Path | None) -> CertificateAuthority:
    data = source.read_bytes()
    if b"-----BEGIN CERTIFICATE-----" not in data:
        if key is not None:
            raise Failure(START_FAILED, f"{source} is no PEM certificate, so it goes without a key file")
        return load_ca_from_pkcs12(data, _password(password_file, source))
    key_pem = (key or source).read_bytes()
    if b"PRIVATE KEY-----" not in key_pem:
        raise Failure(START_FAILED, f"{key or source} holds no PEM private key" + ("" if key else "; name the file that does, too"))
    if b"ENCRYPTED" in key_pem:
        key_pem = decrypt_key(key_pem, _password(password_file, key or source))
    return load_ca(_certificates_of(data), _key_of(key_pem))


def _password(password_file: Path | None, what: Path) -> str:
    if password_file is not None:
        return _first_line(password_file)
    return str(click.prompt(f"password of {what}", hide_input=True, default="", show_default=False, err=True))


def _new_password(password_file: Path | None) -> str:
    password = (
        _first_line(password_file)
        if password_file is not None
        else str(click.prompt("password for the file", hide_input=True, confirmation_prompt=True, err=True))
    )
    if not password:
        raise Failure(RUN_FAILED, f"{password_file} has no password in its first line")
    return password


def _first_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError as error:
        raise Failure(RUN_FAILED, f"{file} is not UTF-8") from error


def _certificates_of(pem: bytes) -> bytes:
    return _blocks(pem, b"CERTIFICATE")


def _key_of(pem: bytes) -> bytes:
    return _blocks(pem, b"PRIVATE KEY")


def _blocks(pem: bytes, kind: bytes) -> bytes:
    """Return the PEM blocks of a kind, for a file that holds certificate and key."""
    blocks, inside = [], False
    for line in pem.splitlines(keepends=True):
        inside = inside or (line.startswith(b"-----BEGIN ") and kind in line)
        if inside:
            blocks.append(line)
        inside = inside and not line.startswith(b"-----END ")
    return b"".join(blocks)
