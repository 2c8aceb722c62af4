"""macOS: what `security` is asked, with answers in the words that users of macOS 13 to 15 reported of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from soth_mitm.errors import CaOperationError, CaPermissionError
from soth_mitm.tls.ca import generate_ca
from soth_mitm.tls.ca_formats import to_pem
from soth_mitm.tls.trust.command import Output
from soth_mitm.tls.trust.macos import SYSTEM_KEYCHAIN, MacStore
from support.recorded import RecordedTool

HOME = Path("/Users/<user>")
LOGIN = "/Users/<user>/Library/Keychains/login.keychain-db"
VERIFIED = Output(0, "...certificate verification successful.\n")
NOT_VERIFIED = Output(1, stderr="Cert Verify Result: CSSMERR_TP_NOT_TRUSTED\n")


class Keychain:
    """One keychain and one trust domain, as `security` changes them."""

    def __init__(self) -> None:
        self.held: dict[str, x509.Certificate] = {}
        self.trusted: set[str] = set()
        self.tool = RecordedTool(
            [
                (("security", "verify-cert"), lambda argv, _: VERIFIED if sha1(given(argv)) in self.trusted else NOT_VERIFIED),
                (("security", "add-trusted-cert"), self._add),
                (("security", "remove-trusted-cert"), self._remove),
                (("security", "delete-certificate"), self._delete),
                (("security", "find-certificate"), lambda *_: Output(0, to_pem(self.held.values()).decode())),
            ]
        )

    def _add(self, argv: tuple[str, ...], _: str) -> Output:
        self.held[sha1(given(argv))] = given(argv)
        self.trusted.add(sha1(given(argv)))
        return Output(0)

    def _remove(self, argv: tuple[str, ...], _: str) -> Output:
        self.trusted.discard(sha1(given(argv)))
        return Output(0)

    def _delete(self, argv: tuple[str, ...], _: str) -> Output:
        del self.held[argv[3]]
        return Output(0)


def given(argv: tuple[str, ...]) -> x509.Certificate:
    """Return the certificate in the file that a command names last."""
    return x509.load_pem_x509_certificate(Path(argv[-1]).read_bytes())


def sha1(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA1()).hex().upper()


@pytest.fixture
def anchor() -> x509.Certificate:
    return generate_ca().certificate


@pytest.mark.parametrize(("as_root", "domain", "keychain"), [(False, (), LOGIN), (True, ("-d",), SYSTEM_KEYCHAIN)])
def test_install_and_uninstall_are_idempotent(anchor: x509.Certificate, as_root: bool, domain: tuple[str, ...], keychain: str) -> None:
    mac = Keychain()
    store = MacStore(mac.tool, HOME, as_root=as_root)
    assert [store.install(anchor), store.install(anchor)] == [True, False]
    assert store.is_trusted(anchor)
    assert [store.uninstall(anchor), store.uninstall(anchor)] == [True, False]
    assert (mac.held, mac.trusted) == ({}, set())
    changes = [call for call in mac.tool.calls if call[1] not in ("verify-cert", "find-certificate")]
    assert [call[1] for call in changes] == ["add-trusted-cert", "remove-trusted-cert", "delete-certificate"]
    assert changes[0][2:-1] == (*domain, "-r", "trustRoot", "-p", "ssl", "-p", "basic", "-k", keychain)
    assert changes[1][2:-1] == domain
    assert changes[2][2:] == ("-Z", sha1(anchor), keychain)


def test_another_ca_of_ours_is_left_alone(anchor: x509.Certificate) -> None:
    mac = Keychain()
    store = MacStore(mac.tool, HOME, as_root=False)
    newer = generate_ca().certificate
    store.install(anchor)
    store.install(newer)
    store.uninstall(anchor)
    assert (store.is_trusted(anchor), store.is_trusted(newer)) == (False, True)


def test_a_certificate_that_is_held_but_not_trusted_is_removed(anchor: x509.Certificate) -> None:
    mac = Keychain()
    store = MacStore(mac.tool, HOME, as_root=False)
    store.install(anchor)
    mac.trusted.clear()
    assert store.uninstall(anchor)
    assert mac.held == {}


@pytest.mark.parametrize(
    "said",
    [
        "SecTrustSettingsSetTrustSettings: The authorization was denied since no user interaction was possible.\n",
        "SecTrustSettingsSetTrustSettings: The authorization was canceled by the user.\n",
        "SecCertificateAddToKeychain: User interaction is not allowed.\n",
    ],
)
def test_refusals_are_permission_errors(anchor: x509.Certificate, said: str) -> None:
    tool = RecordedTool([(("verify-cert",), NOT_VERIFIED), (("add-trusted-cert",), Output(1, stderr=said))])
    with pytest.raises(CaPermissionError, match="run: soth-mitm ca install, in a terminal of the desktop session"):
        MacStore(tool, HOME, as_root=False).install(anchor)


def test_a_machine_wide_installation_needs_sudo_again(anchor: x509.Certificate) -> None:
    said = "SecTrustSettingsRemoveTrustSettings: The authorization was denied since no user interaction was possible.\n"
    tool = RecordedTool(
        [(("verify-cert",), VERIFIED), (("find-certificate",), Output(0)), (("remove-trusted-cert",), Output(1, stderr=said))]
    )
    with pytest.raises(CaPermissionError, match="run: sudo soth-mitm ca uninstall"):
        MacStore(tool, HOME, as_root=True).uninstall(anchor)


def test_other_failures_carry_the_output(anchor: x509.Certificate) -> None:
    said = "SecTrustSettingsSetTrustSettings: The specified item could not be found in the keychain.\n"
    tool = RecordedTool([(("verify-cert",), NOT_VERIFIED), (("add-trusted-cert",), Output(1, stderr=said))])
    with pytest.raises(CaOperationError, match="could not be found in the keychain"):
        MacStore(tool, HOME, as_root=False).install(anchor)


def test_changes_without_effect_are_errors(anchor: x509.Certificate) -> None:
    deaf = RecordedTool([(("verify-cert",), NOT_VERIFIED), (("add-trusted-cert",), Output(0))])
    with pytest.raises(CaOperationError, match="does not trust"):
        MacStore(deaf, HOME, as_root=False).install(anchor)
    stubborn = RecordedTool([(("verify-cert",), VERIFIED), (("find-certificate",), Output(0)), (("remove-trusted-cert",), Output(0))])
    with pytest.raises(CaOperationError, match="by the machine's"):
        MacStore(stubborn, HOME, as_root=False).uninstall(anchor)


def test_the_certificate_is_given_as_a_file(anchor: x509.Certificate) -> None:
    seen: list[bytes] = []

    def look(argv: tuple[str, ...], _: str) -> Output:
        seen.append(given(argv).public_bytes(Encoding.DER))
        return VERIFIED

    tool = RecordedTool([(("verify-cert",), look)])
    assert MacStore(tool, HOME, as_root=False).is_trusted(anchor)
    assert seen == [anchor.public_bytes(Encoding.DER)]
    assert not Path(tool.calls[0][-1]).exists()
