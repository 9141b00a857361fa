"""Notebook 00: the strips of pictures, what they count, and the controls that draw them anew."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from klip.companion import canvas, chooser, strips
from klip.data.catalogue import Catalogue


@pytest.fixture
def board(tmp_path, picture):
    """Three queries of three products; the first method has one right, the second two."""
    colours = {"red-1": (220, 30, 30), "green-1": (30, 200, 40), "blue-1": (30, 40, 220)}
    names = list(colours)
    for name, colour in colours.items():
        picture(tmp_path / "packshots" / f"{name}.png", colour)
        picture(tmp_path / f"{name}.png", colour)
    frame = pd.DataFrame({"image": [f"{name}.png" for name in names], "product": names})
    asked = Catalogue(frame, tmp_path, "shop")

    def answered(orders):
        rows = []
        for file, order in zip(asked.files, orders, strict=True):
            for rank, place in enumerate(order):
                name = names[place]
                rows.append((str(file), rank + 1, name, 0.9 - rank / 5, f"packshots/{name}.png"))
        columns = ["query", "rank", "product", "similarity", "packshot"]
        return pd.DataFrame(rows, columns=columns)

    frozen = answered([(0, 1), (0, 1), (0, 1)])  # the third is not among two
    tuned = answered([(1, 0), (1, 0), (2, 0)])
    return strips.Board(asked, {"frozen": frozen, "fine-tuned": tuned})


def test_places_and_counts_are_those_of_the_right_product(board):
    assert board.places().to_numpy().tolist() == [[1, 2], [2, 1], [0, 1]]
    rows = [("frozen", 3, 1, 2), ("fine-tuned", 3, 2, 3)]
    assert [tuple(row) for row in board.counts().itertuples(index=False)] == rows
    assert board.first_gain("frozen", "fine-tuned") == 1
    assert board.first_gain("fine-tuned", "fine-tuned") == 0  # no such query: the first


def test_the_right_packshot_is_framed_ticked_and_said(board):
    figure = board.strip(1)
    assert figure.texts[0].get_text().endswith("frozen no,  fine-tuned yes")
    query, *packs = figure.axes
    assert len(packs) == 4
    framed = [to_hex(ax.spines["top"].get_edgecolor()).upper() == canvas.GREEN for ax in packs]
    said = ["right" in ax.get_xlabel() for ax in packs]
    assert framed == said == [False, True, True, False]
    shown = [np.asarray(ax.images[0].get_array()).mean(axis=(0, 1)) for ax in (query, *packs)]
    assert np.abs(shown[0] - shown[2]).max() < 10 < np.abs(shown[0] - shown[1]).max()
    assert min(text.get_fontsize() for ax in figure.axes for text in [ax.xaxis.label]) >= 11


@pytest.fixture
def outcome(board):
    """outcome(method): the answers of a board as an outcome frame of `evaluate(keep=...)`."""

    def made(method):
        lists = board.answers[method].groupby("query", sort=False).agg(list)
        names = {"product": "products", "similarity": "cosines", "packshot": "packshots"}
        asked = board.asked.frame[["image", "product"]]
        kept = lists.rename(columns=names)[list(names.values())].reset_index(drop=True)
        first = kept["products"].str[0].to_numpy()
        return asked.assign(top1=asked["product"].to_numpy() == first).join(kept)

    return made


def test_the_strip_of_an_outcome_frame_is_that_of_the_answers(board, outcome):
    frames = {method: outcome(method) for method in board.answers}
    image = strips.first_gained(frames["frozen"], frames["fine-tuned"])
    assert image == "green-1.png" == board.asked["image"][board.first_gain("frozen", "fine-tuned")]
    assert strips.first_gained(frames["frozen"], frames["frozen"]) == "red-1.png"  # none gained
    drawn = strips.answers(frames, board.asked, image)
    assert canvas.encoded(drawn, "jpeg") == canvas.encoded(board.strip(1), "jpeg")
    with pytest.raises(ValueError, match="no query 'x.png' in the outcome frame of 'frozen'"):
        strips.answers(frames, board.asked, "x.png")


def test_what_is_no_packshot_is_called_otherwise(board, outcome):
    told = strips.answers(
        {"frozen": outcome("frozen")}, board.asked, "red-1.png", shown="gallery image"
    )
    assert told.texts[0].get_text().startswith("Is the nearest gallery image the right one?")
    renamed = strips.Board(board.asked, board.answers, shown="gallery image").strip(0)
    assert "gallery image" in renamed.texts[0].get_text()


def test_a_photograph_of_ones_own_has_no_right_answer(board):
    asked, file = [], board.asked.files[0]

    def classify(images):
        asked.extend(images)
        return board.answers["frozen"].head(2)

    figure = strips.photograph(file, classify, root=board.asked.root)
    assert asked == [str(file)] and not any("right" in ax.get_xlabel() for ax in figure.axes)


def test_the_list_of_queries_draws_the_strip_anew(board):
    panel = chooser.queries(board, 1)
    shown = panel.picture.value
    assert shown == canvas.encoded(board.strip(1), "jpeg")
    panel.control.value = 2
    assert panel.picture.value == canvas.encoded(board.strip(2), "jpeg") != shown


def test_without_a_kernel_a_sentence_stands_in_place_of_a_control(board):
    bundle = chooser.queries(board)._repr_mimebundle_()
    assert bundle["text/plain"] == chooser.WITHOUT and len(bundle) == 2


def drop(panel, content):
    """What a browser sends when a file is chosen."""
    one = {"name": "1.png", "type": "image/png", "size": len(content)}
    one |= {"last_modified": datetime.now(UTC), "content": memoryview(content)}
    panel.control.value = (one,)


def test_an_uploaded_photograph_is_drawn_and_not_kept(board):
    content, seen = board.asked.files[0].read_bytes(), []

    def draw(file):
        seen.append(file)
        assert file.read_bytes() == content
        return strips.strip({"frozen": board.answers["frozen"]}, file, root=board.asked.root)

    panel = chooser.upload(draw)
    drop(panel, content)
    assert panel.picture.value[:2] == b"\xff\xd8" and not seen[0].exists()


def test_what_is_no_image_is_told_beside_the_control(board):
    panel = chooser.upload(lambda file: strips.strip(board.answers, file, root=board.asked.root))
    drop(panel, b"text")
    assert "cannot be read" in panel.told.value and not panel.picture.value
