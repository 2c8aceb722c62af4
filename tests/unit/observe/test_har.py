"""HAR files: each row of what stands in an entry, the rules of the format, and what `HarSink` leaves of a full disk and of a kill."""

import base64
import gzip
import json
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from soth_mitm.observe import flow_gathering
from soth_mitm.observe.flow_event import FlowEvent
from soth_mitm.observe.flow_gathering import FlowGathering
from soth_mitm.observe.flow_record import FlowMessage, FlowUpdate, Piece, Timings
from soth_mitm.observe.har import har_document, har_entry, text_of
from soth_mitm.observe.har_flow import har_flow
from soth_mitm.observe.har_sink import HarSink
from soth_mitm.observe.har_stored import stored_har_flow
from soth_mitm.observe.masking import Masker
from soth_mitm.observe.store.reader import StoreReader, all_rows
from soth_mitm.observe.store.sink import SqliteSink
from support.full_disk import files_of_at_most
from support.har_rules import problems_of
from support.made_flows import BEGAN, event, exchange, fields, mixed, model_stream, record, refused, sink_info, tunnel, websocket

MASKER = Masker(key=bytes(32))


def entry_of(*updates: FlowUpdate, limit: int = 1 << 20) -> dict[str, Any]:
    gathering = FlowGathering(1 << 30)
    whole = [gathering.add(update) for update in updates][-1]
    assert whole is not None
    entry: dict[str, Any] = json.loads(json.dumps(har_entry(har_flow(whole, MASKER, limit=limit))))
    assert problems_of({"log": {"version": "1.2", "creator": {"name": "x", "version": "1"}, "entries": [entry]}}) == []
    return entry


