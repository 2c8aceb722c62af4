"""`NdjsonSink`: what stands in the event log and beside it, what a full disk and a kill leave, and that `EventLog` reads it all."""

import json
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from soth_mitm.observe.flow_event import FlowEvent, FlowEventKind
from soth_mitm.observe.ndjson import EventLog, NdjsonSink, comparable, segments_of
from support.full_disk import files_of_at_most
from support.made_flows import event, exchange, sink_info

SAMPLE = (
    '{"schema":"soth-mitm-event-log-v2","sequence_id":1,"flow_id":1,"flow_sequence_id":1,"kind":"request_headers","protocol":"http2",'
    '"stream_key":"h2:7","connection_id":"00000000-0000-0000-0000-0000000003e9","client_addr":"127.0.0.1:50001",'
    '"server_host":"api.example.com","server_port":443,"worker":0,'
    '"attributes":{"authority":"api.example.com","http2_stream_id":7,"method":"GET","path":"/items?page=2"}}\n'
)


def written(path: Path, events: list[FlowEvent], **options: Any) -> NdjsonSink:
    sink = NdjsonSink(path, **options)
    sink.open(sink_info())
    sink.accept(events)
    sink.close(1.0)
    return sink


class TestLines:
    def test_a_line(self, tmp_path: Path) -> None:
        written(tmp_path / "log", [event()])
        assert (tmp_path / "log").read_text() == SAMPLE

    def test_the_same_events_give_the_same_bytes(self, tmp_path: Path) -> None:
        events = [event(number, attributes={"b": 1, "a": number}) for number in range(1, 50)]
        later = [event(each.sequence_id, attributes={"a": each.sequence_id, "b": 1}, unix_us=7) for each in events]
        written(tmp_path / "one", events)
        written(tmp_path / "two", later, flush_every=7)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
        assert (tmp_path / "one.index.tsv").read_bytes() == (tmp_path / "two.index.tsv").read_bytes()

    def test_clocks_only_where_they_are_asked_for(self, tmp_path: Path) -> None:
        closed = event(kind=FlowEventKind.STREAM_CLOSED, attributes={"took_us": 12, "reason": "relay_eof"})
        written(tmp_path / "log", [closed])
        written(tmp_path / "clocks", [closed], clock=True)
        assert "_us" not in (tmp_path / "log").read_text()
        line = json.loads((tmp_path / "clocks").read_text())
        assert line["unix_us"] == closed.unix_us and line["attributes"]["took_us"] == 12

    def test_targets_are_masked(self, tmp_path: Path) -> None:
        path = "/v1?key=AIzaSy0123456789abcdef&team=7"
        written(tmp_path / "log", [event(attributes={"path": path})], mask=("team",))
        text = json.loads((tmp_path / "log").read_text())["attributes"]["path"]
        assert text == "/v1?key=masked%20%C2%B7%2022%20bytes&team=masked%20%C2%B7%20under%2016%20bytes"
        written(tmp_path / "log", [event(attributes={"path": path})], unmasked=True)
        assert json.loads((tmp_path / "log").read_text())["attributes"]["path"] == path

    def test_what_a_peer_sends_breaks_no_line(self, tmp_path: Path) -> None:
        odd = event(stream_key="grpc:/a\tb\n:1", attributes={"path": '/"\n\u2028\ud800'})
        written(tmp_path / "log", [odd, event(2)])
        assert [each.sequence_id for each in EventLog(tmp_path / "log")] == [1, 2]
        assert len((tmp_path / "log.index.tsv").read_text().splitlines()) == 3

    def test_updates_of_flows_are_nothing_for_it(self, tmp_path: Path) -> None:
        sink = NdjsonSink(tmp_path / "log")
        sink.open(sink_info())
        sink.accept([exchange(), event()])
        sink.close(1.0)
        assert (tmp_path / "log").read_text() == SAMPLE

    def test_kinds(self) -> None:
        assert NdjsonSink("log").kinds == frozenset(FlowEventKind)
        assert NdjsonSink("log", kinds=["stream_closed"]).kinds == {FlowEventKind.STREAM_CLOSED}

    @pytest.mark.parametrize("options", [{"rotate_bytes": 0}, {"flush_every": 0}, {"kinds": ["no_kind"]}, {"mask": ("a b",)}])
    def test_wrong_arguments(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError):
            NdjsonSink("log", **options)


