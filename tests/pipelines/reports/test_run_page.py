"""The page of a run, the page that sets runs side by side, and the card of a model."""

from __future__ import annotations

import re

import pytest

from pipelines.records.summary import Summary
from pipelines.reports.model_card import LONGEST, model_card, shortened_card, write_model_card
from pipelines.reports.run_page import description_of, write_comparison, write_run_report
from tests.helpers.fakes import leave_run, predictions_of, record_of


def named(method, terms, **fields):
    history = [
        {"epoch": e + 1.0, **dict.fromkeys(terms, 1.0 / (e + 1)), "loss": len(terms) / (e + 1), "train_top1": 50.0}
        for e in range(3 * bool(terms))
    ]
    return record_of(method=method, history=history, **fields)


def test_methods_with_other_losses_stand_in_one_picture(tmp_path):
    records = [named("msta", ["ce", "consistency"]), named("m2clip", ["contrastive", "vc"]), named("zeroshot", [])]
    names = {"b2n-m2clip-toy-ucf-1": "M2-CLIP"}
    links = {"b2n-msta-toy-ucf-1": "x/report.html"}
    page = write_comparison(records, tmp_path, title="Side by side", names=names, runs=links)
    text = page.read_text()
    assert all(words in text for words in ("Side by side", "M2-CLIP", "x/report.html", "1,234", "8 of 8"))
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "accuracy.png", "losses.png"}


@pytest.mark.parametrize("protocol", ["zero_shot", "few_shot", "b2n", "supervised", "retrieval"])
@pytest.mark.parametrize("method", ["msta", "zeroshot"])
def test_every_protocol_has_a_page(tmp_path, protocol, method):
    folder = leave_run(tmp_path, record_of(protocol, method, "mine & <b>yours</b>#1"))
    text = write_run_report(folder).read_text()
    assert "mine &amp; &lt;b&gt;yours" in text
    assert "<b>yours" not in text
    pictures = {path.name for path in (folder / "report").glob("*.png")}
    assert all(f'src="{name}"' in text for name in pictures)
    assert any(name.startswith("confusion") for name in pictures) == (protocol != "retrieval")
    assert ("curves.png" in pictures) == (method == "msta")


def test_a_runs_page_shows_the_probe_what_was_lost_and_how_the_epoch_was_chosen(tmp_path):
    changes = {
        "metrics.novel.n_scored": 7,
        "metrics.novel.n_quarantined": 1,
        "unscored.novel": [["x <y>.mp4", "zero bytes"]],
        "metrics.base.probe": {o: {"top1": 30.0, "top5": 50.0} for o in ("shuffled", "reversed", "single")},
    }
    record = record_of(selection="test-best", facts={"notes": ["3 names are swapped"]}, changes=changes)
    folder = leave_run(tmp_path, record)
    text = write_run_report(folder).read_text()
    for words in (
        "7 of 8, 1 quarantined",
        "x &lt;y&gt;.mp4",
        "best on the test list",
        "probe.png",
        "3 names are swapped",
    ):
        assert words in text


def test_old_predictions_without_features_and_odd_class_names_are_drawn(tmp_path):
    record = record_of(sets={"base": ("$x^$", "a & b"), "novel": ("c", "d")})
    arrays = {k: v for k, v in predictions_of(record).items() if not k.endswith(("video", "text"))}
    assert write_run_report(leave_run(tmp_path, record, arrays)).is_file()


@pytest.mark.parametrize(
    ("protocol", "setting", "words"),
    [
        ("b2n", "dataset", "the data set's"),
        ("b2n", "rephrased", "rephrased by a language model"),
        ("retrieval", "dataset", ""),  # captions are no names
    ],
)
def test_page_and_card_say_whose_the_class_names_are(tmp_path, protocol, setting, words):
    record = record_of(protocol, config={"protocol.class_names": setting})
    (said,) = [value for key, value in description_of(Summary([record])) if key == "class names"] or [""]
    assert said == words
    assert (f"- Class names: {words}" in model_card(record)) == bool(words)
    assert ("Class names" in model_card(record)) == bool(words)


def test_a_card_says_what_how_and_where_from(tmp_path):
    facts = {"git": "abc123", "torch": "2.9", "python": "3.12", "split_digest": "d1", "weights_digest": "w1"}
    record = record_of(
        facts=facts,
        lists={"base_val.txt": "l1"},
        config={"tracking.register": "mine", "optim.lr": 0.001, "backbone.pretrained": "somewhere/viclip.pt"},
        unscored={"base": [["a_b|c.mp4", "cut"]], "novel": []},
    )
    folder = leave_run(tmp_path, record)
    text = write_model_card(folder).read_text()
    for words in ("ViCLIP-B-16", "viclip.pt", "w1", "60.0 %", "8 of 8", "| base |", "sha256 l1", "d1",
                  "8 frames, 1 view", 'vlmodels.load("models:/mine@champion")', "lr=0.001", "abc123",
                  "torch 2.9", "188.2 G", "a\\_b\\|c.mp4", "base-to-novel", "could not be decoded: 1 "):  # fmt: skip
        assert words in text, words
    assert "somewhere" not in text
    assert 'load_model("models:/mine@champion")' in text
    assert shortened_card(text, record.name) == text
    assert 'vlmodels.load("models:/mine/4")' in model_card(record, source="models:/mine/4")


@pytest.mark.parametrize("protocol", ["zero_shot", "few_shot", "supervised", "retrieval"])
def test_every_protocol_has_a_card(protocol):
    text = model_card(record_of(protocol, "zeroshot"))
    assert "Nothing was trained" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert ("encode_captions" in text) == (protocol == "retrieval")
    assert text.count("\n## ") == 8


def test_a_card_escapes_names_and_is_cut_for_the_registry(tmp_path):
    record = record_of(dataset="a|b <i>", name="run", facts={"notes": ["long " * 300] * 5})
    folder = leave_run(tmp_path, record)
    text = write_model_card(folder).read_text()
    assert "<i>" not in text
    assert "a\\|b" in text
    short = shortened_card(text, record.name)
    assert len(short) <= LONGEST < len(text)
    assert short.rstrip().endswith(")")
    assert "model_card.md" in short


def test_a_card_names_the_adapters_backbone_and_classes(tmp_path):
    adapter = {"backbone": {"digest": "f00"}, "classes": [f"class {i}" for i in range(30)]}
    text = model_card(record_of(), adapter)
    assert "f00" in text
    assert "30 training classes" in text
    assert "and 10 more" in text


def test_a_trained_start_is_named_and_not_said_to_be_nothing(tmp_path):
    start = {"name": "k400-run", "protocol": "supervised", "dataset": "k400"}
    record = record_of("zero_shot", history=[], epoch_kept=0, config={"start": "runs/k400-run"}, start=start)
    text, page = model_card(record), write_run_report(leave_run(tmp_path, record)).read_text()
    assert "that of k400-run" in text
    assert "started from" in page
    assert "k400-run" in page
    for shown in (text, page):
        assert "othing was trained" not in shown


@pytest.mark.parametrize(("register", "words"), [("mine", "MLFLOW_TRACKING_URI"), (None, "`runs/` stands for")])
def test_a_card_says_where_its_model_is(register, words):
    text = model_card(record_of(config={"tracking.register": register}))
    assert words in text
    assert ("`runs/`" in text) != ("MLFLOW" in text)
