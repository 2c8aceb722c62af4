"""Who may use the web view."""

from __future__ import annotations

import pytest

from soth_mitm.views.access import HEADERS, SECRET_SECONDS, Guard, Refusal, Sessions

PORT = 8081
HERE = b"127.0.0.1:8081"


async def nothing(*_: object) -> None:
    raise AssertionError("it was let through")


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def key(sessions: Sessions) -> str:
    found = sessions.exchange(sessions.secret)
    assert isinstance(found, str)
    return found


def asked(sessions: Sessions, path: str, *headers: tuple[bytes, bytes], method: str = "GET", host: str = "127.0.0.1") -> int | None:
    refusal = Guard(nothing, sessions, host, PORT).refusal(method, path, headers)
    return None if refusal is None else refusal.status


class TestHost:
    @pytest.mark.parametrize("host", [HERE, b"localhost:8081", b"LocalHost:8081", b"[::1]:8081"])
    def test_of_the_view(self, sessions: Sessions, host: bytes) -> None:
        assert asked(sessions, "/", (b"host", host)) is None

    @pytest.mark.parametrize(
        "host",
        [
            *(b"evil.example:8081", b"127.0.0.1", b"127.0.0.1:8082", b"127.0.0.1:80811", b"localhost", b"localhost.:8081", b"0.0.0.0:8081"),
            *(
                b"127.0.0.1:8081.evil.example",
                b"127.0.0.1:8081@evil.example",
                b"evil.example@127.0.0.1:8081",
                b"",
                b"[::]:8081",
                b"127.1:8081",
            ),
            *(b"127.0.0.1:8081, evil.example", b"[::ffff:127.0.0.1]:8081", "１２７.0.0.1:8081".encode(), b"127.0.0.2:8081"),
        ],
    )
    def test_of_another(self, sessions: Sessions, host: bytes) -> None:
        for path in ("/", "/main.js", "/api/flows", "/api/session", "/nothing"):
            assert asked(sessions, path, (b"host", host)) == 403

    def test_none_and_two(self, sessions: Sessions) -> None:
        assert asked(sessions, "/") == 403
        assert asked(sessions, "/", (b"host", HERE), (b"host", HERE)) == 403

    def test_an_address_of_its_own(self, sessions: Sessions) -> None:
        assert asked(sessions, "/", (b"host", b"127.0.0.7:8081"), host="127.0.0.7") is None

    def test_the_port_of_http_is_not_named(self, sessions: Sessions) -> None:
        assert Guard(nothing, sessions, "127.0.0.1", 80).refusal("GET", "/", ((b"host", b"localhost"),)) is None


class TestOrigin:
    @pytest.mark.parametrize("origin", [b"http://127.0.0.1:8081", b"http://localhost:8081"])
    def test_of_the_view(self, sessions: Sessions, origin: bytes) -> None:
        assert asked(sessions, "/", (b"host", HERE), (b"origin", origin)) is None

    @pytest.mark.parametrize(
        "origin",
        [b"https://127.0.0.1:8081", b"http://evil.example", b"null", b"", b"http://127.0.0.1:3000", b"http://127.0.0.1:8081.evil.example"],
    )
    def test_of_another(self, sessions: Sessions, key: str, origin: bytes) -> None:
        for path in ("/", "/api/flows", "/api/session"):
            own = (b"authorization", f"Bearer {key}".encode())
            assert asked(sessions, path, (b"host", HERE), (b"origin", origin), own) == 403

    @pytest.mark.parametrize(
        ("site", "status"), [(b"same-origin", None), (b"none", None), (b"same-site", 403), (b"cross-site", 403), (b"", 403)]
    )
    def test_site(self, sessions: Sessions, site: bytes, status: int | None) -> None:
        assert asked(sessions, "/", (b"host", HERE), (b"sec-fetch-site", site)) == status


class TestKey:
    @pytest.mark.parametrize(
        "path",
        [
            "/api/flows",
            "/api/overview",
            "/api/changes",
            "/api/flows/1",
            "/api/nothing",
            "/api/",
            "/%61pi/flows",
            "/api/session/",
            "/api/session/x",
        ],
    )
    def test_every_question_needs_it(self, sessions: Sessions, key: str, path: str) -> None:
        assert asked(sessions, path, (b"host", HERE)) == 401
        for value in (
            b"",
            b"Bearer",
            b"Bearer ",
            b"Basic " + key.encode(),
            f"Bearer {key}x".encode(),
            f"Bearer {key[:-1]}".encode(),
            key.encode(),
        ):
            assert asked(sessions, path, (b"host", HERE), (b"authorization", value)) == 401
        right = (b"authorization", f"Bearer {key}".encode())
        assert asked(sessions, path, (b"host", HERE), right) is None
        assert asked(sessions, path, (b"host", HERE), right, right) == 401

    def test_the_secret_is_not_the_key(self, sessions: Sessions) -> None:
        assert asked(sessions, "/api/flows", (b"host", HERE), (b"authorization", f"Bearer {sessions.secret}".encode())) == 401

    @pytest.mark.parametrize("path", ["/", "/main.js", "/api/session"])
    def test_the_page_and_the_exchange_do_not(self, sessions: Sessions, path: str) -> None:
        assert asked(sessions, path, (b"host", HERE)) is None

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"])
    def test_nothing_is_changed(self, sessions: Sessions, key: str, method: str) -> None:
        right = (b"authorization", f"Bearer {key}".encode())
        assert asked(sessions, "/api/flows", (b"host", HERE), right, method=method) == 405
        assert asked(sessions, "/api/session", (b"host", HERE), method=method) == (None if method == "POST" else 405)


class TestSecret:
    def test_it_opens_once(self, sessions: Sessions) -> None:
        assert isinstance(sessions.exchange(sessions.secret), str)
        again = sessions.exchange(sessions.secret)
        assert isinstance(again, Refusal) and again.status == 403 and "once" in again.text

    def test_a_wrong_one_spoils_nothing(self, sessions: Sessions) -> None:
        for wrong in ("", "x", sessions.secret + "x", sessions.secret[:-1], "\udcff", "ä"):
            assert isinstance(sessions.exchange(wrong), Refusal)
        assert isinstance(sessions.exchange(sessions.secret), str)

    def test_it_grows_old(self) -> None:
        now = [100.0]
        late, early = Sessions(lambda: now[0]), Sessions(lambda: now[0])
        now[0] += SECRET_SECONDS
        assert isinstance(early.exchange(early.secret), str)
        now[0] += 0.001
        refusal = late.exchange(late.secret)
        assert isinstance(refusal, Refusal) and "5 minutes" in refusal.text

    def test_each_start_has_its_own(self) -> None:
        first, second = Sessions(), Sessions()
        assert first.secret != second.secret and first.exchange(first.secret) != second.exchange(second.secret)


def test_the_page_may_run_and_load_only_what_is_its_own() -> None:
    policy = dict(HEADERS)[b"content-security-policy"].decode()
    directives = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    assert directives == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
