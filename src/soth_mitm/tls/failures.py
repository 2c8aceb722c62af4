"""Why a TLS handshake failed, in six classes, told from reason codes and alerts, never from an error's text.

The names of reasons are OpenSSL's (the ``SSL_R_*`` constants); an alert that the peer sent is a reason ``*_ALERT_*``.
"""

from __future__ import annotations

import enum
import ssl

from soth_mitm.errors import Side, TlsFailedError
from soth_mitm.tls.client_hello import MalformedHello


class FailureClass(enum.StrEnum):
    """The classes of SPEC section 4."""

    UNKNOWN_CA = "unknown_ca"
    CERT_VALIDATION = "cert_validation"
    HANDSHAKE = "handshake"
    TIMEOUT = "timeout"
    EOF_OR_RESET = "eof_or_reset"
    OTHER = "other"


# X509_V_ERR_*: no issuer certificate (2, 20), self-signed leaf (18), self-signed root in the chain (19), the leaf alone and
# its issuer unknown (21), root not trusted for this purpose (27).
_UNKNOWN_CA_CODES = frozenset({2, 18, 19, 20, 21, 27})

_UNKNOWN_CA_REASONS = frozenset({"TLSV1_ALERT_UNKNOWN_CA"})

# What Chromium, Java and Android send when no root of theirs leads to our CA, and pinning programs when the key is not theirs.
_CERTIFICATE_UNKNOWN = "SSLV3_ALERT_CERTIFICATE_UNKNOWN"

_CERTIFICATE_REASONS = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_NO_CERTIFICATE",
        "TLSV1_CERTIFICATE_UNOBTAINABLE",
        "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE",
        "TLSV1_BAD_CERTIFICATE_HASH_VALUE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        # A certificate that verification never saw, because its key or signature is below our security level.
        "EE_KEY_TOO_SMALL",
        "CA_KEY_TOO_SMALL",
        "CA_MD_TOO_WEAK",
        "WRONG_CERTIFICATE_TYPE",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "CERTIFICATE_VERIFY_FAILED",
    }
)

# How clients word that they will not have our certificate: no root of theirs leads to it (unknown_ca, Go: bad_certificate, Java and
# Chromium: certificate_unknown), or it is valid and not the pinned one (any of these, rustls: access_denied).
_REFUSALS = frozenset(
    {"TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_UNKNOWN", "TLSV1_ALERT_ACCESS_DENIED"}
)

_EOF_REASONS = frozenset({"UNEXPECTED_EOF_WHILE_READING"})


def classify(exc: BaseException, side: Side) -> FailureClass:
    """Return the class of what ended a handshake with the peer `side`.

    The alert certificate_unknown is a client's usual word for an untrusted CA; from an upstream it is about our client
    certificate and tells no more than that.
    """
    if isinstance(exc, TlsFailedError):
        return FailureClass(exc.reason)
    if isinstance(exc, TimeoutError):
        return FailureClass.TIMEOUT
    if isinstance(exc, ssl.SSLCertVerificationError):
        return FailureClass.UNKNOWN_CA if getattr(exc, "verify_code", None) in _UNKNOWN_CA_CODES else FailureClass.CERT_VALIDATION
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError, EOFError)):
        return FailureClass.EOF_OR_RESET
    if isinstance(exc, ssl.SSLError):
        return _classify_reason(_reason(exc), side)
    if isinstance(exc, MalformedHello):
        return FailureClass.HANDSHAKE
    if isinstance(exc, ConnectionRefusedError):
        return FailureClass.OTHER  # nobody was there to shake hands with
    if isinstance(exc, ConnectionError):
        return FailureClass.EOF_OR_RESET
    return FailureClass.OTHER


def refuses_certificate(exc: BaseException) -> bool:
    """Tell whether `exc` is a client's alert that says it does not trust our certificate, or not this one."""
    return isinstance(exc, ssl.SSLError) and _reason(exc) in _REFUSALS


def describe(exc: BaseException) -> str:
    """Return one readable line about a failed handshake; it holds no key material and no line breaks."""
    if isinstance(exc, ssl.SSLCertVerificationError) and hasattr(exc, "verify_code"):
        return _one_line(f"certificate verification failed: {exc.verify_message} (code {exc.verify_code})")
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "the peer closed the connection during the TLS handshake"
    reason = _reason(exc) if isinstance(exc, ssl.SSLError) else None
    if reason:
        _, alert, name = reason.partition("_ALERT_")
        return f"the peer sent the TLS alert {name.lower()}" if alert else f"TLS error: {reason.lower().replace('_', ' ')}"
    if isinstance(exc, OSError) and exc.strerror:
        return _one_line(exc.strerror)
    # The ssl module's errors print a lone argument as a tuple.
    text = str(exc.args[0]) if len(exc.args) == 1 else str(exc)
    return _one_line(text) or type(exc).__name__


def _reason(exc: ssl.SSLError) -> str | None:
    """Return OpenSSL's name of the reason; errors that Python code made have none, not even the attribute."""
    return getattr(exc, "reason", None)


def _classify_reason(reason: str | None, side: Side) -> FailureClass:
    if reason in _UNKNOWN_CA_REASONS:
        return FailureClass.UNKNOWN_CA
    if reason == _CERTIFICATE_UNKNOWN:
        return FailureClass.UNKNOWN_CA if side == "client" else FailureClass.CERT_VALIDATION
    if reason in _CERTIFICATE_REASONS:
        return FailureClass.CERT_VALIDATION
    if reason in _EOF_REASONS:
        return FailureClass.EOF_OR_RESET
    return FailureClass.HANDSHAKE


def _one_line(text: str) -> str:
    return " ".join(text.split())
