"""When refusals of our certificate open a bypass, for whom, and for how long; by a clock that the test sets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from soth_mitm.tls.bypass import Limits, Pair, TlsBypasses

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits(failures=3, window=100, ttl=1000)
PAIR = Pair("api.example.com", 443, "api.example.com", "/usr/bin/agent")
OTHERS = [
    PAIR._replace(host="example.com"),
    PAIR._replace(host="example.com", server_name="example.com"),
    PAIR._replace(host="v2.api.example.com", server_name="v2.api.example.com"),
    PAIR._replace(port=8443),
    PAIR._replace(server_name="other.example.com"),
    PAIR._replace(process="/usr/bin/other"),
]


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 50.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bypasses(clock: Clock) -> TlsBypasses:
    return TlsBypasses(clock=clock, now=clock.now, max_pairs=4, max_bypasses=2)


def refuse(bypasses: TlsBypasses, pair: Pair = PAIR, times: int = 1, limits: Limits = LIMITS, *, silently: bool = False) -> bool:
    """Refuse in handshakes that begin now; tell whether the last one opened a bypass, and that none before did."""
    opened = [bypasses.refused(pair, bypasses.clock(), limits, silently=silently) is not None for _ in range(times)]
    assert not any(opened[:-1])
    return opened[-1]


class TestOpening:
    @pytest.mark.parametrize("silently", [False, True])
    def test_so_many_refusals_open_it(self, bypasses: TlsBypasses, silently: bool) -> None:
        assert not refuse(bypasses, times=2, silently=silently)
        assert not bypasses.take(PAIR)
        assert refuse(bypasses, silently=silently)
        assert bypasses.take(PAIR)

    @pytest.mark.parametrize("limit", [0, 1, 2])
    def test_a_single_refusal_never_does(self, bypasses: TlsBypasses, limit: int) -> None:
        limits = LIMITS._replace(failures=limit)
        assert not refuse(bypasses, limits=limits)
        assert refuse(bypasses, limits=limits)

    def test_for_exactly_what_was_refused(self, bypasses: TlsBypasses) -> None:
        assert refuse(bypasses, times=3)
        assert [other for other in OTHERS if bypasses.take(other)] == []
        assert [other for other in OTHERS if refuse(bypasses, other)] == []

    def test_refusals_of_different_pairs_do_not_add_up(self, clock: Clock) -> None:
        bypasses = TlsBypasses(clock=clock, now=clock.now)
        for _ in range(2):
            assert [pair for pair in (PAIR, *OTHERS) if refuse(bypasses, pair)] == []

    def test_refusals_must_fall_within_the_window(self, bypasses: TlsBypasses, clock: Clock) -> None:
        refuse(bypasses)
        clock.seconds += 60
        refuse(bypasses)
        clock.seconds += 40.5
        assert not refuse(bypasses), "the first one is 100.5 s old"
        clock.seconds += 59.5
        assert refuse(bypasses), "the second one is 100 s old"

    def test_handshakes_that_overlap_count_once(self, bypasses: TlsBypasses, clock: Clock) -> None:
        began = clock()
        for _ in range(6):
            clock.seconds += 0.1
            assert bypasses.refused(PAIR, began, LIMITS) is None
        assert not refuse(bypasses)
        assert refuse(bypasses)

    def test_acceptance_starts_the_count_anew(self, bypasses: TlsBypasses) -> None:
        refuse(bypasses, times=2)
        bypasses.accepted(PAIR)
        assert not refuse(bypasses, times=2)
        assert refuse(bypasses)

    def test_who_accepted_lately_may_leave_silently(self, bypasses: TlsBypasses, clock: Clock) -> None:
        bypasses.accepted(PAIR)
        assert not refuse(bypasses, times=10, silently=True)
        clock.seconds += 101
        assert not refuse(bypasses, times=2, silently=True)
        assert refuse(bypasses, silently=True)

    def test_a_refusal_while_it_is_open_changes_nothing(self, bypasses: TlsBypasses, clock: Clock) -> None:
        refuse(bypasses, times=3)
        clock.seconds += 999
        assert not refuse(bypasses, times=5)
        clock.seconds += 1
        assert not bypasses.take(PAIR)


class TestEnding:
    def test_it_expires_and_the_pair_begins_anew(self, bypasses: TlsBypasses, clock: Clock) -> None:
        refuse(bypasses, times=3)
        clock.seconds += 999.9
        assert bypasses.take(PAIR)
        clock.seconds += 0.1
        assert (bypasses.listed(), len(bypasses), bypasses.take(PAIR)) == ([], 0, False)
        assert not refuse(bypasses, times=2)
        assert refuse(bypasses)

    def test_use_does_not_prolong_it(self, bypasses: TlsBypasses, clock: Clock) -> None:
        refuse(bypasses, times=3)
        for _ in range(9):
            clock.seconds += 100
            assert bypasses.take(PAIR)
        clock.seconds += 100
        assert not bypasses.take(PAIR)

    def test_forgetting_is_for_who_meets_the_condition(self, bypasses: TlsBypasses) -> None:
        other = OTHERS[-1]
        refuse(bypasses, times=3)
        refuse(bypasses, other, times=2)
        assert bypasses.forget(lambda pair: pair.process == other.process) == 0
        assert not refuse(bypasses, other, times=2), "what was counted is forgotten too"
        assert bypasses.take(PAIR)
        assert bypasses.forget(lambda pair: True) == 1
        assert not bypasses.take(PAIR)
        assert bypasses.forget(lambda pair: True) == 0


class TestBounds:
    def test_the_pair_seen_longest_ago_is_forgotten(self, bypasses: TlsBypasses) -> None:
        refuse(bypasses, times=2)
        for port in range(1, 4):
            refuse(bypasses, PAIR._replace(port=port))
        bypasses.accepted(OTHERS[0])
        assert not refuse(bypasses, times=2), "its two refusals had to make room"
        refuse(bypasses, PAIR._replace(port=3))
        assert refuse(bypasses, PAIR._replace(port=3)), "this one was there all the time"

    def test_the_bypass_used_longest_ago_makes_room(self, bypasses: TlsBypasses) -> None:
        first, second, third = (PAIR._replace(port=port) for port in (1, 2, 3))
        refuse(bypasses, first, times=3)
        refuse(bypasses, second, times=3)
        assert bypasses.take(first)
        refuse(bypasses, third, times=3)
        assert len(bypasses) == 2
        assert [bypasses.take(pair) for pair in (first, second, third)] == [True, False, True]

    def test_an_expired_bypass_makes_room_first(self, bypasses: TlsBypasses, clock: Clock) -> None:
        short, kept, new = (PAIR._replace(port=port) for port in (1, 2, 3))
        refuse(bypasses, kept, times=3)
        refuse(bypasses, short, times=3, limits=LIMITS._replace(ttl=1))
        clock.seconds += 1
        refuse(bypasses, new, times=3)
        assert [bypasses.take(pair) for pair in (short, kept, new)] == [False, True, True]


def test_the_record_says_all(bypasses: TlsBypasses, clock: Clock) -> None:
    refuse(bypasses, times=2)
    opened_at = clock.now()
    assert bypasses.refused(PAIR, clock(), LIMITS) == bypasses.listed()[0]
    bypasses.take(PAIR)
    clock.seconds += 10
    bypasses.take(PAIR)
    (record,) = bypasses.listed()
    assert (record.host, record.port, record.server_name, record.process) == PAIR
    assert (record.failures, record.connections) == (3, 2)
    assert (record.opened_at, record.expires_at) == (opened_at, opened_at + timedelta(seconds=1000))
    with pytest.raises(AttributeError):
        record.failures = 4
