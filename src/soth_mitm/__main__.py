"""`python -m soth_mitm` and the command `soth-mitm`."""

import sys

START_FAILED = 22


def main() -> None:
    """Run the command line on `sys.argv`; ends the process with its exit code."""
    try:
        from soth_mitm.cli.commands import cli
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        print("the command line needs: pip install 'soth-mitm[cli]'", file=sys.stderr)
        sys.exit(START_FAILED)
    cli(prog_name="soth-mitm")


if __name__ == "__main__":
    main()
