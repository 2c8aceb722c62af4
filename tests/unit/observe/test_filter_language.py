"""The filter language: what is read, what is refused, and where the caret stands."""

from datetime import datetime

import pytest

from soth_mitm.errors import FilterError
from soth_mitm.observe.filter_fields import FIELDS, FLAGS
from soth_mitm.observe.filter_language import And, FlagTerm, Node, Not, NumberTerm, Or, TextTerm, WordTerm, parse_filter

NOW = datetime(2026, 11, 30, 14, 2, 7)


def text(field: str, op: str, value: str, is_glob: bool = False, header: str | None = None) -> TextTerm:
    return TextTerm(field, op, value, is_glob, header)


@pytest.mark.parametrize(
    ("given", "tree"),
    [
        ("", And(())),
        ("  ", And(())),
        ("host:anthropic", text("host", ":", "anthropic")),
        ("HOST=api.example.com", text("host", "=", "api.example.com")),
        ("host:*.example.com", text("host", ":", "*.example.com", True)),
        ('host:"*.example.com"', text("host", ":", "*.example.com")),
        (r'body~"call_\d+ \"x\""', text("body", "~", r'call_\d+ "x"')),
        ("header.User-Agent:curl", text("header.", ":", "curl", header="user-agent")),
        ("status:404", NumberTerm("status", "in", 404, 404)),
        ("status:4xx", NumberTerm("status", "in", 400, 499)),
        ("status!=500-599", NumberTerm("status", "not in", 500, 599)),
        ("size>2k", NumberTerm("size", ">", 2000, 2000)),
        ("sent>=1.5MiB", NumberTerm("sent", ">=", 1572864, 1572864)),
        ("took<300ms", NumberTerm("took", "<", 0.3, 0.3)),
        ("took>=2m", NumberTerm("took", ">=", 120, 120)),
        ("since:10m", NumberTerm("since", ">=", NOW.timestamp() - 600, NOW.timestamp() - 600)),
        ("until:13:00", NumberTerm("until", "<=", datetime(2026, 11, 30, 13).timestamp(), datetime(2026, 11, 30, 13).timestamp())),
        ("since:15:00", NumberTerm("since", ">=", datetime(2026, 11, 29, 15).timestamp(), datetime(2026, 11, 29, 15).timestamp())),
        ("is:llm", FlagTerm("llm")),
        ("-is:open", Not(FlagTerm("open"))),
        ("not not is:ws", Not(Not(FlagTerm("ws")))),
        ("flaky test", And((WordTerm("flaky"), WordTerm("test", is_prefix=True)))),
        ("flaky test ", And((WordTerm("flaky"), WordTerm("test")))),
        ('"several words"', WordTerm("several words", is_phrase=True)),
        ("https://api.example.com/x", WordTerm("https://api.example.com/x", is_prefix=True)),
        ("is:ws and is:open", And((FlagTerm("ws"), FlagTerm("open")))),
        ("is:ws or is:open is:tls", Or((FlagTerm("ws"), And((FlagTerm("open"), FlagTerm("tls")))))),
        ("(is:ws or is:open) is:tls", And((Or((FlagTerm("ws"), FlagTerm("open"))), FlagTerm("tls")))),
        ("not (is:ws is:open)", Not(And((FlagTerm("ws"), FlagTerm("open"))))),
        ("orange android", And((WordTerm("orange"), WordTerm("android", is_prefix=True)))),
    ],
)
def test_read(given: str, tree: Node) -> None:
    assert parse_filter(given, NOW) == tree


@pytest.mark.parametrize(
    ("given", "position", "part"),
    [
        ("hots:x", 0, 'no field "hots", did you mean "host"?'),
        ("is:llm staus:404", 7, 'did you mean "status"?'),
        ("is:lm", 3, 'no flag "lm", did you mean "llm"?'),
        ("host>x", 4, '"host" is text'),
        ("status~4", 6, '"status" is a number'),
        ("status:abc", 7, '"abc" is no number'),
        ("status:4xx-5", 7, "no number"),
        ("status>4xx", 7, "takes one number"),
        ("size>3s", 5, "2k, 1.5M or 300"),
        ("since:soon", 6, "no time"),
        ("since>10m", 5, "takes a colon"),
        ("host:", 5, "a value is missing"),
        ('body~"["', 5, "no regular expression"),
        ("(is:ws", 0, "not closed"),
        ("is:ws)", 5, "closes nothing"),
        ("()", 1, "missing before"),
        ('"abc', 0, "quotes are not closed"),
        ('""', 0, "quotes are empty"),
        ("is:ws or", 8, "missing at the end"),
        ("not", 3, "missing at the end"),
        ("header.:x", 0, "a name is missing"),
        ("(" * 60, 50, "more than 50"),
        ("size>" + "9" * 400, 5, "too large"),
        ("a" * 4001, 4000, "at most 4000"),
    ],
)
def test_refused(given: str, position: int, part: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(given, NOW)
    assert part in str(caught.value)
    assert caught.value.position == position


def test_the_caret_stands_below_the_place() -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter("is:llm hots:x", NOW)
    assert caught.value.pointed().splitlines()[:3] == ["is:llm hots:x", "       ^", 'no field "hots", did you mean "host"?']


def test_every_field_and_flag_is_read() -> None:
    values = {"since": "10m", "until": "10m"}
    for name in FIELDS:
        parse_filter(f"{name}:{values.get(name, '1')}", NOW)
    for name in FLAGS:
        assert parse_filter(f"is:{name}", NOW) == FlagTerm(name)
