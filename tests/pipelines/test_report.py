"""The page that sets runs of unlike methods side by side."""

from __future__ import annotations

from pipelines.report import table, write_comparison


def record(method, terms, epochs=3):
    history = [
        {"epoch": e + 1.0, **dict.fromkeys(terms, 1.0 / (e + 1)), "loss": len(terms) / (e + 1), "train_top1": 50.0,
         "lr": 1e-3, "seconds": 1.0, "data_wait": 0.0, "clips_per_second": 9.0}
        for e in range(epochs)
    ]  # fmt: skip
    return {
        "name": f"b2n-{method}-0",
        "method": method,
        "preset": "b2n",
        "protocol": "b2n",
        "metrics": {
            **{n: {"top1": 60.0, "top5": 90.0, "n_listed": 8, "n_scored": 8, "n_quarantined": 0, "chance": 25.0}
               for n in ("base", "novel")},
            "hm": 60.0,
        },
        "history": history,
        "selection": "last",
        "epoch_kept": epochs,
        "facts": {"trainable": 1234, "total": 99999, "frames": 4, "machine": "m"},
        "seconds": {"total": 12.0},
        "classes": {"base": ["a", "b"], "novel": ["c", "d"]},
        "unscored": {},
        "tracking": {},
    }  # fmt: skip


def test_methods_with_other_losses_stand_in_one_picture(tmp_path):
    records = [
        record("msta", ["ce", "consistency"]),
        record("m2clip", ["contrastive", "vc"]),
        record("zeroshot", [], 0),
    ]
    names = {"b2n-m2clip-0": "M2-CLIP"}
    page = write_comparison(records, tmp_path, title="Side by side", names=names, runs={"b2n-msta-0": "x/report.html"})
    text = page.read_text()
    assert all(words in text for words in ("Side by side", "M2-CLIP", "x/report.html", "1,234"))
    assert {path.suffix for path in tmp_path.iterdir()} >= {".html", ".png"}
    assert sum(path.stem == "losses" for path in tmp_path.iterdir()) >= 1


def test_the_table_has_a_row_for_each_run():
    lines = table([record("msta", ["ce"]), record("zeroshot", [])], names={"b2n-msta-0": "MSTA"}).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["MSTA", "zeroshot"]
    assert lines[2].split()[1:] == ["60.0", "60.0", "60.0", "1,234", "12"]
