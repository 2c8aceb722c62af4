"""The system's trust store on Linux: a directory for additional roots, and a tool that makes the files that programs read.

What counts is what the tool made: a certificate in the directory alone is trusted by nobody.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from soth_mitm.errors import CaError, CaOperationError, CaPermissionError, CaUnsupportedError
from soth_mitm.tls.ca_formats import to_pem
from soth_mitm.tls.contexts import der_certificates
from soth_mitm.tls.safe_files import write_atomically
from soth_mitm.tls.trust.command import Run, failure

FILE_NAME = "soth-mitm-local-ca"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a family of distributions keeps its roots. Paths are below `/`."""

    family: str
    anchors: str
    suffix: str
    refresh: tuple[str, ...]
    bundle: str
    forget_hook: str = ""
    """A program that must be told on its standard input of what was removed, because `refresh` does not tell it."""
    linked_as: str = ""
    """The directory in which `forget_hook` knows the certificate."""


LAYOUTS = (
    Layout(
        "Fedora and RHEL",
        "etc/pki/ca-trust/source/anchors",
        ".pem",
        ("update-ca-trust", "extract"),
        "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    ),
    Layout("openSUSE", "etc/pki/trust/anchors", ".pem", ("update-ca-certificates",), "var/lib/ca-certificates/ca-bundle.pem"),
    Layout(
        "Arch",
        "etc/ca-certificates/trust-source/anchors",
        ".crt",
        ("update-ca-trust", "extract"),
        "etc/ca-certificates/extracted/tls-ca-bundle.pem",
    ),
    # --fresh, else a replaced certificate is not hashed anew, and the link to a removed one stays
    Layout(
        "Debian, Ubuntu and Alpine",
        "usr/local/share/ca-certificates",
        ".crt",
        ("update-ca-certificates", "--fresh"),
        "etc/ssl/certs/ca-certificates.crt",
        # --fresh reports each certificate as added and none as removed, so Java would go on trusting ours
        forget_hook="etc/ca-certificates/update.d/jks-keystore",
        linked_as="etc/ssl/certs",
    ),
)


def find_layout(root: Path) -> Layout:
    """Return the layout of the system at `root`; `CaUnsupportedError` where there is none that we know."""
    for layout in LAYOUTS:
        if (root / layout.anchors).is_dir():
            return layout
    looked = ", ".join(f"/{layout.anchors}" for layout in LAYOUTS)
    raise CaUnsupportedError(
        f"this system has no directory for additional roots (looked for {looked}); install the package ca-certificates, or use "
        "`soth-mitm ca env`, which needs no installation"
    )


class LinuxStore:
    """The system's trust store of the distribution at `root`. `source` is a file that holds the CA to install, if there is one."""

    def __init__(self, run: Run, root: Path = Path("/"), *, source: Path | None = None) -> None:
        self._run = run
        self._root = root
        self._source = source
        self._layout = find_layout(root)
        self._file = root / self._layout.anchors / f"{FILE_NAME}{self._layout.suffix}"
        self._bundle = root / self._layout.bundle
        self.name = f"system ({self._layout.family})"

    def is_trusted(self, anchor: x509.Certificate) -> bool:
        """Tell whether programs that read the system's bundle accept `anchor`."""
        try:
            text = self._bundle.read_text("ascii", errors="replace")
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise CaPermissionError(f"{self._bundle} cannot be read: permission denied") from error
        return anchor.public_bytes(Encoding.DER) in der_certificates(text)

    def install(self, anchor: x509.Certificate) -> bool:
        """Make the system trust `anchor` in place of any other CA of ours; False if it did already."""
        if self._is_ours(anchor) and self.is_trusted(anchor):
            return False
        remedy = self._commands_to_install()
        before = self._file.read_bytes() if self._file.is_file() else None
        try:
            write_atomically(self._file, to_pem([anchor]), 0o644)
        except PermissionError as error:
            raise _not_writable(self._file, error, remedy) from error
        try:
            self._refresh(remedy)
        except CaError:
            _put_back(self._file, before)
            raise
        if not self.is_trusted(anchor):
            _put_back(self._file, before)
            command = shlex.join(self._layout.refresh)
            raise CaOperationError(f"`{command}` ended well, but the certificate is not in {self._bundle}")
        return True

    def uninstall(self, anchor: x509.Certificate) -> bool:
        """Take `anchor`, and nothing else, away again; False if it was not there."""
        ours = self._is_ours(anchor)
        if not ours and not self.is_trusted(anchor):
            return False
        if ours:
            try:
                self._file.unlink()
            except OSError as error:
                raise _not_writable(self._file, error, self._commands_to_uninstall()) from error
        # also where the file is gone: an uninstallation before this one may not have come to its end
        self._refresh(self._commands_to_uninstall())
        self._tell_hook()
        if self.is_trusted(anchor):
            raise CaOperationError(f"the certificate is still in {self._bundle}: a file other than {self._file} has it too")
        return True

    def _is_ours(self, anchor: x509.Certificate) -> bool:
        """Tell whether the file that we put into the directory holds `anchor`."""
        try:
            return anchor.public_bytes(Encoding.DER) in der_certificates(self._file.read_text("ascii", errors="replace"))
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise CaPermissionError(f"{self._file} cannot be read: permission denied") from error

    def _refresh(self, remedy: str) -> None:
        self._checked(self._layout.refresh, "", remedy)

    @property
    def _hook(self) -> Path | None:
        hook = self._root / self._layout.forget_hook
        return hook if self._layout.forget_hook and hook.is_file() and hook.stat().st_mode & stat.S_IXUSR else None

    @property
    def _link(self) -> str:
        return str(self._root / self._layout.linked_as / f"{FILE_NAME}.pem")

    def _tell_hook(self) -> None:
        if self._hook is not None:
            self._checked((str(self._hook),), f"-{self._link}\n", self._commands_to_uninstall())

    def _checked(self, argv: Sequence[str], stdin: str, remedy: str) -> None:
        output = self._run(argv, stdin)
        if output.status != 0:
            raise failure(argv, output, remedy)

    def _commands_to_install(self) -> str:
        file = shlex.quote(str(self._file))
        if self._source is None:
            return f"soth-mitm ca export - | sudo tee {file} >{os.devnull} && {self._refresh_as_root()}"
        return f"sudo install -m 644 {shlex.quote(str(self._source))} {file} && {self._refresh_as_root()}"

    def _refresh_as_root(self) -> str:
        return f"sudo {shlex.join(self._layout.refresh)}"

    def _commands_to_uninstall(self) -> str:
        commands = f"sudo rm -f {shlex.quote(str(self._file))} && {self._refresh_as_root()}"
        return commands if self._hook is None else f"{commands} && echo -{shlex.quote(self._link)} | sudo {shlex.quote(str(self._hook))}"


def _not_writable(file: Path, error: Exception, remedy: str) -> CaError:
    if isinstance(error, PermissionError):
        return CaPermissionError(f"only an administrator may change {file}; run: {remedy}")
    return CaOperationError(f"{file} cannot be changed: {error}")


def _put_back(file: Path, content: bytes | None) -> None:
    """Undo a change that did not come to its end; the bundle is as it was."""
    if content is None:
        file.unlink(missing_ok=True)
    else:
        write_atomically(file, content, 0o644)
