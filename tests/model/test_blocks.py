"""Partitions of real towers counted, rates by formula."""

import pytest
import torch

from klip.model.blocks import Group, parameter_groups, partition, rates, table

READINGS = ("blockwise", "common", "layerwise")


def vit_l_14():
    """The paper's image tower without memory for its weights."""
    import open_clip
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    config = open_clip.get_model_config("ViT-L-14")
    with torch.device("meta"):
        return _build_vision_tower(config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]))


def tiny_vit():
    from open_clip.transformer import VisionTransformer

    return VisionTransformer(32, 16, width=32, layers=3, heads=2, mlp_ratio=2.0, output_dim=16)


def modified_resnet():
    from open_clip.modified_resnet import ModifiedResNet

    return ModifiedResNet([1, 1, 1, 1], 64, 8, image_size=32, width=32)


def timm_tower(name: str, **options):
    from open_clip.timm_model import TimmModel

    with torch.device("meta"):
        return TimmModel(name, embed_dim=16, **options)


TOWERS = {
    "vit": tiny_vit,
    "modified_resnet": modified_resnet,
    "convnext_atto": lambda: timm_tower("convnext_atto"),
    "resnet10t": lambda: timm_tower("resnet10t"),
}


@pytest.fixture(scope="module")
def vit_l():
    return vit_l_14()


@pytest.fixture(params=TOWERS)
def tower(request):
    return TOWERS[request.param]()


def assert_complete(tower, reading="blockwise"):
    names = [name for group in partition(tower, reading) for name in group.parameters]
    assert sorted(names) == sorted(name for name, p in tower.named_parameters() if p.requires_grad)


def test_the_papers_tower(vit_l):
    assert_complete(vit_l)
    shown = table(vit_l)
    assert shown["group"].tolist() == ["stem", *(f"block {i}" for i in range(24)), "proj"]
    assert shown["parameters"].sum() == 303_966_208  # 303.97 M
    assert shown["parameters"][1] == pytest.approx(12.596e6, rel=1e-4)
    lr = {group: f"{value:.2e}" for group, value in zip(shown["group"], shown["lr"], strict=True)}
    assert lr["proj"] == lr["block 23"] == "2.00e-04" and lr["block 22"] == "1.40e-04"
    assert (
        lr["block 18"] == "3.36e-05"
        and lr["block 12"] == "3.95e-06"
        and lr["block 6"] == "4.65e-07"
    )
    assert lr["block 0"] == "5.47e-08" and lr["stem"] == "3.83e-08"


def test_layerwise_on_the_papers_tower(vit_l):
    lr = table(vit_l, "layerwise").set_index("group")["lr"].map("{:.2e}".format)
    assert lr[["proj", "block 23"]].tolist() == ["2.00e-04", "1.40e-04"]
    assert lr[["block 0", "stem"]].tolist() == ["3.83e-08", "2.68e-08"]


def test_the_partition_is_open_clips_own(vit_l):
    """`VisionTransformer.lock(n)` leaves the last n groups trainable: the same ladder."""
    groups = partition(vit_l)
    for unlocked in (1, 2, 3, 25, 26):
        vit_l.lock(unlocked)
        free = {name for name, p in vit_l.named_parameters() if p.requires_grad}
        assert free == {name for group in groups[-unlocked:] for name in group.parameters}
    assert all(p.requires_grad for p in vit_l.parameters())


def test_every_parameter_once_in_every_reading(tower):
    for reading in READINGS:
        assert_complete(tower, reading)


