"""klip answers what plain open_clip and numpy answer."""

from plain import answers

from klip.data.loading import load_catalogue
from klip.model import encoder
from klip.recognise import evaluation
from klip.settings import paths


def test_answers_are_those_of_plain_open_clip_and_numpy(tmp_path, picture):
    for number in range(12):
        colour = (20 * number, 250 - 20 * number, (90 * number) % 256)
        for shot in range(4):
            size = (40 + 7 * shot, 64 - 9 * (number % 4))
            split = "gallery" if shot == 0 else "query"
            picture(tmp_path / f"{split}/p{number}/{shot}.png", colour, size)
    catalogue = load_catalogue("folder", tmp_path)
    file = paths.WEIGHTS / "nanoclip-tuned.safetensors"
    frame = evaluation.evaluate(encoder.load(file), catalogue, views=1)
    gallery, queries = catalogue.pick()
    theirs = answers(file, gallery.files, gallery["product"].tolist(), queries.files)
    assert frame["predicted"].tolist() == theirs.tolist() and len(theirs) == 36
