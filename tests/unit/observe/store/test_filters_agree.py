"""A filter as SQL and as a predicate finds the same flows: generated filters over made flows."""

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm.errors import FilterError
from soth_mitm.observe.filter_fields import FIELDS, FLAGS, FieldKind
from soth_mitm.observe.filter_language import parse_filter
from soth_mitm.observe.filter_predicate import predicate
from soth_mitm.observe.store.flow_content import FlowContent
from soth_mitm.observe.store.reader import StoreReader, all_rows
from soth_mitm.observe.store.sink import SqliteSink
from support.made_flows import BEGAN, exchange, mixed, model_stream, opened, record, sink_info, websocket

AGES = 1e10

TEXTS = {
    "host": ("api", "API.example.com", "*.example.*", "registry.npmjs.org", "ünïcode", "%", "_"),
    "path": ("/items", "*page=2", "/v1/messages", "\\", "%2F"),
    "url": ("https://api", "*:443", "updates.example.com:443", "example.com/items/1*"),
    "method": ("GET", "post", "CONNECT"),
    "type": ("json", "text/event-stream", "application/*"),
    "app": ("claude", "p*n", ""),
    "client": ("127.0.0.1", "*:50001"),
    "protocol": ("http2", "sse", "tunnel"),
    "outcome": ("answered", "cut_*", "blocked", ""),
    "reason": ("unlisted", "listed", "upstream error"),
    "connection": ("00000000", "*3ea"),
    "provider": ("anthropic", "open*"),
    "model": ("claude-sonnet-4-5", "SONNET"),
    "tool": ("read_file", "bash"),
    "stop": ("tool_use", "end_turn"),
    "body": ("alpha", "deadline", "ping", "ÄRGER"),
    "header.content-type": ("json", "application/json"),
    "header.x-api-key": ("masked*", "sk-ant"),
}
PLAIN = ("0", "1", "200", "200-404", "0.3", "3")
NUMBERS = (*PLAIN, "4xx", "1k")
TIMES = ("2025-11-30T10:53", "2025-11-30T10:55", "10m")
WORDS = (
    "alpha",
    "omega",
    "delt",
    "flaky",
    "deadline",
    '"is computed"',
    '"at how"',
    "read_file",
    "application",
    "!!",
    '"{"',
    "ärger",
    "items/3",
)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def terms(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(("text", "text", "number", "time", "flag", "word")))
    if kind == "flag":
        return f"is:{draw(st.sampled_from(sorted(FLAGS)))}"
    if kind == "word":
        return draw(st.sampled_from(WORDS))
    if kind == "time":
        return f"{draw(st.sampled_from(('since', 'until')))}:{draw(st.sampled_from(TIMES))}"
    if kind == "number":
        numbers = [name for name, field in FIELDS.items() if field.kind in (FieldKind.NUMBER, FieldKind.SIZE, FieldKind.SECONDS)]
        op = draw(st.sampled_from((":", "=", "!=", ">", ">=", "<", "<=")))
        return f"{draw(st.sampled_from(numbers))}{op}{draw(st.sampled_from(NUMBERS))}"
    name = draw(st.sampled_from(sorted(TEXTS)))
    value = draw(st.sampled_from(TEXTS[name]) | st.text("aAeE.*%_ü1-", min_size=1, max_size=4))
    op = draw(st.sampled_from((":", ":", "=", "!=", "~")))
    return f"{name}{op}{_quoted(value) if draw(st.booleans()) or not value or set(value) & set(' ()') else value}"


FILTERS = st.recursive(
    terms(),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(" ".join),
        st.tuples(inner, inner).map(" and ".join),
        st.tuples(inner, inner).map(" or ".join),
        inner.map("({})".format),
        inner.map("not ({})".format),
        inner.map("-({})".format),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StoreReader, list[FlowContent]]]:
    """A store of 120 flows of all kinds, of which some have their words in the word table and some do not."""
    path = tmp_path_factory.mktemp("filters") / "flows.db"
    sink = SqliteSink(path, min_free_bytes=0, full_text="off", max_age=AGES)
    sink.open(sink_info())
    odd = [
        exchange(201, response="Ärger im Büro, ÄRGER".encode(), host="ünïcode.example"),
        exchange(202, response=b"100% of_it \\ *", path="/a%2Fb_\\?x=1"),
        opened(exchange(203, b'{"ask": 1}', status=0, response_fields=())),
        model_stream(204, parts=3)[1],
        websocket(205, ["deadline"])[1],
        exchange(206, path="/\0/x", host="API.EXAMPLE.COM", took=None),
        msgspec.structs.replace(exchange(207), record=record(207, status=0, outcome="upstream_error", started=BEGAN - 5)),
    ]
    sink.accept([*mixed(80)])
    assert sink._writer is not None
    while sink._writer.index():
        continue
    sink.accept([*mixed(40, seed=2, first_id=81), *odd])
    reader = StoreReader(path)
    contents = [content for row in all_rows(reader) if (content := reader.flow(row.id)) is not None]
    assert len(contents) == 127
    yield reader, contents
    reader.close()
    sink.close(5)


@given(text=FILTERS)
def test_sql_finds_what_the_predicate_finds(store: tuple[StoreReader, list[FlowContent]], text: str) -> None:
    reader, contents = store
    try:
        node = parse_filter(text)
    except FilterError:
        # a generated regular expression may be none
        return
    matches = predicate(node)
    expected = {content.row.id for content in contents if matches(content.row, content)}
    assert {row.id for row in all_rows(reader, node)} == expected
    assert reader.count(node) == len(expected)


@pytest.mark.parametrize("name", [*FIELDS, *(f"is:{flag}" for flag in FLAGS)])
def test_each_field_and_flag_alone(store: tuple[StoreReader, list[FlowContent]], name: str) -> None:
    reader, contents = store
    values = TEXTS.get(name, TIMES if name in ("since", "until") else PLAIN)
    for text in [name] if name.startswith("is:") else [f"{name}:{_quoted(value)}" for value in values if value]:
        for negated in (text, f"not {text}"):
            node = parse_filter(negated)
            matches = predicate(node)
            assert {row.id for row in all_rows(reader, node)} == {each.row.id for each in contents if matches(each.row, each)}, negated
