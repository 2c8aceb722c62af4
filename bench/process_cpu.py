"""What a process and its children have used: CPU to the nanosecond where the system tells, resident memory, and the cores they may use."""

import contextlib
import os
import shutil
import sys
import time

import psutil


def _cpu_seconds(process: psutil.Process) -> float:
    """CPU time of all threads of one process, user and system, ended threads included."""
    if sys.platform == "linux":
        # The process's CPU clock (clock_getcpuclockid(3)): /proc/<pid>/stat counts in ticks of 10 ms, a run lasts a second.
        with contextlib.suppress(OSError):
            return time.clock_gettime((~process.pid << 3) | 2)
    times = process.cpu_times()
    return float(times.user + times.system)


class ProcessTree:
    """A process that the benchmark started, together with its children (nginx has a master and a worker)."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def processes(self) -> list[psutil.Process]:
        """Return the root and everything below it that is alive now."""
        return [self._root, *self._root.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far; a child that ended is no longer counted, so compare only while the tree is stable."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += _cpu_seconds(process)
        return total

    def resident_bytes(self) -> int:
        """Return the resident memory of the tree; pages that parent and child share count twice."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total


class Cores:
    """Which cores the measured proxy and the two native ends run on.

    On two cores the proxy has the last one for itself and the ends share the first; with more, load and origin get one each. Without
    ``pin``, with one core, or without ``taskset`` everything floats.
    """

    def __init__(self, *, pin: bool) -> None:
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.pinned = pin and len(allowed) >= 2 and shutil.which("taskset") is not None
        self.proxy = allowed[-1] if self.pinned else None
        self.load = allowed[0] if self.pinned else None
        self.origin = (allowed[1] if len(allowed) > 2 else allowed[0]) if self.pinned else None

    def __str__(self) -> str:
        if not self.pinned:
            return "not pinned"
        return f"proxy on core {self.proxy}, load on core {self.load}, origin on core {self.origin}"


def prefix_command(core: int | None) -> list[str]:
    """Return what to put before a command so that it runs on ``core`` and ends when we do; both tools exec, so the pid stays ours."""
    command = []
    if shutil.which("setpriv"):
        command += ["setpriv", "--pdeathsig", "TERM"]
    if core is not None:
        command += ["taskset", "--cpu-list", str(core)]
    return command
