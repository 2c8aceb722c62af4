"""macOS: the trust settings of the user, or of the machine when we are root; by Apple's `security`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from soth_mitm.errors import CaOperationError
from soth_mitm.tls.ca_formats import to_pem
from soth_mitm.tls.contexts import der_certificates
from soth_mitm.tls.trust.command import Output, Run, failure

SYSTEM_KEYCHAIN = "/Library/Keychains/System.keychain"


class MacStore:
    """The keychain and the trust settings of the machine (`as_root`), else of the user whose home directory is `home`."""

    def __init__(self, run: Run, home: Path, *, as_root: bool) -> None:
        self._run = run
        self._domain = ("-d",) if as_root else ()
        self._keychain = SYSTEM_KEYCHAIN if as_root else str(home / "Library/Keychains/login.keychain-db")
        self.name = f"system ({'machine' if as_root else 'user'} keychain)"

    def is_trusted(self, anchor: x509.Certificate) -> bool:
        """Tell whether the system would accept a server's certificate that `anchor` signed."""
        with _as_file(anchor) as file:
            # -l: the certificate is a CA's; -L: from what is on this machine, no network
            return self._security("verify-cert", "-l", "-L", "-p", "basic", "-c", file).status == 0

    def install(self, anchor: x509.Certificate) -> bool:
        """Make the system trust `anchor`; False if it did already. A window may ask the user for a password."""
        if self.is_trusted(anchor):
            return False
        with _as_file(anchor) as file:
            self._change("add-trusted-cert", *self._domain, "-r", "trustRoot", "-p", "ssl", "-p", "basic", "-k", self._keychain, file)
        if not self.is_trusted(anchor):
            raise CaOperationError("`security add-trusted-cert` ended well, but the system does not trust the certificate")
        return True

    def uninstall(self, anchor: x509.Certificate) -> bool:
        """Take trust and certificate away again; False if neither was there."""
        trusted, held = self.is_trusted(anchor), self._is_held(anchor)
        if trusted:
            with _as_file(anchor) as file:
                self._change("remove-trusted-cert", *self._domain, file)
        if held:
            # every version takes a SHA-1 here, only later ones a SHA-256
            self._change("delete-certificate", "-Z", anchor.fingerprint(hashes.SHA1()).hex().upper(), self._keychain)
        if trusted and self.is_trusted(anchor):
            other = "user's" if self._domain else "machine's (use sudo)"
            raise CaOperationError(f"the system still trusts the certificate, by the {other} trust settings")
        return trusted or held

    def _is_held(self, anchor: x509.Certificate) -> bool:
        listed = self._security("find-certificate", "-a", "-p", self._keychain)
        return anchor.public_bytes(Encoding.DER) in der_certificates(listed.stdout)

    def _change(self, *arguments: str) -> None:
        output = self._security(*arguments)
        if output.status != 0:
            remedy = "soth-mitm ca install" if arguments[0] == "add-trusted-cert" else "soth-mitm ca uninstall"
            where = "in a terminal of the desktop session, where a window can ask for your password"
            raise failure(("security", *arguments), output, f"{'sudo ' if self._domain else ''}{remedy}, {where}")

    def _security(self, *arguments: str) -> Output:
        return self._run(("security", *arguments))


@contextmanager
def _as_file(anchor: x509.Certificate) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="soth-mitm-") as directory:
        file = Path(directory, "soth-mitm-local-ca.pem")
        file.write_bytes(to_pem([anchor]))
        yield str(file)
