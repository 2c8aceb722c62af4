"""A filter as a condition of SQL over table `flow`. `filter_predicate` says the same of one flow."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from soth_mitm.observe.filter_fields import FIELDS, FieldKind
from soth_mitm.observe.filter_language import And, FlagTerm, Node, Not, NumberTerm, Or, TextTerm, WordTerm
from soth_mitm.observe.filter_predicate import FAILED, STREAMS, ContentTest, content_test
from soth_mitm.observe.search_words import words_of
from soth_mitm.observe.store.schema import WORD_TABLES

MOST_UNINDEXED = 500
"""Flows that no word table has yet, of which the newest so many are read for a search by words."""

_URL = "soth_url(scheme, host, port, path)"
_FAILED = ", ".join(f"'{outcome}'" for outcome in FAILED)
_STREAMS = ", ".join(f"'{protocol}'" for protocol in STREAMS)
_FLAGS = {
    "llm": "provider is not null",
    "stream": f"protocol in ({_STREAMS})",
    "ws": "kind = 'websocket'",
    "grpc": "protocol = 'grpc'",
    "blocked": "outcome = 'blocked'",
    "failed": f"outcome in ({_FAILED})",
    "tunnel": "kind = 'tunnel'",
    "tls": "scheme = 'https'",
    "error": f"(outcome in ({_FAILED}) or status >= 400)",
    "replayed": "replayed != 0",
}


@dataclass
class Condition:
    """A condition of SQL with its values.

    `tests` are what the function `soth_content(id, n)` of the connection has to say of the content of flow `id`; `matches` what
    `soth_match(text, n)` has to say of a text.
    """

    sql: str = ""
    values: list[str | float] = field(default_factory=list)
    tests: list[ContentTest] = field(default_factory=list)
    patterns: list[TextTerm] = field(default_factory=list)
    has_words: bool = False
    """Whether it searches by words, for which flows have to be in a word table."""


def condition(node: Node, word_tables: tuple[str, ...] = WORD_TABLES, lost: Iterable[int] = ()) -> Condition:
    """Return the condition of a filter. `word_tables` are those that the store has, `lost` the sessions whose open flows are lost."""
    made = Condition()
    made.sql = _Compiler(made, word_tables, lost).compile(node, False)
    return made


class _Compiler:
    def __init__(self, made: Condition, word_tables: tuple[str, ...], lost: Iterable[int]) -> None:
        self._made = made
        self._word_tables = word_tables
        is_lost = f"session in ({', '.join(str(session) for session in lost)})"
        self._flags = _FLAGS | {
            "open": f"(state = 'open' and not {is_lost})",
            "cut": f"(substr(outcome, 1, 4) = 'cut_' or state = 'lost' or (state = 'open' and {is_lost}))",
        }

    def compile(self, node: Node, is_negated: bool) -> str:
        """Return the condition of a node; below a `not` it is never null, elsewhere null is as good as false."""
        match node:
            case And(nodes):
                return " and ".join(f"({self.compile(each, is_negated)})" for each in nodes) or "1"
            case Or(nodes):
                return " or ".join(f"({self.compile(each, is_negated)})" for each in nodes)
            case Not(inner):
                return f"not ({self.compile(inner, True)})"
            case FlagTerm(flag):
                return self._flags[flag]
            case NumberTerm():
                sql = self._number(node)
            case TextTerm():
                sql = self._text(node)
            case WordTerm():
                return self._words(node)
        return f"ifnull({sql}, 0)" if is_negated else sql

    def _value(self, value: str | float) -> str:
        self._made.values.append(value)
        return "?"

    def _number(self, node: NumberTerm) -> str:
        columns = FIELDS[node.field].columns
        if len(columns) == 1:
            (value,) = columns
        else:
            # unknown only if all are
            value = f"iif(coalesce({', '.join(columns)}) is null, null, {' + '.join(f'ifnull({each}, 0)' for each in columns)})"
        match node.op:
            case "in":
                return f"({value} between {self._value(node.low)} and {self._value(node.high)})"
            case "not in":
                return f"({value} not between {self._value(node.low)} and {self._value(node.high)})"
        return f"({value} {node.op} {self._value(node.low)})"

    def _text(self, node: TextTerm) -> str:
        if node.header is not None or FIELDS[node.field].kind is FieldKind.CONTENT:
            return self._content(node)
        (column,) = FIELDS[node.field].columns
        text = _URL if column == "url" else column
        if node.op in ("=", "!="):
            return f"({text} {node.op} {self._value(node.value)})"
        if node.op == "~":
            self._made.patterns.append(node)
            return f"soth_match({text}, {len(self._made.patterns) - 1})"
        value = node.value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        pattern = value.replace("*", "%") if node.is_glob else f"%{value}%"
        return f"({text} like {self._value(pattern)} escape '\\')"

    def _content(self, node: TextTerm | WordTerm) -> str:
        self._made.tests.append(content_test(node))
        return f"soth_content(id, {len(self._made.tests) - 1})"

    def _words(self, node: WordTerm) -> str:
        words = words_of(node.text)
        if not words:
            return self._content(node)
        self._made.has_words = True
        wanted = [json.dumps(word) for word in words]
        if node.is_prefix:
            wanted[-1] += "*"
        newest = f"select id from flow where words = 0 order by id desc limit {MOST_UNINDEXED}"
        unindexed = f"(words = 0 and id in ({newest}) and {self._content(node)})"
        if not self._word_tables:
            return unindexed
        tables = " union all ".join(
            f"select rowid from {table} where {table} match {self._value(' '.join(wanted))}" for table in self._word_tables
        )
        indexed = f"(words > 0 and id in ({tables}))"
        if node.is_phrase:
            indexed = f"({indexed} and {self._content(node)})"
        return f"({unindexed} or {indexed})"
