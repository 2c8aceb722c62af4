"""macOS and Windows: the parts that do not need their system, on data laid out as it lays it out."""

from __future__ import annotations

import os
import plistlib
import socket
import struct
import subprocess
import sys
from collections import namedtuple

import psutil
import pytest

from soth_mitm.process import identity, macos, windows

CLIENT, PEER = ("127.0.0.1", 50001), ("127.0.0.1", 8080)
CLIENT_V6, PEER_V6 = ("::1", 50001), ("::1", 8080)
Listed = namedtuple("Listed", "laddr raddr")


def port_field(port: int) -> bytes:
    return struct.pack("!H", port) + b"\xde\xad"  # the rest of a port's field is not defined


def row_v4(client, peer, pid: int) -> bytes:
    return b"".join(
        (struct.pack("<I", 5), socket.inet_aton(client[0]), port_field(client[1]), socket.inet_aton(peer[0]), port_field(peer[1]))
    ) + struct.pack("<I", pid)


def row_v6(client, peer, pid: int) -> bytes:
    def end(address):
        return socket.inet_pton(socket.AF_INET6, address[0]) + struct.pack("<I", 3) + port_field(address[1])

    return end(client) + end(peer) + struct.pack("<II", 5, pid)


def table(*rows: bytes) -> bytes:
    return struct.pack("<I", len(rows)) + b"".join(rows) + bytes(100)


def test_windows_table_of_ipv4():
    data = table(row_v4(PEER, CLIENT, 1), row_v4(("127.0.0.2", 50001), PEER, 2), row_v4(CLIENT, PEER, 1234))
    assert windows.owner_in_table(data, CLIENT, PEER, v6=False) == 1234
    assert windows.owner_in_table(data, ("::ffff:127.0.0.1", 50001), ("::ffff:127.0.0.1", 8080), v6=False) == 1234
    assert windows.owner_in_table(data, ("127.0.0.1", 50002), PEER, v6=False) is None


def test_windows_table_of_ipv6():
    data = table(row_v6(PEER_V6, CLIENT_V6, 1), row_v6(CLIENT_V6, PEER_V6, 99))
    assert windows.owner_in_table(data, CLIENT_V6, PEER_V6, v6=True) == 99
    assert windows.owner_in_table(data, ("::2", 50001), PEER_V6, v6=True) is None


def test_windows_ipv4_in_the_table_of_ipv6():
    data = table(row_v6(("::ffff:127.0.0.1", 50001), ("::ffff:127.0.0.1", 8080), 42))
    assert windows.owner_in_table(data, CLIENT, PEER, v6=True) == 42


def test_windows_rows_beyond_the_count_are_not_read():
    data = struct.pack("<I", 0) + row_v4(CLIENT, PEER, 7)
    assert windows.owner_in_table(data, CLIENT, PEER, v6=False) is None


def test_windows_a_closed_connection_has_no_owner():
    assert windows.owner_in_table(table(row_v4(CLIENT, PEER, 0)), CLIENT, PEER, v6=False) is None


@pytest.mark.skipif(sys.platform == "win32", reason="asks what the other systems answer")
def test_windows_cannot_be_asked_elsewhere():
    with pytest.raises(OSError, match="Windows only"):
        windows.WindowsProcesses().find_owner(PEER, CLIENT)


def test_macos_matches_both_ends():
    connections = [Listed(("127.0.0.1", 50001), ()), Listed(PEER, CLIENT), Listed(("127.0.0.1", 50001), ("127.0.0.1", 8080))]
    assert macos.holds(connections, CLIENT, PEER)
    assert not macos.holds(connections[:2], CLIENT, PEER)
    assert macos.holds([Listed(("::ffff:127.0.0.1", 50001), ("::ffff:127.0.0.1", 8080))], CLIENT, PEER)
    assert not macos.holds([Listed(("127.0.0.2", 50001), PEER)], CLIENT, PEER)


def test_macos_bundle_is_the_innermost(tmp_path):
    outer, inner = tmp_path / "Browser.app", tmp_path / "Browser.app/Contents/Frameworks/Browser Helper.app"
    for bundle, name in ((outer, "org.example.browser"), (inner, "org.example.browser.helper")):
        (bundle / "Contents/MacOS").mkdir(parents=True)
        (bundle / "Contents/Info.plist").write_bytes(plistlib.dumps({"CFBundleIdentifier": name}, fmt=plistlib.FMT_BINARY))
    assert macos.bundle_id_of(str(inner / "Contents/MacOS/Browser Helper")) == "org.example.browser.helper"
    assert macos.bundle_id_of(str(outer / "Contents/MacOS/Browser")) == "org.example.browser"


@pytest.mark.parametrize("content", [None, b"", b"<?xml version='1.0'?><plist><dict>", b"bplist00", plistlib.dumps([]), plistlib.dumps({})])
def test_macos_a_bundle_without_a_readable_identifier_has_none(tmp_path, content):
    contents = tmp_path / "Tool.app/Contents"
    contents.mkdir(parents=True)
    if content is not None:
        (contents / "Info.plist").write_bytes(content)
    assert macos.bundle_id_of(str(contents / "MacOS/Tool")) is None


def test_macos_outside_a_bundle():
    assert macos.bundle_id_of("/usr/bin/curl") is None


@pytest.mark.skipif(not hasattr(psutil.Process, "net_connections"), reason="this psutil spells it otherwise")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_macos_search_finds_a_process_wherever_psutil_works(family, host):
    with socket.create_server((host, 0), family=family) as listener, socket.create_connection(listener.getsockname()[:2]) as client:
        system = macos.MacProcesses()
        for _ in range(2):  # by search, then among the recent owners
            assert system.find_owner(client.getpeername()[:2], client.getsockname()[:2]) == os.getpid()
        assert system.find_owner(client.getsockname()[:2], ("127.9.9.9", 1)) is None


def test_psutil_describes_a_script(tmp_path):
    script = tmp_path / "chatty_tool.py"
    script.write_text("import sys; print('running', flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # The name is taken from the command line, which Popen may return too early to see: it returns in the middle of exec.
        assert process.stdout.readline() == b"running\n"
        info = identity.describe(process.pid, lambda path: f"bundle of {path}")
        token = identity.start_token(process.pid)
        assert info is not None
        assert info.exe_name == "chatty_tool"
        assert info.exe_path == os.path.realpath(sys.executable)
        assert (info.interpreter_path, info.script_path) == (info.exe_path, str(script))
        assert info.uid == (os.getuid() if hasattr(os, "getuid") else None)
        assert info.bundle_id == f"bundle of {info.exe_path}"
        assert (info.parent_pid, info.parent_process_name) == (os.getpid(), psutil.Process().name())
        assert token is not None and token == identity.start_token(process.pid) != identity.start_token(os.getpid())
        process.communicate()
    assert identity.describe(process.pid) is None
    assert identity.start_token(process.pid) is None
