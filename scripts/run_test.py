"""Build, check and test the package as it is installed: scripts/test [--debug | --sanitize] [arguments of pytest].

Without arguments every test runs, on the loop that users get, and the end-to-end ring on asyncio's own as well; three parts at a time.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Self

from prepare import ROOT, prepare, tool_environment, variant_name
from run_check import check

LAST_TEST = ROOT / ".pytest_cache/d/running/test"
END_TO_END = "tests/e2e"
# What serves no client in this process: it runs once
ON_NO_LOOP = ("tests/e2e/test_web_page.py", "tests/e2e/test_web_view.py")
ADVERSE = "tests/adverse"


def sanitizer_environment() -> dict[str, str]:
    """Return what makes a Python that was not built with a sanitizer run extensions that were."""
    if sys.platform != "linux":
        sys.exit("--sanitize needs Linux: elsewhere the sanitizer's runtime cannot be preloaded into a stock Python")
    compiler = os.environ.get("CC", "cc").split()[0]
    runtime = "libclang_rt.asan-x86_64.so" if "clang" in compiler else "libasan.so"
    path = subprocess.run([compiler, f"-print-file-name={runtime}"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_absolute():
        sys.exit(f"--sanitize: `{compiler}` has no {runtime}; install the compiler's sanitizer runtime, or choose another with CC=gcc")
    return {
        "LD_PRELOAD": path,
        # detect_leaks: the interpreter keeps memory until it exits, and ours is the ledger's business; verify_asan_link_order: child
        # processes are started without the preload (tests/conftest.py), and those that are Python still load our extensions
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:verify_asan_link_order=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        # pymalloc would hide overruns inside its arenas
        "PYTHONMALLOC": "malloc",
    }


def main(arguments: list[str]) -> int:
    """Run it all; the exit code is the first failure's."""
    extra: dict[str, str] = {}
    while arguments and arguments[0] in ("--debug", "--sanitize"):
        os.environ["SOTH_MITM_DEBUG"] = "1"
        if arguments[0] == "--sanitize":
            os.environ["SOTH_MITM_SANITIZE"] = "1"
            extra = sanitizer_environment()
        arguments = arguments[1:]

    python = prepare(variant_name())
    if not check(python):
        return 1
    LAST_TEST.unlink(missing_ok=True)
    environment = {**tool_environment(python), **extra, "SOTH_MITM_VARIANT": variant_name()}
    if arguments:
        return run_pytest(python, arguments, environment)
    # at a time, since none needs a whole core: the end-to-end ring on either loop, tests/adverse behind the first, and everything else
    folders = [str(folder.relative_to(ROOT)) for folder in sorted((ROOT / "tests").iterdir()) if folder.is_dir()]
    rest = [folder for folder in folders if folder not in (END_TO_END, ADVERSE) and any((ROOT / folder).rglob("test_*.py"))]
    beside = {
        "tests/e2e on the loop of asyncio": [[END_TO_END, "--loop", "asyncio", *(f"--ignore={file}" for file in ON_NO_LOOP)]],
        "the other folders": [rest],
    }
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(Part(name, python, runs, environment)) for name, runs in beside.items()]
        codes = [run_pytest(python, [folder], environment) for folder in (END_TO_END, ADVERSE)]
        codes += [part.wait() for part in parts]
    return next((code for code in codes if code), 0)


class Part:
    """What runs beside the first part: one pytest after another, in a thread. What they write is shown when they have ended."""

    def __init__(self, name: str, python: Path, runs: list[list[str]], environment: dict[str, str]) -> None:
        self._name, self._python, self._runs, self._environment = name, python, runs, environment
        self._output = tempfile.TemporaryFile()
        self._codes: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it now, if it has not ended."""
        self._is_killed = True
        if self._process is not None:
            self._process.kill()
        self._thread.join()
        self._output.close()

    def _run(self) -> None:
        cache = f"cache_dir=.pytest_cache/{Path(self._runs[0][0]).name}-beside"
        for arguments in self._runs:
            if self._is_killed:
                return
            self._process = subprocess.Popen(
                [self._python, "-m", "pytest", *arguments, "-o", cache],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
            )
            self._codes.append(self._process.wait())

    def wait(self) -> int:
        """Wait for its end, and show what it wrote; the exit code is the first failure's."""
        self._thread.join()
        print(f"{self._name}:", flush=True)
        self._output.seek(0)
        sys.stdout.buffer.write(self._output.read())
        sys.stdout.flush()
        return next((code for code in self._codes if code), 0)


def run_pytest(python: Path, arguments: list[str], environment: dict[str, str]) -> int:
    """Run pytest; the exit code is its own, or 1 when it died."""
    code = subprocess.run([python, "-m", "pytest", *arguments], cwd=ROOT, env=environment).returncode
    if code < 0 or code > 100:
        died = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        where = LAST_TEST.read_text() if LAST_TEST.exists() else "no test"
        print(f"pytest died ({died}) while running: {where}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
