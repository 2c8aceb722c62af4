"""Masks values in text that arrives in pieces: JSON, JSON in strings of JSON, URLs in it; forms.

Nothing is parsed into objects. Names are searched for, and what follows a name is taken for its value up to its end: so what is cut,
damaged, or many documents behind each other is masked as well, and every other byte stays as it is. Where the end of a value is in doubt,
more is masked, not less.
"""

import re
from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple
from urllib.parse import unquote_plus

from soth_mitm.observe.masked_names import LONGEST_NAME, NameSet, pattern_of
from soth_mitm.observe.masked_value import CUT, SHORT, ValueMask, masked_beyond, unescaped

HELD = 65_536
"""Bytes of one value that are held for its tag. A longer one has none."""

# A quote, in a string of JSON within a string of JSON, is spelled with backslashes before it; some writers spell it `\u0022`.
_END = rb'\\{0,31}(?:"|u0022)'
# Whole runs of backslashes only: they are not tried from each of their places.
_QUOTE = re.compile(rb'(?<!\\)(\\*)("|u0022)')
_OPENING = re.compile(rb'(\\*)(?:"|(?<=\\)u0022)')
_BLANK = re.compile(rb"(?:[ \t\r\n]|\\+[nrt])*")
# What may become an opening quote, or a blank, when more has come
_BEGUN = re.compile(rb"\\+(?:u(?:0(?:02?)?)?)?\Z")
_PARTS_OF_QUOTE = (b"u002", b"u00", b"u0", b"u")
_NESTED = re.compile(rb'(?<!\\)(\\*)("|u0022)|[{}\[\]]')
_LAST_QUOTE = re.compile(rb'(\\*)(?:"|u0022)\Z')
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"[\r\n]")
_PLAIN = (b"true", b"false", b"null", b"")
# What a name may begin with and consist of, at the end of what has come
_TAIL = re.compile(rb'(?:["?&#;\\u][\w.\-\\$:;]{0,%d}"?|b(?:e(?:a(?:r(?:er? *)?)?)?)?)\Z' % LONGEST_NAME, re.ASCII)
# A letter of a name that is written as an escape
_ESCAPED = rb'"(?=[\w.-]*\\+u00[2-7])((?:[\w.-]|\\{1,3}u00[2-7][0-9a-f]){1,24}?)' + _END
_PART_TAIL = LONGEST_NAME
# RFC 2046 allows 70; with what stands before one
_LONGEST_BOUNDARY = 256


class _State(Enum):
    TEXT = auto()
    COLON = auto()
    """A name in quotes was there; is it one of a field?"""
    VALUE = auto()
    STRING = auto()
    NESTED = auto()
    """An object or an array is the value: it is masked as a whole."""
    SCALAR = auto()
    URL_VALUE = auto()
    TOKEN = auto()
    """`Bearer` was there: what follows is a credential, if it is long enough to be one."""
    PART_HEAD = auto()
    PART_BODY = auto()


class _Sought(NamedTuple):
    """A pattern, and what stands in every text that it is found in."""

    kind: str
    sign: bytes
    pattern: re.Pattern[bytes]


_WORD_ENDS = {
    _State.SCALAR: re.compile(rb'[,}\]\s"\\{\[:]'),
    _State.URL_VALUE: re.compile(rb"""[&#\s"'\\<>]"""),
    _State.TOKEN: re.compile(rb"[^\w.~+/=-]", re.ASCII),
}


class TextNames:
    """The names of a `TextMask`, compiled."""

    def __init__(self, body_names: Iterable[str], query_names: Iterable[str]) -> None:
        fields, parameters = pattern_of(body_names).encode(), pattern_of(query_names).encode()
        self.is_field = NameSet(body_names)
        # Searched for in lower case, each by itself: together, or without regard to case, they take five times as long.
        self.field = _Sought("field", b"", re.compile(rb'"(%s)%s' % (fields, _END), re.ASCII))
        self.query = _Sought("query", b"=", re.compile(rb"(?:[?&#]|&amp;|u0026)(%s)=" % parameters, re.ASCII))
        self.respelled = _Sought("field", b"\\u0022", re.compile(rb"u0022(%s)%s" % (fields, _END), re.ASCII))
        self.escaped = _Sought("escaped", b"\\u00", re.compile(_ESCAPED, re.ASCII))
        name = rb'form-data;[^\r\n]{0,64}?\bname=(?:"(?:%s)"|(?:%s)(?=[;\s]))' % (fields, fields)
        self.part = _Sought("part", b"form-data", re.compile(name, re.ASCII))
        self.bearer = _Sought("bearer", b"bearer ", re.compile(rb"bearer +"))
        self.text = (self.field, self.query, self.respelled, self.escaped, self.bearer)
        self.multipart = (self.part, *self.text)
        self.start = re.compile(rb"(?:%s|%s)=" % (parameters, fields), re.ASCII)


