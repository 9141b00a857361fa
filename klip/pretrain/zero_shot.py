"""What a pre-trained encoder knows before any fine-tuning, asked in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from klip.model import encoder
from klip.pretrain.corpus import CORPUS_PIXELS
from klip.recognise.prompts import build, tokenizer
from klip.settings import paths
from klip.shop.design import colour_name, design
from klip.shop.packshot import packshot
from klip.shop.photo import on_white


def zero_shot(arch: str = "nanoclip") -> pd.DataFrame:
    """Zero-shot classification by prompt, as CLIP does it, of packshots of the range
    `spare`, never trained on.  A row per question: attribute, choices, correct, total,
    chance (of the most frequent answer, a fraction)."""
    model, tokenize = build(arch, trained=True).eval(), tokenizer(arch)
    tower = encoder.load(paths.WEIGHTS / f"{arch}.safetensors")
    products, rng = design("spare", 300, flavours=(1, 1)), np.random.default_rng(0)
    side = tower.preprocess.size
    clean = [on_white(packshot(product, CORPUS_PIXELS), rng, size=side) for product in products]
    shapes = [product.shape for product in products]
    colours = [colour_name(product.palette[0]) for product in products]
    questions = {
        "package": ("a packshot of a {}", shapes),
        "main colour": ("a photo of a {} package", colours),
        "kind of goods": ("a packshot of {}", [product.noun for product in products]),
    }
    rows = []
    with torch.no_grad():
        images = encoder.embed(tower, clean)  # (N, D)
        for attribute, (prompt, truth) in questions.items():
            answers = sorted(set(truth))
            prompts = tokenize([prompt.format(answer) for answer in answers])
            text = model.encode_text(prompts, normalize=True)  # (answers, D)
            said = [answers[k] for k in (images @ text.T).argmax(1).tolist()]
            correct = sum(a == b for a, b in zip(said, truth, strict=True))
            chance = max(map(truth.count, answers)) / len(truth)
            rows.append((attribute, len(answers), correct, len(truth), chance))
    return pd.DataFrame(rows, columns=["attribute", "choices", "correct", "total", "chance"])
