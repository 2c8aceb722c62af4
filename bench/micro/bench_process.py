"""What it costs to find the process behind a connection (Linux): microseconds per lookup, median and 95th percentile.

`python bench/micro/bench_process.py [--processes N] [--descriptors M] [--rounds R]` looks for a client among N idle processes that hold M
descriptors each.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from soth_mitm.process import linux
from soth_mitm.process._linux.sock_diag import SockDiag
from soth_mitm.process.address import pack_host
from soth_mitm.process.attribution import ProcessAttribution

CONNECT = "import socket, sys; s = [socket.create_connection(('127.0.0.1', int(p))) for p in sys.argv[1:] * 2]; sys.stdin.read()"


@contextmanager
def idle_processes(count: int, descriptors: int) -> Iterator[None]:
    """Fork `count` processes that hold `descriptors` open sockets each and sleep."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            held = [socket.socket() for _ in range(descriptors)]
            signal.pause()
            os._exit(len(held))
        pids.append(pid)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def client() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Start a client with two connections to us."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        port = str(listener.getsockname()[1])
        process = stack.enter_context(subprocess.Popen([sys.executable, "-c", CONNECT, port], stdin=subprocess.PIPE))
        first, second = (stack.enter_context(listener.accept()[0]) for _ in range(2))
        yield first, second
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def busy_thread() -> Iterator[None]:
    """Run Python code in another thread, with a short system call now and then."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(500))
            os.stat("/")

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure(name: str, rounds: int, work: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> None:
    """Print the median and the 95th percentile of `rounds` calls."""
    times = []
    for _ in range(rounds):
        prepare()
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e6)
    times.sort()
    print(f"{name:58} {statistics.median(times):9.0f} {times[int(len(times) * 0.95)]:9.0f}")


def run(connections: tuple[socket.socket, socket.socket], rounds: int) -> None:
    """Measure each step, then whole lookups."""
    ends = [(connection.getsockname(), connection.getpeername()) for connection in connections]
    attribution = ProcessAttribution()
    system = linux.LinuxProcesses()
    kernel = SockDiag()
    local, remote = ends[0]
    info = attribution.lookup(local, remote)
    if info is None:
        raise SystemExit("the client was not found")
    pid = info.pid

    def forget() -> None:
        nonlocal attribution
        attribution.close()
        attribution = ProcessAttribution()

    def read_table() -> None:
        with open("/proc/net/tcp", "rb") as file:
            linux.find_in_table(file.read(), remote, local, mapped=False)

    print(f"{'microseconds':58} {'median':>9} {'p95':>9}")
    measure("socket by sock_diag", rounds, lambda: kernel.ask(pack_host(remote[0]), remote[1], pack_host(local[0]), local[1]))
    measure("socket by /proc/net/tcp", rounds, read_table)
    measure("start token", rounds, lambda: system.start_token(pid))
    measure("describe", rounds, lambda: system.describe(pid))
    measure("lookup, nothing known (search and describe)", rounds, lambda: attribution.lookup(local, remote), forget)
    attribution.lookup(local, remote)
    measure("lookup, known process, same descriptor", rounds, lambda: attribution.lookup(local, remote))
    measure("two lookups, known process, another descriptor each time", rounds, lambda: [attribution.lookup(*end) for end in ends])
    measure("recall of a known process", rounds, lambda: attribution.recall(local, remote))
    measure("lookup of a client that is not here", rounds, lambda: attribution.lookup(local, ("192.0.2.1", 9)))


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--descriptors", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--busy", action="store_true", help="keep the interpreter busy with another thread meanwhile")
    parser.add_argument("--oldest", action="store_true", help="start the client before the idle processes (the worst case), not after them")
    options = parser.parse_args()
    age = "oldest" if options.oldest else "newest"
    print(f"{options.processes} idle processes, {options.descriptors} sockets each; client {age}; busy interpreter: {options.busy}")
    with ExitStack() as stack:
        connections = stack.enter_context(client()) if options.oldest else None
        stack.enter_context(idle_processes(options.processes, options.descriptors))
        connections = connections or stack.enter_context(client())
        if options.busy:
            stack.enter_context(busy_thread())
        run(connections, options.rounds)


if __name__ == "__main__":
    main()
