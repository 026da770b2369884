"""The command line of the training scripts: which flag becomes which setting, and which do not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.planning.training_flags import config_from, tracking_uri, training_parser, training_request
from vlmodels.errors import UserError


def config(protocol, *arguments):
    return config_from(training_parser("", protocol).parse_args(["--data", "nowhere", *arguments]), protocol=protocol)


def test_flags_become_settings():
    found = config("zero_shot", "--test", "one=a", "--test", "b", "--workers", "3", "--gpu", "--probe", "--out", "o",
                   "--mlflow", "http://m", "--register", "name", "--alias", "best", "--experiment", "e")  # fmt: skip
    assert (found.data.dir, found.data.probe, found.protocol.tests) == ("nowhere", True, ("one=a", "b"))
    assert (found.protocol.name, found.scale.workers, found.scale.gpu, found.out) == ("zero_shot", 3, True, "o")
    tracking = found.tracking
    assert (tracking.uri, tracking.experiment, tracking.register, tracking.alias) == ("http://m", "e", "name", "best")
    assert (found.backbone.name, found.backbone.pretrained, found.seed) == ("toy", "toy", 1)


def test_set_wins_over_flags_and_the_preset_is_the_protocols():
    assert config("b2n", "--workers", "2", "--set", "scale.workers=3").scale.workers == 3
    assert config("b2n").preset == "b2n"
    assert config("supervised").preset == "full"
    assert config("supervised", "--preset", "fewshot").preset == "fewshot"
    assert config("retrieval", "--method", "aim").preset is None, "a method that has none for it"


def test_views_are_those_of_the_paper():
    assert (config("supervised").data.clips, config("supervised").data.crops) == (1, 1)
    found = config("supervised", "--views", "msta").data
    assert (found.clips, found.crops) == (4, 3)
    assert config("supervised", "--views", "m2clip", "--dataset", "ssv2").data.clips == 1


def test_a_request_has_a_seed_for_each_run():
    one = training_request(None, "b2n", ["--data", "d"])
    assert (one.seeds, one.fresh, one.dry_run) == ((1,), False, False)
    several = training_request(None, "b2n", ["--data", "d", "--seeds", "3,2", "--fresh", "--dry-run"])
    assert (several.seeds, several.configs[0].seed, several.fresh, several.dry_run) == ((3, 2), 3, True, True)
    assert training_request(None, "b2n", ["--data", "d", "--set", "seed=5"]).seeds == (5,)


def test_a_request_has_a_configuration_for_each_method():
    request = training_request(None, "b2n", ["--data", "d", "--method", "zeroshot, msta,zeroshot", "--seeds", "3,2"])
    assert [config.method for config in request.configs] == ["zeroshot", "msta"]
    assert {config.seed for config in request.configs} == {3}
    assert request.configs[1].method_config["alpha"] != 0
    given = ["--data", "d", "--method", "adaptformer,msta", "--set", "method.alpha=0", "--set", "method.dims=32"]
    adaptformer, msta = training_request(None, "b2n", given).configs
    assert (adaptformer.method_config["dims"], msta.method_config["dims"], msta.method_config["alpha"]) == (32, 32, 0)
    with pytest.raises(UserError, match="alpa"):
        training_request(None, "b2n", [*given, "--set", "method.alpa=0"])
    for wrong in ("msta,mstaa", ""):
        with pytest.raises(UserError, match="method"):
            training_request(None, "b2n", ["--data", "d", "--method", wrong])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1", "--set", "seed=2"], "both give the seed"),
        (["--pretrained", "none", "--register", "x"], "cannot be registered"),
        (["--backbone", "ViT-B-16"], "needs --pretrained"),
        (["--views", "mstaa"], "did you mean"),
        (["--lists", "s3://b/lists"], "local path"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        config("b2n", *arguments)


def test_tracking_is_given_or_the_environments_or_a_file_of_the_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None, "out") == f"sqlite:///{Path('out').resolve()}/mlflow.db"
    assert tracking_uri(None, f"file://{tmp_path}/out") == f"sqlite:///{tmp_path}/out/mlflow.db"
    assert tracking_uri(None, "s3://bucket/out") == f"sqlite:///{Path('runs').resolve()}/mlflow.db"
    Path("loop").symlink_to("loop")
    assert tracking_uri(None, "loop") == f"sqlite:///{tmp_path}/loop/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert tracking_uri(None, "out") == "http://server"
    assert tracking_uri("http://other", "out") == "http://other"
