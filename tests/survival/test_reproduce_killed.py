"""`klip reproduce`, killed in each of its notebooks, goes on in that one."""

import multiprocessing
import os
import signal
import time

import pytest
from test_reproduce import book, shop  # noqa: F401  (a fixture: two notebooks)

from klip.companion import reproduce, stored
from klip.settings import paths

FORK = multiprocessing.get_context("fork")
SLOW = "import time\ntime.sleep(1.5)"


def running():
    os.setsid()  # its kernels die with it
    reproduce.run()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_in_each_notebook_it_goes_on_there(shop):  # noqa: F811
    for number, reads in (("02_depth", ""), ("03_train", "02_depth"), ("04_ask", "03_train")):
        value = f'lesson.made_before("{reads}", settings)["value"] + 1' if reads else "1"
        metrics = f'report.save_metrics({{"value": value}}, "{number}", '
        metrics += "place=settings.place, settings=settings)"
        book(shop / f"{number}.ipynb", f"value = {value}", SLOW, metrics, SLOW)
    for place, name in enumerate(("02_depth", "03_train", "04_ask")):
        process = FORK.Process(target=running)
        process.start()
        begun = paths.CACHE / "running" / f"nano-{name}.ipynb"
        deadline = time.time() + 60
        while not begun.exists() and time.time() < deadline:
            time.sleep(0.05)
        time.sleep(0.7 * place)  # before it wrote its metrics, and after
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        done = sorted(path.stem for path in stored.folder("nano").glob("notebooks/*.ipynb"))
        assert name not in done and len(done) == place
        begun.unlink()
    assert reproduce.run() == ["04_ask"]
    values = {name: found["value"] for name, found in stored.all_metrics("nano").items()}
    assert values == {"02_depth": 1, "03_train": 2, "04_ask": 3}
