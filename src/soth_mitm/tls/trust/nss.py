"""NSS databases, in which Firefox (everywhere) and Chromium (on Linux) keep what their users trust; by NSS's own `certutil`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from soth_mitm.errors import CaError, CaOperationError, CaPermissionError
from soth_mitm.tls.ca_formats import to_pem
from soth_mitm.tls.contexts import der_certificates
from soth_mitm.tls.trust.command import Output, Run, failure

# Below the home directory; what a browser has not made yet is not made for it.
DATABASES = (".pki/nssdb", "snap/chromium/current/.pki/nssdb")
PROFILES = (
    ".mozilla/firefox/*",
    ".config/mozilla/firefox/*",
    "snap/firefox/common/.mozilla/firefox/*",
    ".var/app/org.mozilla.firefox/.mozilla/firefox/*",
    ".var/app/org.mozilla.firefox/config/mozilla/firefox/*",
    "Library/Application Support/Firefox/Profiles/*",
)
# NSS lists all certificates of one subject under each of their nicknames, so the nickname says which of our CAs it is.
_NICKNAME = re.compile(r"^(soth-mitm [0-9a-f]{16})\s+(\S*)\s*$", re.MULTILINE)


def find_databases(home: Path) -> Iterator[Path]:
    """Yield the directories with NSS databases of the user whose home directory is `home`."""
    places = [home / place for place in DATABASES]
    places += sorted(profile for pattern in PROFILES for profile in home.glob(pattern))
    seen = set()
    for place in places:
        if (place / "cert9.db").is_file() and place.resolve() not in seen:
            seen.add(place.resolve())
            yield place


class NssStore:
    """The NSS database in `directory`."""

    def __init__(self, run: Run, directory: Path) -> None:
        self._run = run
        self._database = f"sql:{directory}"
        self.name = f"browser ({directory})"

    def is_trusted(self, anchor: x509.Certificate) -> bool:
        """Tell whether the database holds `anchor` as a CA that may vouch for servers."""
        nickname = nickname_of(anchor)
        if "C" not in self._ours().get(nickname, "").partition(",")[0]:
            return False
        listed = self._certutil("-L", "-n", nickname, "-a")
        return listed.status == 0 and anchor.public_bytes(Encoding.DER) in der_certificates(listed.stdout)

    def install(self, anchor: x509.Certificate) -> bool:
        """Put `anchor` in place of any other CA of ours; False if it is trusted already."""
        nickname = nickname_of(anchor)
        others = [other for other in self._ours() if other != nickname]
        if self.is_trusted(anchor) and not others:
            return False
        for other in others:
            self._change("-D", "-n", other)
        try:
            self._change("-A", "-n", nickname, "-t", "C,,", "-a", stdin=to_pem([anchor]).decode())
        except CaError:
            # it may be in all the same, and not trusted
            if nickname in self._ours():
                self._change("-D", "-n", nickname)
            raise
        if not self.is_trusted(anchor):
            raise CaOperationError(f"certutil ended well, but {self._database} does not trust the certificate")
        return True

    def uninstall(self, anchor: x509.Certificate) -> bool:
        """Take `anchor` away; False if it was not there."""
        if nickname_of(anchor) not in self._ours():
            return False
        self._change("-D", "-n", nickname_of(anchor))
        return True

    def _ours(self) -> dict[str, str]:
        """Return the nicknames of our CAs with their trust attributes."""
        listed = self._certutil("-L")
        if listed.status != 0:
            raise self._failure(("-L",), listed)
        return {match[1]: match[2] for match in _NICKNAME.finditer(listed.stdout)}

    def _change(self, *arguments: str, stdin: str = "") -> None:
        output = self._certutil(*arguments, stdin=stdin)
        if output.status != 0:
            raise self._failure(arguments, output)

    def _certutil(self, *arguments: str, stdin: str = "") -> Output:
        return self._run(("certutil", "-d", self._database, *arguments), stdin)

    def _failure(self, arguments: Sequence[str], output: Output) -> Exception:
        argv = ("certutil", "-d", self._database, *arguments)
        if "SEC_ERROR_BAD_PASSWORD" in output.text:
            return CaPermissionError(
                f"{self._database} has a primary password; run: soth-mitm ca install, in a terminal, and type it there"
            )
        return failure(argv, output, f"soth-mitm ca install, as the owner of {shlex.quote(self._database.removeprefix('sql:'))}")


def nickname_of(anchor: x509.Certificate) -> str:
    """Return the nickname under which a database holds `anchor`."""
    return f"soth-mitm {anchor.fingerprint(hashes.SHA256()).hex()[:16]}"
