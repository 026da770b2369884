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
    for config, value in (
        ({}, "65.7"),
        ({"alpha": 0.0}, "65.2"),
        ({"variant": "independent", "alpha": 0.0}, "64.1"),
        ({"variant": "independent"}, None),  # the tables add the scenario-guided loss later
        ({"variant": "text_only", "tokens": 16}, None),
    ):
        own = {f"method_config.{key}": setting for key, setting in config.items()}
        assert of(real("b2n", "viltclip", config=OPENAI | own), "HM") == value


@pytest.mark.parametrize(
    ("config", "value"),
    [
        ({"tokens": 6}, "13.6"),
        ({"variant": "independent", "tokens": 6}, "14.2"),
        ({"variant": "independent", "tokens": 4, "video_tokens": 8}, "14.6"),
        ({"variant": "independent", "tokens": 16}, "18.4"),  # none of table 8: table 7 does not say how many
        ({"variant": "text_only", "tokens": 4}, "19.0"),
    ],
)
def test_table_8_is_by_the_number_of_prompts(config, value):
    own = {f"method_config.{key}": setting for key, setting in config.items()}
    assert of(captioned("msrvtt", 1000, OPENAI | own), "t2v MnR", "msrvtt") == value


@pytest.mark.parametrize(
    ("method", "loss", "value"),
    [("finetune", "froster", "58.0"), ("finetune", "none", "53.3"), ("msta", "froster", None)],
)
def test_a_regularised_run_is_compared_with_nothing_else(method, loss, value):
    config = {**OPENAI, "method_config.regularise": loss}
    found = compare(Summary([real("b2n", method, config=config)]), Column("hmdb51", "novel"))
    assert (None if found is None else found.score.value) == value


def test_vifi_clips_prompts_started_from_a_model_of_kinetics():
    start = {"dataset": "k400", "protocol": "supervised", "name": "r"}
    found = compare(
        Summary([real("b2n", "prompts", config=OPENAI | {"start": "runs/r"}, start=start)]), Column("hmdb51", "HM")
    )
    assert (found.score.value, found.score.variant) == ("64.1", "started from ViFi-CLIP on K400")
    assert of(real("b2n", "prompts", config=OPENAI), "HM") is None


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


def captioned(dataset, videos, config=OPENAI):
    """A record of ViLT-CLIP's on a published test set of captions."""
    counts = {"metrics.test.n_listed": videos, "metrics.test.n_scored": videos}
    return record_of("retrieval", "viltclip", dataset, config=config, changes=counts)


def test_lsmdcs_training_videos_are_said():
    said = "ViLT-CLIP says that it trains on LSMDC's 7,408 validation videos"
    for dataset, videos, there in (("lsmdc", 1000, True), ("msvd", 670, False)):
        found = compare(Summary([captioned(dataset, videos)]), Column(dataset, "t2v R@1"))
        assert (said in found.caveats) == there


def test_retrieval_is_from_text_to_video():
    record = captioned("msrvtt", 1000)
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
    assert caveats(zero, "base") == ("other views than ViLT-CLIP's 32 frames, 1 x 1", "MSTA table 2 prints 50.6")


def test_of_two_tables_the_one_with_the_runs_views_is_compared():
    single = {**MULTI, "frames": 32, "clips": 1, "crops": 1}
    for views, value, other in (
        (single, "53.3", "MSTA table 2 prints 50.6"),
        (MULTI, "50.6", "ViLT-CLIP table 4 prints 53.3"),
    ):
        found = compare(Summary([real("b2n", "zeroshot", config=OPENAI, scoring=views)]), Column("hmdb51", "base"))
        assert (found.score.value, found.caveats) == (value, (other,))


def test_other_class_names_and_contradictions_of_a_score_are_said():
    rephrased = real("b2n", config={"protocol.class_names": "rephrased"}, scoring=MULTI)
    assert "class names rephrased by a language model, published the data set's" in caveats(rephrased, "base")
    text = real("b2n", "finetune", "ucf101", config={**OPENAI, "method_config.towers": "text"})
    found = compare(Summary([text]), Column("ucf101", "HM"))
    assert "ViLT-CLIP table 4: base and novel as printed give 77.4, which ViFi-CLIP's README has" in found.caveats


def test_seeds_are_counted_once_and_what_has_no_preset_is_said():
    records = [real("b2n", seed=seed, scoring=MULTI) for seed in (1, 1, 2)]
    found = compare(Summary(records), Column("hmdb51", "base"))
    assert found.caveats == ("2 of 3 training subsets", "no preset")


def test_another_prompt_of_an_untrained_method_is_said():
    record = real("b2n", "zeroshot", config={"method_config.template": "{}"}, scoring=MULTI)
    assert caveats(record, "base") == ("template={}",)
