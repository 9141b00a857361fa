"""Recognition from one packshot (paper 4.2): galleries, evaluation, re-ranking by print, baselines."""
