"""Linux: parsing, and the search in a procfs made of files."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from soth_mitm.connection import ProcessInfo, SocketAddress
from soth_mitm.process._linux.sock_diag import SockDiag
from soth_mitm.process.address import pack_host
from soth_mitm.process.linux import LinuxProcesses, SocketEntry, find_in_table, parse_stat

CLIENT, PEER = ("127.9.9.9", 50001), ("127.0.0.1", 8080)

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the recorded data come from little-endian machines")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="procfs needs links whose target does not exist, and fd directories")

TCP_TABLE = b"""\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0909097F:C351 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0000000000000000 20 4 30 10 -1
   2: 0909097F:C351 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 333 1 0000000000000000 20 4 30 10 -1
   3: 0909097F:C352 0100007F:1F90 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000000000000000
"""
TCP6_TABLE = b"""\
  sl  local_address    remote_address    st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:C351 00000000000000000000000001000000:1F90 01 00000000:00000000 00:00000000 00000000 42 0 444 1
   1: 0000000000000000FFFF00000909097F:C353 0000000000000000FFFF00000100007F:1F90 01 00000000:00000000 00:00000000 00000000 43 0 555 1
"""


def test_parse_stat_with_a_hostile_name():
    tail = " ".join(str(number) for number in range(4, 53))
    stat = parse_stat(f"7 (a) S 1 (b c) R {tail}\n".encode())
    assert (stat.name, stat.parent_pid, stat.start_token) == ("a) S 1 (b c", 4, "22.28")


def test_table_of_ipv4():
    assert find_in_table(TCP_TABLE, CLIENT, PEER, mapped=False) == SocketEntry(333, 1000)
    assert find_in_table(TCP_TABLE, PEER, CLIENT, mapped=False) == SocketEntry(222, 0)
    assert find_in_table(TCP_TABLE, ("::ffff:127.9.9.9", 50001), ("::ffff:127.0.0.1", 8080), mapped=False) == SocketEntry(333, 1000)
    assert find_in_table(TCP_TABLE, ("127.9.9.9", 50009), PEER, mapped=False) is None


def test_table_of_ipv6():
    assert find_in_table(TCP6_TABLE, ("::1", 50001), ("::1", 8080), mapped=True) == SocketEntry(444, 42)
    assert find_in_table(TCP6_TABLE, ("127.9.9.9", 50003), PEER, mapped=True) == SocketEntry(555, 43)


def ends(client: SocketAddress, peer: SocketAddress) -> tuple[bytes, int, bytes, int]:
    return pack_host(client[0]), client[1], pack_host(peer[0]), peer[1]


def test_diag_request_names_one_connection(made_bytes):
    request = made_bytes.diag_request(*ends(("::ffff:127.9.9.9", 50001), ("127.0.0.1", 8080)), sequence=9)
    assert len(request) == 72
    assert struct.unpack_from("=IHHI", request) == (72, 20, 1, 9)
    assert request[16] == socket.AF_INET
    assert request[24:28] == struct.pack("!HH", 50001, 8080)
    assert request[28:32] == b"\x7f\x09\x09\x09" and request[44:48] == b"\x7f\x00\x00\x01"
    assert made_bytes.diag_request(*ends(("::1", 1), ("::1", 2)))[16] == socket.AF_INET6
    with pytest.raises(ValueError, match="one family"):
        made_bytes.diag_request(*ends(("::1", 1), ("127.0.0.1", 2)))


def answer_of(state: int, sequence: int = 0) -> bytes:
    body = struct.pack("=BBBB", socket.AF_INET, state, 0, 0) + bytes(48) + struct.pack("=IIIII", 0, 0, 0, 1000, 333)
    return struct.pack("=IHHII", 16 + len(body), 20, 0, sequence, 0) + body


def refusal(code: int) -> bytes:
    return struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -code) + bytes(16)


def test_diag_answers(made_bytes):
    assert made_bytes.diag_answer(answer_of(1)) == (333, 1000)
    assert made_bytes.diag_answer(answer_of(10)) is None, "a listener is not the client"
    assert made_bytes.diag_answer(refusal(errno.ENOENT)) is None
    with pytest.raises(OSError, match="sock_diag does not answer") as caught:
        made_bytes.diag_answer(refusal(errno.EPERM))
    assert caught.value.errno == errno.EPERM
    with pytest.raises(OSError, match="sock_diag does not answer"):
        made_bytes.diag_answer(answer_of(1, sequence=4), sequence=5)


@linux_only
def test_the_kernel_answers_for_one_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        kernel = SockDiag()
        try:
            found = kernel.ask(*ends(client.getsockname(), client.getpeername()))
        except OSError as error:
            pytest.skip(f"not here: {error}")
        assert found == (os.fstat(client.fileno()).st_ino, os.geteuid())
        # Nobody is connected from there, but somebody listens.
        assert kernel.ask(*ends(listener.getsockname(), ("127.9.9.9", 1))) is None
        kernel.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            kernel.ask(*ends(client.getsockname(), client.getpeername()))


class Procfs:
    """A procfs made of files, holding one connection from CLIENT to PEER with inode 333."""

    def __init__(self, root, table: bytes | None = None) -> None:
        self.root = root
        (root / "net").mkdir()
        default = TCP_TABLE.replace(b"  1000        0 333", b"  %d        0 333" % os.geteuid())
        (root / "net/tcp").write_bytes(default if table is None else table)
        (root / "net/tcp6").write_bytes(TCP6_TABLE)
        (root / "self").mkdir()
        self.system = LinuxProcesses(str(root))

    def add(
        self, pid: int, parent: int, *descriptors: str, start: int = 5, name: str = "tool", argv: bytes = b"/bin/tool\0", exe="/bin/tool"
    ):
        home = self.root / str(pid)
        (home / "fd").mkdir(parents=True)
        (home / "stat").write_text(f"{pid} ({name}) S {parent} " + "0 " * 17 + f"{start} " + "0 " * 24)
        (home / "comm").write_text(f"{name}\n")
        (home / "status").write_text(f"Name:\t{name}\nUmask:\t0022\nUid:\t1000\t0\t0\t0\nGid:\t5\t5\t5\t5\n")
        (home / "cmdline").write_bytes(argv)
        if exe:
            (home / "exe").symlink_to(exe)
        for number, target in enumerate(descriptors):
            (home / "fd" / str(number)).symlink_to(target)

    def owner(self) -> int | None:
        return self.system.find_owner(PEER, CLIENT)


@pytest.fixture
def procfs(tmp_path) -> Iterator[Procfs]:
    procfs = Procfs(tmp_path)
    yield procfs
    procfs.system.close()


@linux_only
def test_the_holder_is_found_and_found_again(procfs):
    procfs.add(10, 1, "/dev/null", "socket:[3333]", "pipe:[333]")
    procfs.add(20, 1, "/dev/null", "/dev/null", "socket:[333]")
    assert [procfs.owner(), procfs.owner()] == [20, 20]
    (procfs.root / "20/fd/2").rename(procfs.root / "20/fd/7")
    assert procfs.owner() == 20, "the remembered descriptor is only where the search starts"


@linux_only
def test_of_a_shared_socket_the_topmost_of_the_line_is_the_owner(procfs):
    procfs.add(10, 1, "/dev/null")
    procfs.add(20, 10, "/dev/null", "socket:[333]")
    procfs.add(30, 20, "/dev/null", "socket:[333]")
    procfs.add(40, 30, "/dev/null", "socket:[333]")
    assert procfs.owner() == 20


@linux_only
def test_nobody_holds_it(procfs):
    procfs.add(10, 1, "socket:[222]")
    assert procfs.owner() is None


@linux_only
def test_a_connection_that_its_process_has_closed_belongs_to_nobody(procfs):
    procfs.add(10, 1, "socket:[0]")
    assert procfs.system.find_owner(PEER, ("127.9.9.9", 50002)) is None


@linux_only
def test_a_mapped_client_stands_in_the_other_table(procfs):
    procfs.add(10, 1, "socket:[555]")
    (procfs.root / "net/tcp6").write_bytes(TCP6_TABLE.replace(b" 43 0 ", b" %d 0 " % os.geteuid()))
    assert procfs.system.find_owner(PEER, ("127.9.9.9", 50003)) == 10


@linux_only
def test_describe(procfs):
    procfs.add(10, 1, name="shell with a name")
    procfs.add(20, 10, name="python3", argv=b"python3\0/srv/agent.py\0", exe="/usr/bin/python3.11")
    interpreter = "/usr/bin/python3.11"
    described = ProcessInfo(20, None, "agent", interpreter, 10, "shell with a name", uid=1000, interpreter_path=interpreter)
    assert procfs.system.describe(20) == described
    assert procfs.system.describe(99) is None


@linux_only
def test_describe_what_may_be_read(procfs):
    procfs.add(20, 0, name="hidden", exe=None, argv=b"")
    procfs.add(30, 99, exe="/opt/tool (deleted)")
    assert procfs.system.describe(20) == ProcessInfo(20, exe_name="hidden", uid=1000)
    assert procfs.system.describe(30) == ProcessInfo(30, exe_name="tool", exe_path="/opt/tool (deleted)", parent_pid=99, uid=1000)


@linux_only
def test_a_relative_link_is_resolved_where_the_process_works(procfs, tmp_path):
    package = tmp_path / "work/node_modules/@scope/agent"
    package.mkdir(parents=True)
    (package / "cli.js").write_text("")
    (tmp_path / "work/agent").symlink_to(package / "cli.js")
    procfs.add(20, 0, argv=b"node\0./agent\0", exe="/usr/bin/node")
    (procfs.root / "20/cwd").symlink_to(tmp_path / "work")
    node, script = "/usr/bin/node", str(package / "cli.js")
    described = ProcessInfo(20, exe_name="@scope/agent", exe_path=node, uid=1000, interpreter_path=node, script_path=script)
    assert procfs.system.describe(20) == described


@linux_only
def test_more_owners_than_are_remembered(procfs):
    for pid in range(100, 140):
        procfs.add(pid, 1, "socket:[333]")
        assert procfs.owner() is not None
        (procfs.root / f"{pid}/fd/0").unlink()
    assert procfs.owner() is None
