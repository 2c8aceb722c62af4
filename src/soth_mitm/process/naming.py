"""The name of a program that an interpreter runs, read from its command line.

`python3.11` or `node` says nothing about who is calling; the script does. Every interpreter has a table of the options that
matter for finding the script; the rest of its options are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_SCRIPT_SUFFIX = re.compile(r"\.(?:pyw?|pyc|pyz|pex|[cm]?js|jsx|[cm]?ts|tsx|rb|pl|php|phar|jar|war|exe|cmd)$", re.IGNORECASE)
_SEPARATOR = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True)
class _Interpreter:
    """How one interpreter's command line leads to its script. Options are listed with their dashes, values follow `=`, or come next."""

    pattern: re.Pattern[str]
    code: frozenset[str] = frozenset()
    """Options and commands that carry the program's text: such a program has no name."""
    program: frozenset[str] = frozenset()
    """Options whose value is the module or the script to run."""
    value: frozenset[str] = frozenset()
    """Options whose value may be the next word."""
    attached: frozenset[str] = frozenset()
    """One-letter options whose value can only be the rest of their word."""
    command: frozenset[str] = frozenset()
    """Words that may stand before the script."""
    clusters: bool = True
    """Whether `-ab` means `-a -b`."""
    npm: bool = False
    """Whether its programs come in npm packages."""

    def options(self, word: str) -> Iterator[tuple[str, str | None]]:
        """Split one word into its options, each with the value that stands in the same word."""
        if word.startswith("--") or not self.clusters:
            name, equals, value = word.partition("=")
            yield name, value if equals else None
            return
        with_value = self.code | self.program | self.value | self.attached
        for index in range(1, len(word)):
            option = f"-{word[index]}"
            if option in with_value:
                yield option, word[index + 1 :] or None
                return
            yield option, None

    def program_of(self, arguments: Sequence[str]) -> str | None:
        """Return the module or script that the arguments name, None if the program comes from an option or from standard input."""
        words = iter(arguments)
        commands = self.command
        for word in words:
            if word == "--":
                return next(words, None)
            if not word or word == "-" or word in self.code:
                return None
            if not word.startswith("-"):
                if word not in commands:
                    return word
                commands = frozenset()
                continue
            for option, value in self.options(word):
                if option in self.code:
                    return None
                if option in self.program:
                    return next(words, None) if value is None else value
                if option in self.value and value is None:
                    next(words, None)
        return None


def _interpreter(pattern: str, *, clusters: bool = True, npm: bool = False, **options: str) -> _Interpreter:
    sets = {kind: frozenset(words.split()) for kind, words in options.items()}
    return _Interpreter(re.compile(pattern), clusters=clusters, npm=npm, **sets)


_INTERPRETERS = (
    _interpreter(r"(?:python|pypy)w?[\d.]*[dtw]?", code="-c", program="-m", value="-W -X -Q --check-hash-based-pycs"),
    _interpreter(
        r"node(?:js)?",
        code="-e -p --eval --print",
        value="-r -C --require --import --loader --experimental-loader --conditions --env-file --env-file-if-exists --input-type "
        "--inspect-port --icu-data-dir --openssl-config --redirect-warnings --title --unhandled-rejections --watch-path",
        command="inspect",
        npm=True,
    ),
    _interpreter(
        r"deno",
        code="eval repl",
        value="-c --config --import-map --lock --cert --location --seed --env-file --preload",
        command="run serve task test bench",
        npm=True,
    ),
    _interpreter(
        r"bun|bunx",
        code="-e -p --eval --print",
        value="-r -c -d -l --preload --require --import --config --cwd --define --loader --env-file --tsconfig-override",
        command="run x exec test",
        npm=True,
    ),
    _interpreter(r"ruby[\d.]*", code="-e", program="-S", value="-I -r -C -E --encoding", attached="-0 -F -i -K -T -W -x"),
    _interpreter(r"perl[\d.]*", code="-e -E", program="-S", value="-I", attached="-0 -C -D -F -i -l -M -m -V -x"),
    _interpreter(
        r"php[\d.]*",
        code="-r -B -R -E --run",
        program="-f --file -F --process-file",
        value="-c -d -z -S -t --php-ini --define --zend-extension --server --docroot",
    ),
    _interpreter(
        r"java|javaw",
        program="-jar -m --module",
        value="-cp -classpath --class-path -p --module-path --upgrade-module-path --add-modules --add-opens --add-exports --add-reads",
        clusters=False,
    ),
)


def file_name(path: str) -> str:
    """Return the last part of a path of any system."""
    return _SEPARATOR.split(path.rstrip("/\\"))[-1]


def program_name(executable: str, argv: Sequence[str], resolve: Callable[[str], str] = str) -> str:
    """Name a process: its executable's file name or, for an interpreter, the program that it runs.

    A script under `node_modules` is named by its npm package, `-m` by the module, any other script by its file name without the
    suffix. A process that overwrote its command line (`process.title`, setproctitle) is named by the first word of its title.
    `resolve` turns a script's path into its real path, so that `/usr/bin/tool` is found to be the link into `node_modules` that it is.
    """
    interpreter = _interpreter_of(file_name(executable))
    if interpreter is None:
        return file_name(executable)
    program = interpreter.program_of(argv[1:])
    if program:
        package = (_npm_package(program) or _npm_package(resolve(program))) if interpreter.npm else None
        return package or _script_name(program)
    if argv and not any(argv[1:]):
        return _title(argv[0]) or file_name(executable)
    return file_name(executable)


def is_interpreter(executable: str) -> bool:
    """Tell whether a file is named as an interpreter that we know."""
    return _interpreter_of(file_name(executable)) is not None


def script_of(executable: str, argv: Sequence[str]) -> str | None:
    """Return the script or the module that an interpreter's command line names; None for any other program."""
    interpreter = _interpreter_of(file_name(executable))
    return None if interpreter is None else interpreter.program_of(argv[1:])


def _interpreter_of(name: str) -> _Interpreter | None:
    name = name.lower().removesuffix(".exe")
    return next((interpreter for interpreter in _INTERPRETERS if interpreter.pattern.fullmatch(name)), None)


def _npm_package(path: str) -> str | None:
    """Return the innermost npm package that holds `path`, or that the specifier `npm:name@version` (`jsr:` too) names."""
    kind, colon, specifier = path.partition(":")
    if colon and kind in ("npm", "jsr"):
        parts = specifier.lstrip("/").split("/")
    else:
        parts = _SEPARATOR.split(path)
        if "node_modules" not in parts[:-1]:
            return None
        parts = parts[len(parts) - parts[::-1].index("node_modules") :]
        if parts[0] == ".bin":
            return _SCRIPT_SUFFIX.sub("", parts[1]) if len(parts) > 1 else None
    if parts[0].startswith("@") and len(parts) > 1:
        return f"{parts[0]}/{parts[1].partition('@')[0]}"
    return parts[0].partition("@")[0] or None


def _script_name(program: str) -> str:
    stem = _SCRIPT_SUFFIX.sub("", file_name(program)).removesuffix(".__main__")
    if stem != "__main__":
        return stem
    parts = _SEPARATOR.split(program)
    return parts[-2] if len(parts) > 1 and parts[-2] else stem


def _title(text: str) -> str | None:
    """Return the first word of a process title, None if the text is the interpreter's own path."""
    words = text.split()
    if not words or _interpreter_of(file_name(text).lstrip("-")) or _interpreter_of(file_name(words[0]).lstrip("-")):
        return None
    return file_name(words[0]).rstrip(":") or None
