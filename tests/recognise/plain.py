"""Zero-shot recognition by plain open_clip and numpy, as docs/use.md has it.

KLIP_DATA=folder python tests/recognise/plain.py grocery-store grozi-120    # 1,000 queries of each
"""

import json
import sys

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageOps
from safetensors import safe_open

from klip.settings import paths


def answers(weights, packshots, products, queries):
    """The product of the packshot nearest to each query; lists of files and names."""
    with safe_open(weights, "pt") as file:
        how = json.loads(file.metadata()["open_clip"])
        tower = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    open_clip.add_model_config(paths.WEIGHTS)
    model = open_clip.create_model(**how["model"], load_weights=False, pretrained_text=False)
    assert not model.load_state_dict(tower, strict=False).unexpected_keys
    preprocess = image_transform_v2(PreprocessCfg(**how["preprocess"]), is_train=False)
    model.eval()

    def embed(files):
        rows = []
        for start in range(0, len(files), 50):
            images = [Image.open(file) for file in files[start : start + 50]]
            views = [preprocess(ImageOps.exif_transpose(one).convert("RGB")) for one in images]
            with torch.no_grad():
                rows.append(model.encode_image(torch.stack(views), normalize=True).numpy())
        return np.concatenate(rows)

    nearest = (embed(queries) @ embed(packshots).T).argmax(axis=1)
    return np.array(products, object)[nearest]


def main(names):
    from klip.data.loading import load_catalogue
    from klip.model import encoder
    from klip.recognise import evaluation

    file = paths.WEIGHTS / "nanoclip-tuned.safetensors"
    for name in names:
        catalogue = load_catalogue(name)
        gallery, queries = catalogue.pick()
        few = queries.of(queries.frame.sample(1000, random_state=0).sort_index())
        asked = catalogue.of(
            catalogue.frame[catalogue["image"].isin([*gallery["image"], *few["image"]])]
        )
        frame = evaluation.evaluate(encoder.load(file), asked, views=1)
        theirs = answers(file, gallery.files, gallery["product"].tolist(), few.files)
        same = (frame["predicted"].to_numpy() == theirs).sum()
        print(f"{name}: {same} of {len(theirs)} answers are those of plain open_clip and numpy")


if __name__ == "__main__":
    main(sys.argv[1:])
