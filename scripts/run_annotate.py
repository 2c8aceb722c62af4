"""Write the annotated HTML of one extension module, compiled with the very directives of `setup.py`."""

import runpy
import sys
from pathlib import Path

from Cython.Build import cythonize

ROOT = Path(__file__).resolve().parent.parent
WHERE = "build/annotate"


def main(arguments: list[str]) -> None:
    """Annotate the module named by the only argument and print where the page is."""
    recipe = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
    modules = {
        extension.name.removeprefix("soth_mitm.").removeprefix("_dataplane."): extension for extension in recipe["extension_modules"]()
    }
    if len(arguments) != 1 or arguments[0] not in modules:
        sys.exit(f"usage: scripts/annotate MODULE, one of: {', '.join(modules)}")
    cythonize(
        [modules[arguments[0]]],
        annotate=True,
        build_dir=WHERE,
        compiler_directives=recipe["DIRECTIVES"],
        force=True,
        include_path=["src"],
        quiet=True,
    )
    print(ROOT / WHERE / Path(modules[arguments[0]].sources[0]).with_suffix(".html"))


if __name__ == "__main__":
    main(sys.argv[1:])
