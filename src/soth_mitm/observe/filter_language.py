"""The filter language of the commands and the views: text becomes a tree. What it says is in docs/flows.md.

filter := and ("or" and)*     and := not ("and"? not)*     not := ("not" | "-") not | "(" filter ")" | term
term := FIELD OP value | is:FLAG | word | "several words"     OP := ":" | "=" | "!=" | "~" | ">" | ">=" | "<" | "<="
"""

import difflib
import re
from dataclasses import dataclass
from datetime import datetime

from soth_mitm.errors import FilterError
from soth_mitm.observe.filter_fields import FIELDS, FLAGS, HEADER, Field, FieldKind, range_of, time_of

LONGEST = 4000
"""Characters of a filter."""
DEEPEST = 50
"""Brackets and `not` within each other."""
_PREFIXES = ("header",)

_TERM = re.compile(r"(?P<field>[A-Za-z][A-Za-z0-9_.-]*)(?P<op>!=|>=|<=|[:=~<>])")
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_ORDER = (">", ">=", "<", "<=")


@dataclass(frozen=True, slots=True)
class TextTerm:
    """A field of text: `:` is contains, or a glob, `=` is exact, `~` is a regular expression; `header` names a field of a head."""

    field: str
    op: str
    value: str
    is_glob: bool = False
    header: str | None = None


@dataclass(frozen=True, slots=True)
class NumberTerm:
    """A number between two, or beyond one: `op` is `in`, `not in`, or a sign that compares with `low`."""

    field: str
    op: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FlagTerm:
    """One of `FLAGS`."""

    flag: str


@dataclass(frozen=True, slots=True)
class WordTerm:
    """Words that are anywhere in URL, bodies and messages, or, with `is_phrase`, text that is there as it stands."""

    text: str
    is_prefix: bool = False
    is_phrase: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    """What `node` does not match."""

    node: "Node"


@dataclass(frozen=True, slots=True)
class And:
    """What all match; with none, everything."""

    nodes: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    """What one matches."""

    nodes: "tuple[Node, ...]"


Node = TextTerm | NumberTerm | FlagTerm | WordTerm | Not | And | Or


def parse_filter(text: str, now: datetime | None = None) -> Node:
    """Return the tree of a filter; times are relative to `now`. `FilterError` says what is wrong, and where."""
    if len(text) > LONGEST:
        raise FilterError(f"a filter has at most {LONGEST} characters, and this has {len(text)}", text, LONGEST)
    return _Parser(text, now or datetime.now()).whole()


