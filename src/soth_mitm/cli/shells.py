"""Environment variables as shells and other programs read them."""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping

from soth_mitm.tls.environment import Runtime

SHELLS = ("sh", "fish", "powershell", "cmd", "dotenv")
SAVED = "SOTH_MITM_BEFORE"
"""The variable in which a shell keeps the values that `soth-mitm ca env` replaced."""
_COMMENTS = {"cmd": "rem"}


def default_shell(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> str:
    """Return the shell that this user most likely has."""
    if platform == "win32":
        return "powershell"
    return "fish" if os.path.basename(environ.get("SHELL", "")) == "fish" else "sh"


def script(runtimes: Mapping[Runtime, Mapping[str, str]], shell: str) -> str:
    """Return what sets the variables in `shell`, each group below the name of the programs that it is for."""
    comment = _COMMENTS.get(shell, "#")
    lines = []
    for runtime, variables in runtimes.items():
        lines.append(f"{comment} {runtime.name}" + (f": {runtime.note}" if runtime.note else ""))
        lines += [assignment(name, value, shell) for name, value in variables.items()]
    return "\n".join(lines) + "\n"


def undoing(environ: Mapping[str, str], names: Iterable[str], shell: str) -> str:
    """Return what sets the variables `names` to what they were before `script`, or unsets them; `environ` is that of the shell."""
    before = saved(environ)
    lines = [assignment(name, before[name], shell) if name in before else removal(name, shell) for name in (*names, SAVED)]
    return "\n".join(lines) + "\n"


def saved(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the values that variables had before the first `script` took effect in `environ`."""
    try:
        found = json.loads(environ.get(SAVED, "{}"))
    except ValueError:
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def saving(environ: Mapping[str, str], names: Iterable[str], shell: str) -> str:
    """Return what keeps, for `undoing`, the values that the variables `names` have in `environ`: those before the first time."""
    text = environ.get(SAVED) or json.dumps({name: environ[name] for name in names if name in environ})
    return assignment(SAVED, text, shell) + "\n"


def removal(name: str, shell: str) -> str:
    """Return the line that removes one variable."""
    if shell == "fish":
        return f"set -e {name}"
    if shell == "powershell":
        return f"Remove-Item Env:{name} -ErrorAction SilentlyContinue"
    return f'set "{name}="' if shell == "cmd" else f"unset {name}"


def as_document(environment: Mapping[str, str], runtimes: Mapping[Runtime, Mapping[str, str]]) -> str:
    """Return the variables as JSON: all of them, and by runtime."""
    groups = [{"name": runtime.name, "note": runtime.note, "variables": list(variables)} for runtime, variables in runtimes.items()]
    return json.dumps({"environment": dict(environment), "runtimes": groups}, indent=2) + "\n"


def assignment(name: str, value: str, shell: str) -> str:
    """Return the line that sets one variable, with `value` exactly as it is."""
    if shell == "fish":
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{escaped}'"
    if shell == "powershell":
        doubled = value.replace("'", "''")
        return f"$env:{name} = '{doubled}'"
    if shell == "cmd":
        # in a batch file, where `%` would begin the name of a variable
        doubled = value.replace("%", "%%")
        return f'set "{name}={doubled}"'
    if shell == "dotenv":
        if re.fullmatch(r"[\w./:,@+=-]*", value, re.ASCII):
            return f"{name}={value}"
        # single quotes: nothing in between means anything to programs that read such files
        return f"{name}='{value}'" if "'" not in value else f'{name}="{value}"'
    return f"export {name}={shlex.quote(value)}"
