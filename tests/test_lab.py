"""JupyterLab on a fresh clone, as a reader meets it: every notebook runs to its end by Run All.

`pytest -m lab tests/test_lab.py --basetemp FOLDER` keeps the pictures of the page.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from test_notebooks import TINY

from klip.settings import paths

NAMES = sorted(path.stem for path in paths.NOTEBOOKS.glob("[0-9]*.ipynb"))
SERVER = importlib.util.find_spec("jupyterlab") and importlib.util.find_spec("websocket")
if SERVER:
    import devtools
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not SERVER, reason="no jupyterlab"),
    pytest.mark.skipif(not SERVER or devtools.BROWSER is None, reason="no chromium"),
]
VALUES = TINY | {"pixels": 48, "compare_queries": 1}
"""Values for the parameters cells of the copies, but 00's, which runs as it stands."""
TOKEN = "lab"
OPTIONS = [
    "--no-browser",
    "--notebook-dir=lab",
    "--ServerApp.port=0",
    "--ServerApp.allow_root=True",
    f"--IdentityProvider.token={TOKEN}",
    "--LabApp.expose_app_in_browser=True",  # window.jupyterapp
]
FOLDERS = ("config", "data", "runtime")
NEWS = "lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
"""Where JupyterLab keeps whether to ask for news over the network."""
FOREIGN = []
"""Errors of the console that are JupyterLab's own: a part of each text, and why it is harmless."""
SECONDS = 900
"""The most that one notebook may take, far more than it does."""
WHOLE = 24_000
"""Pixels: higher than any notebook."""


