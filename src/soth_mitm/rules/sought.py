"""Texts to be found: exact ones and patterns, in text, in bytes, in JSON, and in text that comes in pieces."""

import codecs
import json
import re
from collections.abc import Iterable

# Characters of a text in pieces that wait for what follows where there are patterns: how long a match may be that is found across pieces.
PATTERN_WINDOW = 256
# A string of JSON, or the beginning of one that is cut; each character is looked at once.
_LITERAL = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_ESCAPE = re.compile(r'\\(?:u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|u([0-9a-f]{4})|(["\\/bfnrt]))', re.IGNORECASE)
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# JSON within a string of JSON, and so on
_MOST_LEVELS = 4
# Charsets in which a body can be searched beside UTF-8, as `codecs` names them
_CHARSETS = re.compile(
    r"utf-8(-sig)?|utf-16(-[lb]e)?|utf-32(-[lb]e)?|ascii|iso8859-\d+|cp125\d|koi8-[ru]|shift_jis|euc_(jp|kr)|gb2312|gbk|gb18030|big5"
)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f"\\]')

Span = tuple[int, int]


class Sought:
    """What is to be found, and what takes its place. `ValueError` and `TypeError` say what is wrong with a value."""

    def __init__(self, values: Iterable[str | bytes | re.Pattern[str]], replacement: str) -> None:
        if not isinstance(replacement, str) or _FORBIDDEN.search(replacement):
            raise ValueError(f"replacement: expected a line without quotation marks and backslashes, got {replacement!r}")
        replacement.encode()
        self.replacement = replacement
        self._exact: list[str] = []
        self._bytes: list[bytes] = []
        self._patterns: list[re.Pattern[str]] = []
        for value in values:
            if isinstance(value, re.Pattern):
                if not isinstance(value.pattern, str):
                    raise TypeError(f"values: expected patterns of text, got {value!r}")
                if value.search(""):
                    raise ValueError(f"values: {value!r} matches the empty text, which is everywhere")
                self._patterns.append(value)
            elif not isinstance(value, str | bytes):
                raise TypeError(f"values: expected str, bytes or a compiled pattern, got {type(value).__name__}")
            elif not value:
                raise ValueError("values: one is empty")
            else:
                self._exact.append(value if isinstance(value, str) else value.decode("utf-8", "surrogateescape"))
                if isinstance(value, bytes):
                    self._bytes.append(value)
        if not self._exact and not self._patterns:
            raise ValueError("values: name at least one text or pattern to redact")
        # the longest first, where several begin at one place
        exact = "|".join(re.escape(each) for each in sorted(self._exact, key=len, reverse=True))
        self._all = ([re.compile(exact)] if exact else []) + self._patterns

    def spans(self, text: str, begin: int = 0) -> list[Span]:
        """Return what is found in `text` from `begin` on, in order, where it overlaps in one."""
        found = sorted(match.span() for pattern in self._all for match in pattern.finditer(text, begin) if match.end() > match.start())
        joined: list[Span] = []
        for start, end in found:
            if joined and start < joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            else:
                joined.append((start, end))
        return joined

    def replaced(self, text: str, spans: Iterable[Span], begin: int, end: int) -> str:
        """Return `text` from `begin` to `end` with the replacement in place of each of `spans`."""
        parts = []
        for start, stop in spans:
            parts += [text[begin:start], self.replacement]
            begin = stop
        return "".join((*parts, text[begin:end]))

    def in_text(self, text: str, level: int = 0) -> str:
        """Return the text without what is sought; also in strings of JSON, which may spell it with escapes."""
        text = self.replaced(text, self.spans(text), 0, len(text))
        if "\\" not in text or level == _MOST_LEVELS or not (level or self._is_escaped_in(text)):
            return text

        def literal(match: re.Match[str]) -> str:
            if "\\" not in match[0]:
                return match[0]
            try:
                value = json.loads(match[0], strict=False)
            except ValueError:
                # no JSON, or cut
                return match[0]
            left = self.in_text(value, level + 1)
            return match[0] if left == value else json.dumps(left)

        return _LITERAL.sub(literal, text)

    def _is_escaped_in(self, text: str) -> bool:
        """Tell whether something is found once escapes are taken for what they stand for, which is much faster than to read JSON."""
        for _ in range(_MOST_LEVELS):
            text = _ESCAPE.sub(_unescaped, text)
            if self.spans(text):
                return True
            if "\\" not in text:
                break
        return False

    def in_content(self, content: bytes, *charsets: str | None) -> bytes:
        """Return a body, or a frame of text, without what is sought. `ValueError`: it is not in one of `charsets`, beside UTF-8."""
        content = self._in_bytes(content)
        for name in ("utf-8", *filter(None, charsets)):
            errors = "surrogateescape" if name == "utf-8" else "strict"
            text = content.decode(name, errors)
            left = self.in_text(text)
            if left != text:
                content = left.encode(name, errors)
        return content

    def _in_bytes(self, content: bytes) -> bytes:
        for value in self._bytes:
            content = content.replace(value, self.replacement.encode())
        return content

    def starred(self, content: bytes) -> bytes:
        """Return bytes of a format that says how long things are, with as many asterisks in place of what is found."""
        for value in self._bytes:
            content = content.replace(value, b"*" * len(value))
        text = content.decode("utf-8", "surrogateescape")
        parts = []
        at = 0
        for start, end in self.spans(text):
            parts += [text[at:start], "*" * len(text[start:end].encode("utf-8", "surrogateescape"))]
            at = end
        return "".join((*parts, text[at:])).encode("utf-8", "surrogateescape") if parts else content

    def border(self, text: str, begin: int) -> int:
        """Return how much of a text that goes on may leave: in what is behind that, a match may still begin that is not here whole."""
        border = len(text) - (PATTERN_WINDOW if self._patterns else 0)
        for value in self._exact:
            for size in range(min(len(value) - 1, len(text) - begin), 0, -1):
                if text.endswith(value[:size]):
                    border = min(border, len(text) - size)
                    break
        return max(begin, border)


def _unescaped(match: re.Match[str]) -> str:
    high, low, code, short = match.groups()
    if short:
        return _SHORT.get(short, short)
    if code:
        return chr(int(code, 16))
    return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)


def charset_of(content_type: str) -> str | None:
    """Return the charset that a Content-Type names, None if it names none. `ValueError`: it is not known."""
    match = re.search(r';[ \t]*charset[ \t]*=[ \t]*"?([^";\s]*)', content_type, re.IGNORECASE)
    if match is None or not match[1]:
        return None
    try:
        name = codecs.lookup(match[1]).name
    except (LookupError, ValueError):
        name = ""
    if not _CHARSETS.fullmatch(name):
        raise ValueError(f"its charset is not known: {match[1]!r}")
    return None if name == "utf-8" else name
