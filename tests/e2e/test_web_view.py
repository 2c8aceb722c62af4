"""The web view's server over a real store: who is answered, what is told, what changes are told of, and that no proxy leads to it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from soth_mitm import BindError, HandlerDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, RawRequest
from soth_mitm.cli.commands import cli
from soth_mitm.errors import StoreError
from soth_mitm.observe.store.schema import open_for_writing
from soth_mitm.proxy import generation
from soth_mitm.proxy.resolver import Resolver
from soth_mitm.views.access import HEADERS
from soth_mitm.views.serving import open_view_socket
from soth_mitm.views.store_source import StoreSource
from support import made_flows as made
from support.made_store import MadeStore, lately
from support.origin import Origin
from support.running import Running
from support.viewing import RunningView, viewing
from support.wire_client import WireClient

OWN = {name.decode(): value.decode() for name, value in HEADERS}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MadeStore]:
    with MadeStore(tmp_path) as running:
        yield running


@contextmanager
def view_of(path: Path) -> Iterator[RunningView]:
    source = StoreSource(path)
    try:
        with viewing(source) as running:
            yield running
    finally:
        source.close()


@pytest.fixture
def view(store: MadeStore) -> Iterator[RunningView]:
    with view_of(store.path) as running:
        yield running


class TestWhoIsAnswered:
    def test_the_page_and_its_files(self, view: RunningView) -> None:
        page = view.ask("/")
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        text = page.body.decode()
        for path, kind in (("/view.css", "text/css"), ("/main.js", "text/javascript"), ("/details.js", "text/javascript")):
            found = view.ask(path)
            assert (found.status, found.headers["content-type"].partition(";")[0]) == (200, kind)
        assert "<script>" not in text and "style=" not in text and "http:" not in text and "https:" not in text

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Host": "evil.example"}, 403),
            ({"Host": None}, 400),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Sec_Fetch_Site": "cross-site"}, 403),
            ({"Sec_Fetch_Site": "same-site"}, 403),
            ({"Authorization": None}, 401),
            ({"Authorization": "Bearer x"}, 401),
            ({"Sec_Fetch_Site": "same-origin"}, 200),
            ({}, 200),
        ],
        ids=repr,
    )
    def test_questions(self, view: RunningView, headers: dict[str, str | None], status: int) -> None:
        view.begin()
        for path in ("/api/overview", "/api/flows", "/api/lines", "/api/export" if status != 200 else "/api/flows"):
            reply = view.ask(path, **headers)
            assert reply.status == status, (path, reply)
            if status in (401, 403):
                assert reply.json["error"] and "evil" not in reply.json["error"]

    @pytest.mark.parametrize("path", ["/", "/main.js", "/api/flows", "/nothing", "/../access.py", "/web/index.html", "/api/flows/7"])
    def test_every_answer_has_the_headers(self, view: RunningView, path: str) -> None:
        for authorization in (None, f"Bearer {view.begin().key}" if not view.key else f"Bearer {view.key}"):
            reply = view.ask(path, Authorization=authorization)
            assert {name: reply.headers.get(name) for name in OWN} == OWN
            assert (
                "set-cookie" not in reply.headers and "access-control-allow-origin" not in reply.headers and "server" not in reply.headers
            )

    def test_the_secret_opens_once(self, view: RunningView) -> None:
        exchange = partial(view.ask, "/api/session", method="POST", body=json.dumps({"secret": view.secret}))
        assert exchange(Origin="http://evil.example").status == 403
        assert exchange(Host="evil.example").status == 403
        first = exchange()
        assert first.status == 200 and len(first.json["key"]) > 40
        assert exchange().status == 403
        view.key = first.json["key"]
        assert view.ask("/api/overview").status == 200

    @pytest.mark.parametrize(
        ("body", "status"), [(b"", 403), (b"{", 403), (b"[]", 403), (b'{"secret": 7}', 403), (b'{"secret": "x"}', 403), (b"x" * 5000, 413)]
    )
    def test_what_is_no_secret(self, view: RunningView, body: bytes, status: int) -> None:
        assert view.ask("/api/session", method="POST", body=body).status == status
        assert view.begin().key

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
    def test_nothing_can_be_changed(self, view: RunningView, method: str) -> None:
        view.begin()
        for path in ("/", "/api/flows", "/api/flows/1", "/api/overview"):
            assert view.ask(path, method=method).status == 405

    def test_a_websocket_is_not_opened(self, view: RunningView) -> None:
        reply = view.ask("/api/changes", Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Version="13", Sec_WebSocket_Key="eA==")
        assert reply.status == 401

    @pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
    def test_other_machines_are_not_served(self, bind: str) -> None:
        with pytest.raises(BindError, match="loopback address only.*ssh -L"):
            open_view_socket(bind)

    def test_over_ipv6(self, store: MadeStore) -> None:
        source = StoreSource(store.path)
        with viewing(source, "[::1]:0") as running, socket.create_connection(("::1", running.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: [::1]:%d\r\n\r\n" % running.port)
            assert client.recv(12) == b"HTTP/1.1 200"
        source.close()


class TestWhatIsTold:
    def test_nothing_yet(self, view: RunningView) -> None:
        view.begin()
        overview = view.ask("/api/overview").json
        assert (overview["flows"], overview["is_live"], overview["notes"]) == (0, True, [])
        assert overview["next_command"] == 'eval "$(soth-mitm ca env --proxy http://127.0.0.1:8080)"'
        assert view.ask("/api/flows").json["ids"] == []

    def test_the_whole(self, store: MadeStore, view: RunningView) -> None:
        store.add(*lately(made.mixed(300), 300))
        store.drop(3)
        store.add(made.tunnel(1000))
        view.begin()
        overview = view.ask("/api/overview").json
        assert (overview["flows"], overview["dropped"]) == (301, 3)
        for facet in (*overview["views"], *overview["programs"], *overview["hosts"]):
            found = view.ask(f"/api/flows?filter={facet['filter'].replace('=', '%3D').replace(':', '%3A')}").json
            assert found["total"] == facet["count"] > 0, facet
        assert sum(map(sum, overview["strip"])) == 300
        everything = view.ask("/api/flows").json
        assert everything["total"] == len(everything["ids"]) == 301 and len(everything["steps"]) == 300
        calls = view.ask("/api/flows?filter=is%3Allm").json
        assert calls["tokens_in"] == 14_902 * calls["total"] and calls["tokens_out"] == 318 * calls["total"]

    def test_lines_are_those_asked_for(self, store: MadeStore, view: RunningView) -> None:
        store.add(*made.mixed(20))
        ids = view.begin().ask("/api/flows").json["ids"]
        wanted = [ids[5], ids[2], 999_999, ids[7]]
        assert [line["id"] for line in view.ask(f"/api/lines?ids={','.join(map(str, wanted))}").json] == [ids[5], ids[2], ids[7]]
        assert view.ask("/api/lines?ids=").json == []
        assert view.ask("/api/lines?ids=1,x").status == 400

    def test_a_filter_that_cannot_be_read(self, view: RunningView) -> None:
        view.begin()
        for path in ("/api/flows", "/api/changes"):
            reply = view.ask(f"{path}?filter=method%3AGET%20hots%3Ax")
            assert reply.status == 400
            assert (reply.json["at"], reply.json["filter"]) == (11, "method:GET hots:x")
            assert 'did you mean "host"' in reply.json["error"]

    def test_one_flow(self, store: MadeStore, view: RunningView) -> None:
        store.add(made.exchange(request=b'{"ask": 1}', response=b'{"ok": true}', path="/a?b=c"))
        flow = view.begin().ask("/api/flows").json["ids"][0]
        details = view.ask(f"/api/flows/{flow}").json
        assert details["line"]["path"] == "/a?b=c" and details["line"]["program"] == "claude"
        assert ["user-agent", "made/1.0"] in details["request_fields"]
        assert details["timings"]["first_byte"] == 0.29 and details["losses"] == []
        body = view.ask(f"/api/flows/{flow}/response/body").json
        assert (body["text"], body["is_binary"], body["decoded"], body["media"]) == ('{"ok": true}', False, 12, "application/json")
        raw = view.ask(f"/api/flows/{flow}/request/body?as=bytes")
        assert (raw.body, raw.headers["content-type"]) == (b'{"ask": 1}', "application/octet-stream")
        command = view.ask(f"/api/flows/{flow}/curl").json["command"]
        assert command.startswith("curl 'https://api.example.com/a?b=c'") and "--data-raw '{\"ask\": 1}'" in command

    def test_a_har_file(self, store: MadeStore, view: RunningView) -> None:
        store.add(*made.mixed(60))
        view.begin()
        entries = json.loads(view.ask("/api/export?filter=is%3Allm").body)["log"]["entries"]
        assert len(entries) == view.ask("/api/flows?filter=is%3Allm").json["total"] > 0
        assert [entry["startedDateTime"] for entry in entries] == sorted(entry["startedDateTime"] for entry in entries)
        assert all("sk-ant-secret" not in json.dumps(entry) for entry in entries)
        assert view.ask("/api/export?filter=hots%3Ax").status == 400

    @pytest.mark.parametrize("part", ["", "/messages", "/conversation", "/curl", "/request/body", "/response/body"])
    def test_a_flow_that_is_not_kept(self, view: RunningView, part: str) -> None:
        reply = view.begin().ask(f"/api/flows/4711{part}")
        assert reply.status == 404 and "not kept" in reply.json["error"]

    def test_html_is_never_served_as_such(self, store: MadeStore, view: RunningView) -> None:
        page = b"<script>alert(1)</script>"
        store.add(made.exchange(response=page, response_fields=made.fields(content_type="text/html")))
        svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
        store.add(made.exchange(2, response=svg, response_fields=made.fields(content_type="image/svg+xml")))
        view.begin()
        for flow in view.ask("/api/flows").json["ids"]:
            for wanted in ("bytes", "picture", "html"):
                reply = view.ask(f"/api/flows/{flow}/response/body?as={wanted}")
                assert reply.headers["content-type"] == "application/octet-stream"
                assert reply.headers["x-content-type-options"] == "nosniff"

    def test_a_call_of_a_model_while_it_answers(self, store: MadeStore, view: RunningView) -> None:
        updates = made.model_stream(parts=8)
        store.add(updates[0])
        view.begin()
        (flow,) = view.ask("/api/flows").json["ids"]
        texts = []
        for update in updates[1:]:
            store.add(update)
            found = view.ask(f"/api/flows/{flow}/conversation").json
            texts.append(found["call"]["text"])
            assert [turn["role"] for turn in found["turns"]] == ["user"]
        assert texts == sorted(texts, key=len) and texts[-1] == "".join(made.ANSWERED) and len(set(texts)) > 2
        call = found["call"]
        assert (call["tokens"]["input"], call["tokens"]["output"], call["stop"]) == (14_902, 318, "tool_use")
        assert [tool["name"] for tool in call["tools"]] == ["read_file"]
        only = view.ask(f"/api/flows/{flow}/conversation?part=answer").json
        assert only["call"] == call and only["turns"] == []

    def test_what_an_earlier_call_had_said(self, store: MadeStore, view: RunningView) -> None:
        said: list[dict[str, str]] = []
        for number in range(3):
            said = [*said, {"role": "user", "content": f"question {number}"}]
            body = json.dumps({"model": "m", "max_tokens": 9, "system": "Be short.", "messages": said}).encode()
            answer = json.dumps({"type": "message", "model": "m", "content": [{"type": "text", "text": f"answer {number}"}]}).encode()
            store.add(made.exchange(number + 1, body, answer, host="api.anthropic.com", path="/v1/messages"))
            said = [*said, {"role": "assistant", "content": f"answer {number}"}]
        view.begin()
        third, second, first = view.ask("/api/flows").json["ids"]
        assert view.ask(f"/api/flows/{first}/conversation").json["earlier"] is None
        assert view.ask(f"/api/flows/{second}/conversation").json["earlier"] == {"flow": first, "count": 2}
        assert view.ask(f"/api/flows/{third}/conversation").json["earlier"] == {"flow": second, "count": 4}

    def test_messages_come_from_where_one_was(self, store: MadeStore, view: RunningView) -> None:
        updates = made.websocket(texts=[f"message {number}" for number in range(10)])
        store.add(*updates[:6])
        view.begin()
        (flow,) = view.ask("/api/flows").json["ids"]
        first = view.ask(f"/api/flows/{flow}/messages").json
        assert (first["total"], [each["text"] for each in first["messages"]]) == (5, [f"message {number}" for number in range(5)])
        store.add(*updates[6:])
        rest = view.ask(f"/api/flows/{flow}/messages?after=5").json["messages"]
        assert [(each["number"], each["text"]) for each in rest] == [
            *((number, f"message {number}") for number in range(5, 10)),
            (10, "1000"),
        ]
        assert [each["to_client"] for each in first["messages"]] == [False, True, False, True, False]

    def test_what_was_lost_is_said(self, tmp_path: Path) -> None:
        with MadeStore(tmp_path, content=100) as store, view_of(store.path) as view:
            store.add(made.exchange(response=b"a" * 500, response_fields=made.fields(content_type="text/plain")))
            store.add(made.exchange(2, response=b"\x89PNG" + bytes(50), response_fields=made.fields(content_type="image/png")))
            view.begin()
            binary, text = view.ask("/api/flows").json["ids"]
            assert view.ask(f"/api/flows/{text}").json["losses"] == ["Of the response: the beginning of 500 bytes is kept."]
            assert "only the size is kept (54 bytes)" in view.ask(f"/api/flows/{binary}").json["losses"][0]
            assert view.ask(f"/api/flows/{text}/response/body").json["lost"]


class TestChanges:
    def test_what_passes_is_told(self, store: MadeStore, view: RunningView) -> None:
        store.add(made.exchange(1))
        view.begin()
        revision = view.ask("/api/flows").json["revision"]
        with view.events(f"/api/changes?since={revision}&filter=host%3Aexample") as events:
            assert next(events)[0] == "overview"
            store.add(made.exchange(2), made.exchange(3, host="elsewhere.test"))
            found = next(data for name, data in events if name == "changes")
            assert [line["path"] for line in found["lines"]] == ["/items/2?page=2"] and len(found["others"]) == 1
            store.add(made.opened(made.exchange(4)))
            assert [line["is_open"] for line in next(data for name, data in events if name == "changes")["lines"]] == [True]
            store.add(made.exchange(4))
            assert [line["is_open"] for line in next(data for name, data in events if name == "changes")["lines"]] == [False]

    def test_a_page_that_comes_back_goes_on_where_it_was(self, store: MadeStore, view: RunningView) -> None:
        view.begin()
        store.add(made.exchange(1))
        revision = view.ask("/api/flows").json["revision"]
        store.add(made.exchange(2))
        store.add(made.exchange(3))
        with view.events(f"/api/changes?since={revision}") as events:
            name, found = next(events)
            assert name == "changes" and [line["path"] for line in found["lines"]] == ["/items/2?page=2", "/items/3?page=2"]

    def test_figures_follow(self, store: MadeStore, view: RunningView) -> None:
        view.begin()
        with view.events("/api/changes") as events:
            assert next(events)[1]["flows"] == 0
            store.add(made.exchange(1))
            assert next(data["flows"] for name, data in events if name == "overview" and data["flows"]) == 1

    def test_the_end_is_not_held_up(self, store: MadeStore) -> None:
        source = StoreSource(store.path)
        with viewing(source) as running:
            running.begin()
            with running.events("/api/changes") as events:
                next(events)
                running.server.stop()
                assert list(events) == []
        source.close()


class TestStores:
    def test_one_that_nobody_writes(self, tmp_path: Path) -> None:
        with MadeStore(tmp_path) as store:
            store.add(made.opened(made.exchange(1)), made.exchange(2))
        with view_of(store.path) as view:
            overview = view.begin().ask("/api/overview").json
            assert (overview["flows"], overview["is_live"], overview["open"]) == (2, False, 0)
            assert overview["next_command"].startswith("soth-mitm run ")
            lines = view.ask(f"/api/lines?ids={','.join(map(str, view.ask('/api/flows').json['ids']))}").json
            assert sorted((line["is_open"], line["is_lost"]) for line in lines) == [(False, False), (False, True)]

    def test_one_whose_proxy_vanished(self, tmp_path: Path) -> None:
        with MadeStore(tmp_path) as store:
            store.add(made.exchange(1))
        with sqlite3.connect(store.path) as database:
            database.execute("update session set ended = null, pid = 2147483646")
        database.close()
        with view_of(store.path) as view:
            (note,) = view.begin().ask("/api/overview").json["notes"]
            assert "without a goodbye" in note

    def test_one_that_is_read_while_it_is_searched(self, store: MadeStore, view: RunningView) -> None:
        """A slow question does not keep the others waiting: each has a connection of its own, and the loop waits for none."""
        store.add(*made.mixed(2000))
        view.begin()
        done: list[int] = []
        slow = threading.Thread(target=lambda: done.append(view.ask("/api/flows?filter=body~%22z%7B40%7D%22").status))
        slow.start()
        quick = [view.ask("/api/lines?ids=1,2,3").status for _ in range(5)]
        slow.join()
        assert quick == [200] * 5 and done == [200]

    def test_what_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="there is no flow store"):
            StoreSource(tmp_path / "nothing.db")
        (tmp_path / "text").write_bytes(b"no database, but a text that is long enough to be one" * 100)
        with pytest.raises(StoreError, match="is no flow store"):
            StoreSource(tmp_path / "text")
        later = tmp_path / "later.db"
        database = open_for_writing(later)
        database.execute("update meta set value = 99 where key = 'schema'")
        database.close()
        with pytest.raises(StoreError, match="version 99"):
            StoreSource(later)


VIEW = (sys.executable, "-m", "soth_mitm", "view")


class TestCommand:
    @contextmanager
    def started(self, *arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
        process = subprocess.Popen([*VIEW, "--no-open", *map(str, arguments)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().removeprefix("view").strip()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    @pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
    def test_it_serves_until_a_signal(self, store: MadeStore, sent: signal.Signals) -> None:
        with self.started(store.path) as (process, url):
            address, _, secret = url.partition("#secret=")
            port = int(address.rstrip("/").rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
                assert client.recv(12) == b"HTTP/1.1 200" and len(secret) > 40
            process.send_signal(sent)
            assert process.wait(20) == 0

    def test_a_port_that_is_taken(self, store: MadeStore) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            done = subprocess.run([*VIEW, "--no-open", "--port", port, store.path], capture_output=True, text=True, check=False)
        assert done.returncode == 22 and "another program listens there; choose another --port" in done.stderr

    def test_a_store_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "x.db").write_text("hello " * 1000)
        for name, what in (("nothing.db", "there is no flow store at"), ("x.db", "is no flow store")):
            done = subprocess.run([*VIEW, "--no-open", tmp_path / name], capture_output=True, text=True, check=False)
            assert done.returncode == 22 and what in done.stderr and "Traceback" not in done.stderr, done.stderr

    def test_beside_a_proxy(self, tmp_path: Path) -> None:
        """`run --view`: the proxy keeps its clients away from it, and it ends with the proxy."""
        run = (sys.executable, "-m", "soth_mitm", "run", "--bind", "127.0.0.1:0", "--destination", "a.example:443", "--view", "127.0.0.1:0")
        environment = {**os.environ, "SOTH_MITM_STATE_DIR": str(tmp_path / "state"), "COLUMNS": "200"}
        process = subprocess.Popen(run, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        try:
            proxy = view = 0
            for line in process.stdout:
                if line.startswith("listening on"):
                    proxy = int(line.rpartition(":")[2])
                if line.startswith("view"):
                    view = int(line.partition("/#")[0].rpartition(":")[2])
                    break
            assert proxy and view
            with socket.create_connection(("127.0.0.1", view)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % view)
                assert client.recv(12) == b"HTTP/1.1 200"
            with WireClient(proxy) as client:
                client.send(f"GET http://localhost:{view}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                answer = client.read_answer()
                assert (answer.status, "where flows are shown" in answer.text) == (403, True)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", view))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def test_a_view_of_nothing(self) -> None:
        result = CliRunner().invoke(cli, ["run", "--destination", "a.example:443", "--no-store", "--view"])
        assert result.exit_code == 2 and "--view shows what is kept" in result.stderr

    def test_without_the_extra(self, store: MadeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        result = CliRunner().invoke(cli, ["view", "--no-open", str(store.path)])
        assert result.exit_code == 22 and "the extra `view` brings: pip install 'soth-mitm[view]'" in result.stderr


SPELLINGS = [
    *(
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "[::]",
        "127.1",
        "2130706433",
        "0x7f000001",
    ),
    *("0177.0.0.1", "127.0.0.1.", "0.0.0.1", "１２７.0.0.1"),
]


class TestNoWayThroughTheProxy:
    """A view is not to be read by whoever may use the proxy (CVE-2025-23217 was that of another one)."""

    @pytest.fixture
    def guarded(self, view: RunningView, make_config: Callable[..., MitmConfig]) -> Iterator[Callable[..., Running]]:
        started: list[Any] = []

        def start(handler: object | None = None, **keys: object) -> Running:
            config = make_config(destinations=("*:*",), **keys)
            proxy = MitmProxyBuilder(config, handler or InterceptHandler()).with_view_at("127.0.0.1", view.port).build()
            started.append(proxy.start_in_thread())
            return Running(started[-1], handler)

        yield start
        for each in started:
            each.shutdown(1)

    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_by_address_and_by_name(self, view: RunningView, guarded: Callable[..., Running], spelling: str) -> None:
        running = guarded(**{"upstream.connect_timeout_ms": 500})
        target = f"{spelling}:{view.port}"
        for how in ("connect", "absolute"):
            with running.client() as client:
                if how == "connect":
                    client.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
                    answer = client.read_answer("CONNECT")
                    if answer.status == 200:
                        answer = client.request("/", target)
                else:
                    client.send(f"GET http://{target}/ HTTP/1.1\r\nHost: 127.0.0.1:{view.port}\r\n\r\n".encode())
                    answer = client.read_answer()
                assert answer.status in (400, 403, 502, 504), (how, answer)
                assert "soth-mitm</span>" not in answer.text

    def test_by_a_name_that_a_name_server_leads_here(
        self, view: RunningView, guarded: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def look_up(host: str) -> tuple[str, ...]:
            return ("127.0.0.1",)

        monkeypatch.setattr(generation, "Resolver", partial(Resolver, look_up=look_up))
        with guarded().client() as client:
            client.send(f"GET http://innocent.test:{view.port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = client.read_answer()
            assert (answer.status, "where flows are shown" in answer.text) == (403, True)

    def test_by_a_redirect_of_the_handler(self, view: RunningView, guarded: Callable[..., Running], plain_origin: Origin) -> None:
        class Leads(InterceptHandler):
            def on_request(self, request: RawRequest) -> HandlerDecision:
                return HandlerDecision.forward(to=f"http://127.0.0.1:{view.port}")

        with guarded(Leads()).client() as client:
            client.send(b"GET http://localhost:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % plain_origin.port)
            answer = client.read_answer()
            assert (answer.status, "where flows are shown" in answer.text) == (403, True)

    def test_others_are_reached(self, guarded: Callable[..., Running], plain_origin: Origin) -> None:
        with guarded().client() as client:
            client.send(b"GET http://localhost:%d/bytes/3 HTTP/1.1\r\nHost: x\r\n\r\n" % plain_origin.port)
            assert client.read_answer().status == 200

    def test_only_loopback_addresses_are_named(self, make_config: Callable[..., MitmConfig]) -> None:
        for host in ("192.0.2.1", "localhost", "0.0.0.0", ""):
            with pytest.raises(ValueError, match="no loopback address"):
                MitmProxyBuilder(make_config()).with_view_at(host, 80)


def test_the_clock_of_flows_is_the_machine_s(store: MadeStore) -> None:
    store.add(*lately([made.exchange(1)], 1))
    source = StoreSource(store.path)
    (flow,) = source.index("").ids
    assert abs(source.lines([flow])[0].started - time.time()) < 60
    source.close()
