"""`python -m soth_mitm` and the command `soth-mitm`."""

import os
import sys


def main() -> None:
    """Run the command line on `sys.argv`; ends the process with its exit code."""
    open_standard_streams()
    from soth_mitm.cli.commands import cli

    cli(prog_name="soth-mitm")


def open_standard_streams() -> None:
    """Open the null device in place of each standard stream that this process was started without (`>&-`).

    Else the next file or socket would be one of them: it would get what is printed, and the loop's library refuses to close it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "r" if descriptor == 0 else "w", closefd=False))


if __name__ == "__main__":
    main()