class _Parser:
    def __init__(self, text: str, now: datetime) -> None:
        self._text = text
        self._at = 0
        self._now = now
        self._depth = 0

    def whole(self) -> Node:
        self._skip()
        if self._at == len(self._text):
            return And(())
        node = self._or()
        if self._at < len(self._text):
            raise self._wrong("this bracket closes nothing", self._at)
        return node

    # --- the grammar

    def _or(self) -> Node:
        nodes = [self._and()]
        while self._takes_word("or"):
            nodes.append(self._and())
        return nodes[0] if len(nodes) == 1 else Or(tuple(nodes))

    def _and(self) -> Node:
        nodes = [self._not()]
        while True:
            start = self._at
            if self._takes_word("and"):
                nodes.append(self._not())
            elif self._at < len(self._text) and self._text[self._at] != ")" and not self._takes_word("or"):
                nodes.append(self._not())
            else:
                self._at = start
                break
        return nodes[0] if len(nodes) == 1 else And(tuple(nodes))

    def _not(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(f"more than {DEEPEST} brackets and `not` within each other", self._at)
        try:
            if self._takes_word("not"):
                return Not(self._not())
            if self._text[self._at : self._at + 1] == "-":
                self._at += 1
                self._skip()
                return Not(self._not())
            if self._text[self._at : self._at + 1] == "(":
                return self._bracket()
            return self._term()
        finally:
            self._depth -= 1

    def _bracket(self) -> Node:
        start = self._at
        self._at += 1
        self._skip()
        node = self._or()
        if self._text[self._at : self._at + 1] != ")":
            raise self._wrong("this bracket is not closed", start)
        self._at += 1
        self._skip()
        return node

    def _term(self) -> Node:
        start = self._at
        if start == len(self._text):
            raise self._wrong("something is missing at the end", start)
        if self._text[start] == ")":
            raise self._wrong("something is missing before this bracket", start)
        match = _TERM.match(self._text, start)
        if match is None or self._text.startswith("//", match.end()):
            return self._words(start)
        self._at = match.end()
        name, op = match["field"], match["op"]
        if name.lower() == "is" and op == ":":
            return self._flag(start)
        field = self._field(name, start)
        value_at = self._at
        value, is_quoted = self._value()
        if value == "" and not is_quoted:
            raise self._wrong(f'a value is missing after "{match[0]}"', value_at)
        if field.kind in (FieldKind.TEXT, FieldKind.CONTENT):
            return self._text_term(name, op, value, is_quoted, value_at, match.start("op"))
        return self._number_term(name.lower(), field, op, value, value_at, match.start("op"))

    def _flag(self, start: int) -> Node:
        value_at = self._at
        value, _ = self._value()
        if value.lower() not in FLAGS:
            raise self._wrong(f'no flag "{value}"{_meant(value, FLAGS)}', value_at, "is: takes " + ", ".join(FLAGS))
        return FlagTerm(value.lower())

    def _field(self, name: str, start: int) -> Field:
        lower = name.lower()
        if lower.startswith(HEADER):
            if not _FIELD_NAME.fullmatch(name[len(HEADER) :]):
                raise self._wrong("a name is missing after `header.`, as in header.user-agent:curl", start)
            return Field(FieldKind.CONTENT, "")
        if lower in FIELDS:
            return FIELDS[lower]
        hint = f'to search for the text, put it in quotes: "{self._text[start:].split()[0]}"'
        raise self._wrong(f'no field "{name}"{_meant(lower, (*FIELDS, "is", *_PREFIXES))}', start, hint)

    def _text_term(self, name: str, op: str, value: str, is_quoted: bool, value_at: int, op_at: int) -> Node:
        if op in _ORDER:
            raise self._wrong(f'"{name}" is text; it takes : (contains), = (is), != and ~ (a regular expression)', op_at)
        header = name[len(HEADER) :].lower() if name.lower().startswith(HEADER) else None
        field = HEADER if header is not None else name.lower()
        if op == "~":
            try:
                re.compile(value)
            except (re.error, OverflowError, RecursionError) as error:
                raise self._wrong(f"no regular expression: {error}", value_at + (getattr(error, "pos", None) or 0)) from error
        return TextTerm(field, op, value, is_glob=op == ":" and not is_quoted and "*" in value, header=header)

    def _number_term(self, name: str, field: Field, op: str, value: str, value_at: int, op_at: int) -> Node:
        try:
            if field.kind is FieldKind.TIME:
                if op not in (":", "="):
                    raise self._wrong(f'"{name}" takes a colon: {name}:10m', op_at)
                moment = time_of(value, self._now)
                return NumberTerm(name, ">=" if name == "since" else "<=", moment, moment)
            if op == "~":
                raise self._wrong(f'"{name}" is a number; it takes : = != > >= < <=', op_at)
            low, high = range_of(field.kind, value)
        except FilterError:
            raise
        except ValueError as error:
            raise self._wrong(str(error), value_at) from error
        if op in _ORDER and low != high:
            raise self._wrong(f'"{name}{op}" takes one number', value_at)
        return NumberTerm(name, {":": "in", "=": "in", "!=": "not in"}.get(op, op), low, high)

    def _words(self, start: int) -> Node:
        value, is_quoted = self._value()
        if value == "":
            raise self._wrong("these quotes are empty", start)
        is_last = self._at == len(self._text) and not self._text[start:].endswith((" ", "\t"))
        return WordTerm(value, is_prefix=is_last and not is_quoted, is_phrase=is_quoted)

    # --- characters

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _takes_word(self, word: str) -> bool:
        end = self._at + len(word)
        found = self._text[self._at : end]
        follows = self._text[end : end + 1]
        if found not in (word, word.upper()) or not (follows == "" or follows.isspace() or follows in '()"'):
            return False
        self._at = end
        self._skip()
        return True

    def _value(self) -> tuple[str, bool]:
        """Take a value; return it, and whether it was in quotes."""
        start = self._at
        if self._text[start : start + 1] == '"':
            return self._quoted(start), True
        while self._at < len(self._text) and not self._text[self._at].isspace() and self._text[self._at] not in "()":
            self._at += 1
        value = self._text[start : self._at]
        self._skip()
        return value, False

    def _quoted(self, start: int) -> str:
        out: list[str] = []
        at = start + 1
        while at < len(self._text):
            each = self._text[at]
            if each == '"':
                self._at = at + 1
                self._skip()
                return "".join(out)
            if each == "\\" and self._text[at + 1 : at + 2] in ('"', "\\"):
                at += 1
                each = self._text[at]
            out.append(each)
            at += 1
        raise self._wrong("these quotes are not closed", start)

    def _wrong(self, what: str, at: int, hint: str = "") -> FilterError:
        return FilterError(what, self._text, at, hint)


def _meant(word: str, known: "tuple[str, ...] | dict[str, str]") -> str:
    close = difflib.get_close_matches(word.lower(), list(known), 1, 0.6)
    return f', did you mean "{close[0]}"?' if close else ""
