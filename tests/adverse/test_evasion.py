"""Requests of a listed destination in spellings that lenient servers understand: the handler sees each of them, or it is refused.

Inside CONNECT, what is neither TLS nor HTTP is tunnelled unless the configuration says otherwise. So what a server might take for HTTP must
count as HTTP.
"""

from __future__ import annotations

import pytest

from support.judge import Judge
from support.running import ProxyFactory
from support.tap import Tap

REST = b"HTTP/1.1\r\nHost: localhost\r\nX-Decide: block\r\n\r\n"
SPELLINGS = {
    "an empty line before": (b"\r\nGET / " + REST, 418),
    "two empty lines before": (b"\r\n\r\nGET / " + REST, 400),
    "a line feed before": (b"\nGET / " + REST, 400),
    "many empty lines before": (b"\r\n" * 100 + b"GET / " + REST, 400),
    "two blanks": (b"GET  / " + REST, 400),
    "a tab": (b"GET\t/ " + REST, 400),
    "many blanks": (b"GET" + b" " * 200 + b"/ " + REST, 400),
    "lines that end in LF": ((b"GET / " + REST).replace(b"\r\n", b"\n"), 400),
    "lower case": (b"get / " + REST, 418),
    "absolute-form": (b"GET http://localhost/ " + REST, 418),
    "absolute-form of https": (b"GET https://localhost/ " + REST, 418),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "the preface of HTTP/2 in lower case": (b"pri * HTTP/2.0\r\n\r\nsm\r\n\r\n", 400),
    "the preface of HTTP/2 with another end": (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 400),
    "CONNECT inside CONNECT": (b"CONNECT localhost:443 " + REST, 501),
}


@pytest.mark.parametrize("pieces", [1, 1000], ids=["whole", "single-bytes"])
@pytest.mark.parametrize(("data", "status"), SPELLINGS.values(), ids=SPELLINGS)
def test_plain_requests_inside_connect(proxy: ProxyFactory, plain_tap: Tap, data: bytes, status: int, pieces: int) -> None:
    running = proxy(Judge(plain_tap.journal))
    size = max(1, len(data) // pieces)
    with running.tunnel(plain_tap.port) as client:
        for start in range(0, len(data), size):
            client.send(data[start : start + size])
        assert client.read_answer().status == status
    plain_tap.assert_silence(0)
    assert running.metrics().tunnel_count == 0
    assert len(plain_tap.journal.since(0, "asked")) == (status == 418)


def test_another_host_in_the_request_line_goes_where_the_tunnel_goes(proxy: ProxyFactory, plain_tap: Tap) -> None:
    """An intercepted connection has one destination, the one that the policy was asked about; the handler is shown what was named."""
    running = proxy(Judge(plain_tap.journal))
    with running.tunnel(plain_tap.port) as client:
        assert client.request("http://other.test/path", "other.test").status == 200
    assert plain_tap.journal.plain_since(0) == b"GET /path HTTP/1.1\r\nHost: other.test\r\n\r\n"
    (asked,) = plain_tap.journal.wait(0, "asked")
    assert asked.value.authority == f"other.test:{plain_tap.port}"
    assert asked.value.url == f"http://other.test:{plain_tap.port}/path"
    assert asked.value.connection_meta.target == ("localhost", plain_tap.port)
    assert asked.value.headers["host"] == "other.test"
