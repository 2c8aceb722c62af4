"""Minted leaves: what is in them, how many are kept, who waits for whom."""

from __future__ import annotations

import datetime
import gc
import ipaddress
import os
import ssl
import tempfile
import threading
import time
import weakref

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from soth_mitm.errors import CaMaterialError
from soth_mitm.tls import leaf as leaf_module
from soth_mitm.tls.ca import generate_ca, load_ca
from soth_mitm.tls.leaf import MAX_MIRRORED_NAMES, LeafCounters, LeafStore
from support.certs import TestCA
from support.handshakes import connect, run_handshake, tls_pair

LONG_NAME = ".".join(["a" * 61, "b" * 63, "c" * 63, "d" * 63])
DAY = datetime.timedelta(days=1)
H1 = ("http/1.1",)


@pytest.fixture(scope="module")
def ca():
    return generate_ca()


@pytest.fixture
def store(ca):
    return LeafStore(ca, capacity=4)


@pytest.fixture
def client(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.cert_pem.decode())
    return context


def alternative_names(certificate):
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [name.value for name in names]


def test_leaf_is_for_one_name_and_for_servers_only(ca, store):
    leaf = store.mint("a.example")
    extensions = leaf.extensions
    assert alternative_names(leaf) == ["a.example"]
    assert leaf.issuer == ca.certificate.subject and leaf.subject.rfc4514_string() == "CN=a.example"
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.digital_signature and not usage.value.key_cert_sign
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    identifier = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == identifier
    leaf.verify_directly_issued_by(ca.certificate)


def test_leaf_key_is_the_stores_and_never_the_cas(ca, store):
    keys = {each.mint(name).public_key().public_numbers() for each in (store, LeafStore(ca)) for name in ("a.example", "b.example")}
    assert len(keys) == 2 and ca.private_key.public_key().public_numbers() not in keys


def test_serials_are_random(store):
    serials = {store.mint("a.example").serial_number for _ in range(20)}
    assert len(serials) == 20 and min(serials).bit_length() > 64


@pytest.mark.parametrize(
    ("asked", "in_leaf"),
    [
        ("A.Example.", "a.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_dmarc.a_b.example", "_dmarc.a_b.example"),
        ("localhost", "localhost"),
        (LONG_NAME, LONG_NAME),
        (LONG_NAME + ".", LONG_NAME),
        ("127.0.0.1", ipaddress.ip_address("127.0.0.1")),
        ("::1", ipaddress.ip_address("::1")),
        ("[2001:DB8::1]", ipaddress.ip_address("2001:db8::1")),
        ("fe80::1%eth0", ipaddress.ip_address("fe80::1")),
    ],
)
def test_names_are_spelt_canonically(store, client, asked, in_leaf):
    assert alternative_names(store.mint(asked)) == [in_leaf]
    connect(client, store.context_for(asked, alpn=()), str(in_leaf))


@pytest.mark.parametrize("name", ["", ".", "a..b", "a b", "a\x00b", "*.example.com", "a/b", "x" * 64, LONG_NAME + "e", "ü" * 70])
def test_names_that_no_certificate_can_hold_are_refused(store, name):
    with pytest.raises(ValueError, match="^the name .* has (no|a) host"):
        store.context_for(name, alpn=())
    assert store.counters().minted == 0


def test_common_name_is_left_out_when_it_does_not_fit(store):
    assert store.mint("a" * 60 + ".com").subject.rfc4514_string() == "CN=" + "a" * 60 + ".com"
    assert store.mint("a" * 61 + ".com").subject.rfc4514_string() == "O=soth-mitm"


def test_upstream_names_are_mirrored_without_the_unusable(store):
    leaf = store.mint("a.example", mirror=["*.a.example", "A.example", "10.0.0.1", "", "*", "*.com", "a*.example", "b.example"])
    assert alternative_names(leaf) == ["a.example", "*.a.example", ipaddress.ip_address("10.0.0.1"), "b.example"]


def test_number_of_mirrored_names_is_bounded(store):
    leaf = store.mint("a.example", mirror=[f"n{number}.example" for number in range(500)])
    assert len(alternative_names(leaf)) == MAX_MIRRORED_NAMES + 1


