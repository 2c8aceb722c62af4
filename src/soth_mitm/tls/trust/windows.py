"""Windows: the store `Root` of the user, or of the machine when we are an administrator; by the system's `certutil`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from soth_mitm.errors import CaOperationError
from soth_mitm.tls.trust.command import Run, failure

ListRoots = Callable[[], list[bytes]]


class WindowsStore:
    """The store of trusted roots. `list_roots` returns the DER of those that this user trusts, the machine's among them.

    What happened is read from the store: `certutil -delstore` ends with 0 whether it deleted something or not.
    """

    def __init__(self, run: Run, list_roots: ListRoots, *, as_administrator: bool) -> None:
        self._run = run
        self._list_roots = list_roots
        self._scope = () if as_administrator else ("-user",)
        self.name = f"system ({'machine' if as_administrator else 'user'} store)"

    def is_trusted(self, anchor: x509.Certificate) -> bool:
        """Tell whether `anchor` is among the trusted roots."""
        return anchor.public_bytes(Encoding.DER) in self._list_roots()

    def install(self, anchor: x509.Certificate) -> bool:
        """Add `anchor`; False if it was there. For a user's store a window asks the person."""
        if self.is_trusted(anchor):
            return False
        with tempfile.TemporaryDirectory(prefix="soth-mitm-") as directory:
            file = Path(directory, "soth-mitm-local-ca.cer")
            file.write_bytes(anchor.public_bytes(Encoding.DER))
            self._change("-addstore", "-f", "Root", str(file))
        if not self.is_trusted(anchor):
            raise CaOperationError("`certutil -addstore` ended well, but the certificate is not in the store")
        return True

    def uninstall(self, anchor: x509.Certificate) -> bool:
        """Remove `anchor`; False if it was not there."""
        if not self.is_trusted(anchor):
            return False
        # certutil names certificates by their SHA-1
        self._change("-delstore", "Root", anchor.fingerprint(hashes.SHA1()).hex())
        if self.is_trusted(anchor):
            whose = "machine's store; use a terminal of an administrator" if self._scope else "user's store; use a terminal of that user"
            raise CaOperationError(f"the certificate is still trusted, by the {whose}")
        return True

    def _change(self, *arguments: str) -> None:
        argv = ("certutil", *self._scope, *arguments)
        output = self._run(argv)
        if output.status != 0:
            verb = "install" if "-addstore" in arguments else "uninstall"
            raise failure(argv, output, f"soth-mitm ca {verb}, in a terminal of an administrator")
