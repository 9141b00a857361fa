"""Every figure is drawn from a small table whose content is known, and read back from its axes."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.text import Text
from PIL import Image

from klip.companion import bars, canvas, grids, plots, thumbs

COUNTS = pd.Series({"a": 400, "b": 120, "c": 50, "d": 20, "e": 3, "f": 1})
PARTS = pd.Series(["head", "head", "middle", "middle", "tail", "tail"], index=COUNTS.index)
DEPTHS = pd.DataFrame({"set": "s", "depth": [1, 4, 16], "mean": [0.3, 0.5, 0.4], "low": [0.2, 0.4, 0.3],
                       "high": [0.4, 0.6, 0.5], "chosen": [False, True, False]})  # fmt: skip
SEEDS = pd.DataFrame({"depth": [1, 1], "top1": [0.2, 0.4]})
RATES = pd.DataFrame({"group": ["stem", "block 0", "proj"], "parameters": [1, 2, 3],
                      "lr": [2e-4 * 0.49, 2e-4 * 0.7, 2e-4]})  # fmt: skip
HISTORY = pd.DataFrame({"images": [8, 16, 24], "loss": [3.0, 2.0, 1.0], "lr_stem": [0.0, 1e-6, 0.0],
                        "lr_top": [1e-5, 2e-4, 1e-5], "val_top1": [np.nan, 0.2, 0.4]})  # fmt: skip
EFFECTS = pd.DataFrame({"label": ["one", "two", "one"], "group": ["x", "x", "y"], "mean": [0.02, -0.01, 0.1],
                        "low": [0.01, -0.03, 0.05], "high": [0.03, 0.01, 0.2]})  # fmt: skip
LEVELS = pd.concat([EFFECTS, EFFECTS[["mean", "low", "high"]].add_suffix("_gain") - 0.05], axis=1)
GAINED = pd.DataFrame({"variant": ["a", "b"] * 3, "set": ["val", "val", "x", "x", "y", "y"],
                       "mean": [0.2, 0.1, -0.05, 0.02, 0.03, 0.01], "low": [0.1, 0.0, -0.08, -0.01, 0.0, -0.02],
                       "high": [0.3, 0.2, -0.02, 0.05, 0.06, 0.04]})  # fmt: skip
ACCEPTS = pd.DataFrame({"threshold": [np.inf, 0.9, 0.6, 0.3], "false_accepts": [0, 0, 0.25, 1],
                        "correct_accepts": [0, 0.5, 1, 1]})  # fmt: skip
ROWS = pd.DataFrame({"set": ["x", "x", "y"], "row": ["theirs", "ours", "ours"], "top1": [0.5, 0.6, 0.2],
                     "low": [0.4, 0.5, 0.1], "high": [0.6, 0.7, 0.3]})  # fmt: skip
WEIGHTS = pd.DataFrame({"weight": [1.0, 0.0, 1.0, 0.0], "set": ["a", "a", "b", "b"], "mean": [0.6, 0.5, 0.7, 0.5],
                        "low": 0.4, "high": 0.8})  # fmt: skip
BUDGETS = pd.DataFrame({"set": [f"row {n}" for n in range(7) for _ in range(3)], "budget": [2, 4, 8] * 7,
                        "mean": [0.2, 0.4, 0.3] * 7, "low": 0.2, "high": 0.4,
                        "chosen": [False, True, False] * 7})  # fmt: skip
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (30 + 10 * k, 50, 3), dtype=np.uint8) for k in range(3)]
PLACES = RNG.normal(size=(9, 2))
ALL = {
    "rank_frequency": lambda: plots.rank_frequency(COUNTS, PARTS, exponent=1.5),
    "sheet": lambda: grids.sheet(
        {"packshot": PICTURES, "in store": PICTURES[:2]}, title="two rows"
    ),
    "depth": lambda: plots.curve(DEPTHS, "depth", points=SEEDS),
    "alpha": lambda: plots.curve(DEPTHS.assign(alpha=[0.0, 0.5, 1.0]), "alpha"),
    "breadth": lambda: plots.curve(DEPTHS.assign(products=[40, 80, 160]), "products"),
    "weight": lambda: plots.curve(WEIGHTS, "weight"),
    "budget": lambda: plots.curve(BUDGETS, "budget"),
    "rows": lambda: bars.rows(ROWS, "ours"),
    "accept_curve": lambda: plots.accept_curve({"a": ACCEPTS, "b": ACCEPTS}, {"a": 0.55, "b": 0.3}),
    "rate_bars": lambda: bars.rate_bars({"small": RATES, "large": RATES}),
    "history": lambda: plots.history({"seed 0": HISTORY, "seed 1": HISTORY}),
    "comparison": lambda: bars.comparison(EFFECTS, "effects"),
    "levels and differences": lambda: bars.comparison(LEVELS, "both"),
    "trade": lambda: bars.trade(GAINED, "val"),
    "levels": lambda: bars.comparison(EFFECTS, "levels alone", zero=False),
    "umap_scatter": lambda: plots.umap_scatter(
        {"before": PLACES, "after": PLACES}, list("aaabbbccc"), shown=["a", "b"]
    ),
}


def title(figure):
    """What stands over all panels, on one line."""
    return " ".join(figure.get_suptitle().split())


@pytest.mark.parametrize("name", ALL)
def test_text_is_large_enough_and_stays_inside(name):
    figure = ALL[name]()
    canvas.encoded(figure, "png")  # sets what is where
    drawn = [text for text in figure.findobj(Text) if text.get_text().strip()]
    assert min(text.get_fontsize() for text in drawn) >= canvas.SMALL
    box, (wide, high) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < wide + 0.02 and box.y1 < high + 0.02


@pytest.mark.parametrize("name", ALL)
def test_returns_a_drawable_figure_and_writes_nothing(name, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    before = dict(plt.rcParams)
    figure = ALL[name]()
    figure.savefig(stream := io.BytesIO(), format="png", dpi=60)
    assert stream.getvalue().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == []
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before


def test_rank_frequency_shows_every_product_once_in_its_part():
    *lines, _ = ALL["rank_frequency"]().axes[0].lines  # the last one is the fit
    assert [len(line.get_xdata()) for line in lines] == [2, 2, 2]
    assert sorted(x for line in lines for x in line.get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert "head: 2 products, 520 images" in lines[0].get_label()


def test_fit_line_has_the_given_slope():
    line = ALL["rank_frequency"]().axes[0].lines[-1]
    slope = np.polyfit(np.log(line.get_xdata()), np.log(line.get_ydata()), 1)[0]
    assert slope == pytest.approx(-1.5)


def test_rate_bars_have_the_height_of_the_rates():
    axes = ALL["rate_bars"]().axes
    assert [bar.get_height() for bar in axes[1].patches] == pytest.approx(list(RATES["lr"]))
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["stem", "0", "proj"]


def test_rows_have_a_panel_per_set_with_values_and_intervals():
    left, right = ALL["rows"]().axes
    titles = [ax.get_title(loc="left") for ax in (left, right)]
    assert titles == ["x:\nahead of 1 of 1 rows", "y:\nahead of 0 of 0 rows"]
    assert title(left.figure) == "ours has the higher top-1 in 1 of 1 comparisons"
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["theirs", "ours"]
    drawn = [line.get_xydata().tolist() for line in left.lines]
    assert [[0.4, 0.0], [0.6, 0.0]] in drawn and [[0.6, 1.0]] in drawn  # the interval, and ours
    assert [[0.2, 1.0]] in [
        line.get_xydata().tolist() for line in right.lines
    ]  # its place is the same in each


def test_breadth_curve_marks_the_breadths():
    axes = ALL["breadth"]().axes[0]
    assert axes.get_xticks().tolist() == [40, 80, 160] and axes.lines[0].get_ydata().tolist() == [
        0.3,
        0.5,
        0.4,
    ]


def test_depth_curve_shows_the_single_runs_and_rings_what_was_chosen():
    axes = ALL["depth"]().axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["one seed"] == [[1, 0.2], [1, 0.4]] and lines["chosen"] == [[4, 0.5]]
    assert title(axes.figure) == "Top-1 is highest at depth 4"
    assert axes.get_xscale() == "log" and axes.get_xticks().tolist() == [1, 4, 16]


def test_weight_curve_has_a_line_for_each_set():
    lines = ALL["weight"]().axes[0].lines
    assert [line.get_label() for line in lines] == ["a", "b"]
    assert [line.get_xydata().tolist() for line in lines] == [
        [[0, 0.5], [1, 0.6]],
        [[0, 0.5], [1, 0.7]],
    ]


def test_up_to_four_lines_are_named_at_their_ends_with_their_queries():
    figure = plots.curve(WEIGHTS, "weight", n={"a": 1240})
    told = {text.get_text().replace("\xa0", " "): text.xy for text in figure.axes[0].texts}
    assert told == {"a, n = 1,240": (1.0, 0.6), "b": (1.0, 0.7)}
    assert not figure.legends
    many = plots.curve(BUDGETS, "budget")
    assert not many.axes[0].texts and len(many.legends[0].get_texts()) == 8  # and "chosen"


def test_names_at_line_ends_keep_clear_of_each_other():
    table = WEIGHTS.assign(mean=[0.6, 0.5, 0.6001, 0.5])
    low, high = sorted(text.xyann[1] for text in plots.curve(table, "weight").axes[0].texts)
    assert high - low > 0.05
    places = canvas._apart([0.99, 0.98, 0.1], [0.2, 0.2, 0.2])
    assert places == pytest.approx([0.9, 0.7, 0.1])


def test_budget_curve_rings_what_was_chosen_and_tells_seven_rows_apart():
    axes = ALL["budget"]().axes[0]
    *lines, rings = axes.lines
    assert rings.get_xydata().tolist() == [[4, 0.4]] * 7 and rings.get_linestyle() == "None"
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines) == 7
    assert axes.get_xticks().tolist() == [2, 4, 8]


def test_accept_curve_marks_the_last_point_that_the_threshold_accepts():
    lines = {
        line.get_label(): line.get_xydata().tolist() for line in ALL["accept_curve"]().axes[0].lines
    }
    assert (
        lines["a"]
        == lines["b"]
        == ACCEPTS[["false_accepts", "correct_accepts"]].to_numpy().tolist()
    )
    assert lines["95 % correct accepts"] == [[0, 0.95], [1, 0.95]] and lines["chance"] == [
        [0, 0],
        [1, 1],
    ]
    told_by = {
        line.get_label(): line.get_linestyle() for line in ALL["accept_curve"]().axes[0].lines
    }
    assert told_by["a"] != told_by["b"]  # without colour
    points = [data for data in lines.values() if len(data) == 1]
    assert points == [[[0.25, 1]], [[1, 1]]]  # 0.6 is accepted at 0.55, 0.3 is not
    assert "at the chosen threshold" in lines
    found = "At the chosen thresholds 25 % to 100 % of the queries of unknown products pass"
    assert title(ALL["accept_curve"]()) == found
    exact = plots.accept_curve({"a": ACCEPTS}, {"a": 0.9}).axes[0].lines
    assert [0, 0.5] in [
        line.get_xydata().tolist()[0] for line in exact if len(line.get_xdata()) == 1
    ]


def test_comparison_keeps_intervals_and_order():
    axes = ALL["comparison"]().axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["one", "two"]
    spans = axes.containers[0][2][0].get_segments()
    assert spans[0][:, 0] == pytest.approx([0.01, 0.03]) and spans[1][:, 0] == pytest.approx(
        [-0.03, 0.01]
    )


def test_levels_stand_beside_their_differences():
    left, right = bars.comparison(LEVELS).axes
    for ax, start in ((left, 2), (right, 5)):
        drawn = [x for bars in ax.containers for x in bars.lines[0].get_xdata()]
        assert drawn == LEVELS.sort_values("group", kind="stable").iloc[:, start].tolist()
    assert (left.get_xlabel(), right.get_xlabel()) == ("top-1", "difference in points")


def test_trade_sets_each_point_at_both_gains_and_names_it():
    figure = bars.trade(GAINED, "val")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["x", "y"]
    first = figure.axes[0]
    points = [
        (float(x), float(y)) for bars in first.containers for x, y in bars.lines[0].get_xydata()
    ]
    assert points == [(0.2, -0.05), (0.1, 0.02)]
    assert [(text.get_text(), text.xy) for text in first.texts] == [
        ("a", (0.2, -0.05)),
        ("b", (0.1, 0.02)),
    ]
    looks = [(own.lines[0].get_color(), own.lines[0].get_marker()) for own in first.containers]
    # Only a's interval lies below zero; only a gains on val for certain.
    assert looks == [(canvas.ORANGE, "s"), (canvas.BLUE, "o")]
    assert title(figure) == "1 of 1 variants that gain on val lose elsewhere"


def test_history_leaves_out_steps_without_validation_and_rates_of_zero():
    loss, rates, validation = ALL["history"]().axes
    assert [len(line.get_xdata()) for line in validation.lines] == [2, 2]
    assert len(rates.lines) == 2 and len(loss.lines) == 2
    found = "The loss fell from 3.00 to 1.00; validation top-1 rose from 20.0 % to 40.0 %"
    assert title(loss.figure) == found
    assert [text.get_text() for text in validation.texts] == ["seed 0", "seed 1"]


def test_sheet_has_a_cell_per_column_and_leaves_gaps_empty():
    axes = ALL["sheet"]().axes
    assert title(axes[0].figure) == "two rows"
    assert len(axes) == 6 and [len(ax.images) for ax in axes] == [1, 1, 1, 1, 1, 0]
    assert axes[0].images[0].get_array().shape == (144, 144, 3)


def wrong_by_others(shop):
    """Outcomes in which apples are taken for bread and so on, and dates are known."""
    gallery, queries = shop.pick()
    nearest = dict(zip(gallery["product"], gallery["image"], strict=True))
    frame = queries.frame.assign(similarity=np.linspace(0.9, 0.1, len(queries)))
    others = {"apple": "bread", "bread": "cocoa", "cocoa": "dates", "dates": "apple"}
    frame = frame.assign(top1=False, predicted=frame["product"].map(others))
    frame["packshot"] = frame["predicted"].map(nearest)
    frame.loc[frame["product"] == "dates", "top1"] = True
    return frame


def test_the_surest_mistakes_one_of_a_product_beside_what_was_right(shop):
    frame = wrong_by_others(shop)
    figure = grids.mistakes(frame, shop)
    assert len(figure.axes) == 9  # query, neighbour and packshot of three products
    shown = [np.asarray(ax.images[0].get_array()).mean(axis=(0, 1)) for ax in figure.axes]
    for column, product in enumerate(("apple", "bread", "cocoa")):
        query, neighbour, right = shown[column], shown[3 + column], shown[6 + column]
        assert np.abs(query - right).max() < 10 < np.abs(neighbour - right).max(), product


def test_mistakes_are_named_with_their_cosine_and_kind(shop):
    groups = {"apple": "fruit", "bread": "dry", "cocoa": "dry"}
    known = shop.assign(group=shop["product"].map(groups).fillna(""))
    frame = wrong_by_others(known)
    figure = grids.mistakes(frame, known, shown="gallery image")
    kinds = [" ".join(ax.get_title(loc="center").split()) for ax in figure.axes[:3]]
    assert kinds == ["other group", "same group, other product", "another product"]
    said = [ax.get_xlabel().split("\n")[0] for ax in figure.axes]
    assert said == ["", "", "", "bread", "cocoa", "dates", "apple", "bread", "cocoa"]
    first = frame.loc[frame["product"] == "apple", "similarity"].max()
    assert figure.axes[3].get_xlabel().endswith(f"cosine {first:.2f}")
    assert figure.axes[6].get_ylabel() == "right\ngallery image"
    assert title(figure).startswith("The surest mistakes: 1 x other group; 1 x same group")


def test_comparison_says_where_intervals_lie_and_how_many_queries():
    figure = bars.comparison(EFFECTS, "effects", n={"one": 30, "y": 7})
    assert title(figure) == "effects: above zero on 2 of 3, below on 0"
    ticks = [tick.get_text().replace("\xa0", " ") for tick in figure.axes[0].get_yticklabels()]
    assert ticks == ["one, n = 30", "two"]
    legend = [text.get_text().replace("\xa0", " ") for text in figure.legends[0].get_texts()]
    assert legend == ["x", "y, n = 7"]
    assert title(bars.comparison(LEVELS, "both")) == "both: above zero on 0 of 3, below on 2"
    assert title(ALL["levels"]()) == "levels alone: y is ahead on 1 of 2, x on 1"


def test_the_map_shows_a_photograph_of_each_product_that_stands_out(tmp_path, picture):
    files = [picture(tmp_path / f"{k}.png", (25 * k, 90, 200)) for k in range(9)]
    maps = {"before": PLACES, "after": PLACES[::-1]}
    figure = plots.umap_scatter(maps, list("aaabbbccc"), shown=["a", "b"], files=files)
    for ax, place in zip(figure.axes, maps.values(), strict=True):
        boxes = [own for own in ax.artists if isinstance(own, AnnotationBbox)]
        middles = [rows.start + thumbs.medoid(place[rows]) for rows in (slice(0, 3), slice(3, 6))]
        reds = [box.offsetbox.get_data().mean(axis=(0, 1))[0] for box in boxes]
        with_white = [
            np.pad(np.full((64, 48), 25.0 * k), ((0, 0), (8, 8)), constant_values=255)
            for k in middles
        ]
        assert reds == pytest.approx([own.mean() for own in with_white], abs=6)
    assert figure.legends[0].get_title().get_text() == "n = 9 photographs\nof 3 products"


def test_thumbnails_are_tied_to_the_medoid_and_keep_clear():
    assert thumbs.medoid(np.array([[0, 0], [1, 0], [1.2, 0], [9, 0]])) in (1, 2)
    taken = []
    for _ in range(12):  # all from one place
        taken.append(thumbs.free(np.array([0.98, 0.5]), taken))
    gaps = [np.abs(a - b).max() for k, a in enumerate(taken) for b in taken[:k]]
    assert min(gaps) >= thumbs.APART and np.min(taken) >= 0 and np.max(taken) <= 1


def test_show_gives_png_for_plots_and_smaller_jpeg_for_pictures():
    figure = ALL["sheet"]()
    png, jpeg = canvas.show(figure).data, canvas.show(figure, images=True).data
    assert png.startswith(b"\x89PNG") and jpeg.startswith(b"\xff\xd8") and len(jpeg) < len(png)


def test_files_have_twice_the_dots_of_the_page_few_colours_and_the_same_bytes():
    figure = ALL["depth"]()
    shown, again = canvas.show(figure), canvas.encoded(ALL["depth"](), "png")
    assert shown.data == again
    image = Image.open(io.BytesIO(shown.data))
    assert image.width == 2 * shown.width == 2 * canvas.width(figure)
    colours = image.convert("RGB").getcolors()
    assert len(colours) <= 128 and max(colours)[1] == (255, 255, 255)
    jpegs = [canvas.encoded(ALL["sheet"](), "jpeg") for _ in range(2)]
    assert jpegs[0] == jpegs[1]


def test_no_two_lines_have_colour_and_dashes_in_common():
    assert len({tuple(map(str, canvas.stroke(k).values())) for k in range(36)}) == 36
    assert len({str(canvas.stroke(k)["linestyle"]) for k in range(6)}) == 6


@pytest.mark.parametrize(
    "draw",
    [
        lambda: grids.sheet({}),
        lambda: plots.rank_frequency(COUNTS.iloc[:0], PARTS, exponent=1.5),
        lambda: plots.curve(DEPTHS.iloc[:0], "depth"),
        lambda: bars.rate_bars({}),
        lambda: plots.accept_curve({}, {}),
    ],
)
def test_empty_input_is_one_sentence(draw):
    with pytest.raises(ValueError, match=r"^\w+: nothing to draw; give at least one row$"):
        draw()
