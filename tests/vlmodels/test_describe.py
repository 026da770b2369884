from __future__ import annotations

import json
import subprocess
import sys

import pytest

from vlmodels import methods
from vlmodels.command import main, read_classes
from vlmodels.describe import describe
from vlmodels.errors import UserError

B16 = "ViT-B-16-quickgelu"


def test_clip_costs_what_is_published():
    found = describe("zeroshot", B16)
    assert found["gmacs_video"] == pytest.approx(140.51, rel=1e-3)
    assert found["gmacs_text_per_class"] == pytest.approx(2.98, rel=1e-2)
    assert (found["trainable"], found["adapter_bytes"], found["total"]) == (0, 0, 149_620_737)
    assert describe("zeroshot", B16, frames=16)["gmacs_video"] == pytest.approx(281.0, rel=1e-3)


@pytest.mark.parametrize(
    ("preset", "dims", "layers", "trainable"),
    [("b2n", 256, 12, 8_712_192), ("fewshot", 128, 5, 1_744_000), ("zeroshot", 128, 12, 4_185_600)],
)
def test_msta_costs_its_closed_form(preset, dims, layers, trainable):
    found = describe("msta", B16, preset=preset)
    tokens, patches = 8 * 197, 8 * 196
    video = layers * (tokens * (2 * 768 * dims + dims * dims) + patches * 768 * 3)
    text = layers * 77 * (2 * 512 * dims + dims * dims)
    assert found["gmacs_video"] == pytest.approx(140.508 + video / 1e9, rel=1e-4)
    assert found["gmacs_text_per_class"] == pytest.approx(2.9798 + text / 1e9, rel=1e-3)
    assert found["gmacs_text"] == pytest.approx(400 * found["gmacs_text_per_class"], rel=1e-3)
    assert (found["trainable"], found["adapter_bytes"]) == (trainable, 4 * trainable)


def test_adaptformer_costs_two_matrices_a_token():
    found = describe("adaptformer", B16, preset="b2n")
    assert found["gmacs_video"] == pytest.approx(140.508 + 12 * 8 * 197 * 2 * 768 * 256 / 1e9, rel=1e-4)


def test_command_line(capsys):
    main(["--method", "msta", "--backbone", "toy", "--preset", "b2n", "--json"])
    assert json.loads(capsys.readouterr().out)["frames"] == 8
    main(["--method", "msta", "--backbone", "toy"])
    assert "trainable" in capsys.readouterr().out
    main(["--list"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in [*methods.names(), B16, "openai"])
    with pytest.raises(SystemExit):
        main([])
    assert "give --method NAME, --list" in capsys.readouterr().err


def test_mistakes_exit_with_2_and_no_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "vlmodels", "--method", "mstaa"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown method 'mstaa' (did you mean 'msta'?)")
    with pytest.raises(UserError, match=r"no preset 'b2m' .did you mean 'b2n'"):
        describe("msta", "toy", preset="b2m")
    with pytest.raises(UserError, match="layers=8-12 does not fit toy"):
        describe("msta", "toy", preset="fewshot")


def test_label_files_and_frames_that_cannot_be_counted(tmp_path):
    path = tmp_path / "labels.csv"
    for content, said in [
        ("id,name\n", "at least 2"),
        ("id,name\n0,a\n1,a\n", "distinct"),
        ("id,name\n0\n", "columns"),
    ]:
        path.write_text(content)
        with pytest.raises(UserError, match=f"labels.csv.*{said}"):
            read_classes(path)
    path.write_text("id,name\n0,a\n1,b\n")
    assert read_classes(path) == ["a", "b"]
    assert describe("linear", "toy", classes=["a", "b"])["trainable"] == 2 * 129
    with pytest.raises(UserError, match="frames=0"):
        describe("msta", "toy", frames=0)
