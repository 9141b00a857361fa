"""Scores with intervals, the paper's claims and its numbers.  Needs no torch."""
