"""Exchanges whose upstream speaks HTTP/2: what only HTTP/2 has. Numbers are those of the list of pitfalls in docs/http2.md.

The upstream is the `h2` library on a real socket. What every multiplexed connection must do is in test_multiplexed_exchanges.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from h2.errors import ErrorCodes

from soth_mitm._dataplane.http2.frame import make_frame
from soth_mitm._dataplane.http2.hpack_encoder import HpackEncoder
from soth_mitm._dataplane.http2.server import Http2ServerConnection
from soth_mitm._dataplane.upstream.connect_probe import ConnectProbe
from soth_mitm.errors import WireError
from support.doubles import load_double
from support.http2_client import Http2Client
from support.http2_upstream import RealUpstreams
from support.multiplex import CREDIT, Handler, Message, MuxPeerStream, Scene, get, post, response
from support.sessions import CONTINUATION, END_HEADERS, HEADERS

pytestmark = pytest.mark.anyio

CODES_BY_NAME = {code.name.encode(): int(code) for code in ErrorCodes}
clients = pytest.mark.parametrize("clients", ["http1", "mux"])


@pytest.fixture(scope="session")
def doubled() -> Any:
    return load_double("multiplex")


@pytest.fixture
def double(doubled: Any) -> RealUpstreams:
    return RealUpstreams(doubled)


@pytest.mark.rule(53)
@clients
async def test_a_request_and_its_response(double: RealUpstreams, clients: str) -> None:
    async with Scene(double, clients, "mux", Handler()) as scene:
        client = await scene.connect()
        for content in (b"", b"x", b"0123456789" * 10_000):
            answer = await client.ask(post(content))
            assert (answer.status, answer.content, answer.complete) == (200, content, True)
            assert scene.seen[-1].content == content and scene.seen[-1].get(b"content-length") == b"%d" % len(content)
        answer = await client.ask(get(b"/there"))
        assert scene.seen[-1].start == b"GET /there HTTP/1.1" and answer.content == b""
        assert len(scene.dialled) == 1 and double.told == [None]
        assert scene.counters.http2_upstream_connections == 1
    assert scene.counters.http2_upstream_connections == 0
    # nothing is asked without need (53)
    assert scene.accepted[0].pings == 0


@pytest.mark.rule(1, 53)
@clients
async def test_a_response_that_ends_with_its_last_octets_is_not_reset(double: RealUpstreams, clients: str) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        peer.head(response(b"whole"))
        connection: Any = peer.peer
        connection.h2.send_data(peer.number, b"whole", end_stream=True)
        connection.flush()

    async with Scene(double, clients, "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        for head in (get(), post(b"x" * 10), get()):
            assert (await client.ask(head)).content == b"whole"
        # servers count resets, and end connections that send many (1). A PING asks whether one was read
        assert [(stream.reset_by, peer.pings) for peer in scene.accepted for stream in peer.streams.values()] == [(None, 0)] * 3


def target_of(peer: MuxPeerStream) -> bytes:
    assert peer.message is not None
    return peer.message.start.split(b" ")[1]


# ---- (48) the connection is of use when the upstream's SETTINGS came


async def test_rule_48_an_upstream_that_sends_no_settings(double: RealUpstreams) -> None:
    double.upstream_peer = lambda scene, reader, writer: SilentUpstream(reader, writer)  # type: ignore[method-assign,assignment]
    async with Scene(double, "http1", "mux", http2__settings_timeout_ms=60) as scene:
        client = await scene.connect()
        answer = await client.ask(get())
        assert answer.status == 504 and b"SETTINGS" in answer.content
        assert [type(error).__name__ for error in double.told] == ["WireError"]


async def test_rule_48_an_upstream_that_closes_before_its_settings(double: RealUpstreams) -> None:
    double.upstream_peer = lambda scene, reader, writer: SilentUpstream(reader, writer, closes=True)  # type: ignore[method-assign,assignment]
    async with Scene(double, "http1", "mux") as scene:
        client = await scene.connect()
        assert (await client.ask(get())).status == 502
        assert len(double.told) == 1 and double.told[0] is not None


class SilentUpstream:
    """Reads, and says nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, closes: bool = False) -> None:
        self.writer = writer
        if closes:
            writer.close()
        self.reading = asyncio.create_task(reader.read())

    async def close(self) -> None:
        """Close the connection."""
        self.reading.cancel()
        self.writer.close()


