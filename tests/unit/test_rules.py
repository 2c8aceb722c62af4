"""The ready-made rules: what each matches, and what it decides."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm import ConnectDecision, ConnectTarget, DecisionValueError, HandlerDecision, RawRequest, SseEvent, Upstream, rules
from soth_mitm.handler import check_handler
from soth_mitm.rules.matching import Hosts, Url

ALLOW, forward = HandlerDecision.ALLOW, HandlerDecision.forward


def request_of(url: str, method: str = "GET", *headers: tuple[str, str]) -> RawRequest:
    return RawRequest.build(method=method, url=url, headers=headers)


def decided(rule: Any, request: RawRequest) -> HandlerDecision:
    answer = rule.on_request(request)
    return asyncio.run(answer) if inspect.isawaitable(answer) else answer  # type: ignore[arg-type,return-value]


def sent(decision: HandlerDecision) -> bytes:
    """Return the body of an answer, whatever it is."""

    async def collect() -> bytes:
        assert not isinstance(decision.body, bytes) and decision.body is not None
        return b"".join([piece async for piece in decision.body])

    return decision.body if isinstance(decision.body, bytes) else asyncio.run(collect())


class TestMatching:
    @pytest.mark.parametrize(
        "pattern, url, stands_for",
        [
            ("https://a.example/v1/*", "https://a.example/v1/chat", ("chat",)),
            ("https://a.example/v1/*", "https://a.example/v1/chat?x=1", ("chat",)),
            ("https://a.example/v1/*", "https://a.example/v1/", ("",)),
            ("https://a.example/v1/*", "https://a.example/v2/chat", None),
            ("https://a.example/v1/*", "http://a.example/v1/chat", None),
            ("https://a.example/v1/*", "https://a.example:8443/v1/chat", None),
            ("https://a.example:*/x", "https://a.example:8443/x", ()),
            ("https://*.example/*/b/*", "https://q.example/a/b/c/b/d", ("a/b/c", "d")),
            ("https://a.example", "https://a.example/", ()),
            ("https://a.example", "https://a.example/x", None),
            ("https://a.example/x?k=*", "https://a.example/x?k=1", ("1",)),
            ("https://a.example/x?k=*", "https://a.example/x", None),
            ("https://a.example/a.b", "https://a.example/aXb", None),
            ("https://[::1]:8443/*", "https://[::1]:8443/y", ("y",)),
            ("HTTPS://A.Example/v", "https://a.example/v", ()),
        ],
    )
    def test_urls(self, pattern: str, url: str, stands_for: tuple[str, ...] | None) -> None:
        assert Url.parse(pattern).match(request_of(url)) == stands_for

    @pytest.mark.parametrize(
        "pattern, message",
        [("a.example/v1", "does not begin with"), ("ftp://a.example/", "does not begin with"), ("https://a b/", "`a b:443` has")],
    )
    def test_what_is_no_url(self, pattern: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Url.parse(pattern)

    def test_hosts(self) -> None:
        hosts = Hosts(["api.example.com:443", "*.example.org:*"])
        assert hosts.match_request(request_of("https://api.example.com/"))
        assert not hosts.match_request(request_of("http://api.example.com/"))
        assert hosts.match_request(request_of("http://a.example.org:8080/"))
        for wrong in ("api.example.com:443", [], ["api.example.com"]):
            with pytest.raises((ValueError, TypeError)):
                Hosts(wrong)

    @given(st.text("a/*?", max_size=12), st.text("a/?", max_size=12))
    def test_any_path(self, pattern: str, path: str) -> None:
        Url.parse(f"https://a.example/{pattern}").match(request_of(f"https://a.example/{path}"))


class TestSetHeader:
    def test_requests(self) -> None:
        rule = rules.set_header("X-Team", "search", hosts=["api.example.com:443"])
        assert decided(rule, request_of("https://api.example.com/")) == forward(set={"X-Team": "search"})
        assert decided(rule, request_of("https://other.example.com/")) is ALLOW
        check_handler(rule)

    def test_what_cannot_be_set(self) -> None:
        with pytest.raises(DecisionValueError):
            rules.set_header("Content-Length", "5")
        with pytest.raises(ValueError, match="where: expected"):
            rules.set_header("X", "5", where="both")  # type: ignore[arg-type]


class TestBlockHosts:
    def test_connections_and_requests(self) -> None:
        rule: Any = rules.block_hosts("*.telemetry.example:*", status=451, body="not from here")
        for host, expected in (("a.telemetry.example", ConnectDecision.block("not from here", 451)), ("a.example", None)):
            target = ConnectTarget(host, 443, None, Any, ConnectDecision.INTERCEPT, "")  # type: ignore[arg-type]
            assert rule.on_connect(target) == expected
        assert decided(rule, request_of("https://a.telemetry.example/")) == HandlerDecision.block(451, "not from here")
        assert decided(rule, request_of("https://a.example/")) is ALLOW
        check_handler(rule)

    def test_a_status_that_is_no_refusal(self) -> None:
        with pytest.raises(DecisionValueError):
            rules.block_hosts("a.example:443", status=200)
        with pytest.raises(ValueError, match="hosts: is empty"):
            rules.block_hosts()


class TestMapRemote:
    @pytest.mark.parametrize(
        "path, url, expected",
        [
            (None, "https://a.example/v1/x?q", forward(to="b.example:1")),
            ("/new", "https://a.example/v1/x?q", forward(to="b.example:1", path="/new?q")),
            ("/new/*", "https://a.example/v1/x/y", forward(to="b.example:1", path="/new/x/y")),
            ("/new?z", "https://a.example/v1/x?q", forward(to="b.example:1", path="/new?z")),
            ("/new", "https://a.example/v2/x", ALLOW),
        ],
    )
    def test_where_it_goes(self, path: str | None, url: str, expected: HandlerDecision) -> None:
        assert decided(rules.map_remote("https://a.example/v1/*", "b.example:1", path=path), request_of(url)) == expected

    def test_an_upstream(self) -> None:
        there = Upstream("127.0.0.1", 8000, tls=False)
        assert decided(rules.map_remote("https://a.example/*", there), request_of("https://a.example/")) == forward(to=there)

    def test_what_cannot_be(self) -> None:
        with pytest.raises(DecisionValueError):
            rules.map_remote("https://a.example/*", "nowhere")
        with pytest.raises(ValueError, match="has more `\\*` than the url"):
            rules.map_remote("https://a.example/*", "b.example:1", path="/*/*")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.json").write_bytes(b'{"a": 1}')
    (root / "index.html").write_bytes(b"<p>index")
    (root / "sub" / "b.txt").write_bytes(b"0123456789")
    (root / "sub" / "long.bin").write_bytes(bytes(range(256)) * 8192)
    (tmp_path / "outside.txt").write_bytes(b"outside")
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2" / "c.txt").write_bytes(b"outside")
    (root / "inside-link").symlink_to(root / "sub" / "b.txt")
    (root / "outside-link").symlink_to(tmp_path / "outside.txt")
    (root / "directory-link").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    return root


class TestMapLocal:
    URL = "https://a.example/s/*"

    @pytest.mark.parametrize(
        "name, body, media_type",
        [
            ("a.json", b'{"a": 1}', "application/json"),
            ("", b"<p>index", "text/html"),
            ("sub/b.txt", b"0123456789", "text/plain"),
            ("sub/%62.txt?x=1", b"0123456789", "text/plain"),
            ("./sub//b.txt", b"0123456789", "text/plain"),
            ("inside-link", b"0123456789", "text/plain"),
        ],
    )
    def test_files(self, files: Path, name: str, body: bytes, media_type: str) -> None:
        decision = decided(rules.map_local(self.URL, files), request_of(f"https://a.example/s/{name}"))
        assert (decision.kind, decision.status, sent(decision)) == ("respond", 200, body)
        assert dict(decision.headers)[b"Content-Type"].decode() == media_type

    @pytest.mark.parametrize(
        "name",
        [
            "none",
            "sub",
            "../outside.txt",
            "sub/../../outside.txt",
            "%2e%2e/outside.txt",
            "..%2foutside.txt",
            "outside-link",
            "directory-link/outside.txt",
            "../root-2/c.txt",
            "/etc/passwd",
            "%2fetc%2fpasswd",
            "a.json%00.txt",
            "pipe",
            "a.json/x",
            "x" * 5000,
        ],
    )
    def test_what_is_not_there(self, files: Path, name: str) -> None:
        decision = decided(rules.map_local(self.URL, files), request_of(f"https://a.example/s/{name}"))
        assert (decision.status, decision.body) == (404, b"there is no such file")

    @given(
        st.lists(st.sampled_from(["..", ".", "%2e", "%2f", "/", "sub", "directory-link", "outside-link", "outside.txt", "\\"]), max_size=8)
    )
    def test_nothing_outside(self, parts: list[str]) -> None:
        decision = decided(rules.map_local(self.URL, self.root), request_of("https://a.example/s/" + "/".join(parts)))
        assert decision.status in (200, 404) and b"outside" not in sent(decision)

    root: Path

    @pytest.fixture(autouse=True)
    def _root(self, files: Path) -> None:
        type(self).root = files

    @pytest.mark.parametrize(
        "asked, status, body, content_range",
        [
            ("bytes=0-3", 206, b"0123", b"bytes 0-3/10"),
            ("bytes=4-", 206, b"456789", b"bytes 4-9/10"),
            ("bytes=-3", 206, b"789", b"bytes 7-9/10"),
            ("bytes=8-100", 206, b"89", b"bytes 8-9/10"),
            ("bytes=-100", 206, b"0123456789", b"bytes 0-9/10"),
            ("bytes=10-", 416, b"", b"bytes */10"),
            ("bytes=-0", 416, b"", b"bytes */10"),
            ("bytes=5-4", 416, b"", b"bytes */10"),
            ("bytes=-", 200, b"0123456789", None),
            ("bytes=0-1,3-4", 200, b"0123456789", None),
            ("lines=0-3", 200, b"0123456789", None),
        ],
    )
    def test_ranges(self, files: Path, asked: str, status: int, body: bytes, content_range: bytes | None) -> None:
        rule = rules.map_local(self.URL, files)
        decision = decided(rule, request_of("https://a.example/s/sub/b.txt", "GET", ("Range", asked)))
        assert (decision.status, sent(decision), dict(decision.headers).get(b"Content-Range")) == (status, body, content_range)
        whole = decided(rule, request_of("https://a.example/s/sub/b.txt", "GET", ("Range", asked), ("If-Range", '"x"')))
        assert whole.status == 200

    def test_a_long_file_is_sent_as_it_is_read(self, files: Path) -> None:
        rule = rules.map_local(self.URL, files)
        decision = decided(rule, request_of("https://a.example/s/sub/long.bin"))
        assert not isinstance(decision.body, bytes)
        assert sent(decision) == bytes(range(256)) * 8192
        part = decided(rule, request_of("https://a.example/s/sub/long.bin", "GET", ("Range", "bytes=1-1500000")))
        assert sent(part) == (bytes(range(256)) * 8192)[1:1500001]

    def test_one_file(self, files: Path) -> None:
        rule = rules.map_local("https://a.example/x", files / "a.json", content_type="application/vnd.x+json")
        decision = decided(rule, request_of("https://a.example/x?y"))
        assert (decision.body, dict(decision.headers)[b"Content-Type"]) == (b'{"a": 1}', b"application/vnd.x+json")
        assert decided(rule, request_of("https://a.example/y")) is ALLOW

    def test_other_methods(self, files: Path) -> None:
        rule = rules.map_local(self.URL, files)
        assert decided(rule, request_of("https://a.example/s/a.json", "HEAD")).status == 200
        decision = decided(rule, request_of("https://a.example/s/a.json", "POST"))
        assert (decision.status, dict(decision.headers)[b"Allow"]) == (405, b"GET, HEAD")

    def test_what_cannot_be(self, files: Path) -> None:
        with pytest.raises(FileNotFoundError):
            rules.map_local(self.URL, files / "none")
        with pytest.raises(ValueError, match="has no `\\*`"):
            rules.map_local("https://a.example/s/", files)
        with pytest.raises(DecisionValueError):
            rules.map_local(self.URL, files, content_type="text/plain\r\nX: y")


class TestMockJson:
    URL = "https://a.example/v1/*"

    def answer(self, value: Any, *headers: tuple[str, str], method: str = "POST", **how: Any) -> HandlerDecision:
        return decided(rules.mock_json("POST", self.URL, value, **how), request_of("https://a.example/v1/chat", method, *headers))

    @pytest.mark.parametrize("value", [{"a": [1, None]}, ["x"], "text", 5, None, [], ("a", "b")])
    def test_an_object(self, value: Any) -> None:
        decision = self.answer(value, status=201, headers={"X-A": "b"})
        assert json.loads(sent(decision)) == (list(value) if isinstance(value, tuple) else value)
        assert decision.status == 201
        assert dict(decision.headers) == {b"Content-Type": b"application/json", b"X-A": b"b"}

    def test_a_function(self) -> None:
        assert sent(self.answer(lambda request: {"path": request.path})) == b'{"path": "/v1/chat"}'

        async def later(request: RawRequest) -> dict[str, str]:
            await asyncio.sleep(0)
            return {"method": request.method}

        assert sent(self.answer(later, delay=0.001)) == b'{"method": "POST"}'

    @pytest.mark.parametrize("form", [list, iter, lambda events: lambda _: events])
    def test_events(self, form: Any) -> None:
        events = [SseEvent("one\ntwo", event="delta", id="7", retry=10), SseEvent(b"[DONE]")]
        decision = self.answer(form(events), delay=0.001)
        assert dict(decision.headers) == {b"Content-Type": b"text/event-stream", b"Cache-Control": b"no-cache"}
        assert sent(decision) == b"event: delta\nid: 7\nretry: 10\ndata: one\ndata: two\n\ndata: [DONE]\n\n"

    def test_events_serve_many_requests(self) -> None:
        rule = rules.mock_json("POST", self.URL, iter([SseEvent("x")]))
        for _ in range(2):
            assert sent(decided(rule, request_of("https://a.example/v1/", "POST"))) == b"data: x\n\n"

    def test_another_request(self) -> None:
        assert self.answer({}, method="GET") is ALLOW
        assert decided(rules.mock_json("*", self.URL, {}), request_of("https://a.example/v1/", "GET")).status == 200
        assert decided(rules.mock_json("*", self.URL, {}), request_of("https://a.example/v2/", "GET")) is ALLOW

    def test_a_preflight(self) -> None:
        asked = (
            ("Origin", "https://page.example"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type"),
        )
        decision = self.answer({}, *asked, method="OPTIONS", cors=True)
        assert (decision.status, decision.body) == (204, b"")
        headers = {name.lower(): value for name, value in decision.headers}
        assert headers[b"access-control-allow-origin"] == b"https://page.example"
        assert headers[b"access-control-allow-methods"] == b"POST"
        assert headers[b"access-control-allow-headers"] == b"content-type"
        assert headers[b"vary"] == b"Origin"
        assert self.answer({}, *asked, method="OPTIONS") is ALLOW

    def test_an_answer_that_a_page_may_read(self) -> None:
        decision = self.answer({}, ("Origin", "https://page.example"), cors=True)
        assert dict(decision.headers)[b"Access-Control-Allow-Origin"] == b"https://page.example"
        assert b"Access-Control-Allow-Origin" not in dict(self.answer({}, cors=True).headers)

    @pytest.mark.parametrize("value, error", [([SseEvent("x"), 5], TypeError), (object(), TypeError)])
    def test_what_cannot_be_sent_is_said_at_once(self, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error):
            rules.mock_json("GET", self.URL, value)
