"""Garbage is looked for as before, once large packages are loaded; a program ends without a look."""

import gc
import subprocess
import sys

import pytest

from klip.settings.garbage import loading


@pytest.mark.parametrize("enabled", [True, False])
def test_afterwards_garbage_is_looked_for_as_before(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with loading():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
        with pytest.raises(ImportError), loading():
            raise ImportError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_at_its_end_a_program_has_nothing_to_look_through():
    code = (
        "import atexit, gc, os\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 100))\n"
        "from klip.settings.garbage import loading\n"
        "with loading():\n    import json, decimal\n"
        "gc.collect()\nkept = [[number] for number in range(2000)]\n"
        "print(gc.get_freeze_count())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["0", "True", "True"]