class TestEntries:
    def test_times(self) -> None:
        entry = entry_of(exchange())
        assert entry["startedDateTime"] == "2025-11-30T10:53:21.000000Z"
        assert entry["timings"] == {"blocked": 1, "dns": -1, "connect": 29, "send": 1, "wait": 259, "receive": 20, "ssl": 18}
        assert entry["time"] == 310

    def test_times_of_a_connection_that_was_kept(self) -> None:
        timings = entry_of(exchange(timings=Timings(decided=0.001, acquired=0.002, sent=0.003, first_byte=0.3, ended=0.31)))["timings"]
        assert timings["connect"] == timings["ssl"] == timings["dns"] == -1
        assert timings["blocked"] == 2

    @pytest.mark.parametrize(
        "timings",
        [
            Timings(),
            Timings(decided=0.1),
            Timings(decided=0.1, acquired=0.2, first_byte=0.25, sent=0.3, ended=0.31),
            Timings(dialled=5.0, tls=6.0, acquired=0.2, ended=0.31),
            Timings(first_byte=9.0),
        ],
    )
    def test_times_are_never_negative(self, timings: Timings) -> None:
        assert entry_of(exchange(timings=timings))["time"] == pytest.approx(310)

    def test_a_plain_exchange(self) -> None:
        sent = fields(host="h", cookie="a=1; b=2", accept="*/*")
        entry = entry_of(exchange(request=b'{"a": 1}', http_version="HTTP/1.1", request_fields=sent))
        request, response = entry["request"], entry["response"]
        assert request["method"] == "POST" and request["url"] == "https://api.example.com/items/1?page=2"
        assert request["httpVersion"] == "HTTP/1.1"
        assert request["queryString"] == [{"name": "page", "value": "2"}]
        assert [each["name"] for each in request["headers"]] == ["host", "cookie", "accept"]
        assert [each["name"] for each in request["cookies"]] == ["a", "b"]
        head = b"POST /items/1?page=2 HTTP/1.1\r\nhost: h\r\ncookie: a=1; b=2\r\naccept: */*\r\n\r\n"
        assert (request["headersSize"], request["bodySize"]) == (len(head), 8)
        assert request["postData"] == {"mimeType": "", "params": [], "text": '{"a": 1}'}
        assert (response["status"], response["statusText"], response["bodySize"]) == (200, "OK", 12)
        assert response["content"] == {"size": 12, "mimeType": "application/json", "text": '{"ok": true}'}
        assert (entry["serverIPAddress"], entry["connection"]) == ("127.0.0.9", "5")

    def test_http2(self) -> None:
        entry = entry_of(exchange())
        assert entry["request"]["httpVersion"] == entry["response"]["httpVersion"] == "http/2.0"
        assert entry["request"]["headersSize"] == entry["response"]["headersSize"] == -1
        assert entry["response"]["statusText"] == ""

    def test_ports(self) -> None:
        assert entry_of(exchange(port=8443))["request"]["url"] == "https://api.example.com:8443/items/1?page=2"
        assert entry_of(exchange(scheme="http", port=80, host="::1", path="/"))["request"]["url"] == "http://[::1]/"
        assert entry_of(exchange(method="OPTIONS", path="*"))["request"]["url"] == "https://api.example.com/"

    def test_compressed_content(self) -> None:
        body = b'{"words": "' + b"alpha " * 500 + b'"}'
        head = fields(content_type="application/json", content_encoding="gzip")
        sent = gzip.compress(body)
        content = entry_of(exchange(response=sent, response_fields=head))["response"]["content"]
        assert content["text"].encode() == body
        assert content["size"] == len(body) and content["compression"] == len(body) - len(sent)
        # an entry without its end
        short = entry_of(exchange(response=sent[:-9], response_size=len(sent), response_fields=head))["response"]["content"]
        assert body.startswith(short["text"].encode()) and short["comment"].startswith("cut")

    def test_content_that_cannot_be_decoded_is_not_shown(self) -> None:
        head = fields(content_type="application/json", content_encoding="gzip")
        entry = entry_of(exchange(response=b'{"password": "hunter2"}', response_fields=head))
        assert "text" not in entry["response"]["content"]
        assert entry["response"]["content"]["comment"].startswith("not shown: gzip")
        assert entry["_sothmitm"]["truncated"] == ["response"]

    def test_binary_content(self) -> None:
        data = b"\x89PNG\r\n\x1a\n\0"
        entry = entry_of(
            exchange(
                request=data,
                response=data,
                request_fields=fields(content_type="image/png"),
                response_fields=fields(content_type="image/png"),
            )
        )
        content = entry["response"]["content"]
        assert content["encoding"] == "base64" and base64.b64decode(content["text"]) == data
        assert entry["request"]["postData"]["text"] == ""
        assert base64.b64decode(entry["request"]["_content"]["text"]) == data

    @pytest.mark.parametrize(
        ("data", "media", "text"),
        [
            ("é".encode(), "text/plain", "é"),
            ("é".encode("latin-1"), "text/plain; charset=latin-1", "é"),
            ("é".encode("latin-1"), "text/plain", None),
            ("é".encode(), "text/plain; charset=no-such", "é"),
            (b"00", "text/plain; charset=hex", "00"),
            (b"a\0", "text/plain", None),
            (b"<svg/>", "image/svg+xml", "<svg/>"),
        ],
    )
    def test_text(self, data: bytes, media: str, text: str | None) -> None:
        assert text_of(data, media) == text

    def test_cut_content(self) -> None:
        entry = entry_of(exchange(response="é".encode() * 50), limit=11)
        assert entry["response"]["content"]["text"] == "é" * 5
        assert entry["response"]["content"]["size"] == 100
        assert entry["_sothmitm"]["truncated"] == ["response"]

    def test_cookies(self) -> None:
        cookie = "sid=1; Path=/; Domain=h; HttpOnly; Secure; SameSite=Lax; Expires=Wed, 21 Oct 2026 07:28:00 GMT"
        shown = entry_of(exchange(response_fields=fields(set_cookie=cookie)))["response"]["cookies"][0]
        assert shown | {"value": ""} == {
            **{"name": "sid", "value": "", "path": "/", "domain": "h", "httpOnly": True, "secure": True, "sameSite": "Lax"},
            "expires": "2026-10-21T07:28:00.000Z",
        }
        odd = entry_of(exchange(response_fields=fields(set_cookie="sid=1; Expires=soon")))["response"]["cookies"][0]
        assert "expires" not in odd

    def test_credentials_are_masked(self) -> None:
        secret = "sk-0123456789abcdef"
        entry = entry_of(
            exchange(
                request=json.dumps({"password": secret}).encode(),
                path=f"/?key={secret}",
                request_fields=fields(authorization=f"Bearer {secret}", cookie=f"sid={secret}"),
                response=json.dumps({"access_token": secret}).encode(),
                response_fields=fields(location=f"/?access_token={secret}", set_cookie=f"sid={secret}"),
            )
        )
        assert secret not in json.dumps(entry)
        assert entry["_sothmitm"]["masked"] == [
            "request.headers.authorization",
            "request.headers.cookie",
            "response.headers.location",
            "response.headers.set-cookie",
            "request.url",
            "request.content",
            "response.content",
        ]
        # as they were received
        assert entry["request"]["bodySize"] == len(json.dumps({"password": secret}))

    def test_websocket(self) -> None:
        updates = websocket(texts=("hello", '{"password": "hunter2"}'))
        updates.insert(1, FlowUpdate(updates[0].record, messages=(FlowMessage(0.1, True, 2, b"\0\1", 2),), missed=3))
        entry = entry_of(*updates)
        assert entry["request"]["url"] == "wss://api.example.com/socket"
        assert entry["_resourceType"] == "websocket"
        assert entry["_webSocketMessages"] == [
            {"type": "receive", "time": BEGAN + 1 + 0.1, "opcode": 2, "data": "AAE="},
            {"type": "send", "time": BEGAN + 1 + 0.5, "opcode": 1, "data": "hello"},
            {"type": "receive", "time": BEGAN + 1 + 0.6, "opcode": 1, "data": '{"password": "masked · under 16 bytes"}'},
        ]
        assert entry["_webSocketClose"] == {"code": 1000, "by": "client"}
        assert entry["_sothmitm"]["missedMessages"] == 3 and "messages" in entry["_sothmitm"]["masked"]

    def test_a_stream(self) -> None:
        entry = entry_of(*model_stream())
        text = entry["response"]["content"]["text"]
        assert text.startswith("event: message_start\n") and text.endswith("\n\n")
        events = entry["_sothmitm"]["events"]
        assert events[0]["at"] == 0.4 and events[-1]["offset"] + events[-1]["size"] == len(text)
        assert text[events[3]["offset"] :].startswith("event: ")

    def test_failures(self) -> None:
        entry = entry_of(exchange(response=b"", status=0, outcome="upstream_error", cause="connection refused", response_fields=()))
        assert entry["response"]["status"] == 0
        assert entry["response"]["_error"] == "connection refused"
        cut = entry_of(exchange(outcome="cut_by_client", cause="the client left"))
        assert cut["response"]["status"] == 200 and cut["response"]["_error"] == "the client left"

    def test_what_is_our_own(self) -> None:
        own = entry_of(exchange(cause="as it was told", grpc_status="0"))["_sothmitm"]
        assert own == {
            **{"flowId": 1, "kind": "http", "outcome": "answered", "protocol": "http2", "program": {"name": "claude", "pid": 48121}},
            **{"cause": "as it was told", "decision": "allowed", "pattern": "api.example.com:443", "upstreamHttpVersion": "HTTP/2"},
            **{"grpcStatus": "0", "upstream": "127.0.0.9:443"},
        }

    def test_what_peers_send_is_no_harm(self) -> None:
        odd = exchange(
            path="/\udcff?a=\ud800",
            method="\u202e",
            request_fields=((b"\xff", b"\xff\0"), (b"content-type", b"text/plain; charset=\xff")),
            response_fields=((b"set-cookie", b";;=;Expires=Wed, 99 Foo 99999999 07:28:00 GMT"),),
            request=b"\xff",
        )
        flow = har_flow(odd, MASKER, limit=100)
        document = b"".join(har_document([flow], "1"))
        assert problems_of(json.loads(document)) == []


