"""Which certificates were put into the trust stores of this machine: remembered beside the CA, so that all of them can be taken out again.

The stores cannot tell: some hold no more than a certificate, whose name anybody may use, and the CA of then may have been replaced since.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from soth_mitm.errors import CaMaterialError, CaPermissionError
from soth_mitm.tls.ca_files import StrPath
from soth_mitm.tls.ca_formats import to_pem
from soth_mitm.tls.safe_files import locked, make_directories, write_atomically


def installed_path(cert_path: StrPath) -> Path:
    """Return the file with the certificates that were installed, for the CA whose certificate is at `cert_path`."""
    path = Path(cert_path)
    return path.with_name(f"{path.stem}-installed.pem")


def installed_anchors(cert_path: StrPath) -> list[x509.Certificate]:
    """Return what was installed and not taken out since, the oldest first."""
    path = installed_path(cert_path)
    try:
        pem = path.read_bytes()
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise CaPermissionError(f"{path} cannot be read: permission denied") from error
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CaMaterialError(
            f"{path}, the list of installed CAs, is damaged; take them out of the trust stores by hand and delete it"
        ) from error


def remember(cert_path: StrPath, anchor: x509.Certificate) -> None:
    """Note that `anchor` is about to be installed: before, so that one that comes to half an end is known as well."""
    path = installed_path(cert_path)
    make_directories(path)
    with locked(path.parent):
        known = installed_anchors(cert_path)
        if anchor not in known:
            write_atomically(path, to_pem([*known, anchor]), 0o644)


def forget(cert_path: StrPath, anchors: Iterable[x509.Certificate]) -> None:
    """Note that no store has `anchors` any more."""
    path = installed_path(cert_path)
    if not path.exists():
        return
    gone = {anchor.fingerprint(hashes.SHA256()) for anchor in anchors}
    with locked(path.parent):
        left = [anchor for anchor in installed_anchors(cert_path) if anchor.fingerprint(hashes.SHA256()) not in gone]
        if left:
            write_atomically(path, to_pem(left), 0o644)
        else:
            path.unlink(missing_ok=True)