# ---- (10) what waits while the upstream does not read


@clients
async def test_rule_10_heads_that_an_upstream_does_not_read(double: RealUpstreams, clients: str) -> None:
    """Where they would be more than 1 MiB, requests wait for room, and go on when what was sent is read, before it is answered."""
    count, size = 40, 60_000
    came = asyncio.Event()

    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        if len(scene.seen) == count + 1:
            came.set()
        if len(scene.seen) > 1:
            await came.wait()
        await peer.say(response(b"ok"))

    async with Scene(double, clients, "mux", connection_pool__max_connections_per_host=1) as scene:
        scene.answer = answer
        scene.sockets_are_small = True
        first = await scene.connect()
        assert (await first.ask(get())).content == b"ok"
        scene.accepted[0].writer.transport.pause_reading()
        askers = [first] * count if clients == "mux" else [await scene.connect() for _ in range(count)]
        asked = [asyncio.create_task(each.ask(get(b"/", (b"X-Large", b"~" * size)))) for each in askers]
        await scene.until(
            lambda: (sent := scene.counters.bytes_to_upstreams) > 1 << 20 and sent // size + scene.pool.waiting_count == count,
            "what was sent makes no room",
        )
        assert scene.counters.bytes_to_upstreams < (1 << 20) + 4 * size
        scene.accepted[0].writer.transport.resume_reading()
        assert [reply.content for reply in await asyncio.gather(*asked)] == [b"ok"] * count
        assert len(scene.dialled) == 1 and scene.counters.http2_streams_total >= count


# ---- (49) REFUSED_STREAM, (50) GOAWAY


@clients
@pytest.mark.parametrize("refusals", [1, 2])
async def test_rule_49_what_was_refused_is_sent_again_once(double: RealUpstreams, clients: str, refusals: int) -> None:
    tries = 0

    async def answer(peer: MuxPeerStream) -> None:
        nonlocal tries
        tries += 1
        if tries <= refusals:
            await peer.until(lambda: len(peer.content) == 10)
            return peer.reset(b"refused")
        return await scene.echo(peer)

    async with Scene(double, clients, "mux", Handler()) as scene:
        scene.answer = answer
        client = await scene.connect()
        reply = await client.ask(post(b"c" * 10))
        assert (reply.status, tries, scene.counters.http2_retries) == (200 if refusals == 1 else 502, 2, 1)


@clients
async def test_rule_50_goaway_ends_what_it_names_and_nothing_else(double: RealUpstreams, clients: str) -> None:
    held: list[MuxPeerStream] = []

    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        if peer.peer is scene.accepted[0] and target_of(peer) in (b"/below", b"/above"):
            held.append(peer)
            return
        await peer.say(response(target_of(peer)))

    async with Scene(double, clients, "mux", Handler()) as scene:
        scene.answer = answer
        below, above, later = [await scene.connect() for _ in range(3)]
        assert (await below.ask(get(b"/first"))).content == b"/first"
        asking = [asyncio.create_task(below.ask(get(b"/below")))]
        await scene.until(lambda: len(held) == 1, "the first does not come")
        asking.append(asyncio.create_task(above.ask(post(b"once", target=b"/above"))))
        await scene.until(lambda: len(held) == 2, "the second does not come")
        first: Any = scene.accepted[0]
        first.leave(last=held[0].number)
        assert (await asking[1]).content == b"/above", "a POST that the upstream did not process is sent again"
        assert (await later.ask(get(b"/later"))).content == b"/later"
        assert [len(peer.streams) for peer in scene.accepted] == [3, 2], "no new stream on the connection that goes away"
        first.say_last(held[0].number, b"/below")
        assert (await asking[0]).content == b"/below"
        await first.ended()
        assert (scene.counters.http2_goaways_received, scene.counters.http2_retries, len(scene.dialled)) == (1, 1, 2)
        assert scene.pool.open == 1


async def test_rule_50_a_server_that_never_worked_is_not_asked_again(double: RealUpstreams) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        peer.peer.leave(last=0, code=11)

    async with Scene(double, "http1", "mux", Handler()) as scene:
        scene.answer = answer
        client = await scene.connect()
        assert (await client.ask(get())).status == 502
        assert (len(scene.dialled), scene.counters.retries) == (1, 0)


