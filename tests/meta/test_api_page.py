"""docs/api.md is what `scripts/docs` makes of the code, and editors show the texts that the code has."""

import importlib.util
import inspect
from types import ModuleType

import pytest

import soth_mitm
from support.source import ROOT


def docs_script() -> ModuleType:
    """Import the script that writes the page."""
    spec = importlib.util.spec_from_file_location("run_docs", ROOT / "scripts/run_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


in_the_tree = pytest.mark.skipif(not (ROOT / "src").is_dir(), reason="the page is made from the tree")


@in_the_tree
def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert page == docs_script().page(), "docs/api.md differs from the code; run scripts/docs"


@in_the_tree
def test_a_public_name_has_its_place() -> None:
    script = docs_script()
    assert script.unplaced(sorted(soth_mitm.__all__)) == []
    assert script.unplaced(["Headers"])[0] == "BindError"


@in_the_tree
def test_stubs_have_the_docstrings_of_compiled_classes() -> None:
    """A stub is what an editor shows of a compiled class: it has the class's own texts, and one for each plain attribute."""
    import griffe

    package = griffe.load("soth_mitm", search_paths=[str(ROOT / "src")], resolve_aliases=True)
    wrong = []
    for name in ("RawRequest", "RawResponse", "StreamChunk", "FrameKind", "Headers"):
        compiled = getattr(soth_mitm, name)
        for member_name, member in {"": package[name], **package[name].members}.items():
            shown = member.docstring.value if member.docstring else ""
            compiled_member = inspect.getattr_static(compiled, member_name, None) if member_name else compiled
            compiled_member = compiled_member.__func__ if isinstance(compiled_member, staticmethod) else compiled_member
            # a plain attribute has none
            own = getattr(compiled_member, "__doc__", None)
            if member_name.startswith("__") or isinstance(compiled_member, compiled if name == "FrameKind" else ()):
                continue
            if own and inspect.cleandoc(own) != inspect.cleandoc(shown):
                wrong.append(f"{name}.{member_name}: the stub's text is not the code's")
            if not shown:
                wrong.append(f"{name}.{member_name}: no text")
    assert wrong == []