class TestDocuments:
    def test_many_flows(self) -> None:
        gathering = FlowGathering(1 << 30)
        flows = (har_flow(flow, MASKER, limit=1 << 20) for flow in map(gathering.add, mixed(200)) if flow is not None)
        har = json.loads(b"".join(har_document(flows, "1.0", "from a store")))
        assert problems_of(har) == []
        assert len(har["log"]["entries"]) == 200
        assert har["log"]["comment"] == "from a store"

    def test_none(self) -> None:
        assert json.loads(b"".join(har_document([], "1.0")))["log"]["entries"] == []

    def test_one_by_one(self) -> None:
        taken = []

        def flows() -> Any:
            for number in range(3):
                taken.append(number)
                yield har_flow(exchange(number), MASKER, limit=100)

        document = har_document(flows(), "1")
        next(document)
        next(document)
        assert taken == [0]


def written(path: Path, updates: list[FlowUpdate | FlowEvent], **options: Any) -> HarSink:
    sink = HarSink(path, **options)
    sink.open(sink_info())
    sink.accept(updates)
    sink.close(1.0)
    return sink


def entries(path: Path) -> list[dict[str, Any]]:
    har = json.loads(path.read_bytes())
    assert problems_of(har) == []
    found: list[dict[str, Any]] = har["log"]["entries"]
    return found


