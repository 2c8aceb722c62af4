"""The files that make programs trust the CA without an installation: the combined bundle, and the same for Java.

Programs that are given a bundle trust what is in it and nothing else. So it holds the system's roots too: of what is tunnelled, clients
see the real certificates.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
import sys
import threading
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from soth_mitm.errors import CaMaterialError
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.ca_files import StrPath
from soth_mitm.tls.ca_formats import to_java_truststore
from soth_mitm.tls.ca_rotation import previous_anchors
from soth_mitm.tls.contexts import BUNDLE_MARK, der_certificates, system_roots, usable_certificates
from soth_mitm.tls.safe_files import make_directories, write_atomically
from soth_mitm.tls.trust.command import Run, run_command

# A user who has one of these has roots of his own in it (an employer's, as a rule); the bundle takes their place.
ROOT_VARIABLES = (
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
)
MAC_KEYCHAINS = ("/System/Library/Keychains/SystemRootCertificates.keychain", "/Library/Keychains/System.keychain")
SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
_filtering = threading.Lock()


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """Where a client finds what it must trust."""

    certificate: Path
    """The CA's own certificate, PEM."""
    bundle: Path
    """The system's roots and the CA, those before it included while a rotation overlaps; PEM."""
    java_truststore: Path
    """The same as PKCS#12, with the password `changeit`."""


def trust_files(cert_path: StrPath) -> TrustFiles:
    """Return where the files beside the CA certificate `cert_path` are; they need not be there."""
    cert = Path(cert_path)
    return TrustFiles(cert, cert.with_name(f"{cert.stem}-bundle.pem"), cert.with_name(f"{cert.stem}-truststore.p12"))


def write_trust_files(ca: CertificateAuthority, cert_path: StrPath, *, roots: Iterable[bytes] | None = None) -> TrustFiles:
    """Write the bundle and the Java truststore beside the CA's certificate, where they are not up to date.

    `roots` (DER) take the place of the system's. Blocks for some 100 ms. Raises `CaPermissionError` where the directory is not ours.
    """
    files = trust_files(cert_path)
    anchors = [ca.trust_anchor, *previous_anchors(cert_path).values()]
    ours = [anchor.public_bytes(Encoding.DER) for anchor in anchors]
    certificates = dict.fromkeys([*ours, *(client_roots(os.environ) if roots is None else roots)])
    text = _bundle_text(ca, certificates)
    if not (_holds(files.bundle, text) and files.java_truststore.is_file()):
        make_directories(files.bundle)
        write_atomically(files.java_truststore, to_java_truststore(_parsed(certificates)), 0o644)
        # last: a bundle that is up to date says that both are
        write_atomically(files.bundle, text, 0o644)
    return files


def client_roots(environ: Mapping[str, str], platform: str = sys.platform, run: Run = run_command) -> list[bytes]:
    """Return the DER of the roots that programs of this user trust: the system's, and those of files that `environ` names for them."""
    roots = dict.fromkeys(_platform_roots(platform, run))
    roots.update(dict.fromkeys(usable_certificates(Path(environ[name]) for name in ROOT_VARIABLES if environ.get(name))))
    if not roots or platform == "win32":
        # Windows fetches many of its roots when they are first needed, so those that it lists are not all
        roots.update(dict.fromkeys(_certifi_roots()))
    if not roots:
        raise CaMaterialError("this system has no root certificates that can be found; name a bundle of them in SSL_CERT_FILE")
    return list(roots)


def _platform_roots(platform: str, run: Run) -> list[bytes]:
    if platform == "win32":
        return _windows_roots()
    if platform == "darwin":
        text = run(("security", "find-certificate", "-a", "-p", *MAC_KEYCHAINS)).stdout
        return der_certificates(text) or system_roots()
    return system_roots()


def _windows_roots() -> list[bytes]:
    roots: list[bytes] = []
    if sys.platform == "win32":
        for certificate, encoding, usage in ssl.enum_certificates("ROOT"):
            if encoding == "x509_asn" and (usage is True or (not isinstance(usage, bool) and SERVER_AUTH in usage)):
                roots.append(certificate)
    return roots


def _certifi_roots() -> list[bytes]:
    found = importlib.util.find_spec("certifi")
    return usable_certificates([Path(found.origin).with_name("cacert.pem")]) if found is not None and found.origin is not None else []


def _parsed(certificates: Iterable[bytes]) -> list[x509.Certificate]:
    found = []
    # the filters of warnings are the process's: without the lock, one thread restores them under another
    with _filtering, warnings.catch_warnings():
        # some old roots have serial numbers that are not allowed any more
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for der in certificates:
            try:
                found.append(x509.load_der_x509_certificate(der))
            except ValueError:
                continue  # OpenSSL takes it, so it stays in the bundle; this library could not write it for Java
    return found


def _bundle_text(ca: CertificateAuthority, certificates: Iterable[bytes]) -> bytes:
    own = ca.trust_anchor.fingerprint(hashes.SHA256()).hex()
    head = f"{BUNDLE_MARK}: the CA {own} and the system's roots; made anew when either changes\n"
    return "".join([head, *map(ssl.DER_cert_to_PEM_cert, certificates)]).encode()


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False