async def test_rule_50_an_idle_connection_that_goes_away_is_closed(double: RealUpstreams) -> None:
    async with Scene(double, "http1", "mux") as scene:
        client = await scene.connect()
        await client.ask(get())
        first: Any = scene.accepted[0]
        first.leave()
        await first.ended()
        assert (await client.ask(get())).status == 200
        assert len(scene.dialled) == 2


# ---- HTTP_1_1_REQUIRED


@clients
@pytest.mark.parametrize("fallback", [False, True])
async def test_rule_44_http_1_1_is_required(double: RealUpstreams, clients: str, fallback: bool) -> None:
    async def answer(peer: Any) -> None:
        if not isinstance(peer, MuxPeerStream):
            return await peer.say(response((await scene.request(peer)).content))
        await scene.request(peer)
        return peer.reset(b"HTTP_1_1_REQUIRED")

    async with Scene(double, "http1", "http1") as over_http1, Scene(double, clients, "mux", Handler()) as scene:
        over_http1.answer = answer
        scene.answer = answer
        if fallback:
            scene.pool.fallback = lambda: over_http1.pool
        client = await scene.connect()
        replies = [await client.ask(post(b"%d" % number)) for number in range(3)]
        if fallback:
            assert [reply.content for reply in replies] == [b"0", b"1", b"2"]
            # and it is remembered
            assert len(scene.seen) == 1 + 3 and scene.counters.http2_retries == 1
        else:
            assert [reply.status for reply in replies] == [502] * 3
            assert scene.counters.retries == 0


# ---- (40) to (43): ends


@clients
async def test_rule_42_an_early_answer_and_no_error_stop_the_upload(double: RealUpstreams, clients: str) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await peer.until(lambda: peer.content)
        if target_of(peer) == b"/early":
            peer.head(response(b"enough"))
            await peer.send(b"enough")
            peer.end()
            peer.reset(b"no more")
        else:
            await scene.echo(peer)

    async with Scene(double, clients, "mux") as scene:
        scene.upstreams_give_credit = False
        scene.answer = answer
        client = await scene.connect()
        early = await client.ask(post(b"x" * 200_000, target=b"/early"))
        assert (early.status, early.content, early.complete) == (200, b"enough", True)
        client = await scene.connect()
        assert (await client.ask(post(b"x"))).content == b"x" and len(scene.dialled) == 1


