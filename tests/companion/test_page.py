"""report.html: its numbers are those of the metrics, it needs nothing but itself, and it fits a telephone."""

import json
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser

import pandas as pd
import pytest
from devtools import BROWSER
from typer.testing import CliRunner

from klip import cli
from klip.companion import dots, page, page_charts, report
from klip.companion.stored import sets
from klip.settings import paths
from klip.stats import claims
from klip.stats.published import BRIEFLY, CLAIMS

NARROW = 390
VOID = {"meta", "br", "hr", "path"}
ROW = {"queries": 200, "products": 20, "frozen": 0.305, "fine_tuned": 0.4, "difference": 0.095, "low": 0.02,
       "high": 0.17}  # fmt: skip
METHODS = pd.DataFrame({"set": "grozi-like", "row": ["RetailKLIP", "<b>&theirs", "gone"], "top1": [0.4, 0.5, None],
                        "low": [0.3, 0.4, None], "high": [0.5, 0.6, None], "seeds": [3, 1, None],
                        "note": [None, "a reason", "empty: no text"]})  # fmt: skip


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    return tmp_path


class Reader(HTMLParser):
    """Texts by tag, attributes, and ValueError for a tag that is not closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.given, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        if self.open:
            raise ValueError(f"never closed: {self.open}")

    def handle_starttag(self, tag, attributes):
        self.given += [(tag, *pair) for pair in attributes]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.given += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            raise ValueError(f"</{tag}> closes something else")

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag):
        return [text for own, text in self.texts if own == tag]


def written(profile="nano"):
    return page.write_page(profile).read_text(encoding="utf-8")


def stored():
    """The results that lie in this repository, where tests may write."""
    without = shutil.ignore_patterns("notebooks")
    shutil.copytree(paths.ROOT / "results", paths.RESULTS, dirs_exist_ok=True, ignore=without)


def measured(**changes):
    gain = claims.evidence(
        "C1", "RetailKLIP minus frozen encoder", place="grozi-like", difference=(0.095, 0.02, 0.17)
    )
    found = {
        "sets": {"grozi-like first": ROW | changes},
        "evidence": [gain],
        "reasons": {"C2": "not <at> hand"},
    }
    report.save_metrics(found, "04_zero_shot", place="nano")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "by +9.5 points (95\u00a0% interval +2.0 to +17.0), from 30.5 to 40.0\u00a0%: above zero."),
        ({"low": -0.01}, "interval -1.0 to +17.0), from 30.5 to 40.0\u00a0%: not to be told from zero."),
        ({"difference": -0.1, "low": -0.2, "high": -0.01}, "-10.0 points (95\u00a0% interval -20.0 to -1.0)"),
        ({"low": -0.2, "high": -0.01}, "below zero."),
        ({"low": None, "high": None}, "by +9.5 points, from 30.5 to 40.0\u00a0%: no interval is known."),
    ],
)  # fmt: skip
def test_the_headline_is_the_first_set_of_the_metrics(changes, words):
    measured(**changes)
    (sentence,) = [text for text in Reader(written()).of("p") if text.startswith("On grozi-like, ")]
    assert sentence.endswith(words) or words in sentence


@pytest.mark.parametrize("profile", ["nano", "real"])
def test_the_stored_page_follows_from_the_stored_numbers(profile):
    stored()
    committed = (paths.RESULTS / profile / "report.html").read_text(encoding="utf-8")
    text = written(profile)
    assert text == committed, (
        f"it is behind its metrics: run `klip report --html --profile {profile}`"
    )
    assert len(text.encode()) < 1_000_000
    label, row = next(iter(sets(profile).items()))
    numbers = [f"{100 * row[name]:+z.1f}" for name in ("difference", "low", "high")]
    assert page.headline(profile)[0].startswith(f"On {label.split()[0]}, ")
    assert re.findall(r"[+-]\d+\.\d", page.headline(profile)[0])[:3] == numbers


@pytest.mark.parametrize("profile", ["nano", "real"])
def test_the_page_is_whole_and_needs_nothing_else(profile):
    stored()
    text = written(profile)
    read = Reader(text)  # well-formed
    assert ("html", "lang", "en") in read.given and text.startswith("<!DOCTYPE html>")
    names = {(tag, name) for tag, name, _ in read.given}
    assert not {tag for tag, _ in names} & {"img", "script", "link", "iframe", "object", "image"}
    assert not {name for _, name in names} & {"src", "href", "srcset", "xlink:href", "onclick"}
    assert "http" not in text and "url(" not in text and "@import" not in text
    assert len(read.ids) == len(set(read.ids)) and len(read.of("h1")) == 1
    drawn = [value for tag, name, value in read.given if (tag, name) == ("svg", "aria-label")]
    assert len(drawn) == len(read.of("desc")) == 3 and all(drawn) and all(read.of("desc"))


@pytest.mark.parametrize("profile", ["nano", "real"])
def test_a_card_per_claim_with_its_verdict_and_why(profile):
    stored()
    cards = re.findall(
        r'<section class="card ([a-z-]+)" id="(C\d)">(.*?)</section>', written(profile), re.DOTALL
    )
    report.save_claims(profile)
    ledger = pd.read_csv(paths.RESULTS / profile / "claims.csv", keep_default_na=False).set_index(
        "id"
    )
    assert [number for _, number, _ in cards] == [claim.id for claim in CLAIMS]
    for kind, number, text in cards:
        row = ledger.loc[number]
        assert kind == row["verdict"].replace(" ", "-") and page.MARKS[row["verdict"]] in text
        for words in (BRIEFLY[number], row["verdict"], row["why"]):
            assert escape(words) in text, words
        own = [item for item in page_charts.evidence(profile) if item["claim"] == number]
        assert all(escape(claims.shown(item)) in text for item in own)
    assert len(set(page.MARKS.values())) == len(claims.VERDICTS) == len(page.MARKS)


def test_names_are_escaped_and_methods_stand_in_order():
    measured()
    report.save_table(METHODS, "05_rows", place="nano")
    text = written()
    assert "<b>" not in text and "&lt;b&gt;&amp;theirs" in text and "not &lt;at&gt; hand" in text
    chart = page_charts.by_method("nano")
    assert [row.label for row in chart.rows] == ["<b>&theirs", "RetailKLIP"]  # the best first
    assert [(row.ours, row.hollow) for row in chart.rows] == [(False, True), (True, False)]
    assert chart.title.startswith("1 of 1 other rows stand above RetailKLIP")
    lines = " ".join(page.limits("nano"))
    assert "1 of 2 rows of the comparison: a reason." in lines
    assert "Not measured: gone on grozi-like (empty: no text)." in lines


def test_choices_are_counted_on_both_sides_and_towers_that_cannot_judge_decide_nothing():
    def row(number, test, *ends, status="compared", place="validation, nano"):
        return claims.evidence(
            number, test, place=place, difference=(sum(ends) / 2, *ends), status=status
        )

    rates, arcface = "block-wise minus common rate", "ArcFace minus softmax"
    rows = [row("C8", arcface, 0.1, 0.2, status="not tested"), row("C7", rates, -0.2, -0.1),
            row("C7", rates, 0.1, 0.2, place="validation, nano-vit"), row("C7", rates, 0.1, 0.2, place="capg-like"),
            row("C6", "best inner depth minus lowest depth", 0.1, 0.2, place="validation")]  # fmt: skip
    report.save_metrics({"evidence": rows}, "03_finetune", place="nano")
    chart = page_charts.by_choice("nano")
    assert [dot.label.split()[0] for dot in chart.rows] == ["C6", "C7", "C8"]
    assert [dot.hollow for dot in chart.rows] == [False, False, True]
    assert chart.title == "The paper's choice is better for certain in 1 of 3 tests, worse in 1"


def test_a_chart_says_what_it_shows_and_draws_it_to_scale():
    rows = [
        dots.Dot("set", "frozen", 0.1, 0.0, 0.2),
        dots.Dot("set", "tuned", 0.2, float("nan"), float("nan"), True),
    ]
    text = dots.svg(rows, title="a <title>")
    assert (
        "set frozen: 10.0 (0.0 to 20.0); set tuned: 20.0" in text
        and 'aria-label="a &lt;title&gt;"' in text
    )
    (low, high) = map(float, re.search(r'class="other" d="M([\d.]+) \d+H([\d.]+)"', text).groups())
    (middle,) = map(float, re.findall(r'class="other mark" d="M([\d.]+)', text))
    assert (low, high) == (dots.EDGE, dots.WIDTH - dots.EDGE)
    assert middle + 4.5 == pytest.approx((low + high) / 2)
    assert text.count('class="ours') == 1 and "nan" not in text  # no interval, no line
    assert "-0.0" not in dots.told(dots.Dot("", "", -1e-9, -0.1, 0.1), "+")


def test_what_has_not_run_is_said_to_be_missing():
    read = Reader(written())
    assert "No set is evaluated yet: notebook 04 has not run." in read.of("p")
    assert any(
        "Not run yet: notebook 01, 02, 03, 04, 05, 06, 07, 08." in line for line in read.of("li")
    )
    assert sum("not measured yet" in head for head in read.of("h3")) == 3
    report.save_metrics({"depth": 4}, "02_depth", place="nano")
    read = Reader(written())
    assert any(
        "Not run yet: notebook 01, 03, 04, 05, 06, 07, 08." in line for line in read.of("li")
    )
    measured()
    text = written()
    assert "On grozi-like, " in text and "Not run yet: notebook 01, 03, 05, 06, 07, 08." in text


@pytest.mark.parametrize("gone", ["02_depth", "03_finetune", "04_zero_shot", "tables"])
def test_a_half_run_profile_has_a_page(gone):
    stored()
    folder = paths.RESULTS / "real"
    if gone == "tables":
        shutil.rmtree(folder / "tables")
    else:
        (folder / "metrics" / f"{gone}.json").unlink()
    text = written("real")
    Reader(text)
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert (
        "No table is stored yet" if gone == "tables" else f"Not run yet: notebook {gone[:2]}."
    ) in text


def test_the_limits_of_what_is_stored():
    stored()
    nano, real = " ".join(page.limits("nano")), " ".join(page.limits("real"))
    assert "Rendered images, no photographs: grozi-like for grozi-120" in nano
    assert "1 pair of products looks the same in training and in grocery-store (01_leaks)." in real
    assert "looks the same" not in nano  # none was suspected
    assert "Rendered" not in real and "chosen with a look at grozi-120 web1" in real
    found = json.loads((paths.RESULTS / "real/metrics/04_zero_shot.json").read_text())
    found |= {"left_out": "left out: rp2k (not at hand)"}
    found["evidence"][0] |= {"status": "not tested", "why": "it knows too little"}
    (paths.RESULTS / "real/metrics/04_zero_shot.json").write_text(json.dumps(found))
    real = " ".join(page.limits("real"))
    assert (
        "Sets left out: rp2k (not at hand)." in real
        and "A tower may not judge: it knows too little." in real
    )


def test_klip_report_writes_it_when_asked(results):
    measured()
    without = CliRunner().invoke(cli.app, ["report"])
    assert without.exit_code == 0 and not (results / "nano" / "report.html").exists()
    done = CliRunner().invoke(cli.app, ["report", "--html"])
    names = ("claims.csv", "report.md", "report.html")
    assert done.stdout.split() == [str(results / "nano" / name) for name in names]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium")
@pytest.mark.parametrize("profile", ["nano", "real"])
def test_it_fits_a_telephone_without_scrolling_sideways(profile, tmp_path):
    """In a frame, for a window is never narrower than 500; all that is folded is opened."""
    stored()
    frame = (
        f'<iframe style="width:{NARROW}px;border:0" srcdoc="{escape(written(profile))}"></iframe>'
    )
    look = """<p id="told"></p><script>onload = () => {
      const inside = document.querySelector("iframe").contentDocument;
      inside.querySelectorAll("details").forEach(one => one.open = true);
      told.textContent = [inside.defaultView.innerWidth, inside.documentElement.scrollWidth].join(" ");
    }</script>"""
    (tmp_path / "frame.html").write_text(frame + look)
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'browser'}",
    ]
    done = subprocess.run([BROWSER, *options, "--dump-dom", (tmp_path / "frame.html").as_uri()],
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    inner, needed = map(int, re.search(r'id="told">(\d+) (\d+)', done.stdout).groups())
    assert inner == NARROW and needed <= NARROW
