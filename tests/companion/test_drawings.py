"""The drawings of the ideas are drawn from a few known numbers, and hold these numbers."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from klip.companion import canvas, drawings, drawings_answers

SIZES = pd.Series({"cola": 9, "rice": 4, "salt": 1})
RATES = {"proj": 2e-4, "block 1": 2e-4, "block 0": 1.4e-4, "stem": 9.8e-5}
MEANS = np.array([0.0, 0.25, 0.25, 0.5])


def on_circle(*degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


ROWS, OWNERS = on_circle(0, 20, 100, 120), ["tea", "tea", "rice", "rice"]
SIX = on_circle(10, 30, 100, 82, 130, 150)
ALL = {
    "balanced": lambda: drawings.balanced(SIZES, 4),
    "ladder": lambda: drawings.ladder(RATES, 0.7),
    "margin": lambda: drawings.angular_margin([60, 150], 85, margin_deg=20.0, scale=30.0),
    "batch": lambda: drawings.batch(np.array([[0.9, 0.1], [-0.2, 0.8]]), ["tea", "rice"]),
    "pipeline": lambda: drawings_answers.pipeline(ROWS, OWNERS, on_circle(90)[0]),
    "nearest": lambda: drawings_answers.nearest(ROWS, OWNERS, on_circle(65)[0]),
    "threshold": lambda: drawings_answers.threshold([0.9, 0.6, 0.7], [True, True, False], 0.65),
    "neighbours": lambda: drawings_answers.neighbours(SIX, ["tea"] * 3 + ["rice"] * 3, 1),
    "resampled": lambda: drawings_answers.resampled(
        pd.Series({"a": 0.5, "b": 0.0}), MEANS, (0.0, 0.5)
    ),
}


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def angle(line):
    """Degrees between the ends of an arc around the origin."""
    start, *_, end = line.get_xydata()
    cosine = start @ end / np.linalg.norm(start) / np.linalg.norm(end)
    return np.degrees(np.arccos(cosine))


@pytest.mark.parametrize("name", ALL)
def test_text_is_large_enough_for_the_last_row(name):
    figure = ALL[name]()
    assert canvas.encoded(figure, "png").startswith(b"\x89PNG")  # makes the ticks
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 11


def test_kept_and_repeated_images_fill_the_depth():
    kept, left_out, repeated = (
        [bar.get_height() for bar in group] for group in ALL["balanced"]().axes[0].containers
    )
    assert kept == [4, 4, 1] and left_out == [5, 0, 0] and repeated == [0, 0, 3]


def test_the_ladder_holds_its_rates_from_the_top():
    (line,) = ALL["ladder"]().axes[0].lines
    assert line.get_xdata().tolist() == list(RATES.values())
    assert "9.80e-05" in texts(ALL["ladder"]())


def test_angle_and_margin_are_those_of_the_formula():
    circle, curve = ALL["margin"]().axes
    lines = {line.get_label(): line for line in circle.lines}
    assert angle(lines["θ, 25°"]) == pytest.approx(25)
    assert angle(lines["margin m, 20.0°"]) == pytest.approx(20)
    plain, with_margin = [
        line.get_xydata()[0] for line in curve.lines if len(line.get_xdata()) == 1
    ]
    assert plain == pytest.approx([25, 30 * np.cos(np.radians(25))])
    assert with_margin == pytest.approx([25, 30 * np.cos(np.radians(45))])


@pytest.mark.parametrize(("embedding", "widened"), [(85, 105), (35, 15)])
def test_the_margin_leads_away_from_the_own_centre(embedding, widened):
    ax = drawings.angular_margin([60, 150], embedding, margin_deg=20.0, scale=30.0).axes[0]
    (arc,) = [line for line in ax.lines if line.get_label().startswith("margin")]
    assert np.degrees(np.arctan2(*arc.get_xydata()[-1][::-1])) == pytest.approx(widened)


def test_the_batch_frames_its_diagonal():
    (ax,) = ALL["batch"]().axes
    centres = [tuple(np.round(patch.get_center(), 9)) for patch in ax.patches]
    assert centres == [(0, 0), (1, 1)] and {"0.90", "-0.20"} <= set(texts(ax.figure))


def test_the_pipeline_counts_its_rows_and_marks_the_nearest():
    _, strips, bars = ALL["pipeline"]().axes
    lengths = [bar.get_width() for bar in bars.patches]
    assert lengths == pytest.approx(ROWS @ on_circle(90)[0])
    assert [bar.get_hatch() for bar in bars.patches] == ["", "", "//", ""]
    said = texts(strips.figure)
    assert "4 gallery rows\nof length 1" in said and "nearest: row 3" in said
    assert "2 views of each:\nplain, and augmented" in said


def test_the_query_is_tied_to_its_nearest_row():
    ax = ALL["nearest"]().axes[0]
    (tie,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert tie.get_xydata() == pytest.approx(on_circle(65, 100))
    assert ax.get_title(loc="left").endswith(": rice") and "rice, cos 0.82" in texts(ax.figure)


def test_the_threshold_counts_what_it_accepts():
    figure = ALL["threshold"]()
    assert {"1 of 2 accepted", "1 of 1 accepted", " threshold 0.65"} <= set(texts(figure))


def test_an_arrow_is_dashed_where_the_neighbour_is_another_product():
    arrows = [
        text.arrow_patch for text in ALL["neighbours"]().axes[0].texts if text.get_text() == ""
    ]
    dashed = [arrow.get_linestyle() in ("--", "dashed") for arrow in arrows]
    assert dashed == [False, False, True, True, False, False]


def test_the_resampled_means_are_shares_of_all_draws():
    _, many = ALL["resampled"]().axes
    assert [bar.get_height() for bar in many.patches] == [0.25, 0.5, 0.25]
    assert [line.get_xdata()[0] for line in many.lines] == [0.0, 0.5, 0]


def test_nothing_to_draw_is_told():
    with pytest.raises(ValueError, match="ladder: nothing to draw"):
        drawings.ladder({}, 0.7)
