"""The CA on disk: where it lives, who may read it, and how two processes that start together end up with one CA."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from soth_mitm.errors import CaMaterialError, CaOperationError, CaPermissionError
from soth_mitm.tls.ca import CertificateAuthority, generate_ca, load_ca
from soth_mitm.tls.safe_files import locked, make_directories, write_together

CERT_NAME = "soth-mitm-ca.pem"
KEY_NAME = "soth-mitm-ca-key.pem"
StrPath = str | os.PathLike[str]


def ca_paths(cert_path: StrPath | None, key_path: StrPath | None) -> tuple[Path, Path]:
    """Return where the CA certificate and its key live: where the configuration says, else in the user's state directory.

    Raises `CaOperationError` where there is no such directory and one is needed: a container may have neither HOME nor a name for its user.
    """
    if cert_path is not None and key_path is not None:
        return Path(cert_path), Path(key_path)
    directory = state_directory(sys.platform, os.environ, Path.home)
    return Path(cert_path or directory / CERT_NAME), Path(key_path or directory / KEY_NAME)


def state_directory(platform: str, environ: Mapping[str, str], home_of_user: Callable[[], Path]) -> Path:
    """Return the user's state directory by the custom of `platform` (a value of `sys.platform`); SOTH_MITM_STATE_DIR wins.

    `home_of_user` is called where the home directory is needed; its RuntimeError is raised as `CaOperationError`.
    """
    chosen = environ.get("SOTH_MITM_STATE_DIR")
    if chosen:
        return Path(chosen)
    # The XDG base directory specification: a relative path is invalid and ignored.
    given = environ.get("LOCALAPPDATA", "") if platform == "win32" else "" if platform == "darwin" else environ.get("XDG_STATE_HOME", "")
    if given and (platform == "win32" or os.path.isabs(given)):
        return Path(given) / "soth-mitm"
    try:
        home = home_of_user()
    except RuntimeError as error:
        raise CaOperationError(
            "this user has no home directory to keep the CA in; set SOTH_MITM_STATE_DIR to a directory, or tls.ca_cert_path and "
            "tls.ca_key_path to files"
        ) from error
    if platform == "win32":
        return home / "AppData" / "Local" / "soth-mitm"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "soth-mitm"
    return home / ".local" / "state" / "soth-mitm"


def load_ca_from_files(cert_path: StrPath, key_path: StrPath) -> CertificateAuthority:
    """Load a CA pair; the key must be readable by us and, on POSIX, by no other user.

    Raises `CaPermissionError` with the command that repairs it, `CaMaterialError` for everything else.
    """
    cert_path, key_path = Path(cert_path), Path(key_path)
    try:
        return _load(cert_path, key_path)
    except CaMaterialError:
        if not (cert_path.is_file() and key_path.is_file()):
            raise
        # another process may be replacing the pair, one file after the other
        with locked(key_path.parent):
            return _load(cert_path, key_path)


def load_or_create_ca(cert_path: StrPath, key_path: StrPath) -> tuple[CertificateAuthority, bool]:
    """Load the pair, or make and save one when neither file exists; the flag says whether it was made.

    One file without the other is an error: guessing would either orphan a trusted certificate or overwrite a key. Of
    several processes that start together one creates, the others wait for it and load what it wrote.
    """
    cert_path, key_path = Path(cert_path), Path(key_path)
    if cert_path.exists() and key_path.exists():
        return load_ca_from_files(cert_path, key_path), False
    make_directories(cert_path, key_path)
    with locked(key_path.parent):
        have_cert, have_key = cert_path.exists(), key_path.exists()
        if have_cert and have_key:
            return _load(cert_path, key_path), False
        if have_cert:
            raise CaMaterialError(_half_a_pair(cert_path, "key", key_path))
        if have_key:
            raise CaMaterialError(_half_a_pair(key_path, "certificate", cert_path))
        ca = generate_ca()
        write_pair(ca, cert_path, key_path)
        return ca, True


def save_ca(ca: CertificateAuthority, cert_path: StrPath, key_path: StrPath) -> None:
    """Write the pair, replacing what is there: directories that we make get 0700, the key 0600; each file appears whole or not at all."""
    cert_path, key_path = Path(cert_path), Path(key_path)
    make_directories(cert_path, key_path)
    with locked(key_path.parent):
        write_pair(ca, cert_path, key_path)


def _load(cert_path: Path, key_path: Path) -> CertificateAuthority:
    cert_pem = _read(cert_path, "certificate", private=False)
    key_pem = _read(key_path, "key", private=True)
    try:
        return load_ca(cert_pem, key_pem)
    except CaMaterialError as error:
        raise CaMaterialError(f"{error} (certificate {cert_path}, key {key_path})") from error


def _half_a_pair(present: Path, kind: str, missing: Path) -> str:
    return f"{present} is there but its {kind} {missing} is missing; restore {missing}, or delete {present} to have a new CA made"


def write_pair(ca: CertificateAuthority, cert_path: Path, key_path: Path) -> None:
    """Write both files; for those who hold the lock of the key's directory."""
    write_together(*pair_of(ca.cert_pem, ca.key_pem, cert_path, key_path))


def pair_of(cert_pem: bytes, key_pem: bytes, cert_path: Path, key_path: Path) -> Iterator[tuple[Path, bytes, int]]:
    """Return a pair as `write_together` takes it."""
    # The key first: a certificate that somebody may come to trust never exists without its key.
    yield key_path, key_pem, 0o600
    yield cert_path, cert_pem, 0o644


def _read(path: Path, what: str, *, private: bool) -> bytes:
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if private and os.name == "posix" and mode & 0o077:
                command = f"chmod 600 {shlex.quote(str(path))}"
                raise CaPermissionError(f"the CA key {path} is open to other users (mode {mode:04o}); run: {command}")
            return file.read()
    except CaPermissionError:
        raise
    except PermissionError as error:
        command = f"sudo chown $(id -u) {shlex.quote(str(path))}"
        raise CaPermissionError(f"the CA {what} {path} cannot be read: permission denied; run: {command}") from error
    except FileNotFoundError as error:
        raise CaMaterialError(f"the CA {what} {path} does not exist") from error
    except OSError as error:
        raise CaMaterialError(f"the CA {what} {path} cannot be read: {error.strerror}") from error
