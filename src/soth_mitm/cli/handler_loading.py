"""`--handler module:Class`: from the text to an object, or to a sentence that says what is wrong with it."""

import importlib
import os
import sys
import traceback

from soth_mitm.cli.exits import START_FAILED, Failure
from soth_mitm.handler import check_handler


def load_handler(spec: str) -> object:
    """Import the module, with the current directory searched first, and return an object of the class, made without arguments."""
    module_name, _, class_name = spec.partition(":")
    if not module_name or not class_name:
        raise _refused(spec, "write it as module:Class, such as gate:Gate for the class Gate in gate.py")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            where = f"looked in {os.getcwd()} and in the Python path; name the module without `.py` and with dots for directories"
            raise _refused(spec, f"there is no module {error.name}; {where}") from error
        raise _refused(spec, f"importing {module_name} failed: {error}") from error
    except Exception as error:
        # user code: whatever it raises while it is imported
        raise _refused(spec, f"importing {module_name} failed: {_summary(error)}") from error
    made = getattr(module, class_name, None)
    if not isinstance(made, type):
        classes = sorted(name for name, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__)
        there = f"its classes are: {', '.join(classes)}" if classes else "it defines no class"
        raise _refused(spec, f"{module_name} has no class {class_name}; {there}")
    try:
        handler: object = made()
    except Exception as error:
        # user code again: its constructor
        raise _refused(spec, f"{class_name}() failed: {_summary(error)}; the class is made without arguments") from error
    try:
        check_handler(handler)
    except TypeError as error:
        raise _refused(spec, str(error)) from error
    return handler


def _refused(spec: str, reason: str) -> Failure:
    return Failure(START_FAILED, f"--handler {spec}: {reason}")


def _summary(error: Exception) -> str:
    text = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text
