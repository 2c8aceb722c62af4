"""Linux: real clients, real sockets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from soth_mitm.connection import ProcessInfo
from soth_mitm.process.attribution import AttributionCounters, ProcessAttribution
from soth_mitm.process.linux import LinuxProcesses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="procfs")

CONNECT = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); sys.stdin.read()"


@contextmanager
def accepted(listener: socket.socket, command: list[str], **options) -> Iterator[tuple[subprocess.Popen, socket.socket]]:
    """Start `command`, which connects to `listener`, and hold the connection until the block ends."""
    listener.settimeout(30)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, **options) as process:
        connection, _ = listener.accept()
        with connection:
            yield process, connection
        process.stdin.close()


def look(attribution: ProcessAttribution, connection: socket.socket) -> ProcessInfo | None:
    return attribution.lookup(connection.getsockname()[:2], connection.getpeername()[:2])


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def dual_listener() -> Iterator[socket.socket]:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        yield listener


@pytest.fixture
def attribution() -> Iterator[ProcessAttribution]:
    with closing(ProcessAttribution()) as attribution:
        yield attribution


def own_name() -> str:
    with open("/proc/self/comm") as file:
        return file.read().rstrip("\n")


def test_a_script(listener, tmp_path, attribution):
    script = tmp_path / "chatty_agent.py"
    script.write_text(CONNECT)
    with accepted(listener, [sys.executable, str(script), "127.0.0.1", str(listener.getsockname()[1])]) as (process, connection):
        python = os.path.realpath(sys.executable)
        expected = ProcessInfo(
            process.pid,
            None,
            "chatty_agent",
            python,
            os.getpid(),
            own_name(),
            os.getuid(),
            interpreter_path=python,
            script_path=str(script),
        )
        assert look(attribution, connection) == expected
        assert look(attribution, connection) == expected
    assert attribution.counters() == AttributionCounters(identity_hit=1, miss=1)


def test_a_module(listener, tmp_path, attribution):
    (tmp_path / "chatty_module.py").write_text(CONNECT)
    command = [sys.executable, "-m", "chatty_module", "127.0.0.1", str(listener.getsockname()[1])]
    with accepted(listener, command, cwd=tmp_path) as (process, connection):
        info = look(attribution, connection)
        assert info is not None and (info.pid, info.exe_name) == (process.pid, "chatty_module")
        assert (info.interpreter_path, info.script_path) == (info.exe_path, None)


def copied_python(path: Path) -> dict[str, str]:
    """Put a copy of this interpreter at `path`; return the environment in which it finds its library."""
    shutil.copy2(os.path.realpath(sys.executable), path)
    return {**os.environ, "PYTHONHOME": sys.base_prefix}


def test_a_copy_under_another_name_is_known_by_its_path(listener, tmp_path, attribution):
    copy = tmp_path / "git"
    environment = copied_python(copy)
    with accepted(listener, [str(copy), "-c", CONNECT, "127.0.0.1", str(listener.getsockname()[1])], env=environment) as (_, connection):
        info = look(attribution, connection)
    assert info is not None and (info.exe_name, info.exe_path, info.interpreter_path) == ("git", str(copy), None)


def test_a_script_that_calls_itself_otherwise_is_known_by_its_interpreter(listener, tmp_path, attribution):
    script = tmp_path / "git"
    script.write_text(CONNECT)
    with accepted(listener, [sys.executable, "git", "127.0.0.1", str(listener.getsockname()[1])], cwd=tmp_path) as (_, connection):
        info = look(attribution, connection)
    assert info is not None and info.exe_name == "git"
    assert info.exe_path == info.interpreter_path == os.path.realpath(sys.executable)
    assert (info.script_path, info.uid) == (str(script), os.getuid())


def test_an_executable_that_is_no_longer_there_has_no_path_of_ours(listener, tmp_path, attribution):
    copy = tmp_path / "tool"
    environment = copied_python(copy)
    command = [str(copy), "-c", CONNECT, "127.0.0.1", str(listener.getsockname()[1])]
    with accepted(listener, command, env=environment) as (_, connection):
        copy.unlink()
        copy.write_text("another file in its place")
        info = look(attribution, connection)
    assert info is not None and (info.exe_name, info.exe_path) == ("tool", f"{copy} (deleted)")


def test_an_executable_among_other_mounts_has_no_path_of_ours(listener, tmp_path, attribution):
    """Any user may mount a file of its own over a trusted one, in a namespace of its own."""
    trusted, copy = tmp_path / "trusted", tmp_path / "evil"
    trusted.write_text("the file that we know by this path")
    environment = copied_python(copy)
    mount = f"mount --bind {copy} {trusted} && exec {trusted} -c '{CONNECT}' 127.0.0.1 {listener.getsockname()[1]}"
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, f"mount --bind {copy} {trusted}"], check=False).returncode:
        pytest.skip("no namespaces can be made here")
    with accepted(listener, [*namespace, mount], env=environment) as (process, connection):
        info = look(attribution, connection)
        assert info is not None and info.exe_path is not None
        assert info.exe_path == f"/proc/{info.pid}/root{trusted}"
        assert os.path.samefile(info.exe_path, copy)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl(listener, attribution):
    command = ["curl", "--silent", "--noproxy", "*", f"http://127.0.0.1:{listener.getsockname()[1]}/"]
    with accepted(listener, command) as (process, connection):
        info = look(attribution, connection)
        assert info is not None and (info.pid, info.exe_name) == (process.pid, "curl")


@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("diag", [True, False], ids=["sock_diag", "tables"])
def test_families(dual_listener, monkeypatch, host, diag, attribution):
    if not diag:
        monkeypatch.setattr(LinuxProcesses, "_ask", refuse)
    with accepted(dual_listener, [sys.executable, "-c", CONNECT, host, str(dual_listener.getsockname()[1])]) as (process, connection):
        info = look(attribution, connection)
        assert info is not None and info.pid == process.pid


def refuse(self, client, peer):
    raise OSError(1, "not permitted")


def test_the_opener_is_named_not_the_child_that_inherited(listener):
    fork = CONNECT.replace("sys.stdin.read()", "import os; os.fork(); sys.stdin.read()")
    with accepted(listener, [sys.executable, "-c", fork, "127.0.0.1", str(listener.getsockname()[1])]) as (process, connection):
        for _ in range(20):
            with closing(ProcessAttribution()) as fresh:
                info = look(fresh, connection)
            assert info is not None and info.pid == process.pid


def test_another_program_in_the_same_process_is_noticed(listener, tmp_path, attribution):
    script = tmp_path / "second_program.py"
    script.write_text(CONNECT)
    first = CONNECT.replace(
        "sys.stdin.read()", f"sys.stdin.readline(); import os; os.execv(sys.executable, ['python', {str(script)!r}, *sys.argv[1:]])"
    )
    with accepted(listener, [sys.executable, "-c", first, "127.0.0.1", str(listener.getsockname()[1])]) as (process, connection):
        before = look(attribution, connection)
        process.stdin.write(b"\n")
        process.stdin.flush()
        second_connection, _ = listener.accept()
        with second_connection:
            after = look(attribution, second_connection)
    assert before is not None and after is not None
    assert (before.pid, after.pid) == (process.pid, process.pid)
    assert (before.exe_name, after.exe_name) == (os.path.basename(os.path.realpath(sys.executable)), "second_program")
    assert attribution.counters() == AttributionCounters(miss=2, pid_reuse=1)


def test_a_client_that_has_gone_is_nobody(listener, attribution):
    with socket.create_connection(listener.getsockname()) as client:
        connection, _ = listener.accept()
    with connection:
        assert client.fileno() == -1
        assert look(attribution, connection) is None
    assert attribution.counters() == AttributionCounters(failure=1)


def test_a_client_elsewhere_is_nobody(attribution):
    assert attribution.lookup(("127.0.0.1", 8080), ("192.0.2.1", 50000)) is None


def test_unix_socket(tmp_path, attribution):
    path = str(tmp_path / "s")
    connect = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"
    script = tmp_path / "unix_agent.py"
    script.write_text(connect)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with accepted(listener, [sys.executable, str(script), path]) as (process, connection):
            info = attribution.lookup_unix(connection)
            assert info is not None and (info.pid, info.exe_name) == (process.pid, "unix_agent")


def test_a_lookup_leaves_nothing_open(listener):
    attribution = ProcessAttribution()
    before = sorted(os.listdir("/proc/self/fd"))
    with socket.create_connection(listener.getsockname()) as client:
        connection, _ = listener.accept()
        with connection:
            info = look(attribution, connection)
            assert attribution.lookup(client.getpeername(), ("127.9.9.9", 1)) is None
    attribution.close()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert info is not None and info.pid == os.getpid()


def recall(attribution: ProcessAttribution, connection: socket.socket) -> ProcessInfo | None:
    return attribution.recall(connection.getsockname()[:2], connection.getpeername()[:2])


def test_a_process_that_connected_lately_is_recalled_at_the_same_descriptor_only(listener, attribution):
    with socket.create_connection(listener.getsockname()) as client:
        descriptor = client.fileno()
        connection, _ = listener.accept()
        with connection:
            assert recall(attribution, connection) is None, "nobody is known yet"
            known = look(attribution, connection)
            if not attribution.recall(connection.getsockname(), connection.getpeername()):
                pytest.skip("sock_diag does not answer here")
            assert recall(attribution, connection) is known
        with socket.socket() as second:
            second.connect(listener.getsockname())
            connection, _ = listener.accept()
            with connection:
                assert second.fileno() != descriptor and recall(attribution, connection) is None
                assert look(attribution, connection) is known and recall(attribution, connection) is known
    assert attribution.counters() == AttributionCounters(identity_hit=4, miss=1)


def test_the_opener_is_recalled_not_the_child_that_inherited(listener, attribution):
    fork = CONNECT.replace("sys.stdin.read()", "import os; os.fork(); sys.stdin.read()")
    with accepted(listener, [sys.executable, "-c", fork, "127.0.0.1", str(listener.getsockname()[1])]) as (process, connection):
        look(attribution, connection)
        for _ in range(20):
            info = recall(attribution, connection)
            if info is None:
                pytest.skip("sock_diag does not answer here")
            assert info.pid == process.pid


def test_another_program_in_a_recalled_process_is_noticed(listener, attribution):
    second = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.send(b'!'); sys.stdin.read()"
    execute = f"import os; s.set_inheritable(True); os.execv(sys.executable, ['python', '-c', {second!r}, str(s.fileno())])"
    command = [sys.executable, "-c", CONNECT.replace("sys.stdin.read()", f"sys.stdin.readline(); {execute}")]
    with accepted(listener, [*command, "127.0.0.1", str(listener.getsockname()[1])]) as (process, connection):
        before = look(attribution, connection)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert connection.recv(1) == b"!", "the second program runs"
        # the same socket at the same descriptor
        assert before is not None and recall(attribution, connection) is None
        assert look(attribution, connection).pid == process.pid
    assert attribution.counters() == AttributionCounters(miss=2, pid_reuse=1)