class TextMask:
    """Masks one text. `feed` its pieces in order, then `finish`; what they return is the masked text.

    `by_lines`: no value goes beyond a line, as in events and in JSON by lines. `boundary`: that of `multipart/form-data`, whose fields are
    looked at then. Held between two pieces is the value that has begun, `HELD` bytes of it, or what may become a name.
    """

    def __init__(self, names: TextNames, mask: ValueMask, *, by_lines: bool = False, boundary: bytes | None = None) -> None:
        self._names = names
        self._mask = mask
        self._by_lines = by_lines
        self._sought = names.text if boundary is None else names.multipart
        self._part_end = re.compile(rb"\r?\n--" + re.escape(boundary or b""))
        self._state = _State.TEXT
        self._held = b""
        self._seen = 0
        """How much of what is held was searched for the end of a value."""
        self._escapes = 0
        """Backslashes before the quotes of the string in which the value stands."""
        self._depth = 0
        self._in_string = False
        self._dropped = 0
        """Bytes of the value that are held no longer."""
        self._is_start = True
        self._lower = b""
        self._names_ahead: list[tuple[_Sought, re.Match[bytes]]] = []

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what is certain now."""
        return self._run(self._held + data, False)

    def finish(self, data: bytes = b"") -> bytes:
        """Take the last piece; return all that is left."""
        return self._run(self._held + data, True)

    def _run(self, data: bytes, at_end: bool) -> bytes:
        out: list[bytes] = []
        at = 0
        self._lower = data.lower()
        self._names_ahead = [
            (each, found)
            for each in self._sought
            if (not each.sign or each.sign in self._lower) and (found := each.pattern.search(self._lower)) is not None
        ]
        if self._is_start and (data or at_end):
            # as in a form, of which nobody said that it is one
            start = self._names.start.match(self._lower)
            if start is None and not at_end and len(data) < LONGEST_NAME and b"=" not in data and b'"' not in data:
                self._held = data
                return b""
            self._is_start = False
            if start is not None:
                self._state, self._seen, self._dropped = _State.URL_VALUE, 0, 0
                at = start.end()
                out.append(data[:at])
        while True:
            before = self._state
            at = self._step(data, at, at_end, out)
            if self._state is before:
                break
        self._held = b"" if at_end else data[at:]
        if at_end:
            self._state, self._seen = _State.TEXT, 0
        return b"".join(out)

    def _step(self, data: bytes, at: int, at_end: bool, out: list[bytes]) -> int:
        """Go on in the present state; return where what is not done with begins. No other state than before: more data is needed."""
        match self._state:
            case _State.TEXT:
                return self._text(data, at, at_end, out)
            case _State.COLON:
                return self._colon(data, at, at_end, out)
            case _State.VALUE:
                return self._value(data, at, at_end, out)
            case _State.STRING:
                return self._string(data, at, at_end, out)
            case _State.NESTED:
                return self._nested(data, at, at_end, out)
            case _State.SCALAR | _State.URL_VALUE | _State.TOKEN:
                return self._word(data, at, at_end, out)
            case _State.PART_HEAD:
                return self._part_head(data, at, at_end, out)
            case _State.PART_BODY:
                return self._part_body(data, at, at_end, out)

    def _text(self, data: bytes, at: int, at_end: bool, out: list[bytes]) -> int:
        begin = at
        while (hit := self._next_name(at)) is not None:
            kind, found = hit
            at = found.end()
            if kind == "field" or (kind == "escaped" and self._names_a_field(found[1])):
                quote = _LAST_QUOTE.search(found[0])
                self._escapes = 0 if quote is None else len(quote[1])
                self._state = _State.COLON
            elif kind == "query":
                self._state, self._seen, self._dropped = _State.URL_VALUE, 0, 0
            elif kind == "bearer":
                self._state, self._seen, self._dropped = _State.TOKEN, 0, 0
            elif kind == "part":
                self._state = _State.PART_HEAD
            else:
                at = found.start() + 1
                continue
            out.append(data[begin:at])
            return at
        if at_end:
            out.append(data[begin:])
            return len(data)
        tail = self._tail(data, at)
        out.append(data[begin:tail])
        return tail

    def _next_name(self, at: int) -> tuple[str, re.Match[bytes]] | None:
        """Return the first name from `at` on, and what it is one of."""
        if any(found.start() < at for _, found in self._names_ahead):
            # each pattern goes over the text once
            nexts = ((each, found if found.start() >= at else each.pattern.search(self._lower, at)) for each, found in self._names_ahead)
            self._names_ahead = [(each, found) for each, found in nexts if found is not None]
        if not self._names_ahead:
            return None
        sought, found = min(self._names_ahead, key=lambda ahead: ahead[1].start())
        return sought.kind, found

    def _tail(self, data: bytes, at: int) -> int:
        """Return from where on the text may be the beginning of a name."""
        if self._sought is self._names.multipart:
            return max(at, len(data) - _PART_TAIL)
        found = _TAIL.search(self._lower, max(at, len(data) - LONGEST_NAME))
        return len(data) if found is None else found.start()

    def _names_a_field(self, name: bytes) -> bool:
        for levels in range(1, 4):
            plain = unescaped(name, levels)
            if b"\\" not in plain:
                return plain.decode("utf-8", "replace") in self._names.is_field
        # so many escapes in a name hide something
        return True

    def _colon(self, data: bytes, at: int, at_end: bool, out: list[bytes]) -> int:
        at = self._skip_blanks(data, at, at_end, out)
        if at < len(data) and data[at : at + 1] == b":":
            out.append(b":")
            self._state = _State.VALUE
            return at + 1
        if at_end or (at < len(data) and not _BEGUN.match(data, at)):
            self._state = _State.TEXT
        return at

    def _skip_blanks(self, data: bytes, at: int, at_end: bool, out: list[bytes]) -> int:
        found = _BLANK.match(data, at)
        end = at if found is None else found.end()
        out.append(data[at:end])
        return end

    def _value(self, data: bytes, at: int, at_end: bool, out: list[bytes]) -> int:
        at = self._skip_blanks(data, at, at_end, out)
        if at == len(data) or (not at_end and _BEGUN.match(data, at)):
            return at
        opening = _OPENING.match(data, at)
        self._dropped = self._seen = 0
        if opening is not None:
            self._escapes = len(opening[1])
            self._state = _State.STRING
            out.append(opening[0])
            return opening.end()
        if data[at : at + 1] in (b"{", b"["):
            self._state = _State.NESTED
            self._depth, self._in_string = 0, False
            return at
        self._state = _State.SCALAR
        return at

    def _closes(self, quote: re.Match[bytes]) -> bool:
        """Tell whether a quote ends the string whose own quotes have `self._escapes` backslashes before them."""
        own, run = self._escapes, len(quote[1])
        if quote[2] == b"u0022" and (own == 0 or run == 0):
            return False
        if run < own:
            # of the string around it
            return quote[2] == b'"'
        times, rest = divmod(run - own, own + 1)
        return rest == 0 and times % 2 == 0

    def _string(self, data: bytes, at: int, at_end: bool, out: list[bytes]) -> int:
        # a backslash and what follows it may have been divided
        begin = at + self._seen
        line_end = _LINE_END.search(data, begin) if self._by_lines else None
        limit = len(data) if line_end is None else line_end.start()
        for quote in _QUOTE.finditer(data, begin, limit):
            if not self._closes(quote):
                continue
            run = len(quote[1])
            is_own = run >= self._escapes
            end = quote.end(1) - self._escapes if is_own else quote.start()
            self._put(out, data[at:end], is_cut=not is_own)
            self._state = _State.TEXT
            # after a damaged value, its closing quote is the opening one of a name
            return end
        if limit < len(data) or at_end:
            self._put(out, data[at:limit], is_cut=True)
            self._state = _State.TEXT
            return limit
        return self._hold(data, at)

    def _hold(self, data: bytes, at: int) -> int:
        """Note how much of a value was searched; let go of what is too much of it. Return where it begins now."""
        searched = len(data)
        # what may be the beginning of a quote, with all the backslashes before it
        partial = next((each for each in _PARTS_OF_QUOTE if data.endswith(each)), b"")
        if data.endswith(b"\\" + partial):
            searched = at + len(data[at:].removesuffix(partial).rstrip(b"\\"))
        if searched - at > HELD:
            self._dropped += searched - at
            at = searched
        self._seen = searched - at
        return at

    def _put(self, out: list[bytes], value: bytes, *, is_cut: bool) -> None:
        """Put out what stands in place of a value in a string."""
        if self._dropped:
            out.append(masked_beyond(HELD).encode())
        elif is_cut:
            out.append(CUT.encode())
        else:
            out.append(self._mask.in_json(value, _levels(self._escapes)))

    def _nested(self, data: bytes, at: int, at_end: bool, out: list[bytes]) -> int:
        for mark in _NESTED.finditer(data, at + self._seen):
            is_quote = mark[2] is not None
            end = mark.end()
            if is_quote and self._stays_within(mark):
                continue
            if not is_quote and self._in_string:
                continue
            if not is_quote:
                self._depth += 1 if mark[0] in (b"{", b"[") else -1
                if self._depth > 0:
                    continue
            else:
                end = mark.start()
            self._put_word(out, data[at:end], is_cut=is_quote)
            self._state = _State.TEXT
            return end
        if at_end:
            self._put_word(out, data[at:], is_cut=True)
            self._state = _State.TEXT
            return len(data)
        return self._hold(data, at)

    def _stays_within(self, quote: re.Match[bytes]) -> bool:
        """Take a quote within an object; tell whether the object goes on behind it."""
        if quote[2] == b'"' and len(quote[1]) < self._escapes:
            # of the string around it
            return False
        if not self._in_string:
            self._in_string = quote[2] == b'"' or bool(quote[1])
        elif self._closes(quote):
            self._in_string = False
        return True

    def _put_word(self, out: list[bytes], value: bytes, *, is_cut: bool = False) -> None:
        """Put out what stands in place of a value without quotes: with quotes, as those around it are spelled."""
        quote = b"\\" * self._escapes + b'"'
        out.append(quote)
        self._put(out, value, is_cut=is_cut)
        if not is_cut:
            out.append(quote)

    def _word(self, data: bytes, at: int, at_end: bool, out: list[bytes]) -> int:
        state = self._state
        end = _WORD_ENDS[state].search(data, at + self._seen)
        if end is None and not at_end:
            return self._hold_all(data, at)
        stop = len(data) if end is None else end.start()
        value = data[at:stop]
        if state is _State.URL_VALUE:
            if value or self._dropped:
                out.append(_in_url(masked_beyond(HELD)) if self._dropped else self._mask.in_url(value))
        elif state is _State.TOKEN:
            # a word of a sentence is shorter
            is_word = len(value) < SHORT and not self._dropped
            out.append(value if is_word else (masked_beyond(HELD) if self._dropped else self._mask.masked(value)).encode())
        elif value in _PLAIN and not self._dropped:
            out.append(value)
        else:
            self._put_word(out, value, is_cut=end is None)
        self._state = _State.TEXT
        return stop

    def _hold_all(self, data: bytes, at: int) -> int:
        """Hold what has come of a value of which no byte may be part of its end. Return where it begins now."""
        if len(data) - at > HELD:
            self._dropped += len(data) - at
            at = len(data)
        self._seen = len(data) - at
        return at

    def _part_head(self, data: bytes, at: int, at_end: bool, out: list[bytes]) -> int:
        end = _BLANK_LINE.search(data, at)
        if end is None:
            keep = len(data) if at_end else max(at, len(data) - 3)
            out.append(data[at:keep])
            return keep
        out.append(data[at : end.end()])
        self._state, self._dropped, self._seen = _State.PART_BODY, 0, 0
        return end.end()

    def _part_body(self, data: bytes, at: int, at_end: bool, out: list[bytes]) -> int:
        end = self._part_end.search(data, at + self._seen)
        if end is None and not at_end:
            # the line that ends it may have begun
            certain = max(at, len(data) - _LONGEST_BOUNDARY)
            if certain - at > HELD:
                self._dropped += certain - at
                at = certain
            self._seen = certain - at
            return at
        stop = len(data) if end is None else end.start()
        text = masked_beyond(HELD) if self._dropped else CUT if end is None else self._mask.masked(data[at:stop])
        out.append(text.encode())
        self._state = _State.TEXT
        return stop


def _levels(escapes: int) -> int:
    """Return how many strings stand around each other where a quote has so many backslashes before it."""
    return (escapes + 1).bit_length()


def _in_url(text: str) -> bytes:
    return text.replace(" ", "%20").replace("·", "%C2%B7").encode()


class FormMask:
    """Masks a form, `application/x-www-form-urlencoded`, as `TextMask` masks a text."""

    def __init__(self, names: NameSet, mask: ValueMask) -> None:
        self._names = names
        self._mask = mask
        self._held = b""
        self._is_over: bool | None = None
        """A pair is longer than what is held: whether its value is masked."""

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what is certain now."""
        *pairs, last = (self._held + data).split(b"&")
        out = [self._pair(pair) for pair in pairs]
        self._held = last
        text = b"".join(each + b"&" for each in out)
        if len(last) > HELD:
            if self._is_over is None:
                name, equals, value = last.partition(b"=")
                self._is_over = not equals or unquote_plus(name.decode("latin-1")) in self._names
                text += (name + equals + _in_url(masked_beyond(HELD))) if self._is_over else name + equals + value
            elif not self._is_over:
                text += last
            self._held = b""
        return text

    def finish(self, data: bytes = b"") -> bytes:
        """Take the last piece; return all that is left."""
        begun = self.feed(data)
        held, self._held = self._held, b""
        return begun + self._pair(held)

    def _pair(self, pair: bytes) -> bytes:
        if self._is_over is not None:
            is_masked, self._is_over = self._is_over, None
            return b"" if is_masked else pair
        name, equals, value = pair.partition(b"=")
        if not value or unquote_plus(name.decode("latin-1")) not in self._names:
            return pair
        return name + equals + self._mask.in_url(value)
