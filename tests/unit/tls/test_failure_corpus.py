"""The classifier against what it has to tell apart: the taxonomy's categories, every verification code, every reason of the library."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable

import pytest

from soth_mitm.errors import Side, StageTimeoutError
from soth_mitm.tls.failures import classify
from support.certs import TestCA, self_signed
from support.handshakes import run_handshake, tls_pair

NAME = "a.example"
ROOT = TestCA()
STRANGER = TestCA("Stranger")


def upstream_presents(pair: tuple[bytes, bytes]) -> Exception:
    """Return what we see of an upstream with that certificate."""
    return run_handshake(tls_pair(ROOT.client_context(), ROOT.server_context(pair=pair), NAME))["client"]


def sends_alert(description: int) -> Exception:
    """Return what we see of a client that answers our certificate with that alert."""
    pair = tls_pair(ROOT.client_context(), ROOT.server_context(NAME), NAME)
    for side in (pair.client, pair.server):
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
    pair.server_in.write(bytes((21, 3, 3, 0, 2, 2, description)))
    with pytest.raises(ssl.SSLError) as caught:
        pair.server.do_handshake()
    return caught.value


def ends_stream() -> Exception:
    pair = tls_pair(ROOT.client_context(), ROOT.server_context(NAME), NAME)
    pair.server_in.write_eof()
    with pytest.raises(ssl.SSLError) as caught:
        pair.server.do_handshake()
    return caught.value


def runs_out_of_time() -> Exception:
    async def wait() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError) as caught:
        asyncio.run(wait())
    return caught.value


def unverifiable_leaf() -> Exception:
    """A server that sends its leaf alone, issued by an intermediate that nobody knows."""
    chain, key = STRANGER.intermediate().issue(NAME)
    end = b"-----END CERTIFICATE-----\n"
    return upstream_presents((chain.partition(end)[0] + end, key))


def stranger_with_root() -> Exception:
    chain, key = STRANGER.issue(NAME)
    return upstream_presents((chain + STRANGER.cert_pem, key))


# The phrases by which the taxonomy is defined, each as the event that causes it. Errors of the upstream unless they are the client's.
CORPUS: list[tuple[str, Side, Callable[[], Exception], str]] = [
    ("alert: unknown CA", "client", lambda: sends_alert(48), "unknown_ca"),
    ("unable to get local issuer certificate", "upstream", lambda: upstream_presents(STRANGER.issue(NAME)), "unknown_ca"),
    ("unknown issuer of a leaf sent alone", "upstream", unverifiable_leaf, "unknown_ca"),
    ("self-signed certificate", "upstream", lambda: upstream_presents(self_signed(NAME)), "unknown_ca"),
    ("self-signed certificate in certificate chain", "upstream", stranger_with_root, "unknown_ca"),
    ("certificate signed by unknown authority (Go)", "client", lambda: sends_alert(42), "unknown_ca"),
    ("certificate unknown (Java, Chromium)", "client", lambda: sends_alert(46), "unknown_ca"),
    ("deadline has elapsed", "upstream", runs_out_of_time, "timeout"),
    ("stage timed out", "client", lambda: StageTimeoutError("the TLS handshake took too long", side="client"), "timeout"),
    ("connection timed out", "upstream", lambda: OSError(errno.ETIMEDOUT, "Connection timed out"), "timeout"),
    ("unexpected EOF during the handshake", "client", ends_stream, "eof_or_reset"),
    ("connection reset by peer", "client", lambda: OSError(errno.ECONNRESET, "Connection reset by peer"), "eof_or_reset"),
    ("connection aborted", "upstream", lambda: OSError(errno.ECONNABORTED, "Software caused connection abort"), "eof_or_reset"),
    ("broken pipe", "client", lambda: OSError(errno.EPIPE, "Broken pipe"), "eof_or_reset"),
    ("certificate has expired", "upstream", lambda: upstream_presents(ROOT.issue_expired(NAME)), "cert_validation"),
    ("certificate is not yet valid", "upstream", lambda: upstream_presents(ROOT.issue_not_yet_valid(NAME)), "cert_validation"),
    ("hostname mismatch", "upstream", lambda: upstream_presents(ROOT.issue("b.example")), "cert_validation"),
    ("alert: certificate expired", "client", lambda: sends_alert(45), "cert_validation"),
    ("alert: unsupported certificate", "client", lambda: sends_alert(43), "cert_validation"),
    ("alert: bad certificate, of ours", "upstream", lambda: sends_alert(42), "cert_validation"),
    ("alert: handshake failure", "upstream", lambda: sends_alert(40), "handshake"),
    ("alert: protocol version", "client", lambda: sends_alert(70), "handshake"),
    ("alert: decrypt error", "client", lambda: sends_alert(51), "handshake"),
    ("alert: insufficient security", "upstream", lambda: sends_alert(71), "handshake"),
    ("no route to host", "upstream", lambda: OSError(errno.EHOSTUNREACH, "No route to host"), "other"),
]


@pytest.mark.parametrize(("side", "cause", "expected"), [entry[1:] for entry in CORPUS], ids=[entry[0] for entry in CORPUS])
def test_the_taxonomy(side: Side, cause: Callable[[], Exception], expected: str) -> None:
    assert classify(cause(), side) == expected


def test_the_corpus_has_every_class() -> None:
    assert {expected for *_, expected in CORPUS} == {"unknown_ca", "cert_validation", "handshake", "timeout", "eof_or_reset", "other"}


# X509_V_ERR_*: 1 to 94 are what OpenSSL 3 knows
UNTRUSTED = {2, 18, 19, 20, 21, 27}


@pytest.mark.parametrize("code", range(1, 95))
def test_verification_codes(code: int) -> None:
    error = ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, "unable to get local issuer certificate, expired, EOF")
    error.verify_code = code
    assert classify(error, "upstream") == ("unknown_ca" if code in UNTRUSTED else "cert_validation")


def reasons() -> list[str]:
    """Return the names of all reasons that this Python can name in an error of the TLS library."""
    import _ssl

    return sorted(
        {name for (library, _), name in _ssl.err_codes_to_names.items() if library == _ssl.err_names_to_codes["BAD_SIGNATURE"][0]}
    )


ABOUT_CERTIFICATES = {
    "CA_KEY_TOO_SMALL",
    "CA_MD_TOO_WEAK",
    "CERTIFICATE_VERIFY_FAILED",
    "ECC_CERT_NOT_FOR_SIGNING",
    "EE_KEY_TOO_SMALL",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_NO_CERTIFICATE",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_BAD_CERTIFICATE_HASH_VALUE",
    "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE",
    "TLSV1_CERTIFICATE_UNOBTAINABLE",
    "UNABLE_TO_FIND_PUBLIC_KEY_PARAMETERS",
    "UNKNOWN_CERTIFICATE_TYPE",
    "WRONG_CERTIFICATE_TYPE",
}


def test_reasons_of_the_library() -> None:
    classes: dict[str, set[str]] = {}
    for reason in reasons():
        error = ssl.SSLError(ssl.SSL_ERROR_SSL, "certificate unknown ca, timed out, EOF, reset")
        error.reason = reason
        classes.setdefault(classify(error, "upstream"), set()).add(reason)
    assert classes.pop("cert_validation") == ABOUT_CERTIFICATES
    assert classes.pop("unknown_ca") == {"TLSV1_ALERT_UNKNOWN_CA"}
    assert classes.pop("eof_or_reset") == {"UNEXPECTED_EOF_WHILE_READING"}
    assert len(classes.pop("handshake")) > 200 and not classes
