"""Break one line of the source at a time and see that the tests named for it notice: scripts/break [--jobs N] [--list] [NAME ...].

tests/breaks.toml holds the breaks: a file, a line of it, what the line becomes, and the tests that must fail then. Each worker has a copy
of the tree and of the installed package below build/break. It changes the line there, compiles what the line belongs to, runs the tests,
and puts everything back. That is one module for a line of a `.pyx`. An entry for a `.pxd` or for a header of ext/ names the `modules` that
are compiled; the programs of tests/c compile the header themselves, and need none. The named tests are run on the unbroken package first,
for a test that fails anyway notices nothing. A break that no test notices survives, and the exit code is 1.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests/breaks.toml"
FOLDERS = ("src", "ext", "tests", "docs", "scripts", "bench")
FILES = ("setup.py", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
# A break may make a test wait for ever; that is noticed too. What never comes back to Python has no time of its own and is killed.
TEST_SECONDS = 60
KILL_SECONDS = 90

# Run in a worker's tree: compile the modules named, without optimisation, into a folder
COMPILE = """
import runpy, sys
from Cython.Build import cythonize
from setuptools import Distribution
recipe = runpy.run_path("setup.py", run_name="setup")
wanted = set(sys.argv[2:])
modules = [each for each in recipe["extension_modules"]() if each.name in wanted]
for each in modules:
    each.extra_compile_args = [*(flag for flag in each.extra_compile_args if not flag.startswith("-O")), "-O0"]
directives = recipe["DIRECTIVES"]
made = cythonize(modules, build_dir=sys.argv[1] + "/c", compiler_directives=directives, include_path=["src"], force=True, quiet=True)
command = Distribution({"ext_modules": made}).get_command_obj("build_ext")
command.build_lib, command.build_temp = sys.argv[1] + "/lib", sys.argv[1] + "/o"
command.ensure_finalized()
command.run()
"""


@dataclass(frozen=True)
class Break:
    """One line, what it becomes, and the tests that must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    modules: tuple[str, ...]

    @property
    def compiled(self) -> tuple[str, ...]:
        """The dotted names of the extension modules that must be compiled, none for Python."""
        path = Path(self.file)
        return (".".join(path.relative_to("src").with_suffix("").parts),) if path.suffix == ".pyx" else self.modules

    def applied(self, code: str) -> str:
        """Return `code` with the line changed; `ValueError` unless `old` stands there exactly once and within a line."""
        if code.count(self.old) != 1:
            raise ValueError(f"{self.name}: `{self.old}` stands {code.count(self.old)} times in {self.file}, not once")
        if "\n" in self.old or "\n" in self.new:
            raise ValueError(f"{self.name}: a break changes one line")
        return code.replace(self.old, self.new)


