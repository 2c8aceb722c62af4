"""Windows: what `certutil` is asked, with answers in the words that users of Windows 10 and 11 reported of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from soth_mitm.errors import CaOperationError, CaPermissionError
from soth_mitm.tls.ca import generate_ca
from soth_mitm.tls.trust.command import Output
from soth_mitm.tls.trust.windows import WindowsStore
from support.recorded import RecordedTool

ADDED = 'Root "Trusted Root Certification Authorities"\nSignature matches Public Key\nCertUtil: -addstore command completed successfully.\n'
DELETED = 'Root "Trusted Root Certification Authorities"\nCertUtil: -delstore command completed successfully.\n'
DENIED = "CertUtil: -addstore command FAILED: 0x80070005 (WIN32: 5 ERROR_ACCESS_DENIED)\nCertUtil: Access is denied.\n"
CANCELLED = (
    "CertUtil: -addstore command FAILED: 0x800704c7 (WIN32: 1223 ERROR_CANCELLED)\nCertUtil: The operation was canceled by the user.\n"
)


class Root:
    """The store `Root`, as certutil changes it."""

    def __init__(self) -> None:
        self.certificates: list[bytes] = []
        self.tool = RecordedTool([(("certutil", "-addstore"), self._add), (("certutil", "-delstore"), self._delete)])

    def _add(self, argv: tuple[str, ...], _: str) -> Output:
        self.certificates.append(Path(argv[-1]).read_bytes())
        return Output(0, ADDED)

    def _delete(self, argv: tuple[str, ...], _: str) -> Output:
        # it ends with 0 whether there is such a certificate or not
        self.certificates = [
            der for der in self.certificates if x509.load_der_x509_certificate(der).fingerprint(hashes.SHA1()).hex() != argv[-1]
        ]
        return Output(0, DELETED)

    def list(self) -> list[bytes]:
        return list(self.certificates)


@pytest.fixture
def anchor() -> x509.Certificate:
    return generate_ca().certificate


@pytest.mark.parametrize(("as_administrator", "scope"), [(False, ("-user",)), (True, ())])
def test_install_and_uninstall_are_idempotent(anchor: x509.Certificate, as_administrator: bool, scope: tuple[str, ...]) -> None:
    root = Root()
    store = WindowsStore(root.tool, root.list, as_administrator=as_administrator)
    assert [store.install(anchor), store.install(anchor)] == [True, False]
    assert store.is_trusted(anchor)
    assert root.certificates == [anchor.public_bytes(Encoding.DER)]
    assert [store.uninstall(anchor), store.uninstall(anchor)] == [True, False]
    assert not store.is_trusted(anchor)
    added, deleted = root.tool.calls
    assert added[:-1] == ("certutil", *scope, "-addstore", "-f", "Root")
    assert deleted == ("certutil", *scope, "-delstore", "Root", anchor.fingerprint(hashes.SHA1()).hex())


def test_another_ca_of_ours_is_left_alone(anchor: x509.Certificate) -> None:
    root = Root()
    store = WindowsStore(root.tool, root.list, as_administrator=False)
    newer = generate_ca().certificate
    store.install(anchor)
    store.install(newer)
    store.uninstall(anchor)
    assert (store.is_trusted(anchor), store.is_trusted(newer)) == (False, True)


@pytest.mark.parametrize("said", [DENIED, CANCELLED])
def test_refusals_are_permission_errors(anchor: x509.Certificate, said: str) -> None:
    tool = RecordedTool([(("-addstore",), Output(1, said))])
    with pytest.raises(CaPermissionError, match="run: soth-mitm ca install, in a terminal of an administrator"):
        WindowsStore(tool, list, as_administrator=False).install(anchor)


def test_other_failures_carry_the_output(anchor: x509.Certificate) -> None:
    said = "CertUtil: -addstore command FAILED: 0x80070002 (WIN32: 2 ERROR_FILE_NOT_FOUND)\n"
    with pytest.raises(CaOperationError, match="ERROR_FILE_NOT_FOUND"):
        WindowsStore(RecordedTool([(("-addstore",), Output(1, said))]), list, as_administrator=False).install(anchor)


def test_a_success_without_effect_is_an_error(anchor: x509.Certificate) -> None:
    with pytest.raises(CaOperationError, match="is not in the store"):
        WindowsStore(RecordedTool([(("-addstore",), Output(0, ADDED))]), list, as_administrator=False).install(anchor)


@pytest.mark.parametrize(("as_administrator", "whose"), [(False, "machine's store"), (True, "user's store")])
def test_trust_from_the_other_store_is_said(anchor: x509.Certificate, as_administrator: bool, whose: str) -> None:
    tool = RecordedTool([(("-delstore",), Output(0, DELETED))])
    store = WindowsStore(tool, lambda: [anchor.public_bytes(Encoding.DER)], as_administrator=as_administrator)
    with pytest.raises(CaOperationError, match=whose):
        store.uninstall(anchor)
