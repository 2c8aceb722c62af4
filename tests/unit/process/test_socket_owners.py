"""The places at which clients' sockets were held lately, in a procfs of the test's own."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from soth_mitm.process._linux.socket_owners import RecentSocketOwners

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="procfs")

PLACES, PROCESSES = 48, 32


class Procfs:
    """Processes that hold a socket each, at descriptor 3."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owners = RecentSocketOwners(bytes(path))

    def hold(self, pid: int, inode: int, parent: int = 0, descriptor: int = 3) -> None:
        folder = self.path / str(pid) / "fd"
        folder.mkdir(parents=True, exist_ok=True)
        fields = [str(parent)] + ["0"] * 17 + [f"9{pid}"] + ["0"] * 5 + [f"7{pid}"] + ["0"] * 4
        (folder.parent / "stat").write_text(f"{pid} (a name) S {' '.join(fields)}\n")
        (folder / str(descriptor)).unlink(missing_ok=True)
        (folder / str(descriptor)).symlink_to(f"socket:[{inode}]")

    def find(self, pid: int, connection: int) -> None:
        """Let a new connection of `pid` be held there, and find it."""
        self.hold(pid, 1000 + connection)
        assert self.owners.find(1000 + connection, connection) == (pid, f"9{pid}.7{pid}")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Procfs]:
    procfs = Procfs(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    yield procfs
    procfs.owners.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def procfs(empty: Procfs) -> Procfs:
    for pid in (1, 2, 3, 4):
        empty.hold(pid, 1000 + pid)
        empty.owners.note(pid, 3, pid)
    return empty


def test_what_is_in_use_is_asked_in_the_order_of_its_beginning(procfs: Procfs) -> None:
    assert procfs.owners.pids() == [1, 2, 3, 4]
    procfs.find(1, 11)
    assert procfs.owners.pids() == [2, 3, 4, 1]


def test_what_has_ended_is_asked_first_in_the_order_of_its_end(procfs: Procfs) -> None:
    for connection in (3, 4, 2):
        procfs.owners.connection_closed(connection)
    assert procfs.owners.pids() == [3, 4, 2, 1]
    procfs.find(3, 13)
    assert procfs.owners.pids() == [4, 2, 1, 3]
    procfs.owners.connection_closed(13)
    assert procfs.owners.pids() == [4, 2, 3, 1]


def test_what_was_asked_in_vain_is_asked_last(procfs: Procfs) -> None:
    for connection in (1, 2, 3):
        procfs.owners.connection_closed(connection)
    procfs.find(3, 13)
    assert procfs.owners.pids() == [4, 1, 2, 3]
    procfs.owners.connection_closed(13)
    assert procfs.owners.pids() == [3, 4, 1, 2]
    procfs.find(2, 12)
    assert procfs.owners.pids() == [3, 4, 1, 2]


def test_an_end_that_is_told_twice_or_of_nobody_changes_nothing(procfs: Procfs) -> None:
    procfs.owners.connection_closed(3)
    procfs.owners.connection_closed(3)
    procfs.owners.connection_closed(99)
    assert procfs.owners.pids() == [3, 1, 2, 4]


def test_nobody_is_found_at_places_that_hold_other_sockets(procfs: Procfs) -> None:
    assert procfs.owners.find(77, 7) is None
    procfs.hold(2, 500)
    assert procfs.owners.find(1002, 2) is None
    assert procfs.owners.pids() == [1, 2, 3, 4]


def test_what_became_another_program_is_forgotten(procfs: Procfs) -> None:
    procfs.hold(2, 1012)
    stat = procfs.path / "2" / "stat"
    stat.write_text(stat.read_text().replace("72", "73"))
    assert procfs.owners.find(1012, 12) is None
    assert procfs.owners.pids() == [1, 3, 4]
    procfs.owners.note(2, 3, 12)
    assert procfs.owners.find(1012, 12) == (2, "92.73")


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_the_first(procfs: Procfs) -> None:
    (procfs.path / "2").rename(procfs.path / "gone")
    procfs.hold(2, 1012)
    assert procfs.owners.find(1012, 12) is None, "what is known is a place of the first one"
    assert procfs.owners.find(1002, 12) == (2, "92.72"), "which this procfs still has, under another name"


def test_nobody_is_noted_who_is_gone(procfs: Procfs) -> None:
    procfs.owners.note(77, 3, 7)
    assert procfs.owners.pids() == [1, 2, 3, 4]


def test_the_place_that_was_useful_longest_ago_is_forgotten(empty: Procfs) -> None:
    for place in range(PLACES):
        empty.hold(1 + place % 2, 1000 + place, descriptor=place)
        empty.owners.note(1 + place % 2, place, place)
    # asked first is not useful longest ago
    assert empty.owners.find(1000, 0) == (1, "91.71")
    empty.owners.connection_closed(0)
    empty.hold(1, 1100, descriptor=100)
    empty.owners.note(1, 100, 100)
    assert empty.owners.find(1001, 1) is None
    assert empty.owners.find(1100, 100) and empty.owners.find(1000, 0) and empty.owners.find(1002, 2)


def test_the_process_that_was_useful_longest_ago_is_forgotten(empty: Procfs) -> None:
    for pid in range(1, PROCESSES + 1):
        empty.hold(pid, 1000 + pid)
        empty.owners.note(pid, 3, pid)
    empty.find(1, 101)
    empty.owners.connection_closed(101)
    empty.hold(100, 1100)
    empty.owners.note(100, 3, 100)
    known = empty.owners.pids()
    assert len(known) == PROCESSES and 2 not in known and known[0] == 1 and known[-1] == 100


def test_a_place_is_noted_once(procfs: Procfs) -> None:
    procfs.owners.note(2, 3, 12)
    assert procfs.owners.pids() == [1, 3, 4, 2]
    procfs.owners.connection_closed(12)
    assert procfs.owners.pids() == [2, 1, 3, 4]


def test_a_look_up_that_hung_until_the_end_opens_nothing_more(procfs: Procfs) -> None:
    procfs.owners.close()
    before = os.listdir("/proc/self/fd")
    procfs.owners.note(1, 3, 1)
    assert os.listdir("/proc/self/fd") == before
    assert procfs.owners.pids() == [] and procfs.owners.find(1001, 1) is None