def test_groups_of_a_modified_resnet():
    groups = partition(modified_resnet())
    assert [g.name for g in groups] == [
        "stem",
        "block 0",
        "block 1",
        "block 2",
        "block 3",
        "attnpool",
    ]
    heads = [{n.split(".")[0] for n in g.parameters} for g in groups]
    assert heads == [
        {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3"},
        {"layer1"},
        {"layer2"},
        {"layer3"},
        {"layer4"},
        {"attnpool"},
    ]


def test_a_deeper_modified_resnet_is_cut_by_residual_block():
    from open_clip.modified_resnet import ModifiedResNet

    with torch.device("meta"):
        groups = partition(ModifiedResNet([1, 11, 2, 1], 64, 8, image_size=32, width=32))
    assert len(groups) == 17
    first = [g.parameters[0].rsplit(".", 2)[0] for g in groups[1:-1]]
    assert first == [
        "layer1.0",
        *(f"layer2.{i}" for i in range(11)),
        "layer3.0",
        "layer3.1",
        "layer4.0",
    ]


@pytest.mark.parametrize(
    "name, blocks, last",
    [
        ("convnext_atto", 12, {"stages", "head"}),
        ("resnet10t", 4, {"layer4"}),
        ("vit_tiny_patch16_224", 12, {"blocks", "norm"}),
        ("mobilenetv3_small_050", 12, {"blocks", "conv_head"}),
    ],
)
def test_groups_of_timm_towers(name, blocks, last):
    tower = timm_tower(name)
    groups = partition(tower)
    assert_complete(tower)
    assert [g.name for g in groups] == ["stem", *(f"block {i}" for i in range(blocks)), "head"]
    assert {n.split(".")[1] for n in groups[-2].parameters} == last
    assert groups[-1].parameters == ("head.proj.weight",)


def test_a_tower_without_projection_has_no_top():
    tower = timm_tower("resnet10t", proj="none")
    groups = partition(tower)
    assert groups[-1].name == "block 3"
    assert rates(groups)[-1] == rates(groups, "layerwise")[-1] == 2e-4


def test_layerwise_moves_the_final_norm_to_the_top():
    vit = tiny_vit()
    assert {"ln_post.weight", "ln_post.bias"} <= set(partition(vit)[-2].parameters)
    assert set(partition(vit, "layerwise")[-1].parameters) == {
        "ln_post.weight",
        "ln_post.bias",
        "proj",
    }


LADDER = [
    Group("stem", ("a",)),
    Group("block 0", ("b",)),
    Group("block 1", ("c",)),
    Group("proj", ("d",)),
]


@pytest.mark.parametrize(
    "reading, steps",
    [("blockwise", [2, 1, 0, 0]), ("layerwise", [3, 2, 1, 0]), ("common", [0, 0, 0, 0])],
)
def test_rates_by_formula(reading, steps):
    assert rates(LADDER, reading, top_lr=0.1, decay=0.5) == pytest.approx(
        [0.1 * 0.5**s for s in steps]
    )


@pytest.mark.parametrize("reading", READINGS)
def test_decay_one_is_one_rate(reading):
    assert set(rates(LADDER, reading, top_lr=3e-4, decay=1.0)) == {3e-4}


def test_parameter_groups_hold_every_parameter_once_at_its_groups_rate(tower):
    groups = parameter_groups(tower, weight_decay=0.05)
    ids = [id(p) for g in groups for p in g["params"]]
    assert len(ids) == len(set(ids)) == len(list(tower.parameters()))
    by_name = table(tower).set_index("group")["lr"]
    named = {id(p): n for n, p in tower.named_parameters()}
    for g in groups:
        assert g["lr"] == by_name[g["name"]] and g["params"]
        assert set(g) == {
            "params",
            "lr",
            "weight_decay",
            "name",
        }  # no lr_scale: schedulers ignore it
        for p in g["params"]:
            embedding = named[id(p)].endswith(("class_embedding", "positional_embedding"))
            assert g["weight_decay"] == (0.0 if p.ndim <= 1 or embedding else 0.05)


def test_adamw_and_its_schedule_keep_the_ladder():
    vit = tiny_vit()
    optimiser = torch.optim.AdamW(parameter_groups(vit, top_lr=0.1, decay=0.5))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + step))
    start = {g["name"]: g["lr"] for g in optimiser.param_groups}
    names = ["stem", "block 0", "block 1", "block 2", "proj"]
    assert start == pytest.approx(dict(zip(names, [0.0125, 0.025, 0.05, 0.1, 0.1], strict=True)))
    vit(torch.zeros(1, 3, 32, 32)).sum().backward()
    optimiser.step()
    schedule.step()
    assert {g["name"]: g["lr"] for g in optimiser.param_groups} == pytest.approx(
        {name: lr / 2 for name, lr in start.items()}
    )


def test_frozen_groups_keep_their_step():
    vit = tiny_vit()
    before = table(vit)
    for p in [*vit.conv1.parameters(), *vit.transformer.resblocks[0].parameters()]:
        p.requires_grad = False
    after = table(vit)
    assert_complete(vit)
    assert after["lr"].equals(before["lr"])
    assert after["parameters"].tolist()[1] == 0
    assert "block 0" not in {g["name"] for g in parameter_groups(vit)}


def test_nothing_to_train_and_unknown_towers_are_named():
    vit = tiny_vit()
    vit.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_groups(vit)
    with pytest.raises(
        ValueError, match="no partition is known for a Linear; accepted are open_clip's"
    ):
        partition(torch.nn.Linear(2, 2))
