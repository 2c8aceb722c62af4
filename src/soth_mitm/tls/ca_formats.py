"""The CA in formats other than a PEM pair: PKCS#12 with and without its key, and encrypted PEM keys."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from soth_mitm.errors import CaMaterialError
from soth_mitm.tls.ca import CertificateAuthority, load_ca

# What Java expects of a truststore unless told otherwise; there is no secret in one.
JAVA_PASSWORD = "changeit"
FRIENDLY_NAME = "soth-mitm"


def load_ca_from_pkcs12(data: bytes, password: str | bytes | None = None) -> CertificateAuthority:
    """Check and take the CA out of a PKCS#12 file (.p12, .pfx) with its certificate, its key and, if any, its chain.

    Raises `CaMaterialError` when the password is wrong, the file holds no key or no certificate, and for what `load_ca` refuses.
    """
    try:
        bag = pkcs12.load_pkcs12(data, _password(password))
    except ValueError as error:
        raise CaMaterialError("this is no PKCS#12 file, or its password is another") from error
    if bag.key is None or bag.cert is None:
        missing = "key" if bag.key is None else "certificate that belongs to its key"
        raise CaMaterialError(f"the PKCS#12 file holds no {missing}; export it with both")
    chain = _in_order(bag.cert.certificate, [extra.certificate for extra in bag.additional_certs])
    try:
        key_pem = bag.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    except ValueError as error:
        raise CaMaterialError("the key in the PKCS#12 file cannot be a CA's; clients accept RSA and ECDSA") from error
    return load_ca(to_pem(chain), key_pem)


def decrypt_key(key_pem: bytes, password: str | bytes) -> bytes:
    """Return a PEM private key without its encryption, as `load_ca` wants it; `CaMaterialError` when the password is another."""
    try:
        key = serialization.load_pem_private_key(key_pem, _password(password))
    except (ValueError, TypeError) as error:
        # The library's text is not repeated: it may quote the document.
        raise CaMaterialError("the CA key is no encrypted PEM private key, or its password is another") from error
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def to_pkcs12(ca: CertificateAuthority, password: str | bytes) -> bytes:
    """Return certificate, chain and key as a PKCS#12 file that `load_ca_from_pkcs12` reads; for moving the CA to another machine."""
    own, *chain = x509.load_pem_x509_certificates(ca.cert_pem)
    secret = _password(password)
    if not secret:
        raise ValueError("a PKCS#12 file with the CA's key needs a password")
    encryption = serialization.BestAvailableEncryption(secret)
    return pkcs12.serialize_key_and_certificates(FRIENDLY_NAME.encode(), ca.private_key, own, chain or None, encryption)


def to_java_truststore(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return certificates as a PKCS#12 file that Java trusts when `javax.net.ssl.trustStore` names it; the password is `JAVA_PASSWORD`."""
    entries = [
        pkcs12.PKCS12Certificate(certificate, f"{FRIENDLY_NAME}-{certificate.fingerprint(hashes.SHA256()).hex()[:16]}".encode())
        for certificate in certificates
    ]
    # What Java writes itself since 8u301, 11.0.12 and 16; earlier ones read only what is too weak to write today.
    encryption = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(10_000)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(JAVA_PASSWORD.encode())
    )
    return pkcs12.serialize_java_truststore(entries, encryption)


def to_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return certificates as PEM, one after the other."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def _in_order(certificate: x509.Certificate, others: list[x509.Certificate]) -> list[x509.Certificate]:
    """Return the certificate and those of `others` that lead from it to its root; a PKCS#12 file has them in any order."""
    chain = [certificate]
    while chain[-1].issuer != chain[-1].subject:
        issuer = next((other for other in others if other.subject == chain[-1].issuer and other not in chain), None)
        if issuer is None:
            break
        chain.append(issuer)
    return chain


def _password(password: str | bytes | None) -> bytes | None:
    return password.encode() if isinstance(password, str) else password
