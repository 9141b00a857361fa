"""Every folder, named once.  Use them as `paths.CACHE`, so that a test can point them elsewhere.

In a checkout everything lies under the repository; an installed klip keeps its cache in
the user's cache folder and writes results under the current folder.
"""

import os
from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]
_CHECKOUT = (_HERE.parent / "pyproject.toml").is_file()


def _folder(variable: str, default: Path) -> Path:
    """The folder that an environment variable names (`~` is resolved), or the default."""
    return Path(os.environ.get(variable) or default).expanduser().resolve()


ROOT = _HERE.parent if _CHECKOUT else Path.cwd()
CACHE = _folder("KLIP_CACHE", ROOT / ".cache" if _CHECKOUT else Path.home() / ".cache" / "klip")
"""Rendered shops, downloads, runs: can be deleted at any time."""
RESULTS = _folder("KLIP_RESULTS", ROOT / "results")
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
WEIGHTS = _HERE / "weights"
"""The encoders that klip ships."""


def data_root() -> Path:
    """Folder of the real image sets, read anew at each call: KLIP_DATA, or CACHE/data."""
    return _folder("KLIP_DATA", CACHE / "data")
