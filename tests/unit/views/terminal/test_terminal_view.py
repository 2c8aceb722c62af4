"""The terminal view over a store that is written meanwhile: each key, what grows, filters, many flows, and what peers put into names."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from soth_mitm.cli.commands import cli
from soth_mitm.cli.exits import START_FAILED
from soth_mitm.errors import StoreError
from soth_mitm.views.source import FlowMessage
from soth_mitm.views.terminal.app import REDRAW_SECONDS, TerminalView
from soth_mitm.views.terminal.pages import MOST_LINES, TABS, _groups
from support import made_flows as made
from support.made_store import MadeStore, lately
from support.terminal_screen import Screen, show

WIDE, NARROW = (140, 40), (80, 24)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MadeStore]:
    with MadeStore(tmp_path) as running:
        yield running


def call(number: int, **changes: Any) -> list[Any]:
    return lately(made.model_stream(number, **changes), number)


class TestTheList:
    def test_flows_stand_newest_first_with_what_became_of_them(self, store: MadeStore) -> None:
        failed = made.exchange(3, status=502, outcome="upstream_error", cause="the upstream closed")
        store.add(*lately([made.exchange(1), made.exchange(2, status=404), failed, made.tunnel(4), made.refused(5)], 5))
        store.add_each(call(6))
        store.add_each(call(7)[:-1])

        async def steps(screen: Screen) -> None:
            await screen.shows("LIVE", "7 flows", "1 open", "127.0.0.1:8080")
            rows = screen.rows[3:10]
            for row, (mark, word) in zip(
                rows,
                [("●", "open"), ("▌", "200"), ("✗", "blocked"), ("○", "tunnel"), ("✗", "failed"), ("!", "404"), (" ", "200")],
                strict=True,
            ):
                assert row[1] == mark and f" {word} " in row, row
            assert "14,902 → 318" in rows[1] and "the upstream closed" in rows[4]

        show(store.path, steps)

    def test_it_fits_into_80_columns(self, store: MadeStore) -> None:
        store.add(*lately([made.exchange(1, host="h" * 100, path="/" + "p" * 500)], 1))
        store.add_each(call(2))

        async def steps(screen: Screen) -> None:
            await screen.shows(":8080   LIVE", "4.31 s", "h…")
            assert all(len(row) <= 80 for row in screen.rows)
            assert " j k move  Enter open" in screen.rows[-1] and screen.rows[-1].endswith("q")

        show(store.path, steps, size=NARROW)

    def test_new_flows_come_by_themselves(self, store: MadeStore) -> None:
        store.add(*lately([made.exchange(1)], 1))

        async def steps(screen: Screen) -> None:
            await screen.shows("/items/1?page=2")
            store.add(*lately([made.exchange(2)], 2))
            await screen.shows("/items/2?page=2", "2 flows")
            assert screen.app.list.row == 0
            store.add_each(call(3)[:-1])
            await screen.shows("open")
            store.add(call(3)[-1])
            await screen.shows("14,902 → 318")

        show(store.path, steps)

    def test_a_flow_that_the_filter_no_longer_finds_goes(self, store: MadeStore) -> None:
        updates = call(1)
        store.add_each(updates[:-1])

        async def steps(screen: Screen) -> None:
            await screen.write("is:open")
            await screen.shows("1 of 1")
            store.add(updates[-1])
            await screen.shows("0 of 1")

        show(store.path, steps)

    def test_nothing_is_drawn_while_nothing_changes(self, store: MadeStore) -> None:
        store.add(*lately(made.mixed(50), 50))

        async def steps(screen: Screen) -> None:
            await screen.shows("50 flows")
            await screen._pilot.pause(2 * REDRAW_SECONDS)
            before = screen.app.list.drawn, screen.app.updates
            await screen._pilot.pause(1.5)
            assert (screen.app.list.drawn, screen.app.updates) == before

        show(store.path, steps)

    def test_many_commits_are_few_redraws(self, store: MadeStore) -> None:
        store.add(*lately([made.exchange(1)], 400))

        async def steps(screen: Screen) -> None:
            await screen.shows("1 flows")
            before, began = screen.app.updates, time.monotonic()
            for number in range(2, 302):
                store.add(*lately([made.exchange(number)], 400))
                await screen._pilot.pause(0)
            await screen.until(lambda: len(screen.app.listing) == 301)
            took = time.monotonic() - began
            assert screen.app.updates - before <= took / REDRAW_SECONDS + 2

        show(store.path, steps)

    def test_ten_thousand_flows(self, store: MadeStore) -> None:
        updates = lately([made.exchange(number, response=b"") for number in range(1, 10_001)], 10_000)
        store.add(*updates)

        async def steps(screen: Screen) -> None:
            await screen.shows("10,000 flows", "/items/10000?")
            await screen.press("G")
            await screen.shows("/items/1?")
            for _ in range(20):
                await screen.press("pageup")
            assert 0 < screen.app.list.row < 9999
            await screen.press("g")
            await screen.shows("/items/10000?")
            assert len(screen.app.listing._lines) < 4001
            await screen.write('path="/items/77?page=2"')
            await screen.shows("1 of 10,000", "/items/77?")

        show(store.path, steps)


class TestKeys:
    def test_moving_selecting_and_following(self, store: MadeStore) -> None:
        store.add(*lately([made.exchange(number) for number in range(1, 101)], 100))

        async def steps(screen: Screen) -> None:
            app = screen.app
            await screen.shows("/items/100?", "f follows")
            for key, row in (("j", 1), ("down", 2), ("k", 1), ("up", 0), ("G", 99), ("home", 0), ("end", 99), ("g", 0)):
                await screen.press(key)
                assert app.list.row == row, key
            await screen.press("j", "j")
            chosen = app.list.selected
            assert not app.follows
            store.add(*lately([made.exchange(101)], 101))
            await screen.until(lambda: len(app.listing) == 101)
            assert app.list.selected == chosen and app.list.row == 3
            await screen.press("f")
            assert app.follows and app.list.row == 0
            store.add(*lately([made.exchange(102)], 102))
            await screen.until(lambda: len(app.listing) == 102)
            assert app.list.row == 0 and app.list.selected != chosen
            await screen.press("f")
            assert not app.follows

        show(store.path, steps)

    def test_what_is_in_sight_stays_where_it_is(self, store: MadeStore) -> None:
        store.add(*lately([made.exchange(number) for number in range(1, 201)], 300))

        async def steps(screen: Screen) -> None:
            await screen.shows("/items/200?")
            await screen.press("pagedown", "pagedown", "pagedown")
            await screen.until(lambda: "…" not in screen.rows[3])
            # without the scroll bar, which moves
            before = [row[:130] for row in screen.rows[3:35]]
            store.add(*lately([made.exchange(number) for number in range(201, 206)], 300))
            await screen.until(lambda: len(screen.app.listing) == 205)
            await screen.until(lambda: [row[:130] for row in screen.rows[3:35]] == before)

        show(store.path, steps)

    def test_pause_holds_the_view_and_not_the_store(self, store: MadeStore) -> None:
        store.add(*lately([made.exchange(1)], 1))

        async def steps(screen: Screen) -> None:
            await screen.shows("LIVE")
            await screen.press("p")
            await screen.shows("PAUSED")
            store.add(*lately([made.exchange(2)], 2))
            await screen.shows("2 flows")
            assert "/items/2?" not in screen.text
            await screen.press("p")
            await screen.shows("LIVE", "/items/2?")

        show(store.path, steps)

    @pytest.mark.parametrize("size", [WIDE, NARROW], ids=["140", "80"])
    def test_details_open_and_close(self, store: MadeStore, size: tuple[int, int]) -> None:
        store.add_each(call(1))

        async def steps(screen: Screen) -> None:
            await screen.shows("14,902 → 318")
            await screen.press("enter")
            await screen.shows(
                "user       The retry test", "assistant  I will look at how the deadline", "→ read_file", "stopped by tool_use"
            )
            assert ("14,902 → 318" in screen.text) == (size == WIDE)
            for key, text in (
                ("2", "content_block_delta ×3"),
                ("3", "x-api-key: masked #"),
                ("4", "content-type: text/event-stream"),
                ("5", "first byte"),
                ("1", "cached 13,824"),
                ("right", "message_stop"),
                ("left", "cached 13,824"),
                ("left", "first byte"),
            ):
                await screen.press(key)
                await screen.shows(text)
            await screen.press("escape")
            await screen.shows("14,902 → 318")
            await screen.hides("first byte")

        show(store.path, steps, size=size)

    def test_details_follow_the_list_and_tab_goes_between_them(self, store: MadeStore) -> None:
        first, second = made.exchange(1, response=b'{"name":"first"}'), made.exchange(2, response=b'{"name":"second"}')
        store.add(*lately([first, second], 2))

        async def steps(screen: Screen) -> None:
            await screen.shows("/items/2?")
            await screen.press("enter")
            await screen.shows('  "name": "second"')
            assert screen.app.page.has_focus
            await screen.press("tab")
            assert screen.app.list.has_focus
            await screen.press("j")
            await screen.shows('  "name": "first"')
            await screen.press("tab")
            assert screen.app.page.has_focus

        show(store.path, steps)

    def test_the_first_tab_is_that_of_the_kind(self, store: MadeStore) -> None:
        store.add(*lately([made.exchange(1), made.tunnel(2)], 3))
        store.add_each(lately(made.websocket(3), 3))

        async def steps(screen: Screen) -> None:
            await screen.shows("3 flows")
            await screen.press("enter")
            await screen.shows("hello", "world")
            await screen.press("tab", "j")
            await screen.shows("began")
            await screen.press("3")
            await screen.shows("Nothing of this was looked at")
            await screen.press("j")
            await screen.shows('"ok": true')
            await screen.press("1")
            await screen.shows("This is no call of a model.")
            await screen.press("2")
            await screen.shows("This is no stream")

        show(store.path, steps)

    def test_curl(self, store: MadeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        copied: list[str] = []
        monkeypatch.setattr(TerminalView, "copy_to_clipboard", lambda self, text: copied.append(text))
        store.add_each(call(1))
        store.add(*lately([made.tunnel(2)], 2))

        async def steps(screen: Screen) -> None:
            await screen.shows("2 flows")
            await screen.press("c")
            await screen.until(lambda: screen.app.notice)
            await screen.press("j", "c")
            await screen.shows("flows export --curl 1", "x-api-key")
            assert copied[0].startswith("curl ")
            await screen.press("x")
            await screen.hides("flows export --curl")

        show(store.path, steps)

    def test_a_body_is_copied(self, store: MadeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        copied: list[str] = []
        monkeypatch.setattr(TerminalView, "copy_to_clipboard", lambda self, text: copied.append(text))
        store.add(*lately([made.exchange(1, request=b"asked", response=b"answered"), made.exchange(2, response=b"")], 2))

        async def steps(screen: Screen) -> None:
            await screen.shows("2 flows")
            await screen.press("y")
            await screen.shows("no body of the response is kept")
            await screen.press("j", "y")
            await screen.shows("8 characters")
            await screen.press("enter", "3")
            await screen.shows("asked")
            await screen.press("y")
            await screen.shows("5 characters")
            assert copied == ["answered", "asked"]

        show(store.path, steps)

    def test_har(self, store: MadeStore, tmp_path: Path) -> None:
        store.add(*lately([made.exchange(1), made.exchange(2, status=500), made.exchange(3, status=503)], 3))
        folder = tmp_path / "here"
        folder.mkdir()

        async def steps(screen: Screen) -> None:
            await screen.write("status:5xx")
            await screen.shows("2 of 3")
            await screen.press("enter", "e")
            await screen.shows("2 requests written to")
            await screen.press("j", "e")
            await screen.shows("2 requests written to")
            folder.chmod(0o500)
            if os.getuid():
                await screen.press("j", "e")
                await screen.shows("no HAR file was written")

        show(store.path, steps, folder=folder)
        files = sorted(folder.glob("soth-mitm-*.har"))
        assert len(files) == 2
        assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
        assert [entry["response"]["status"] for entry in json.loads(files[0].read_text())["log"]["entries"]] == [500, 503]

    def test_keys_are_listed(self, store: MadeStore) -> None:
        store.add(*lately([made.exchange(1)], 1))

        async def steps(screen: Screen) -> None:
            await screen.press("question_mark")
            await screen.shows("copy the request as a curl command", "failed, or blocked")
            await screen.press("escape")
            await screen.hides("copy the request")
            assert screen.app.list.has_focus

        show(store.path, steps)

    @pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
    def test_leaving(self, store: MadeStore, key: str) -> None:
        async def steps(screen: Screen) -> None:
            await screen.press(key)

        assert show(store.path, steps)._exit

    def test_resizing_changes_the_columns(self, store: MadeStore) -> None:
        store.add_each(call(1))

        async def steps(screen: Screen) -> None:
            await screen.shows("14,902 → 318")
            await screen.press("enter")
            await screen.shows("stopped by tool_use")
            assert "14,902 → 318" in screen.text
            await screen.resize(*NARROW)
            await screen.hides("14,902 → 318")
            await screen.shows("stopped by tool_use")
            await screen.resize(*WIDE)
            await screen.shows("14,902 → 318", "stopped by tool_use")

        show(store.path, steps)


class TestFilters:
    def test_what_is_wrong_is_pointed_at_and_the_list_stays(self, store: MadeStore) -> None:
        store.add(*lately([made.exchange(1), made.exchange(2, status=500)], 2))

        async def steps(screen: Screen) -> None:
            await screen.write("status:500")
            await screen.shows("1 of 2")
            await screen.write("status:500 hots:x")
            await screen.shows('no field "hots", did you mean "host"?')
            row = next(index for index, text in enumerate(screen.rows) if text.strip() == "^")
            assert screen.rows[row].index("^") == screen.rows[row - 1].index("hots")
            assert "1 of 2" in screen.text
            await screen.write("status:500 host:api")
            await screen.hides("did you mean")
            await screen.shows("1 of 2")

        show(store.path, steps)

    def test_a_caret_far_to_the_right_is_in_sight(self, store: MadeStore) -> None:
        async def steps(screen: Screen) -> None:
            await screen.write(f"host:{'a' * 300} hots:x")
            await screen.shows("hots", "^")
            row = next(index for index, text in enumerate(screen.rows) if text.strip() == "^")
            assert screen.rows[row].index("^") == screen.rows[row - 1].index("hots")

        show(store.path, steps, size=NARROW)

    def test_escape_leaves_then_clears(self, store: MadeStore) -> None:
        store.add(*lately([made.exchange(1), made.exchange(2, status=500)], 2))

        async def steps(screen: Screen) -> None:
            await screen.write("status:500")
            await screen.shows("1 of 2")
            await screen.press("escape")
            assert screen.app.list.has_focus and screen.app.filter_box.value == "status:500"
            await screen.press("escape")
            await screen.shows("/items/1?")
            assert screen.app.filter_box.value == ""
            await screen.write("hots:x")
            await screen.shows("did you mean")
            await screen.press("escape")
            await screen.hides("did you mean")
            assert screen.app.filter_box.value == ""

        show(store.path, steps)

    def test_letters_of_the_keys_can_be_written(self, store: MadeStore) -> None:
        async def steps(screen: Screen) -> None:
            await screen.press("slash", *"fpcyeq", "question_mark", "1")
            assert screen.app.filter_box.value == "fpcyeq?1" and screen.app.return_value is None

        show(store.path, steps)


class TestWhatGrows:
    def test_an_answer_of_a_model(self, store: MadeStore) -> None:
        updates = call(1, parts=11)
        store.add_each(updates[:4])

        async def steps(screen: Screen) -> None:
            await screen.shows("open")
            await screen.press("enter")
            await screen.shows("assistant  I will look", "goes on")
            assert "at how the deadline" not in screen.text
            store.add(updates[4])
            await screen.shows("assistant  I will look at how the deadline")
            await screen.press("2")
            await screen.shows("content_block_delta ×2", "open: more may come")
            store.add_each(updates[5:])
            await screen.shows("message_stop", "is computed.")
            await screen.hides("more may come")
            await screen.press("1")
            await screen.shows("318 out", "stopped by tool_use")

        show(store.path, steps)

    def test_the_end_of_what_grows_stays_in_sight(self, store: MadeStore) -> None:
        fields = made.fields(content_type="text/event-stream")
        asked = made.opened(made.exchange(1, response=b"", response_fields=fields, protocol="sse"))
        store.add(*lately([asked], 1))

        def more(first: int, end: int) -> None:
            size = sum(len(f"data: line {n}\n\n") for n in range(1, end))
            pieces = tuple(made.Piece(n / 10, True, f"data: line {n}\n\n".encode()) for n in range(first, end))
            record = msgspec.structs.replace(asked.record, response_size=size, response_kept=size)
            store.add(*lately([made.FlowUpdate(record, pieces)], 1))

        async def steps(screen: Screen) -> None:
            more(1, 100)
            await screen.shows("open")
            await screen.press("enter")
            await screen.shows("line 99")
            more(100, 201)
            await screen.shows("line 200")
            await screen.press("g")
            await screen.until(lambda: screen.app.page.scroll_offset.y == 0)
            before = len(screen.app.page.lines)
            more(201, 301)
            await screen.until(lambda: len(screen.app.page.lines) > before)
            assert screen.app.page.scroll_offset.y == 0 and "line 300" not in screen.text

        show(store.path, steps)

    def test_messages_of_a_websocket(self, store: MadeStore) -> None:
        updates = lately(made.websocket(1, texts=("one", "two")), 1)
        store.add(msgspec.structs.replace(made.opened(updates[-1]), pieces=(), messages=()))

        def message(at: float, to_client: bool, opcode: int, data: bytes) -> Any:
            record = made.opened(updates[-1]).record
            return made.FlowUpdate(record, (), (made.FlowMessage(at, to_client, opcode, data, len(data)),))

        async def steps(screen: Screen) -> None:
            await screen.shows("open")
            await screen.press("enter", "2")
            await screen.shows("more may come")
            store.add(message(0.5, False, 1, b"ask \x1b[31m"))
            await screen.shows("↑", "ask \\x1b[31m")
            store.add(message(0.7, True, 1, b"answer"))
            await screen.shows("↓", "answer")

        show(store.path, steps)

    def test_silences_and_types_of_events(self) -> None:
        given = ((0.1, "a"), (0.2, "a"), (3.2, "b"))
        messages = tuple(FlowMessage(number=n, at=at, to_client=True, kind=kind, text="1", size=1) for n, (at, kind) in enumerate(given))
        lines = ["".join(text for text, _ in line) for line in _groups(messages, 60)]
        assert [line.strip() for line in lines] == [
            "100 ms  a ×2  2 B",
            "── nothing for 3.00 s ──",
            "3.20 s  b  1 B",
            "3.20 s  3 events, 3 B",
        ]

    def test_a_body_of_too_many_lines_says_so(self, store: MadeStore) -> None:
        store.add(
            *lately([made.exchange(1, response=b"x\n" * (MOST_LINES + 10), response_fields=made.fields(content_type="text/plain"))], 1)
        )

        async def steps(screen: Screen) -> None:
            await screen.shows("1 flows")
            await screen.press("enter")
            await screen.shows("x")
            await screen.press("G")
            await screen.shows("more than 20,000 lines")

        show(store.path, steps)


class TestConversations:
    def test_what_was_said_before_is_folded(self, store: MadeStore) -> None:
        store.add_each(call(1))
        asked = {
            "model": "claude-sonnet-4-5",
            "stream": True,
            "messages": [
                {"role": "user", "content": made.ASKED},
                {"role": "assistant", "content": "yes"},
                {"role": "user", "content": "And now?"},
            ],
        }
        updates = call(2)
        body = json.dumps(asked).encode()
        first = msgspec.structs.replace(updates[0], pieces=(made.Piece(0.001, False, body),))
        fixed = [
            msgspec.structs.replace(each, record=msgspec.structs.replace(each.record, request_size=len(body), request_kept=len(body)))
            for each in (first, *updates[1:])
        ]
        store.add_each(fixed)

        async def steps(screen: Screen) -> None:
            await screen.shows("2 flows")
            await screen.press("enter")
            await screen.shows("1 earlier message, the same as in flow 1", "And now?")
            assert made.ASKED[:30] not in screen.text

        show(store.path, steps)

    def test_a_cut_answer_says_so(self, store: MadeStore) -> None:
        updates = call(1, parts=11)
        record = msgspec.structs.replace(updates[-1].record, outcome="cut_by_client", cause="the client left")
        store.add_each([*updates[:5], msgspec.structs.replace(updates[-1], record=record, pieces=())])

        async def steps(screen: Screen) -> None:
            await screen.shows(" cut ")
            assert screen.rows[3][1] == "!"
            await screen.press("enter")
            await screen.shows("cut by client: this is not all of it", "I will look")

        show(store.path, steps)


CORPUS = {
    "escape sequence": "\x1b[31mred\x1b]0;title\x07",
    "C1 control": "\x9b2J\x90q\x9c",
    "line feed": "a\nb\rc",
    "backspace": "a\x08\x08\x7f",
    "bidirectional": "abc\u202etxt\u2066",
    "zero width": "a\u200b\u200d\ufeff",
    "combining": "e\u0301" + "\u0301" * 50,
    "combining first": "\u0301\u0301x",
    "wide": "漢字かな한국어" * 10,
    "emoji": "👩\u200d👩\u200d👧🇩🇪\u2764\ufe0f",
    "markup": "[bold red]x[/] [link=file:///etc/passwd]y[/link] [@click=app.quit]z[/]",
    "broken markup": "[/][[[]]] \\[",
    "tab": "a\tb",
}
_ACTS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufe00-\ufe0f]")


@pytest.mark.parametrize("text", CORPUS.values(), ids=CORPUS)
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["140", "80"])
def test_what_peers_choose_moves_nothing(store: MadeStore, text: str, size: tuple[int, int]) -> None:
    data = text.encode("utf-8", "surrogatepass")
    named = {"program": text, "pid": 1}
    fields = ((b"x-" + data, data), (b"content-type", b"application/json"))
    body = json.dumps({"v": text}, ensure_ascii=False).encode()
    flow = made.exchange(
        1,
        request=body,
        response=body + data,
        connection=made.connection(1, **named),
        host=text,
        method=text,
        path=f"/{text}?{text}={text}",
        cause=text,
        protocol=text,
        outcome="upstream_error",
        pattern=text,
        http_version=text,
        upstream_http_version=text,
        decision=text,
        request_fields=fields,
        response_fields=fields,
        request_trailers=fields,
        response_trailers=fields,
    )
    socket = lately(made.websocket(2, texts=(text, text), host=text, path=f"/{text}", websocket_close=(1000, "client")), 3)
    asked = {"model": text, "stream": True, "system": text, "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}
    model = call(3, host=text)
    model[0] = msgspec.structs.replace(model[0], pieces=(made.Piece(0.001, False, json.dumps(asked).encode()),))
    events = [b"event: " + data.replace(b"\n", b" ").replace(b"\r", b" ") + b"\ndata: " + body + b"\n\n"]
    stream = made.exchange(4, response=events[0], protocol="sse", response_fields=made.fields(content_type="text/event-stream"))
    store.add(*lately([flow], 4))
    store.add_each(socket)
    store.add_each(model)
    store.add(*lately([stream], 4))
    width = size[0]

    def check(screen: Screen) -> None:
        from rich.cells import cell_len

        for strip in screen.app.screen._compositor.render_strips():
            assert not _ACTS.search(strip.text), strip.text
            assert cell_len(strip.text) == strip.cell_length == width, strip.text

    async def steps(screen: Screen) -> None:
        await screen.shows("4 flows")
        for _ in range(4):
            check(screen)
            await screen.press("enter")
            await screen.until(lambda: screen.app._page is not None)
            for tab in "12345":
                screen.app.action_tab(int(tab) - 1)
                await screen.until(lambda tab=tab: screen.app._page.tab == TABS[int(tab) - 1])
                check(screen)
                screen.app.page.to_end()
                check(screen)
            await screen.press("c")
            await screen.until(lambda: screen.app.notice or len(screen.app.screen_stack) > 1)
            check(screen)
            if len(screen.app.screen_stack) > 1:
                await screen.press("x")
                await screen.until(lambda: len(screen.app.screen_stack) == 1)
            await screen.press("escape", "j")
        await screen.write(f"{text} hots:x")
        await screen.until(lambda: screen.app._filter_error is not None)
        check(screen)

    show(store.path, steps, size=size)


class TestStores:
    def test_a_question_that_failed_is_asked_again(self, store: MadeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """A store that is busy says so; nothing else need happen in it before it can be read."""
        store.add(*lately([made.exchange(1)], 1))
        failures = [StoreError(f"{store.path} is busy")]

        async def steps(screen: Screen) -> None:
            index = screen.app.source.index

            def fails_once(text: str) -> Any:
                if failures:
                    raise failures.pop()
                return index(text)

            monkeypatch.setattr(screen.app.source, "index", fails_once)
            await screen.write("hots:x")
            await screen.until(lambda: screen.app._filter_error is not None)
            assert not failures

        show(store.path, steps)

    def test_one_that_ended(self, tmp_path: Path) -> None:
        with MadeStore(tmp_path) as ended:
            ended.add(*lately([made.exchange(1)], 1))

        async def steps(screen: Screen) -> None:
            await screen.shows("ENDED", "1 flows", "/items/1?")

        show(ended.path, steps)

    def test_an_empty_one(self, store: MadeStore) -> None:
        async def steps(screen: Screen) -> None:
            await screen.press("enter", "j", "G", "c", "y", "1", "right")
            store.add(*lately([made.exchange(1)], 1))
            await screen.shows("/items/1?")

        show(store.path, steps)

    def test_what_was_dropped_is_said(self, store: MadeStore) -> None:
        store.drop(7)
        store.add(*lately([made.exchange(1)], 1))

        async def steps(screen: Screen) -> None:
            await screen.shows("7 dropped")

        show(store.path, steps)

    def test_without_colour_nothing_is_lost(self, store: MadeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        store.add(*lately([made.exchange(1, status=502, outcome="upstream_error")], 1))

        async def steps(screen: Screen) -> None:
            await screen.shows("✗", "failed")
            assert screen.app.no_color

        show(store.path, steps)


def test_without_a_terminal_the_command_says_what_prints_lines(store: MadeStore) -> None:
    ended = CliRunner().invoke(cli, ["view", "--terminal", str(store.path)])
    assert ended.exit_code == START_FAILED and "soth-mitm flows list" in ended.output


def test_without_the_extra_the_command_names_it(store: MadeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soth_mitm.cli.terminal_view.has_terminal_view", lambda: False)
    ended = CliRunner().invoke(cli, ["view", "--terminal", str(store.path)])
    assert ended.exit_code == START_FAILED and "pip install 'soth-mitm[view]'" in ended.output
