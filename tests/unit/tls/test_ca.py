"""Making and loading a CA: what is in it, what is refused, who may read it."""

from __future__ import annotations

import datetime
import hashlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from soth_mitm.errors import CaMaterialError
from soth_mitm.tls.ca import generate_ca, load_ca
from soth_mitm.tls.leaf import LeafStore
from support.certs import DAY, TestCA, key_to_pem, new_key
from support.handshakes import connect
from support.programs import needed, run


@pytest.fixture(scope="module")
def ca():
    return generate_ca()


def certificate_with(extensions, *, key=None, starts=-DAY, ends=DAY):
    key = key or new_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "some root")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now + starts, now + ends)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), key_to_pem(key)


IS_CA = x509.BasicConstraints(ca=True, path_length=None)


def test_generated_ca_is_a_p256_root_that_may_only_sign_leaves(ca):
    certificate = ca.certificate
    assert isinstance(ca.private_key, ec.EllipticCurvePrivateKey) and ca.private_key.curve.name == "secp256r1"
    assert certificate.subject == certificate.issuer
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.key_cert_sign and usage.value.crl_sign and not usage.value.key_agreement
    own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own
    assert certificate.not_valid_before_utc < datetime.datetime.now(datetime.UTC) - DAY


def test_fingerprint_is_the_sha256_of_the_der_in_lower_case(ca):
    der = ssl.PEM_cert_to_DER_cert(ca.cert_pem.decode())
    assert ca.fingerprint == hashlib.sha256(der).hexdigest()


def test_names_and_validity_are_the_callers():
    ca = generate_ca("Our CA", "Our Company", validity_days=10)
    assert ca.certificate.subject.rfc4514_string() == "CN=Our CA,O=Our Company"
    left = ca.certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert 9 * DAY < left <= 10 * DAY


def test_validity_of_no_day_is_refused():
    with pytest.raises(ValueError, match="validity_days"):
        generate_ca(validity_days=0)


def test_each_ca_has_its_own_key_and_serial(ca):
    other = generate_ca()
    assert other.certificate.serial_number != ca.certificate.serial_number
    assert other.key_pem != ca.key_pem and other != ca


def test_loading_gives_the_same_authority(ca):
    assert load_ca(ca.cert_pem, ca.key_pem) == ca


def test_repr_shows_the_fingerprint_and_no_key(ca):
    text = repr(ca)
    assert ca.fingerprint in text and "PRIVATE" not in text and "key" not in text
    assert ca.key_pem.splitlines()[1].decode() not in text


def test_authority_is_frozen(ca):
    with pytest.raises(AttributeError):
        ca.fingerprint = "00"


def test_root_is_not_served_but_an_intermediate_is_with_its_chain():
    root = TestCA()
    middle = root.intermediate()
    ca = load_ca(middle.cert_pem + root.cert_pem, middle.key_pem)
    assert ca.chain_pem == middle.cert_pem + root.cert_pem
    assert load_ca(root.cert_pem, root.key_pem).chain_pem == b""
    server = LeafStore(ca).context_for("a.example", alpn=())
    connect(root.client_context(), server, "a.example")


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP521R1())],
    ids=["rsa2048", "p384", "p521"],
)
def test_cas_of_users_sign_leaves_that_verify(key):
    root = TestCA(key=key)
    server = LeafStore(load_ca(root.cert_pem, root.key_pem)).context_for("a.example", alpn=())
    connect(root.client_context(), server, "a.example")


def test_keys_in_traditional_format_load():
    root = TestCA()
    traditional = root.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    assert load_ca(root.cert_pem, traditional).certificate == root.certificate


def test_ca_without_key_usage_may_sign():
    assert load_ca(*certificate_with([IS_CA])).certificate.extensions


@pytest.mark.parametrize("usage", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
def test_ca_for_servers_may_sign(usage):
    assert load_ca(*certificate_with([IS_CA, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, usage])])).certificate.extensions


def test_key_for_another_kind_of_signature_is_refused(tmp_path):
    """What it signs as other RSA keys do, no client accepts."""
    openssl = needed("openssl")
    options = ("-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-addext", "basicConstraints=critical,CA:TRUE", "-subj", "/CN=PSS")
    made = run(openssl, "req", "-x509", "-nodes", *options, "-keyout", tmp_path / "key.pem", "-out", tmp_path / "ca.pem")
    assert made.returncode == 0, made.stderr
    with pytest.raises(CaMaterialError, match="PSS"):
        load_ca((tmp_path / "ca.pem").read_bytes(), (tmp_path / "key.pem").read_bytes())


def encrypted_key():
    return new_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )


def ed25519_key():
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def unknown_curve():
    """A certificate whose key is on a curve that nobody has heard of."""
    cert_pem, key_pem = certificate_with([IS_CA])
    der = ssl.PEM_cert_to_DER_cert(cert_pem.decode())
    p256 = bytes.fromhex("06082a8648ce3d030107")
    return ssl.DER_cert_to_PEM_cert(der.replace(p256, p256[:-1] + b"\x7f")).encode(), key_pem


def unknown_version():
    cert_pem, key_pem = certificate_with([IS_CA])
    der = ssl.PEM_cert_to_DER_cert(cert_pem.decode())
    return ssl.DER_cert_to_PEM_cert(der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020125"), 1)).encode(), key_pem


NO_SIGNING = x509.KeyUsage(True, False, False, False, False, False, False, False, False)


@pytest.mark.parametrize(
    ("cert_pem", "key_pem", "words"),
    [
        (b"", TestCA().key_pem, "not a PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", TestCA().key_pem, "not a PEM certificate"),
        (TestCA().cert_pem, b"", "not a PEM private key"),
        (TestCA().cert_pem, b"nonsense", "not a PEM private key"),
        (TestCA().cert_pem, encrypted_key(), "encrypted"),
        (TestCA().cert_pem, ed25519_key(), "RSA and ECDSA"),
        (TestCA().cert_pem, TestCA().key_pem, "do not belong together"),
        (TestCA().cert_pem, key_to_pem(rsa.generate_private_key(65537, 1024)), "1024 bits"),
        (*certificate_with([]), "no basicConstraints"),
        (*certificate_with([x509.BasicConstraints(ca=False, path_length=None)]), "CA:FALSE"),
        (*certificate_with([IS_CA, NO_SIGNING]), "keyCertSign"),
        (*certificate_with([IS_CA, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]), "serverAuth"),
        (*certificate_with([IS_CA], key=ec.generate_private_key(ec.SECP256K1())), "secp256k1; clients accept P-256, P-384 and P-521"),
        (*unknown_curve(), "key cannot be read"),
        (*unknown_version(), "not a valid X509 version"),
        (*certificate_with([IS_CA], starts=-2 * DAY, ends=-DAY), "expired on"),
        (*certificate_with([IS_CA], starts=DAY, ends=2 * DAY), "not valid before"),
    ],
)
def test_unfit_material_is_refused_with_the_reason(cert_pem, key_pem, words):
    with pytest.raises(CaMaterialError, match=words):
        load_ca(cert_pem, key_pem)
