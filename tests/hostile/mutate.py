"""Seeded mutations of JPEG, PNG and EXIF; `make fuzz` runs ten thousand of them.

python tests/hostile/mutate.py 10000
"""

import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from kinds import JPEG, PNG, TURNED, saved, tags, with_exif

SEEDS = {
    "a.jpg": JPEG,
    "b.png": PNG,
    "c.jpg": with_exif(tags(TURNED)),
    "d.png": saved(kind="PNG", exif=b"Exif\0\0" + tags(TURNED)),
    "e.webp": saved(kind="WEBP"),
    "f.tif": saved(kind="TIFF"),
    "g.gif": saved(kind="GIF"),
}
LONGEST = 10
"""Seconds that one file may take."""


def mutated(seed):
    """Name and bytes of a whole file of which some bytes were changed, lost or doubled."""
    rng = np.random.default_rng(seed)
    name = list(SEEDS)[seed % len(SEEDS)]
    content = bytearray(SEEDS[name])
    for _ in range(rng.integers(1, 6)):
        # half of the changes hit the first 200 bytes: headers, tables, EXIF
        most = min(len(content), 200) if rng.random() < 0.5 else len(content)
        at = int(rng.integers(most)) if most else 0
        kind = rng.integers(4)
        if kind == 0:
            content[at : at + 1] = bytes([rng.integers(256)])
        elif kind == 1:
            del content[at : at + int(rng.integers(1, 20))]
        elif kind == 2:
            content[at:at] = content[at : at + int(rng.integers(1, 40))]
        else:
            content[at : at + 4] = rng.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"]
            )
    return name, bytes(content)


def main(count):
    from klip.data import images

    def late(*_):
        raise TimeoutError("it hangs")

    signal.signal(signal.SIGALRM, late)
    read, started = 0, time.time()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(count):
            name, content = mutated(seed)
            file = Path(folder, name)
            file.write_bytes(content)
            signal.alarm(LONGEST)
            try:
                images.read(file)
                read += 1
            except ValueError as error:
                said = str(error)
                if not said.startswith(f"image {file}: cannot be read (") or "TimeoutError" in said:
                    raise SystemExit(f"seed {seed}: {said}") from error
            signal.alarm(0)
    seconds = time.time() - started
    print(f"{count} mutated files in {seconds:.0f} s: {read} read, {count - read} refused by name")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
