"""Programs that people use, through the proxy, to a real TLS server: what they get, what the handler saw, what the origin saw."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests

from soth_mitm import HandlerDecision
from support.origin import Origin
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory, Running

BODY = pattern(200_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
# pyenv's shims are found too, but run only what was made the default
STRICT_PYTHONS = [
    *map(str, Path.home().glob(".pyenv/versions/3.1[34].*/bin/python")),
    *(path for path in map(shutil.which, ("python3.13", "python3.14")) if path and "shims" not in path),
]


def run(*command: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(word) for word in command], input=stdin, capture_output=True, timeout=30, check=False)


def curl(running: Running, *arguments: str | Path, stdin: bytes = b"") -> bytes:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = run("curl", "-q", "-sS", "--max-time", "25", "--proxy", running.url, "--cacert", running.ca_path, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def body_pieces() -> Iterator[bytes]:
    for start in range(0, len(BODY), 30_000):
        yield BODY[start : start + 30_000]


def agree(running: Running, origin: Origin, method: str, body: bytes) -> None:
    """Check that the last request was the same for the handler and for the origin."""
    seen, received = running.handler.requests[-1], origin.requests[-1]
    assert (seen.method, seen.path, seen.body) == (method, received.target, body)
    assert (received.method, bytes(received.body)) == (method, body)
    kept = [(name, value) for name, value in received.headers if name.lower() not in ("connection", "transfer-encoding")]
    assert all(value in seen.headers.get_all(name) for name, value in kept)
    assert seen.scheme == "https"
    assert seen.authority == f"localhost:{origin.port}"
    assert seen.connection_meta.tls_info.sni == "localhost"


class TestCurl:
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


class TestLibraries:
    def test_requests(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        with requests.Session() as session:
            session.trust_env = False
            session.proxies = {"https": running.url}
            session.verify = str(running.ca_path)
            assert session.get(origin.url("/chunked/70000/9"), timeout=20).content == pattern(70_000)
            agree(running, origin, "GET", b"")
            assert session.post(origin.url("/x"), data=BODY, timeout=20).json()["body_sha256"] == DIGEST
            agree(running, origin, "POST", BODY)
            assert session.post(origin.url("/x"), data=body_pieces(), timeout=20).json()["body_sha256"] == DIGEST
            agree(running, origin, "POST", BODY)
            with session.get(origin.url("/sse/3/0"), stream=True, timeout=20) as streamed:
                assert sum(line.startswith(b"data: ") for line in streamed.iter_lines()) == 3
        assert len(running.handler.wait("on_stream_chunk", 3)) == 3

    def test_httpx(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        with httpx.Client(proxy=running.url, verify=running.client_context(), trust_env=False, timeout=20) as client:
            assert client.get(origin.url("/bytes/70000")).content == pattern(70_000)
            agree(running, origin, "GET", b"")
            assert client.post(origin.url("/x"), content=body_pieces()).json()["body_sha256"] == DIGEST
            agree(running, origin, "POST", BODY)
            with client.stream("GET", origin.url("/close/70000")) as streamed:
                assert b"".join(streamed.iter_bytes()) == pattern(70_000)

    def test_httpx_async(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()

        async def pieces() -> AsyncIterator[bytes]:
            for piece in body_pieces():
                yield piece

        async def talk() -> None:
            async with httpx.AsyncClient(proxy=running.url, verify=running.client_context(), trust_env=False, timeout=20) as client:
                assert (await client.post(origin.url("/x"), content=pieces())).json()["body_sha256"] == DIGEST
                answers = await asyncio.gather(*(client.get(origin.url(f"/bytes/{count}")) for count in range(20)))
                assert [answer.content for answer in answers] == [pattern(count) for count in range(20)]

        asyncio.run(talk())
        assert len(running.handler.requests) == 21

    def test_aiohttp(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        context = running.client_context()

        async def talk() -> None:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:
                async with session.get(origin.url("/chunked/70000/9"), proxy=running.url, ssl=context) as answer:
                    assert await answer.read() == pattern(70_000)
                async with session.post(origin.url("/x"), data=BODY, proxy=running.url, ssl=context) as answer:
                    assert (await answer.json())["body_sha256"] == DIGEST

        asyncio.run(talk())
        agree(running, origin, "POST", BODY)

    def test_urllib(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({"https": running.url}), urllib.request.HTTPSHandler(context=running.client_context())
        )
        with opener.open(origin.url("/bytes/70000"), timeout=20) as answer:
            assert answer.read() == pattern(70_000)
        with opener.open(origin.url("/x"), data=BODY, timeout=20) as answer:
            assert json.load(answer)["body_sha256"] == DIGEST
        agree(running, origin, "POST", BODY)


class TestStrictVerification:
    def test_openssl_s_client(self, proxy: ProxyFactory, origin: Origin) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        running = proxy()
        done = run(
            *("openssl", "s_client", "-x509_strict", "-verify_return_error", "-verify_hostname", "localhost", "-servername", "localhost"),
            *("-proxy", f"127.0.0.1:{running.port}", "-connect", f"localhost:{origin.port}", "-CAfile", running.ca_path, "-quiet"),
            stdin=b"GET /close/5 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        assert done.stdout.endswith(b"\r\n\r\n" + pattern(5)), done.stderr.decode()

    @pytest.mark.skipif(not STRICT_PYTHONS, reason="no Python 3.13 or later, which verifies strictly by default")
    def test_python_that_verifies_strictly(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        script = (
            "import ssl, sys, urllib.request as u\n"
            "context = ssl.create_default_context(cafile=sys.argv[2])\n"
            "assert context.verify_flags & ssl.VERIFY_X509_STRICT\n"
            "opener = u.build_opener(u.ProxyHandler({'https': sys.argv[1]}), u.HTTPSHandler(context=context))\n"
            "sys.stdout.buffer.write(opener.open(sys.argv[3], timeout=20).read())\n"
        )
        for host in ("localhost", "127.0.0.1"):
            done = run(STRICT_PYTHONS[0], "-I", "-c", script, running.url, running.ca_path, f"https://{host}:{origin.port}/bytes/77")
            assert done.stdout == pattern(77), done.stderr.decode()

    def test_strict_flag_here(self, proxy: ProxyFactory, origin: Origin) -> None:
        running = proxy()
        context = running.client_context()
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with running.tunnel(origin.port) as client:
            client.start_tls(context)
            assert client.request("/bytes/3", "localhost").body == pattern(3)


def test_a_blocked_request_is_readable_by_a_real_client(proxy: ProxyFactory, origin: Origin) -> None:
    running = proxy(Recording(lambda request: HandlerDecision.block(451, "not today\n", {"x-why": "law"})))
    out = curl(running, "-i", "--suppress-connect-headers", origin.url("/secret"))
    assert out.startswith(b"HTTP/1.1 451 ") and out.endswith(b"not today\n") and b"x-why: law" in out
    assert origin.requests == []
