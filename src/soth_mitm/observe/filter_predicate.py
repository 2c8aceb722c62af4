"""A filter as a question about one flow: `Predicate`. The SQL of `filter_sql` finds the same flows."""

import re
from collections.abc import Callable
from typing import Protocol

from soth_mitm.observe.filter_fields import FIELDS, FieldKind
from soth_mitm.observe.filter_language import And, FlagTerm, Node, Not, NumberTerm, Or, TextTerm, WordTerm
from soth_mitm.observe.search_words import words_of
from soth_mitm.observe.store.flow_row import FlowRow

FAILED = ("upstream_error", "upstream_timeout", "refused")
STREAMS = ("sse", "streamable_http")

_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class Content(Protocol):
    """What the content of a flow is searched for."""

    def header_values(self, name: str) -> list[str]:
        """Return the values of a field, in the heads of request and response; `name` is in lower case."""

    def body_text(self) -> str:
        """Return the text of both bodies and of the messages."""

    def all_text(self) -> str:
        """Return the URL with the text."""

    def words(self) -> set[str]:
        """Return the words of `all_text()`."""


Predicate = Callable[[FlowRow, Content], bool]
ContentTest = Callable[[Content], bool]


def predicate(node: Node) -> Predicate:
    """Return whether a flow matches, as a function. An unknown value matches no term, so that `not` of the term matches it."""
    match node:
        case And(nodes):
            parts = [predicate(each) for each in nodes]
            return lambda row, content: all(part(row, content) for part in parts)
        case Or(nodes):
            parts = [predicate(each) for each in nodes]
            return lambda row, content: any(part(row, content) for part in parts)
        case Not(inner):
            part = predicate(inner)
            return lambda row, content: not part(row, content)
        case FlagTerm(flag):
            return _FLAGS[flag]
        case NumberTerm():
            return _number(node)
        case WordTerm():
            test = content_test(node)
            return lambda row, content: test(content)
        case TextTerm():
            if node.header is not None or FIELDS[node.field].kind is FieldKind.CONTENT:
                test = content_test(node)
                return lambda row, content: test(content)
            return _text(node)


def content_test(node: TextTerm | WordTerm) -> ContentTest:
    """Return whether the content of a flow matches a term that is about content."""
    if isinstance(node, WordTerm):
        return _word_test(node)
    matches = text_test(node)
    header = node.header
    if header is not None:
        return lambda content: any(matches(value) for value in content.header_values(header))
    return lambda content: matches(content.body_text())


def lower(text: str) -> str:
    """Return text in lower case, as SQLite has it: letters of ASCII only."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def text_test(node: TextTerm) -> Callable[[str], bool]:
    """Return whether a text matches the operator and value of a term."""
    value = node.value
    match node.op:
        case "=":
            return lambda text: text == value
        case "!=":
            return lambda text: text != value
        case "~":
            search = re.compile(value, re.IGNORECASE).search
            return lambda text: search(text) is not None
    if node.is_glob:
        fits = re.compile(".*".join(re.escape(part) for part in lower(value).split("*")), re.DOTALL).fullmatch
        return lambda text: fits(lower(text)) is not None
    wanted = lower(value)
    return lambda text: wanted in lower(text)


def _text(node: TextTerm) -> Predicate:
    (column,) = FIELDS[node.field].columns
    matches = text_test(node)

    def test(row: FlowRow, content: Content) -> bool:
        text = getattr(row, column)
        return text is not None and matches(text)

    return test


def _number(node: NumberTerm) -> Predicate:
    columns = FIELDS[node.field].columns
    low, high = node.low, node.high
    compare: Callable[[float], bool]
    match node.op:
        case "in":
            compare = lambda value: low <= value <= high  # noqa: E731
        case "not in":
            compare = lambda value: not low <= value <= high  # noqa: E731
        case ">":
            compare = lambda value: value > low  # noqa: E731
        case ">=":
            compare = lambda value: value >= low  # noqa: E731
        case "<":
            compare = lambda value: value < low  # noqa: E731
        case _:
            compare = lambda value: value <= low  # noqa: E731

    def test(row: FlowRow, content: Content) -> bool:
        values = [value for column in columns if (value := getattr(row, column)) is not None]
        return bool(values) and compare(sum(values))

    return test


def _word_test(node: WordTerm) -> ContentTest:
    words = words_of(node.text)
    phrase = lower(node.text) if node.is_phrase or not words else None
    whole, prefix = (words[:-1], words[-1]) if node.is_prefix and words else (words, None)

    def test(content: Content) -> bool:
        found = content.words()
        if not all(word in found for word in whole):
            return False
        if prefix is not None and prefix not in found and not any(word.startswith(prefix) for word in found):
            return False
        return phrase is None or phrase in lower(content.all_text())

    return test


_FLAGS: dict[str, Predicate] = {
    "llm": lambda row, content: row.provider is not None,
    "stream": lambda row, content: row.protocol in STREAMS,
    "ws": lambda row, content: row.kind == "websocket",
    "grpc": lambda row, content: row.protocol == "grpc",
    "open": lambda row, content: row.state == "open",
    "blocked": lambda row, content: row.outcome == "blocked",
    "failed": lambda row, content: row.outcome in FAILED,
    "cut": lambda row, content: row.outcome.startswith("cut_") or row.state == "lost",
    "tunnel": lambda row, content: row.kind == "tunnel",
    "tls": lambda row, content: row.scheme == "https",
    "error": lambda row, content: row.outcome in FAILED or row.status >= 400,
    "replayed": lambda row, content: row.replayed != 0,
}
