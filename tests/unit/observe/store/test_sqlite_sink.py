"""What a store keeps of the updates that its sink is given, and what of them it does not."""

import gzip
import os
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from soth_mitm.errors import FilterError, StoreError
from soth_mitm.observe import SqliteSink
from soth_mitm.observe.flow_record import FlowUpdate, Piece
from soth_mitm.observe.store.reader import StoreReader
from soth_mitm.observe.store.schema import make_file
from support.made_flows import ANSWERED, BEGAN, exchange, fields, model_stream, opened, record, refused, sink_info, tunnel, websocket

AGES = 1e10

Opened = Callable[..., tuple[SqliteSink, StoreReader]]


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Opened]:
    """Open a sink and a reader of one file."""
    made: list[tuple[SqliteSink, StoreReader]] = []

    def open_(name: str = "flows.db", **options: object) -> tuple[SqliteSink, StoreReader]:
        given = {"min_free_bytes": 0, "full_text": "off", "max_age": AGES} | options
        sink = SqliteSink(tmp_path / name, **given)  # type: ignore[arg-type]
        sink.open(sink_info(pid=os.getpid(), started=2e9))
        made.append((sink, StoreReader(tmp_path / name)))
        return made[-1]

    yield open_
    for sink, reader in made:
        reader.close()
        sink.close(5)


def test_an_exchange_is_kept_whole(open_store: Opened) -> None:
    sink, reader = open_store()
    sink.accept([exchange(1, b'{"ask": 1}', b'{"answer": 2}', response_trailers=fields(x_sum="7"))])
    (row,) = reader.flows().rows
    assert (row.id, row.method, row.url, row.status) == (1, "POST", "https://api.example.com/items/1?page=2", 200)
    assert (row.state, row.outcome, row.program, row.pid, row.client) == ("over", "answered", "claude", 48121, "127.0.0.1:50001")
    assert (row.request_bytes, row.response_bytes, row.media, row.took, row.first_byte) == (10, 13, "application/json", 0.31, 0.29)
    content = reader.flow(1)
    assert content is not None
    assert (content.request.body, content.response.body) == (b'{"ask": 1}', b'{"answer": 2}')
    assert content.response.fields[0] == (b"content-type", b"application/json")
    assert content.response.trailers == ((b"x-sum", b"7"),)
    assert content.detail.upstream_address == ("127.0.0.9", 443)
    assert content.detail.timings.dialled == 0.029
    assert reader.flow(2) is None


def test_what_was_not_observed_is_unknown(open_store: Opened) -> None:
    sink, reader = open_store()
    sink.accept([opened(exchange(1, connection=record(1).connection.replace(process_info=None)))])
    (row,) = reader.flows().rows
    assert (row.took, row.pid, row.tokens_in, row.first_token, row.provider) == (None, None, None, None, None)
    assert row.state == "open" and row.outcome == ""


def test_an_open_flow_grows(open_store: Opened) -> None:
    sink, reader = open_store()
    first, *middle, last = model_stream(1, parts=4)
    sink.accept([first])
    (row,) = reader.flows().rows
    assert (row.state, row.provider, row.model, row.tokens_in, row.status) == ("open", "anthropic", "claude-sonnet-4-5", None, 0)
    before = row.revision
    sink.accept(middle)
    changes = reader.changes(before)
    assert [each.id for each in changes.rows] == [1] and changes.revision > before
    request, response = reader.pieces(1)
    assert len(request) == 1 and sum(len(piece.chunks) for piece in response) > 1
    sink.accept([last])
    more = reader.pieces(1, request=len(request), response=len(response))
    assert more[0] == [] and len(more[1]) == 1
    (row,) = reader.flows().rows
    assert (row.state, row.tokens_in, row.tokens_out, row.tokens_cached) == ("over", 14_902, 318, 13_824)
    assert (row.stop, row.tools) == ("tool_use", "read_file")
    assert row.first_token is not None and 0.4 < row.first_token < 2
    content = reader.flow(1)
    assert content is not None and content.detail.call is not None
    assert content.detail.call["text"] == "".join(ANSWERED)
    kinds = [event.event_type for event in content.events()]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    times = [event.at for event in content.events()]
    assert times == sorted(times) and times[0] < times[-1]


