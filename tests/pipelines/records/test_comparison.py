"""The published score next to ours: the right one or none."""

from __future__ import annotations

import pytest

from pipelines.records.comparison import compare, published_name
from pipelines.records.summary import Column, Summary, title
from pipelines.videos.catalog import DATASETS
from tests.helpers.fakes import changed, record_of
from vlmodels.published import scores

OPENAI = {"backbone.name": "ViT-B-16-quickgelu", "backbone.pretrained": "openai"}


def published_sets(protocol, dataset):
    """Test set to (classes, videos) as the published lists have them."""
    known = DATASETS[dataset]
    if protocol == "b2n":
        return {p: (known.part_classes[p], known.counts[f"{p}_val"]) for p in ("base", "novel")}
    tests = known.tests if protocol == "zero_shot" else known.tests[:1]
    classes = 160 if dataset == "k600" else known.classes
    return {f"{dataset}/{t}" if protocol == "zero_shot" else t: (classes, known.counts[t]) for t in tests}


def real(protocol, method="msta", dataset="hmdb51", **fields):
    """A record that is of the published test set."""
    sets = published_sets(protocol, dataset)
    trained = "k400" if protocol == "zero_shot" else dataset
    names = {name: tuple(f"class {i}" for i in range(classes)) for name, (classes, _) in sets.items()}
    counts = {f"metrics.{name}.{key}": count for name, (_, count) in sets.items() for key in ("n_listed", "n_scored")}
    return record_of(protocol, method, trained, sets=names, changes=counts, **fields)


def of(record, metric, dataset="hmdb51"):
    found = compare(Summary([record]), Column(dataset, metric))
    return found and found.score.value


def test_methods_are_matched_by_backbone_data_set_protocol_and_metric():
    assert [of(real("b2n"), metric) for metric in ("base", "novel", "HM")] == ["77.5", "57.9", "66.3"]
    assert of(real("few_shot", config={"protocol.shots": 4}), "top1 K=4") == "62.3"
    assert of(real("few_shot"), "top1 K=16") == "70.4"
    assert of(real("few_shot"), "top5 K=16") is None
    assert of(real("zero_shot"), "top1") == "55.8±0.8"
    assert of(real("zero_shot", dataset="k600"), "top1", "k600") == "74.5±0.5"
    assert of(real("supervised", "viltclip", "k400", config=OPENAI), "top5", "k400") == "94.5"
    assert of(real("b2n", "zeroshot", config=OPENAI), "base") == "53.3"
    assert of(real("b2n", "zeroshot"), "base") == "62.5"
    assert published_name("ViT-B/16") == published_name("ViT-B-16-quickgelu") == "ViT-B-16"


def test_the_difference_is_ours_minus_the_published():
    found = compare(Summary([real("b2n", scores=80.0)]), Column("hmdb51", "base"))
    assert found.difference == pytest.approx(2.5)
    assert found.score.source == "MSTA table 2"


def test_variants_are_the_ones_that_a_run_is():
    assert of(real("b2n", config={"method_config.alpha": 0.0}), "HM") == next(
        s.value
        for s in scores()
        if (s.variant, s.protocol, s.dataset, s.metric) == ("without L_CC", "b2n", "HMDB51", "HM")
    )
    for towers in ("both", "video", "text"):
        found = compare(
            Summary([real("b2n", "finetune", config={**OPENAI, "method_config.towers": towers})]),
            Column("hmdb51", "HM"),
        )
        assert found.score.variant == towers
    independent = {**OPENAI, "method_config.variant": "independent"}
    assert of(real("b2n", "viltclip", config=independent), "HM") is None


@pytest.mark.parametrize(
    ("frames", "clips", "crops", "value"), [(8, 3, 4, "83.4"), (16, 4, 3, "83.7"), (8, 1, 1, None)]
)
def test_views_that_name_a_published_row_must_fit(frames, clips, crops, value):
    seen = {"frames": frames, "clips": clips, "crops": crops, "sampling": "dense", "stride": 16, "average": "softmax"}
    assert of(real("supervised", "m2clip", "k400", config=OPENAI, scoring=seen), "top1", "k400") == value


@pytest.mark.parametrize(
    ("record", "column"),
    [
        (record_of(), Column("toy-ucf", "HM")),
        (record_of(dataset="hmdb51"), Column("hmdb51", "HM")),  # own data of that name: two classes
        (real("b2n", config={"protocol.shots": 4}), Column("hmdb51", "HM")),
        (real("b2n", config={"backbone.name": "ViT-L-14", "backbone.pretrained": "openai"}), Column("hmdb51", "HM")),
        (real("b2n", "zeroshot", config={**OPENAI, "backbone.pretrained": "laion2b"}), Column("hmdb51", "HM")),
        (real("b2n", config={"backbone.pretrained": None}), Column("hmdb51", "HM")),
        (changed(real("zero_shot"), {"dataset": "ssv2"}), Column("hmdb51", "top1")),  # not trained on Kinetics-400
        (record_of("retrieval", "viltclip", "msvd", config=OPENAI), Column("msvd", "t2v R@1")),  # 8 videos
    ],
)  # fmt: skip
def test_what_is_not_the_published_task_has_no_published_score(record, column):
    assert column in Summary([record]).cells
    assert compare(Summary([record]), column) is None


