"""A catalogue embedded in parts has the rows it has when embedded whole."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY_VIT
from typer.testing import CliRunner

from klip.cli.options import app
from klip.data.loading import load_catalogue
from klip.model import encoder
from klip.model.augment import Preprocess
from klip.model.weights import save
from klip.scale import parts, shards


@pytest.fixture
def tiny():
    preprocess = Preprocess(size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    return encoder.build(TINY_VIT, preprocess, name="tiny")


@pytest.fixture(params=["folder", "tar files"])
def catalogue(request, shop_root, tmp_path):
    listed = load_catalogue("folder", shop_root)
    if request.param == "folder":
        return listed
    return load_catalogue("manifest", shards.pack(listed, tmp_path / "packed", per_shard=4))


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_joined_parts_are_the_rows_of_the_whole(tmp_path, catalogue, tiny, count):
    out = tmp_path / "rows"
    for part in range(count)[::-1]:
        assert f"{part}/{count}" in parts.missing(out) or part == count - 1
        parts.embed(tiny, catalogue, out, part=part, parts=count)
    made = parts.joined(catalogue, out)
    assert torch.equal(made, encoder.embed(tiny, catalogue, alike=True))
    assert np.array_equal(np.load(out / "embeddings.npy"), made.numpy())
    assert pd.read_csv(out / "images.csv")["image"].tolist() == catalogue["image"].tolist()


def test_parts_are_runs_of_a_tar_file_from_front_to_back(shop_root, tmp_path):
    listed = load_catalogue("folder", shop_root)
    packed = load_catalogue("manifest", shards.pack(listed, tmp_path / "packed", per_shard=5))
    order = parts.places(packed)
    rows = np.concatenate([parts.share(order, part, 3) for part in range(3)])
    read = packed["image"].iloc[rows].str.extract(r"(\d+)\.tar@(\d+)").astype(int)
    assert sorted(rows) == list(range(13))
    assert read.sort_values([0, 1]).index.tolist() == read.index.tolist()


def test_a_part_that_is_there_is_kept_and_one_of_another_encoder_is_not(
    tmp_path, catalogue, tiny, seen
):
    file = parts.embed(tiny, catalogue, tmp_path)
    assert len(seen) == len(catalogue)
    assert parts.embed(tiny, catalogue, tmp_path) == file and len(seen) == len(catalogue)
    other = encoder.build(TINY_VIT, tiny.preprocess, name="tiny", seed=1)
    parts.embed(other, catalogue, tmp_path)
    assert torch.equal(
        parts.joined(catalogue, tmp_path), encoder.embed(other, catalogue, alike=True)
    )


def test_what_does_not_fit_together_is_refused(tmp_path, catalogue, tiny):
    with pytest.raises(ValueError, match=r"part must be 0/2 to 1/2, got 2/2"):
        parts.embed(tiny, catalogue, tmp_path, part=2, parts=2)
    first = parts.embed(tiny, catalogue, tmp_path, part=0, parts=2)
    with pytest.raises(ValueError, match="lacks parts 1/2"):
        parts.joined(catalogue, tmp_path)
    other = encoder.build(TINY_VIT, tiny.preprocess, name="tiny", seed=1)
    second = parts.embed(other, catalogue, tmp_path, part=1, parts=2)
    with pytest.raises(ValueError, match="several encoders"):
        parts.joined(catalogue, tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match="other images"):
        parts.joined(catalogue, tmp_path)
    second.write_bytes(b"torn")
    with pytest.raises(ValueError, match="is damaged"):
        parts.joined(catalogue, tmp_path)
    second.unlink()
    parts.embed(tiny, catalogue, tmp_path, part=0, parts=1)
    with pytest.raises(ValueError, match="lacks parts 1/2"):
        parts.joined(catalogue, tmp_path)
    parts.embed(tiny, catalogue, tmp_path, part=1, parts=2)
    with pytest.raises(ValueError, match="several cuts"):
        parts.joined(catalogue, tmp_path)


def test_command(tmp_path, shop_root, tiny):
    file, out = save(tiny, tmp_path / "tiny.safetensors"), tmp_path / "rows"
    asked = ["embed", str(shop_root), str(out), "--model", str(file)]
    done = CliRunner().invoke(app, [*asked, "--part", "0/2"])
    assert done.exit_code == 0 and "still to come: parts 1/2" in done.stdout
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0 and "embeddings.npy: 13 rows of 16 numbers" in done.stdout
    done = CliRunner().invoke(app, [*asked, "--part", "one"])
    assert done.exit_code == 2 and "--part takes I/N" in done.stderr
