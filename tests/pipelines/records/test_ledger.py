"""Reading runs, the tables of the papers, and the three files of the ledger."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from pipelines import report
from pipelines.records import run_file
from pipelines.records.comparison import Comparison
from pipelines.records.find import read_runs
from pipelines.records.ledger import make_ledger
from pipelines.records.summary import Column
from pipelines.reports.ledger_pictures import sized
from tests.helpers.fakes import changed, leave_json, leave_run, predictions_of, record_json, record_of
from vlmodels.errors import UserError
from vlmodels.published import Score


def no_constant(name):
    raise AssertionError(name)


def test_runs_are_found_once_wherever_they_lie(tmp_path):
    leave_run(tmp_path / "a", record_of(seed=1))
    leave_run(tmp_path / "a" / "more", record_of(seed=2))
    leave_run(tmp_path / "a" / ".ray", record_of(seed=3))
    leave_run(tmp_path / "a" / "mlartifacts", record_of(seed=4))
    leave_run(tmp_path / "b", record_of(seed=1))
    said = []
    runs = read_runs([str(tmp_path / "a"), (tmp_path / "b").as_uri()], said.append)
    assert [run.record.seed for run in runs] == [1, 2]
    assert runs[0].place == str(tmp_path / "a" / "b2n-msta-toy-ucf-1")
    assert runs[0].predictions()["base/target"].shape == (8,)
    assert not said


def test_records_that_cannot_be_read_are_named_and_the_others_are_shown(tmp_path):
    leave_run(tmp_path, record_of())
    (tmp_path / "half").mkdir()
    contents = {
        "cut": "{",
        "list": "[]",
        "old": '{"schema": 1}',
        "older": "{}",
        "new": '{"schema": 3}',
        "part": '{"schema": 2}',
        "nan": json.dumps(record_json() | {"metrics": float("nan")}),
    }
    for name, text in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    said = []
    assert len(read_runs([str(tmp_path)], said.append)) == 1
    assert len(said) == len(contents)
    assert not any("half" in line for line in said)
    reasons = {re.search(r"/(\w+):", line)[1]: line for line in said}
    assert "an older version" in reasons["old"]
    assert "an older version" in reasons["older"]
    assert "a newer version" in reasons["new"]
    assert "NaN" in reasons["nan"]
    assert "name is missing" in reasons["part"]
    assert "cannot be read" in reasons["cut"]


def test_predictions_may_be_gone(tmp_path):
    (leave_run(tmp_path, record_of()) / "predictions.npz").unlink()
    (run,) = read_runs([str(tmp_path)])
    assert run.predictions() == {}


@pytest.mark.parametrize(
    "arguments", ["--runs none", "--runs .", "--runs full --protocol retrieval", "--runs full --dataset hmdb51"]
)
def test_nothing_to_report_is_one_error_that_says_what_there_is(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    if "full" in arguments:
        leave_run(tmp_path / "full", record_of())
    with pytest.raises(UserError, match=r"no such folder|no finished run|there are b2n on toy-ucf"):
        report.main(arguments.split())


def test_few_shots_of_all_sizes_and_data_sets_share_a_row():
    records = [
        record_of("few_shot", dataset=d, config={"protocol.shots": k}, name=f"{d}{k}", group=f"{d}{k}")
        for d in ("hmdb51", "ucf101")
        for k in (16, 2, 4)
    ]
    (table,) = make_ledger(records).tables
    (row,) = table.rows
    assert list(table.columns) == [Column(d, f"top1 K={k}") for d in ("hmdb51", "ucf101") for k in (2, 4, 16)]
    assert row.cells.keys() == set(table.columns)


def test_a_cell_that_is_taken_opens_a_row_and_settings_are_reasons():
    records = [
        record_of(),
        record_of(name="again", group="again"),
        record_of(name="c", group="c", config={"method_config.dims": 32}),
        record_of(method="zeroshot"),
    ]
    (table,) = make_ledger(records).tables
    assert [row.label for row in table.rows] == ["zeroshot", "msta", "msta", "msta (dims=32)"]


def test_rephrased_class_names_open_a_row_and_are_said_of_both_scores():
    rephrased = record_of(group="r", name="r", config={"protocol.class_names": "rephrased"})
    (table,) = make_ledger([record_of(), rephrased]).tables
    about = "class names rephrased by a language model"
    assert [about in row.about for row in table.rows] == [False, True]
    ours = {entry["class_names"] for entry in json.loads(make_ledger([rephrased]).to_json())["scores"]}
    assert ours == {"rephrased by a language model"}


def test_only_the_wanted_data_set_is_in_the_tables():
    sets = {"ucf101/val1": ("a", "b"), "hmdb51/val1": ("a", "b")}
    records = [record_of("zero_shot", dataset="k400", sets=sets), record_of()]
    (table,) = make_ledger(records, dataset="hmdb51").tables
    assert [column.dataset for column in table.columns] == ["hmdb51"]
    assert [t.protocol for t in make_ledger(records, protocol="b2n").tables] == ["b2n"]


def a_folder_of_everything(place):
    evil = ("<script>x</script>", "a|b $\\frac$", "c", "d")
    sets = {"base": evil, "novel": evil[:2]}
    for seed in (1, 2, 3):
        probe = {order: {"top1": 30.0, "top5": 50.0} for order in ("shuffled", "reversed", "single")}
        counts = {"metrics.novel.n_scored": 7, "metrics.novel.n_quarantined": 1}
        scores = {"base": 60.0 + seed, "novel": 50.0}
        changes = counts | {"metrics.base.probe": probe, "metrics.novel.probe": probe}
        record = record_of(seed=seed, sets=sets, scores=scores, selection="test-best", changes=changes)
        leave_run(place, record, predictions_of(record, videos=24, shift=2.0))
    plain = record_of(method="zeroshot", sets=sets, scores=40.0)
    leave_run(place, plain, predictions_of(plain, videos=24, shift=0.5))
    leave_run(place, record_of("retrieval", dataset="msrvtt"))
    leave_run(place, record_of("zero_shot"))
    for shots in (2, 4):
        few = record_of(
            "few_shot", dataset="hmdb51", config={"protocol.shots": shots}, name=f"few{shots}", group=f"f{shots}"
        )
        leave_run(place, few, predictions_of(few, videos=24))


def test_the_report_holds_every_table_number_and_picture(tmp_path, capsys):
    a_folder_of_everything(tmp_path / "runs")
    assert report.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert "62.0 ± 0.8" in capsys.readouterr().out
    page, text = ((tmp_path / "out" / f"report.{kind}").read_text() for kind in ("html", "md"))
    for words in (
        "62.0 ± 0.8",
        "7 of 8, 1 quarantined",
        "best on the test list, as published",
        "3 seeds",
        "8 frames, 1 view",
    ):
        assert words in page
        assert words in text
    assert "<script>" not in page
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)
    pictures = {p.name for p in (tmp_path / "out").glob("*.png")}
    assert set(re.findall(r'src="([^"]+)"', page)) == pictures
    for kind in ("probe", "gain", "tsne", "labels", "confusion", "shots", "parameters", "bars"):
        assert any(kind in name for name in pictures), kind
    assert "../runs/b2n-msta-toy-ucf-1/report/report.html" in page
    found = json.loads((tmp_path / "out" / "ledger.json").read_text(), parse_constant=no_constant)["scores"]
    hm = next(s for s in found if s["metric"] == "HM" and s["method"] == "msta")
    assert hm["n_listed"] == [16, 16, 16]
    assert hm["n_quarantined"] == [1, 1, 1]
    assert hm["published"] is None
    assert len([line for line in text.splitlines() if line.startswith("| msta")]) >= 4


def test_brief_leaves_the_pictures_of_single_runs_out(tmp_path):
    a_folder_of_everything(tmp_path / "runs")
    report.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--brief", "--protocol", "b2n"])
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {"b2n_toy-ucf_bars.png", "b2n_toy-ucf_parameters.png"}


@pytest.mark.parametrize(
    "path",
    ["seed", "dataset", "history", "finished", "selection", "scoring.clips", "config.method_config",
     "config.protocol.shots", "facts.trainable", "seconds.total", "classes.novel", "metrics.base",
     "metrics.base.top1", "metrics.novel.n_listed"],
)  # fmt: skip
@pytest.mark.parametrize("gone", [True, False])
def test_a_damaged_record_is_named_and_left_out(tmp_path, path, gone):
    record = record_json(seed=2, name="damaged")
    *parents, last = path.split(".")
    holder = record
    for key in parents:
        holder = holder[key]
    del holder[last]
    if not gone:
        holder[last] = None
    leave_run(tmp_path, record_of())
    leave_json(tmp_path, record)
    said = []
    assert [run.record.seed for run in read_runs([str(tmp_path)], said.append)] == [1]
    assert "damaged: its run.json cannot be used" in said[0]
    assert last in said[0]


def test_a_cut_file_of_predictions_costs_the_pictures_of_its_run_alone(tmp_path, capsys):
    a_folder_of_everything(tmp_path / "runs")
    path = tmp_path / "runs" / "b2n-msta-toy-ucf-1" / "predictions.npz"
    path.write_bytes(path.read_bytes()[:-100])
    report.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--protocol", "b2n"])
    assert f"no pictures of {path.parent}" in capsys.readouterr().out
    assert list((tmp_path / "out").glob("run*confusion.png"))


def test_gain_is_over_the_same_weights_on_our_clips(tmp_path):
    ours = record_of("supervised", dataset="mine", facts={"weights_digest": "a"}, sets={"val1": ("a", "b", "c")})
    own = predictions_of(ours, videos=20)
    leave_run(tmp_path / "runs", ours, own)
    plain = record_of(
        "zero_shot", "zeroshot", "mine", facts={"weights_digest": "b"}, sets={"mine/all": ("c", "a", "b")}
    )
    clips = predictions_of(plain, videos=60)
    clips["mine/all/target"] = (np.arange(60) + 1) % 3  # clip0 is of class a
    leave_run(tmp_path / "runs", plain, clips)
    arguments = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    report.main(arguments)
    assert not list((tmp_path / "out").glob("*gain.png"))
    run_file.write(tmp_path / "runs" / plain.name, changed(plain, {"facts.weights_digest": "a"}))
    report.main(arguments)
    assert len(list((tmp_path / "out").glob("*gain.png"))) == 1


def test_pictures_of_an_earlier_report_go_and_nothing_else(tmp_path):
    leave_run(tmp_path / "runs", record_of())
    out = tmp_path / "out"
    arguments = ["--runs", str(tmp_path / "runs"), "--out", str(out)]
    report.main(arguments)
    before = {path.name for path in out.glob("*.png")}
    (out / "mine.png").touch()
    (tmp_path / "up.png").touch()
    listed = json.loads((out / "ledger.json").read_text())
    assert set(listed["pictures"]) == before
    (out / "ledger.json").write_text(json.dumps(listed | {"pictures": [*listed["pictures"], "../up.png", 3]}))
    report.main([*arguments, "--brief"])
    assert {path.name for path in out.glob("*.png")} == {"b2n_toy-ucf_bars.png", "mine.png"}
    assert (tmp_path / "up.png").exists()


def test_the_error_of_dataset_offers_what_can_be_asked_for():
    record = record_of("zero_shot", dataset="k400", sets={"hmdb51/val1": ("a", "b")})
    with pytest.raises(UserError, match=r"there are zero_shot on hmdb51$"):
        make_ledger([record], dataset="k400")


def test_runs_that_differ_in_views_or_recipe_have_rows_that_say_so():
    seen = {"frames": 8, "clips": 4, "crops": 3, "sampling": "segments", "stride": 0, "average": "softmax"}
    records = [
        record_of(),
        record_of(name="views", group="views", scoring=seen),
        record_of(name="lr", group="lr", config={"optim.lr": 0.5}),
        record_of(name="scored", group="scored", history=[], config={"start": "runs/first/"}),
    ]
    (table,) = make_ledger(records).tables
    assert [row.about for row in table.rows] == [
        "ViCLIP-B-16, 1 seed, 8 frames, 1 view",
        "ViCLIP-B-16, 1 seed, 8 frames, 4 x 3 views",
        "ViCLIP-B-16, lr=0.5, 1 seed, 8 frames, 1 view",
        "ViCLIP-B-16, started from first, 1 seed, 8 frames, 1 view",
    ]


def test_links_are_quoted(tmp_path):
    leave_run(tmp_path / "a #1 & ü", record_of())
    for place in (str(tmp_path / "a #1 & ü"), (tmp_path / "a #1 & ü").as_uri()):
        report.main(["--runs", place, "--out", str(tmp_path / "out"), "--brief"])
        links = re.findall(r'href="([^#"][^"]*)"', (tmp_path / "out" / "report.html").read_text())
        assert links[0].endswith("a%20%231%20%26%20%C3%BC/b2n-msta-toy-ucf-1/report/report.html")


def test_a_size_that_is_not_published_has_no_published_point():
    table = make_ledger([record_of(), record_of(method="lora")]).tables[0]
    score = Score("msta", "", "ViCLIP-B-16", "b2n", "HMDB51", "HM", "60", "dataset", "MSTA table 2")
    found = Comparison(score, 0.0, ())
    entries = [replace(row.cells[Column("toy-ucf", "HM")], comparison=found) for row in table.rows]
    assert [sized(row.label, entry).published for row, entry in zip(table.rows, entries, strict=True)] == [(), ()]


def test_a_papers_own_views_of_each_data_set_share_a_row():
    def seen(clips):
        return {"frames": 8, "clips": clips, "crops": 3, "sampling": "segments", "stride": 0, "average": "softmax"}

    records = [record_of(dataset="hmdb51", scoring=seen(10)), record_of(dataset="ucf101", scoring=seen(5))]
    ((row,),) = (table.rows for table in make_ledger(records).tables)
    assert row.about == "ViCLIP-B-16, 1 seed, 8 frames, 10 x 3 views or 8 frames, 5 x 3 views"
    records[1] = changed(records[1], {"scoring": seen(4)})
    assert [len(table.rows) for table in make_ledger(records).tables] == [2]
