"""The Cython rules of CONTRIBUTING.md, read off the text of every .pyx and .pxd.

Each rule is something that the compiler accepts in silence: a missing contract (which doubles the price of a call), an exception lost in
a `noexcept`, a class that can be subclassed, state that belongs to no connection.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.source import named, package_files, without_text

# Return types whose NULL says "an exception is set", so that they need no contract; the tree's own classes come on top
OBJECT_TYPES = {"", "object", "bytes", "bytearray", "str", "tuple", "list", "dict", "set", "frozenset", "memoryview", "type"}
# The one state that belongs to the process and not to a connection: what debug builds count
STATE = {"ledger.pyx": "totals"}
MUTABLE_TYPES = {"object", "list", "dict", "set", "bytearray"}
DIRECTIVES = (
    "binding|boundscheck|cdivision|embedsignature|freethreading_compatible|infer_types|initializedcheck|language_level|linetrace|nonecheck"
    "|overflowcheck|profile|wraparound"
)
CLASS = re.compile(r"^\s*cdef\s+class\s+(?:[\w.]+\.)?(\w+)")


class Line(NamedTuple):
    """One logical line: what stands in brackets is joined."""

    number: int
    indent: int
    text: str


def logical_lines(bare: str) -> Iterator[Line]:
    """Yield the non-empty logical lines of a text without comments and strings."""
    parts: list[str] = []
    start = 0
    for number, raw in enumerate(bare.splitlines(), 1):
        if not parts:
            start = number
        parts.append(raw)
        whole = " ".join(parts)
        if sum(map(whole.count, "([{")) <= sum(map(whole.count, ")]}")) and not raw.rstrip().endswith("\\"):
            parts = []
            if whole.strip():
                yield Line(start, len(whole) - len(whole.lstrip()), re.sub(r"\s+", " ", whole.strip()))


def without_externs(lines: Iterator[Line]) -> Iterator[Line]:
    """Leave out `cdef extern` blocks: C functions raise nothing, and Cython knows it."""
    extern_indent: int | None = None
    for line in lines:
        if extern_indent is not None and line.indent > extern_indent:
            continue
        extern_indent = line.indent if line.text.startswith("cdef extern") else None
        if extern_indent is None:
            yield line


def contract_error(text: str, classes: set[str]) -> str:
    """Return what is wrong with the exception contract of a `cdef`, `cpdef` or `ctypedef` line, "" if it declares no function."""
    declaration = re.sub(r"^(cdef|cpdef|ctypedef) |\b(inline|public|api|readonly) ", "", text)
    signature = re.match(r"(?P<pointer>[^=(]*?)\(\*|(?P<type>[^=(]*?)(?P<name>\w+) ?\(", declaration)
    if not signature or re.match(r"(class|struct|union|enum|packed|fused)\b", declaration):
        return ""
    tail = declaration[declaration.rindex(")") + 1 :]
    if "except *" in tail or "except*" in tail:
        return "`except *` asks the interpreter after every call; return an int and say `except -1`"
    if re.search(r"\bnoexcept\b|\bexcept\b", tail):
        return ""
    returned = re.sub(r"\[.*", "", (signature["type"] or signature["pointer"] or "").strip())
    if returned.rpartition(".")[2] in OBJECT_TYPES | classes:
        return ""
    return "no exception contract; say `noexcept nogil` (pure C), or return an int with `except -1`"


VARIABLE = re.compile(
    r"cdef (?!(?:class|struct|union|enum|extern|packed|inline|api|public)\b)"
    r"(?P<type>[^=(]*?)(?P<name>\w+)(?P<array> ?\[[^\]]*\])?(?:(?P<value> ?=.*)|(?:, ?\w+)*)$"
)
CONTAINER = re.compile(
    r"(?P<name>\w+)(?: ?:[^=]+)? ?= ?(?:[{\[]|(?:\w+\.)?(?:dict|list|set|bytearray|deque|defaultdict|OrderedDict|Weak\w+)\()"
)


def module_variable_error(text: str, state: str) -> str:
    """Return what is wrong with a declaration or assignment at the left margin; `state` is the variable that may change."""
    if variable := VARIABLE.match(text):
        named_as_constant = variable["name"] == variable["name"].upper()
        constant = re.search(r"\bconst\b", variable["type"])
        assigned_once = variable["value"] and not variable["array"] and variable["type"].strip() not in MUTABLE_TYPES
        if variable["name"] != state and not (named_as_constant and (constant or assigned_once)):
            return f"module-level variable {variable['name']}; a constant is `cdef enum`, `const`, or immutable and UPPER_CASE = value"
    elif (container := CONTAINER.match(text)) and container["name"] != container["name"].upper():
        return f"module-level {container['name']} can change; state belongs to a connection"
    return ""


MUTATION = re.compile(
    r"^[ \t]+_?([A-Z][A-Z0-9_]+)(?:\[[^\]]*\] ?=[^=]|\.(?:append|add|update|pop|clear|setdefault|remove|extend|insert)\()", re.MULTILINE
)


def mutations(bare: str) -> Iterator[tuple[int, str]]:
    """Find where a module-level UPPER_CASE container is changed after all."""
    for match in MUTATION.finditer(bare):
        yield bare.count("\n", 0, match.start()) + 1, f"{match[1]} is a constant and is changed here"


def is_final_or_says_why(original: list[str], number: int) -> bool:
    """Tell whether the class on line `number` is final, or says `not final: ...` above it or in its docstring."""
    above = number - 2
    while above >= 0 and original[above].lstrip().startswith(("@", "#")):
        above -= 1
    head = "\n".join(original[above + 1 : number])
    docstring = re.match(r'\s*"""(.*?)"""', "\n".join(original[number:]), re.DOTALL)
    reason = re.search(r"\bnot final: \w", head + (docstring[1] if docstring else ""), re.IGNORECASE)
    return bool(reason or re.search(r"^\s*@(cython\.)?final\b", head, re.MULTILINE))


# What an endpoint shows to Python: Cython compiles a read of it, as a look-up by name
PYTHON_ONLY = {"gone": "is_gone()", "eof_delivered": "has_told_eof()", "closing": "is_closing()", "write_paused": "is_write_paused()"}
SLOW_READ = re.compile(rf"\w\.({'|'.join(PYTHON_ONLY)})\b(?!\()")


def broken_rules(code: str, classes: set[str], *, suffix: str = ".pyx", state: str = "") -> list[str]:
    """Return what is wrong with a Cython file, each beginning with its line."""
    original, bare = code.splitlines(), without_text(code)
    wrong: list[tuple[int, str]] = []
    for number, text in enumerate(original, 1):
        if re.match(r"\s*#\s*(cython|distutils)\s*:", text) or re.search(rf"(@|with )cython\.({DIRECTIVES})\b", text):
            wrong.append((number, "directive in a file; the one dict of directives is in setup.py"))
    for line in logical_lines(bare):
        if re.match(r"(DEF|IF|ELIF|ELSE)\b", line.text) or re.match(r"include\b", line.text):
            wrong.append((line.number, f"`{line.text.split()[0]}`: modules are joined by cimport"))
        if re.match(r"global\b", line.text):
            wrong.append((line.number, "`global`: state belongs to a connection"))
    for line in without_externs(logical_lines(bare)):
        if re.match(r"(cdef|cpdef|ctypedef)\b", line.text):
            if line.text == "cdef:":
                wrong.append((line.number, "`cdef:` block; give each declaration its own cdef"))
            elif error := contract_error(line.text, classes):
                wrong.append((line.number, error))
        if line.indent == 0 and (error := module_variable_error(line.text, state)):
            wrong.append((line.number, error))
        if suffix == ".pyx" and CLASS.match(line.text) and not is_final_or_says_why(original, line.number):
            wrong.append((line.number, "class is not @cython.final; make it so, or say why above it or in its docstring: `not final: ...`"))
    for match in SLOW_READ.finditer(bare):
        wrong.append((bare.count("\n", 0, match.start()) + 1, f".{match[1]} is for Python; write {PYTHON_ONLY[match[1]]}"))
    wrong.extend(mutations(bare))
    return [f"{number}: {text}" for number, text in sorted(wrong)]


def classes_of(texts: list[str]) -> set[str]:
    """Collect the extension classes that these texts define or declare."""
    return {match[1] for text in texts for line in without_text(text).splitlines() if (match := CLASS.match(line))}


FILES = package_files(".pyx", ".pxd")
CLASSES = classes_of([path.read_text(encoding="utf-8") for path in FILES])


@pytest.mark.parametrize("path", FILES, ids=named)
def test_cython_file(path: Path) -> None:
    wrong = broken_rules(path.read_text(encoding="utf-8"), CLASSES, suffix=path.suffix, state=STATE.get(path.name, ""))
    assert not wrong, "\n".join(f"{named(path)}:{rule}" for rule in wrong)


def test_there_is_no_include_file() -> None:
    assert package_files(".pxi") == []


CONTRACT = "no exception contract"


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("cdef int f(int a):\n    return a\n", f"1: {CONTRACT}"),
        ("cdef void f() nogil:\n    pass\n", f"1: {CONTRACT}"),
        ("cdef inline const char* f(\n    int a,\n    int b=1,\n) nogil:\n", f"1: {CONTRACT}"),
        ("cpdef Py_ssize_t f(bytes a): return 1\n", f"1: {CONTRACT}"),
        ("@cython.final\ncdef class A:\n    cdef bint f(self):\n        return 1\n", f"3: {CONTRACT}"),
        ("cdef View* f(Other o)\n", f"1: {CONTRACT}"),
        ("ctypedef int (*reader)(void* p)\n", f"1: {CONTRACT}"),
        ("cdef void f() except *:\n    pass\n", "1: `except *`"),
        ("cdef class A:\n    pass\n", "1: class is not @cython.final"),
        ("# final enough\ncdef class A(B):\n    pass\n", "2: class is not @cython.final"),
        ("cdef int counter = 0\n", "1: module-level variable counter"),
        ("cdef dict CACHE = {}\n", "1: module-level variable CACHE"),
        ("cdef unsigned char TABLE[256]\n", "1: module-level variable TABLE"),
        ("cdef object a, b\n", "1: module-level variable a"),
        ("_cache = {}\n", "1: module-level _cache can change"),
        ("seen: set[str] = set()\n", "1: module-level seen can change"),
        ("NAMES = {}\ndef f():\n    NAMES[1] = 2\n", "3: NAMES is a constant"),
        ("def f():\n    global X\n", "2: `global`"),
        ("DEF X = 1\n", "1: `DEF`"),
        ('include "x.pxi"\n', "1: `include`"),
        ("IF UNAME_SYSNAME == 'Linux':\n    pass\n", "1: `IF`"),
        ("# cython: boundscheck=False\n", "1: directive in a file"),
        ("# distutils: language=c++\n", "1: directive in a file"),
        ("@cython.wraparound(False)\ndef f(): pass\n", "1: directive in a file"),
        ("def f():\n    with cython.boundscheck(False):\n        pass\n", "2: directive in a file"),
        ("cdef:\n    int x\n", "1: `cdef:` block"),
        ("def f(self):\n    if self.endpoint.gone:\n        pass\n", "2: .gone is for Python"),
    ],
)
def test_cython_rules_can_fail(code: str, part: str) -> None:
    assert any(rule.startswith(part) for rule in broken_rules(code, {"Head"}))


@pytest.mark.parametrize(
    "code",
    [
        "cdef int f(int a) noexcept nogil:\n    return a\n",
        "cdef int f(\n    int a,\n) except -1:\n    return a\n",
        "cdef inline bytes f(View v):\n    cdef View w = g(v)\n    cdef int n = len(v), m = h(1)\n    return b'' \n",
        "cdef Head f(): return None\ncdef f(self): pass\ncdef list[int] g(): pass\ncdef Py_ssize_t h() except? -1: pass\n",
        "@cython.final\n@cython.freelist(8)\ncdef class A:\n    cdef int a\n    cdef void (*f)(int) noexcept\n",
        "# not final: framers derive from it\ncdef class A:\n    pass\n",
        'cdef class A:\n    """Base.\n\n    Not final: framers derive from it.\n    """\n',
        'cdef extern from "scan.h" nogil:\n    int f(int a)\n    ctypedef int (*g)(int)\n\ncdef enum:\n    A = 1\n',
        "cdef struct S:\n    int f\n",
        "cdef bytes CRLF = b'\\r\\n'\ncdef const unsigned char* _P = NULL\nNAMES = {1: 2}\nx: int = 3\n",
        '"""cdef int f()\n# no"""\n# cdef int f()\n',
        "ctypedef fused number:\n    int\n\nctypedef unsigned int word\n",
    ],
)
def test_cython_rules_let_pass(code: str) -> None:
    assert broken_rules(code, {"Head"}) == []


def test_only_the_named_state_may_change() -> None:
    assert broken_rules("cdef int[4] totals\n", set(), state="totals") == []
    assert broken_rules("cdef int[4] totals\ncdef int[4] others\n", set(), state="totals")[0].startswith("2: module-level variable others")


def test_declared_classes_are_known_as_objects() -> None:
    assert classes_of(["@cython.final\ncdef class Head:\n", "cdef class soth_mitm._dataplane.body.Body(Head):\n"]) == {"Head", "Body"}
