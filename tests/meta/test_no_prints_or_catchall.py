"""The package writes nothing to standard output, swallows no exception unseen, and holds no path of anybody's machine."""

import ast
import re
from pathlib import Path

import pytest

from support.source import PACKAGE, ROOT, line_of, named, package_files, without_text

BROAD = {"Exception", "BaseException"}
MACHINE_PATH = re.compile(r"/(?:home|Users)/(?!<|\{|\$|\w*\{)\w+|/root/|/tmp/\w+/|[A-Z]:\\+Users\\+\w+")


def _names(node: ast.expr | None) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} if node else set()


def _does_nothing(body: list[ast.stmt]) -> bool:
    idle = (ast.Pass, ast.Continue)
    return all(isinstance(one, idle) or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)) for one in body)


def python_faults(code: str, *, may_print: bool) -> list[str]:
    """Return the prints and blind excepts of a Python file, each beginning with its line."""
    wrong = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            wrong.append(f"{node.lineno}: bare except")
        elif isinstance(node, ast.ExceptHandler) and _names(node.type) & BROAD and _does_nothing(node.body):
            wrong.append(f"{node.lineno}: an exception of any kind vanishes here; name the kinds, or report it")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress") and any(BROAD & _names(kind) for kind in node.args):
            wrong.append(f"{node.lineno}: an exception of any kind vanishes here; name the kinds, or report it")
        elif not may_print and isinstance(node, ast.Name) and node.id == "print":
            wrong.append(f"{node.lineno}: print; log it, or return it")
    return wrong


def cython_faults(code: str) -> list[str]:
    """Return the prints and the blind excepts of a Cython file, each beginning with its line."""
    bare = without_text(code)
    rules = {
        r"^[ \t]*except[ \t]*:": "bare except",
        r"^[ \t]*except[ \t(]+(?:Base)?Exception\b[^\n]*:\s*(?:pass|continue)\b": "an exception of any kind vanishes here",
        r"\bprint[ \t]*\(": "print; log it, or return it",
    }
    return [f"{line_of(bare, hit.start())}: {text}" for rule, text in rules.items() for hit in re.finditer(rule, bare, re.MULTILINE)]


def machine_paths(text: str) -> list[str]:
    """Return the places that name somebody's directory, each beginning with its line."""
    return [f"{line_of(text, hit.start())}: {hit.group()} is a path of one machine" for hit in MACHINE_PATH.finditer(text)]


def _may_print(path: Path) -> bool:
    inside = path.relative_to(PACKAGE).parts
    return inside[0] in ("cli", "__main__.py")


SHIPPED = package_files(".py", ".pyi", ".pyx", ".pxd", ".toml")
WRITTEN = sorted(
    path
    for top in ("scripts", "docs", ".github", ".ci", "ext", "bench")
    for path in (ROOT / top).rglob("*")
    if path.is_file() and path.suffix in ("", ".py", ".md", ".yml", ".toml", ".h", ".c") and b"\0" not in path.read_bytes()
)


@pytest.mark.parametrize("path", package_files(".py", ".pyx"), ids=named)
def test_no_print_and_no_blind_except(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    wrong = python_faults(code, may_print=_may_print(path)) if path.suffix == ".py" else cython_faults(code)
    assert not wrong, "\n".join(f"{named(path)}:{rule}" for rule in wrong)


@pytest.mark.parametrize("path", SHIPPED + WRITTEN, ids=named)
def test_no_path_of_one_machine(path: Path) -> None:
    assert machine_paths(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    f()\nexcept:\n    log()",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept (ValueError, BaseException) as e:\n    'nothing'",
        "for x in y:\n    try:\n        f()\n    except Exception:\n        continue",
        "with contextlib.suppress(Exception):\n    f()",
        "print(1)",
        "x = [print]",
    ],
)
def test_python_rules_can_fail(code: str) -> None:
    assert python_faults(code, may_print=False)


def test_python_rules_let_pass() -> None:
    assert not python_faults("try:\n    f()\nexcept Exception:\n    log.exception('x')\nexcept OSError:\n    pass", may_print=False)
    assert not python_faults("print('address')", may_print=True)


@pytest.mark.parametrize(
    "code",
    ["try:\n    f()\nexcept:\n    g()", "    except Exception as e:\n        pass", "except (Exception):\n  continue", "print(1)"],
)
def test_cython_rules_can_fail(code: str) -> None:
    assert cython_faults(code)
    assert not cython_faults("cdef int f() except -1:\n    '''print()'''\n    except ValueError:\n        pass  # print()")


@pytest.mark.parametrize("text", ["/home/" + "jo/x", "/Users/" + "jo", "/root" + "/x", "C:\\Users\\" + "Jo", "/tmp/" + "w/house"])
def test_path_rule_can_fail(text: str) -> None:
    assert machine_paths(text)
    assert not machine_paths("/home/<user>/x ~/x $HOME/x /home/${USER} /usr/bin /tmp/x.sock")
