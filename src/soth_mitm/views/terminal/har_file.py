"""Writes what a filter finds to a HAR file, for its owner alone."""

import itertools
import os
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from soth_mitm.observe.har import HarFlow, har_document
from soth_mitm.views.store_source import StoreSource


def write_har(source: StoreSource, filter_text: str, folder: Path) -> tuple[Path, int]:
    """Write the requests that the filter finds, oldest first; return the new file and their number. `OSError`, `StoreError`."""
    count = 0

    def counted(flows: Iterator[HarFlow]) -> Iterator[HarFlow]:
        nonlocal count
        for flow in flows:
            count += 1
            yield flow

    path, descriptor = _new_file(folder)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(har_document(counted(source.har_flows(filter_text)), version("soth-mitm")))
    return path, count


def _new_file(folder: Path) -> tuple[Path, int]:
    """Make a file that was not there, with a name that says when."""
    name = f"soth-mitm-{datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count():
        path = folder / f"{name}{f'-{number}' if number else ''}.har"
        try:
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
    raise AssertionError("unreachable")
