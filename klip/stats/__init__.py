"""Scores with intervals, the paper's claims and its published numbers.  Needs no torch."""
