"""Frames as Markdown."""

import numpy as np
import pandas as pd

from klip.companion import tables


def test_numbers_are_rounded_gaps_are_empty_and_bars_are_escaped():
    frame = pd.DataFrame({"product": ["a|b", "c\nd"], "lr": [2e-4, np.nan], "n": [3, 4]})
    assert tables.markdown(frame) == (
        "| product | lr | n |\n| --- | --: | --: |\n| a\\|b | 0.0002 | 3 |\n| c d |  | 4 |\n"
    )


def test_a_long_frame_says_how_much_it_leaves_out():
    text = tables.markdown(pd.DataFrame({"n": range(5)}), rows=2)
    assert text.count("|\n") == 4 and text.endswith("\n3 more rows are in the .csv file.\n")
