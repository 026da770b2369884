"""Frames' mean and deviation: the weights' own, or others by name, which adapters remember."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipelines.config.schema import BackboneConfig, TrainConfig
from pipelines.training.build import build_method
from tests.helpers.tiny_clip import CLASSES
from vlmodels.checkpoint import about_adapter, load_adapter, load_into, save_adapter
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.adaptformer import AdaptFormer
from vlmodels.picture_statistics import STATISTICS, set_published_statistics


def adapter(folder, statistics):
    folder.mkdir()
    method = AdaptFormer(create("toy", weights="toy", statistics=statistics), AdaptFormer.Config(dims=4))
    method.set_classes(CLASSES)
    return save_adapter(folder, method)


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("backbone", ["toy", "toy-viclip"])
def test_statistics_are_chosen_by_name(backbone, name):
    spec = create(backbone, weights="toy", statistics=name).spec
    assert (spec.mean, spec.std, spec.statistics) == (*STATISTICS[name], name)


def test_a_name_that_there_is_not_is_refused():
    with pytest.raises(UserError, match=r"backbone.statistics='imagenets'.*did you mean 'imagenet'"):
        create("toy", weights="toy", statistics="imagenets")


@pytest.mark.parametrize("meta", [True, False])
def test_a_run_builds_its_backbone_with_them(meta):
    config = TrainConfig(method="zeroshot", backbone=BackboneConfig(statistics="imagenet"))
    assert build_method(config, frames=2, classes=CLASSES, meta=meta).backbone.spec.statistics == "imagenet"


def test_an_adapter_brings_its_statistics_back(tmp_path):
    spec = load_adapter(adapter(tmp_path / "a", "imagenet")).method.backbone.spec
    assert (spec.mean, spec.statistics) == (STATISTICS["imagenet"][0], "imagenet")


def test_the_weights_own_are_not_written_so_that_files_stay_as_they_were(tmp_path):
    own, other = (adapter(tmp_path / name, name).read_bytes() for name in ("own", "imagenet"))
    assert b"statistics" not in own
    assert (about_adapter(own).backbone.statistics, about_adapter(other).backbone.statistics) == ("own", "imagenet")


def test_an_adapter_on_frames_of_other_statistics_is_refused(tmp_path):
    path, own = adapter(tmp_path / "a", "imagenet"), create("toy", weights="toy")
    with pytest.raises(UserError, match=r"'imagenet', not 'own'.*backbone.statistics=imagenet"):
        load_adapter(path, own)
    with pytest.raises(UserError, match="the adapter to start from was trained on frames"):
        load_into(AdaptFormer(own, AdaptFormer.Config(dims=4)), path.read_bytes())


def test_a_file_whose_statistics_are_not_known_says_what_is_taken():
    model = SimpleNamespace(visual=SimpleNamespace())
    with pytest.warns(UserWarning, match=r"w.pt: .*ViT-L-14 differ.*backbone.statistics=inception"):
        set_published_statistics(model, "ViT-L-14", "w.pt")
    assert not vars(model.visual)


@pytest.mark.parametrize(("name", "mean"), [("PE-Core-B-16", 0.5), ("ViT-B-16-SigLIP2", 0.5), ("MobileCLIP2-B", 0.0)])
def test_weights_of_one_kind_alone_have_its_statistics(name, mean, recwarn):
    model = SimpleNamespace(visual=SimpleNamespace())
    set_published_statistics(model, name, "w.pt")
    assert tuple(model.visual.preprocess_cfg["mean"]) == (mean,) * 3
    assert not recwarn.list
