"""HTTP/1 messages read as plainly as can be, over bytes that are all there: what the data plane's readings are compared with.

It shares nothing with the data plane but the rules, and says what they are once more: RFC 9112, and where we are stricter.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

MOST_FIELDS, MOST_OPTIONS, MOST_LINE, LINE_ALLOWANCE, MOST_EXCESS = 256, 64, 4096, 16, 16384
LARGEST = 2**63 - 1
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
# What is no text and no line end; a CR that is the last byte may yet become one
FAULT = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]|\r(?!\n|\Z)|(?<!\r)\n")
REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/1\.([01])\r\n" % TOKEN)
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: (%b))?\r\n" % TEXT)
FIELD_LINE = re.compile(rb"(%b):(%b)\r\n" % (TOKEN, TEXT))
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})()(?:;%b)?\r\n" % TEXT)
# The same in responses, which are read as servers write them
LOOSE_FAULT = re.compile(rb"\0|\r(?!\n|\Z)|(?<!\r)\n")
LOOSE_FIELD_LINE = re.compile(rb"(%b)[ \t]*:([^\0\r\n]*)\r\n" % TOKEN)
LOOSE_TRAILER_LINE = re.compile(rb"(%b):([^\0\r\n]*)\r\n" % TOKEN)
LOOSE_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*)(?:;%b)?\r\n" % TEXT)
AUTHORITY = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::([0-9]+))?")
ABSOLUTE = re.compile(rb"(https?)://([^/?]*)(.*)", re.IGNORECASE)
# RFC 9110 section 6.5.1: framing, routing and the connection; and what is not sent on, with all that begins with `if-`
NEVER_TRAILERS = frozenset(b"connection content-length host keep-alive proxy-connection te trailer transfer-encoding upgrade".split())
DROPPED_TRAILERS = frozenset(
    b"age authorization cache-control content-encoding content-range content-type cookie expect expires http2-settings location "
    b"max-forwards pragma proxy-authenticate proxy-authorization range retry-after set-cookie vary www-authenticate".split()
)
ALWAYS_STOP = frozenset(b"connection http2-settings keep-alive proxy-authorization proxy-connection te upgrade".split())
# What Connection may name and is sent on all the same; `close` is an option and no field
NEVER_STOP = frozenset(b"close content-encoding content-length content-type expect host trailer transfer-encoding".split())


class Refused(Exception):
    """These bytes are not HTTP/1, or not what we take for it; `too_large`: there is no end of the head within the limit."""

    def __init__(self, why: str, too_large: bool = False) -> None:
        super().__init__(why)
        self.too_large = too_large


@dataclass
class PlainHead:
    """One head. `lines` are its field lines, `fields` the same as lower-case name and value. It `came` so before it was put right."""

    came: bytes
    start: bytes
    minor: int
    method: bytes = b""
    target: bytes = b""
    path: bytes = b""
    authority: bytes | None = None
    absolute: bool = False
    status: int = 0
    reason: bytes = b""
    lines: list[bytes] = field(default_factory=list)
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    chunked: bool = False

    @property
    def raw(self) -> bytes:
        return self.start + b"".join(self.lines) + b"\r\n"

    def values(self, name: bytes) -> list[bytes]:
        return [value for other, value in self.fields if other == name]

    @property
    def options(self) -> list[bytes]:
        listed = b",".join(self.values(b"connection")).split(b",")
        return [option.strip(b" \t").lower() for option in listed if option.strip(b" \t")]

    @property
    def facts(self) -> dict[str, object]:
        """What the data plane says that it acts upon."""
        options = self.options
        return {
            "content_length": self.lengths[0] if self.lengths else -1,
            "chunked": self.chunked,
            "expect_continue": self.minor == 1 and b"100-continue" in [value.lower() for value in self.values(b"expect")],
            "upgrade": self.minor == 1 and b"upgrade" in options,
            "keeps_alive": b"close" not in options and (self.minor == 1 or b"keep-alive" in options),
        }


def find_block(data: bytes, limit: int, fault: re.Pattern[bytes]) -> bytes | None:
    """Return the lines up to the empty one and that one, of `limit` bytes at most; None when more has to come."""
    window = data[:limit]
    end = 2 if window.startswith(b"\r\n") else window.find(b"\r\n\r\n") + 4
    whole = end == 2 or end >= 4
    if fault.search(window[:end] if whole else window):
        raise Refused("a byte that stands in no line")
    if whole:
        return window[:end]
    if len(data) >= limit:
        raise Refused("no end within the limit", too_large=True)
    return None


def split_fields(block: bytes, form: re.Pattern[bytes]) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """Return field lines as they should be written, and their names and values; `block` ends with the empty line."""
    lines, fields = [], []
    for number, line in enumerate(block[:-2].split(b"\r\n")[:-1]):
        if number == MOST_FIELDS:
            raise Refused("too many fields")
        found = form.fullmatch(line + b"\r\n")
        if found is None:
            raise Refused("no field line")
        lines.append(found[1] + b":" + found[2] + b"\r\n")
        fields.append((found[1].lower(), found[2].strip(b" \t")))
    return lines, fields


def read_head(data: bytes, is_request: bool, limit: int) -> PlainHead | None:
    """Read the head at the start of `data`; None when more has to come, `Refused` when that would not help."""
    text = data.removeprefix(b"\r\n") if is_request else data
    block = find_block(text, limit, FAULT if is_request else LOOSE_FAULT)
    if block is None:
        return None
    found = (REQUEST_LINE if is_request else STATUS_LINE).match(block)
    if found is None:
        raise Refused("no start line")
    if is_request:
        head = PlainHead(block, found[0], int(found[3]), method=found[1], target=found[2])
        read_target(head)
    else:
        start = b"HTTP/1.%b %b %b\r\n" % (found[1], found[2], found[3] or b"")
        head = PlainHead(block, start, int(found[1]), status=int(found[2]), reason=found[3] or b"")
    head.lines, head.fields = split_fields(block[found.end() :], FIELD_LINE if is_request else LOOSE_FIELD_LINE)
    check_framing(head)
    if len(head.options) > MOST_OPTIONS:
        raise Refused("too many options of the connection")
    if is_request:
        check_host(head)
    return head


def read_authority(text: bytes) -> tuple[bytes, int]:
    """Return host and port, 0 without one."""
    found = AUTHORITY.fullmatch(text)
    if found is None or len(found[1]) > 255 or (found[2] is not None and not 1 <= int(found[2]) <= 65535):
        raise Refused("no host and port")
    if found[1].startswith(b"["):
        try:
            ipaddress.IPv6Address(found[1][1:-1].decode())
        except ValueError:
            raise Refused("no address") from None
    return found[1].lower(), int(found[2] or 0)


def read_target(head: PlainHead) -> None:
    """Fill in what the target says, by the form that the method lets it have."""
    target = head.target
    if head.method == b"CONNECT":
        if not read_authority(target)[1]:
            raise Refused("no port to connect to")
        head.authority = target
        return
    if b"#" in target:
        raise Refused("a fragment")
    head.path = target
    if target.startswith(b"/") or (target == b"*" and head.method == b"OPTIONS"):
        return
    found = ABSOLUTE.fullmatch(target)
    if found is None:
        raise Refused("no form of a target")
    read_authority(found[2])
    head.absolute, head.authority, path = True, found[2], found[3]
    if not path and head.method == b"OPTIONS":
        head.path = b"*"
    else:
        head.path = path if path.startswith(b"/") else b"/" + path


def check_framing(head: PlainHead) -> None:
    """See that the fields say where the message ends, and say it once."""
    for value in head.values(b"content-length"):
        for element in value.split(b","):
            digits = element.strip(b" \t")
            if not re.fullmatch(rb"[0-9]+", digits) or int(digits) > LARGEST:
                raise Refused("no length")
            head.lengths.append(int(digits))
    codings = [value.lower() for value in head.values(b"transfer-encoding")]
    if len(set(head.lengths)) > 1 or codings not in ([], [b"chunked"]):
        raise Refused("lengths that differ, or codings")
    head.chunked = bool(codings)
    if head.chunked and (head.lengths or not head.minor):
        raise Refused("chunked where that may not be")


def check_host(head: PlainHead) -> None:
    """See that one host is meant."""
    hosts = head.values(b"host")
    named = [read_authority(host) for host in hosts]
    if len(hosts) > 1 or (not hosts and head.minor):
        raise Refused("no Host, or many")
    if head.absolute and named:
        default = 443 if head.target[:6].lower() == b"https:" else 80
        host, port = read_authority(head.authority or b"")
        if (host, port or default) != (named[0][0], named[0][1] or default):
            at = [name for name, _ in head.fields].index(b"host")
            head.lines[at] = head.lines[at][:4] + b": %b\r\n" % (head.authority or b"")
            head.fields[at] = (b"host", head.authority or b"")
    if head.authority is None and hosts:
        head.authority = hosts[0]


# --- what is sent on


def sent_on(head: PlainHead, start: bytes, added: bytes, keep_upgrade: bool, left_out: set[bytes]) -> bytes:
    """Return `start`, the lines that do not stop here, what is added, and the end; `left_out` are names that are not sent on either."""
    stopping = set(head.options) - NEVER_STOP | ALWAYS_STOP | left_out
    if keep_upgrade:
        stopping -= {b"connection", b"upgrade"}
    if len(head.lengths) > 1 and b"content-length" not in left_out:
        stopping |= {b"content-length"}
        added += b"Content-Length: %d\r\n" % head.lengths[0]
    kept = [line for line, (name, _) in zip(head.lines, head.fields, strict=True) if name not in stopping]
    return start + b"".join(kept) + added + b"\r\n"


def request_sent_on(head: PlainHead, keep_upgrade: bool, authority: bytes) -> bytes:
    """Return the head that an upstream is to be sent, which is at `authority`: in HTTP/1.1, whatever the client speaks."""
    start, added, left_out = head.start, b"", set()
    if head.absolute or not head.minor:
        start = b"%b %b HTTP/1.1\r\n" % (head.method, head.path or head.target)
        if not head.values(b"host"):
            start += b"Host: %b\r\n" % ((head.authority if head.absolute else authority) or b"")
    if not head.minor and b"100-continue" in [value.lower() for value in head.values(b"expect")]:
        head.lines = [line for line, field in zip(head.lines, head.fields, strict=True) if not is_expectation(field)]
        head.fields = [field for field in head.fields if not is_expectation(field)]
    forwards = head.values(b"max-forwards")
    if head.method in (b"TRACE", b"OPTIONS") and len(forwards) == 1 and re.fullmatch(b"[0-9]+", forwards[0]):
        if 0 < int(forwards[0]) <= LARGEST:
            added, left_out = b"Max-Forwards: %d\r\n" % (int(forwards[0]) - 1), {b"max-forwards"}
    return sent_on(head, start, added, keep_upgrade, left_out)


def is_expectation(field: tuple[bytes, bytes]) -> bool:
    """Tell whether a client waits for 100."""
    return field[0] == b"expect" and field[1].lower() == b"100-continue"


def response_sent_on(head: PlainHead, close: bool, keep_alive_10: bool, keep_upgrade: bool, to_10: bool) -> bytes:
    """Return the head that a client is to be sent, which may speak HTTP/1.0."""
    added = b"Connection: close\r\n" if close else b"Connection: keep-alive\r\n" if keep_alive_10 else b""
    left_out = set()
    if head.chunked and (to_10 or head.status < 200 or head.status in (204, 304)):
        left_out = {b"transfer-encoding"}
    if head.lengths and head.lengths[0] and (head.status < 200 or head.status == 204):
        left_out = {b"content-length"}
    return sent_on(head, b"HTTP/1.1" + head.start[8:], added, keep_upgrade, left_out)


# --- bodies


def framing(head: PlainHead, request_method: bytes = b"GET") -> str:
    """Return which framing the body behind this head has (RFC 9112 section 6.3); a response answers such a request."""
    if head.method:
        kind = "chunked" if head.chunked else "length" if head.lengths and head.lengths[0] else "none"
        if head.method == b"CONNECT" and kind != "none":
            raise Refused("content of CONNECT")
        return kind
    if request_method == b"HEAD" or head.status < 200 or head.status in (204, 304):
        return "none"
    return "chunked" if head.chunked else "length" if head.lengths else "until_close"


@dataclass
class PlainChunks:
    """A chunked body as far as it goes; `left` begins behind it, or with what is not complete. `relayed` is it without white space."""

    content: bytes = b""
    trailers: bytes = b""
    left: bytes = b""
    relayed: bytes = b""
    complete: bool = False
    refused: bool = False


def read_chunks(data: bytes, trailer_limit: int, is_request: bool) -> PlainChunks:
    """Read the chunked body at the start of `data`."""
    found = PlainChunks(left=data)
    try:
        found.complete = all_chunks(found, CHUNK_LINE if is_request else LOOSE_CHUNK_LINE) and read_trailers(
            found, trailer_limit, is_request
        )
    except Refused:
        found.refused = True
    return found


def all_chunks(found: PlainChunks, form: re.Pattern[bytes]) -> bool:
    """Read chunks, the last one included; False when more has to come."""
    excess = 0
    while True:
        window = found.left[:MOST_LINE]
        end = window.find(b"\r\n") + 2
        line = window[:end] if end >= 2 else window
        if FAULT.search(line):
            raise Refused("a byte that stands in no line")
        if end < 2:
            if len(found.left) >= MOST_LINE:
                raise Refused("a line without end")
            return False
        parsed = form.fullmatch(line)
        if parsed is None or (size := int(parsed[1], 16)) > LARGEST:
            raise Refused("no size")
        excess = max(0, excess + len(line) - LINE_ALLOWANCE - 2 * min(size, MOST_EXCESS))
        if excess > MOST_EXCESS:
            raise Refused("more lines than content")
        found.left = found.left[end:]
        found.relayed += parsed[1] + line[parsed.end(2) :]
        if size == 0:
            return True
        piece, found.left = found.left[:size], found.left[size:]
        found.content += piece
        found.relayed += piece
        if len(piece) < size:
            return False
        if not b"\r\n".startswith(found.left[:2]):
            raise Refused("more than the chunk's size")
        if len(found.left) < 2:
            return False
        found.left = found.left[2:]
        found.relayed += b"\r\n"


def passes_as_trailer(name: bytes) -> bool:
    """Tell whether a field, its name in lower case, is sent on when it stands in trailers."""
    return name not in NEVER_TRAILERS | DROPPED_TRAILERS and not name.startswith(b"if-")


def read_trailers(found: PlainChunks, limit: int, is_request: bool) -> bool:
    """Read the trailer section; False when more has to come."""
    block = find_block(found.left, limit, FAULT if is_request else LOOSE_FAULT)
    if block is None:
        return False
    _, fields = split_fields(block, FIELD_LINE if is_request else LOOSE_TRAILER_LINE)
    if any(name in NEVER_TRAILERS for name, _ in fields):
        raise Refused("what is no trailer")
    lines = zip(block[:-2].splitlines(keepends=True), fields, strict=True)
    found.trailers = b"".join(line for line, (name, _) in lines if passes_as_trailer(name))
    found.left = found.left[len(block) :]
    found.relayed += found.trailers + b"\r\n"
    return True
