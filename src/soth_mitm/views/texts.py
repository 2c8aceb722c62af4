"""Octets as people can read them."""

from collections.abc import Iterator

# octets that are shown of what is no text
_FIRST = 64


def is_text(data: bytes) -> bool:
    """Tell whether octets read as text: UTF-8, which may be cut within its last character, and no NUL."""
    if b"\0" in data:
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(data) > 3 and error.start >= len(data) - 3 and error.reason == "unexpected end of data"
    return True


def first_octets(data: bytes) -> str:
    """Write the first octets in hexadecimal."""
    return f"{data[:_FIRST].hex(' ')}{' …' if len(data) > _FIRST else ''}"


def dump(data: bytes) -> Iterator[str]:
    """Yield lines of 16 octets: where they stand, in hexadecimal, as ASCII."""
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        seen = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{start:06x}  {row.hex(' '):<47}  {seen}"
