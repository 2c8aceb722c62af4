"""The sources that the meta tests read: those of the tree, or of the installed package where the tree was taken away, as in CI."""

import io
import keyword
import re
import tokenize
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _package() -> Path:
    tree = ROOT / "src" / "soth_mitm"
    if tree.is_dir():
        return tree
    spec = find_spec("soth_mitm")
    assert spec is not None and spec.origin is not None, "soth_mitm is neither in src/ nor installed"
    return Path(spec.origin).parent


PACKAGE = _package()

# Longest first, so that a quote inside a docstring or a comment is not taken for the start of a string
_STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?"""' r"|'''(?:\\.|[^\\])*?'''" r'|"(?:\\.|[^"\\\n])*"' r"|'(?:\\.|[^'\\\n])*'" r"|\#[^\n]*", re.DOTALL
)


def package_files(*suffixes: str) -> list[Path]:
    """List the package's files with one of these suffixes, in a stable order."""
    return sorted(path for path in PACKAGE.rglob("*") if path.suffix in suffixes)


def named(path: Path) -> str:
    """Name a file as messages do: from the repository's root, or from the package's parent when it is installed."""
    return path.relative_to(ROOT if path.is_relative_to(ROOT) else PACKAGE.parent).as_posix()


def module_name(path: Path) -> str:
    """Return the dotted name of a package file below `soth_mitm`: "tls.ca", "tls" for its `__init__`, "__init__" for the root's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def without_text(code: str) -> str:
    """Blank out strings and comments, keeping every line where it was."""

    def blank(match: re.Match[str]) -> str:
        text = match.group()
        return "" if text.startswith("#") else '"' + "\n" * text.count("\n") + '"'

    return _STRING_OR_COMMENT.sub(blank, code)


def line_of(text: str, offset: int) -> int:
    """Return the line number of an offset."""
    return text.count("\n", 0, offset) + 1


def python_identifiers(code: str) -> set[str]:
    """Collect the identifiers of a Python file."""
    names = (token.string for token in tokenize.generate_tokens(io.StringIO(code).readline) if token.type == tokenize.NAME)
    return {name for name in names if not keyword.iskeyword(name)}


def other_identifiers(code: str, suffix: str) -> set[str]:
    """Collect the identifiers of a Cython or C file."""
    bare = re.sub(r"/\*.*?\*/|//[^\n]*", "", code, flags=re.DOTALL) if suffix == ".h" else without_text(code)
    return set(re.findall(r"[A-Za-z_]\w*", bare))
