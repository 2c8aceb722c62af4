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


@pytest.mark.parametrize(("seconds", "grows"), [(0.249, True), (0.25, False)])
def test_rule_21_growth_within_two_round_trips(seconds: float, grows: bool) -> None:
    window = WindowPair(100)
    window.receive(100)
    assert window.take(50, 10.0, 0.125, 1000) == 50  # the first says nothing about the pace
    assert window.take(50, 10.0 + seconds, 0.125, 1000) == (150 if grows else 50)
    assert window.size == (200 if grows else 100)
    assert window.left == window.size


def test_growth_ends_at_the_most() -> None:
    window = WindowPair(100)
    announced = []
    now = 0.0
    for _ in range(4):
        window.receive(window.left)
        announced.append(window.take(window.size, now, 0.1, 350))
        now += 0.01
    assert announced == [100, 200, 350, 350]
    assert window.size == 350


def test_rule_22_no_growth_while_the_receiver_is_slow_or_memory_is_short() -> None:
    window = WindowPair(100)
    window.receive(100)
    window.take(50, 0.0, 0.1, 1000)
    window.hold()
    assert window.take(50, 0.01, 0.1, 1000) == 50
    window.receive(50)
    assert window.take(50, 0.02, 0.1, 0) == 50
    window.receive(50)
    assert window.take(50, 0.03, 0.1, 1000) == 150


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
