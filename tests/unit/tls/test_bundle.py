"""The combined bundle: what is in it, when it is written, and where roots are found."""

from __future__ import annotations

import os
import shutil
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from soth_mitm.errors import CaMaterialError, CaPermissionError
from soth_mitm.tls import bundle, safe_files
from soth_mitm.tls.bundle import client_roots, trust_files, write_trust_files
from soth_mitm.tls.ca import CertificateAuthority, generate_ca, load_ca
from soth_mitm.tls.ca_files import load_or_create_ca, save_ca
from soth_mitm.tls.ca_rotation import end_overlap, replace_ca
from soth_mitm.tls.contexts import BUNDLE_MARK, UpstreamContexts, system_roots
from soth_mitm.tls.trust.command import Output
from support.certs import TestCA
from support.recorded import RecordedTool

Saved = tuple[CertificateAuthority, Path]


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    ca, _ = load_or_create_ca(tmp_path / "ca.pem", tmp_path / "ca-key.pem")
    return ca, tmp_path / "ca.pem"


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this machine's own settings count for nothing."""
    for name in (*bundle.ROOT_VARIABLES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def der(*authorities: CertificateAuthority | TestCA) -> list[bytes]:
    return [authority.certificate.public_bytes(Encoding.DER) for authority in authorities]


def ders_in(path: Path) -> list[bytes]:
    text = path.read_text("ascii")
    assert text.startswith(BUNDLE_MARK)
    end = "-----END CERTIFICATE-----\n"
    blocks = [block[block.index("-----BEGIN") :] + end for block in text.split(end)[:-1]]
    return [ssl.PEM_cert_to_DER_cert(block) for block in blocks]


def test_it_holds_the_ca_and_then_the_roots(saved: Saved) -> None:
    ca, path = saved
    roots = der(TestCA(), TestCA())
    files = write_trust_files(ca, path, roots=[roots[0], *der(ca), *roots])
    assert ders_in(files.bundle) == [*der(ca), *roots]
    assert (files.certificate, files.bundle, files.java_truststore) == (
        path,
        path.with_name("ca-bundle.pem"),
        path.with_name("ca-truststore.p12"),
    )
    if os.name == "posix":
        assert {stat.S_IMODE(file.stat().st_mode) for file in (files.bundle, files.java_truststore)} == {0o644}


def test_with_the_systems_roots_it_verifies_ours_and_theirs(saved: Saved) -> None:
    ca, path = saved
    there = ders_in(write_trust_files(ca, path).bundle)
    assert there[0] == der(ca)[0]
    assert set(client_roots(os.environ)) <= set(there)
    assert len(there) > 50
    context = ssl.create_default_context(cafile=str(trust_files(path).bundle))
    assert len(context.get_ca_certs()) > 50


def test_it_is_written_only_when_something_changed(saved: Saved) -> None:
    ca, path = saved
    first, second = der(TestCA()), der(TestCA())
    files = write_trust_files(ca, path, roots=first)

    def written() -> list[bool]:
        """Tell for both files whether they were written since the last time."""
        fresh = [file.stat().st_mtime > 0 for file in (files.bundle, files.java_truststore)]
        for file in (files.bundle, files.java_truststore):
            os.utime(file, (0, 0))
        return fresh

    assert written() == [True, True]
    write_trust_files(ca, path, roots=first)
    assert written() == [False, False]
    write_trust_files(ca, path, roots=second)
    assert written() == [True, True]
    files.java_truststore.unlink()
    write_trust_files(ca, path, roots=second)
    assert files.java_truststore.is_file()


def test_a_rotation_overlaps_until_its_end(saved: Saved) -> None:
    old, path = saved
    key_path = path.with_name("ca-key.pem")
    root = der(TestCA())
    new = generate_ca()
    replace_ca(new, path, key_path)
    files = write_trust_files(new, path, roots=root)
    assert ders_in(files.bundle) == [*der(new, old), *root]
    end_overlap(path, key_path)
    write_trust_files(new, path, roots=root)
    assert ders_in(files.bundle) == [*der(new), *root]


def test_of_an_intermediate_the_root_is_what_clients_need(tmp_path: Path) -> None:
    root = TestCA()
    middle = root.intermediate()
    ca = load_ca(middle.cert_pem + root.cert_pem, middle.key_pem)
    save_ca(ca, tmp_path / "ca.pem", tmp_path / "ca-key.pem")
    assert ders_in(write_trust_files(ca, tmp_path / "ca.pem", roots=[]).bundle) == der(root)


@pytest.mark.skipif(shutil.which("keytool") is None, reason="Java is not installed")
def test_java_sees_the_same(saved: Saved) -> None:
    ca, path = saved
    files = write_trust_files(ca, path)
    done = subprocess.run(
        ("keytool", "-list", "-keystore", files.java_truststore, "-storepass", "changeit"), check=True, capture_output=True, text=True
    )
    assert done.stdout.count("trustedCertEntry") == len(ders_in(files.bundle))


def test_a_directory_that_is_not_ours(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(safe_files.tempfile, "mkstemp", refuse)
    with pytest.raises(CaPermissionError, match="cannot be written: permission denied"):
        write_trust_files(*saved, roots=[])


# --- where roots come from


def test_a_bundle_of_ours_is_no_root_of_the_system(saved: Saved, plain_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = set(client_roots(os.environ))
    ca, path = saved
    files = write_trust_files(ca, path)
    for name in bundle.ROOT_VARIABLES:
        monkeypatch.setenv(name, str(files.bundle))
    assert der(ca)[0] not in system_roots()
    assert set(client_roots(os.environ)) == usual
    # nor does the proxy trust itself as an upstream
    assert der(ca)[0] not in UpstreamContexts().context(()).get_ca_certs(binary_form=True)
    # and so a CA that is replaced does not stay in the bundle by way of the bundle
    newer = generate_ca()
    assert der(ca)[0] not in ders_in(write_trust_files(newer, path.with_name("newer.pem")).bundle)


@pytest.mark.parametrize("name", bundle.ROOT_VARIABLES)
def test_roots_that_the_user_has_are_kept(name: str, tmp_path: Path, plain_environment: None) -> None:
    own = TestCA("Employer")
    (tmp_path / "own.pem").write_bytes(own.cert_pem)
    assert der(own)[0] in client_roots({name: str(tmp_path / "own.pem")})
    assert der(own)[0] not in client_roots({name: str(tmp_path / "gone.pem")})


def test_macos_is_asked_for_its_keychains(tmp_path: Path) -> None:
    first, second = TestCA(), TestCA()
    security = RecordedTool([(("security", "find-certificate", "-a", "-p"), Output(0, (first.cert_pem + second.cert_pem).decode()))])
    assert client_roots({}, "darwin", security) == der(first, second)
    assert security.calls[0][-2:] == bundle.MAC_KEYCHAINS


def test_windows_is_completed_by_certifi() -> None:
    pytest.importorskip("certifi")
    assert len(client_roots({}, "win32", RecordedTool())) > 50


def test_no_roots_at_all_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "system_roots", list)
    monkeypatch.setattr(bundle.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CaMaterialError, match="SSL_CERT_FILE"):
        client_roots({}, "linux", RecordedTool())