def test_validity_is_backdated_and_at_most_197_days(store):
    leaf = store.mint("a.example")
    now = datetime.datetime.now(datetime.UTC)
    assert DAY <= now - leaf.not_valid_before_utc <= 2 * DAY
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == 197 * DAY - datetime.timedelta(seconds=1)


def test_leaf_of_one_day_is_valid_now_and_tomorrow(ca):
    leaf = LeafStore(ca, validity_days=1).mint("a.example")
    now = datetime.datetime.now(datetime.UTC)
    assert leaf.not_valid_before_utc < now < leaf.not_valid_after_utc - DAY / 3


def test_leaf_lies_within_the_cas_validity():
    root = TestCA()
    leaf = LeafStore(load_ca(root.cert_pem, root.key_pem)).mint("a.example")
    assert leaf.not_valid_before_utc == root.certificate.not_valid_before_utc
    assert leaf.not_valid_after_utc == root.certificate.not_valid_after_utc


def test_ca_that_expires_meanwhile_mints_no_more(ca):
    store = LeafStore(ca, clock=lambda: time.time() + 3651 * 86400)
    for _ in range(2):
        with pytest.raises(CaMaterialError, match="expired"):
            store.context_for("a.example", alpn=H1)
    assert store.counters().misses == 2


@pytest.mark.parametrize("bad", [{"capacity": 0}, {"validity_days": 0}, {"validity_days": 198}])
def test_settings_out_of_range_are_refused(ca, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LeafStore(ca, **bad)


def test_second_request_is_a_hit_whatever_the_spelling(store):
    context = store.context_for("a.example", alpn=H1)
    assert store.context_for("A.EXAMPLE.", alpn=H1) is context
    counters = store.counters()
    assert (counters.minted, counters.hits, counters.misses, counters.evictions) == (1, 1, 1, 0)


def test_alpn_and_version_are_part_of_the_key(store):
    contexts = {
        store.context_for("a.example", alpn=H1),
        store.context_for("a.example", alpn=("h2", *H1)),
        store.context_for("a.example", alpn=H1, min_version="tls1.3"),
    }
    assert len(contexts) == len(store) == 3


def test_least_recently_used_leaf_goes_first(store):
    kept = store.context_for("0.example", alpn=H1)
    for number in range(1, 10):
        store.context_for(f"{number}.example", alpn=H1)
        assert store.context_for("0.example", alpn=H1) is kept
    assert len(store) == 4 and store.counters().evictions == 6


def test_leaf_is_replaced_before_it_expires(ca):
    ahead = 0.0
    store = LeafStore(ca, clock=lambda: time.time() + ahead)
    context = store.context_for("a.example", alpn=H1)
    ahead = 194 * 86400.0
    assert store.context_for("a.example", alpn=H1) is context
    ahead = 195 * 86400.0
    assert store.context_for("a.example", alpn=H1) is not context
    assert len(store) == 1 and store.counters().minted == 2


def test_threads_that_want_one_name_share_one_minting(ca, monkeypatch):
    store = LeafStore(ca)
    minting, go_on = threading.Event(), threading.Event()
    sign = store._sign

    def slow_sign(name, mirror):
        minting.set()
        assert go_on.wait(10)
        return sign(name, mirror)

    monkeypatch.setattr(store, "_sign", slow_sign)
    contexts = []
    threads = [threading.Thread(target=lambda: contexts.append(store.context_for("a.example", alpn=H1))) for _ in range(5)]
    threads[0].start()
    assert minting.wait(10)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(contexts) == 5 and len(set(contexts)) == 1 and store.counters().minted == 1


def test_minting_that_is_interrupted_leaves_the_name_free(store, monkeypatch):
    def interrupted(name, mirror):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "_sign", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.context_for("a.example", alpn=H1)
    assert store.context_for("a.example", alpn=H1) and store.counters().minted == 1


def test_threads_with_many_names_keep_the_bound(store):
    failures = []

    def work(offset):
        for number in range(12):
            context = store.context_for(f"{(number + offset) % 8}.example", alpn=H1)
            if not isinstance(context, ssl.SSLContext):
                failures.append(context)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    counters = store.counters()
    assert not failures and len(store) == 4 and counters.hits + counters.misses == 48


def open_files():
    return sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []


@pytest.mark.parametrize("platform", ["linux", "other"])
def test_no_key_file_is_left_behind(store, client, monkeypatch, tmp_path, platform):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if platform == "other":
        monkeypatch.setattr(leaf_module.sys, "platform", "darwin")
    before = open_files()
    connect(client, store.context_for("a.example", alpn=H1), "a.example")
    assert open_files() == before and list(tmp_path.iterdir()) == []


def test_key_file_is_removed_when_loading_fails(store, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(leaf_module.sys, "platform", "darwin")
    monkeypatch.setattr(store, "_key_pem", b"")
    with pytest.raises(ssl.SSLError):
        store.context_for("a.example", alpn=H1)
    assert list(tmp_path.iterdir()) == [] and len(store) == 0


def test_context_selects_from_its_alpn(store, client):
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert connect(client, store.context_for("a.example", alpn=H1), "a.example").client.selected_alpn_protocol() == "http/1.1"
    assert connect(client, store.context_for("a.example", alpn=("h2", *H1)), "a.example").client.selected_alpn_protocol() == "h2"
    assert connect(client, store.context_for("a.example", alpn=()), "a.example").client.selected_alpn_protocol() is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_clients_resume(store, client, version):
    client.maximum_version = version
    server = store.context_for("a.example", alpn=H1)
    first = connect(client, server, "a.example")
    first.exchange()
    assert not first.client.session_reused
    assert connect(client, server, "a.example", first.client.session).server.session_reused


def test_min_version_holds(store, client):
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    errors = run_handshake(tls_pair(client, store.context_for("a.example", alpn=H1, min_version="tls1.3"), "a.example"))
    assert errors["server"].reason == "UNSUPPORTED_PROTOCOL"
    with pytest.raises(ValueError, match="min_version"):
        store.context_for("a.example", alpn=H1, min_version="tls1.1")


def test_context_offers_forward_secrecy_and_aead_only_and_asks_no_certificate(store):
    context = store.context_for("a.example", alpn=H1)
    assert all(cipher["aead"] and cipher["kea"] in ("kx-ecdhe", "kx-any") for cipher in context.get_ciphers())
    assert context.options & ssl.OP_NO_RENEGOTIATION and context.options & ssl.OP_NO_COMPRESSION
    assert context.verify_mode is ssl.CERT_NONE and context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats() == {"x509": 0, "crl": 0, "x509_ca": 0}


def test_session_keys_are_logged_when_asked(ca, client, monkeypatch, tmp_path):
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    connect(client, LeafStore(ca).context_for("a.example", alpn=H1), "a.example")
    assert "SERVER_TRAFFIC_SECRET_0" in log.read_text()


def test_repr_tells_the_fill(store, ca):
    store.context_for("a.example", alpn=H1)
    assert repr(store) == f"<LeafStore of {ca.fingerprint[:16]}: 1 of 4>"


def test_a_ready_context_is_the_one_that_was_minted_and_nothing_is_minted_for_it(store):
    assert store.ready_context("a.example", alpn=("http/1.1",)) is None
    assert store.counters() == LeafCounters(0, 0, 0, 0)
    context = store.context_for("a.example", alpn=("http/1.1",))
    assert store.ready_context("A.example.", alpn=("http/1.1",)) is context
    assert store.ready_context("a.example", alpn=("h2",)) is None
    assert store.ready_context("a.example", alpn=("http/1.1",), min_version="tls1.3") is None
    assert store.counters() == LeafCounters(minted=1, hits=1, misses=1, evictions=0)
    with pytest.raises(ValueError, match="a host that is not a name"):
        store.ready_context("a b", alpn=())


def test_contexts_beyond_the_capacity_are_freed():
    store = LeafStore(generate_ca(), capacity=4)
    contexts = [weakref.ref(store.context_for(f"{number}.example", alpn=())) for number in range(40)]
    gc.collect()
    assert [reference() is not None for reference in contexts] == [False] * 36 + [True] * 4
    assert store.counters() == LeafCounters(minted=40, hits=0, misses=40, evictions=36)
