"""Masking: what is taken out of heads, URLs and content, that nothing else changes, and that no split and no cut shows a value."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from soth_mitm.observe.masked_names import BODY_NAMES, QUERY_NAMES, check_names
from soth_mitm.observe.masked_text import HELD
from soth_mitm.observe.masking import Masker
from soth_mitm.spellings import spellings_of

MASKER = Masker(key=bytes(range(32)))
SECRET = 'sk-ant-0123456789abcdef/+=é"\\'
UNDER = "masked · under 16 bytes"
UNDER_IN_URL = quote(UNDER)
TAG = MASKER.value(b"x-api-key", SECRET.encode()).decode()


def in_pieces(content: bytes, media_type: str, size: int) -> bytes:
    stream = MASKER.stream(media_type)
    return b"".join(stream.feed(content[at : at + size]) for at in range(0, len(content), size)) + stream.finish()


class TestHeads:
    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("Authorization", f"Bearer {SECRET}", f"Bearer {TAG}"),
            ("authorization", "Basic dXNlcjpwdw==", f"Basic {UNDER}"),
            ("authorization", "my own words", UNDER),
            ("Proxy-Authorization", f"bearer {SECRET}", f"bearer {TAG}"),
            ("X-Api-Key", SECRET, TAG),
            ("x-goog-api-key", "short", UNDER),
            ("cookie", f"a=1; sid={SECRET}; alone", f"a={UNDER}; sid={TAG}; {UNDER}"),
            ("set-cookie", f"sid={SECRET}; Path=/; HttpOnly", f"sid={TAG}; Path=/; HttpOnly"),
            ("location", "https://h/cb?a=1#access_token=abc&b=2", f"https://h/cb?a=1#access_token={UNDER_IN_URL}&b=2"),
            ("location", "https://me:pass@h/", f"https://me:{UNDER_IN_URL}@h/"),
            ("location", "https://token@h/", f"https://{UNDER_IN_URL}@h/"),
            ("x-redirect", "/cb?sig=abc", f"/cb?sig={UNDER_IN_URL}"),
            ("x-forwarded-authorization", f"Bearer {SECRET}", f"Bearer {TAG}"),
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.sk-1", f"realtime, openai-insecure-api-key.{UNDER}"),
        ],
    )
    def test_a_value_is_masked(self, name: str, value: str, expected: str) -> None:
        assert MASKER.value(name.encode(), value.encode()).decode() == expected
        # masking twice is masking once
        assert MASKER.value(name.encode(), expected.encode()).decode() == expected

    def test_other_fields_stay(self) -> None:
        fields = ((b"Host", b"api.example.com"), (b"Accept", b"*/*"), (b"X-Trace", b"a=b;c"), (b"Location", b"/items?page=2"))
        assert MASKER.head(fields) is fields

    def test_equal_tags_mean_equal_values(self) -> None:
        body = json.dumps({"access_token": SECRET}).encode()
        assert TAG.encode() in MASKER.body(body, "application/json")
        assert quote(TAG) in MASKER.path("/?key=" + quote(SECRET, safe=""))
        assert Masker(key=bytes(32)).value(b"x-api-key", SECRET.encode()).decode() != TAG

    def test_more_names(self) -> None:
        masker = Masker(("X-Team-*", "pin"), key=bytes(32))
        assert masker.head(((b"X-Team-Key", b"1"), (b"x-tea", b"2"), (b"pin", b"3"))) == (
            (b"X-Team-Key", UNDER.encode()),
            (b"x-tea", b"2"),
            (b"pin", UNDER.encode()),
        )
        assert masker.path("/?x-team-id=1&pin=2&spin=3") == f"/?x-team-id={UNDER_IN_URL}&pin={UNDER_IN_URL}&spin=3"
        assert json.loads(masker.body(b'{"x_team_no": 7, "PIN": "1", "pins": 2}')) == {"x_team_no": UNDER, "PIN": UNDER, "pins": 2}

    def test_unmasked(self) -> None:
        masker = Masker(key=bytes(32), unmasked=True)
        assert masker.value(b"authorization", b"Bearer x") == b"Bearer x"
        assert masker.path("/?key=x") == "/?key=x"
        assert masker.body(b'{"password": "x"}') == b'{"password": "x"}'

    @pytest.mark.parametrize("names", ["text", (1,)])
    def test_names_of_another_type(self, names: Any) -> None:
        with pytest.raises(TypeError):
            check_names(names)

    @pytest.mark.parametrize("name", ["", "*", "a b", "a***b", "x" * 65, 'a"'])
    def test_what_is_no_name(self, name: str) -> None:
        with pytest.raises(ValueError, match="no name of what to mask"):
            check_names((name,))

    def test_a_short_key_of_tags(self) -> None:
        with pytest.raises(ValueError, match="16 to 64"):
            Masker(key=b"short")


class TestUrls:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/a?b=1&key=2&c=3", "/a?b=1&key=@&c=3"),
            ("/a?KEY=2", "/a?KEY=@"),
            ("/a?api%5Fkey=2", "/a?api%5Fkey=@"),
            ("/a?%6Bey=2", "/a?%6Bey=@"),
            ("/a?key=2;b=3", "/a?key=@"),
            ("/a?b=3;key=2", "/a?b=3;key=@"),
            ("/a?key=", "/a?key="),
            ("/a?X-Amz-Signature=2&X-Goog-Whatever=3&x-other=4", "/a?X-Amz-Signature=@&X-Goog-Whatever=@&x-other=4"),
            ("/a?to=https%3A%2F%2Fh%2F%3Fkey%3D2%26b%3D1", "/a?to=https%3A%2F%2Fh%2F%3Fkey%3D@%26b%3D1"),
            ("/a?to=/b?key=2&c=3", "/a?to=/b?key=@&c=3"),
            ("/key=2", "/key=2"),
            ("*", "*"),
        ],
    )
    def test_a_path(self, path: str, expected: str) -> None:
        assert MASKER.path(path) == expected.replace("@", UNDER_IN_URL)
        assert MASKER.path(MASKER.path(path)) == MASKER.path(path)

    def test_what_is_no_utf_8(self) -> None:
        assert MASKER.path("/?key=\udcff&b=\udcff") == f"/?key={UNDER_IN_URL}&b=\udcff"


SECRET_KEY = "sk-ant-0123456789abcdef"
KEY_TAG = MASKER.value(b"x-api-key", SECRET_KEY.encode()).decode()
SHORT_TAG = MASKER.value(b"x-api-key", SECRET_KEY[:18].encode()).decode()

CONTENT: list[tuple[str, str, str]] = [
    ("json", '{"password": "x", "b": 1}', '{"password": "@", "b": 1}'),
    ("json", '{"passWord" :\n "x"}', '{"passWord" :\n "@"}'),
    ("json", '{"password": 12, "api_key": null, "apiKey": true}', '{"password": "@", "api_key": null, "apiKey": true}'),
    ("json", '{"password": ["]",["}"]], "c": 2}', '{"password": "@", "c": 2}'),
    ("json", '{"a": "password", "b": ["api_key"]}', '{"a": "password", "b": ["api_key"]}'),
    ("json", r'{"password": "x\"y\\", "b": "\\"}', r'{"password": "@", "b": "\\"}'),
    ("json", r'{"pass\u0077ord": "x", "p\u0061ss": "y"}', r'{"pass\u0077ord": "@", "p\u0061ss": "y"}'),
    ("json", r'{"a": "{\"password\": \"x\\\"y\", \"b\": 1}"}', r'{"a": "{\"password\": \"@\", \"b\": 1}"}'),
    ("json", r'{"a": "{\"password\": 12}"}', r'{"a": "{\"password\": \"@\"}"}'),
    ("json", r'{"a": "{\n  \"password\":\n \"x\"}"}', r'{"a": "{\n  \"password\":\n \"@\"}"}'),
    ("json", r'{"a": "{\u0022password\u0022:\u0022x\u0022}"}', r'{"a": "{\u0022password\u0022:\u0022@\u0022}"}'),
    ("json", r'{"password": "x\u0022y"}', '{"password": "@"}'),
    ("json", r'{"password": "x\\u0022y"}', '{"password": "@"}'),
    # cut, damaged, more than one
    ("json", '{"password": "abc', '{"password": "masked · cut'),
    ("json", '{"password": {"a": "b', '{"password": "masked · cut'),
    ("json", '{"password": 12', '{"password": "masked · cut'),
    ("json", r'{"a": "{\"password\": \"x", "b": 1}', r'{"a": "{\"password\": \"masked · cut", "b": 1}'),
    ("json", '{"password": "x\n{"password": "y"}', '{"password": "@"password": "@"}'),
    ("json", '{"password": "x"}{"password": "y"}', '{"password": "@"}{"password": "@"}'),
    ("json", '{"url": "https://h/?X-Amz-Signature=x\\u0026a=1&sig=y"}', '{"url": "https://h/?X-Amz-Signature=%\\u0026a=1&sig=%"}'),
    ("json", f'["Authorization", "Bearer {SECRET_KEY}"]', f'["Authorization", "Bearer {KEY_TAG}"]'),
    ("", f"a bearer token, and bearer  {SECRET_KEY[:18]},", f"a bearer token, and bearer  {SHORT_TAG},"),
    ("", "password=x&b=2", "password=%&b=2"),
    ("x-www-form-urlencoded", "a=1&client%5Fsecret=x&b=", "a=1&client%5Fsecret=%&b="),
    ("x-www-form-urlencoded", "password", "password"),
    ("event-stream", 'data: {"password": "x"}\n\ndata: 1\n\n', 'data: {"password": "@"}\n\ndata: 1\n\n'),
    ("event-stream", 'data: {"password": "x\n\ndata: {"b":"1"}\n\n', 'data: {"password": "masked · cut\n\ndata: {"b":"1"}\n\n'),
]
TYPES = {
    "json": "application/json",
    "": "",
    "x-www-form-urlencoded": "application/x-www-form-urlencoded",
    "event-stream": "text/event-stream",
}


class TestContent:
    @pytest.mark.parametrize(("kind", "content", "expected"), CONTENT)
    def test_content(self, kind: str, content: str, expected: str) -> None:
        wanted = (
            expected.replace("@", UNDER)
            .replace("%&", f"{UNDER_IN_URL}&")
            .replace("%\\", f"{UNDER_IN_URL}\\")
            .replace('%"', f'{UNDER_IN_URL}"')
        )
        assert MASKER.body(content.encode(), TYPES[kind]).decode() == wanted
        for size in (1, 2, 3, 7):
            assert in_pieces(content.encode(), TYPES[kind], size).decode() == wanted
        if "\n{" not in content:
            assert MASKER.body(wanted.encode(), TYPES[kind]).decode() == wanted

    def test_a_form_in_parts(self) -> None:
        def form(password: str) -> bytes:
            parts = (
                f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                for name, value in (("password", password), ("f", "x"))
            )
            return ("".join(parts) + "--B--\r\n").encode()

        media_type = "multipart/form-data; boundary=B"
        assert MASKER.body(form("hunter2"), media_type) == form(UNDER)
        assert MASKER.body(form("hunter2")[:66], media_type).endswith(b"\r\n\r\nmasked \xc2\xb7 cut")
        for size in (1, 5, 17):
            assert in_pieces(form("hunter2"), media_type, size) == form(UNDER)

    def test_nothing_to_mask_is_the_same_object(self) -> None:
        body = b'{"a": [1, 2, "x"]}'
        assert MASKER.body(body, "application/json") is body

    @pytest.mark.parametrize("media_type", ["image/png", "audio/mpeg", "video/mp4"])
    def test_what_has_no_text_stays(self, media_type: str) -> None:
        assert MASKER.body(b'"password": "x"', media_type) == b'"password": "x"'

    def test_an_encoding_in_which_nothing_is_found(self) -> None:
        body = '{"password": "x"}'.encode("utf-16")
        assert MASKER.body(body, "application/json; charset=utf-16").decode() == "masked · cut"

    @pytest.mark.parametrize(
        ("before", "after", "media_type"),
        [
            (b'{"password": "', b'"}', "application/json"),
            (b"password=", b"&b=1", "application/x-www-form-urlencoded"),
            (b'{"password": ["', b'"]}', "application/json"),
            (b'{"u": "?sig=', b'"}', "application/json"),
            (b'--B\r\nContent-Disposition: form-data; name="password"\r\n\r\n', b"\r\n--B--\r\n", "multipart/form-data; boundary=B"),
        ],
    )
    def test_a_long_value_is_not_held(self, before: bytes, after: bytes, media_type: str) -> None:
        stream = MASKER.stream(media_type)
        out = [stream.feed(before)]
        for _ in range(3 * HELD // 1000):
            out.append(stream.feed(b"s" * 1000))
            held = getattr(stream, "_held")  # noqa: B009
            assert len(held) <= HELD + 2000
        out += [stream.feed(after), stream.finish()]
        masked = b"".join(out)
        assert b"ssss" not in masked
        assert b"more" in masked
        assert masked.endswith(after.removeprefix(b'"]') if b"[" in before else after)


# ---- random documents

NAMES = st.sampled_from(sorted(set(BODY_NAMES)))
SECRETS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=16, max_size=60).filter(
    lambda text: len(set(text)) > 6
)
WORDS = st.sampled_from(["alpha", "beta", 'say "it"', "a\\b", "über", "?", "key", "password", "x=1", "\n", "{", "]"])


def documents(secret: str) -> st.SearchStrategy[Any]:
    """Draw documents in which `secret` is the value of names that are masked, at any depth."""
    hidden = st.tuples(NAMES, st.sampled_from([secret, [secret], {"value": secret}])).map(lambda pair: {pair[0]: pair[1]})
    leaf = st.one_of(st.none(), st.booleans(), st.integers(), WORDS, hidden)
    others = st.text("abcdefg", min_size=1, max_size=6)
    return st.recursive(
        leaf, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(others, inner, max_size=4)), max_leaves=12
    )


def encoders() -> st.SearchStrategy[Callable[[Any], str]]:
    """Draw a way to write JSON, also JSON within a string of JSON."""

    def encoder(is_ascii: bool, separators: tuple[str, str], indent: int | None, nested: int) -> Callable[[Any], str]:
        def encode(document: Any) -> str:
            text = json.dumps(document, ensure_ascii=is_ascii, separators=separators, indent=indent)
            for _ in range(nested):
                text = json.dumps({"arguments": text, "n": 1}, ensure_ascii=is_ascii)
            return text

        return encode

    return st.builds(encoder, st.booleans(), st.sampled_from([(",", ":"), (", ", ": ")]), st.sampled_from([None, 2]), st.integers(0, 2))


def shows(content: bytes, secret: str) -> bool:
    """Tell whether a spelling of `secret` is in `content`."""
    return any(spelling in content for spelling in spellings_of(secret.encode()))


def without_secrets(value: Any) -> Any:
    """Return what a masked document is to be: names of `BODY_NAMES` have masked values."""
    if isinstance(value, list):
        return [without_secrets(each) for each in value]
    if isinstance(value, dict):
        return {name: "@" if name in BODY_NAMES else without_secrets(each) for name, each in value.items()}
    return value


def with_marks(value: Any) -> Any:
    """Return a masked document with a mark in place of each masked value."""
    if isinstance(value, list):
        return [with_marks(each) for each in value]
    if isinstance(value, dict):
        return {name: "@" if isinstance(each, str) and each.startswith("masked ") else with_marks(each) for name, each in value.items()}
    return value


@given(st.data(), SECRETS, encoders())
def test_random_documents_show_no_secret_and_stay_what_they_are(data: st.DataObject, secret: str, encode: Callable[[Any], str]) -> None:
    document = data.draw(documents(secret))
    content = encode(document).encode()
    # a short secret may be in a document by chance
    assume(not shows(encode(without_secrets(document)).encode(), secret))
    masked = MASKER.body(content, "application/json")
    assert not shows(masked, secret)
    inner: Any = json.loads(masked)
    while isinstance(inner, dict) and inner.keys() == {"arguments", "n"}:
        inner = json.loads(inner["arguments"])
    assert with_marks(inner) == without_secrets(document)


KEYS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=24, max_size=40)


@given(st.data(), KEYS, encoders())
def test_no_split_and_no_cut_shows_a_secret(data: st.DataObject, secret: str, encode: Callable[[Any], str]) -> None:
    content = encode(data.draw(documents(secret))).encode()
    end = data.draw(st.integers(0, len(content)))
    size = data.draw(st.integers(1, 40))
    whole = MASKER.body(content[:end], "application/json")
    assert in_pieces(content[:end], "application/json", size) == whole
    assert secret[:6].encode() not in whole
    assert secret[-6:].encode() not in whole


@given(
    st.lists(
        st.sampled_from(
            [
                b'"',
                b"\\",
                b"u0022",
                b"password",
                b"api_key",
                b":",
                b" ",
                b"{",
                b"}",
                b"[",
                b"]",
                b",",
                b"\n",
                b"?",
                b"&",
                b"key=",
                b"Bearer ",
                b"0123456789abcdef",
                b"x",
                b"\\u0070assword",
                b"\xff",
            ]
        ),
        max_size=60,
    ),
    st.sampled_from(["application/json", "text/event-stream", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]),
    st.integers(1, 9),
)
def test_whatever_comes_nothing_raises_and_every_split_gives_the_same(parts: list[bytes], media_type: str, size: int) -> None:
    content = b"".join(parts)
    assert in_pieces(content, media_type, size) == MASKER.body(content, media_type)


@given(SECRETS, st.sampled_from([name for name in QUERY_NAMES if "*" not in name]), st.text("abc=;/?", max_size=8))
def test_random_queries(secret: str, name: str, other: str) -> None:
    assume(";" not in other and "?" not in other)
    query = urlencode({"a": other, name: secret, "b": "2"})
    path = MASKER.path(f"/p?{query}")
    assert not shows(path.encode(), secret)
    read = dict(parse_qsl(path.partition("?")[2], keep_blank_values=True))
    assert read["a"] == other and read["b"] == "2" and read[name].startswith("masked ")
    assert not shows(MASKER.body(query.encode(), "application/x-www-form-urlencoded"), secret)
