"""The certificate authority: its material, how it is made and what makes a pair of PEM documents acceptable.

Nothing here touches a file (see `ca_files`). Clients have to trust the certificate; whoever holds the key can impersonate any
server to them, so the key appears in no `repr`, message or log.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, PublicKeyAlgorithmOID

from soth_mitm.errors import CaMaterialError

CaPrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

# Clients with a slow clock must not see a certificate of the future.
CA_BACKDATE = datetime.timedelta(days=2)
MIN_RSA_BITS = 2048
# What Go, browsers and Java verify.
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_SERVERS = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """A signing certificate and its key, checked to belong together. Made by `generate_ca` and `load_ca` only.

    `cert_pem` may hold more than one certificate: the CA's own first, then those that lead to the root that clients trust.
    `fingerprint` is the SHA-256 of the CA certificate's DER as lower-case hexadecimal digits.
    """

    cert_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False, compare=False)
    fingerprint: str
    certificate: x509.Certificate
    private_key: CaPrivateKey = field(repr=False, compare=False)

    @property
    def chain_pem(self) -> bytes:
        """Return what a server sends after its leaf: nothing for a root, which clients have, else the whole of `cert_pem`."""
        return b"" if self.certificate.subject == self.certificate.issuer else self.cert_pem

    @property
    def trust_anchor(self) -> x509.Certificate:
        """Return what clients must trust: the CA's own certificate if it is a root, else the last one of the chain in `cert_pem`."""
        return x509.load_pem_x509_certificates(self.cert_pem)[-1] if self.chain_pem else self.certificate


def generate_ca(
    common_name: str = "soth-mitm Local CA", organization: str = "soth-mitm", validity_days: int = 3650
) -> CertificateAuthority:
    """Make a self-signed ECDSA P-256 root that may sign leaves only (path length 0)."""
    if validity_days < 1:
        raise ValueError(f"validity_days must be at least 1, not {validity_days}")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization), x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CA_BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=validity_days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertificateAuthority(
        cert_pem=certificate.public_bytes(serialization.Encoding.PEM),
        key_pem=key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        certificate=certificate,
        private_key=key,
    )


def load_ca(cert_pem: bytes, key_pem: bytes) -> CertificateAuthority:
    """Check and join a PEM certificate (with its chain, if any) and its unencrypted PEM key.

    Raises `CaMaterialError` when either is not PEM, the certificate is no CA, is not valid today, or has another key.
    """
    try:
        certificate = x509.load_pem_x509_certificates(cert_pem)[0]
    except (ValueError, x509.InvalidVersion) as error:
        raise CaMaterialError(f"the CA certificate is not a PEM certificate: {error}") from error
    key = _private_key(key_pem)
    _check_may_sign(certificate)
    _check_valid_today(certificate)
    _check_key_kind(certificate)
    if _public_der(certificate) != _public_der(key):
        raise CaMaterialError("the CA certificate and the CA key do not belong together: the certificate is for another key")
    return CertificateAuthority(
        cert_pem=cert_pem,
        key_pem=key_pem,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        certificate=certificate,
        private_key=key,
    )


def key_usage(*, digital_signature: bool, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    """Spell a key usage; all bits that no certificate of ours has are off."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def signing_hash(key: CaPrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    """Return the digest that matches the strength of the key, which is also what old verifiers know for it."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384() if key.curve.key_size <= 384 else hashes.SHA512()
    return hashes.SHA256()


def _private_key(key_pem: bytes) -> CaPrivateKey:
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except TypeError as error:
        raise CaMaterialError("the CA key is encrypted; write it out with `openssl pkey -in KEY -out PLAIN`, mode 0600") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # The library's text is not repeated: it may quote the document.
        raise CaMaterialError("the CA key is not a PEM private key that can be read") from error
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            raise CaMaterialError(f"the CA key has {key.key_size} bits; clients refuse RSA below {MIN_RSA_BITS}")
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if not isinstance(key.curve, CURVES):
            raise CaMaterialError(f"the CA key is on the curve {key.curve.name}; clients accept P-256, P-384 and P-521")
        return key
    raise CaMaterialError(f"the CA key is of the type {type(key).__name__}; clients accept RSA and ECDSA")


def _check_may_sign(certificate: x509.Certificate) -> None:
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound as error:
        raise CaMaterialError("the certificate is no CA certificate: it has no basicConstraints") from error
    except (ValueError, x509.DuplicateExtension) as error:
        raise CaMaterialError(f"the CA certificate's extensions cannot be read: {error}") from error
    if not constraints.ca:
        raise CaMaterialError("the certificate is no CA certificate: its basicConstraints say CA:FALSE")
    # RFC 5280 sections 4.2.1.3 and 4.2.1.12: what is not there restricts nothing
    for extension in extensions:
        if isinstance(extension.value, x509.KeyUsage) and not extension.value.key_cert_sign:
            raise CaMaterialError("the CA certificate may not sign certificates: its keyUsage lacks keyCertSign")
        if isinstance(extension.value, x509.ExtendedKeyUsage) and not _SERVERS & set(extension.value):
            raise CaMaterialError("the CA may not vouch for servers: its extendedKeyUsage lacks serverAuth")


def _check_key_kind(certificate: x509.Certificate) -> None:
    try:
        certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CaMaterialError(f"the CA certificate's key cannot be read: {error}") from error
    if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        raise CaMaterialError("the CA's RSA key is for PSS signatures only, which leaves do not have; clients would accept none of them")


def _check_valid_today(certificate: x509.Certificate) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if now > certificate.not_valid_after_utc:
        raise CaMaterialError(f"the CA certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if now < certificate.not_valid_before_utc:
        raise CaMaterialError(f"the CA certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")


def _public_der(holder: x509.Certificate | CaPrivateKey) -> bytes:
    return holder.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
