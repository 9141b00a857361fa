"""Settings: what is accepted, what is converted, and the one sentence for everything else."""

import pickle

import pytest

from klip.settings import config, paths
from klip.settings.config import FinetuneConfig, Settings, settings


def test_defaults_are_the_papers():
    run = FinetuneConfig(depth=8)
    assert (run.top_lr, run.decay, run.rates, run.loss) == (2e-4, 0.7, "blockwise", "arcface")
    assert run.balanced and run.breadth == 0  # §4.1.3: balanced, breadth at maximum
    assert Settings().profile == "nano"
    shared = set(Settings.model_fields) & set(FinetuneConfig.model_fields)
    own = {
        "images",
        "batch_size",
        "top_lr",
        "ema",
        "resize",
        "pixels",
        "train_pixels",
        "frozen_blocks",
    }
    assert own <= shared  # nano's: a small tower that shall not forget, and two cores
    for name in shared - own:
        assert getattr(run, name) == getattr(Settings(), name), name


@pytest.mark.parametrize(
    "given, name, value",
    [
        ("false", "checkpointing", False),  # papermill -p checkpointing false
        ("2e-4", "top_lr", 2e-4),  # YAML's 2e-4 is a string
        ("8", "batch_size", 8),
        (16, "depths", "16"),  # papermill -p depths 16
        ("[4, 2,2]", "depths", "4 2 2"),  # papermill -p depths '[4, 2,2]'
        ([4, 2], "depths", "4 2"),  # a list in YAML
        ("a,b  c", "eval_sets", "a b c"),
        (7, "finetune_root", "7"),
    ],
)
def test_converts_what_papermill_makes_of_it(given, name, value):
    assert getattr(Settings(**{name: given}), name) == value


@pytest.mark.parametrize(
    "values, words",
    [
        ({"depht": 4}, ("settings: depht is not a setting", "depths")),
        ({"zzzz": 4}, ("zzzz is not a setting", "batch_size", "eval_sets")),
        ({"depths": "1 0"}, ("depths must be whole numbers of at least 1", "'1 0'")),
        ({"depths": ""}, ("depths must have at least 1 character", "''")),
        ({"depths": "1 two"}, ("depths must be whole numbers", "two")),
        (
            {"breadths": "0 0.5"},
            ("breadths must be shares of the products, above 0 and at most 1", "'0 0.5'"),
        ),
        ({"breadths": "half"}, ("breadths must be shares", "half")),
        ({"breadths": [0.5, 1.5]}, ("breadths must be shares", "1.5")),
        ({"profile": "nan0"}, ("profile must be one of the profiles nano", "'nan0'")),
        ({"batch_size": "many"}, ("batch_size must be a valid integer", "'many'")),
        ({"batch_size": 1.5}, ("batch_size must be a valid integer", "1.5")),
        ({"batch_size": True}, ("batch_size must not be true or false",)),
        ({"images": 0}, ("images must be greater than or equal to 1", "got 0")),
        ({"decay": 1.5}, ("decay must be less than or equal to 1", "1.5")),
        ({"top_lr": "nan"}, ("top_lr must be",)),
        ({"resize": "stretch"}, ("resize must be 'squash', 'pad' or 'crop'", "'stretch'")),
        ({"checkpointing": "perhaps"}, ("checkpointing must be a valid boolean", "'perhaps'")),
        ({"model": None}, ("model must be a valid string", "None")),
        ({"seeds": 0, "decay": 0}, ("decay must", "; seeds must")),
    ],
)
def test_refuses_in_one_sentence(values, words):
    with pytest.raises(ValueError) as caught:
        Settings(**values)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.startswith("settings: ")
    for word in words:
        assert word in sentence


def test_one_run_refuses_too():
    with pytest.raises(ValueError, match="^fine-tuning settings: depth must be given$"):
        FinetuneConfig()
    with pytest.raises(
        ValueError, match="depth must be greater than or equal to 1, got 0; rates must be"
    ):
        FinetuneConfig(depth=0, rates="steep")


def test_lists_are_read_from_words():
    given = Settings(depths="8 1 32 8", eval_sets="grozi-120 grocery-store:held-out")
    assert given.depth_list == [1, 8, 32]
    assert Settings(breadths="0.5 .25 0.5").breadth_list == [
        0.25,
        0.5,
        1.0,
    ]  # all products are always among them
    assert given.eval_list == ["grozi-120", "grocery-store:held-out"]


def test_settings_takes_its_names_out_of_a_namespace():
    namespace = {"images": "100", "seeds": 2, "__name__": "notebook", "settings": settings}
    assert settings(namespace) == Settings(images=100, seeds=2)
    with pytest.raises(ValueError, match="settings: seeds must"):
        settings({"seeds": "two"})


def test_profiles_are_nano_and_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROFILES", tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    assert config.profiles() == ["mine", "nano"]
    assert Settings(profile="mine").profile == "mine"
    with pytest.raises(ValueError, match="profiles mine, nano, got 'real'"):
        Settings(profile="real")


def test_frozen_and_changed():
    run = FinetuneConfig(depth=4)
    with pytest.raises(ValueError, match="frozen"):
        run.depth = 8
    assert run.changed(depth=8) == FinetuneConfig(depth=8) and run.depth == 4
    assert pickle.loads(pickle.dumps(run)) == run
    with pytest.raises(ValueError, match="depth must"):
        run.changed(depth=0)


def test_a_run_takes_what_it_shares_with_the_settings():
    given = config.Settings(model="nano-vit", batch_size=8, seeds=5, wise=0.5)
    run = given.finetune(depth=4, pixels=48, seed=2)
    own = {"depth": 4, "pixels": 48, "seed": 2}
    for name in FinetuneConfig.model_fields:
        wanted = own.get(name, getattr(given, name, getattr(FinetuneConfig(depth=1), name)))
        assert getattr(run, name) == wanted, name
    with pytest.raises(ValueError, match="fine-tuning settings: depth must be given"):
        given.finetune()
    with pytest.raises(ValueError, match="seeds is not a setting; did you mean seed"):
        given.finetune(depth=4, seeds=2)


def test_data_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("KLIP_DATA", str(tmp_path))
    assert paths.data_root() == tmp_path
    monkeypatch.delenv("KLIP_DATA")
    assert paths.data_root() == paths.CACHE / "data"


def test_a_range_of_ones_own_may_be_given_as_data_root():
    own = {"finetune_set": "folder", "data_root": "mine"}
    for given, folder, sets in (
        ({}, "", ""),
        ({"data_root": "sets"}, "", "sets"),
        (own, "mine", ""),
        (own | {"finetune_root": "range"}, "range", "mine"),
    ):
        settings = config.Settings(**given)
        assert (settings.finetune_folder, settings.sets_folder) == (folder, sets)
