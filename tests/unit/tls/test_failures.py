"""Failure classes, from real handshakes with deliberately broken certificates and contexts."""

from __future__ import annotations

import asyncio
import errno
import ssl
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from soth_mitm.errors import StageTimeoutError, TlsFailedError
from soth_mitm.tls.ca import generate_ca
from soth_mitm.tls.client_hello import MalformedHello
from soth_mitm.tls.failures import FailureClass, advise, classify, describe, refuses_certificate
from soth_mitm.tls.leaf import LeafStore
from support.certs import TestCA, load_pair, self_signed
from support.handshakes import run_handshake, tls_pair

NAME = "a.example"
ROOT = TestCA()


def upstream_error(pair):
    """Return what our side sees when an upstream presents `pair`."""
    server = ROOT.server_context(pair=pair)
    return run_handshake(tls_pair(ROOT.client_context(), server, NAME))["client"]


def without_intermediate():
    chain, key = ROOT.intermediate().issue(NAME)
    end = b"-----END CERTIFICATE-----\n"
    return chain.partition(end)[0] + end, key


@pytest.mark.parametrize(
    ("pair", "expected", "code"),
    [
        (ROOT.issue_expired(NAME), "cert_validation", 10),
        (ROOT.issue_not_yet_valid(NAME), "cert_validation", 9),
        (ROOT.issue("b.example"), "cert_validation", 62),
        (ROOT.issue_for_clients(NAME), "cert_validation", 26),
        (self_signed(NAME), "unknown_ca", 18),
        (TestCA("Unknown").issue(NAME), "unknown_ca", 20),
        (without_intermediate(), "unknown_ca", 20),
    ],
    ids=["expired", "not yet valid", "wrong host", "wrong usage", "self-signed", "unknown root", "no intermediate"],
)
def test_bad_certificates_of_upstreams(pair, expected, code):
    error = upstream_error(pair)
    assert error.verify_code == code
    assert classify(error, "upstream") == expected
    assert describe(error).startswith("certificate verification failed: ") and f"(code {code})" in describe(error)


def test_root_sent_along_is_not_thereby_known():
    stranger = TestCA("Stranger")
    chain, key = stranger.issue(NAME)
    error = upstream_error((chain + stranger.cert_pem, key))
    assert error.verify_code == 19 and classify(error, "upstream") is FailureClass.UNKNOWN_CA


def test_weak_key_of_an_upstream_is_its_certificates_fault():
    pair = ROOT.issue(NAME, key=rsa.generate_private_key(65537, 1024))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_ciphers("DEFAULT:@SECLEVEL=0")
    load_pair(server, pair)
    client = ROOT.client_context()
    client.set_ciphers("DEFAULT:@SECLEVEL=2")
    error = run_handshake(tls_pair(client, server, NAME))["client"]
    assert classify(error, "upstream") is FailureClass.CERT_VALIDATION


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_that_does_not_know_our_ca(version):
    client = ROOT.client_context()
    client.maximum_version = version
    error = run_handshake(tls_pair(client, LeafStore(generate_ca()).context_for(NAME, alpn=()), NAME))["server"]
    assert error.reason == "TLSV1_ALERT_UNKNOWN_CA"
    assert classify(error, "client") is FailureClass.UNKNOWN_CA
    assert describe(error) == "the peer sent the TLS alert unknown_ca"


def test_client_that_finds_our_leaf_bad():
    error = run_handshake(tls_pair(ROOT.client_context(), ROOT.server_context(pair=ROOT.issue_expired(NAME)), NAME))["server"]
    assert error.reason == "SSLV3_ALERT_CERTIFICATE_EXPIRED" and classify(error, "client") is FailureClass.CERT_VALIDATION


def alert_from_client(description):
    """Return what a server raises when its client answers with a fatal alert."""
    pair = tls_pair(ROOT.client_context(), ROOT.server_context(NAME), NAME)
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.do_handshake()
    pair.server_in.write(b"\x15\x03\x03\x00\x02\x02" + bytes([description]))
    with pytest.raises(ssl.SSLError) as caught:
        pair.server.do_handshake()
    return caught.value


@pytest.mark.parametrize(
    ("description", "client", "upstream"),
    [
        (10, "handshake", "handshake"),
        (40, "handshake", "handshake"),
        (42, "unknown_ca", "cert_validation"),
        (43, "cert_validation", "cert_validation"),
        (44, "cert_validation", "cert_validation"),
        (45, "cert_validation", "cert_validation"),
        (46, "unknown_ca", "cert_validation"),
        (48, "unknown_ca", "unknown_ca"),
        (49, "handshake", "handshake"),
        (70, "handshake", "handshake"),
        (71, "handshake", "handshake"),
        (80, "handshake", "handshake"),
        (112, "handshake", "handshake"),
        (113, "cert_validation", "cert_validation"),
        (116, "cert_validation", "cert_validation"),
        (120, "handshake", "handshake"),
    ],
)
def test_alerts_by_side(description, client, upstream):
    error = alert_from_client(description)
    assert (classify(error, "client"), classify(error, "upstream")) == (client, upstream), error.reason
    assert refuses_certificate(error) is (client == "unknown_ca" or description == 49)


@pytest.mark.parametrize("description", range(256))
def test_every_alert_has_a_class_and_a_readable_line(description):
    error = alert_from_client(description)
    assert classify(error, "client") in ("unknown_ca", "cert_validation", "handshake", "eof_or_reset")
    line = describe(error)
    assert line and line.isprintable() and "_ssl.c" not in line and "[" not in line


