"""curl through the proxy, to a real TLS server: what it gets, what the handler saw, what the origin saw."""

from __future__ import annotations

import gzip
import json
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from soth_mitm import HandlerDecision, InterceptHandler
from support.origin import Origin, Request, ScriptedConnection
from support.origin_answers import pattern
from support.programs import BODY, DIGEST, agree, curl
from support.recording import Recording
from support.running import ProxyFactory

STREAMED = {"body.buffer_request_bodies": False}


class TestBasics:
    @pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
    def test_get(self, proxy: ProxyFactory, origin: Origin, version: str) -> None:
        running = proxy()
        assert curl(running, version, origin.url("/bytes/100000")) == pattern(100_000)
        agree(running, origin, "GET", b"")
        (response,) = running.handler.wait("on_response")
        assert (response.status, response.body) == (200, pattern(100_000))

    def test_post_of_a_form(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        answer = json.loads(curl(running, "-d", "a=b&c=d", origin.url("/form")))
        assert answer["body_length"] == 7
        agree(running, origin, "POST", b"a=b&c=d")

    @pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
    def test_upload_of_a_file(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path, version: str) -> None:
        running = proxy()
        (tmp_path / "upload").write_bytes(BODY)
        answer = json.loads(curl(running, version, "-T", tmp_path / "upload", origin.url("/upload")))
        assert answer["body_sha256"] == DIGEST
        agree(running, origin, "PUT", BODY)

    def test_upload_of_unknown_length_is_chunked(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        answer = json.loads(curl(running, "-T", "-", origin.url("/upload"), stdin=BODY))
        assert answer["body_sha256"] == DIGEST
        assert origin.requests[0].get("transfer-encoding") == "chunked"
        agree(running, origin, "PUT", BODY)

    def test_urls_one_after_another_share_a_connection(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        urls = [origin.url(f"/bytes/{count}") for count in (1, 20, 300)]
        assert curl(running, *urls) == pattern(1) + pattern(20) + pattern(300)
        assert [request.path for request in running.handler.requests] == ["/bytes/1", "/bytes/20", "/bytes/300"]
        running.handler.wait("on_connection_close")
        assert len(running.handler.of("on_connection_open")) == 1
        assert len(origin.connections) == 1

    def test_head(self, proxy: ProxyFactory, origin: Origin) -> None:
        assert b"Content-Length: 5000" in curl(proxy(), "-I", origin.url("/bytes/5000"))

    def test_plain_http_by_absolute_form(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        assert curl(running, plain_origin.url("/bytes/9")) == pattern(9)
        assert plain_origin.requests[0].target == "/bytes/9"

    def test_no_certificate_error_for_an_ip_address(self, proxy: ProxyFactory, origin: Origin) -> None:
        assert curl(proxy(), f"https://127.0.0.1:{origin.port}/bytes/9") == pattern(9)


class TestUploads:
    """Above a megabyte curl asks with `Expect: 100-continue` before it sends a body."""

    BIG = pattern(3_000_000)

    @pytest.mark.parametrize("keys", [{}, STREAMED, {"intercept_mode": "monitor"}], ids=["buffered", "streamed", "monitor"])
    def test_expect_is_answered(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path, keys: dict[str, object]) -> None:
        """Else curl would wait for longer than it may take as a whole."""
        (tmp_path / "upload").write_bytes(self.BIG)
        running = proxy(**keys)
        heads = tmp_path / "heads"
        arguments = ("--expect100-timeout", "60", "-D", heads, "--suppress-connect-headers", "--data-binary", f"@{tmp_path / 'upload'}")
        answer = json.loads(curl(running, *arguments, origin.url("/upload")))
        assert answer["body_length"] == len(self.BIG)
        assert ["Expect", "100-continue"] in answer["headers"]
        assert heads.read_bytes().startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert bytes(origin.requests[0].body) == self.BIG

    def test_a_refusal_instead_of_100_saves_the_body(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path) -> None:
        def refuse(connection: ScriptedConnection, request: Request) -> None:
            connection.send(b"HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n")
            connection.close()

        origin.script(refuse, "/upload")
        (tmp_path / "upload").write_bytes(self.BIG)
        running = proxy(**STREAMED)
        arguments = ("--expect100-timeout", "60", "-w", "%{http_code} %{size_upload}", "--data-binary", f"@{tmp_path / 'upload'}")
        # curl asks again without Expect, and stops when it is refused again
        assert curl(running, *arguments, origin.url("/upload")).startswith(b"no\n417 ")
        assert all(len(request.body) < len(self.BIG) for request in origin.requests)

    @pytest.mark.parametrize("keys", [{}, STREAMED], ids=["buffered", "streamed"])
    def test_a_block_instead_of_100(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path, keys: dict[str, object]) -> None:
        (tmp_path / "upload").write_bytes(self.BIG)
        running = proxy(Recording(lambda request: HandlerDecision.block(403, "no\n")), **keys)
        arguments = ("--expect100-timeout", "60", "-w", "%{http_code}", "--data-binary", f"@{tmp_path / 'upload'}")
        assert curl(running, *arguments, origin.url("/upload")) == b"no\n403"
        assert origin.requests == []

    @pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
    @pytest.mark.parametrize("keys", [{}, STREAMED], ids=["buffered", "streamed"])
    def test_of_a_file(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path, version: str, keys: dict[str, object]) -> None:
        (tmp_path / "upload").write_bytes(self.BIG)
        answer = json.loads(curl(proxy(**keys), version, "-T", tmp_path / "upload", origin.url("/upload")))
        assert (answer["body_length"], answer["version"]) == (len(self.BIG), "HTTP/1.1")
        assert bytes(origin.requests[0].body) == self.BIG


class TestResponses:
    def test_raw_chunks_are_those_of_the_origin(self, proxy: ProxyFactory, origin: Origin) -> None:
        wire = b"3;note=1\r\nabc\r\n0004\r\ndefg\r\n0\r\nX-One:  1\r\n\r\n"
        origin.script(lambda connection, request: connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + wire), "/x")
        assert curl(proxy(), "--raw", origin.url("/x")).startswith(wire.removesuffix(b"X-One:  1\r\n\r\n"))

    def test_trailers(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path) -> None:
        heads = tmp_path / "heads"
        assert curl(proxy(), "-D", heads, origin.url("/chunked/70000/9?trailers")) == pattern(70_000)
        assert b"\r\n\r\nX-Sha256: " in heads.read_bytes()

    @pytest.mark.parametrize(
        ("coding", "pack"),
        [
            ("gzip", gzip.compress),
            ("deflate", zlib.compress),
            ("deflate", lambda data: zlib.compress(data, wbits=-15)),
        ],
        ids=["gzip", "zlib", "deflate"],
    )
    def test_compressed(self, proxy: ProxyFactory, origin: Origin, coding: str, pack: Callable[[bytes], bytes]) -> None:
        """What curl unpacks is what the handler is shown."""
        packed = pack(BODY)
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
        origin.script(lambda connection, request: connection.send(head + packed), "/x")
        running = proxy()
        assert curl(running, "--compressed", origin.url("/x")) == BODY
        assert curl(running, origin.url("/x")) == packed
        assert [response.body for response in running.handler.wait("on_response", 2)] == [BODY, BODY]

    def test_interim_responses(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path) -> None:
        heads = tmp_path / "heads"
        curl(proxy(), "-D", heads, "--suppress-connect-headers", origin.url("/interim"))
        assert heads.read_bytes().split(b"\r\n\r\n")[1].startswith(b"HTTP/1.1 103 Early Hints\r\nLink: ")

    @pytest.mark.parametrize("path", ["/cut/5000", "/cut/5000000"])
    def test_a_truncation_is_an_error(self, proxy: ProxyFactory, origin: Origin, path: str) -> None:
        with pytest.raises(AssertionError, match=r"curl: \((18|56)\)"):
            curl(proxy(), origin.url(path))


class TestConnections:
    def test_many_at_once(self, proxy: ProxyFactory, origin: Origin, tmp_path: Path) -> None:
        running = proxy()
        curl(running, "-Z", "--parallel-max", "16", "-o", tmp_path / "#1", origin.url("/bytes/[1000-1063]"))
        assert all((tmp_path / str(count)).read_bytes() == pattern(count) for count in range(1000, 1064))
        running.handler.wait("on_response", 64)

    def test_plain_http_inside_connect(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        running = proxy()
        answers = curl(running, "--proxytunnel", plain_origin.url("/bytes/9"), plain_origin.url("/bytes/10"))
        assert answers == pattern(9) + pattern(10)
        assert [request.scheme for request in running.handler.requests] == ["http", "http"]

    def test_http_2_is_not_upgraded_to(self, proxy: ProxyFactory, plain_origin: Origin) -> None:
        """`--http2` asks for h2c with an Upgrade, which the origin never sees."""
        running = proxy()
        answer = json.loads(curl(running, "--http2", "--proxytunnel", plain_origin.url("/x")))
        assert running.handler.requests[0].headers.get("upgrade") == "h2c"
        names = {name.lower() for name, _ in answer["headers"]}
        assert not names & {"upgrade", "http2-settings", "connection"}

    def test_a_handler_that_looks_at_nothing(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy(InterceptHandler())
        answer = json.loads(curl(running, "-T", "-", origin.url("/upload"), stdin=BODY))
        assert answer["body_sha256"] == DIGEST

    def test_the_proxy_ends_in_the_middle(self, proxy: ProxyFactory, origin: Origin) -> None:
        """A transfer that is cut is an error for the one who waits for it."""
        running = proxy()
        arguments = ("curl", "-q", "-sS", "-o", "/dev/null", "--max-time", "25", "--proxy", running.url, "--cacert", str(running.ca_path))
        with subprocess.Popen([*arguments, origin.url("/sse/100000/5")], stderr=subprocess.PIPE) as transfer:
            running.handler.wait("on_stream_chunk")
            with pytest.raises(TimeoutError):
                running.handle.shutdown(0.05)
            _, message = transfer.communicate(timeout=20)
        assert transfer.returncode in (18, 56), message


def test_a_blocked_request_is_readable_by_a_real_client(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(Recording(lambda request: HandlerDecision.block(451, "not today\n", {"x-why": "law"})))
    out = curl(running, "-i", "--suppress-connect-headers", origin.url("/secret"))
    assert out.startswith(b"HTTP/1.1 451 ") and out.endswith(b"not today\n") and b"x-why: law" in out
    assert origin.requests == []
