"""Connections whose loop went away under them: nobody calls `connection_lost`, and the garbage collector finds all of it at once.

In processes of their own, since what went wrong here was the end of the process.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

SETTING = """
    import asyncio, gc
    from soth_mitm._dataplane.memory import ledger
    from soth_mitm._dataplane.memory.budget import Budget
    from soth_mitm._dataplane.memory.buffer import Arena
    from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
    from soth_mitm.proxy.protocols import ClientEndpoint

    class Transport:
        def __init__(self, loop, protocol):
            self.loop, self.protocol = loop, protocol
            loop.transports.append(self)
        def write(self, data): pass
        def set_write_buffer_limits(self, high): pass
        def pause_reading(self): pass

    class Loop:
        def __init__(self):
            self.transports = []
        def call_soon(self, callback): pass
        def create_future(self): return object()

    def connect(loop, arena):
        intake = AwaitableEndpoint(loop)
        endpoint = ClientEndpoint(arena, intake)
        endpoint.connection_made(Transport(loop, endpoint))
        intake.attach(endpoint)
        return endpoint

    def receive(endpoint, data):
        with memoryview(endpoint.get_buffer(-1)) as room:
            room[:len(data)] = data
        endpoint.buffer_updated(len(data))
"""
UNREAD = """
    def abandon():
        loop = Loop()
        arena = Arena(4096, Budget(1 << 20, loop.call_soon))
        for _ in range(5):
            receive(connect(loop, arena), b"GET /")
"""
ENCRYPTED = """
    import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def abandon():
        loop = Loop()
        arena = Arena(4096, Budget(1 << 20, loop.call_soon))
        for _ in range(5):
            endpoint = connect(loop, arena)
            receive(endpoint, b"\\x16\\x03\\x01\\x02\\x00" + bytes(100))
            endpoint.start_tls(context, True)
"""
LOOP_CLOSED = """
    import socket, tempfile, warnings
    from soth_mitm import InterceptHandler, MitmConfig, MitmProxyBuilder
    warnings.simplefilter("ignore", ResourceWarning)
    state = tempfile.mkdtemp()

    def abandon():
        config = MitmConfig()
        config.bind = "127.0.0.1:0"
        config.interception.destinations.append("a.example:80")
        config.tls.ca_cert_path = f"{state}/ca.pem"
        config.tls.ca_key_path = f"{state}/key.pem"
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        handle = loop.run_until_complete(MitmProxyBuilder(config, InterceptHandler()).build().start())
        clients = [socket.create_connection(("127.0.0.1", handle.port)) for _ in range(6)]
        for client in clients[:5]:
            client.sendall(b"GET / HTTP/1.1\\r\\nHost: a")
        # when the last one has its answer, all before it have been read
        clients[5].sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        loop.run_until_complete(loop.run_in_executor(None, clients[5].recv, 4096))
        loop.close()
        for client in clients:
            client.close()
"""
COLLECT = """
    for _ in range(20):
        abandon()
        gc.collect()
    print("survived", ledger.counts().get("blocks", 0))
"""


@pytest.mark.parametrize("abandon", [UNREAD, ENCRYPTED, LOOP_CLOSED], ids=["unread", "encrypted", "a loop that is closed"])
def test_memory_is_given_back_once(abandon: str) -> None:
    code = "".join(map(textwrap.dedent, (SETTING, abandon, COLLECT)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "survived 0"), done.stderr[-3000:]