def read_breaks(path: Path = LIST) -> list[Break]:
    """Return the breaks in the order of the file."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return [
        Break(each["name"], each["file"], each["old"], each["new"], tuple(each["tests"]), tuple(each.get("modules", ())))
        for each in document["break"]
    ]


class Worker:
    """A copy of the tree and of the installed package, in which one break at a time is tried."""

    def __init__(self, number: int) -> None:
        self._home = ROOT / "build/break" / str(number)
        shutil.rmtree(self._home, ignore_errors=True)
        self._tree, self._site = self._home / "tree", self._home / "site"
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "results")
        for folder in FOLDERS:
            shutil.copytree(ROOT / folder, self._tree / folder, ignore=ignored)
        for file in FILES:
            shutil.copy(ROOT / file, self._tree / file)
        shutil.copytree(Path(sysconfig.get_path("platlib")) / "soth_mitm", self._site / "soth_mitm")

    def run_tests(self, *arguments: str, seconds: float | None = None) -> subprocess.CompletedProcess[str]:
        """Run pytest with `arguments` on this worker's package, for at most `seconds`."""
        paths = {"PYTHONPATH": str(self._site), "PYTHONDONTWRITEBYTECODE": "1", "SOTH_MITM_VARIANT": "release"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        with tempfile.TemporaryDirectory(prefix="soth-mitm-break") as temporary:
            environment = {**os.environ, **paths, "PATH": path, "TMPDIR": temporary}
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-o",
                f"cache_dir={temporary}/cache",
                f"--timeout={TEST_SECONDS}",
                *arguments,
            ]
            return subprocess.run(
                command,
                cwd=self._tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=seconds,
            )

    def try_break(self, what: Break) -> str:
        """Return "" when the tests noticed, else what went wrong."""
        source = self._tree / what.file
        before = source.read_text(encoding="utf-8")
        try:
            broken = what.applied(before)
        except ValueError as error:
            return str(error)
        saved = self._home / "saved"
        shutil.rmtree(saved, ignore_errors=True)
        saved.mkdir()
        targets = [self._library(module) for module in what.compiled]
        if source.suffix == ".py":
            targets = [self._site / Path(what.file).relative_to("src")]
        for number, target in enumerate(targets):
            shutil.copy2(target, saved / str(number))
        source.write_text(broken, encoding="utf-8")
        try:
            if source.suffix == ".py":
                targets[0].write_text(broken, encoding="utf-8")
            elif what.compiled:
                failure = self._compile(what.compiled, targets)
                if failure:
                    return f"does not compile:\n{failure}"
            result = self.run_tests("-x", *what.tests, seconds=KILL_SECONDS)
        except subprocess.TimeoutExpired:
            return ""
        finally:
            source.write_text(before, encoding="utf-8")
            for number, target in enumerate(targets):
                os.replace(saved / str(number), target)
        if result.returncode == 0:
            return "survived"
        # 1: tests failed; a negative code or more than 128: the interpreter died, which is noticed as well
        if result.returncode == 1 or result.returncode < 0 or result.returncode > 128:
            return ""
        return f"pytest ended with {result.returncode}, which is no failed test:\n{result.stdout[-2000:]}"

    def _library(self, module: str) -> Path:
        *package, name = module.split(".")
        return next(self._site.joinpath(*package).glob(f"{name}.*.so"))

    def _compile(self, modules: tuple[str, ...], targets: list[Path]) -> str:
        work = self._home / "compiled"
        shutil.rmtree(work, ignore_errors=True)
        result = subprocess.run(
            [sys.executable, "-c", COMPILE, str(work), *modules], cwd=self._tree, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if result.returncode:
            return (result.stdout + result.stderr)[-3000:]
        for target in targets:
            # a new file: the interpreter of a test that still runs may have the old one mapped
            target.unlink()
            shutil.copy(work / "lib" / target.relative_to(self._site), target)
        return ""


def main(arguments: list[str]) -> int:
    """Try the breaks that are named, or all."""
    parser = argparse.ArgumentParser(prog="scripts/break", description="Break one line at a time; the tests named for it must notice.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a break of tests/breaks.toml, or the start of several names")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many are tried at once (default: one per processor)")
    parser.add_argument("--list", action="store_true", help="print the names and try nothing")
    options = parser.parse_args(arguments)
    breaks = [each for each in read_breaks() if not options.names or each.name.startswith(tuple(options.names))]
    if not breaks:
        parser.error(f"no break begins with {' or '.join(options.names)}; --list prints the names")
    if options.list:
        print("\n".join(each.name for each in breaks))
        return 0

    workers: SimpleQueue[Worker] = SimpleQueue()
    for number in range(min(options.jobs, len(breaks))):
        workers.put(Worker(number))
    first = workers.get()
    tests = tuple(dict.fromkeys(test for each in breaks for test in each.tests))
    print(f"running the {len(tests)} named tests and files on the unbroken package", flush=True)
    unbroken = first.run_tests(*tests)
    workers.put(first)
    if unbroken.returncode:
        print(f"{unbroken.stdout[-4000:]}\nthese must pass before a break can be noticed", file=sys.stderr)
        return 1

    def attempt(what: Break) -> tuple[Break, str]:
        worker = workers.get()
        began = time.monotonic()
        try:
            verdict = worker.try_break(what)
        finally:
            workers.put(worker)
        print(f"{what.name:<64}{time.monotonic() - began:6.1f} s  {verdict.partition(chr(10))[0] or 'noticed'}", flush=True)
        return what, verdict

    with ThreadPoolExecutor(workers.qsize()) as pool:
        results = list(pool.map(attempt, breaks))
    wrong = [(what, verdict) for what, verdict in results if verdict]
    for what, verdict in wrong:
        print(f"\n{what.name} ({what.file})\n- {what.old.strip()}\n+ {what.new.strip()}\n{verdict}", file=sys.stderr)
    print(f"{len(results) - len(wrong)} of {len(results)} breaks were noticed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
