"""A flow store outlives its writers: killed ones, several at once, a disk that takes no more, a reader that stays."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from soth_mitm.observe import SqliteSink
from soth_mitm.observe.store.reader import StoreReader, all_rows
from soth_mitm.observe.store.retention import used_bytes
from support.made_flows import exchange, mixed, opened, sink_info
from support.source import ROOT

AGES = 1e10


def writing(path: Path, *arguments: int) -> "subprocess.Popen[str]":
    """Start a process that writes made flows."""
    command = [sys.executable, "-m", "support.writing_flows", str(path), *map(str, arguments)]
    environ = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ, cwd=path.parent)


def check_sound(path: Path) -> None:
    """The file is whole, and no piece is without its flow."""
    database = sqlite3.connect(path)
    try:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert database.execute("select count(*) from piece where id >> 20 not in (select id from flow)").fetchone() == (0,)
        # the pieces of a row are there as well
        counts = "select count(*) from flow f where piece_count != (select count(*) from piece where id >> 20 = f.id)"
        assert database.execute(counts).fetchone() == (0,)
    finally:
        database.close()


def test_a_killed_writer_loses_one_commit_at_most(tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    rng = random.Random(7)
    batch, told_before = 50, 0
    for _ in range(12):
        process = writing(path, 0, batch)
        assert process.stdout is not None
        told = 0
        for line in process.stdout:
            told = int(line) if line.strip().isdigit() else 0
            if told >= batch * rng.randrange(1, 20):
                break
        process.kill()
        rest = process.stdout.read().split()
        told = int(rest[-1]) if rest else told
        process.wait()
        process.stdout.close()
        # a reader that comes first may not mend the file, and reads it all the same
        with StoreReader(path) as reader:
            reader.facets()
        check_sound(path)
        with StoreReader(path) as reader:
            count = reader.count()
            # what it said was written is there; one batch may have been written and not told of
            assert told <= count - told_before <= told + batch
            told_before = count
            (session, *_) = reader.sessions()
            assert session.has_vanished


def test_four_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    processes = [writing(path, 400, 40) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
    seen: set[int] = set()
    with StoreReader(path) as reader:
        revision = 0
        while True:
            ended = all(process.poll() is not None for process in processes)
            changes = reader.changes(revision)
            assert changes.revision >= revision
            revision = changes.revision
            seen |= {row.id for row in changes.rows}
            if ended and not changes.rows:
                break
            if not changes.has_more:
                reader.wait(0.2)
        assert reader.count() == len(seen) == 1600, "who asks for changes misses none"
        sessions = reader.sessions()
        assert [session.dropped for session in sessions] == [0] * 4
        assert all(session.ended is not None for session in sessions)
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 0
    check_sound(path)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """What cannot be written is counted, and the file stays sound."""
    path = tmp_path / "flows.db"
    process = writing(path, 3000, 100, 1 << 30, 1_000_000)
    assert process.stdout is not None
    with process.stdout as lines:
        told = lines.read().splitlines()
    assert process.wait() == 0
    offered, stored, lost = map(int, told[-1].split()[1:])
    assert lost > 0 and stored > 0 and offered == stored + lost
    check_sound(path)


def test_a_full_file_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    sink = SqliteSink(path, min_free_bytes=0, full_text="off", max_age=AGES)
    sink.open(sink_info())
    writer = sink._writer
    assert writer is not None
    (pages,) = writer._database.execute("pragma page_count").fetchone()
    writer._database.execute(f"pragma max_page_count = {pages + 4}")
    for first in range(1, 400, 100):
        sink.accept(list(mixed(100, first_id=first)))
    assert writer.lost > 0
    check_sound(path)
    writer._database.execute("pragma max_page_count = 1000000")
    writer._blocked_until = 0.0
    before = writer.lost
    sink.accept([exchange(1000)])
    assert writer.lost == before
    with StoreReader(path) as reader:
        newest = reader.newest()
        assert newest is not None and newest.path.startswith("/items/1000")
    sink.close(5)
    check_sound(path)


def test_too_little_free_space_stops_writing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "flows.db"
    sink = SqliteSink(path, min_free_bytes=1 << 60, full_text="off", max_age=AGES)
    sink.open(sink_info())
    sink.accept(list(mixed(10)))
    sink.accept(list(mixed(10)))
    writer = sink._writer
    assert writer is not None
    assert writer.stored == 0 and writer.lost == writer.offered > 0
    assert caplog.text.count("are free on its disk") == 1
    sink.close(5)
    with StoreReader(path) as reader:
        (session,) = reader.sessions()
        assert session.dropped == session.offered > 0, "the session says so all the same"


def test_the_size_stays_within_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    most = 1 << 20
    sink = SqliteSink(path, max_bytes=most, min_free_bytes=0, full_text="always", max_age=AGES)
    sink.open(sink_info())
    sink.accept([opened(exchange(1_000_000, started=0.0))])
    writer = sink._writer
    assert writer is not None
    for first in range(1, 4000, 100):
        sink.accept(list(mixed(100, seed=first, first_id=first)))
        # words come after the bound was kept
        assert used_bytes(writer._database) <= most * 1.3
    assert writer.expired > 0 and writer.lost == 0
    with StoreReader(path) as reader:
        rows = list(all_rows(reader))
        kept = {int(row.path.split("?")[0].rpartition("/")[2]) for row in rows if row.path.startswith("/items/")}
        assert max(kept - {1_000_000}) > 3900, "the newest are there"
        assert 1_000_000 in kept, "what is open is not removed"
        assert min(kept) > 1
    sink.close(5)
    check_sound(path)


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    sink = SqliteSink(path, min_free_bytes=0, full_text="off", max_age=3600)
    sink.open(sink_info())
    now = time.time()
    sink.accept([exchange(number, started=now - age) for number, age in ((1, 10_000), (2, 3700), (3, 3500), (4, 0))])
    writer = sink._writer
    assert writer is not None
    writer.tidy()
    with StoreReader(path) as reader:
        assert {row.id for row in all_rows(reader)} == {3, 4}
    assert writer.expired == 2
    sink.close(5)


def test_a_reader_that_stays_lets_the_journal_be_short(tmp_path: Path) -> None:
    path = tmp_path / "flows.db"
    sink = SqliteSink(path, min_free_bytes=0, full_text="off", max_age=AGES)
    sink.open(sink_info())
    with StoreReader(path) as reader:
        for first in range(1, 6000, 200):
            sink.accept(list(mixed(200, seed=first, first_id=first)))
            reader.flows()
            reader.flow(first)
        assert path.with_name("flows.db-wal").stat().st_size < 9 << 20
    sink.close(5)


def test_a_reader_is_woken(tmp_path: Path) -> None:
    path = tmp_path / "a-folder-with-a-long-name" / ("deeper" * 20) / "flows.db"
    sink = SqliteSink(path, min_free_bytes=0, full_text="off", max_age=AGES)
    sink.open(sink_info())
    with StoreReader(path) as reader, StoreReader(path) as other:
        reader.attach()
        other.attach()
        assert not reader.wait(0)
        sink.accept([exchange(1)])
        assert reader.wait(30) and other.wait(30)
        assert not reader.wait(0)
        folder = path.with_name("flows.db-views")
        assert len(list(folder.iterdir())) == 2
        # as one that was killed leaves it
        attachment = other.attach()
        assert attachment._socket is not None
        attachment._socket.close()
        attachment._socket = None
        sink.accept([exchange(2)])
        sink.accept([exchange(3)])
        assert reader.wait(30)
        assert len(list(folder.iterdir())) == 1
    sink.close(5)
