"""Running out of descriptors is said."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

from soth_mitm.proxy import descriptors
from soth_mitm.proxy.descriptors import RESERVE, DescriptorWatch


def test_it_warns_close_to_the_limit_and_once_a_minute(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    monkeypatch.setattr(descriptors.time, "monotonic", lambda: now)
    monkeypatch.setattr(descriptors, "limit_of_descriptors", lambda: 1000)
    watch = DescriptorWatch()
    watch.accepted(1000 - RESERVE - 1)
    assert caplog.records == []
    for now in (1.0, 60.9, 61.0):  # noqa: B007 - read by the clock
        watch.accepted(1000 - RESERVE)
    assert len(caplog.records) == 2
    assert "this process may open 1000 files, and a client has just been given the number 984" in caplog.text


def test_a_limit_that_was_raised_since_is_noticed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    limits = iter([1000, 2000])
    monkeypatch.setattr(descriptors, "limit_of_descriptors", lambda: next(limits))
    watch = DescriptorWatch()
    watch.accepted(999)
    watch.accepted(1000)
    assert caplog.records == []


def test_without_a_limit_there_is_nothing_to_say(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(descriptors, "limit_of_descriptors", lambda: None)
    DescriptorWatch().accepted(1_000_000)
    assert caplog.records == []


def is_answered(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return client.recv(100).startswith(b"HTTP/1.1 400 ")
    except ConnectionError:
        return False


@pytest.mark.skipif(os.name != "posix", reason="POSIX limits and signals")
def test_a_proxy_that_runs_out_says_so_and_serves_on(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTH_MITM_STATE_DIR", str(tmp_path))
    run = [sys.executable, "-m", "soth_mitm", "run", "--bind", "127.0.0.1:0", "--destination", "a.example:443"]
    with subprocess.Popen(
        ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *run], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        with ExitStack() as stack:
            for _ in range(80):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            # while they are open
            said = process.stderr.readline()
        # it is dropped, too, until those that have gone are closed
        assert any(is_answered(port) for _ in range(10_000))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "descriptors run out: this process may open 64 files" in said
    assert errors == ""
