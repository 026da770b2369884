"""What MLflow shows beside a run."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pipelines.runs.run_tags import KIND, TRAINING, mark_as_training, source_tags


@pytest.mark.parametrize(
    ("program", "name"),
    [("{root}/pipelines/b2n.py", "pipelines/b2n.py"), ("/somewhere/else/train.py", "train.py"), ("", "python")],
)
def test_the_source_is_a_program_and_no_path_of_this_machine(monkeypatch, request, program, name):
    monkeypatch.setattr(sys, "argv", [program.format(root=request.config.rootpath)])
    tags = source_tags()
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == (name, "LOCAL")


def test_what_is_not_known_is_left_out(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert not [name for name in source_tags() if "git" in name]


def test_an_experiment_keeps_the_kind_that_it_has():
    class Client:
        def __init__(self):
            self.tags = []

        def set_experiment_tag(self, *tag):
            self.tags.append(tag)

    client = Client()
    mark_as_training(client, SimpleNamespace(experiment_id="1", tags={KIND: "finetuning"}))
    assert not client.tags
    mark_as_training(client, SimpleNamespace(experiment_id="1", tags={}))
    assert client.tags == [("1", KIND, TRAINING)]
