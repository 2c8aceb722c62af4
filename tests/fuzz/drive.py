"""Run one target under libFuzzer: ``python -m fuzz.drive TARGET FOLDER [arguments of libFuzzer]``. scripts/fuzz starts this."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

from fuzz.targets import TARGETS, Target


def write_seeds(target: Target, folder: Path) -> None:
    """Write the seeds of a target where libFuzzer reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (folder / f"seed-{number:04}").write_bytes(seed)


def write_words(target: Target, path: Path) -> None:
    """Write the dictionary of a target."""
    lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
    path.write_text("# one word a line\n" + "".join(f'"{line}"\n' for line in lines))


def load(target: Target) -> Callable[[bytes], None]:
    """Import a target, with counters in the bytecode of the Python modules that it is about."""
    if not target.instrumented:
        return target.run
    with atheris.instrument_imports(include=list(target.instrumented), enable_loader_override=False):
        return target.run


def without_timer(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Stop libFuzzer's timer before an exception ends the process: its signal would, before the input is written down."""

    def test_one(data: bytes) -> None:
        try:
            run(data)
        except BaseException:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise

    return test_one


def mutator(target: Target) -> dict[str, Callable[[bytes, int, int], bytes]]:
    """Return the option that says what changes inputs, if it is not to be libFuzzer."""
    change = target.mutate
    return {} if change is None else {"custom_mutator": lambda data, most, seed: change(data, most, seed, atheris.Mutate)}


def main(arguments: list[str]) -> None:
    """Write the seeds and fuzz; libFuzzer ends the process."""
    # not for the symbolizer, which the sanitizers start, and which is no Python
    os.environ.pop("LD_PRELOAD", None)
    target = TARGETS[arguments[1]]
    run = load(target)
    folder = Path(arguments[2])
    # what is logged about broken peers is of no interest here, and there is a lot of it
    logging.getLogger("soth_mitm").setLevel(logging.CRITICAL)
    write_seeds(target, folder / "seeds")
    write_words(target, folder / "words")
    options = [f"-max_len={target.longest}", f"-dict={folder / 'words'}", *arguments[3:]]
    atheris.Setup([arguments[0], *options], without_timer(run), **mutator(target))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
