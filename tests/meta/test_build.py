"""What is tested is the artefact: the extension modules are compiled, from this version, installed from a wheel, and nothing is missing.

An editable or in-place build fails here on purpose: `scripts/test` builds and installs what these tests ask for.
"""

import base64
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import os
import sysconfig
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

import soth_mitm
from support.source import ROOT

HINT = "run scripts/test, which builds a wheel and installs it"
INSTALLED = Path(soth_mitm.__file__).resolve().parent
MODULES = sorted(".".join(path.relative_to(INSTALLED).with_suffix("").parts) for path in INSTALLED.rglob("*.pyx"))
TREE = ROOT / "src"


PAGE = "soth_mitm/views/web/index.html"


def recorded_files() -> dict[str, importlib.metadata.PackagePath]:
    """Return the files that the installed distribution says it put there, by path."""
    files = importlib.metadata.distribution("soth-mitm").files or []
    return {path.as_posix(): path for path in files}


def wheel_faults(names: Iterable[str]) -> list[str]:
    """Return what a wheel with these files lacks, or should not have."""
    present = set(names)
    stems = {name.removesuffix(".pyx") for name in present if name.endswith(".pyx")}
    lacking = [stem + suffix for stem in stems for suffix in (".pyi", ".pxd") if stem + suffix not in present]
    lacking += [stem for stem in stems if not any(stem + ending in present for ending in importlib.machinery.EXTENSION_SUFFIXES)]
    lacking += [name for name in ("soth_mitm/py.typed", PAGE) if name not in present]
    # Cython explains what it compiles in files of HTML; ours is one page
    surplus = [name for name in present if name.endswith((".c", ".h", ".o", ".html")) and name != PAGE]
    return sorted([f"lacks {name}" for name in lacking] + [f"should not have {name}" for name in surplus])


def module_faults(file: Path, records: dict[str, importlib.metadata.PackagePath]) -> list[str]:
    """Return why a loaded module's file is not the compiled one of the installed distribution."""
    wrong = []
    if not file.name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
        wrong.append(f"{file} is not a shared object")
    record = next((path for path in records.values() if Path(path.locate()).resolve() == file.resolve()), None)
    if record is None:
        wrong.append(f"{file} does not belong to the installed distribution; {HINT}")
    elif record.hash is not None:
        algorithm = hashlib.new(record.hash.mode, file.read_bytes()).digest()
        if base64.urlsafe_b64encode(algorithm).rstrip(b"=").decode() != record.hash.value:
            wrong.append(f"{file} is not what the wheel brought; {HINT}")
    return wrong


def test_package_is_the_installed_one() -> None:
    sites = [Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")]
    assert any(INSTALLED.is_relative_to(site) for site in sites), f"soth_mitm was imported from {INSTALLED}; {HINT}"
    assert not INSTALLED.is_relative_to(TREE)


def test_version_is_that_of_the_tree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert importlib.metadata.version("soth-mitm") == project["version"], HINT


def test_there_are_extension_modules() -> None:
    assert MODULES, f"{INSTALLED} holds no .pyx; {HINT}"


@pytest.mark.parametrize("name", MODULES)
def test_module_is_compiled_and_from_this_wheel(name: str) -> None:
    module = importlib.import_module(f"soth_mitm.{name}")
    assert module.__file__ is not None
    assert module_faults(Path(module.__file__), recorded_files()) == []


def test_installed_sources_are_those_of_the_tree() -> None:
    if not TREE.is_dir():
        pytest.skip("the tree was taken away")
    kinds = (".py", ".pyi", ".pyx", ".pxd", ".typed", ".js", ".css")
    tree = {path.relative_to(TREE).as_posix(): path.read_bytes() for path in TREE.rglob("*") if path.suffix in kinds}
    installed = {path.relative_to(INSTALLED.parent).as_posix(): path.read_bytes() for path in INSTALLED.rglob("*") if path.suffix in kinds}
    assert sorted(name for name in tree | installed if tree.get(name) != installed.get(name)) == [], HINT


def test_wheel_is_complete() -> None:
    assert wheel_faults(recorded_files()) == []


def test_variant_is_the_one_asked_for() -> None:
    variant = os.environ.get("SOTH_MITM_VARIANT")
    if variant is None:
        pytest.skip("scripts/test says which variant it built")
    ledger = importlib.import_module("soth_mitm._dataplane.memory.ledger")
    assert bool(ledger.counts()) == ("debug" in variant), f"the ledger of the {variant} build is {ledger.counts()}"


def test_wheel_test_can_fail() -> None:
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    whole = ["soth_mitm/py.typed", PAGE, *("soth_mitm/_dataplane/wire/head" + end for end in (".pyx", ".pxd", ".pyi", suffix))]
    assert wheel_faults(whole) == []
    for name in whole:
        assert wheel_faults(set(whole) - {name}) == ([] if name.endswith(".pyx") else [f"lacks {name.removesuffix(suffix)}"])
    for name in ("soth_mitm/_dataplane/wire/head.c", "soth_mitm/_dataplane/wire/head.html"):
        assert wheel_faults([*whole, name]) == [f"should not have {name}"]


def test_module_test_can_fail(tmp_path: Path) -> None:
    lost = tmp_path / f"head{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    lost.write_bytes(b"\x7fELF")
    assert "does not belong" in module_faults(lost, recorded_files())[0]
    assert "is not a shared object" in module_faults(tmp_path / "head.py", {})[0]
    record = importlib.metadata.PackagePath(lost)
    record.hash = importlib.metadata.FileHash("sha256=AAAA")
    record.dist = importlib.metadata.distribution("soth-mitm")
    assert "is not what the wheel brought" in module_faults(lost, {"head": record})[0]
