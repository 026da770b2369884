"""``serve.py``: mistakes are told before Ray starts."""

from __future__ import annotations

import socket

import pytest

from pipelines.prediction.flags import predict_parser
from pipelines.serve import parser
from tests.helpers.scripts import run_copy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "there is no nowhere"),
        (["--model", "models:/x@champion"], "x@champion"),
        (["--model", ".", "--queue", "0"], "--queue 0"),
        (["--model", ".", "--max-seconds", "inf"], "--max-seconds"),
        (["--model", ".", "--allow-uris", "http://127.0.0.1/"], "--allow-uris"),
        (["--model", ".", "--host", "203.0.113.1"], "--host 203.0.113.1"),
        (["--model", ".", "--port", "99999"], "--port 99999"),
        (["--model", ".", "--host", "0.0.0.0", "--token-file", "nowhere"], "--token-file nowhere"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, message):
    done = run_copy("serve", *arguments, *([] if "--port" in arguments else ["--port", "0"]), cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_the_device_is_chosen_as_predict_does():
    served = parser().parse_args(["--model", "x"]).device
    assert served == predict_parser(None).parse_args(["a.mp4", "--model", "x"]).device == "auto"


def test_a_taken_port_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = run_copy("serve", "--model", tmp_path, "--port", other.getsockname()[1], cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "another program listens" in done.stderr
