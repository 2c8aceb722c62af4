"""A relay that delays: a long link between two programs of this machine, over real sockets."""

import asyncio
import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

PIECE = 65536


class Direction:
    """Bytes on their way in one direction: each leaves when the link has carried it and the delay is over."""

    def __init__(self, delay: float, rate: float) -> None:
        self._delay = delay
        self._rate = rate
        # What a sender may have under way: what the link carries in a round trip, as much again in queues, and some for a start.
        self._room = int(4 * delay * rate) + (1 << 20)
        self._held = 0
        self._free_at = 0.0
        self._pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._left = asyncio.Event()

    async def take(self, source: socket.socket) -> None:
        """Read to the end of the stream, while there is room."""
        loop = asyncio.get_running_loop()
        while True:
            while self._held >= self._room:
                self._left.clear()
                await self._left.wait()
            piece = b""
            with contextlib.suppress(ConnectionError):
                piece = await loop.sock_recv(source, PIECE)
            self._free_at = max(self._free_at, loop.time()) + len(piece) / self._rate
            self._held += len(piece)
            self._pieces.put_nowait((self._free_at + self._delay, piece))
            if not piece:
                return

    async def deliver(self, sink: socket.socket) -> None:
        """Write what has arrived, and the end of the stream behind it."""
        loop = asyncio.get_running_loop()
        while True:
            due, piece = await self._pieces.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not piece:
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
                return
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(sink, piece)
            self._held -= len(piece)
            self._left.set()


class DelayingRelay:
    """Listens on 127.0.0.1 in a thread of its own and relays each connection to ``target``; a context manager that ends it.

    Each direction carries ``rate`` bytes a second, and what goes in comes out ``round_trip`` / 2 seconds later.
    """

    def __init__(self, target: int, round_trip: float, rate: float) -> None:
        self._target = target
        self._delay = round_trip / 2
        self._rate = rate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._relays: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._accepting = self._loop.create_task(self._accept())
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._accepting.cancel)
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._accepting)
        self._loop.close()

    async def _accept(self) -> None:
        try:
            while True:
                accepted, _ = await self._loop.sock_accept(self._listener)
                self._relays.add(task := self._loop.create_task(self._relay(accepted)))
                task.add_done_callback(self._relays.discard)
        finally:
            self._listener.close()
            relays = list(self._relays)
            for relay in relays:
                relay.cancel()
            await asyncio.gather(*relays, return_exceptions=True)

    async def _relay(self, accepted: socket.socket) -> None:
        with accepted, socket.socket() as dialled:
            for one in (accepted, dialled):
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(dialled, ("127.0.0.1", self._target))
            up, down = Direction(self._delay, self._rate), Direction(self._delay, self._rate)
            async with asyncio.TaskGroup() as group:
                for direction, source, sink in ((up, accepted, dialled), (down, dialled, accepted)):
                    group.create_task(direction.take(source))
                    group.create_task(direction.deliver(sink))
