"""Make a virtual environment that holds this package as users get it: built into a wheel and installed, never the tree itself.

Work is done only as far as something changed. Each combination of the switches of `setup.py` (SOTH_MITM_DEBUG, _SANITIZE, _COVERAGE, _FUZZ)
is a variant with an environment `.venv[-variant]`, a wheel in `build/wheel/<variant>` and objects in `build/<variant>` of its own. Progress
goes to standard error, a line per step; the path of the environment's Python is all that goes to standard output.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SWITCHES = ("DEBUG", "SANITIZE", "COVERAGE", "FUZZ")
COMPILER_VARIABLES = ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "ARCHFLAGS")


def step(title: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> bool:
    """Run `command` in the repository; print one line with its time, and its output only if it fails."""
    if sys.stderr.isatty():
        # the finished line is written over this one, so that steps may also run side by side
        print(f"{title} ...", end="\r", file=sys.stderr, flush=True)
    started = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    verdict = "ok" if result.returncode == 0 else f"failed, exit code {result.returncode}"
    print(f"{title:<44}{time.monotonic() - started:6.1f} s  {verdict}", file=sys.stderr, flush=True)
    if result.returncode:
        print(result.stdout.decode(errors="replace").rstrip(), file=sys.stderr, flush=True)
    return result.returncode == 0


def require(title: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
    """Do a step without which nothing after it makes sense."""
    if not step(title, command, environment):
        sys.exit(1)


class Stamp:
    """What was last done in a directory, kept in a file there, so that removing the directory forgets it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "soth-mitm.stamp"

    def _read(self) -> dict[str, str]:
        known: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return known

    def holds(self, key: str, value: str) -> bool:
        """Tell whether `key` was last noted with this very value."""
        return self._read().get(key) == value

    def note(self, key: str, value: str) -> None:
        """Remember that what `value` describes is done."""
        known = self._read()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps({**known, key: value}, indent=1))


def digest(parts: Iterable[str | bytes]) -> str:
    """Hash a sequence, keeping its boundaries."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def variant_name() -> str:
    """Name the variant that the environment's switches ask for, as `setup.py` does."""
    return "-".join(name.lower() for name in SWITCHES if os.environ.get(f"SOTH_MITM_{name}", "") not in ("", "0")) or "release"


def environment_directory(variant: str) -> Path:
    """Return where the virtual environment of a variant lies."""
    return ROOT / (".venv" if variant == "release" else f".venv-{variant}")


def environment_python(directory: Path) -> Path:
    """Return the Python of a virtual environment on this platform."""
    return directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def tool_environment(python: Path) -> dict[str, str]:
    """Return the process environment in which tools that others start by name are those of this Python's environment."""
    return {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def version_of(python: Path) -> str:
    """Return "3.12", or "" for a Python that is not there or whose base was removed."""
    if not python.exists():
        return ""
    result = subprocess.run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else ""


def make_environment(directory: Path) -> Path:
    """Make the environment unless a usable one is there. It keeps the Python it began with, until PYTHON names another version."""
    python = environment_python(directory)
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = version_of(python)
    if not found or (os.environ.get("PYTHON") and found != ours):
        require(f"make {directory.name} (Python {ours})", [sys.executable, "-m", "venv", "--clear", directory])
    return python


def refuse_without_compiler() -> None:
    """Say what is missing before a build fails with a page of output."""
    if sys.platform == "win32":
        return
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler):
        sys.exit(
            f"No C compiler: `{compiler}` is not on PATH. Install one (Debian: apt install build-essential; Fedora: dnf install gcc; "
            "macOS: xcode-select --install), or name one: CC=clang scripts/test"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        sys.exit(f"No Python headers: {header} is missing. Debian: apt install python3-dev; Fedora: dnf install python3-devel")


def source_files() -> list[Path]:
    """List every file that the wheel is made from; what a build leaves in the tree is not among them."""
    folders = [path for folder in ("src", "ext") for path in (ROOT / folder).rglob("*") if path.is_file()]
    made = {".so", ".pyd", ".c", ".pyc", ".html"}
    kept = [path for path in folders if path.suffix not in made and not any(part.endswith(".egg-info") for part in path.parts)]
    top = [ROOT / name for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")]
    return sorted(kept) + [path for path in top if path.exists()]


def drop_stale_outputs(objects: Path) -> None:
    """Remove from the build directory what the next wheel must not pick up: files that are no longer in the tree."""
    modules = {path.relative_to(ROOT / "src").with_suffix("") for path in (ROOT / "src").rglob("*.pyx")}
    for library in objects.glob("lib*"):
        for path in library.rglob("*"):
            compiled = path.suffix in (".so", ".pyd")
            if path.is_file() and not (compiled and path.relative_to(library).with_name(path.name.split(".")[0]) in modules):
                path.unlink()


def build_wheel(python: Path, variant: str, project: dict[str, object]) -> tuple[Path, str]:
    """Return the wheel of the tree as it is now, building it if there is none yet, and its fingerprint."""
    compiler = [f"{name}={os.environ.get(name, '')}" for name in COMPILER_VARIABLES]
    recipe = digest([(ROOT / "setup.py").read_bytes(), json.dumps(project["build-system"]), version_of(python), *compiler])
    sources = (part for path in source_files() for part in (path.relative_to(ROOT).as_posix(), path.read_bytes()))
    fingerprint = digest([recipe, *sources])
    wheels, objects = ROOT / "build/wheel" / variant, ROOT / "build" / variant
    done = Stamp(wheels)
    if not (done.holds("wheel", fingerprint) and list(wheels.glob("*.whl"))):
        refuse_without_compiler()
        if not Stamp(objects).holds("recipe", recipe):
            shutil.rmtree(objects, ignore_errors=True)
            Stamp(objects).note("recipe", recipe)
        drop_stale_outputs(objects)
        shutil.rmtree(wheels, ignore_errors=True)
        pip: list[str | Path] = [python, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, "."]
        require(f"build the wheel ({variant})", pip, {**tool_environment(python), "SOTH_MITM_WERROR": "1"})
        done.note("wheel", fingerprint)
    return next(wheels.glob("*.whl")), fingerprint


def prepare(variant: str, extra: str = "test") -> Path:
    """Bring the environment of `variant` up to date, with the optional requirements `extra`, and return its Python."""
    directory = environment_directory(variant)
    python = make_environment(directory)
    installed = Stamp(directory)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pip_install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]

    build_needs = project["build-system"]["requires"]
    if not installed.holds("build needs", digest(build_needs)):
        require("install what building needs", [*pip_install, *build_needs])
        installed.note("build needs", digest(build_needs))

    wheel, fingerprint = build_wheel(python, variant, project)
    if not installed.holds("wheel", fingerprint):
        require(f"install {wheel.name.split('-cp')[0]}", [*pip_install, "--force-reinstall", "--no-deps", wheel])
        installed.note("wheel", fingerprint)

    needs = json.dumps([extra, project["project"]["dependencies"], project["project"]["optional-dependencies"]])
    if not installed.holds("needs", digest([needs])):
        require(f"install what running and {extra}ing need", [*pip_install, f"{wheel}[{extra}]"])
        installed.note("needs", digest([needs]))
    return python


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("scripts/build takes no arguments; SOTH_MITM_DEBUG=1, SOTH_MITM_SANITIZE=1, SOTH_MITM_COVERAGE=1 choose a variant")
    print(prepare(variant_name()))