def test_few_shot_on_another_list_than_the_first_has_none():
    values = real("few_shot").to_json()
    for part in ("metrics", "classes"):
        values[part]["val2"] = values[part].pop("val1")
    assert of(changed(values, {}), "top1 K=16") is None


def test_retrieval_is_from_text_to_video():
    counts = {"metrics.test.n_listed": 1000, "metrics.test.n_scored": 1000}
    record = record_of("retrieval", "viltclip", "msrvtt", config=OPENAI, changes=counts)
    assert [of(record, m, "msrvtt") for m in ("t2v R@1", "t2v MnR", "v2t R@1")] == ["44.8", "13.6", None]


def test_caveats_say_how_the_runs_differ():
    facts = {"train_clips": 400, "classes": {"train": 26}}
    settings = {
        "method_config.dims": 64,
        "optim.lr": 0.1,
        "start": "runs/x",
        "protocol.hmdb_names": "corrected",
        "protocol.holdout": 0.1,
    }
    record = real("b2n", preset="b2n", facts=facts, config=settings, selection="test-best")
    record = changed(record, {"metrics.base.n_listed": 770})
    assert caveats(record, "base") == (
        "770 videos listed, published 780",
        "other views than MSTA's 8 frames, 10 x 3",
        "started from x",
        "the names that are swapped in HMDB51's labels corrected",
        "1 of 3 training subsets",
        "10 % of the training clips held out",
        "400 of 416 training clips",
        "epoch chosen on test",
        "other than the preset: dims=64, lr=0.1",
    )
    record = changed(record, {"metrics.base.n_listed": 500})
    assert compare(Summary([record]), Column("hmdb51", "base")) is None
    assert compare(Summary([record]), Column("hmdb51", "HM")) is None
    assert compare(Summary([record]), Column("hmdb51", "novel")) is not None


def test_every_published_data_set_has_a_title_that_ours_maps_to():
    ours = {title(name) for name in (*DATASETS, "msrvtt", "msvd", "lsmdc", "didemo")}
    assert {score.dataset for score in scores()} <= ours


MULTI = {"frames": 8, "clips": 10, "crops": 3, "sampling": "segments", "stride": 0, "average": "softmax"}


def caveats(record, metric):
    return compare(Summary([record]), Column("hmdb51", metric)).caveats


def test_what_trained_nothing_has_no_score_of_what_was_trained():
    assert of(real("few_shot", history=[]), "top1 K=16") is None
    assert of(real("few_shot", history=[], config={"start": "runs/x"}), "top1 K=16") is None
    assert of(real("few_shot", "zeroshot", config=OPENAI), "top1 K=16") == "41.9"
    assert of(real("b2n", "zeroshot"), "base") == "62.5"


def test_a_start_that_is_scored_on_other_data_was_trained_on_kinetics():
    for start, value in (
        ({"dataset": "k400", "protocol": "supervised", "name": "r"}, "55.8±0.8"),
        ({"dataset": "ssv2", "protocol": "supervised", "name": "r"}, None),
        ({"dataset": "k400", "protocol": "b2n", "name": "r"}, None),
        ({"dataset": "", "protocol": "", "name": ""}, None),
    ):
        record = real("zero_shot", history=[], config={"start": "runs/r"}, start=start)
        record = changed(record, {"dataset": "hmdb51"})
        assert of(record, "top1") == value


def test_views_are_those_of_the_paper_that_prints_the_score():
    seen = {"preset": "b2n", "selection": "last", "scoring": MULTI}
    lora = real("b2n", "lora", **seen | {"preset": None})
    assert not any("views" in caveat for caveat in caveats(lora, "base"))
    zero = real("b2n", "zeroshot", config=OPENAI)
    assert caveats(zero, "base") == ("other views than ViLT-CLIP's 32 frames, 1 x 1",)


def test_seeds_are_counted_once_and_what_has_no_preset_is_said():
    records = [real("b2n", seed=seed, scoring=MULTI) for seed in (1, 1, 2)]
    found = compare(Summary(records), Column("hmdb51", "base"))
    assert found.caveats == ("2 of 3 training subsets", "no preset")


def test_another_prompt_of_an_untrained_method_is_said():
    record = real("b2n", "zeroshot", config={"method_config.template": "{}"}, scoring=MULTI)
    assert caveats(record, "base") == ("template={}",)
