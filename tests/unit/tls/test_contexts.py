"""Contexts towards upstreams: which roots, which names, which sessions."""

from __future__ import annotations

import os
import ssl
import threading

import pytest

from soth_mitm.errors import InvalidConfigError
from soth_mitm.tls import contexts as contexts_module
from soth_mitm.tls.contexts import ClientCertificate, UpstreamContexts, system_roots
from support.certs import TestCA, self_signed
from support.handshakes import connect, run_handshake, tls_pair

H1 = ("http/1.1",)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def authority():
    return TestCA()


@pytest.fixture
def server(authority):
    return authority.server_context("a.example", "127.0.0.1", "::1", alpn=["h2", "http/1.1"])


@pytest.fixture
def bundle(authority, tmp_path):
    path = tmp_path / "bundle.pem"
    path.write_bytes(b"# our roots\n" + authority.cert_pem)
    return path


@pytest.fixture
def no_system_roots(monkeypatch, tmp_path):
    """Point OpenSSL's default paths to nothing."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(contexts_module, "_BUNDLES", ())


@pytest.fixture
def upstream(bundle, no_system_roots):
    return UpstreamContexts(ca_bundle_path=bundle)


def test_bundle_is_trusted_and_the_name_checked(upstream, server):
    context = upstream.context(H1)
    assert connect(context, server, "a.example").client.selected_alpn_protocol() == "http/1.1"
    errors = run_handshake(tls_pair(context, server, "b.example"))
    assert errors["client"].verify_code == 62


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_addresses_are_checked_as_addresses(upstream, server, address):
    connect(upstream.context(H1), server, address)
    errors = run_handshake(tls_pair(upstream.context(H1), server, "127.0.0.2"))
    assert errors["client"].verify_code == 64


@pytest.mark.parametrize("names", [(), ("127.0.0.1",)], ids=["alone", "beside an address"])
def test_common_name_is_no_name(upstream, authority, names):
    server = authority.server_context(pair=authority.issue(*names, common_name="localhost"))
    assert run_handshake(tls_pair(upstream.context(H1), server, "localhost"))["client"].verify_code == 62


def test_unknown_root_is_refused_unless_verification_is_off(upstream):
    server = TestCA().server_context("a.example")
    assert run_handshake(tls_pair(upstream.context(H1), server, "a.example"))["client"].verify_code == 20
    connect(UpstreamContexts(verify=False).context(H1), server, "other.example")


def test_bundle_may_hold_the_servers_own_certificate_or_an_intermediate(tmp_path, authority, no_system_roots):
    pair = self_signed("a.example")
    middle = authority.intermediate()
    path = tmp_path / "pinned.pem"
    path.write_bytes(pair[0] + middle.cert_pem)
    context = UpstreamContexts(ca_bundle_path=path).context(H1)
    connect(context, authority.server_context(pair=pair), "a.example")
    connect(context, middle.server_context("b.example"), "b.example")


def test_each_alpn_offer_has_one_context(upstream, server):
    assert upstream.context(H1) is upstream.context(H1)
    both = upstream.context(("h2", "http/1.1"))
    assert both is not upstream.context(H1)
    assert connect(both, server, "a.example").client.selected_alpn_protocol() == "h2"
    assert connect(upstream.context(()), server, "a.example").client.selected_alpn_protocol() is None


def test_threads_get_the_same_context(upstream):
    found = []
    threads = [threading.Thread(target=lambda: found.append(upstream.context(H1))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4 and len(set(found)) == 1


def test_min_version_holds(bundle, server, no_system_roots):
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    connect(UpstreamContexts(ca_bundle_path=bundle).context(H1), server, "a.example")
    strict = UpstreamContexts(ca_bundle_path=bundle, min_version="tls1.3").context(H1)
    assert "client" in run_handshake(tls_pair(strict, server, "a.example"))


@pytest.mark.parametrize("version", VERSIONS)
def test_client_certificate_is_given_where_it_is_asked_for(authority, bundle, server, no_system_roots, tmp_path, version):
    files = authority.write(tmp_path, pair=authority.issue_for_clients("me"))
    mine = ClientCertificate(str(files.cert), str(files.key))
    upstream = UpstreamContexts(ca_bundle_path=bundle, client_certs=[mine])
    server.verify_mode = ssl.CERT_REQUIRED
    server.maximum_version = version
    server.load_verify_locations(cadata=authority.cert_pem.decode())
    pair = connect(upstream.context(H1, mine), server, "a.example")
    assert pair.server.getpeercert()["subject"] == ((("commonName", "me"),),)
    assert run_handshake(tls_pair(upstream.context(H1), server, "a.example"))["server"].reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    with pytest.raises(ValueError, match="not among those configured"):
        upstream.context(H1, ClientCertificate("other.pem", "other-key.pem"))


def test_client_certificate_that_cannot_be_used_names_its_key(authority, tmp_path):
    files = authority.write(tmp_path, "me")
    for cert, key, name in (
        (tmp_path / "none.pem", files.key, "upstream.client_cert_path"),
        (files.cert, tmp_path / "none.pem", "upstream.client_key_path"),
        (files.root, files.key, "upstream.client_cert_path"),
        (files.cert, files.cert, "upstream.client_cert_path"),
    ):
        with pytest.raises(InvalidConfigError) as caught:
            UpstreamContexts(verify=False, client_certs=[ClientCertificate(str(cert), str(key))])
        assert caught.value.key == name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 of .* is damaged"),
        (b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", "certificate 1 of .* is damaged"),
    ],
)
def test_bundle_that_cannot_be_used_is_refused(tmp_path, content, words):
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidConfigError, match=words) as caught:
        UpstreamContexts(ca_bundle_path=path)
    assert caught.value.key == "upstream.ca_bundle_path"


@pytest.mark.skipif(os.name != "posix", reason="roots come from the system's own store")
def test_system_without_roots_is_a_configuration_error(no_system_roots):
    with pytest.raises(InvalidConfigError, match="no root certificates"):
        UpstreamContexts()
    UpstreamContexts(verify=False)


def test_roots_are_read_from_file_and_directory_once_each(monkeypatch, tmp_path, authority):
    other = TestCA("Other Root")
    directory = tmp_path / "certs"
    directory.mkdir()
    (directory / "bundle.crt").write_bytes(authority.cert_pem + other.cert_pem)
    (directory / "0a0a0a0a.0").symlink_to(directory / "bundle.crt")
    (directory / "damaged.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (directory / "keystore").write_bytes(bytes(range(256)))
    (directory / "dangling.0").symlink_to(tmp_path / "nowhere")
    (directory / "java").mkdir()
    (tmp_path / "file.pem").write_bytes(other.cert_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "file.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(directory))
    expected = [ssl.PEM_cert_to_DER_cert(each.cert_pem.decode()) for each in (other, authority)]
    assert system_roots() == expected
    context = UpstreamContexts().context(H1)
    connect(context, authority.server_context("a.example"), "a.example")
    assert context.cert_store_stats()["x509_ca"] == 2


def test_handshakes_read_nothing_from_disk(monkeypatch, tmp_path, authority, server):
    (tmp_path / "root.pem").write_bytes(authority.cert_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    context = UpstreamContexts().context(H1)
    (tmp_path / "root.pem").unlink()
    connect(context, server, "a.example")