class TestSink:
    def test_it_is_valid_after_each_batch(self, tmp_path: Path) -> None:
        path = tmp_path / "a.har"
        sink = HarSink(path)
        sink.open(sink_info())
        assert entries(path) == []
        for count, update in enumerate([exchange(number) for number in range(1, 9)], 1):
            sink.accept([update, event()])
            assert len(entries(path)) == count
        sink.close(1.0)
        assert [each["_sothmitm"]["flowId"] for each in entries(path)] == list(range(1, 9))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 or sys.platform == "win32"

    def test_flows_that_last(self, tmp_path: Path) -> None:
        path = tmp_path / "a.har"
        written(path, [*model_stream(1)[:-1], *model_stream(2), *websocket(3)[:-1]])
        assert {each["_sothmitm"]["flowId"]: each["_sothmitm"]["outcome"] for each in entries(path)} == {
            1: "open",
            2: "answered",
            3: "open",
        }

    def test_tunnels_only_where_asked_for(self, tmp_path: Path) -> None:
        written(tmp_path / "a.har", [tunnel(1), refused(2), exchange(3)])
        assert [each["_sothmitm"]["flowId"] for each in entries(tmp_path / "a.har")] == [3]
        written(tmp_path / "b.har", [tunnel(1), refused(2), exchange(3)], tunnels=True)
        assert [each["request"]["method"] for each in entries(tmp_path / "b.har")] == ["CONNECT", "CONNECT", "GET"]

    def test_calls_of_models(self, tmp_path: Path) -> None:
        written(tmp_path / "a.har", [*model_stream(1), exchange(2)])
        call, other = (each["_sothmitm"].get("modelCall") for each in entries(tmp_path / "a.har"))
        assert other is None
        assert (call["provider"], call["model"], call["tokens"]["output"]) == ("anthropic", "claude-sonnet-4-5", 318)
        assert call["tools"] == ["read_file"]
        # what was said is in the content, masked
        assert "text" not in call

    def test_options(self, tmp_path: Path) -> None:
        update = exchange(request_fields=fields(authorization="Bearer x", x_team="7"))
        written(tmp_path / "a.har", [update], mask=("x-team",), content=5)
        entry = entries(tmp_path / "a.har")[0]
        assert [each["value"] for each in entry["request"]["headers"]] == ["Bearer masked · under 16 bytes", "masked · under 16 bytes"]
        assert entry["response"]["content"]["text"] == '{"ok"'
        written(tmp_path / "a.har", [update], unmasked=True)
        assert entries(tmp_path / "a.har")[0]["request"]["headers"][0]["value"] == "Bearer x"

    @pytest.mark.parametrize("options", [{"content": -1}, {"most_bytes": 10}, {"mask": ("a b",)}])
    def test_wrong_arguments(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError):
            HarSink("a.har", **options)

    def test_no_more_than_it_may(self, tmp_path: Path) -> None:
        path = tmp_path / "a.har"
        sink = written(path, [exchange(number) for number in range(100)], most_bytes=10_000)
        assert path.stat().st_size <= 10_000
        assert sink.left_out + len(entries(path)) == 100 and len(entries(path)) > 3

    def test_a_full_disk_loses_what_does_not_fit_and_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / "a.har"
        sink = HarSink(path)
        sink.open(sink_info())
        sink.accept([exchange(1)])
        with files_of_at_most(path.stat().st_size + 200):
            sink.accept([exchange(2), exchange(3)])
        assert (sink.lost, sink.write_errors) == (2, 1) and "a.har" in (sink.last_error or "")
        assert [each["_sothmitm"]["flowId"] for each in entries(path)] == [1]
        sink.accept([exchange(4)])
        sink.close(1.0)
        assert [each["_sothmitm"]["flowId"] for each in entries(path)] == [1, 4]

    def test_no_room_at_all_is_told_at_start(self, tmp_path: Path) -> None:
        with files_of_at_most(20), pytest.raises(OSError, match="a.har"):
            HarSink(tmp_path / "a.har").open(sink_info())

    @pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
    def test_a_kill_leaves_all_that_was_written(self, tmp_path: Path) -> None:
        code = (
            "from support.made_flows import exchange, sink_info; from soth_mitm.observe.har_sink import HarSink\n"
            f"sink = HarSink({str(tmp_path / 'a.har')!r}); sink.open(sink_info())\n"
            "for number in range(1, 1000000):\n"
            "    sink.accept([exchange(number)]); print(number, flush=True)\n"
        )
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True)
        assert child.stdout is not None
        told = 0
        while told < 300:
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        child.wait()
        child.stdout.close()
        told = int(([str(told)] + [line for line in rest.splitlines(keepends=True) if line.endswith("\n")])[-1])
        # an entry is a line; the last ones may lack their end
        lines = (tmp_path / "a.har").read_bytes().split(b"\n")[1 : told + 1]
        assert [json.loads(line.removesuffix(b","))["_sothmitm"]["flowId"] for line in lines] == list(range(1, told + 1))


