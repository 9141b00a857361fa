"""klip: fine-tune a CLIP image tower on retail products and recognise unseen ones from one
packshot each.

    load_catalogue   images and what they show: product, image and split
    load_encoder     an image tower, shipped, published or fine-tuned
    FinetuneConfig   the settings of a fine-tuning run
    finetune         fine-tuning with ArcFace and block-wise rates (paper 4.1)
    Gallery          embedded packshots; recognises photographs by nearest neighbour (paper 4.2)
    evaluate         how many queries of a catalogue are recognised
    embed            images as rows of numbers, of which near ones look alike
    sweep            many runs of one fine-tuning, here or as jobs

All else lives in the rooms, see docs/house.md.
"""

from importlib import import_module

__version__ = "0.1.0"

_FACE = {
    "load_catalogue": ("klip.data.loading", "load_catalogue"),
    "load_encoder": ("klip.model.encoder", "load"),
    "FinetuneConfig": ("klip.settings.config", "FinetuneConfig"),
    "finetune": ("klip.finetuning.loop", "finetune"),
    "Gallery": ("klip.recognise.gallery", "Gallery"),
    "evaluate": ("klip.recognise.evaluation", "evaluate"),
    "embed": ("klip.model.encoder", "embed"),
    "sweep": ("klip.finetuning.sweep", "sweep"),
}
__all__ = list(_FACE)


def __getattr__(name: str):
    """The public names, imported when first used: torch takes seconds, `klip --help` shall not."""
    if name not in _FACE:
        raise AttributeError(
            f"module klip has no {name!r}; it has {', '.join(_FACE)}, and the rooms of docs/house.md"
        )
    module, own = _FACE[name]
    return getattr(import_module(module), own)


def __dir__() -> list[str]:
    return [*globals(), *_FACE]