def test_a_websocket_is_kept_by_messages(open_store: Opened) -> None:
    sink, reader = open_store()
    updates = websocket(1, ["ping", "pong", '{"password": "correct horse battery"}'])
    binary = msgspec.structs.replace(updates[1].messages[0], opcode=2, data=b"\0\1", size=2, at=1.0)
    sink.accept([*updates[:-1], FlowUpdate(updates[0].record, messages=(binary,), missed=3), updates[-1]])
    content = reader.flow(1)
    assert content is not None
    assert [(each.opcode, each.to_client) for each in content.messages][:2] == [(1, False), (1, True)]
    assert content.messages[0].data == b"ping"
    assert b"horse" not in content.messages[2].data and b"masked" in content.messages[2].data
    assert [(each.data, each.size) for each in content.messages if each.opcode == 2] == [(b"", 2)]
    assert content.detail.missed == 3
    assert content.detail.websocket_close == (1000, "client")


def test_tunnels_and_refusals_have_rows(open_store: Opened) -> None:
    sink, reader = open_store()
    sink.accept([tunnel(1), refused(2)])
    assert [row.url for row in reader.flows("is:tunnel").rows] == ["updates.example.com:443"]
    (row,) = reader.flows("is:blocked").rows
    assert row.reason.startswith("not listed") and row.status == 403


def test_content_codings_are_removed(open_store: Opened) -> None:
    sink, reader = open_store()
    coded = gzip.compress(b'{"words": "alpha beta"}')
    sink.accept([exchange(1, response=coded, response_fields=fields(content_type="application/json", content_encoding="gzip"))])
    sink.accept([exchange(2, response=b"no gzip", response_fields=fields(content_type="text/plain", content_encoding="gzip"))])
    one, two = reader.flow(1), reader.flow(2)
    assert one is not None and two is not None
    assert one.response.text == '{"words": "alpha beta"}' and one.row.response_bytes == len(coded)
    assert two.response.is_undecoded and two.response.body == b""


def test_no_more_is_unpacked_than_is_kept(open_store: Opened) -> None:
    sink, reader = open_store(content=10_000)
    coded = gzip.compress(b"a" * 5_000_000)
    sink.accept([exchange(1, response=coded, response_fields=fields(content_type="text/plain", content_encoding="gzip"))])
    content = reader.flow(1)
    assert content is not None
    assert content.response.is_shortened and len(content.response.body) == 10_000


def test_no_more_is_kept_than_is_asked_for(open_store: Opened) -> None:
    sink, reader = open_store(content=1000)
    pieces = tuple(Piece(0.1, True, b"a" * 400) for _ in range(5))
    sink.accept([FlowUpdate(record(1, response_size=2000, response_kept=2000, response_fields=fields(content_type="text/plain")), pieces)])
    content = reader.flow(1)
    assert content is not None
    assert content.response.is_shortened and content.response.body == b"a" * 1000


