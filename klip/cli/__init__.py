"""The command line `klip`: a command is a few calls of the package, imported when it is run."""

import os
import sys

from klip.cli import embedding, gallery, run, sets  # noqa: F401  (they add their commands)
from klip.cli.options import app


def main() -> None:
    """The console script."""
    if sys.getfilesystemencoding() != "utf-8":  # in whatever locale, names of files are UTF-8
        again = [sys.executable, "-X", "utf8", "-m", "klip", *sys.argv[1:]]
        os.execve(sys.executable, again, os.environ | {"PYTHONUTF8": "1"})
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a sign shows its number; no work is lost for it.
        stream.reconfigure(errors="backslashreplace")
    app(prog_name="klip")
