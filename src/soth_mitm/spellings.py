"""How a peer may spell a value that it was sent: as it is, percent-encoded, in JSON, in base64.

Spellings that are not here are not found: hexadecimal, HTML entities, UTF-16, percent-encoding of
letters and digits, base64 with line breaks, anything compressed or encrypted.
"""

import base64
import itertools
import re
from urllib.parse import quote

SHORTEST = 8
"""Bytes of the shortest value: what is shorter occurs by chance."""

# encodeURIComponent leaves these, and quote() leaves "~" only besides letters, digits, "_.-"
_COMPONENT = "!*'()"
# WHATWG URL, application/x-www-form-urlencoded: a blank is "+" then, and "~" is encoded
_FORM = "*"
# What writers of JSON escape besides what they must: Go and .NET for HTML, PHP the slash
_JSON_FOR_HTML = ("", "<>&", "<>&'", "<>&'+")
_JSON_SHORT = {0x08: b"\\b", 0x09: b"\\t", 0x0A: b"\\n", 0x0C: b"\\f", 0x0D: b"\\r", 0x22: b'\\"', 0x5C: b"\\\\"}
_HEX = re.compile(rb"%[0-9A-F]{2}")
_UNICODE_HEX = re.compile(rb"\\u[0-9a-f]{4}")


def spellings_of(value: bytes) -> frozenset[bytes]:
    """Return the spellings of `value`, which has `SHORTEST` bytes or more, itself included."""
    if len(value) < SHORTEST:
        raise ValueError(f"a value of {len(value)} bytes is too short to be searched for; {SHORTEST} are needed")
    return frozenset(itertools.chain((value,), spellings_in_form(value), spellings_in_json(value), _base64(value)))


def spellings_in_form(value: bytes) -> set[bytes]:
    """Return the percent-encoded spellings of `value`, itself among them if it needs none."""
    encoded = {quote(value, safe=safe).encode() for safe in ("", "/", _COMPONENT)}
    form = quote(value, safe=_FORM).replace("~", "%7E").replace("%20", "+").encode()
    encoded |= {form, quote(value, safe="").replace("%20", "+").encode()}
    return encoded | {_HEX.sub(lambda escape: escape[0].lower(), each) for each in encoded}


def spellings_in_json(value: bytes) -> set[bytes]:
    """Return the spellings of `value` inside a string of JSON; none if it is not UTF-8."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return set()
    found = set()
    for html, escapes_slash, is_ascii in itertools.product(_JSON_FOR_HTML, (False, True), (False, True)):
        escaped = b"".join(_json_character(each, html, escapes_slash, is_ascii) for each in text)
        found |= {escaped, _UNICODE_HEX.sub(lambda escape: b"\\u" + escape[0][2:].upper(), escaped)}
    return found


def _json_character(character: str, html: str, escapes_slash: bool, is_ascii: bool) -> bytes:
    code = ord(character)
    if code in _JSON_SHORT:
        return _JSON_SHORT[code]
    if character == "/":
        return b"\\/" if escapes_slash else b"/"
    if code < 0x20 or character in html or (is_ascii and code > 0x7E):
        units = character.encode("utf-16-be")
        return b"".join(b"\\u%04x" % int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return character.encode("utf-8")


def _base64(value: bytes) -> set[bytes]:
    """Return what stands for `value` alone in each of the three alignments, in both alphabets."""
    found = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + value)
        # a character that has bits of a neighbour depends on it
        first, behind = -(-before * 8 // 6), (before + len(value)) * 8 // 6
        own = encoded[first:behind]
        found |= {own, own.translate(bytes.maketrans(b"+/", b"-_"))}
    return found