def clone(folder):
    """The tracked files as they are now, and the copies of the notebooks that `make lab` makes."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=paths.ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (paths.ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.ROOT / name, folder / name)
    subprocess.run(["make", "copies"], cwd=folder, capture_output=True, check=True)


def give(file, values):
    """Write values into the parameters cell of a copy, as a reader would."""
    book = json.loads(file.read_text())
    (cell,) = [one for one in book["cells"] if "parameters" in one["metadata"].get("tags", ())]
    text = "".join(cell["source"])
    for name, value in values.items():
        text, count = re.subn(rf"(?m)^({name}: \w+ = )(\"[^\"]*\"|\S+)", rf"\g<1>{value!r}", text)
        assert count == 1, f"{file.name} has no parameter {name}"
    cell["source"] = text.splitlines(keepends=True)
    file.write_text(json.dumps(book))


@contextmanager
def server(root, folder):
    """JupyterLab on a clone, until the block ends; its address.  folder: of its own files, new."""
    env = {name: own for name, own in os.environ.items() if not name.startswith("KLIP_")}
    env |= {"PYTHONPATH": str(root), "JUPYTER_PREFER_ENV_PATH": "1"}
    # Settings and running servers of whoever tests are left alone.
    env |= {f"JUPYTER_{kind.upper()}_DIR": str(folder / kind) for kind in FOLDERS}
    news = folder / "config" / NEWS
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=log)
    try:
        told = folder / "runtime" / f"jpserver-{process.pid}.json"
        text = devtools.wait(lambda: told.is_file() and told.read_text(), 120)
        yield f"{json.loads(text)['url']}lab?token={TOKEN}"
    finally:
        process.terminate()
        process.wait(60)


class Lab:
    """The page of JupyterLab on a clone; pictures: a folder for what it looked like."""

    def __init__(self, page, root, pictures):
        self.page, self.root, self.pictures = page, root, pictures

    def open(self, name):
        """Show a notebook; it is `panel` to scripts."""
        how = json.dumps({"path": f"{name}.ipynb", "factory": "Notebook"})
        self.page.run(f"""(async () => {{
          window.panel = await jupyterapp.commands.execute("docmanager:open", {how});
          jupyterapp.shell.activateById(panel.id);
          await panel.revealed; await panel.context.ready; await panel.sessionContext.ready;
        }})()""")

    def run_all(self):
        """Clear all outputs, then Run All; returns when the last cell is done or one failed."""
        self.page.run("""(async () => {
          await jupyterapp.commands.execute("editmenu:clear-all");
          window.ended = false;
          jupyterapp.commands.execute("runmenu:run-all").finally(() => { window.ended = true; });
        })()""")
        idle = "panel.sessionContext.session.kernel.status === 'idle'"
        self.page.wait(f"window.ended && {idle}", SECONDS)

    def saved(self, name):
        """The cells of the file of a notebook, once it is saved."""
        self.page.run("jupyterapp.commands.execute('docmanager:save')")
        return json.loads((self.root / "lab" / f"{name}.ipynb").read_text())["cells"]

    def shut(self):
        """End the kernel of the notebook, and close it."""
        self.page.run("panel.sessionContext.shutdown().then(() => panel.dispose())")

    def picture(self, name, high=None):
        """A PNG of the window, or of one so many pixels high, from the top: every cell is there."""
        if high:
            self.page.height(high)
            self.page.run("panel.content.scrollToItem(0, 'start')")
            self.page.wait("panel.content.widgets.every(cell => !cell.isPlaceholder())", 120)
            self.page.run("new Promise(done => setTimeout(done, 1000))")  # figures are painted
        self.page.picture(self.pictures / f"{name}.png")
        if high:
            self.page.height(0)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    for name in ("clone", "server", "pictures"):
        (folder / name).mkdir()
    clone(folder / "clone")
    with (
        server(folder / "clone", folder / "server") as address,
        devtools.browser(folder / "browser") as page,
    ):
        page.send("Page.navigate", url=address)
        page.wait("document.readyState === 'complete' && 'jupyterapp' in window", 120)
        page.run("jupyterapp.restored.then(() => true)")
        yield Lab(page, folder / "clone", folder / "pictures")


def hidden(lab):
    """Ids of the cells whose code is folded on the page."""
    return lab.page.run("""panel.content.widgets.filter(
      cell => cell.inputHidden && cell.node.querySelector(".jp-Placeholder")).map(
      cell => cell.model.id)""")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_to_its_end_by_run_all(lab, name):
    file = lab.root / "lab" / f"{name}.ipynb"
    if not name.startswith("00"):
        give(file, VALUES)
    before = len(lab.page.errors())
    lab.open(name)
    lab.picture(f"{name}_stored", WHOLE)
    cells = json.loads(file.read_text())["cells"]
    folded = [one["id"] for one in cells if one["metadata"].get("jupyter")]
    assert hidden(lab) == folded and len(folded) > 1  # parameters, solutions
    lab.run_all()
    assert (lab.root / ".cache" / "results").is_dir()  # it was the clone's klip
    codes = [one for one in lab.saved(name) if one["cell_type"] == "code"]
    outputs = [one for cell in codes for one in cell["outputs"]]
    errors = [one for one in outputs if one["output_type"] == "error"]
    assert not errors, "\n".join(errors[0]["traceback"])
    assert [one["text"] for one in outputs if one.get("name") == "stderr"] == []
    assert [one["execution_count"] for one in codes] == list(range(1, len(codes) + 1))
    checked = [one for one in codes if "nbval-check-output" in one["metadata"].get("tags", ())]
    assert checked and [one["id"] for one in checked if not one["outputs"]] == []
    lab.picture(name, WHOLE)
    if name.startswith("00"):
        controls_respond(lab)
    told = lab.page.errors()[before:]
    assert [one for one in told if not any(part in one for part, _ in FOREIGN)] == []
    lab.shut()


def shown(lab, number):
    """The JPEG that a control shows, as text; "" for none."""
    return lab.page.run(f"""(async () => {{
      const image = panel.node.querySelectorAll(".widget-image")[{number}];
      const got = await fetch(image.src);
      const bytes = Array.from(new Uint8Array(await got.arrayBuffer()));
      return bytes[0] === 0xff && bytes[1] === 0xd8 ? bytes.join(" ") : "";
    }})()""")


def controls_respond(lab):
    """Another query is chosen, then a photograph is dropped in: each time the picture changes."""
    before = [shown(lab, number) for number in (0, 1)]
    assert before[0] and not before[1]
    lab.page.run("""(() => {
      const list = panel.node.querySelector(".widget-dropdown select");
      list.selectedIndex = (list.selectedIndex + 5) % list.options.length;
      list.dispatchEvent(new Event("change", {bubbles: true}));
      list.scrollIntoView();
    })()""")
    devtools.wait(lambda: shown(lab, 0) not in ("", before[0]), 60)
    lab.picture("00_chosen")
    photograph = lab.root / "results" / "nano" / "figures" / "00_strip.jpg"  # any picture will do
    button = "panel.node.querySelector('.widget-upload')"
    lab.page.run(f"{button}.scrollIntoView()")
    lab.page.choose_file(button, photograph)
    devtools.wait(lambda: shown(lab, 1), 60)
    lab.picture("00_uploaded")
