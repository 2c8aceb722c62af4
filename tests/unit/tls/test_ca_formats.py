"""The CA as PKCS#12 and with encrypted keys: ours, and what other tools wrote."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import pkcs12

from soth_mitm.errors import CaMaterialError
from soth_mitm.tls.ca import generate_ca, load_ca
from soth_mitm.tls.ca_formats import decrypt_key, load_ca_from_pkcs12, to_java_truststore, to_pem, to_pkcs12
from support.certs import TestCA, new_key

SECRET = "swordfish äöü"


def test_round_trip() -> None:
    ca = generate_ca()
    data = to_pkcs12(ca, SECRET)
    assert load_ca_from_pkcs12(data, SECRET) == ca
    assert load_ca_from_pkcs12(data, SECRET.encode()).key_pem == ca.key_pem


def test_a_chain_comes_back_in_order() -> None:
    root = TestCA()
    middle = root.intermediate("Middle")
    lowest = TestCA("Lowest", parent=middle)
    ca = load_ca(lowest.cert_pem + middle.cert_pem + root.cert_pem, lowest.key_pem)
    shuffled = pkcs12.serialize_key_and_certificates(
        None, lowest.key, lowest.certificate, [root.certificate, TestCA().certificate, middle.certificate], serialization.NoEncryption()
    )
    for data, password in ((to_pkcs12(ca, "x"), "x"), (shuffled, None)):
        loaded = load_ca_from_pkcs12(data, password)
        assert loaded.cert_pem == ca.cert_pem
        assert loaded.trust_anchor == root.certificate


def test_the_anchor_of_a_root_is_itself() -> None:
    ca = generate_ca()
    assert ca.trust_anchor == ca.certificate


@pytest.mark.parametrize("password", ["", b""])
def test_the_key_is_not_written_without_a_password(password: str | bytes) -> None:
    with pytest.raises(ValueError, match="needs a password"):
        to_pkcs12(generate_ca(), password)


@pytest.mark.parametrize("password", [None, "", "other"])
def test_a_wrong_password_is_said(password: str | None) -> None:
    with pytest.raises(CaMaterialError, match="its password is another"):
        load_ca_from_pkcs12(to_pkcs12(generate_ca(), SECRET), password)


def test_what_is_no_ca_is_refused_with_the_reason() -> None:
    root = TestCA()
    plain = serialization.NoEncryption()
    with pytest.raises(CaMaterialError, match="no PKCS#12 file"):
        load_ca_from_pkcs12(b"nonsense")
    with pytest.raises(CaMaterialError, match="holds no key"):
        load_ca_from_pkcs12(pkcs12.serialize_key_and_certificates(None, None, None, [root.certificate], plain))
    with pytest.raises(CaMaterialError, match="holds no certificate"):
        load_ca_from_pkcs12(pkcs12.serialize_key_and_certificates(None, root.key, None, None, plain))
    leaf, key = root.issue("a.example")
    certificate, private = x509.load_pem_x509_certificate(leaf), serialization.load_pem_private_key(key, None)
    assert isinstance(private, type(new_key()))
    with pytest.raises(CaMaterialError, match="CA:FALSE"):
        load_ca_from_pkcs12(pkcs12.serialize_key_and_certificates(None, private, certificate, None, plain))


def test_encrypted_pem_keys_are_decrypted() -> None:
    root = TestCA()
    encrypted = root.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(SECRET.encode())
    )
    assert load_ca(root.cert_pem, decrypt_key(encrypted, SECRET)).certificate == root.certificate
    for wrong in ("other", ""):
        with pytest.raises(CaMaterialError, match="password is another"):
            decrypt_key(encrypted, wrong)
    with pytest.raises(CaMaterialError, match="no encrypted PEM private key"):
        decrypt_key(root.key_pem, SECRET)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize(
    "options", [(), ("-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1")], ids=["modern", "old"]
)
def test_files_of_openssl_load(tmp_path: Path, options: tuple[str, ...]) -> None:
    ca = generate_ca()
    files = TestCA().write(tmp_path, pair=(ca.cert_pem, ca.key_pem))
    target = tmp_path / "ca.p12"
    command = ("openssl", "pkcs12", "-export", "-in", files.cert, "-inkey", files.key, "-out", target, "-passout", "pass:x", *options)
    subprocess.run(command, check=True, capture_output=True)
    assert load_ca_from_pkcs12(target.read_bytes(), "x").fingerprint == ca.fingerprint


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_reads_ours(tmp_path: Path) -> None:
    ca = generate_ca()
    (tmp_path / "ca.p12").write_bytes(to_pkcs12(ca, "x"))
    done = subprocess.run(
        ("openssl", "pkcs12", "-in", tmp_path / "ca.p12", "-passin", "pass:x", "-nodes"), check=True, capture_output=True, timeout=30
    )
    assert ca.cert_pem.strip() in done.stdout and b"PRIVATE KEY" in done.stdout


@pytest.mark.skipif(shutil.which("keytool") is None, reason="Java is not installed")
def test_java_reads_the_truststore(tmp_path: Path) -> None:
    first, second = generate_ca(), generate_ca()
    store = tmp_path / "trust.p12"
    store.write_bytes(to_java_truststore([first.certificate, second.certificate]))
    done = subprocess.run(
        ("keytool", "-list", "-keystore", store, "-storepass", "changeit"), check=True, capture_output=True, text=True, timeout=60
    )
    assert "Keystore type: PKCS12" in done.stdout
    assert done.stdout.count("trustedCertEntry") == 2
    for ca in (first, second):
        digits = ca.fingerprint.upper()
        assert ":".join(digits[index : index + 2] for index in range(0, 64, 2)) in done.stdout


def test_pem_of_many() -> None:
    certificates = [generate_ca().certificate, generate_ca().certificate]
    assert x509.load_pem_x509_certificates(to_pem(certificates)) == certificates


def test_keys_that_no_client_accepts_are_refused() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    root = TestCA()
    data = pkcs12.serialize_key_and_certificates(None, key, None, [root.certificate], serialization.NoEncryption())
    with pytest.raises(CaMaterialError):
        load_ca_from_pkcs12(data)
