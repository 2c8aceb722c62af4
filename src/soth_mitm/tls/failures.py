"""Why a TLS handshake failed, in six classes, told from reason codes and alerts, never from an error's text.

The names of reasons are OpenSSL's (the ``SSL_R_*`` constants); an alert that the peer sent is a reason ``*_ALERT_*``.
"""

from __future__ import annotations

import enum
import re
import ssl

from soth_mitm.errors import Side, TlsFailedError
from soth_mitm.tls.client_hello import MalformedHello

_PEERS_ALERT = re.compile(r"(?:SSLV3|TLSV13?)_(?:ALERT_)?(\w+)", re.ASCII)
# What CPython puts around the library's words where the reason has no name.
_SOURCE_LINE = re.compile(r"\s*\(_ssl\.c:\d+\)|^\[SSL\]\s*")


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

_ALERT_UNKNOWN_CA = "TLSV1_ALERT_UNKNOWN_CA"

# Clients' words for a CA that they do not know: OpenSSL and NSS say unknown_ca, Go and GnuTLS bad_certificate, Java and BoringSSL
# certificate_unknown (docs/tls.md has the table). Our leaves are fresh and for the right name: there is little else to object to.
_UNKNOWN_CA_ALERTS = frozenset({_ALERT_UNKNOWN_CA, "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_UNKNOWN"})
# And for one that is valid and not the one they pin: any of these; rustls has a word of its own.
_REFUSALS = _UNKNOWN_CA_ALERTS | {"TLSV1_ALERT_ACCESS_DENIED"}

_CERTIFICATE_REASONS = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
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
        "UNKNOWN_CERTIFICATE_TYPE",
        "ECC_CERT_NOT_FOR_SIGNING",
        "UNABLE_TO_FIND_PUBLIC_KEY_PARAMETERS",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "CERTIFICATE_VERIFY_FAILED",
    }
)

_EOF_REASONS = frozenset({"UNEXPECTED_EOF_WHILE_READING"})

_NO_TRUSTED_CA = "no CA that is trusted here stands behind it; upstream.ca_bundle_path names further ones"
_NOT_TLS = "what the upstream speaks there is not TLS"
_NO_VERSION = "the upstream offers no TLS version from tls.min_version on"
_TOO_WEAK = "security level 2 forbids it; upstream.ciphers can lower the level (`DEFAULT:@SECLEVEL=1`)"
_LEFT = "some servers do that when they have no cipher suite in common (upstream.ciphers allows older ones)"
_NOT_OURS = "it does not accept our client certificate (upstream.client_cert_path)"
_ADVICE_BY_CODE = {
    2: _NO_TRUSTED_CA,
    18: _NO_TRUSTED_CA,
    19: _NO_TRUSTED_CA,
    9: "it may also be the clock of this machine that is wrong",
    10: "it has to be renewed, unless the clock of this machine is wrong",
    20: f"{_NO_TRUSTED_CA}, or the upstream leaves out an intermediate certificate",
    21: f"{_NO_TRUSTED_CA}, or the upstream leaves out an intermediate certificate",
    26: "it may not be used by servers",
    47: "its CA may not sign for that name",
    48: "its CA may not sign for that name",
    **dict.fromkeys((66, 67, 68), _TOO_WEAK),
}
_ADVICE_BY_REASON = {
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": _NOT_TLS,
    "RECORD_LAYER_FAILURE": _NOT_TLS,
    "UNSUPPORTED_PROTOCOL": _NO_VERSION,
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_VERSION,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "no cipher suite in common (upstream.ciphers allows older ones), or it wants a client certificate (upstream.client_cert_path)"
    ),
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": "no cipher suite in common that is strong enough for it (upstream.ciphers)",
    # the upstream chose what our security level forbids
    **dict.fromkeys(("DH_KEY_TOO_SMALL", "EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "WRONG_SIGNATURE_TYPE"), _TOO_WEAK),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate (upstream.client_cert_path)",
    **dict.fromkeys(_UNKNOWN_CA_ALERTS, _NOT_OURS),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _NOT_OURS,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _NOT_OURS,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _NOT_OURS,
    "BAD_SIGNATURE": "the upstream does not hold the key of its certificate",
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": "the upstream renegotiates insecurely (it does not know RFC 5746)",
}


def classify(exc: BaseException, side: Side) -> FailureClass:
    """Return the class of what ended a handshake with the peer `side`.

    Three alerts are clients' words for a CA that they do not know; from an upstream two of them are about our client certificate
    and tell no more than that.
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
        alert = _PEERS_ALERT.fullmatch(reason)
        return f"the peer sent the TLS alert {alert[1].lower()}" if alert else f"TLS error: {reason.lower().replace('_', ' ')}"
    if isinstance(exc, OSError) and exc.strerror and not isinstance(exc, ssl.SSLError):
        return _one_line(exc.strerror)
    # The ssl module's errors print a lone argument as a tuple.
    text = str(exc.args[-1]) if isinstance(exc, ssl.SSLError) and exc.args else str(exc)
    return _one_line(_SOURCE_LINE.sub("", text)) or type(exc).__name__


def advise(exc: BaseException) -> str:
    """Return what an upstream's failure means, or which key changes it, where the library's words do not tell; "" where they do."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _ADVICE_BY_CODE.get(getattr(exc, "verify_code", 0), "")
    if isinstance(exc, (ssl.SSLEOFError, ConnectionError)):
        return _LEFT
    return _ADVICE_BY_REASON.get(_reason(exc) or "", "") if isinstance(exc, ssl.SSLError) else ""


def _reason(exc: ssl.SSLError) -> str | None:
    """Return OpenSSL's name of the reason; errors that Python code made have none, not even the attribute."""
    return getattr(exc, "reason", None)


def _classify_reason(reason: str | None, side: Side) -> FailureClass:
    if reason == _ALERT_UNKNOWN_CA or (side == "client" and reason in _UNKNOWN_CA_ALERTS):
        return FailureClass.UNKNOWN_CA
    if reason in _CERTIFICATE_REASONS:
        return FailureClass.CERT_VALIDATION
    if reason in _EOF_REASONS:
        return FailureClass.EOF_OR_RESET
    return FailureClass.HANDSHAKE


def _one_line(text: str) -> str:
    return " ".join(text.split())
