"""NSS databases: with the real certutil where it is, and what is found of browsers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from soth_mitm.errors import CaOperationError, CaPermissionError
from soth_mitm.tls.ca import generate_ca
from soth_mitm.tls.ca_formats import to_pem
from soth_mitm.tls.trust.command import Output, run_command
from soth_mitm.tls.trust.nss import NssStore, find_databases, nickname_of
from support.certs import TestCA
from support.recorded import RecordedTool

with_certutil = pytest.mark.skipif(shutil.which("certutil") is None, reason="NSS's certutil is not installed")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    directory = tmp_path / ".pki/nssdb"
    directory.mkdir(parents=True)
    certutil(directory, "-N", "--empty-password")
    return directory


def certutil(directory: Path, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        ("certutil", "-d", f"sql:{directory}", *arguments), input=stdin, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@with_certutil
def test_install_and_uninstall_are_idempotent(database: Path) -> None:
    store, anchor = NssStore(run_command, database), generate_ca().certificate
    assert str(database) in store.name
    assert not store.is_trusted(anchor)
    assert [store.install(anchor), store.install(anchor)] == [True, False]
    assert store.is_trusted(anchor)
    assert "certificate is valid" in certutil(database, "-V", "-n", nickname_of(anchor), "-u", "L")
    assert [store.uninstall(anchor), store.uninstall(anchor)] == [True, False]
    assert not store.is_trusted(anchor)
    assert nickname_of(anchor) not in certutil(database, "-L")


@with_certutil
def test_a_newer_ca_of_the_same_name_takes_the_place_of_the_older(database: Path) -> None:
    store = NssStore(run_command, database)
    older, newer = generate_ca().certificate, generate_ca().certificate
    assert older.subject == newer.subject
    store.install(older)
    assert store.install(newer)
    assert (store.is_trusted(older), store.is_trusted(newer)) == (False, True)
    # uninstalling the older leaves the newer alone
    assert not store.uninstall(older)
    assert store.is_trusted(newer)


@with_certutil
def test_other_certificates_stay(database: Path) -> None:
    other = TestCA("Employer")
    certutil(database, "-A", "-n", "Employer", "-t", "C,,", "-a", stdin=other.cert_pem.decode())
    twin = generate_ca().certificate  # of our subject, but put there by somebody else
    certutil(database, "-A", "-n", "by hand", "-t", "C,,", "-a", stdin=to_pem([twin]).decode())
    store, anchor = NssStore(run_command, database), generate_ca().certificate
    store.install(anchor)
    assert store.is_trusted(anchor)
    store.uninstall(anchor)
    assert not store.is_trusted(anchor)
    listed = certutil(database, "-L")
    assert "Employer" in listed and "by hand" in listed
    assert to_pem([twin]).decode().splitlines()[1] in certutil(database, "-L", "-n", "by hand", "-a").replace("\r", "")


@with_certutil
def test_a_certificate_without_trust_is_not_trusted(database: Path) -> None:
    store, anchor = NssStore(run_command, database), generate_ca().certificate
    certutil(database, "-A", "-n", nickname_of(anchor), "-t", ",,", "-a", stdin=to_pem([anchor]).decode())
    assert not store.is_trusted(anchor)
    assert store.install(anchor)
    assert store.is_trusted(anchor)


@with_certutil
def test_what_is_no_database_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CaOperationError, match="SEC_ERROR_BAD_DATABASE"):
        NssStore(run_command, tmp_path / "none").is_trusted(generate_ca().certificate)


def test_databases_of_browsers_are_found_once(tmp_path: Path) -> None:
    places = [
        ".pki/nssdb",
        ".mozilla/firefox/abc.default",
        ".config/mozilla/firefox/new.default",
        "snap/firefox/common/.mozilla/firefox/x.default",
        "Library/Application Support/Firefox/Profiles/m.default",
    ]
    for place in (*places, ".mozilla/firefox/never-started"):
        (tmp_path / place).mkdir(parents=True)
    for place in places:
        (tmp_path / place / "cert9.db").write_bytes(b"")
    (tmp_path / ".mozilla/firefox/link").symlink_to(tmp_path / places[1], target_is_directory=True)
    assert list(find_databases(tmp_path)) == [tmp_path / place for place in (places[0], *sorted(places[1:]))]


@with_certutil
@pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid is not installed")
def test_a_profile_with_a_primary_password_is_told_of_and_left_as_it_was(tmp_path: Path) -> None:
    """certutil takes the certificate in before it asks for the password that trusting it needs."""
    (tmp_path / "password").write_text("secret\n")
    certutil(tmp_path, "-N", "-f", str(tmp_path / "password"))
    before = certutil(tmp_path, "-L")

    def run_without_terminal(argv: Sequence[str], stdin: str = "") -> Output:
        return run_command(("setsid", "--wait", *argv), stdin)

    store = NssStore(run_without_terminal, tmp_path)
    with pytest.raises(CaPermissionError, match=r"primary password; run: soth-mitm ca install, in a terminal"):
        store.install(generate_ca().certificate)
    assert certutil(tmp_path, "-L") == before


EMPTY = """

Certificate Nickname                                         Trust Attributes
                                                             SSL,S/MIME,JAR/XPI

"""


def test_a_database_that_may_not_be_written(tmp_path: Path) -> None:
    refusal = "certutil: could not add certificate to token or database: SEC_ERROR_READ_ONLY: security library: read-only database.\n"
    tool = RecordedTool([(("-L",), Output(0, EMPTY)), (("-A",), Output(255, stderr=refusal))])
    with pytest.raises(CaPermissionError, match="as the owner of"):
        NssStore(tool, tmp_path).install(generate_ca().certificate)


def test_a_change_without_effect_is_an_error(tmp_path: Path) -> None:
    tool = RecordedTool([(("-L",), Output(0, EMPTY)), (("-A",), Output(0))])
    with pytest.raises(CaOperationError, match="does not trust"):
        NssStore(tool, tmp_path).install(generate_ca().certificate)
