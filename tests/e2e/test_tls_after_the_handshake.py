"""What comes after a handshake besides data: new keys, attempts to renegotiate, the end. And the log of session keys."""

from __future__ import annotations

import logging
import re
import ssl
import stat
import sys
from pathlib import Path

import pytest

from soth_mitm import InvalidConfigError
from support.certs import TestCA
from support.openssl import OpenSsl
from support.origin import Origin
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory

GET = b"GET /bytes/3 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_new_keys_from_the_client(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy()
    with OpenSsl.client(running.port, origin.port, running.ca_path, "-tls1_3") as client:
        for command in (b"k\n", b"K\n", b"k\n"):
            client.say(GET)
            client.expect(b"HTTP/1.1 200 OK", b"\r\n\r\n" + pattern(3))
            client.say(command)
            client.expect(b"KEYUPDATE")
        client.say(GET)
        client.expect(b"HTTP/1.1 200 OK", b"\r\n\r\n" + pattern(3))
    running.wait_idle()
    assert len(running.handler.requests) == len(origin.requests) == 4
    assert running.metrics().tls_client_failure_count == 0


def test_new_keys_from_the_upstream(proxy: ProxyFactory, origin_ca: TestCA, tmp_path: Path) -> None:
    running = proxy()
    files = origin_ca.write(tmp_path, HOST)
    server, port = OpenSsl.server(files.cert, files.key, "-tls1_3")
    with server, running.secured(port) as client:
        for command in (b"k\n", b"K\n", b"k\n"):
            client.send(GET)
            server.expect(b"GET /bytes/3 HTTP/1.1", b"\r\n\r\n")
            server.say(command)
            server.expect(b"SSL_do_handshake -> 1")
            server.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nkeys")
            assert client.read_answer().body == b"keys"
    assert running.metrics().tls_upstream_handshake_count == 1


def test_a_client_that_renegotiates_is_refused(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy()
    with OpenSsl.client(running.port, origin.port, running.ca_path, "-tls1_2") as client:
        client.say(GET)
        client.expect(b"HTTP/1.1 200 OK", b"\r\n\r\n" + pattern(3))
        client.say(b"R\n")
        client.expect(b"RENEGOTIATING", b"no renegotiation")
        assert client.wait()[0] != 0
    running.wait_idle()
    assert running.metrics().tls_client_handshake_count == 1
    with running.secured(origin.port) as other:
        assert other.request("/bytes/3", HOST).body == pattern(3)


def test_an_upstream_that_renegotiates_is_refused(proxy: ProxyFactory, origin_ca: TestCA, tmp_path: Path) -> None:
    running = proxy()
    files = origin_ca.write(tmp_path, HOST)
    server, port = OpenSsl.server(files.cert, files.key, "-tls1_2")
    with server, running.secured(port) as client:
        client.send(GET)
        server.expect(b"GET /bytes/3 HTTP/1.1", b"\r\n\r\n")
        server.say(b"r\n")
        answer = client.read_answer()
        assert answer.status == 502 and f"localhost:{port}" in answer.text
    running.wait_idle()
    assert running.metrics().tls_upstream_handshake_count == 1


class TestKeyLog:
    SECRETS = re.compile(r"^(CLIENT_RANDOM|CLIENT_TRAFFIC_SECRET_0) (\w{64}) \w+$", re.MULTILINE)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_both_sides_are_logged(
        self, proxy: ProxyFactory, origin_ca: TestCA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion
    ) -> None:
        ours, clients, origins = (tmp_path / name for name in ("ours", "clients", "origins"))
        monkeypatch.setenv("SSLKEYLOGFILE", str(ours))
        context = origin_ca.server_context(HOST)
        context.maximum_version = version
        context.keylog_filename = str(origins)
        with Origin(context, host=HOST) as origin:
            running = proxy()
            # made by hand: create_default_context would log to the same file
            client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            client_context.load_verify_locations(running.ca_path)
            client_context.maximum_version = version
            client_context.keylog_filename = str(clients)
            with running.tunnel(origin.port) as client:
                client.start_tls(client_context)
                assert client.request("/bytes/3", HOST).body == pattern(3)
        logged = set(self.SECRETS.findall(ours.read_text()))
        for other in (clients, origins):
            theirs = set(self.SECRETS.findall(other.read_text()))
            assert len(theirs) == 1 and theirs < logged
        assert len(logged) == 2

    @pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
    def test_a_new_file_is_its_owners_alone_and_an_old_one_stays_as_it_is(
        self, proxy: ProxyFactory, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name, mode in (("new", 0o600), ("old", 0o640)):
            path = tmp_path / name
            if name == "old":
                path.write_text("# kept\n")
                path.chmod(mode)
            monkeypatch.setenv("SSLKEYLOGFILE", str(path))
            with caplog.at_level(logging.WARNING, "soth_mitm"):
                running = proxy()
                with running.secured(origin.port) as client:
                    client.request("/bytes/3", HOST)
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert sum(str(path) in record.message for record in caplog.records) == 1
        assert (tmp_path / "old").read_text().startswith("# kept\n")

    def test_a_file_that_cannot_be_written_is_said_at_the_start(
        self, proxy: ProxyFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "none" / "keys"))
        with pytest.raises(InvalidConfigError, match="SSLKEYLOGFILE: .* cannot be written"):
            proxy()

    def test_nothing_is_logged_unless_told_so(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path) -> None:
        running = proxy()
        with running.secured(origin.port) as client:
            client.request("/bytes/3", HOST)
            assert client.tls.context.keylog_filename is None
