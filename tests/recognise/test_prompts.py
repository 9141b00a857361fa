"""Names as words, prompts against a loop, and a set asked by name whose answers are known."""

import pandas as pd
import pytest
import torch

from klip.data.catalogue import Catalogue
from klip.model import encoder
from klip.recognise import prompts

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "product, said",
    [
        ("zola-0-gold-ice_tea-mint-1", "zola gold ice tea mint"),
        ("Arla-Standard-Milk", "Arla Standard Milk"),
        ("food/Tea  bags", "food Tea bags"),
        ("7up", "7up"),
        ("12", ""),
        ("", ""),
        ("Crème_brûlée-2", "Crème brûlée"),
    ],
)
def test_a_name_is_said_as_people_would(product, said):
    assert prompts.words(product) == said


def test_products_with_numbers_only_have_a_reason():
    assert (
        prompts.missing(pd.DataFrame({"product": ["1", "2"]}))
        == "its products have numbers, not names"
    )
    assert prompts.missing(pd.DataFrame({"product": ["milk", "tea-2"]})) == ""


def test_a_product_is_the_mean_of_its_prompts():
    model, tokenize = prompts.load("nano")
    rows = prompts.embed("nano", ["red-box", "tea"])
    with torch.no_grad():
        each = [
            model.encode_text(tokenize([template.format("red box")]))[0]
            for template in prompts.TEMPLATES
        ]
    mean = sum(row / row.norm() for row in each)
    torch.testing.assert_close(rows[0], mean / mean.norm(), atol=1e-5, rtol=1e-4)
    assert rows.shape == (2, 1280)


def test_photographs_are_named_by_the_nearest_text():
    tower = encoder.load("nano")
    asked = pd.DataFrame(
        {
            "image": ["a", "b", "a2"],
            "product": ["red-tea", "blue-soap", "red-tea"],
            "split": ["query", "query", "gallery"],
        }
    )
    asked = pd.concat(
        [asked, asked.tail(1).assign(product="blue-soap", image="b2")], ignore_index=True
    )
    asked = Catalogue(asked, name="shelf")
    texts = prompts.embed("nano", ["blue-soap", "red-tea"])
    frame = prompts.evaluate(
        tower, "nano", catalogue=asked, embeddings=torch.stack([texts[1], texts[1]])
    )
    assert frame["predicted"].tolist() == ["red-tea", "red-tea"] and frame["top1"].tolist() == [
        True,
        False,
    ]
    assert frame["top5"].all() and frame["similarity"].tolist() == pytest.approx([1, 1], abs=1e-5)


def test_what_has_no_text_is_one_sentence(tmp_path):
    with pytest.raises(
        ValueError,
        match="mine.safetensors has no text tower at hand; accepted are nano and ARCH:TAG",
    ):
        prompts.load(str(tmp_path / "mine.safetensors"))
    numbers = pd.DataFrame({"image": ["a"], "product": ["1"], "split": ["query"]})
    numbers = Catalogue(numbers, name="grozi-120")
    with pytest.raises(
        ValueError, match="grozi-120 cannot be asked by name: its products have numbers"
    ):
        prompts.evaluate(encoder.load("nano"), "nano", catalogue=numbers)
