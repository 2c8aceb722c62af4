"""Which sessions are kept for later connections to upstreams, and when one is read at all, which on some Pythons costs memory for good."""

from __future__ import annotations

import ssl
import time
from types import SimpleNamespace

import pytest

from soth_mitm.tls.sessions import SessionCache
from support.certs import TestCA
from support.handshakes import connect

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
WHERE = ("a.example", 443)


@pytest.fixture(scope="module")
def authority():
    return TestCA()


@pytest.fixture
def context(authority):
    return authority.client_context()


@pytest.fixture
def server(authority):
    return authority.server_context("a.example")


@pytest.fixture
def cache():
    return SessionCache()


def make_session(age=0.0, *, timeout=7200, hint=0):
    return SimpleNamespace(id=b"x", has_ticket=bool(hint), time=int(time.time() - age), timeout=timeout, ticket_lifetime_hint=hint)


class Engine:
    """A connection's TLS, which says how often its session was read."""

    def __init__(self, session=None, *, reused=False):
        self.session_reused = reused
        self.reads = 0
        self._session = session or make_session()

    @property
    def session(self):
        self.reads += 1
        return self._session


def make_known(cache, context, session=None, where=WHERE):
    """Let the cache have a session as two connections bring it, one after the other; return it."""
    second = Engine(session)
    for engine in (Engine(), second):
        assert cache.get(*where, context) is None
        cache.keep(*where, context, engine)
    return second._session


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_are_resumed(cache, context, server, version):
    server.maximum_version = version
    for expected in (False, False, True, True, True):
        session = cache.get(*WHERE, context)
        pair = connect(context, server, "a.example", session)
        pair.exchange()
        assert pair.client.session_reused is expected
        cache.keep(*WHERE, context, pair.client, session)
    cache.discard(*WHERE, context)
    assert cache.get(*WHERE, context) is None


def test_there_is_none_before_the_tickets(cache, context, server):
    for _ in range(3):
        assert cache.get(*WHERE, context) is None
        cache.keep(*WHERE, context, connect(context, server, "a.example").client)
    pair = connect(context, server, "a.example")
    pair.exchange()
    cache.keep(*WHERE, context, pair.client)
    assert cache.get(*WHERE, context) is not None


def test_nothing_is_read_from_the_first_connection(cache, context):
    first, second = Engine(), Engine()
    cache.keep(*WHERE, context, first)
    assert first.reads == 0 and cache.get(*WHERE, context) is None
    cache.keep(*WHERE, context, second)
    assert second.reads == 1 and cache.get(*WHERE, context) is second._session


def test_nothing_is_read_while_the_session_is_accepted(cache, context):
    session = make_known(cache, context)
    engines = [Engine(reused=True) for _ in range(50)]
    for engine in engines:
        cache.keep(*WHERE, context, engine, session)
    assert sum(engine.reads for engine in engines) == 0 and cache.get(*WHERE, context) is session


def test_of_connections_of_one_time_at_most_one_is_read(cache, context):
    """A browser opens six at once, and may never come back."""
    for expected in (0, 1):
        engines = [Engine() for _ in range(6)]
        for _ in engines:
            assert cache.get(*WHERE, context) is None
        for engine in engines:
            cache.keep(*WHERE, context, engine)
        assert sum(engine.reads for engine in engines) == expected


def test_a_refused_session_is_replaced(cache, context):
    session = make_known(cache, context)
    for _ in range(2):
        cache.keep(*WHERE, context, Engine(reused=True), session)
    full = Engine()
    cache.keep(*WHERE, context, full, session)
    replacement = cache.get(*WHERE, context)
    assert replacement is full._session is not session
    # one that was offered before the replacement came changes nothing
    late = Engine()
    cache.keep(*WHERE, context, late, session)
    assert late.reads == 0 and cache.get(*WHERE, context) is replacement


def test_a_server_that_accepts_each_session_once_is_given_the_newest(cache, context):
    offered: list[object] = []
    reused = []
    for _ in range(40):
        session = cache.get(*WHERE, context)
        accepted = session is not None and all(session is not earlier for earlier in offered)
        offered.append(session)
        reused.append(accepted)
        cache.keep(*WHERE, context, Engine(reused=accepted), session)
    # two before there is one, and one that was found to be used up
    assert reused == [False, False, True, False] + [True] * 36


@pytest.mark.parametrize(("age", "hint", "alive"), [(7000, 0, True), (7300, 0, False), (301, 300, False)])
def test_expired_sessions_are_dropped(cache, context, age, hint, alive):
    # made here: what is made when the tests are collected is older by the time of all tests before this one
    make_known(cache, context, make_session(age, hint=hint))
    assert (cache.get(*WHERE, context) is not None) is alive
    # it is no first connection that follows
    after = Engine()
    cache.keep(*WHERE, context, after)
    assert after.reads == (not alive)


def test_discarding_what_is_not_there_changes_nothing(cache, context):
    cache.discard(*WHERE, context)
    assert len(cache) == 0
    make_known(cache, context)
    for _ in range(2):
        cache.discard(*WHERE, context)
    assert cache.get(*WHERE, context) is None and len(cache) == 1


def test_they_are_bounded_and_the_least_recently_used_goes(context):
    cache = SessionCache(2)
    for host in ("a", "b"):
        make_known(cache, context, where=(host, 443))
    assert cache.get("a", 443, context)
    make_known(cache, context, where=("c", 443))
    assert len(cache) == 2 and cache.get("b", 443, context) is None and cache.get("a", 443, context)


def test_sessions_belong_to_host_port_and_context(cache, context, authority):
    make_known(cache, context)
    assert cache.get("a.example", 444, context) is None and cache.get("b.example", 443, context) is None
    assert cache.get(*WHERE, authority.client_context()) is None


def test_a_cache_of_no_size_is_refused():
    with pytest.raises(ValueError, match="capacity"):
        SessionCache(0)