def test_binaries_are_kept_by_size_only(open_store: Opened) -> None:
    sink, reader = open_store()
    sink.accept([exchange(1, response=b"\x89PNG" * 100, response_fields=fields(content_type="image/png"))])
    sink.accept([exchange(2, response=b"\0\1\2" * 100, response_fields=())])
    for id, size in ((1, 400), (2, 300)):
        content = reader.flow(id)
        assert content is not None
        assert content.response.is_binary and content.response.body == b"" and content.row.response_bytes == size


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 200_000])
def test_a_long_body_is_cut_into_pieces(open_store: Opened, size: int) -> None:
    sink, reader = open_store()
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    pieces = tuple(Piece(0.1 + at / 1e7, True, body[at : at + 10_000]) for at in range(0, size, 10_000))
    sink.accept([FlowUpdate(record(1, response_size=size, response_kept=size, response_fields=fields(content_type="text/plain")), pieces)])
    content = reader.flow(1)
    assert content is not None
    assert content.response.body == body and not content.response.is_shortened
    assert content.row.piece_count == 1 + max(1, -(-size // 65_536))


def test_what_was_not_handed_over_is_marked(open_store: Opened) -> None:
    sink, reader = open_store()
    sink.accept([exchange(1, response=b"{}", response_size=100, response_kept=2)])
    content = reader.flow(1)
    assert content is not None and content.response.is_shortened


def test_credentials_are_masked_before_they_are_written(open_store: Opened, tmp_path: Path) -> None:
    sink, reader = open_store(mask=("x-house-key",))
    secret = "very-secret-value-0123456789"
    given = fields(host="api.example.com", authorization=f"Bearer {secret}", x_house_key=secret, cookie=f"a={secret}")
    body = f'{{"password": "{secret}"}}'.encode()
    half = len(body) - 15
    start = exchange(
        1, path=f"/x?access_token={secret}", method="POST", request_fields=given, request_size=len(body), request_kept=len(body)
    )
    sink.accept([opened(msgspec.structs.replace(start, pieces=(Piece(0.1, False, body[:half]),)))])
    sink.accept([msgspec.structs.replace(start, pieces=(Piece(0.2, False, body[half:]), Piece(0.3, True, b"{}")))])
    content = reader.flow(1)
    assert content is not None
    assert "masked" in content.row.path and "masked" in content.request.text
    assert content.header_values("authorization")[0].startswith("Bearer masked #")
    for file in tmp_path.glob("flows.db*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file


def test_unmasked_keeps_them_and_warns(open_store: Opened, caplog: pytest.LogCaptureFixture) -> None:
    sink, reader = open_store(unmasked=True)
    sink.accept([exchange(1, request_fields=fields(authorization="Bearer abc"))])
    content = reader.flow(1)
    assert content is not None and content.header_values("authorization") == ["Bearer abc"]
    assert "keeps credentials" in caplog.text


def test_what_a_peer_sends_is_kept_as_it_is(open_store: Opened) -> None:
    """An injection corpus in every field: nothing raises, nothing is lost."""
    sink, reader = open_store()
    odd = [
        "'; drop table flow; --",
        "\x1b[31m",
        "a\0b",
        "\ud800",
        "\u202egnp.exe",
        "<script>alert(1)</script>",
        "%s%n",
        "x" * 20_000,
        "\r\n",
    ]
    names = ("host", "method", "path", "cause", "pattern", "http_version", "answered_by", "decision", "grpc_status")
    updates = []
    for number, text in enumerate(odd, 1):
        meta = record(number).connection
        assert meta.process_info is not None
        process = msgspec.structs.replace(meta.process_info, exe_name=text, exe_path=text, script_path=text, parent_process_name=text)
        raw = text.encode("utf-8", "surrogatepass")
        given = {name: text for name in names if text.isprintable() or name in ("host", "path", "cause", "method")}
        updates.append(
            exchange(
                number,
                raw,
                raw,
                connection=meta.replace(process_info=process),
                request_fields=((b"x-odd", raw), (raw[:100], b"1")),
                response_fields=((b"content-type", raw),),
                **given,
            )
        )
    sink.accept(updates)
    assert reader.count() == len(odd)
    for number in range(1, len(odd) + 1):
        content = reader.flow(number)
        assert content is not None
        content.words()
    assert reader.count("drop table") == 1
    assert [row.id for row in reader.flows('host:"script"').rows] == [6]
    with pytest.raises(FilterError):
        reader.flows("'; drop:x")


def test_a_lost_update_leaves_the_rest(open_store: Opened) -> None:
    """The file takes nothing for a while: what came is counted, and the flow goes on afterwards."""
    sink, reader = open_store()
    first, second, *_, last = model_stream(1, parts=4)
    sink.accept([first])
    other = sqlite3.connect(reader.path, isolation_level=None)
    other.execute("begin immediate")
    writer = sink._writer
    assert writer is not None
    writer._database.execute("pragma busy_timeout = 1")
    sink.accept([second, exchange(2)])
    other.execute("rollback")
    other.close()
    assert (writer.offered, writer.stored, writer.lost) == (3, 1, 2)
    sink.accept([exchange(3)])
    assert writer.lost == 3, "a second later it is tried again"
    writer._blocked_until = 0.0
    sink.accept([last, exchange(4)])
    assert (writer.offered, writer.stored, writer.lost) == (6, 3, 3)
    (session,) = reader.sessions()
    assert (session.offered, session.stored, session.dropped) == (6, 3, 3)
    content = reader.flow(1)
    assert content is not None and content.row.state == "over" and content.response.is_shortened
    assert reader.count() == 2


def test_what_did_not_fit_into_the_queue_is_counted(open_store: Opened) -> None:
    sink, reader = open_store()
    sink.dropped(7)
    sink.accept([exchange(1)])
    (session,) = reader.sessions()
    assert (session.offered, session.stored, session.dropped) == (8, 1, 7)


def test_goodbye(open_store: Opened) -> None:
    sink, reader = open_store()
    sink.accept([exchange(1), opened(exchange(2))])
    (session,) = reader.sessions()
    assert session.is_live and not session.has_vanished
    sink.close(5)
    (session,) = reader.sessions()
    assert session.ended is not None and not session.is_live
    assert [row.state for row in reader.flows().rows] == ["lost", "over"]
    again, _ = open_store()
    again.accept([exchange(3)])
    assert [row.id for row in reader.flows().rows] == [3, 2, 1], "ids stay short"


@pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")
def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "still" / "flows.db"
    sink = SqliteSink(path, min_free_bytes=0)
    old = os.umask(0)
    try:
        sink.open(sink_info())
        sink.accept([exchange(1)])
        for file in path.parent.glob("flows.db*"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(old)
        sink.close(5)
    path.chmod(0o644)
    make_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")
def test_the_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flows.db"
    SqliteSink(path, min_free_bytes=0)
    path.touch()
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(StoreError, match="belongs to another user"):
        SqliteSink(path, min_free_bytes=0).open(sink_info())
    with pytest.raises(StoreError, match="belongs to another user"):
        StoreReader(path)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match="notes.txt"):
        SqliteSink(text).open(sink_info())
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("create table x(y)")
    other.close()
    for opened_ in (lambda: SqliteSink(tmp_path / "other.db").open(sink_info()), lambda: StoreReader(tmp_path / "other.db")):
        with pytest.raises(StoreError, match="no flow store"):
            opened_()
    with pytest.raises(StoreError, match="there is no flow store"):
        StoreReader(tmp_path / "none.db")
    with pytest.raises(StoreError, match="is no file"):
        SqliteSink(tmp_path).open(sink_info())


def test_a_store_of_a_later_version_is_refused(open_store: Opened, tmp_path: Path) -> None:
    sink, _ = open_store()
    sink.close(5)
    database = sqlite3.connect(tmp_path / "flows.db")
    database.execute("update meta set value = 99 where key = 'schema'")
    database.commit()
    database.close()
    with pytest.raises(StoreError, match="version 99"):
        StoreReader(tmp_path / "flows.db")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"max_bytes": 10}, "max_bytes"),
        ({"max_age": 0}, "max_age"),
        ({"min_free_bytes": -1}, "min_free_bytes"),
        ({"content": -1}, "content"),
        ({"full_text": "sometimes"}, "full_text"),
        ({"mask": ("",)}, "mask"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, options: dict[str, object], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        SqliteSink(tmp_path / "flows.db", **options)  # type: ignore[arg-type]


def test_a_question_has_its_time(open_store: Opened, tmp_path: Path) -> None:
    sink, reader = open_store()
    sink.accept([exchange(number) for number in range(1, 500)])
    assert reader.count("body:ok") == 499
    with StoreReader(tmp_path / "flows.db", seconds=0) as hasty:
        with pytest.raises(StoreError, match="narrow the filter"):
            hasty.count("body:ok")
        assert hasty.flow(1) is not None
        assert hasty.revision() == 1


def test_full_text_always(open_store: Opened) -> None:
    sink, reader = open_store(full_text="always")
    sink.accept([exchange(1, response=b'{"words": "crane heron"}'), exchange(2)])
    assert reader.unindexed() == 0
    assert [row.id for row in reader.flows("heron").rows] == [1]
    found = reader.search("hero")
    assert (found.hits[0].before, found.hits[0].word, found.hits[0].after) == ('{"words": "crane ', "hero", 'n"}')
    assert found.unseen == 0
    assert found.hits[0].row.started == BEGAN + 1
