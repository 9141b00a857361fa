"""What a user meets first: the ten lines of the README, quick imports, and an ordinary install from a wheel."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest

from klip.settings import paths

README = (paths.ROOT / "README.md").read_text()
(TEN_LINES,) = re.findall(r"```python\n(import klip\n.*?)```", README, flags=re.DOTALL)


def test_the_ten_lines_of_the_readme_recognise_a_photograph(tmp_path, monkeypatch, picture):
    monkeypatch.chdir(tmp_path)
    for product, colour in {
        "red": (220, 30, 30),
        "green": (30, 200, 40),
        "blue": (30, 40, 220),
    }.items():
        picture(tmp_path / "packshots" / product / "1.jpg", colour)
    picture(tmp_path / "photograph.jpg", (40, 190, 50))
    picture(tmp_path / "new.jpg", (230, 220, 40))
    known = {}
    exec(TEN_LINES, known)  # README's own words
    assert len(TEN_LINES.splitlines()) <= 10
    assert known["answers"]["product"].tolist()[0] == "green" and len(known["answers"]) == 3
    again = known["klip"].Gallery.load(tmp_path / "shop.gallery", known["encoder"])
    assert set(again.products) == {"red", "green", "blue", "a new product"}


def seconds(*words):
    """Of computing, the least of five: what waits while other tests run is no fault of ours."""
    found = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=paths.ROOT)
        after = os.times()
        took = after.children_user - before.children_user
        found.append(took + after.children_system - before.children_system)
    return min(found)


def test_the_package_and_its_help_wait_for_nothing_heavy():
    bare = seconds("-c", "pass")
    assert seconds("-c", "import klip") - bare < 0.3
    assert seconds("-m", "klip", "--help") - bare < 0.5


@pytest.mark.slow
def test_a_wheel_installs_and_runs(tmp_path):
    """Built, and installed into a new environment that sees the dependencies of this one but not this checkout."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    source = tmp_path / "source"  # what an earlier build left in the checkout stays out
    shutil.copytree(paths.ROOT / "klip", source / "klip")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(paths.ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(source)], check=True, capture_output=True, env=outside)
    (wheel,) = tmp_path.glob("klip-*.whl")
    venv.create(tmp_path / "new", with_pip=False)
    python = tmp_path / "new" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run(
        [python, "-c", where], check=True, capture_output=True, text=True
    ).stdout.strip()
    install = [*pip, "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, env=outside)
    environment = {
        "PATH": str(python.parent),
        "PYTHONPATH": f"{site}:{sysconfig.get_path('purelib')}",
    }
    code = "import klip.cli, klip.settings.paths as p; from klip.companion import page; "
    code += (
        "print(klip.__file__, len(list(p.WEIGHTS.glob('*.safetensors'))), page.TEMPLATE.is_file())"
    )
    told = subprocess.run(
        [python.parent / "klip", "--help"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    ).stdout
    assert "finetune" in told and "gallery" in told
    found = subprocess.run(
        [python, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    ).stdout.split()
    assert found[0].startswith(site) and found[1:] == ["3", "True"]
