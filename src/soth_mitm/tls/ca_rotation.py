"""Replacing the CA while clients still trust the one before it.

The pair that is replaced stays beside the new one as `NAME.previous.pem`. Until `end_overlap` removes it, the combined bundle holds both
certificates, so that a client with the bundle accepts a proxy before and after it has taken the new CA.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from soth_mitm.errors import CaMaterialError, CaPermissionError
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.ca_files import StrPath, pair_of
from soth_mitm.tls.safe_files import locked, make_directories, write_together


def previous_path(path: StrPath) -> Path:
    """Return where the file that a rotation replaces at `path` is kept."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def replace_ca(ca: CertificateAuthority, cert_path: StrPath, key_path: StrPath) -> bool:
    """Write the pair, and keep the pair that was there as the previous one; False, and nothing written, if it is there already.

    Of the pairs before the previous one nothing is kept.
    """
    cert_path, key_path = Path(cert_path), Path(key_path)
    make_directories(cert_path, key_path)
    with locked(key_path.parent):
        old_cert, old_key = _read_if_there(cert_path), _read_if_there(key_path)
        if (old_cert, old_key) == (ca.cert_pem, ca.key_pem):
            return False
        files = list(pair_of(ca.cert_pem, ca.key_pem, cert_path, key_path))
        if old_cert is not None and old_key is not None:
            files = [*pair_of(old_cert, old_key, previous_path(cert_path), previous_path(key_path)), *files]
        write_together(*files)
        return True


def previous_certificates(cert_path: StrPath) -> list[x509.Certificate]:
    """Return the certificates of the CA that the one at `cert_path` replaced, as long as the overlap lasts; else nothing."""
    path = previous_path(cert_path)
    pem = _read_if_there(path)
    if pem is None:
        return []
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CaMaterialError(f"the previous CA certificate {path} is damaged; delete it to end the overlap") from error


def end_overlap(cert_path: StrPath, key_path: StrPath) -> bool:
    """Delete the previous pair; False if there was none."""
    cert_path, key_path = Path(cert_path), Path(key_path)
    gone = False
    for path in (previous_path(key_path), previous_path(cert_path)):
        try:
            path.unlink()
            gone = True
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise CaPermissionError(f"{path} cannot be deleted: permission denied in {path.parent}") from error
    return gone


def _read_if_there(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise CaPermissionError(f"{path} cannot be read: permission denied") from error