@clients
@pytest.mark.parametrize("code", [b"no more", b"INTERNAL_ERROR"])
async def test_rule_43_a_reset_behind_a_complete_response_takes_nothing_from_it(double: RealUpstreams, clients: str, code: bytes) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await peer.until(lambda: len(peer.content) == 5)
        peer.head(response(b"y" * 10_000))
        await peer.send(b"y" * 10_000)
        peer.end()
        peer.reset(code)

    async with Scene(double, clients, "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        head = post(b"x" * 10)
        if clients == "mux":
            stream = client.open()
            stream.head(head)
            await stream.send(b"x" * 5)
            reply = await stream.whole()
        else:
            client.writer.write(head.head + b"x" * 5)
            reply = await client.message()
        assert (reply.status, reply.content, reply.complete) == (200, b"y" * 10_000, True)


@clients
@pytest.mark.parametrize("how", ["reset", "goaway", "lost"])
async def test_rule_40_a_response_that_is_cut_does_not_look_complete(double: RealUpstreams, clients: str, how: str) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        peer.head(Message(b"HTTP/1.1 200 ", []))
        await peer.send(b"y" * 100)
        if how == "reset":
            peer.reset(b"INTERNAL_ERROR")
        elif how == "goaway":
            peer.peer.leave(last=0, code=2)
        else:
            peer.peer.writer.transport.abort()

    async with Scene(double, clients, "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        reply = await client.ask(get())
        assert reply.status == 200 and not reply.complete


@clients
async def test_rule_41_interim_responses_are_relayed(double: RealUpstreams, clients: str) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        for number in range(3):
            peer.head(Message(b"HTTP/1.1 103 ", [(b"link", b"</%d>" % number)]))
        await peer.say(response(b"ok"))

    async with Scene(double, clients, "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        if clients == "mux":
            stream = client.open()
            await stream.say(get())
            reply = await stream.whole()
            interims = stream.interims
        else:
            reply = await client.ask(get())
            interims = client.interims
        assert reply.content == b"ok" and [message.get(b"link") for message in interims] == [b"</0>", b"</1>", b"</2>"]


# ---- (52) to (57): the life of a connection


async def test_rule_52_a_connection_that_answers_no_ping_is_dead(double: RealUpstreams) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        if peer.peer is scene.accepted[0] and target_of(peer) == b"/frozen":
            # no PING is answered from now on
            peer.peer.freeze()
            return
        await peer.say(response(b"ok"))

    async with Scene(double, "http1", "mux", http2__keepalive_ms=40, http2__ping_timeout_ms=60) as scene:
        scene.answer = answer
        client = await scene.connect()
        await client.ask(get())
        assert (await client.ask(get(b"/frozen"))).content == b"ok", "it is sent again over a connection that lives"
        assert (scene.counters.http2_dead_connections, scene.counters.retries, len(scene.dialled)) == (1, 1, 2)
        await scene.until(lambda: scene.accepted[1].pings >= 2, "http2.keepalive_ms has no effect")
        assert scene.pool.open == 1


async def test_rule_54_control_frames_do_not_keep_an_idle_connection(double: RealUpstreams) -> None:
    async with Scene(double, "http1", "mux", connection_pool__idle_timeout_ms=150) as scene:
        client = await scene.connect()
        await client.ask(get())
        first: Any = scene.accepted[0]
        while not first.closed:
            first.h2.ping(b"01234567")
            first.flush()
            await asyncio.sleep(0.02)
        assert scene.pool.open == 0 and first.goaway is not None and first.goaway.error_code == 0


async def test_rule_56_a_slot_is_free_when_the_upstream_knows_of_the_reset(double: RealUpstreams) -> None:
    """The library counts streams as an upstream does, and would refuse one too many."""

    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        if target_of(peer) == b"/held":
            held.append(peer)
            return
        await peer.say(response(b"ok"))

    held: list[MuxPeerStream] = []
    async with Scene(double, "mux", "mux", streams=1, connection_pool__max_connections_per_host=1) as scene:
        scene.answer = answer
        client = await scene.connect()
        for number in range(5):
            stream = client.open()
            await stream.say(get(b"/held"))
            await scene.until(lambda expected=number + 1: len(held) == expected, "a request does not come")
            asking = asyncio.create_task(client.ask(get()))
            stream.reset()
            assert (await asking).content == b"ok"
        assert [peer.reset_by for peer in held] == [b"CANCEL"] * 5
        assert len(scene.dialled) == 1 and scene.accepted[0].pings == 5


async def test_rule_57_what_comes_behind_a_reset_harms_nothing(double: RealUpstreams) -> None:
    """(61) The head of a response that is not needed is decoded all the same: the next one refers to it."""

    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        fields = [(b"x-name", b"a value that is indexed"), (b"x-other", b"and a second one")]
        if target_of(peer) == b"/left":
            left.append(peer)
            return
        await peer.say(response(b"ok", *fields))

    left: list[MuxPeerStream] = []
    async with Scene(double, "mux", "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        stream = client.open()
        await stream.say(get(b"/left"))
        await scene.until(lambda: left, "the request does not come")
        upstream: Any = scene.accepted[0]
        upstream.reading.cancel()
        stream.reset()
        await scene.until(lambda: scene.counters.active_flows == 0, "the exchange goes on")
        # it has not read of the reset
        left[0].head(Message(b"HTTP/1.1 200 ", [(b"x-name", b"a value that is indexed")]))
        await left[0].send(b"z" * 5000)
        left[0].end(b"X-Sum: 1\r\n")
        upstream.reading = asyncio.create_task(upstream._read())
        for _ in range(3):
            reply = await client.ask(get())
            assert reply.content == b"ok" and reply.get(b"x-name") == b"a value that is indexed"
        assert len(scene.dialled) == 1


# ---- keys


@clients
async def test_strict_overflow_ends_the_stream(double: RealUpstreams, clients: str) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        await peer.say(response(b"z" * int(target_of(peer)[1:])))

    keys = {"body__max_size_bytes": 5000, "upstream__h2_response_overflow_mode": "strict_fail"}
    async with Scene(double, clients, "mux", Handler(), **keys) as scene:
        scene.answer = answer
        client = await scene.connect()
        assert len((await client.ask(get(b"/5000"))).content) == 5000
        reply = await client.ask(get(b"/5001"))
        assert not reply.complete and len(reply.content) <= 5000
        assert scene.counters.responses_cut == 1


@pytest.mark.parametrize("stage", ["head", "body"])
async def test_an_upstream_that_stops(double: RealUpstreams, stage: str) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        if stage == "body":
            peer.head(response(b"zz"))
            await peer.send(b"z")
        stopped.append(peer)

    stopped: list[MuxPeerStream] = []
    # the head's time is short where it does not come, and no machine is too slow for it where it does
    keys = {"upstream__h2_header_stage_timeout_ms": 60 if stage == "head" else 10_000, "upstream__h2_body_idle_timeout_ms": 60}
    async with Scene(double, "http1", "mux", **keys) as scene:
        scene.answer = answer
        client = await scene.connect()
        reply = await client.ask(get())
        if stage == "head":
            assert reply.status == 504 and b"upstream.h2_header_stage_timeout_ms" in reply.content
        else:
            assert reply.status == 200 and not reply.complete
        await stopped[0].until(lambda: stopped[0].reset_by == b"CANCEL")
        assert scene.counters.upstream_timeouts == 1 and len(scene.dialled) == 1


async def test_the_upstreams_settings_change(double: RealUpstreams) -> None:
    held: list[MuxPeerStream] = []

    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        held.append(peer)

    async with Scene(double, "mux", "mux", streams=1, connection_pool__max_connections_per_host=1) as scene:
        scene.answer = answer
        client = await scene.connect()
        asking = [asyncio.create_task(client.ask(get())) for _ in range(4)]
        await scene.until(lambda: len(held) == 1 and scene.pool.waiting_count == 3, "the rest does not wait")
        scene.accepted[0].settings(max_concurrent_streams=3)
        await scene.until(lambda: len(held) == 3, "the new room is not used")
        assert scene.pool.waiting_count == 1
        for _ in range(4):
            await scene.until(lambda: held, "the last one does not come")
            await held.pop(0).say(response(b"ok"))
        assert [(await task).content for task in asking] == [b"ok"] * 4


# ---- an upstream that allows no stream

NO_STREAM_IN_TIME = {"upstream__connect_timeout_ms": 100, "timeouts__upstream_tls_handshake_ms": 100, "upstream__retry_delay_ms": 0}


async def ask_in_vain(scene: Scene, client: Any, count: int = 8) -> list[asyncio.Task[Any]]:
    """Let requests wait for an upstream that allows no stream; the first of them finds that out."""
    asking = [asyncio.create_task(client.ask(get(b"/0")))]
    await scene.until(lambda: scene.pool.open and not scene.pool.dialling, "the dial does not end")
    asking += [asyncio.create_task(client.ask(get(b"/%d" % number))) for number in range(1, count)]
    await scene.until(lambda: scene.pool.waiting_count == count, "the requests do not wait")
    return asking


@pytest.mark.parametrize("idle", [0, 8])
async def test_requests_wait_until_the_upstream_allows_a_stream(double: RealUpstreams, idle: int) -> None:
    async with Scene(double, "mux", "mux", streams=0, connection_pool__max_idle_per_host=idle) as scene:
        client = await scene.connect()
        asking = await ask_in_vain(scene, client)
        # a reload or a drain leaves it to those that wait
        scene.pool.limit(scene.pool.max_open, 0)
        assert (len(scene.dialled), scene.pool.open, scene.pool.waiting_count) == (1, 1, 8)
        scene.accepted[0].settings(max_concurrent_streams=3)
        assert [(await task).status for task in asking] == [200] * 8
        assert scene.dialled[0].served >= 3, "its new room is not used"


@pytest.mark.parametrize("idle", [0, 8])
async def test_no_stream_is_allowed_in_time(double: RealUpstreams, idle: int) -> None:
    # idle connections are kept for less long than requests wait
    keys = {"connection_pool__max_idle_per_host": idle, "connection_pool__idle_timeout_ms": 30, **NO_STREAM_IN_TIME}
    async with Scene(double, "mux", "mux", streams=0, **keys) as scene:
        client = await scene.connect()
        answers = [await task for task in await ask_in_vain(scene, client)]
        assert [answer.status for answer in answers] == [504] * 8
        assert answers[0].content.startswith(b"an origin was reached, and allowed no stream of HTTP/2")
        assert len(scene.dialled) == 1 and scene.counters.upstream_timeouts == 8
        # and it is closed when nothing waits for it any more
        await scene.until(lambda: scene.pool.open == 0, "a connection that nothing wants is kept")


async def test_no_stream_is_allowed_and_the_connection_ends(double: RealUpstreams) -> None:
    async with Scene(double, "mux", "mux", streams=0) as scene:
        client = await scene.connect()
        for dials in (1, 2):
            asking = await ask_in_vain(scene, client)
            scene.accepted[-1].leave()
            answers = [await task for task in asking]
            assert [answer.status for answer in answers] == [502] * 8 and b"allowed no stream" in answers[0].content
            assert len(scene.dialled) == dials, "what would do the same is dialled again and again"


async def test_an_upstream_that_allows_no_more_streams_is_dialled_once_more(double: RealUpstreams) -> None:
    async with Scene(double, "mux", "mux") as scene:
        client = await scene.connect()
        await client.ask(get())
        scene.streams = 0
        scene.accepted[0].settings(max_concurrent_streams=0)
        await scene.until(lambda: scene.accepted[0].acknowledged == 2, "the SETTINGS are not acknowledged")
        asking = [asyncio.create_task(client.ask(get())) for _ in range(8)]
        await scene.until(lambda: scene.pool.waiting_count == 8 and len(scene.accepted) == 2, "the requests do not wait")
        await scene.until(lambda: not scene.pool.dialling, "the dial does not end")
        assert len(scene.dialled) == 2
        # whichever of the two allows one
        scene.accepted[0].settings(max_concurrent_streams=100)
        assert [(await task).status for task in asking] == [200] * 8
        assert len(scene.dialled) == 2


async def test_a_client_is_told_that_its_upstream_allows_no_stream(double: RealUpstreams) -> None:
    """Before its handshake is answered."""
    async with Scene(double, "http1", "mux", streams=0, **NO_STREAM_IN_TIME) as scene:
        future: asyncio.Future[object] = scene.loop.create_future()
        probe = ConnectProbe(scene.settings, scene.pool, future)
        with pytest.raises(WireError, match="an origin was reached, and allowed no stream of HTTP/2") as failure:
            await future
        assert failure.value.status == 504 and len(scene.dialled) == 1
        probe.close()


# ---- from HTTP/2 to HTTP/2


class Http2Clients:
    """In place of the double, for clients that speak HTTP/2."""

    MuxServerConnection = Http2ServerConnection
    client_peer = Http2Client


@pytest.mark.parametrize("handler", [None, Handler], ids=["unseen", "decided"])
async def test_many_streams_from_http2_to_http2(handler: Any) -> None:
    async with Scene(RealUpstreams(Http2Clients), "mux", "mux", handler and handler()) as scene:
        client = await scene.connect()
        bodies = [b"%d:" % number * (number**2 * 3) for number in range(60)]
        answers = await asyncio.gather(*(client.ask(post(body)) for body in bodies))
        assert [(answer.status, answer.content, answer.complete) for answer in answers] == [(200, body, True) for body in bodies]


@pytest.mark.parametrize("way", ["download", "upload"])
async def test_rule_30_a_stream_that_is_stuck_pauses_no_socket(way: str) -> None:
    """Behind its content come the frames of other streams, and the window that lets it go on."""
    much = bytes(300_000)

    async def answer(peer: MuxPeerStream) -> None:
        if target_of(peer) == b"/upload":
            stuck.append(peer)
        await scene.request(peer)
        await peer.say(response(much if target_of(peer) == b"/download" else b"ok"))

    stuck: list[MuxPeerStream] = []
    async with Scene(RealUpstreams(Http2Clients), "mux", "mux") as scene:
        scene.answer = answer
        scene.upstreams_give_credit = way == "download"
        client = await scene.connect()
        stream = client.open()
        stream.gives_credit = way == "upload"
        if way == "upload":
            stream.head(post(much, target=b"/upload"))
            sending = asyncio.create_task(stream.send(much))
            await scene.until(lambda: bool(stuck) and len(stuck[0].content) == CREDIT, "the window of the upstream is not used up")
        else:
            await stream.say(get(b"/download"))
            await stream.until(lambda: len(stream.content) == CREDIT)
        for number in range(20):
            assert (await client.ask(post(b"x" * 10_000))).content == b"ok", number
        assert len(scene.accepted) == 1 and not stream.ended
        if way == "upload":
            stuck[0].gives_credit = True
            stuck[0].give(len(much))
            await sending
            stream.end()
        else:
            stream.gives_credit = True
            stream.give(len(much))
        assert (await stream.whole()).content == (b"ok" if way == "upload" else much)
        assert scene.seen and (way == "download" or stuck[0].content == much)


@pytest.mark.parametrize("pairing", [("mux", "http1"), ("mux", "mux"), ("http1", "mux")], ids="-".join)
async def test_rule_10_interim_responses_that_are_not_read(double: RealUpstreams, pairing: tuple[str, str]) -> None:
    """An upstream sends 64 on each stream. What waits for the client stays near 1 MiB, and all of it is in order when the client reads.

    From HTTP/1 to HTTP/1 they wait in the upstream's socket.
    """
    streams, size, heads = (10 if pairing[0] == "mux" else 1), 30_000, 64
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: %b\r\n\r\n" % (b"~" * size)
    block = HpackEncoder().encode_block([(b":status", b"103", True), (b"link", b"~" * size, True)])

    async def answer(peer: Any) -> None:
        await scene.request(peer)
        for _ in range(heads):
            if pairing[1] == "mux":
                # not by the library, which takes seconds for such a value
                peer.peer.writer.write(make_frame(HEADERS, 0, peer.number, block[:16_000]))
                peer.peer.writer.write(make_frame(CONTINUATION, END_HEADERS, peer.number, block[16_000:]))
                await peer.peer.writer.drain()
            else:
                peer.writer.write(hints)
                await peer.writer.drain()
        await peer.say(response(b"ok"))

    async with Scene(RealUpstreams(Http2Clients) if pairing[0] == "mux" else double, *pairing) as scene:
        scene.answer = answer
        scene.sockets_are_small = True
        client = await scene.connect()
        client.writer.transport.pause_reading()
        asked = [client.open() for _ in range(streams)] if pairing[0] == "mux" else [client]
        for stream in asked:
            await stream.say(get())
        await scene.until(lambda: scene.counters.bytes_from_upstreams > streams * heads * size, "an upstream is not read")
        held = scene.arena.budget.held
        client.writer.transport.resume_reading()
        replies = [await (stream.whole() if pairing[0] == "mux" else stream.message()) for stream in asked]
        assert [reply.content for reply in replies] == [b"ok"] * streams
        came = sum(len(stream.interims) for stream in asked)
        assert 0 < scene.counters.interims_dropped == streams * heads - came
    # what lies in read buffers is counted too
    assert 1 << 20 < held < (1 << 20) + streams * 65536 + 8 * size


@pytest.mark.parametrize("code", [b"REFUSED_STREAM", b"HTTP_1_1_REQUIRED", b"PROTOCOL_ERROR", b"CANCEL"])
async def test_rule_44_codes_before_the_head(code: bytes) -> None:
    """A body that was not collected is gone: what the upstream did not process, its client may send again."""

    async def answer(peer: MuxPeerStream) -> None:
        await peer.until(lambda: peer.content)
        peer.reset(code)

    async with Scene(RealUpstreams(Http2Clients), "mux", "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        stream = client.open()
        stream.head(post(b"x" * 10))
        await stream.send(b"x")
        reply = await stream.whole()
        if code in (b"PROTOCOL_ERROR", b"CANCEL"):
            assert reply.status == 502
        else:
            assert stream.message is None and stream.code == CODES_BY_NAME[code]
        assert scene.counters.retries == 0 and scene.counters.upstream_errors == 1


@pytest.mark.parametrize(
    ("code", "passed"), [(b"CANCEL", b"CANCEL"), (b"PROTOCOL_ERROR", b"INTERNAL_ERROR"), (b"no more", b"INTERNAL_ERROR")]
)
async def test_rule_44_codes_behind_the_head(code: bytes, passed: bytes) -> None:
    async def answer(peer: MuxPeerStream) -> None:
        await scene.request(peer)
        peer.head(Message(b"HTTP/1.1 200 ", []))
        await peer.send(b"y")
        peer.reset(code)

    async with Scene(RealUpstreams(Http2Clients), "mux", "mux") as scene:
        scene.answer = answer
        client = await scene.connect()
        stream = client.open()
        await stream.say(get())
        reply = await stream.whole()
        assert reply.status == 200 and not reply.complete and stream.code == CODES_BY_NAME[passed]
