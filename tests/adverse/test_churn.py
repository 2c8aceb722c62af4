"""Clients that ask for one new name after another: what is kept of them is bounded, and what is not kept is given back."""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Callable

import pytest

from soth_mitm import InterceptHandler
from soth_mitm.proxy import upstream_pools
from support.certs import TestCA
from support.origin import Origin
from support.origin_answers import pattern
from support.running import HOST, ProxyFactory, Running

NAMES = 300
BATCHES = 4
BOUND = 16
# One lost session or certificate for each name would be several times this
MOST_PER_NAME = 500


class _MallInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks used free keepcost".split()]


@pytest.fixture
def allocated() -> Callable[[], int]:
    """Tell how much is allocated in C, OpenSSL's among it; small Python objects live elsewhere."""
    library = ctypes.CDLL(None)
    if platform.libc_ver()[0] != "glibc" or not hasattr(library, "mallinfo2"):
        pytest.skip("only glibc from 2.33 on tells what is allocated")
    library.mallinfo2.restype = _MallInfo

    def ask() -> int:
        gc.collect()
        return int(library.mallinfo2().used)

    if ask() == 0:
        pytest.skip("another allocator takes its place (a sanitizer)")
    return ask


def ask_for_names(running: Running, origin: Origin, names: range) -> None:
    context = running.client_context()
    for number in names:
        with running.tunnel(origin.port, "127.0.0.1") as client:
            client.start_tls(context, f"name-{number}.example.test")
            assert client.request("/bytes/3", HOST, extra="Connection: close\r\n").body == pattern(3)
    running.wait_idle()


def test_new_names_take_no_memory_for_good(
    allocated: Callable[[], int], proxy: ProxyFactory, origin_ca: TestCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_pools, "MAX_ORIGINS", BOUND)
    small = {"tls.leaf_cache_capacity": BOUND, "tls.learn_bypass": False, "connection_pool.max_hosts": BOUND}
    running = proxy(InterceptHandler(), **small)
    with Origin(origin_ca.server_context("*.example.test"), host="127.0.0.1") as origin:
        grown = []
        for batch in range(BATCHES):
            before = allocated()
            ask_for_names(running, origin, range(batch * NAMES, (batch + 1) * NAMES))
            origin.connections.clear()
            origin.requests.clear()
            grown.append(allocated() - before)
    # what is lost for each name is lost in each batch; a bounded cache that doubles its table does so in one of them
    assert min(grown[1:]) / NAMES < MOST_PER_NAME, grown
    metrics = running.metrics()
    assert metrics.leaf_minted_count == BATCHES * NAMES and metrics.upstream_connections <= BOUND
