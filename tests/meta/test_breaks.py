"""The list of scripts/break fits the tree: each line stands where it says, each test exists, and nothing is listed twice."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.source import PACKAGE, ROOT, module_name, package_files

BREAKS: list[dict[str, Any]] = tomllib.loads((ROOT / "tests/breaks.toml").read_text(encoding="utf-8"))["break"]


def wrong_with(entry: Mapping[str, Any], code: str, tests: Mapping[str, str]) -> list[str]:
    """Return what is wrong with an entry, given its file's text and the text of each test file by its path."""
    wrong = []
    if code.count(entry["old"]) != 1:
        wrong.append(f"`{entry['old']}` stands {code.count(entry['old'])} times in {entry['file']}, not once")
    if entry["old"] == entry["new"] or "\n" in entry["old"] + entry["new"]:
        wrong.append("a break changes one line")
    if not entry["tests"]:
        wrong.append("no test is named")
    for test in entry["tests"]:
        path, _, name = test.partition("[")[0].partition("::")
        name = name.rpartition("::")[2]
        if path not in tests:
            wrong.append(f"{path} is not there")
        elif name and not re.search(rf"^\s*(?:async )?def {name}\(", tests[path], re.MULTILINE):
            wrong.append(f"{path} has no {name}")
    return wrong


def wrong_modules(entry: Mapping[str, Any], modules: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the modules that are compiled for an entry, given the text of each module's `.pyx` and `.pxd`."""
    path = Path(entry["file"])
    named = entry.get("modules", [])
    if path.suffix not in (".pxd", ".h"):
        return ["only a line of a .pxd or .h file has modules"] if named else []
    if not named and (path.suffix == ".pxd" or any(not test.startswith("tests/c/") for test in entry["tests"])):
        return ["no module is compiled with the line"]
    wanted = f'"{path.name}"' if path.suffix == ".h" else ".".join(path.relative_to("src").with_suffix("").parts)
    wrong = []
    for module in named:
        if module not in modules:
            wrong.append(f"{module} is no extension module")
        elif wanted not in modules[module] and module != wanted:
            wrong.append(f"{module} does not name {wanted}")
    return wrong


def extension_modules() -> dict[str, str]:
    """Return the text of each extension module by its dotted name: its `.pyx`, its `.pxd`, and the `.pxd` of what it imports from."""
    interfaces = {module_name(path): path.read_text(encoding="utf-8") for path in package_files(".pxd")}
    texts = {}
    for path in package_files(".pyx"):
        name = module_name(path)
        text = path.read_text(encoding="utf-8") + interfaces.get(name, "")
        imported = re.findall(r"^from soth_mitm\.(\S+) cimport", text, re.MULTILINE)
        texts[f"soth_mitm.{name}"] = text + "".join(interfaces.get(each, "") for each in imported)
    return texts


@pytest.mark.parametrize("entry", BREAKS, ids=lambda entry: entry["name"])
def test_break_fits_the_tree(entry: dict[str, Any]) -> None:
    path = Path(entry["file"])
    code = (ROOT / path if path.suffix == ".h" else PACKAGE / path.relative_to("src/soth_mitm")).read_text(encoding="utf-8")
    paths = [ROOT / test.partition("::")[0] for test in entry["tests"]]
    tests = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths if path.is_file()}
    assert wrong_with(entry, code, tests) == []
    assert wrong_modules(entry, MODULES) == []


MODULES = extension_modules()


def test_there_are_enough() -> None:
    """Of each area some: an entry whose line has gone is replaced by one for what took its place."""
    assert len(BREAKS) >= 60
    areas = [entry["name"].partition(":")[0] for entry in BREAKS]
    for area in (
        "framing",
        "fields",
        "retry",
        "pool",
        "decision",
        "policy",
        "strict",
        "addresses",
        "deadline",
        "tls",
        "limit",
        "escape",
        "pause",
        "state",
    ):
        assert areas.count(area) >= 3, area


def test_names_are_unique() -> None:
    names = [entry["name"] for entry in BREAKS]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"old": "absent"}, "stands 0 times"),
        ({"old": "a"}, "stands 2 times"),
        ({"new": "x = a"}, "changes one line"),
        ({"tests": []}, "no test is named"),
        ({"tests": ["tests/t.py::test_other"]}, "has no test_other"),
        ({"tests": ["tests/other.py"]}, "is not there"),
    ],
)
def test_the_check_can_fail(change: dict[str, Any], part: str) -> None:
    entry = {"file": "f", "old": "x = a", "new": "x = b", "tests": ["tests/t.py::test_it"]}
    code, tests = "x = a\ny = a\n", {"tests/t.py": "def test_it() -> None:\n"}
    assert wrong_with(entry, code, tests) == []
    assert any(part in each for each in wrong_with({**entry, **change}, code, tests))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"modules": []}, "no module is compiled"),
        ({"modules": ["soth_mitm.a"]}, "is no extension module"),
        ({"modules": ["soth_mitm.c"]}, "does not name"),
        ({"file": "ext/t.h"}, "does not name"),
        ({"file": "ext/t.h", "modules": []}, "no module is compiled"),
        ({"file": "src/soth_mitm/b.pyx"}, "only a line of"),
    ],
)
def test_the_check_of_modules_can_fail(change: dict[str, Any], part: str) -> None:
    entry = {"file": "src/soth_mitm/b.pxd", "modules": ["soth_mitm.b"], "tests": ["tests/core/t.py"]}
    modules = {"soth_mitm.b": "from soth_mitm.b cimport x", "soth_mitm.c": ""}
    assert wrong_modules(entry, modules) == []
    assert wrong_modules({"file": "ext/t.h", "tests": ["tests/c/t.py"]}, modules) == []
    assert any(part in each for each in wrong_modules({**entry, **change}, modules))