def test_alerts_that_the_library_does_not_mark_as_such():
    assert describe(alert_from_client(112)) == "the peer sent the TLS alert unrecognized_name"
    assert describe(alert_from_client(113)) == "the peer sent the TLS alert bad_certificate_status_response"


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        MalformedHello("no", 50),
        RuntimeError("no"),
        ssl.SSLError("unnamed"),
        ConnectionResetError(),
        ssl.SSLEOFError(8, "EOF"),
    ],
)
def test_what_is_no_alert_refuses_no_certificate(error):
    assert not refuses_certificate(error)


def test_advice_where_the_librarys_words_need_it():
    assert "upstream.ca_bundle_path" in advise(upstream_error(self_signed(NAME)))
    assert "intermediate" in advise(upstream_error(without_intermediate()))
    assert "has to be renewed" in advise(upstream_error(ROOT.issue_expired(NAME)))
    assert "upstream.client_cert_path" in advise(alert_from_client(116))
    assert "tls.min_version" in advise(alert_from_client(70))
    assert advise(TimeoutError()) == advise(ssl.SSLError("unnamed")) == advise(ssl.SSLCertVerificationError("unnamed")) == ""


def test_upstream_that_wants_a_client_certificate():
    server = ROOT.server_context(NAME)
    server.verify_mode = ssl.CERT_REQUIRED
    errors = run_handshake(tls_pair(ROOT.client_context(), server, NAME))
    assert classify(errors["client"], "upstream") is FailureClass.CERT_VALIDATION
    assert classify(errors["server"], "client") is FailureClass.CERT_VALIDATION


def no_common_version():
    client, server = ROOT.client_context(), ROOT.server_context(NAME)
    client.maximum_version, server.minimum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    return client, server


def no_common_cipher():
    client, server = ROOT.client_context(), ROOT.server_context(NAME)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    return client, server


@pytest.mark.parametrize("contexts", [no_common_version, no_common_cipher])
def test_peers_that_cannot_agree(contexts):
    errors = run_handshake(tls_pair(*contexts(), NAME))
    assert classify(errors["server"], "client") is FailureClass.HANDSHAKE
    assert classify(errors["client"], "upstream") is FailureClass.HANDSHAKE
    assert "\n" not in describe(errors["server"]) and describe(errors["server"]).startswith("TLS error: ")


def test_plain_http_where_tls_was_due():
    pair = tls_pair(ROOT.client_context(), ROOT.server_context(NAME), NAME)
    pair.client_in.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError) as caught:
        pair.client.do_handshake()
    assert classify(caught.value, "upstream") is FailureClass.HANDSHAKE


@pytest.mark.parametrize("flights", [0, 1])
def test_end_of_stream_in_the_middle_of_a_handshake(flights):
    pair = tls_pair(ROOT.client_context(), ROOT.server_context(NAME), NAME)
    if flights:
        with pytest.raises(ssl.SSLWantReadError):
            pair.client.do_handshake()
        with pytest.raises(ssl.SSLWantReadError):
            pair.server.do_handshake()
    pair.server_in.write_eof()
    with pytest.raises(ssl.SSLError) as caught:
        pair.server.do_handshake()
    assert classify(caught.value, "client") is FailureClass.EOF_OR_RESET
    assert describe(caught.value) == "the peer closed the connection during the TLS handshake"


@pytest.mark.parametrize(
    ("error", "expected", "line"),
    [
        (TimeoutError(), "timeout", "TimeoutError"),
        (StageTimeoutError("TLS handshake took 10 s", side="client"), "timeout", "TLS handshake took 10 s"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "eof_or_reset", "Connection reset by peer"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "eof_or_reset", "Broken pipe"),
        (ConnectionAbortedError(), "eof_or_reset", "ConnectionAbortedError"),
        (asyncio.IncompleteReadError(b"", 5), "eof_or_reset", "0 bytes read on a total of 5 expected bytes"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "other", "Connection refused"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "other", "No route to host"),
        (MalformedHello("a length\nis wrong", 50), "handshake", "a length is wrong"),
        (TlsFailedError("bad", side="upstream", reason="unknown_ca", detail="code 20"), "unknown_ca", "bad"),
        (RuntimeError("no\r\nidea"), "other", "no idea"),
        (ssl.SSLError("unnamed"), "handshake", "unnamed"),
        (ssl.SSLError(ssl.SSL_ERROR_SSL, "[SSL] ASN1 lib (_ssl.c:1006)"), "handshake", "ASN1 lib"),
        (ssl.SSLCertVerificationError("unnamed"), "cert_validation", "unnamed"),
    ],
)
def test_errors_that_are_not_the_librarys(error, expected, line):
    assert classify(error, "upstream") is FailureClass(expected)
    assert describe(error) == line


def test_text_plays_no_part():
    misleading = ssl.SSLError(ssl.SSL_ERROR_SSL, "unknown ca, certificate expired, timed out")
    assert classify(misleading, "client") is FailureClass.HANDSHAKE
    assert classify(OSError("connection reset, unknown ca"), "client") is FailureClass.OTHER


def test_classes_are_those_of_the_contract():
    assert {*FailureClass} == {"unknown_ca", "cert_validation", "handshake", "timeout", "eof_or_reset", "other"}
    assert sys.intern(str(FailureClass.UNKNOWN_CA)) == "unknown_ca"
