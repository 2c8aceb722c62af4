"""The places at which clients' sockets were held lately, in a procfs of the test's own."""

import sys
from pathlib import Path

import pytest

from soth_mitm._dataplane.holders import RecentHolders

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="procfs")

CAPACITY = 48


class Procfs:
    """Processes that hold one socket each, at descriptor 3."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.holders = RecentHolders(bytes(path))

    def hold(self, pid: int, inode: int, parent: int = 0) -> None:
        folder = self._path / str(pid) / "fd"
        folder.mkdir(parents=True, exist_ok=True)
        fields = [str(parent)] + ["0"] * 17 + [f"9{pid}"] + ["0"] * 5 + [f"7{pid}"] + ["0"] * 4
        (folder.parent / "stat").write_text(f"{pid} (a name) S {' '.join(fields)}\n")
        (folder / "3").unlink(missing_ok=True)
        (folder / "3").symlink_to(f"socket:[{inode}]")

    def find(self, pid: int, connection: int) -> None:
        """Let a new connection of `pid` be held there, and find it."""
        self.hold(pid, 1000 + connection)
        assert self.holders.find(1000 + connection, connection) == (pid, f"9{pid}.7{pid}")


@pytest.fixture
def procfs(tmp_path: Path) -> Procfs:
    procfs = Procfs(tmp_path)
    for pid in (1, 2, 3, 4):
        procfs.hold(pid, 1000 + pid)
        procfs.holders.note(pid, 3, pid)
    return procfs


def test_what_is_in_use_is_asked_in_the_order_of_its_beginning(procfs: Procfs) -> None:
    assert procfs.holders.pids() == [1, 2, 3, 4]
    procfs.find(1, 11)
    assert procfs.holders.pids() == [2, 3, 4, 1]


def test_what_has_ended_is_asked_first_in_the_order_of_its_end(procfs: Procfs) -> None:
    for connection in (3, 4, 2):
        procfs.holders.ended(connection)
    assert procfs.holders.pids() == [3, 4, 2, 1]
    procfs.find(3, 13)
    assert procfs.holders.pids() == [4, 2, 1, 3]
    procfs.holders.ended(13)
    assert procfs.holders.pids() == [4, 2, 3, 1]


def test_what_was_asked_in_vain_is_asked_last(procfs: Procfs) -> None:
    for connection in (1, 2, 3):
        procfs.holders.ended(connection)
    procfs.find(3, 13)
    assert procfs.holders.pids() == [4, 1, 2, 3]
    procfs.holders.ended(13)
    assert procfs.holders.pids() == [3, 4, 1, 2]
    procfs.find(2, 12)
    assert procfs.holders.pids() == [3, 4, 1, 2]


def test_an_end_that_is_told_twice_or_of_nobody_changes_nothing(procfs: Procfs) -> None:
    procfs.holders.ended(3)
    procfs.holders.ended(3)
    procfs.holders.ended(99)
    assert procfs.holders.pids() == [3, 1, 2, 4]


def test_nobody_is_found_at_places_that_hold_other_sockets(procfs: Procfs) -> None:
    assert procfs.holders.find(77, 7) is None
    procfs.hold(2, 500)
    assert procfs.holders.find(1002, 2) is None
    assert procfs.holders.pids() == [1, 2, 3, 4]


def test_the_topmost_holder_is_the_owner(procfs: Procfs) -> None:
    procfs.hold(2, 600, parent=9)
    procfs.hold(9, 600)
    assert procfs.holders.find(600, 6) == (9, "99.79")
    assert procfs.holders.pids() == [3, 4, 1, 9]


def test_the_place_that_was_useful_longest_ago_is_forgotten(tmp_path: Path) -> None:
    procfs = Procfs(tmp_path)
    for pid in range(1, CAPACITY + 1):
        procfs.hold(pid, 1000 + pid)
        procfs.holders.note(pid, 3, pid)
    # asked first is not useful longest ago
    procfs.find(1, 101)
    procfs.holders.ended(101)
    procfs.hold(100, 1100)
    procfs.holders.note(100, 3, 100)
    known = procfs.holders.pids()
    assert len(known) == CAPACITY and 2 not in known and known[0] == 1 and known[-1] == 100


def test_a_place_is_noted_once(procfs: Procfs) -> None:
    procfs.holders.note(2, 3, 12)
    assert procfs.holders.pids() == [1, 3, 4, 2]
    procfs.holders.ended(12)
    assert procfs.holders.pids() == [2, 1, 3, 4]
