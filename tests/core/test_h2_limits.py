"""What a peer may cost on one HTTP/2 connection: each limit hit exactly, and missed by one."""

import pytest

from soth_mitm._dataplane.http2.limits import LIMIT_NAMES, LIMIT_TEXTS, Http2Limits, LimitCounters


def counters(**limits: float) -> LimitCounters:
    return LimitCounters(Http2Limits(**limits))  # type: ignore[arg-type]


def test_rule_1_resets() -> None:
    used = counters(reset_burst=10, resets_per_second=2)
    assert [used.reset(100.0) for _ in range(10)] == [""] * 10
    assert used.reset(100.0) == "resets"
    assert used.reset(100.25) == "resets"
    assert used.reset(101.25) == ""
    assert used.reset(101.25) == ""
    assert used.reset(101.25) == "resets"


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    used = counters(reset_burst=3, resets_per_second=100)
    assert [used.reset(now) for now in (0.0, 1000.0, 1000.0, 1000.0, 1000.0)] == ["", "", "", "", "resets"]


def test_time_that_goes_backwards_fills_nothing() -> None:
    used = counters(reset_burst=1, resets_per_second=1)
    assert [used.reset(now) for now in (10.0, 5.0, 5.5)] == ["", "resets", "resets"]


def test_rule_11_glitches_are_told_once_before_they_end_it() -> None:
    used = counters(glitch_burst=100, glitches_per_second=0)
    said = [used.glitch(0.0) for _ in range(101)]
    assert said.index("polite") == 75
    assert said.index("glitches") == 100
    assert said.count("polite") == 1
    assert used.total_glitches == 101


def test_honest_peers_are_not_ended() -> None:
    used = counters()
    assert {used.glitch(second / 330) for second in range(100_000)} == {""}
    used = counters()
    assert {used.reset(second / 100) for second in range(100_000)} == {""}


def test_rule_13_overhead() -> None:
    used = counters()
    assert used.octets(8 << 20, 0) == ""
    assert used.octets(1, 0) == "overhead"
    used = counters()
    assert used.octets((8 << 20) + 8000, 1000) == ""
    assert used.octets(8, 1) == ""
    assert used.octets(1, 0) == "overhead"


def test_a_long_download_is_no_overhead() -> None:
    used = counters()
    # a gibibyte in DATA frames, with a WINDOW_UPDATE for each 32 KiB
    for _ in range(32768):
        assert used.octets(13, 0) == ""
        assert used.octets(2 * 9 + 32768, 32768) == ""


# rule 5: a quarter more frames than the largest list needs, and five
@pytest.mark.parametrize(("list_size", "frames"), [(65536, 10), (16384, 6), (1024, 5), (1048576, 85)])
def test_rules_4_and_5_frames_of_a_block(list_size: int, frames: int) -> None:
    used = counters(list_size=list_size)
    assert used.head(True, 1, 0.0) == ""
    assert [used.head(False, 1, 0.0) for _ in range(frames - 1)] == [""] * (frames - 1)
    assert used.head(False, 1, 0.0) == "head"
    assert used.head(True, 1, 0.0) == ""


def test_rule_4_octets_of_a_block() -> None:
    used = counters(list_size=1000)
    assert used.head(True, 4000, 0.0) == ""
    assert used.head(False, 0, 0.0) == ""
    assert used.head(False, 1, 0.0) == "head"
    assert used.head(True, 4001, 0.0) == "head"


def test_rule_4_time_of_a_block() -> None:
    used = counters(head_seconds=30)
    assert used.head(True, 1, 100.0) == ""
    assert used.head(False, 1, 130.0) == ""
    assert used.head(False, 1, 130.1) == "head_time"


def test_rule_10_replies_that_are_not_read() -> None:
    used = counters(max_queued_replies=3)
    assert [used.reply(True) for _ in range(3)] == [""] * 3
    assert used.reply(True) == "replies"
    # whatever is read starts it anew
    used = counters(max_queued_replies=3)
    assert [used.reply(unread) for unread in (True, True, True, False, True, True)] == [""] * 6
    assert used.reply(True) == "replies"


def test_every_limit_has_a_name_and_a_text() -> None:
    assert LIMIT_NAMES.keys() == LIMIT_TEXTS.keys() == set(range(1, 12))
