"""A kept request as a `curl` command for a POSIX shell, which shows on a terminal as it is."""

import re

from soth_mitm.observe.store.flow_content import FlowContent

MASKED = re.compile(rb"masked(?: #[0-9a-f]{8})? \xc2\xb7 ")
_MASKED_IN_URL = re.compile(r"=masked%20|:masked%20")
# what curl says by itself
_OWN = (b"host", b"content-length", b"connection", b"proxy-connection", b"transfer-encoding", b"te", b"keep-alive", b"upgrade")
_PLAIN = re.compile(rb"[\w@%+=:,./-]+", re.ASCII)
_PRINTABLE = re.compile(r"[ -~\n]*")
_ESCAPES = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x27: "\\'", 0x5C: "\\\\"}


def quoted(data: bytes) -> str:
    """Return octets as one word of a shell, without a character that does not print."""
    if _PLAIN.fullmatch(data):
        return data.decode()
    text = data.decode("latin-1")
    if _PRINTABLE.fullmatch(text):
        return "'" + text.replace("'", "'\\''") + "'"
    return "$'" + "".join(_ESCAPES.get(each) or (chr(each) if 0x20 <= each < 0x7F else f"\\x{each:02x}") for each in data) + "'"


def curl_command(content: FlowContent) -> tuple[str, list[str]]:
    """Return the command that sends the request of a flow again, and in words what it lacks. `ValueError`: a tunnel has no request."""
    row, request = content.row, content.request
    if row.kind not in ("http", "websocket"):
        raise ValueError(f"flow {row.id} is a tunnel, or was refused before it had a request")
    lacks = []
    parts = ["curl"]
    body = request.body
    if row.method != ("POST" if body else "GET"):
        parts += ["--head"] if row.method == "HEAD" else ["--request", quoted(row.method.encode())]
    if set(row.url) & set("[]{}"):
        parts.append("--globoff")
    first = " ".join([*parts, quoted(row.url.encode("utf-8", "surrogateescape"))])
    parts = []
    if _MASKED_IN_URL.search(row.url):
        lacks.append("a value of the URL is masked")
    for name, value in request.fields:
        lower = name.lower()
        if MASKED.search(value):
            lacks.append(f"{name.decode('latin-1')} is masked, and left out")
        elif lower == b"accept-encoding":
            parts.append("--compressed")
        elif lower not in _OWN and not lower.startswith(b":") and not (lower == b"content-encoding" and not request.is_undecoded):
            parts.append(f"--header {quoted(name + b': ' + value if value else name + b';')}")
    if body:
        # not --data-binary, which takes a body that begins with @ for the name of a file
        parts.append(f"--data-raw {quoted(body)}")
        if b"\0" in body:
            lacks.append("the body has a zero byte, at which a shell ends the word")
        if MASKED.search(body):
            lacks.append("a value of the body is masked")
    if request.is_shortened or request.is_binary or request.is_undecoded:
        lacks.append("the body is not kept, or not all of it")
    return " \\\n  ".join([first, *parts]), lacks
