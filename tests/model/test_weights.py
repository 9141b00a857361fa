"""klip's own weight files: what the recipe of docs/use.md makes of them in plain open_clip."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from klip.model import augment, encoder, weights
from klip.model.weights import save
from klip.settings import paths

TEXT = {"width": 32, "heads": 2, "layers": 1, "vocab_size": 64, "context_length": 8}
CONFIGS = {
    "vit": {
        "embed_dim": 16,
        "text_cfg": TEXT,
        "vision_cfg": {
            "layers": 2,
            "width": 32,
            "head_width": 16,
            "patch_size": 8,
            "image_size": 32,
        },
    },
    "siglip": {
        "embed_dim": 64,
        "custom_text": True,
        "init_logit_bias": -10,
        "text_cfg": {**TEXT, "pool_type": "last", "no_causal_mask": True},
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_pool": "token",
            "timm_proj": "none",
            "image_size": 160,
        },
    },
    "nanoclip": {},
}
CONFIGS["coca"] = {
    **CONFIGS["vit"],
    "custom_text": True,
    "multimodal_cfg": {**TEXT, "mlp_ratio": 2, "attn_pooler_heads": 2},
    "vision_cfg": {
        **CONFIGS["vit"]["vision_cfg"],
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "attn_pooler_queries": 4,
        "output_tokens": True,
    },
}
USE = (paths.ROOT / "docs/use.md").read_text()
(RECIPE,) = re.findall(r"```python\n(import json\n.*?)```", USE, flags=re.DOTALL)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "arch, quick, resize, pixels",
    [
        ("vit", True, "pad", 0),
        ("vit", False, "crop", 48),
        ("siglip", False, "squash", 0),
        ("siglip", False, "pad", 96),
        ("coca", False, "squash", 48),
    ],
)
def test_the_recipe_of_the_readme_gives_equal_embeddings(
    arch, quick, resize, pixels, tmp_path, monkeypatch, capsys
):
    import open_clip

    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", CONFIGS)
    monkeypatch.chdir(tmp_path)
    size = CONFIGS[arch]["vision_cfg"]["image_size"]
    preprocess = augment.Preprocess(
        size=size,
        mean=(0.1, 0.2, 0.3),
        std=(0.5, 0.6, 0.7),
        resize=resize,
        interpolation="bilinear",
    )
    made = encoder.build(
        {**CONFIGS[arch], "quick_gelu": quick}, preprocess, name=arch, arch=arch, seed=3
    )
    mine = encoder.load(save(made, "first.safetensors"), pixels=pixels)
    save(mine, "mine.safetensors")
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 61, 3), dtype=np.uint8))
    known = {"image": image}
    with torch.no_grad():
        exec(RECIPE, known)  # its own words
    assert capsys.readouterr().out == "[]\n"
    torch.testing.assert_close(
        known["embedding"], encoder.embed(mine, [np.asarray(image)], precision="fp32")
    )
    assert mine.preprocess.size == (pixels or size)


def test_a_network_of_timm_is_no_model_of_open_clip(tmp_path):
    with torch.device("meta"):
        source = weights.source("timm:test_vit:none")
    file = save(
        encoder.build(source.config, source.preprocess, name="timm"), tmp_path / "a.safetensors"
    )
    with safe_open(file, "pt") as found:
        assert "open_clip" not in found.metadata() and "timm" in json.loads(
            found.metadata()["config"]
        )


def test_a_file_older_than_these_words_still_loads(tmp_path):
    from safetensors.torch import load_file, save_file

    config = {**CONFIGS["vit"], "quick_gelu": False}
    made = encoder.build(
        config, augment.Preprocess(size=32, mean=(0.5,) * 3, std=(0.5,) * 3), name="vit", arch="vit"
    )
    save_file(
        load_file(save(made, tmp_path / "new.safetensors")),
        tmp_path / "old.safetensors",
        {
            "arch": "vit",
            "config": json.dumps(config),
            "preprocess": json.dumps(
                {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "resize": "squash"}
            ),
        },
    )
    old = encoder.load(tmp_path / "old.safetensors")
    assert old.preprocess.interpolation == "bicubic" and encoder.fingerprint(
        old
    ) == encoder.fingerprint(made)
