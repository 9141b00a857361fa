"""The things that can grow or crumble on a pack, as tables: fruit, leaves, chips, beans."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

PATTERNS = ("plain", "fade", "blush", "stripes", "mottle", "net", "slice", "rings")
_MOVES = {
    # measure: how far it moves from one individual to the next, and its least value
    "width": (0.04, 0.1), "taper": (0.05, -np.inf), "bend": (0.04, -np.inf),
    "lobe": (0.015, 0.0), "rough": (0.02, 0.0), "bump": (0.04, 0.0),
    "gloss": (0.1, 0.0), "speckle": (0.15, 0.0),
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """Shape and surface of one kind of thing; lengths are in units of its half length."""

    width: float = 1.0
    taper: float = 0.0  # wider below (above 0) or above
    bend: float = 0.0  # as a banana is
    lobes: int = 3  # waves round the outline, and how high they are
    lobe: float = 0.03
    spike: float = 0.0  # depth of notches between the lobes, as in a star
    rough: float = 0.05  # of the outline
    bump: float = 0.05  # of the surface
    gloss: float = 0.3
    flat: float = 0.0  # 0 a ball .. 1 a disc
    pattern: str = "plain"  # how the second colour lies on the first, one of PATTERNS
    speckle: float = 0.0  # share of the marks' colour in the speckles
    crown: str = ""  # leaf, spikes, stem, root or dot


FORMS: dict[str, Form] = {
    "apple": Form(
        0.97, 0.1, lobes=2, lobe=0.04, gloss=0.5, pattern="blush", speckle=0.3, crown="stem"
    ),
    "plum": Form(0.9, 0.05, gloss=0.35, pattern="mottle", crown="stem"),
    "potato": Form(
        0.75, 0.1, 0.1, rough=0.12, bump=0.12, gloss=0.08, pattern="mottle", speckle=0.4
    ),
    "beetroot": Form(
        0.95, -0.1, rough=0.1, bump=0.25, gloss=0.05, pattern="rings", speckle=0.3, crown="root"
    ),
    "orange": Form(1.0, bump=0.12, gloss=0.4, speckle=0.5, crown="dot"),
    "melon": Form(0.85, gloss=0.2, pattern="stripes", bump=0.1),
    "pear": Form(0.72, 0.45, gloss=0.3, pattern="fade", speckle=0.6, crown="stem"),
    "onion": Form(0.95, -0.25, gloss=0.5, pattern="stripes", crown="root"),
    "berries": Form(0.95, -0.15, gloss=0.6, bump=0.2, pattern="fade", speckle=0.5, crown="leaf"),
    "mushroom": Form(1.0, 0.3, lobes=2, lobe=0.18, gloss=0.15, bump=0.08, pattern="mottle"),
    "pepper": Form(0.8, -0.15, lobes=4, lobe=0.1, gloss=0.9, pattern="fade", crown="stem"),
    "cucumber": Form(0.24, 0.0, 0.1, rough=0.03, bump=0.12, gloss=0.5, pattern="stripes"),
    "carrot": Form(
        0.24, -0.6, 0.08, rough=0.05, bump=0.1, gloss=0.25, pattern="rings", crown="leaf"
    ),
    "banana": Form(0.26, 0.1, 0.38, gloss=0.25, pattern="fade", speckle=0.3),
    "pineapple": Form(0.62, bump=0.3, gloss=0.2, pattern="net", crown="spikes"),
    "lettuce": Form(0.95, lobes=9, lobe=0.07, rough=0.15, bump=0.9, gloss=0.15, pattern="mottle"),
    "ginger": Form(
        0.6, 0.1, 0.2, lobes=5, lobe=0.28, rough=0.12, bump=0.15, gloss=0.05, pattern="rings"
    ),
    "avocado": Form(0.68, 0.3, bump=0.45, gloss=0.25, pattern="mottle"),
    "cauliflower": Form(1.0, lobes=11, lobe=0.06, rough=0.06, bump=1.2, gloss=0.05),
    "leek": Form(0.16, -0.1, 0.03, rough=0.02, gloss=0.2, pattern="fade", crown="spikes"),
    "leaf": Form(0.42, -0.2, 0.15, bump=0.15, gloss=0.2, flat=0.7, pattern="fade"),
    "chip": Form(
        0.85, 0.05, rough=0.1, bump=0.25, gloss=0.2, flat=0.6, pattern="mottle", speckle=0.5
    ),
    "disc": Form(1.0, rough=0.02, bump=0.2, gloss=0.1, flat=0.8, pattern="mottle", speckle=1.0),
    "citrus": Form(1.0, gloss=0.2, flat=1.0, pattern="slice"),
    "bean": Form(0.55, 0.0, 0.25, gloss=0.5, pattern="plain"),
    "crumb": Form(0.7, rough=0.3, bump=0.5, gloss=0.1, pattern="mottle"),
    "flower": Form(1.0, lobes=6, lobe=0.35, flat=0.7, bump=0.1, gloss=0.1, pattern="rings"),
    "star": Form(1.0, lobes=5, spike=0.5, flat=0.6, gloss=0.3),
    "stick": Form(0.13, 0.05, 0.05, gloss=0.2, pattern="fade"),
    "cube": Form(0.95, lobes=4, lobe=0.09, flat=0.5, gloss=0.3, pattern="mottle"),
}


def individual(form: Form, rng: Generator, *, spread: float = 1.0) -> Form:
    """A relative of `form`: every measure moved a little (`spread` 1) or a lot."""
    moved = {}
    for name, (amount, least) in _MOVES.items():
        value = getattr(form, name) + amount * spread * rng.normal()
        moved[name] = max(float(value), least)
    return replace(form, **moved)
