"""Libraries that people use, through the proxy, to a real TLS server: what they get, what the handler saw, what the origin saw."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests

from support.origin import Origin
from support.origin_answers import pattern
from support.programs import BODY, DIGEST, agree, body_pieces, needed, run
from support.running import ProxyFactory

# pyenv's shims are found too, but run only what was made the default
STRICT_PYTHONS = [
    *map(str, Path.home().glob(".pyenv/versions/3.1[34].*/bin/python")),
    *(path for path in map(shutil.which, ("python3.13", "python3.14")) if path and "shims" not in path),
]


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
        needed("openssl")
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
