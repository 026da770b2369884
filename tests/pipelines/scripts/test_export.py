from __future__ import annotations

import pytest

from pipelines import export
from vlmodels.errors import UserError


def test_a_mistake_is_told_before_anything_is_written(tmp_path):
    out = tmp_path / "out"
    for arguments, said in (
        (["--model", str(tmp_path / "nowhere")], "there is no"),
        (["--model", str(tmp_path)], r"adapter\.safetensors"),
        (["--model", str(tmp_path), "--labels", "nofile.csv"], "no such file"),
    ):
        with pytest.raises(UserError, match=said):
            export.main([*arguments, "--out", str(out)])
    assert not list(tmp_path.iterdir())


def test_a_format_that_does_not_exist_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        export.main(["--model", "x", "--out", str(tmp_path), "--format", "tensorrt"])
    assert "onnx" in capsys.readouterr().err
