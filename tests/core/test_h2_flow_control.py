"""Windows of HTTP/2: rules 16 and 19 to 28 of what has bitten others, as far as numbers keep them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm._dataplane.http2.flow_control import WindowPair

MOST = 2**31 - 1


def fault(call: object, *arguments: int) -> str:
    assert callable(call)
    try:
        call(*arguments)
    except ValueError as error:
        code: str = error.args[0]
        return code
    return ""


def test_what_may_come_is_exact() -> None:
    window = WindowPair(100)
    assert fault(window.receive, 101) == "FLOW_CONTROL_ERROR"
    assert window.left == 100
    assert fault(window.receive, 100) == ""
    assert fault(window.receive, 0) == ""
    assert fault(window.receive, 1) == "FLOW_CONTROL_ERROR"


def test_slack_before_settings_are_acknowledged() -> None:
    window = WindowPair(100)
    assert fault(window.receive, 151, 50) == "FLOW_CONTROL_ERROR"
    assert fault(window.receive, 150, 50) == ""
    assert window.left == -50


def test_rule_23_half_of_the_window_is_announced() -> None:
    window = WindowPair(100)
    window.receive(100)
    assert window.take(49) == 0
    assert window.take(1) == 50
    assert window.left == 50
    # what is not taken is not announced
    assert window.take(49) == 0
    assert window.take(1) == 50
    assert window.left == 100


def test_an_odd_window_is_announced_from_half_on() -> None:
    window = WindowPair(5)
    window.receive(5)
    assert window.take(2) == 0
    assert window.take(1) == 3


@pytest.mark.parametrize(
    ("size", "announced"), [(262144, 131072), (262146, 131072), (1 << 20, 131072), (1 << 23, 1 << 20), (1 << 30, 1 << 27)]
)
def test_rule_21_a_large_window_is_announced_in_small_parts(size: int, announced: int) -> None:
    window = WindowPair(size)
    window.receive(2 * announced)
    for _ in range(2):
        assert window.take(announced - 1) == 0
        assert window.take(1) == announced
    assert window.left == window.size == size


def test_rule_22_a_large_window_is_announced_by_halves_while_some_waits() -> None:
    size = 1 << 20
    window = WindowPair(size)
    window.receive(size)
    assert window.take(size // 2 - 1, waits=True) == 0
    assert window.take(1, waits=True) == size // 2
    assert window.take(1 << 17, waits=True) == 0
    assert window.take(0) == 1 << 17


@pytest.mark.parametrize(("seconds", "size"), [(0.0624, 400), (0.0625, 200), (0.2499, 200), (0.25, 100)])
def test_rule_21_growth_within_two_round_trips(seconds: float, size: int) -> None:
    window = WindowPair(100)
    window.receive(100)
    assert window.take(1, 10.0, 0.125, 1000) == 0
    for part in range(1, 4):
        # without a pause; the half is reached with the last of them
        assert window.take(16, 10.0 + part * seconds / 4, 0.125, 1000) == 0
    assert window.take(1, 10.0 + seconds, 0.125, 1000) == size - 50
    assert window.size == size
    assert window.left == window.size - 50


@pytest.mark.parametrize(("pause", "size"), [(0.0625, 200), (0.063, 400)])
def test_rule_21_while_the_peer_waits_no_time_passes(pause: float, size: int) -> None:
    window = WindowPair(100)
    window.receive(100)
    assert window.take(49, 10.0, 0.125, 1000) == 0
    assert window.take(1, 10.0 + pause, 0.125, 1000) == (size - 50 if size == 200 else 50)
    # behind the pause, half of the window comes at once
    assert window.take(49, 10.0 + pause, 0.125, 1000) == (0 if size == 200 else size - 51)
    assert window.size == size


def test_rule_21_the_pace_is_that_of_half_of_a_large_window() -> None:
    size, part = 1 << 20, 1 << 17
    window = WindowPair(size)
    announced = []
    for number in range(1, 9):
        window.receive(part)
        # each part alone would be within two round trips
        announced.append(window.take(part, number * 0.1, 0.2, 1 << 23))
    assert announced == [part] * 8
    assert window.size == size


def test_growth_ends_at_the_most() -> None:
    window = WindowPair(100)
    announced = []
    now = 0.0
    for _ in range(4):
        window.receive(window.left)
        window.take(0, now, 0.1, 350)
        announced.append(window.take(window.size, now + 0.05, 0.1, 350))
        now += 0.1
    assert announced == [200, 350, 350, 350]
    assert window.size == 350


def test_rule_22_no_growth_while_some_waits_or_memory_is_short() -> None:
    window = WindowPair(100)
    window.receive(100)
    assert window.take(50, 0.0, 0.1, 0) == 50
    assert window.take(10, 0.01, 0.1, 1000, waits=True) == 0
    assert window.take(40, 0.02, 0.1, 1000) == 50
    assert window.size == 100
    # what waited was before the last look
    window.receive(50)
    assert window.take(25, 0.06, 0.1, 1000) == 0
    assert window.take(25, 0.09, 0.1, 1000) == 150
    assert window.size == 200


def test_without_a_round_trip_nothing_grows() -> None:
    window = WindowPair(100)
    window.receive(100)
    window.take(50, 1.0, 0, 1000)
    window.take(50, 1.0, 0, 1000)
    assert window.size == 100


def test_announced_content_is_let_in_at_once() -> None:
    window = WindowPair(65535)
    assert window.expect(65535, 1 << 20) == 0
    assert window.expect(100_000, 1 << 20) == 34465
    assert window.left == window.size == 100_000
    assert window.expect(1 << 40, 1 << 20) == (1 << 20) - 100_000
    assert window.expect(1 << 40, 1 << 20) == 0
    assert window.expect(1 << 40, 0) == 0


def test_rule_24_settings_make_it_negative() -> None:
    window = WindowPair(65535)
    window.receive(60000)
    window.shift(16384 - 65535)
    assert window.left == 5535 - 49151
    assert fault(window.receive, 0) == "FLOW_CONTROL_ERROR"
    assert window.take(60000) == 60000
    assert window.left == window.size == 16384


def test_rule_24_settings_make_what_we_may_send_negative() -> None:
    window = WindowPair(65535)
    window.shift_sending(-65535)
    window.shift_sending(-1000)
    assert window.send_left == -1000
    window.widen(1000)
    assert window.send_left == 0


def test_rule_25_updates_that_are_wrong() -> None:
    window = WindowPair(65535)
    assert fault(window.widen, 0) == "PROTOCOL_ERROR"
    assert fault(window.widen, MOST - 65535 + 1) == "FLOW_CONTROL_ERROR"
    assert window.send_left == 65535
    assert fault(window.widen, MOST - 65535) == ""
    assert window.send_left == MOST
    assert fault(window.widen, 1) == "FLOW_CONTROL_ERROR"
    assert fault(window.shift_sending, 1) == "FLOW_CONTROL_ERROR"
    assert fault(window.shift_sending, 0) == ""


def test_rule_16_no_update_is_over_31_bits() -> None:
    window = WindowPair(MOST)
    window.receive(MOST)
    assert window.take(MOST, 0.0, 1.0, 2**40) == MOST
    assert window.left == MOST
    window.receive(MOST)
    assert window.take(MOST, 0.1, 1.0, 2**40) == MOST
    assert window.left == MOST


@given(
    st.integers(1, 100_000),
    st.lists(st.tuples(st.integers(0, 70_000), st.integers(0, 70_000), st.floats(0, 1), st.booleans()), max_size=30),
)
def test_nothing_is_lost(size: int, steps: list[tuple[int, int, float, bool]]) -> None:
    window = WindowPair(size)
    kept = unannounced = 0
    now = 0.0
    for received, taken, pause, try_reserve in steps:
        received = min(received, window.left)
        window.receive(received)
        kept += received
        taken = min(taken, kept)
        kept -= taken
        unannounced += taken
        now += pause
        before = window.size
        announced = window.take(taken, now, 0.2, 1_000_000 if try_reserve else 0)
        assert announced == 0 or announced == unannounced + window.size - before
        if announced:
            unannounced = 0
        assert window.left + kept + unannounced == window.size
        assert 2 * unannounced < window.size
        assert before <= window.size <= max(size, 1_000_000)
