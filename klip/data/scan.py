"""Every file below a folder: an image, or left out and why."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from klip.data.images import IMAGES, kind
from klip.data.words import named, natural

HIDDEN = ("__macosx", "thumbs.db", "desktop.ini", "icon\r", "ehthumbs.db", "@eadir")
"""What computers leave beside photographs, in lower case; and all that begins with a dot."""
NO_IMAGE = "no image"


@dataclass
class Scan:
    """What lies below a folder.  The files are `images` and `left_out`, none twice.

    images: posix paths below the folder, in their natural order.  left_out: path -> why.
    folders: those seen, "" is the folder itself.  outside: images that are links out of it.
    """

    images: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def leave_out(self, images: list[str], why: str) -> None:
        """Take images out."""
        self.left_out |= dict.fromkeys(images, why)
        gone = set(images)
        self.images = [image for image in self.images if image not in gone]


def hidden(name: str) -> bool:
    """Is it what computers leave beside photographs, or hide?"""
    return name.startswith(".") or name.lower() in HIDDEN


def told(left_out: dict[str, str]) -> list[str]:
    """A sentence for each reason why files were left out."""
    reasons: dict[str, list[str]] = {}
    for path, why in left_out.items():
        reasons.setdefault(why, []).append(path)
    return [f"{len(own)} left out, {why}: {named(own, 3)}" for why, own in reasons.items()]


def scan(root: str | Path) -> Scan:
    """All files below a folder, links followed but in circles.

    NotADirectoryError, FileNotFoundError: there is no such folder.
    """
    root, found = Path(root), Scan()
    if not root.is_dir():
        kind_of = NotADirectoryError if root.exists() else FileNotFoundError
        raise kind_of(f"folder {root}: there is no such folder")
    for path, why in _walk(root, "", found, above=(os.path.realpath(root),)):
        if why:
            found.left_out[path] = why
        else:
            found.images.append(path)
    found.images.sort(key=natural)
    found.left_out = {path: found.left_out[path] for path in sorted(found.left_out, key=natural)}
    found.folders.sort(key=natural)
    return found


def _walk(
    root: Path, within: str, found: Scan, *, above: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """Path below `root` and why it is left out ("": it is an image) of all files in the folder
    `within`.  above: the real paths of the folders on the way down."""
    found.folders.append(within)
    try:
        entries = sorted(os.scandir(root / within), key=lambda entry: entry.name)
    except OSError as error:
        yield within + "/", f"the folder cannot be opened ({error.strerror})"
        return
    for entry in entries:
        path = f"{within}/{entry.name}".lstrip("/")
        unseen = hidden(entry.name)
        if not entry.is_dir():
            why = "hidden" if unseen else _no_image(entry)
            if not why and entry.is_symlink() and _leads_out(entry.path, above[0]):
                found.outside.append(path)
            yield path, why
        elif entry.is_symlink() and os.path.realpath(entry.path) in above:
            yield path, "a link in a circle"
        else:
            deeper = _walk(root, path, found, above=(*above, os.path.realpath(entry.path)))
            yield from ((own, "hidden") for own, _ in deeper) if unseen else deeper


def _no_image(entry: os.DirEntry) -> str:
    """Why a file is no image that klip reads; "" if it is one, whole or not."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return "its name is no UTF-8"
    try:
        if not stat.S_ISREG(entry.stat().st_mode):
            return "a pipe or device"
        if Path(entry.name).suffix.lower() in IMAGES:
            return ""
        with open(entry.path, "rb") as file:
            said = kind(file.read(32))
    except FileNotFoundError:
        return "a link that leads nowhere"
    except OSError as error:  # a link to itself, among others
        return f"it cannot be opened ({error.strerror})"
    return NO_IMAGE if said is None else said


def _leads_out(path: str, root: str) -> bool:
    return os.path.commonpath([os.path.realpath(path), root]) != root
