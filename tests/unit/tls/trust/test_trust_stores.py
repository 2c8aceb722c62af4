"""All stores of a machine at once: what is asked, in which order, and whose error counts."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from soth_mitm import CaError, CaOperationError, CaPermissionError, CaUnsupportedError, generate_ca
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.trust import stores
from soth_mitm.tls.trust.macos import MacStore
from soth_mitm.tls.trust.stores import (
    TrustReport,
    browser_stores,
    ca_trust_status,
    install_ca_system_trust,
    is_ca_trusted,
    system_store,
    uninstall_ca_system_trust,
)
from soth_mitm.tls.trust.windows import WindowsStore
from support.recorded import RecordedTool


class Store:
    """A store that remembers, or refuses."""

    def __init__(self, name: str, refusal: CaError | None = None) -> None:
        self.name, self.refusal, self.trusted = name, refusal, False

    def is_trusted(self, anchor: x509.Certificate) -> bool:
        return self.trusted

    def install(self, anchor: x509.Certificate) -> bool:
        return self._become(True)

    def uninstall(self, anchor: x509.Certificate) -> bool:
        return self._become(False)

    def _become(self, trusted: bool) -> bool:
        if self.refusal is not None:
            raise self.refusal
        changed = self.trusted != trusted
        self.trusted = trusted
        return changed


Machine = Callable[..., list[Store]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Make a machine of a system store and browsers' stores."""

    def make(*all_stores: Store) -> list[Store]:
        monkeypatch.setattr(stores, "system_store", lambda **_: all_stores[0])
        monkeypatch.setattr(stores, "browser_stores", lambda: list(all_stores[1:]))
        return list(all_stores)

    return make


@pytest.fixture
def ca() -> CertificateAuthority:
    return generate_ca()


def test_everything_is_changed_once(machine: Machine, ca: CertificateAuthority) -> None:
    machine(Store("system"), Store("browser"))
    assert not is_ca_trusted(ca)
    assert install_ca_system_trust(ca) == [TrustReport("system", True, True), TrustReport("browser", True, True)]
    assert install_ca_system_trust(ca) == [TrustReport("system", True, False), TrustReport("browser", True, False)]
    assert is_ca_trusted(ca)
    assert ca_trust_status(ca) == [TrustReport("system", True), TrustReport("browser", True)]
    assert uninstall_ca_system_trust(ca) == [TrustReport("system", False, True), TrustReport("browser", False, True)]
    assert uninstall_ca_system_trust(ca) == [TrustReport("system", False, False), TrustReport("browser", False, False)]


def test_the_certificate_alone_is_enough(machine: Machine, ca: CertificateAuthority) -> None:
    machine(Store("system"))
    assert install_ca_system_trust(ca.certificate) == [TrustReport("system", True, True)]
    assert is_ca_trusted(ca.certificate) and ca_trust_status(ca.certificate) == [TrustReport("system", True)]
    assert uninstall_ca_system_trust(ca.certificate) == [TrustReport("system", False, True)]


def test_browsers_can_be_left_out(machine: Machine, ca: CertificateAuthority) -> None:
    _, browser = machine(Store("system"), Store("browser"))
    assert [report.store for report in install_ca_system_trust(ca, browsers=False)] == ["system"]
    browser.trusted = True
    assert [report.store for report in uninstall_ca_system_trust(ca, browsers=False)] == ["system"]
    assert browser.trusted


def test_the_systems_refusal_is_raised_after_the_browsers_were_served(machine: Machine, ca: CertificateAuthority) -> None:
    _, browser = machine(Store("system", CaPermissionError("run: sudo x")), Store("browser"))
    with pytest.raises(CaPermissionError, match="run: sudo x"):
        install_ca_system_trust(ca)
    assert browser.trusted


def test_a_browsers_refusal_stands_in_its_report(machine: Machine, ca: CertificateAuthority) -> None:
    refusal = CaOperationError("locked")
    machine(Store("system"), Store("one", refusal), Store("two"))
    assert install_ca_system_trust(ca) == [
        TrustReport("system", True, True),
        TrustReport("one", None, error=refusal),
        TrustReport("two", True, True),
    ]


def test_status_raises_nothing(monkeypatch: pytest.MonkeyPatch, ca: CertificateAuthority) -> None:
    def none(**_: object) -> None:
        raise CaUnsupportedError("no such thing here")

    monkeypatch.setattr(stores, "system_store", none)
    monkeypatch.setattr(stores, "browser_stores", lambda: [Store("browser")])
    system, browser = ca_trust_status(ca)
    assert (system.store, system.trusted, str(system.error)) == ("system", None, "no such thing here")
    assert browser == TrustReport("browser", False)


def test_each_system_has_its_store() -> None:
    assert isinstance(system_store("darwin", RecordedTool()), MacStore)
    assert isinstance(system_store("win32", RecordedTool()), WindowsStore)
    with pytest.raises(CaUnsupportedError, match="freebsd14"):
        system_store("freebsd14", RecordedTool())


@pytest.mark.skipif(sys.platform == "win32", reason="no NSS databases there")
def test_browsers_of_a_home_directory(tmp_path: Path) -> None:
    assert browser_stores(tmp_path) == []
    profile = tmp_path / ".mozilla/firefox/abc.default"
    profile.mkdir(parents=True)
    (profile / "cert9.db").write_bytes(b"")
    (store,) = browser_stores(tmp_path)
    assert str(profile) in store.name


@pytest.mark.skipif(sys.platform == "win32" or shutil.which("certutil") is not None, reason="NSS's certutil is here")
def test_a_missing_certutil_is_said(tmp_path: Path, ca: CertificateAuthority) -> None:
    profile = tmp_path / ".pki/nssdb"
    profile.mkdir(parents=True)
    (profile / "cert9.db").write_bytes(b"")
    (store,) = browser_stores(tmp_path)
    with pytest.raises(CaUnsupportedError, match="libnss3-tools"):
        store.install(ca.trust_anchor)
