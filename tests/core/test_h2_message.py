"""Messages of HTTP/2: rules 32 to 46 of what has bitten others, into heads and back (RFC 9113 section 8)."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from soth_mitm._dataplane.http1.encoder import rewrite_request, rewrite_response
from soth_mitm._dataplane.http2.message import (
    fields_of_own_response,
    fields_of_request,
    fields_of_response,
    fields_of_trailers,
    request_of,
    response_of,
    trailers_of,
)
from soth_mitm._dataplane.wire.head import Head
from soth_mitm._dataplane.wire.head_edits import HeadEdits
from support.heads import parse_request, parse_response

Field = tuple[bytes, bytes, bool]
GET = {":method": "GET", ":scheme": "https", ":authority": "a.example", ":path": "/x?y"}


def listed(*pairs: tuple[str, str]) -> list[Field]:
    return [(name.encode(), value.encode("latin-1"), False) for name, value in pairs]


def request(*pairs: tuple[str, str], **pseudos: str | None) -> list[Field]:
    """A GET whose pseudo-headers are changed, None leaving one out, and these fields behind them."""
    start = {**GET, **{":" + name: value for name, value in pseudos.items()}}
    return listed(*((name, value) for name, value in start.items() if value is not None), *pairs)


def response(*pairs: tuple[str, str], status: str = "200") -> list[Field]:
    return listed((":status", status), *pairs)


def refused(fields: list[Field], **options: bool) -> str:
    """Return why a request is refused, "" when it is not."""
    try:
        request_of(fields, **options)
    except ValueError as error:
        return str(error)
    return ""


def response_refused(fields: list[Field]) -> str:
    try:
        response_of(fields)
    except ValueError as error:
        return str(error)
    return ""


def plain(fields: list[Field]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value, _ in fields]


def test_a_request_is_the_head_that_http_1_would_have_had() -> None:
    head, https, protocol = request_of(request(("accept", "*/*"), ("x-a", "1"), ("x-a", "2")))
    assert head.raw == b"GET /x?y HTTP/1.1\r\nhost: a.example\r\naccept: */*\r\nx-a: 1\r\nx-a: 2\r\n\r\n"
    assert (head.method, head.target, head.path, head.authority, head.host) == ("GET", "/x?y", "/x?y", "a.example", "a.example")
    assert head.fields == [(b"host", b"a.example"), (b"accept", b"*/*"), (b"x-a", b"1"), (b"x-a", b"2")]
    assert https and protocol == b"" and head.version == "HTTP/2"


def test_a_response_is_the_head_that_http_1_would_have_had() -> None:
    head = response_of(response(("content-length", "5"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), status="404"))
    assert head.raw == b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n"
    assert head.version == "HTTP/2"
    assert (head.status, head.reason, head.facts["content_length"]) == (404, b"Not Found", 5)
    assert response_of(response(status="299")).reason == response_of(response(status="999")).reason == b""


@pytest.mark.parametrize("name", ["Accept", "x A", "x:a", "x\ra", "x\na", "x\0a", "", "x\x7f", "x\u00e9", "x ", " x"])
def test_rule_32_names(name: str) -> None:
    fields = [*request(), (name.encode("latin-1"), b"1", False)]
    assert "field name" in refused(fields)
    assert "field name" in response_refused([*response(), *fields[-1:]])
    with pytest.raises(ValueError, match="field name"):
        trailers_of(fields[-1:])


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b", "\r", "a\r\nx: y", "\n a"])
def test_rule_32_values(value: str) -> None:
    assert "field value" in refused(request(("x", value)))
    assert "field value" in response_refused(response(("x", value)))
    for pseudo in ("method", "scheme", "authority", "path"):
        assert refused(request(**{pseudo: value}))
    with pytest.raises(ValueError, match="field value"):
        trailers_of(listed(("x", value)))


def test_rule_32_other_control_bytes_pass_as_in_http_1() -> None:
    assert "field value" in refused(request(("x", "a\x01b")))
    assert "field value" in refused(request(("x", "a\x7fb")))
    assert response_refused(response(("x", "a\x01b"))) == ""
    assert refused(request(("x", "a\tb\xff"))) == ""


def test_rule_33_values_are_trimmed_and_names_are_not() -> None:
    head, _, _ = request_of(request(("x", " \t a b\t "), ("y", ""), ("z", " \t ")))
    assert head.fields[1:] == [(b"x", b"a b"), (b"y", b""), (b"z", b"")]
    assert head.raw.endswith(b"\r\nx: a b\r\ny: \r\nz: \r\n\r\n")
    assert response_of(response(("x", " a "))).fields == [(b"x", b"a")]


@pytest.mark.parametrize("around", [" {}", "{} ", "\t{}", "{}\t"])
@pytest.mark.parametrize("name", ["method", "scheme", "authority", "path", "protocol", "status"])
def test_rule_33_white_space_around_a_pseudo_header_is_refused(name: str, around: str) -> None:
    """It is no field value (RFC 9113 section 8.3), and a peer that keeps the space reads another path or method."""
    if name == "status":
        assert "status" in response_refused(response(status=around.format("200")))
        return
    extended = {"method": "CONNECT", "protocol": "websocket"} if name == "protocol" else {}
    pseudos: dict[str, str | None] = {":" + key: value for key, value in extended.items()}
    value = {**GET, **pseudos}[":" + name]
    assert value is not None
    assert refused(request(**{**extended, name: value}), may_extend=True) == ""
    assert refused(request(**{**extended, name: around.format(value)}), may_extend=True) != ""


@pytest.mark.parametrize(
    ("lengths", "content_length"),
    [(["5"], 5), (["5", "5"], 5), (["5, 5"], 5), (["0"], 0), (["5", "6"], None), (["-1"], None), (["5 5"], None), ([""], None)],
)
def test_rule_34_content_length(lengths: list[str], content_length: int | None) -> None:
    fields = [("content-length", length) for length in lengths]
    if content_length is None:
        assert "Content-Length" in refused(request(*fields))
        assert "Content-Length" in response_refused(response(*fields))
    else:
        assert request_of(request(*fields))[0].facts["content_length"] == content_length
        assert response_of(response(*fields)).facts["content_length"] == content_length


@pytest.mark.parametrize(
    ("authority", "host", "verdict"),
    [
        ("a.example", "a.example", ""),
        ("a.example", "A.EXAMPLE", ""),
        ("a.example", "a.example:443", ""),
        ("a.example:443", "a.example", ""),
        ("a.example:80", "a.example", "Host"),
        ("a.example", "b.example", "Host"),
        ("a.example", "", "Host"),
        (None, "a.example", ""),
        (None, None, "authority"),
        ("", None, "authority"),
        ("a@b", None, "authority"),
        ("a/b", None, "authority"),
        ("a b", None, "authority"),
        ("a:70000", None, "authority"),
        ("[::1]:8443", None, ""),
    ],
)
def test_rule_35_one_host(authority: str | None, host: str | None, verdict: str) -> None:
    fields = request(*(() if host is None else (("x", "1"), ("host", host))), authority=authority)
    if verdict:
        assert verdict in refused(fields)
        return
    head, _, _ = request_of(fields)
    assert head.host == head.authority == (authority or host)
    assert [name for name, _ in head.fields].count(b"host") == 1
    assert head.fields[0][0] == b"host"


def test_rule_35_two_hosts() -> None:
    assert "Host" in refused(request(("host", "a.example"), ("host", "a.example")))
    assert "Host" in refused(request(("host", "a.example"), ("host", "a.example"), authority=None))


def test_rule_35_the_default_port_is_that_of_the_scheme() -> None:
    assert refused(request(("host", "a.example:80"), scheme="http")) == ""
    assert "Host" in refused(request(("host", "a.example:443"), scheme="http"))
    assert request_of(request(scheme="http"))[1] is False


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        (request(method=None), "pseudo-headers"),
        (request(scheme=None), "pseudo-headers"),
        (request(path=None), "pseudo-headers"),
        ([*request(), *listed((":path", "/"))], "twice"),
        ([*request(("x", "1")), *listed((":path", "/"))], "behind a field"),
        (listed(("x", "1")) + request(), "behind a field"),
        ([*request(path=None), *listed(("x", "1"), (":path", "/"))], "behind a field"),
        (request(status="200"), "does not belong"),
        (request(unheard="1"), "does not belong"),
        ([*listed((":", "1")), *request()], "does not belong"),
        ([*listed((":Method", "GET")), *request()], "does not belong"),
        (request(method=""), "method"),
        (request(method="G T"), "method"),
        (request(method="GET\t"), "method"),
        (request(scheme="ftp"), "scheme"),
        (request(scheme="HTTPS"), ""),
        (request(path=""), "path"),
        (request(path="x"), "path"),
        (request(path="/a b"), "path"),
        (request(path="/a#b"), "path"),
        (request(path="/\xe9"), "path"),
        (request(path="*"), "path"),
        (request(path="https://a.example/"), "path"),
        (request(path="a.example:443"), "path"),
        (request(path="*", method="OPTIONS"), ""),
        (request(path="/", method="OPTIONS"), ""),
        (request(path="//x"), ""),
        (listed((":method", "CONNECT"), (":authority", "a:443")), ""),
        (listed((":method", "CONNECT"), (":authority", "a")), "authority"),
        (listed((":method", "CONNECT")), "pseudo-headers"),
        (request(method="CONNECT"), "pseudo-headers"),
        (request(method="CONNECT", protocol="websocket"), "extended CONNECT"),
        (request(protocol="websocket"), "extended CONNECT"),
    ],
)
def test_rule_36_pseudo_headers_of_requests(fields: list[Field], part: str) -> None:
    said = refused(fields)
    assert (part in said) if part else said == ""


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        (request(method="CONNECT", protocol="websocket"), ""),
        (request(protocol="websocket"), "pseudo-headers"),
        (request(method="CONNECT", protocol="web socket"), "extended CONNECT"),
        (request(method="CONNECT", protocol=""), "pseudo-headers"),
        (request(method="CONNECT", protocol="websocket", path=None), "pseudo-headers"),
        (request(method="CONNECT", protocol="websocket", authority=None), "pseudo-headers"),
        (request(method="CONNECT", protocol="websocket", path="*"), "path"),
        (request(method="CONNECT"), "pseudo-headers"),
    ],
)
def test_extended_connect_where_it_was_offered(fields: list[Field], part: str) -> None:
    said = refused(fields, may_extend=True)
    assert (part in said) if part else said == ""


def test_the_target_of_connect() -> None:
    head, _, _ = request_of(listed((":method", "CONNECT"), (":authority", "a.example:443")))
    assert head.raw == b"CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\n\r\n"
    assert (head.target, head.authority, head.path) == ("a.example:443", "a.example:443", "")
    head, _, protocol = request_of(request(method="CONNECT", protocol="websocket"), may_extend=True)
    assert (head.target, protocol) == ("/x?y", b"websocket")


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        (listed(("x", "1")), "pseudo-headers"),
        ([*response(), *listed((":status", "200"))], "twice"),
        (listed(("x", "1"), (":status", "200")), "behind a field"),
        ([*response(), *listed((":method", "GET"))], "does not belong"),
        ([*response(), *listed((":path", "/"))], "does not belong"),
        (response(status=""), "status"),
        (response(status="20"), "status"),
        (response(status="2000"), "status"),
        (response(status="2x0"), "status"),
        (response(status="099"), "status"),
        (response(status="+20"), "status"),
        (response(status="100"), ""),
        # rule 41: it does not exist on HTTP/2
        (response(status="101"), "status"),
        (response(status="102"), ""),
        (response(status="999"), ""),
    ],
)
def test_rule_36_pseudo_headers_of_responses(fields: list[Field], part: str) -> None:
    said = response_refused(fields)
    assert (part in said) if part else said == ""


@pytest.mark.parametrize("name", ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"])
def test_rule_37_connection_specific_fields(name: str) -> None:
    assert "one connection" in refused(request((name, "x")))
    assert "one connection" in response_refused(response((name, "x")))
    with pytest.raises(ValueError, match="one connection"):
        trailers_of(listed((name, "x")))


@pytest.mark.parametrize(("value", "is_good"), [("trailers", True), ("Trailers", True), ("trailers, gzip", False), ("", False)])
def test_rule_37_te(value: str, is_good: bool) -> None:
    assert refused(request(("te", value))).startswith("TE is something else than `trailers`") != is_good
    # in a response it concerns the connection, whatever it says
    assert response_refused(response(("te", value))).startswith("TE is something else than `trailers`, or stands in a response")


def test_pseudo_headers_in_trailers() -> None:
    for is_request, name in ((True, ":path"), (False, ":status")):
        with pytest.raises(ValueError, match="trailers"):
            trailers_of(listed(("x", "1"), (name, "200")), is_request)
    assert trailers_of(listed(("grpc-status", "0"), ("x", " y "))) == b"grpc-status: 0\r\nx: y\r\n"
    assert trailers_of([]) == b""


@pytest.mark.parametrize("is_request", [True, False])
@pytest.mark.parametrize("name", ["content-length", "host", "te", "trailer"])
def test_trailers_that_are_refused(name: str, is_request: bool) -> None:
    # TE is malformed in a response, wherever it stands
    with pytest.raises(ValueError, match="TE is" if name == "te" and not is_request else "may only stand in the head"):
        trailers_of(listed(("x", "1"), (name, {"te": "trailers"}.get(name, "1"))), is_request)


# RFC 9110 section 6.5.1: authentication, controls, how to read the content; the same list as in HTTP/1
FOR_HEADS = (
    "age authorization cache-control content-encoding content-range content-type cookie expect expires http2-settings if-match "
    "if-modified-since if-none-match if-range if-unmodified-since location max-forwards pragma proxy-authenticate proxy-authorization "
    "range retry-after set-cookie vary www-authenticate"
).split()
FOR_TRAILERS = (
    "grpc-status grpc-message grpc-status-details-bin x-user-metadata-bin server-timing digest content-digest repr-digest content-md5 "
    "etag date signature authentication-info accept-ranges rang cookies x-cookie content-location if"
).split()


@pytest.mark.parametrize("is_request", [True, False])
def test_trailers_that_are_dropped(is_request: bool) -> None:
    for name in FOR_HEADS:
        assert trailers_of(listed(("a", "1"), (name, "x"), ("b", "2")), is_request) == b"a: 1\r\nb: 2\r\n", name
        assert trailers_of(listed((name, "x")), is_request) == b"", name
        assert fields_of_trailers(b"%b: x\r\n" % name.title().encode()) == [], name
    for name in FOR_TRAILERS:
        assert trailers_of(listed((name, "x")), is_request) == b"%b: x\r\n" % name.encode()
        assert plain(fields_of_trailers(b"%b: x\r\n" % name.title().encode())) == [(name.encode(), b"x")]


@pytest.mark.parametrize("make", [request_of, response_of])
def test_the_settings_of_an_upgrade_stay_behind(make: Any) -> None:
    """HTTP2-Settings is a field of HTTP/1 that concerns one connection (RFC 7540 section 3.2.1)."""
    fields = (request if make is request_of else response)(("http2-settings", "AAMA"), ("x", "1"))
    made = make(fields)
    head = made[0] if make is request_of else made
    written = rewrite_request(head) if make is request_of else rewrite_response(head)
    assert written.lower().endswith(b"\r\nx: 1\r\n\r\n") and b"http2-settings" not in written.lower()
    left = fields_of_request(head) if make is request_of else fields_of_response(head)
    assert plain(left)[-1] == (b"x", b"1") and b"http2-settings" not in dict(plain(left))


def test_rule_38_cookies_are_joined() -> None:
    head, _, _ = request_of(request(("a", "1"), ("cookie", "a=1"), ("b", "2"), ("cookie", "b=2; c=3"), ("cookie", "")))
    assert head.fields[1:] == [(b"a", b"1"), (b"cookie", b"a=1; b=2; c=3; "), (b"b", b"2")]
    assert head.raw.endswith(b"a: 1\r\ncookie: a=1; b=2; c=3; \r\nb: 2\r\n\r\n")
    # not in responses, where no such field is
    assert response_of(response(("cookie", "a"), ("cookie", "b"))).fields == [(b"cookie", b"a"), (b"cookie", b"b")]


def test_rule_38_cookies_are_split() -> None:
    head, _ = parsed(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; b=2;c=3; d;\r\nCookie: e=5\r\n\r\n")
    assert plain(fields_of_request(head))[4:] == [
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2;c=3"),
        (b"cookie", b"d;"),
        (b"cookie", b"e=5"),
    ]
    head = parse_response(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\n\r\n")[0]  # type: ignore[index]
    assert plain(fields_of_response(head))[1:] == [(b"set-cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2")]


def test_rule_8_crumbs_are_no_fields() -> None:
    crumbs = [("cookie", f"c{number}=1") for number in range(300)]
    others = [(f"x-{number}", "1") for number in range(254)]
    head, _, _ = request_of(request(*crumbs, *others))
    assert len(head.fields) == 256
    assert "too many" in refused(request(*crumbs, *others, ("y", "1")))


def test_number_of_fields_is_exact() -> None:
    assert len(request_of(request(("a", "1"), ("b", "2")), most_fields=3)[0].fields) == 3
    assert len(request_of(request(("a", "1"), ("host", "a.example")), most_fields=2)[0].fields) == 2
    with pytest.raises(ValueError, match="too many"):
        request_of(request(("a", "1"), ("b", "2")), most_fields=2)
    assert len(response_of(response(("a", "1"), ("b", "2")), most_fields=2).fields) == 2
    with pytest.raises(ValueError, match="too many"):
        response_of(response(("a", "1"), ("b", "2")), most_fields=1)
    with pytest.raises(ValueError, match="too many"):
        trailers_of(listed(("a", "1"), ("b", "2")), most_fields=1)


def parsed(head: bytes) -> tuple[Head, int]:
    result = parse_request(head)
    assert result is not None
    return result


def test_rule_37_what_concerns_one_connection_stays_behind() -> None:
    head, _ = parsed(
        b"POST /p HTTP/1.1\r\nHost: a.example:8443\r\nConnection: close, X-Hop, Upgrade, HTTP2-Settings\r\nKeep-Alive: 5\r\n"
        b"Proxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nTransfer-Encoding: chunked\r\nX-Hop: 1\r\n"
        b"Proxy-Authorization: Basic x\r\nTE: gzip, trailers\r\nAccept: text/HTML\r\nX-Rest: 2\r\n\r\n"
    )
    assert plain(fields_of_request(head)) == [
        (b":method", b"POST"),
        (b":authority", b"a.example:8443"),
        (b":scheme", b"https"),
        (b":path", b"/p"),
        (b"te", b"trailers"),
        (b"accept", b"text/HTML"),
        (b"x-rest", b"2"),
    ]
    head, _ = parsed(b"GET / HTTP/1.1\r\nHost: a\r\nTE: gzip\r\n\r\n")
    assert len(fields_of_request(head)) == 4
    for status in (b"200", b"103", b"404"):
        answer = parse_response(
            b"HTTP/1.1 %b x\r\nConnection: close, X-Hop\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
            b"te: gzip, trailers\r\nProxy-Connection: x\r\nHTTP2-Settings: x\r\nX-Hop: 1\r\nProxy-Authorization: x\r\nA: b\r\n\r\n" % status
        )
        assert answer is not None
        assert plain(fields_of_response(answer[0])) == [(b":status", status), (b"a", b"b")]


def test_host_in_a_response_means_nothing() -> None:
    answer = parse_response(b"HTTP/1.1 200 OK\r\nHost: one two\r\n\r\n")
    assert answer is not None
    assert plain(fields_of_response(answer[0])) == [(b":status", b"200"), (b"host", b"one two")]


def test_te_goes_on_between_two_sides_of_http_2() -> None:
    head, _, _ = request_of(request(("te", "trailers"), ("proxy-authorization", "Basic x")))
    assert plain(fields_of_request(head))[4:] == [(b"te", b"trailers")]


@pytest.mark.parametrize(
    ("start", "target"),
    [
        (b"GET http://b.example/p?q HTTP/1.1\r\nHost: b.example\r\n", (b"b.example", b"/p?q")),
        (b"GET http://b.example HTTP/1.1\r\nHost: a\r\n", (b"b.example", b"/")),
        (b"OPTIONS http://b.example HTTP/1.1\r\nHost: b.example\r\n", (b"b.example", b"*")),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n", (b"a", b"*")),
        (b"GET / HTTP/1.0\r\n", (b"route:1", b"/")),
    ],
)
def test_targets_of_http_1(start: bytes, target: tuple[bytes, bytes]) -> None:
    fields = dict(plain(fields_of_request(parsed(start + b"\r\n")[0], authority=b"route:1")))
    assert (fields[b":authority"], fields[b":path"]) == target


def test_scheme_protocol_and_connect() -> None:
    head, _ = parsed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert dict(plain(fields_of_request(head, https=False)))[b":scheme"] == b"http"
    assert plain(fields_of_request(head, protocol=b"websocket"))[-1] == (b":protocol", b"websocket")
    head, _ = parsed(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
    assert plain(fields_of_request(head)) == [(b":method", b"CONNECT"), (b":authority", b"a:443")]


def test_rule_45_names_are_lowered_and_nothing_else() -> None:
    long = b"X-" + b"A" * 300
    head, _ = parsed(b"GET / HTTP/1.1\r\nHOST: a\r\nX-MiXed: VaLue\r\n" + long + b": 1\r\n\r\n")
    assert plain(fields_of_request(head))[4:] == [(b"x-mixed", b"VaLue"), (long.lower(), b"1")]


def test_rule_46_never_indexed_stays() -> None:
    fields = [*request(), (b"x-secret", b"1", True), (b"x-open", b"2", False), (b"authorization", b"Bearer", False)]
    head, _, _ = request_of(fields)
    assert fields_of_request(head)[4:] == [(b"x-secret", b"1", True), (b"x-open", b"2", False), (b"authorization", b"Bearer", True)]
    answer = response_of([*response(), (b"x-secret", b"1", True)])
    assert fields_of_response(answer)[1:] == [(b"x-secret", b"1", True)]
    # one crumb that is to be hidden hides them all
    long = b"a" * 30
    head, _, _ = request_of([*request(), (b"cookie", long, False), (b"cookie", long, True)])
    assert fields_of_request(head)[4:] == [(b"cookie", long, True), (b"cookie", long, True)]


def test_lengths_that_leave() -> None:
    head, _ = parsed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n")
    assert plain(fields_of_request(head))[4:] == [(b"content-length", b"5")]
    for status, stays in ((b"200", True), (b"304", True), (b"204", False), (b"103", False)):
        answer = parse_response(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 5\r\n\r\n")
        assert answer is not None
        assert plain(fields_of_response(answer[0]))[1:] == ([(b"content-length", b"5")] if stays else [])


def test_max_forwards_counts_down() -> None:
    head, _ = parsed(b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 5\r\n\r\n")
    assert plain(fields_of_request(head))[4:] == [(b"max-forwards", b"4")]
    head, _ = parsed(b"GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 5\r\n\r\n")
    assert plain(fields_of_request(head))[4:] == [(b"max-forwards", b"5")]


def test_trailers_that_leave() -> None:
    lines = b"Grpc-Status: 0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\nHost: a\r\nTE: trailers\r\nX:  y \r\n"
    assert plain(fields_of_trailers(lines)) == [(b"grpc-status", b"0"), (b"x", b"y")]
    assert fields_of_trailers(b"") == []


def test_edits_are_applied() -> None:
    edits = HeadEdits()
    edits.set("X-A", "new")
    edits.remove("x-b")
    edits.append("X-C", " more ")
    edits.set("X-D", "set")
    edits.set("Cookie", "a=1; b=2")
    head, _, _ = request_of(request(("x-a", "1"), ("x-b", "2"), ("x-a", "3"), ("x-e", "4"), ("content-length", "9")))
    expected = [(b"x-a", b"new"), (b"x-e", b"4"), (b"content-length", b"9"), (b"x-d", b"set"), (b"cookie", b"a=1"), (b"cookie", b"b=2")]
    for _ in range(2):
        assert plain(fields_of_request(head, edits=edits))[4:] == [*expected, (b"x-c", b"more")]
    answer = response_of(response(("x-a", "1"), ("x-b", "2")))
    edits = HeadEdits()
    edits.set("X-A", "new")
    edits.remove("x-b")
    assert plain(fields_of_response(answer, edits=edits))[1:] == [(b"x-a", b"new")]


def test_edits_that_frame_and_route() -> None:
    head, _, _ = request_of(request(("content-length", "9")))
    edits = HeadEdits()
    edits.frame_with_chunks()
    edits.set_host(b"other.example")
    assert plain(fields_of_request(head, edits=edits)) == [
        (b":method", b"GET"),
        (b":authority", b"other.example"),
        (b":scheme", b"https"),
        (b":path", b"/x?y"),
    ]
    edits.frame_with_length(7)
    assert plain(fields_of_request(head, edits=edits))[4:] == [(b"content-length", b"7")]


def test_a_response_of_our_own() -> None:
    assert plain(fields_of_own_response(403, [(b"Content-Type", b"text/plain")], 5)) == [
        (b":status", b"403"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"5"),
    ]
    assert plain(fields_of_own_response(204)) == [(b":status", b"204")]


NAMES = st.sampled_from(
    [
        b"accept",
        b"cookie",
        b"host",
        b"te",
        b"content-length",
        b"expect",
        b"connection",
        b"x",
        b"X",
        b":path",
        b"a b",
        b"proxy-authorization",
    ]
) | st.binary(min_size=0, max_size=4)
VALUES = st.sampled_from([b"a.example", b"trailers", b"5", b"6", b"100-continue", b"", b" x ", b"a=1"]) | st.binary(max_size=6)
PSEUDOS = st.fixed_dictionaries(
    {},
    optional={
        b":method": st.sampled_from([b"GET", b"POST", b"OPTIONS", b"CONNECT", b"a b"]),
        b":scheme": st.sampled_from([b"https", b"http", b"x"]),
        b":authority": st.sampled_from([b"a.example", b"a.example:443", b"a@b", b"", b"b"]) | st.binary(max_size=4),
        b":path": st.sampled_from([b"/", b"/x", b"*", b"", b"http://c/"]) | st.binary(max_size=4),
    },
)


@given(PSEUDOS, st.lists(st.tuples(NAMES, VALUES), max_size=6))
@example({b":method": b"GET", b":scheme": b"https", b":path": b"/", b":authority": b"a"}, [(b"cookie", b"a"), (b"cookie", b"b")])
def test_what_is_taken_is_what_http_1_would_have_taken(pseudos: dict[bytes, bytes], pairs: list[tuple[bytes, bytes]]) -> None:
    fields = [(name, value, False) for name, value in [*pseudos.items(), *pairs]]
    try:
        head, _, _ = request_of(fields)
    except ValueError:
        return
    again, consumed = parsed(head.raw)
    assert consumed == len(head.raw)
    assert again.fields == head.fields
    for fact in ("method", "target", "path", "authority", "host", "facts"):
        assert getattr(again, fact) == getattr(head, fact), fact
    # and it leaves as what it was, but for white space, the order of the first four, and what stops here
    sent = plain(fields_of_request(head))
    assert request_of([(name, value, False) for name, value in sent])[0].host == head.host


@given(st.sampled_from([b"200", b"100", b"204", b"404", b"1x0"]), st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_responses_that_are_taken_are_what_http_1_would_have_taken(status: bytes, pairs: list[tuple[bytes, bytes]]) -> None:
    try:
        head = response_of([(b":status", status, False), *((name, value, False) for name, value in pairs)])
    except ValueError:
        return
    again = parse_response(head.raw)
    assert again is not None and again[1] == len(head.raw)
    assert again[0].fields == head.fields
    for fact in ("status", "reason", "facts"):
        assert getattr(again[0], fact) == getattr(head, fact), fact
