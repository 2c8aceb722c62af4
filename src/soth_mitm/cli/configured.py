"""The configuration that a command works with, and the CA that it names."""

import os
from pathlib import Path
from typing import Literal

import click

from soth_mitm.config import MitmConfig
from soth_mitm.errors import CaMaterialError, InvalidConfigError
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.ca_files import ca_paths, load_ca_from_files, load_or_create_ca

config_file = click.option("--config", "config_path", metavar="FILE", help="Read this TOML file; `soth-mitm config --defaults` writes one.")
strict_preset = click.option("--strict", is_flag=True, help="Deny by default: the preset `strict`; see docs/enforcement.md.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def read_config(path: str | None, *, strict: bool = False) -> MitmConfig:
    """Return the configuration of the file, or the defaults, with what the environment overrides; `strict` is as if the file had it."""
    preset: Literal["none", "strict"] = "strict" if strict else "none"
    if path is None:
        return MitmConfig.from_mapping({}, env=os.environ, preset=preset)
    return MitmConfig.from_file(path, preset=preset)


def add_destinations(config: MitmConfig, destinations: tuple[str, ...]) -> None:
    """Add what --destination names; `InvalidConfigError` if nothing is listed then."""
    config.interception.destinations.extend(destinations)
    if not config.interception.destinations:
        what = "nothing to intercept; add --destination 'api.example.com:443', or list destinations in a file for --config"
        raise InvalidConfigError("interception.destinations", what)


def configured_paths(config: MitmConfig) -> tuple[Path, Path]:
    """Return where the CA's certificate and key lie under `config`."""
    return ca_paths(config.tls.ca_cert_path, config.tls.ca_key_path)


def configured_ca(config: MitmConfig) -> tuple[CertificateAuthority, Path]:
    """Return the CA, made if there is none, which is said on standard error, and where its certificate is."""
    cert_path, key_path = configured_paths(config)
    authority, made = load_or_create_ca(cert_path, key_path)
    if made:
        click.echo(f"a CA was made: {cert_path}", err=True)
    return authority, cert_path


def existing_ca(config: MitmConfig) -> tuple[CertificateAuthority, Path]:
    """Return the CA and where its certificate is; `CaError` if there is none."""
    cert_path, key_path = configured_paths(config)
    if not cert_path.exists() and not key_path.exists():
        raise CaMaterialError(f"there is no CA yet: {cert_path} does not exist; `soth-mitm ca generate` makes one, or the first run")
    return load_ca_from_files(cert_path, key_path), cert_path
