"""Replacing the CA while clients still trust the one before it.

The pair that is replaced stays beside the new one as `NAME.previous.pem`, the next one as `NAME.previous-2.pem`, and so on. Until
`end_overlap` removes them, the combined bundle holds all their certificates, so that a client with the bundle accepts a proxy before and
after it has taken the new CA.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from soth_mitm.errors import CaMaterialError, CaOperationError, CaPermissionError
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.ca_files import StrPath, pair_of
from soth_mitm.tls.safe_files import locked, make_directories, write_together

MAX_PREVIOUS = 8


def previous_path(path: StrPath, number: int = 1) -> Path:
    """Return where the file that the `number`th rotation of an overlap replaces at `path` is kept."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{'' if number == 1 else f'-{number}'}{path.suffix}")


def replace_ca(ca: CertificateAuthority, cert_path: StrPath, key_path: StrPath) -> bool:
    """Write the pair, and keep the pair that was there as a previous one; False, and nothing written, if it is there already.

    No previous pair is overwritten, since programs may trust it: with `MAX_PREVIOUS` of them there is a `CaOperationError`.
    """
    cert_path, key_path = Path(cert_path), Path(key_path)
    make_directories(cert_path, key_path)
    with locked(key_path.parent):
        old_cert, old_key = _read_if_there(cert_path), _read_if_there(key_path)
        if (old_cert, old_key) == (ca.cert_pem, ca.key_pem):
            return False
        files = list(pair_of(ca.cert_pem, ca.key_pem, cert_path, key_path))
        if old_cert is not None and old_key is not None:
            files = [*pair_of(old_cert, old_key, *_free_place(cert_path, key_path)), *files]
        write_together(*files)
        return True


def _free_place(cert_path: Path, key_path: Path) -> tuple[Path, Path]:
    for number in range(1, MAX_PREVIOUS + 1):
        place = previous_path(cert_path, number), previous_path(key_path, number)
        if not any(path.exists() for path in place):
            return place
    raise CaOperationError(
        f"{MAX_PREVIOUS} replaced CAs are kept beside {cert_path} and still trusted; take them out first: soth-mitm ca rotate --finish"
    )


def previous_anchors(cert_path: StrPath) -> dict[Path, x509.Certificate]:
    """Return the root certificates of the CAs that the one at `cert_path` replaced, by file, the oldest first, while the overlap lasts."""
    found = {}
    for number in range(1, MAX_PREVIOUS + 1):
        path = previous_path(cert_path, number)
        pem = _read_if_there(path)
        if pem is None:
            continue
        try:
            found[path] = x509.load_pem_x509_certificates(pem)[-1]
        except ValueError as error:
            raise CaMaterialError(f"the previous CA certificate {path} is damaged; delete it to end the overlap") from error
    return found


def end_overlap(cert_path: StrPath, key_path: StrPath) -> bool:
    """Delete the previous pairs; False if there was none."""
    cert_path, key_path = Path(cert_path), Path(key_path)
    gone = False
    for number in range(1, MAX_PREVIOUS + 1):
        for path in (previous_path(key_path, number), previous_path(cert_path, number)):
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
