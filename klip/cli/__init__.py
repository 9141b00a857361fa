"""The command line `klip`: a command is a few calls of the package, imported when it is run."""

from klip.cli import gallery, run, sets  # noqa: F401  (they add their commands)
from klip.cli.options import app


def main() -> None:
    """The console script."""
    app(prog_name="klip")
