"""JSON as model servers send it: decoded or refused, never trusted; and an array of objects that arrives in pieces."""

import json
import re
from typing import Any

import msgspec

# bytes of an array that are cut into elements at once, which may take a quarter of a second
SLOWLY = 1 << 18

_OUTSIDE = re.compile(rb'["\[\]{},]')
_IN_STRING = re.compile(rb'["\\]')


def decoded(data: bytes) -> Any:
    """Read one JSON text. `ValueError` says what is wrong with it.

    Half a surrogate pair and text that is no UTF-8 are accepted, since some servers cut their text anywhere: see `mended`.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error


class _Long(msgspec.Struct):
    """The fields of the formats' answers and events. What stands under other names is skipped, and takes no memory."""

    bytes: msgspec.Raw = msgspec.Raw()
    candidates: msgspec.Raw = msgspec.Raw()
    choices: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()
    done: msgspec.Raw = msgspec.Raw()
    done_reason: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    eval_count: msgspec.Raw = msgspec.Raw()
    id: msgspec.Raw = msgspec.Raw()
    incomplete_details: msgspec.Raw = msgspec.Raw()
    item: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    modelVersion: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()
    output_index: msgspec.Raw = msgspec.Raw()
    prompt_eval_count: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    responseId: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()
    stopReason: msgspec.Raw = msgspec.Raw()
    stop_reason: msgspec.Raw = msgspec.Raw()
    type: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    usageMetadata: msgspec.Raw = msgspec.Raw()


_read_array = msgspec.json.Decoder(list[msgspec.Raw])
_read_long = msgspec.json.Decoder(_Long)


def decoded_within(data: bytes, limit: int, *, levels: int = 2) -> tuple[Any, bool]:
    """Read a JSON text, of which parts may be left out where it is longer than `limit` bytes: JSON takes many times its length in memory.

    Returns the value, and whether a part was left out. Of a long object those fields are read that formats of models have, each up to the
    limit; `levels` is how deep such objects may stand in each other. `ValueError` if it is no JSON, or long and no object.
    """
    if len(data) <= limit:
        return decoded(data), False
    try:
        long = _read_long.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no JSON object: {error}") from None
    found: dict[str, Any] = {}
    is_partial = False
    for name in _Long.__struct_fields__:
        part = bytes(getattr(long, name))
        if len(part) > limit and (levels == 1 or not part.startswith(b"{")):
            is_partial = True
        elif part:
            found[name], lacks = decoded_within(part, limit, levels=levels - 1)
            is_partial = is_partial or lacks
    return found, is_partial


def mended(text: str) -> str:
    """Join the halves of surrogate pairs that came apart, and replace the halves that stay alone: what is returned can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class JsonArrayReader:
    """Cuts a JSON array into the texts of the objects in it, while it arrives.

    `complete` says that its end has come. An element that is longer than `limit` bytes is left out, and `truncated` says so.
    """

    def __init__(self, limit: int) -> None:
        self.complete = False
        self.truncated = False
        self._limit = limit
        self._element = bytearray()
        self._is_too_long = False
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the elements that end in them. What is behind the array is ignored."""
        found: list[bytes] = []
        begin, at = 0, 0
        if self._is_escaped and data:
            at = 1
            self._is_escaped = False
        while not self.complete:
            mark = (_IN_STRING if self._in_string else _OUTSIDE).search(data, at)
            if mark is None:
                break
            at = mark.end()
            byte = mark[0]
            if self._in_string:
                self._in_string = byte != b'"'
                if byte == b"\\":
                    self._is_escaped = at == len(data)
                    at += 1
            elif byte == b'"':
                self._in_string = True
            elif byte in b"[{":
                self._depth += 1
                if self._depth <= 2:
                    begin = at if self._depth == 1 else at - 1
                    self._element.clear()
            elif byte in b"]}":
                self._depth -= 1
                self.complete = self._depth <= 0
                if self._depth == 1:
                    self._keep(data[begin:at])
                    if not self._is_too_long:
                        found.append(bytes(self._element))
                    self._element.clear()
                    self._is_too_long = False
                    begin = at
        if self._depth >= 2:
            self._keep(data[begin:])
        return found

    def _keep(self, data: bytes) -> None:
        if len(self._element) + len(data) > self._limit:
            self._is_too_long = self.truncated = True
            self._element.clear()
        if not self._is_too_long:
            self._element += data


def array_elements(data: bytes, limit: int) -> tuple[list[bytes], bool, bool]:
    """Return the elements of an array that is all there or was cut, whether its end is there, and whether something was left out.

    Of more than `limit` bytes, and of an array that is no JSON, only the first part is looked at: that takes time, byte by byte.
    """
    if len(data) <= limit:
        try:
            return [bytes(element) for element in _read_array.decode(data)], True, False
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    array = JsonArrayReader(limit)
    elements = array.feed(data[:SLOWLY])
    return elements, array.complete, array.truncated or (not array.complete and len(data) > SLOWLY)
