"""Which trust stores this machine has, and the calls that change all of them."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509

from soth_mitm.errors import CaError, CaUnsupportedError
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.trust.command import Run, run_command
from soth_mitm.tls.trust.linux import LinuxStore
from soth_mitm.tls.trust.macos import MacStore
from soth_mitm.tls.trust.nss import NssStore, find_databases
from soth_mitm.tls.trust.windows import WindowsStore

Trusted = CertificateAuthority | x509.Certificate
"""A CA, or the certificate alone: for trust stores its key is not needed."""


class TrustStore(Protocol):
    """A place that says which roots are trusted. Methods block, and raise `CaError`; both changes are idempotent."""

    name: str

    def is_trusted(self, anchor: x509.Certificate) -> bool:
        """Tell whether programs that use this store accept `anchor`."""

    def install(self, anchor: x509.Certificate) -> bool:
        """Make them accept it; False if they did already."""

    def uninstall(self, anchor: x509.Certificate) -> bool:
        """Make them not accept it any more; False if they did not."""


@dataclass(frozen=True, slots=True)
class TrustReport:
    """What a call came to in one trust store."""

    store: str
    trusted: bool | None
    """Whether the store trusts the CA now; None where it could not be told."""
    changed: bool = False
    error: CaError | None = None


def install_ca_system_trust(ca: CertificateAuthority, *, browsers: bool = True, certificate_path: Path | None = None) -> list[TrustReport]:
    """Make the system, and the browsers of this user that have a store of their own, trust the CA. Idempotent.

    Whoever holds the CA's key can then impersonate any server to every program that asks the system. Raises the system store's error:
    `CaPermissionError` with the command to run (it names `certificate_path`, a file with the CA), `CaUnsupportedError`,
    `CaOperationError`; a browser's error stands in its report. Blocks for seconds, and on macOS and Windows until a person has answered.
    """
    anchor = _anchor(ca)
    system = system_store(source=certificate_path)
    return _in_all(lambda store: store.install(anchor), anchor, system, browser_stores() if browsers else [])


def uninstall_ca_system_trust(ca: Trusted, *, browsers: bool = True) -> list[TrustReport]:
    """Undo `install_ca_system_trust` for this CA and no other. Idempotent; raises and reports as that does."""
    anchor = _anchor(ca)
    return _in_all(lambda store: store.uninstall(anchor), anchor, system_store(), browser_stores() if browsers else [])


def is_ca_trusted(ca: Trusted) -> bool:
    """Tell whether the system trusts the CA now: whether its bundle holds it, not whether an installation was tried.

    Raises `CaUnsupportedError` where the system's store is none that we know, and `CaPermissionError` where it may not be read.
    """
    return system_store().is_trusted(_anchor(ca))


def ca_trust_status(ca: Trusted) -> list[TrustReport]:
    """Tell for each trust store of this machine whether it trusts the CA. Raises nothing; errors stand in the reports."""
    stores: list[TrustStore] = []
    reports = []
    try:
        stores.append(system_store())
    except CaError as error:
        reports.append(TrustReport("system", None, error=error))
    return reports + [_reported(lambda _: False, _anchor(ca), store) for store in (*stores, *browser_stores())]


def system_store(platform: str = sys.platform, run: Run = run_command, *, source: Path | None = None) -> TrustStore:
    """Return the system's store; `CaUnsupportedError` where we know none. `source` is a file that holds the CA to install."""
    if platform == "linux":
        return LinuxStore(run, source=source)
    if platform == "darwin":
        return MacStore(run, Path.home(), as_root=_is_administrator())
    if platform == "win32":
        return WindowsStore(run, _windows_roots, as_administrator=_is_administrator())
    raise CaUnsupportedError(f"installing into the trust store of {platform} is not supported; use `soth-mitm ca env`")


def browser_stores(home: Path | None = None, run: Run = run_command) -> list[TrustStore]:
    """Return the NSS databases of this user. Windows has none here: NSS's certutil is not to be had there."""
    if sys.platform == "win32":
        return []
    try:
        home = home or Path.home()
    except RuntimeError:
        # a user without a home directory has no browser's databases
        return []
    return [NssStore(run, path) for path in find_databases(home)]


def _anchor(ca: Trusted) -> x509.Certificate:
    return ca.trust_anchor if isinstance(ca, CertificateAuthority) else ca


def _in_all(
    act: Callable[[TrustStore], bool], anchor: x509.Certificate, system: TrustStore, browsers: Iterable[TrustStore]
) -> list[TrustReport]:
    # the browsers first: they may succeed where the system's store needs an administrator
    reports = [_reported(act, anchor, store) for store in browsers]
    return [TrustReport(system.name, changed=act(system), trusted=system.is_trusted(anchor)), *reports]


def _reported(act: Callable[[TrustStore], bool], anchor: x509.Certificate, store: TrustStore) -> TrustReport:
    try:
        changed = act(store)
        return TrustReport(store.name, store.is_trusted(anchor), changed)
    except CaError as error:
        return TrustReport(store.name, None, error=error)


def _windows_roots() -> list[bytes]:
    if sys.platform == "win32":
        return [certificate for certificate, encoding, _ in ssl.enum_certificates("ROOT") if encoding == "x509_asn"]
    return []


def _is_administrator() -> bool:
    if sys.platform == "win32":
        import ctypes

        return bool(ctypes.windll.shell32.IsUserAnAdmin())
    return os.geteuid() == 0