def test_what_a_store_has_gives_the_same_entries(tmp_path: Path) -> None:
    updates = [exchange(1, request=b'{"ask": "it"}'), *model_stream(2), *websocket(3), tunnel(4), exchange(5)]
    sink = SqliteSink(tmp_path / "flows.db", min_free_bytes=0, full_text="off", max_age=1e12)
    sink.open(sink_info())
    sink.accept(updates)
    sink.close(5.0)
    written(tmp_path / "a.har", list(updates), tunnels=True)
    expected = entries(tmp_path / "a.har")
    with StoreReader(tmp_path / "flows.db") as reader:
        rows = sorted(all_rows(reader), key=lambda row: row.started)
        contents = [reader.flow(row.id) for row in rows]
    stored = json.loads(b"".join(har_document((stored_har_flow(each) for each in contents if each is not None), "1")))
    assert problems_of(stored) == []
    assert len(stored["log"]["entries"]) == len(expected) == 5
    for entry, other in zip(stored["log"]["entries"], expected, strict=True):
        for each in (entry, other):
            # masked with another key, and numbered anew
            each.pop("_sothmitm")
            for headers in (each["request"]["headers"], each["response"]["headers"]):
                headers[:] = [header for header in headers if not header["value"].startswith("masked ")]
        assert entry == other


class TestGathering:
    def test_no_more_is_held_than_it_may(self) -> None:
        gathering = FlowGathering(1000)
        one, two = record(1, is_over=False), record(2, is_over=False)
        message = FlowMessage(0.3, True, 1, b"z" * 700, 700)
        assert gathering.add(FlowUpdate(one, (Piece(0.1, True, b"x" * 700),))) is None
        # its own is not forgotten for more of the same
        assert gathering.add(FlowUpdate(one, (Piece(0.2, True, b"y" * 700),), (message,))) is None
        # of one that is heard of later it is
        assert gathering.add(FlowUpdate(two, (), (message,))) is None
        whole = gathering.add(FlowUpdate(record(1), (Piece(0.3, True, b"w"),)))
        assert whole is not None
        assert [piece.data[:1] for piece in whole.pieces] == [b"w"]
        assert whole.missed == 1
        whole = gathering.add(FlowUpdate(record(2)))
        assert whole is not None and len(whole.messages) == 1
        # there is room again
        gathering.add(FlowUpdate(record(3, is_over=False), (Piece(0.1, True, b"x" * 700),)))
        assert [len(flow.pieces) for flow in gathering.rest()] == [1]
        assert gathering.rest() == []

    def test_flows_whose_end_was_dropped_are_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flow_gathering, "MOST_OPEN", 10)
        gathering = FlowGathering(1 << 30)
        for number in range(100):
            gathering.add(FlowUpdate(record(number, is_over=False), (Piece(0.1, True, b"x"),)))
        assert [flow.record.flow_id for flow in gathering.rest()] == list(range(90, 100))