class TestFiles:
    def test_owner_only(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_text("an earlier log")
        (tmp_path / "log").chmod(0o644)
        written(tmp_path / "log", [event(), event(2)], rotate_bytes=10)
        if sys.platform != "win32":
            names = ("log", "log.part00001", "log.index.tsv")
            assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names} == {0o600}

    def test_segments_and_index(self, tmp_path: Path) -> None:
        size = len(SAMPLE)
        written(tmp_path / "log", [event(number) for number in range(1, 6)], rotate_bytes=2 * size + 1)
        segments = segments_of(tmp_path / "log")
        assert [each.name for each in segments] == ["log", "log.part00001", "log.part00002"]
        header, *rows = [row.split("\t") for row in (tmp_path / "log.index.tsv").read_text().splitlines()]
        assert header[:2] == ["sequence_id", "flow_id"] and header[-3:] == ["segment_id", "byte_offset", "line_bytes"]
        for row in rows:
            segment, offset, length = map(int, row[-3:])
            line = segments[segment].read_bytes()[offset : offset + length]
            assert json.loads(line)["sequence_id"] == int(row[0]) and line.endswith(b"\n")
        assert [row[-3] for row in rows] == ["0", "0", "1", "1", "2"]

    def test_segments_of_an_earlier_log_are_removed(self, tmp_path: Path) -> None:
        written(tmp_path / "log", [event(number) for number in range(1, 6)], rotate_bytes=10)
        assert len(segments_of(tmp_path / "log")) == 5
        written(tmp_path / "log", [event()])
        assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "log.index.tsv"]

    def test_another_place_of_the_index_or_none(self, tmp_path: Path) -> None:
        written(tmp_path / "log", [event()], index=tmp_path / "places")
        written(tmp_path / "other", [event()], index=False)
        assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "other", "places"]

    def test_lines_wait_as_they_are_told_to(self, tmp_path: Path) -> None:
        sink = NdjsonSink(tmp_path / "log", flush_every=3)
        sink.open(sink_info())
        sink.accept([event(1), event(2)])
        assert (tmp_path / "log").read_bytes() == b""
        sink.accept([event(3)])
        assert [each.sequence_id for each in EventLog(tmp_path / "log")] == [1, 2, 3]
        sink.close(1.0)

    def test_a_place_where_nothing_can_be_made(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="no_such_folder"):
            NdjsonSink(tmp_path / "no_such_folder" / "log").open(sink_info())


