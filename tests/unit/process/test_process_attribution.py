"""What is remembered, what is not, and what is counted."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from soth_mitm.connection import ProcessInfo
from soth_mitm.process.attribution import AttributionCounters, ProcessAttribution, UnknownSystem

LOCAL = ("127.0.0.1", 8080)


class FakeSystem:
    """A system in which the client's port is its pid; `tokens` holds the processes that live."""

    def __init__(self, *pids: int) -> None:
        self.tokens = {pid: "first" for pid in pids}
        self.described: list[int] = []
        self.on_describe = lambda pid: None

    def find_owner(self, local, remote):
        assert local == LOCAL
        return remote[1] or None

    def find_recent_owner(self, local, remote):
        return (remote[1], self.tokens[remote[1]]) if remote[1] in self.tokens else None

    def peer_pid(self, sock):
        return sock.fileno()

    def close(self):
        self.tokens.clear()

    def start_token(self, pid):
        return self.tokens.get(pid)

    def describe(self, pid):
        self.described.append(pid)
        self.on_describe(pid)
        return ProcessInfo(pid, exe_name=self.tokens[pid]) if pid in self.tokens else None


def lookup(attribution, pid):
    return attribution.lookup(LOCAL, ("127.0.0.1", pid))


def test_a_process_is_described_once():
    system = FakeSystem(7)
    attribution = ProcessAttribution(source=system)
    first, second = lookup(attribution, 7), lookup(attribution, 7)
    assert first == ProcessInfo(7, exe_name="first")
    assert second is first
    assert system.described == [7]
    assert attribution.counters() == AttributionCounters(identity_hit=1, miss=1)


def test_a_reused_pid_is_another_process():
    system = FakeSystem(7)
    attribution = ProcessAttribution(source=system)
    lookup(attribution, 7)
    system.tokens[7] = "second"
    assert lookup(attribution, 7) == ProcessInfo(7, exe_name="second")
    assert lookup(attribution, 7) == ProcessInfo(7, exe_name="second")
    assert attribution.counters() == AttributionCounters(identity_hit=1, miss=2, pid_reuse=1)


def test_a_process_that_changes_while_it_is_described_is_nobody():
    system = FakeSystem(7)
    system.on_describe = lambda pid: system.tokens.update({pid: "second"})
    attribution = ProcessAttribution(source=system)
    assert lookup(attribution, 7) is None
    assert attribution.counters() == AttributionCounters(failure=1)


def test_a_process_that_ends_while_it_is_described_is_nobody():
    system = FakeSystem(7)
    system.on_describe = system.tokens.pop
    attribution = ProcessAttribution(source=system)
    assert lookup(attribution, 7) is None
    assert attribution.counters() == AttributionCounters(failure=1)


def test_failures_are_not_remembered():
    system = FakeSystem()
    attribution = ProcessAttribution(source=system)
    assert lookup(attribution, 0) is None
    assert lookup(attribution, 7) is None
    system.tokens[7] = "first"
    assert lookup(attribution, 7) == ProcessInfo(7, exe_name="first")
    assert attribution.counters() == AttributionCounters(miss=1, failure=2)


def test_the_least_recently_used_is_forgotten():
    system = FakeSystem(1, 2, 3)
    attribution = ProcessAttribution(2, source=system)
    for pid in (1, 2, 1, 3, 1, 2):
        lookup(attribution, pid)
    assert system.described == [1, 2, 3, 2]
    assert attribution.counters() == AttributionCounters(identity_hit=2, miss=4, eviction=2)


def test_only_a_known_process_is_recalled_and_counted():
    now = 100.0
    system = FakeSystem(7)
    attribution = ProcessAttribution(cache_ttl_s=5.0, source=system, clock=lambda: now)
    client = ("127.0.0.1", 7)
    assert attribution.recall(LOCAL, client) is None
    info = lookup(attribution, 7)
    assert attribution.recall(LOCAL, client) is info
    system.tokens[7] = "second"
    assert attribution.recall(LOCAL, client) is None
    assert lookup(attribution, 7) == ProcessInfo(7, exe_name="second")
    now = 105.0
    assert attribution.recall(LOCAL, client) is None
    attribution.close()
    assert system.tokens == {}
    assert attribution.counters() == AttributionCounters(identity_hit=1, miss=2, pid_reuse=1)


def test_what_is_remembered_expires():
    now = 100.0
    system = FakeSystem(7)
    attribution = ProcessAttribution(cache_ttl_s=5.0, source=system, clock=lambda: now)
    lookup(attribution, 7)
    now = 104.9
    lookup(attribution, 7)
    now = 105.0
    lookup(attribution, 7)
    assert system.described == [7, 7]
    assert attribution.counters() == AttributionCounters(identity_hit=1, miss=2)


def test_a_system_that_cannot_be_asked_counts_as_failure():
    class Broken(FakeSystem):
        def find_owner(self, local, remote):
            raise FileNotFoundError("/proc")

    attribution = ProcessAttribution(source=Broken())
    assert lookup(attribution, 7) is None
    assert attribution.counters() == AttributionCounters(failure=1)


def test_unix_sockets_share_the_cache():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        system = FakeSystem(ours.fileno())
        attribution = ProcessAttribution(source=system)
        assert attribution.lookup_unix(ours) == ProcessInfo(ours.fileno(), exe_name="first")
        assert lookup(attribution, ours.fileno()) is attribution.lookup_unix(ours)
    assert attribution.counters() == AttributionCounters(identity_hit=2, miss=1)


def test_an_unknown_system_knows_nobody():
    attribution = ProcessAttribution(source=UnknownSystem())
    with socket.socket() as sock:
        assert attribution.lookup_unix(sock) is None
    assert lookup(attribution, 7) is None
    assert UnknownSystem().start_token(1) is None
    assert UnknownSystem().describe(1) is None
    assert attribution.counters() == AttributionCounters(failure=2)


def test_a_cache_must_hold_something():
    with pytest.raises(ValueError, match="cache_capacity"):
        ProcessAttribution(0)


def test_a_process_being_described_does_not_hold_up_the_others():
    entered, release = threading.Event(), threading.Event()

    def wait(pid):
        if pid == 1:
            entered.set()
            assert release.wait(10)

    system = FakeSystem(1, 2)
    system.on_describe = wait
    attribution = ProcessAttribution(source=system)
    with ThreadPoolExecutor(1) as executor:
        slow = executor.submit(lookup, attribution, 1)
        assert entered.wait(10)
        assert lookup(attribution, 2) is not None
        assert not slow.done()
        release.set()
        assert slow.result(10) == ProcessInfo(1, exe_name="first")


def test_counters_add_up_over_threads():
    system = FakeSystem(*range(1, 50))
    attribution = ProcessAttribution(16, source=system)

    def work(start):
        for step in range(200):
            lookup(attribution, (start + step * 7) % 60)

    with ThreadPoolExecutor(4) as executor:
        for future in [executor.submit(work, start) for start in range(4)]:
            future.result()
    counters = attribution.counters()
    assert counters.identity_hit + counters.miss + counters.failure == 800
    assert counters.miss == len(system.described)
    assert counters.pid_reuse == 0
