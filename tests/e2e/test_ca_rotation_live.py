"""A CA that is replaced under a proxy that runs: who notices, and who does not."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from soth_mitm import CaError, MitmConfig, MitmProxyBuilder, generate_ca, load_ca_from_files
from soth_mitm.tls import safe_files
from soth_mitm.tls.ca import CertificateAuthority
from soth_mitm.tls.ca_rotation import previous_path
from support.origin import Origin
from support.running import HOST, ProxyFactory, Running
from support.wire_client import WireClient


def trusting(*authorities: CertificateAuthority) -> ssl.SSLContext:
    """Return a context that trusts these CAs and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for authority in authorities:
        context.load_verify_locations(cadata=authority.cert_pem.decode())
    return context


def secured(running: Running, origin: Origin, context: ssl.SSLContext) -> WireClient:
    client = running.tunnel(origin.port)
    client.start_tls(context, HOST)
    return client


def test_open_connections_go_on_and_new_ones_get_the_new_ca(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy()
    old, new = running.handle.ca, generate_ca()
    with secured(running, origin, trusting(old)) as client, running.tunnel(origin.port) as halfway:
        assert client.request("/bytes/3", HOST).status == 200
        running.handle.rotate_ca(new)
        assert running.handle.ca == new
        assert client.request("/bytes/4", HOST).status == 200
        # its CONNECT was before the rotation, its handshake is not
        halfway.start_tls(trusting(new), HOST)
        assert halfway.request("/bytes/5", HOST).status == 200
        with secured(running, origin, trusting(new)) as later:
            assert later.request("/bytes/6", HOST).status == 200
        with running.tunnel(origin.port) as refusing, pytest.raises(ssl.SSLCertVerificationError):
            refusing.start_tls(trusting(old), HOST)
        assert client.request("/bytes/7", HOST).status == 200
    assert running.metrics().leaf_minted_count == 2


def test_a_session_of_the_old_ca_is_not_resumed(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy()
    new = generate_ca()
    context = trusting(running.handle.ca, new)
    with secured(running, origin, context) as client:
        client.request("/bytes/3", HOST)
        session, before = client.tls.session, client.tls.getpeercert(binary_form=True)
    for rotated in (False, True):
        with running.tunnel(origin.port) as again:
            again.socket = context.wrap_socket(again.socket, server_hostname=HOST, session=session)
            assert again.request("/bytes/3", HOST).status == 200
            assert again.tls.session_reused is not rotated
            assert (again.tls.getpeercert(binary_form=True) == before) is not rotated
        running.handle.rotate_ca(new)


def test_the_files_and_the_bundle_follow(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy()
    old, new = running.handle.ca, generate_ca()
    bundle = Path(running.handle.client_environment({})["SSL_CERT_FILE"])
    config = running.handle.current_config()
    cert_path, key_path = Path(str(config.tls.ca_cert_path)), Path(str(config.tls.ca_key_path))
    early = bundle.read_text()
    running.handle.rotate_ca(new)
    assert load_ca_from_files(cert_path, key_path) == new
    assert load_ca_from_files(previous_path(cert_path), previous_path(key_path)) == old
    # who reads the bundle after the rotation trusts a proxy that has not taken the new CA yet, too
    assert old.cert_pem.decode() in early and new.cert_pem.decode() not in early
    assert old.cert_pem.decode() in bundle.read_text()
    context = ssl.create_default_context(cafile=str(bundle))
    with secured(running, origin, context) as client:
        assert client.request("/bytes/3", HOST).status == 200


def test_a_reload_keeps_the_new_ca(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy()
    new = generate_ca()
    running.handle.rotate_ca(new)
    config = running.handle.current_config()
    config.tls.leaf_validity_days = 7
    running.handle.reload(config)
    with secured(running, origin, trusting(new)) as client:
        assert client.request("/bytes/3", HOST).status == 200


@pytest.mark.parametrize("refusal", [PermissionError(13, "permission denied"), OSError(28, "No space left on device")], ids=str)
def test_a_rotation_that_cannot_be_written_changes_nothing(
    proxy: ProxyFactory, origin: Origin, monkeypatch: pytest.MonkeyPatch, refusal: OSError
) -> None:
    running = proxy()
    old = running.handle.ca

    def refuse(**_: object) -> None:
        raise refusal

    monkeypatch.setattr(safe_files.tempfile, "mkstemp", refuse)
    with pytest.raises(CaError, match=f"cannot be written: {refusal.strerror}"):
        running.handle.rotate_ca(generate_ca())
    monkeypatch.undo()
    assert running.handle.ca == old
    with secured(running, origin, trusting(old)) as client:
        assert client.request("/bytes/3", HOST).status == 200


def test_a_ca_in_memory_is_rotated_in_memory(make_config: Callable[..., MitmConfig], origin: Origin, tmp_path: Path) -> None:
    config = make_config()
    config.tls.ca_cert_path = config.tls.ca_key_path = None
    before = sorted(tmp_path.iterdir())
    with MitmProxyBuilder(config).with_ca(generate_ca()).build().start_in_thread() as handle:
        new = generate_ca()
        handle.rotate_ca(new)
        with secured(Running(handle, None), origin, trusting(new)) as client:
            assert client.request("/bytes/3", HOST).status == 200
    assert sorted(tmp_path.iterdir()) == before


def test_rotations_under_traffic_cut_nobody(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy()
    authorities = [running.handle.ca, *(generate_ca() for _ in range(6))]
    context, stop = trusting(*authorities), threading.Event()
    answers: list[int] = []

    def talk() -> None:
        while not stop.is_set():
            with secured(running, origin, context) as client:
                answers.extend(client.request("/bytes/100", HOST).status for _ in range(3))

    talkers = [threading.Thread(target=talk) for _ in range(3)]
    for talker in talkers:
        talker.start()
    for authority in authorities[1:]:
        running.handle.rotate_ca(authority)
    stop.set()
    for talker in talkers:
        talker.join(30)
    assert answers and set(answers) == {200}
    assert running.metrics().tls_client_failure_count == 0
