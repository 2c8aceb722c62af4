"""What stands in place of a value that is masked: `masked #7c1f09e2 · 108 bytes`.

The tag is a keyed BLAKE2 of the value without the escapes of where it stood: equal tags mean equal values, wherever they were. A value of
fewer than 16 bytes has no tag and shows no length, since it could be guessed. One whose end is not there has none either.
"""

import json
import re
from hashlib import blake2b
from urllib.parse import quote, unquote_to_bytes

SHORT = 16
"""Bytes from which on a value has a tag."""
CUT = "masked · cut"
UNDER = f"masked · under {SHORT} bytes"

_MASKED = re.compile(rb"masked(?: #[0-9a-f]{8})? \xc2\xb7 (?:\d+ bytes|under 16 bytes|more than \d+ bytes|cut)")


class ValueMask:
    """Makes the texts. `key` has 16 to 64 bytes; None: without tags."""

    def __init__(self, key: bytes | None) -> None:
        if key is not None and not 16 <= len(key) <= 64:
            raise ValueError(f"the key of the tags has {len(key)} bytes; 16 to 64 are wanted")
        self._key = key

    def masked(self, value: bytes) -> str:
        """Return what stands in place of `value`; of what is masked already, the same."""
        if len(value) < SHORT:
            return UNDER
        if _MASKED.fullmatch(value):
            return value.decode()
        tag = "" if self._key is None else f" #{blake2b(value, digest_size=4, key=self._key).hexdigest()}"
        return f"masked{tag} · {len(value)} bytes"

    def in_head(self, value: bytes) -> bytes:
        """Return what stands in a head in place of `value`."""
        return value if value == _UNDER_BYTES or value == _CUT_BYTES else self.masked(value).encode()

    def in_url(self, value: bytes) -> bytes:
        """Return what stands in a URL or in a form in place of `value`, which is percent-encoded as well."""
        plain = unquote_to_bytes(value.replace(b"+", b"%20"))
        if plain == _UNDER_BYTES or plain == _CUT_BYTES:
            return value
        return quote(self.masked(unquote_to_bytes(value)) if not _MASKED.fullmatch(plain) else plain.decode()).encode()

    def in_json(self, value: bytes, levels: int) -> bytes:
        """Return what stands in a string of JSON in place of `value`, which has the escapes of so many strings around each other."""
        plain = unescaped(value, levels)
        return value if plain == _UNDER_BYTES or plain == _CUT_BYTES else self.masked(plain).encode()


_UNDER_BYTES = UNDER.encode()
_CUT_BYTES = CUT.encode()


def masked_beyond(size: int) -> str:
    """Return what stands in place of a value that is longer than what is held of one."""
    return f"masked · more than {size} bytes"


def unescaped(value: bytes, levels: int) -> bytes:
    """Return a string of JSON without its escapes, `levels` times; as far as it is one."""
    if b"\\" not in value:
        return value
    for _ in range(levels):
        try:
            value = json.loads(b'"' + value + b'"', strict=False).encode("utf-8", "surrogatepass")
        except (ValueError, AttributeError):
            return value
    return value