class TestFaults:
    def test_a_full_disk_loses_what_does_not_fit_and_says_so(self, tmp_path: Path) -> None:
        sink = NdjsonSink(tmp_path / "log", index=False)
        sink.open(sink_info())
        sink.accept([event(1), event(2)])
        with files_of_at_most(3 * len(SAMPLE) - 5):
            # one line would be half there
            sink.accept([event(3), event(4)])
        assert (sink.lost, sink.write_errors) == (2, 1)
        assert sink.last_error is not None and "log" in sink.last_error
        assert [each.sequence_id for each in EventLog(tmp_path / "log")] == [1, 2]
        # there is room again
        sink.accept([event(5)])
        sink.close(1.0)
        log = EventLog(tmp_path / "log")
        assert [each.sequence_id for each in log] == [1, 2, 5]
        assert (log.missing, log.torn) == (2, 0)

    def test_no_room_at_all_is_told_at_start(self, tmp_path: Path) -> None:
        with files_of_at_most(20), pytest.raises(OSError, match="index.tsv"):
            NdjsonSink(tmp_path / "log").open(sink_info())

    def test_no_room_for_another_segment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sink = NdjsonSink(tmp_path / "log", rotate_bytes=10)
        sink.open(sink_info())
        sink.accept([event(1)])
        (tmp_path / "log.part00001").mkdir()
        sink.accept([event(2), event(3)])
        assert sink.lost == 2 and sink.write_errors == 1
        (tmp_path / "log.part00001").rmdir()
        sink.accept([event(4)])
        sink.close(1.0)
        assert [each.sequence_id for each in EventLog(tmp_path / "log")] == [1, 4]

    def test_what_the_queue_dropped_is_counted(self) -> None:
        sink = NdjsonSink("log")
        sink.dropped(3)
        sink.dropped(4)
        assert sink.dropped_events == 7

    @pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
    def test_a_kill_loses_nothing_that_the_sink_was_given(self, tmp_path: Path) -> None:
        code = (
            "import sys; from support.made_flows import event, sink_info; from soth_mitm.observe.ndjson import NdjsonSink\n"
            f"sink = NdjsonSink({str(tmp_path / 'log')!r}); sink.open(sink_info())\n"
            "for number in range(1, 1000000):\n"
            "    sink.accept([event(number)]); print(number, flush=True)\n"
        )
        tests = Path(__file__).parents[2]
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tests, text=True)
        assert child.stdout is not None
        told = 0
        while told < 500:
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        child.wait()
        child.stdout.close()
        told = int(([str(told)] + [line for line in rest.splitlines(keepends=True) if line.endswith("\n")])[-1])
        found = [each.sequence_id for each in EventLog(tmp_path / "log")]
        assert found[:told] == list(range(1, told + 1))

    def test_a_torn_last_line_is_seen(self, tmp_path: Path) -> None:
        written(tmp_path / "log", [event(1), event(2)])
        with open(tmp_path / "log", "ab") as file:
            file.write(SAMPLE.encode()[:100])
        log = EventLog(tmp_path / "log")
        assert [each.sequence_id for each in log] == [1, 2]
        assert log.torn == 100


class TestReader:
    def test_it_reads_what_was_written(self, tmp_path: Path) -> None:
        events = [event(number, kind, flow_id=number % 3) for number, kind in enumerate(FlowEventKind, 1)]
        written(tmp_path / "log", events, clock=True, rotate_bytes=1000)
        assert list(EventLog(tmp_path / "log")) == events

    def test_kinds_that_it_does_not_know_are_skipped(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_text(SAMPLE.replace("request_headers", "request_of_tomorrow") + SAMPLE)
        assert len(list(EventLog(tmp_path / "log"))) == 1

    @pytest.mark.parametrize(
        "line", ["{}", "1", "no", SAMPLE.strip().replace("log-v2", "log-v9"), SAMPLE.strip().replace('"flow_id":1', '"flow_id":"x"')]
    )
    def test_what_is_no_event_is_named(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "log").write_text(SAMPLE + line + "\n")
        with pytest.raises(ValueError, match=r"log:2: no event: "):
            list(EventLog(tmp_path / "log"))

    def test_two_runs_of_the_same_traffic_are_comparable(self) -> None:
        one = [event(1), event(2, flow_id=2), event(3, attributes={"took_us": 1})]
        two = [
            event(11, flow_id=8, flow_sequence_id=1, connection_id="x", client_addr="127.0.0.1:1"),
            event(13, flow_id=9, flow_sequence_id=2, connection_id="y", client_addr="127.0.0.1:2"),
            event(17, flow_id=8, flow_sequence_id=3, connection_id="x", client_addr="127.0.0.1:1", attributes={"took_us": 2}),
        ]
        assert comparable(one) == comparable(two)
        assert comparable(one) != comparable(two[:2])
