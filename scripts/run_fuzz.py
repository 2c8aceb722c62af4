"""Fuzz the targets of tests/fuzz, one after the other, in a build with libFuzzer's counters and the sanitizers.

What is found is kept below `build/fuzz/TARGET`: the inputs that led somewhere in `corpus`, which the next run begins with, those that
broke something in `findings`, and everything that libFuzzer said in `log`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from prepare import ROOT, prepare, tool_environment, variant_name

WORK = ROOT / "build/fuzz"
SECONDS = 60
SECONDS_BETWEEN_LINES = 20
# The longest that one input may take
SECONDS_AN_INPUT = 25
MOST_MEGABYTES = 2048
STATUS = re.compile(r"#(\d+)\s.*?cov: (\d+) ft: (\d+) corp: (\d+)/\S+ .*?exec/s: (\d+) rss: (\d+)Mb")
TROUBLE = re.compile(r"Uncaught Python exception|ERROR: |runtime error:|Traceback")
LINES_OF_TROUBLE = 60


class Outcome(NamedTuple):
    """What came of one target. `runs` and `counters` are libFuzzer's last word, `finding` the input that broke something."""

    name: str
    seconds: float
    runs: int
    counters: int
    code: int
    finding: Path | None

    def __str__(self) -> str:
        said = f"{self.runs} inputs in {self.seconds:.0f} s ({self.runs / max(self.seconds, 1):.0f}/s), {self.counters} counters reached"
        if self.code == 0:
            return f"{self.name:<18}{said}, nothing found"
        where = self.finding.relative_to(ROOT) if self.finding else f"{(WORK / self.name / 'log').relative_to(ROOT)}, exit code {self.code}"
        return f"{self.name:<18}{said}, FOUND {where}"


def choose_build() -> None:
    """Say in the environment what `setup.py` is to build; only clang can count for libFuzzer."""
    if sys.platform != "linux":
        sys.exit("scripts/fuzz needs Linux: the sanitizers' runtime is preloaded into a stock Python")
    *wrappers, compiler = os.environ.get("CC", "clang").split()
    if "clang" not in compiler:
        compiler = "clang"
    if not shutil.which(compiler):
        sys.exit(f"scripts/fuzz needs clang: `{compiler}` is not on PATH (Debian: apt install clang; or name one: CC=clang-18)")
    os.environ["CC"] = " ".join([*wrappers, compiler])
    for switch in ("DEBUG", "SANITIZE", "FUZZ"):
        os.environ[f"SOTH_MITM_{switch}"] = "1"


def fuzzing_environment(python: Path) -> dict[str, str]:
    """Return what makes this Python run instrumented extensions: libFuzzer and the sanitizers' runtime in one library of atheris."""
    folder = subprocess.run(
        [python, "-c", "import atheris; print(atheris.path())"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        **tool_environment(python),
        "LD_PRELOAD": f"{folder}/asan_with_fuzzer.so",
        # the quarantine is for bugs within one input, and a large one costs more time than everything else; leaks are the ledger's business
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:quarantine_size_mb=32",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        # pymalloc would hide overruns inside its arenas
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT / "tests"),
    }


def ask(python: Path, environment: dict[str, str], code: str) -> list[str]:
    """Run this in Python, and return the words that it prints."""
    return subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.split()


def targets(python: Path, environment: dict[str, str]) -> dict[str, dict[str, str]]:
    """Ask the tests which targets there are; return the environment of each.

    libFuzzer looks for a mutator when it is loaded, so that those which bring their own need that of atheris to be there already.
    """
    known = ask(python, environment, "from fuzz.targets import TARGETS; print(*TARGETS)")
    mutating = ask(python, environment, "from fuzz.targets import TARGETS; print(*(name for name in TARGETS if TARGETS[name].mutate))")
    (library,) = ask(python, environment, "from atheris import custom_mutator; print(custom_mutator.__file__)")
    preloaded = {**environment, "LD_PRELOAD": f"{environment['LD_PRELOAD']} {library}"}
    return {name: preloaded if name in mutating else environment for name in known}


def fuzz(python: Path, environment: dict[str, str], name: str, seconds: int) -> Outcome:
    """Fuzz one target for a time; a line now and then says how far it is."""
    folder = WORK / name
    for part in ("corpus", "findings"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    before = set((folder / "findings").iterdir())
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS_AN_INPUT}",
        f"-rss_limit_mb={MOST_MEGABYTES}",
        f"-artifact_prefix={folder / 'findings'}/",
        "-print_funcs=0",
    ]
    command: list[str | Path] = [python, "-m", "fuzz.drive", name, folder, *options, folder / "corpus", folder / "seeds"]
    started, printed, runs, counters = time.monotonic(), 0.0, 0, 0
    trouble: list[str] = []
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace") as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if trouble or TROUBLE.search(line):
                trouble.append(line)
            elif status := STATUS.match(line):
                runs, counters = int(status[1]), int(status[2])
                elapsed = time.monotonic() - started
                if elapsed - printed >= SECONDS_BETWEEN_LINES:
                    printed = elapsed
                    print(
                        f"{name:<18}{elapsed:6.0f} s {runs:>10} inputs {status[5]:>7}/s {counters:>7} counters {status[6]:>6} MB",
                        flush=True,
                    )
    print("".join(trouble[:LINES_OF_TROUBLE]), end="", file=sys.stderr, flush=True)
    findings = sorted(set((folder / "findings").iterdir()) - before)
    outcome = Outcome(name, time.monotonic() - started, runs, counters, process.returncode, findings[0] if findings else None)
    print(outcome, flush=True)
    return outcome


def replay(python: Path, environment: dict[str, str], name: str, file: Path) -> int:
    """Run one input and show everything that comes of it."""
    (WORK / name).mkdir(parents=True, exist_ok=True)
    print(subprocess.run([python, "-m", "fuzz.operations", file], env=environment, capture_output=True, text=True).stdout, flush=True)
    return subprocess.run([python, "-m", "fuzz.drive", name, WORK / name, file], cwd=ROOT, env=environment).returncode


def main() -> int:
    """Fuzz what is asked for; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Fuzz our wire code under AddressSanitizer and UBSan.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="what to fuzz; all of them, unless given")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"for how long each target is fuzzed (default: {SECONDS})")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input of the only target instead")
    arguments = parser.parse_args()
    choose_build()
    python = prepare(variant_name(), extra="fuzz")
    environment = fuzzing_environment(python)
    known = targets(python, environment)
    if unknown := [name for name in arguments.targets if name not in known]:
        parser.error(f"no target is called {unknown[0]}; there are: {', '.join(known)}")
    if arguments.replay is not None:
        if len(arguments.targets) != 1:
            parser.error("--replay needs exactly one target")
        return replay(python, known[arguments.targets[0]], arguments.targets[0], arguments.replay)
    outcomes = [fuzz(python, known[name], name, arguments.seconds) for name in arguments.targets or known]
    found = [outcome for outcome in outcomes if outcome.code]
    runs = sum(outcome.runs for outcome in outcomes)
    if found:
        names = ", ".join(outcome.name for outcome in found)
        print(f"fuzz: FOUND something in {names}; run it again with scripts/fuzz TARGET --replay FILE")
        return 1
    print(f"fuzz: nothing found in {len(outcomes)} targets, {runs} inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
