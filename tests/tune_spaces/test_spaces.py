"""Search spaces that the metadata of a ``Config`` describe."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.config.resolve import resolve
from pipelines.config.schema import TrainConfig
from tune_spaces.domains import Choice, Integers, Layers, LogUniform, Uniform
from tune_spaces.spaces import config_space, insertion_space
from vlmodels import methods
from vlmodels.errors import UserError
from vlmodels.methods.base import setting

PAPER = {"video": 12, "text": 12}


@dataclasses.dataclass
class Config:
    """One field of each kind."""

    layers: str = setting("all", "", {"layers": "both"}, apart={"layers": "video"})
    text_layers: int = setting(1, "", {"choice": (0, 1)}, apart={"depth": "text"})
    depth: int = setting(0, "", {"depth": "video"})
    dims: int = setting(64, "", {"choice": (64, 128)})
    on: bool = setting(True, "", {"choice": (True, False)})
    scale: float = setting(0.1, "", {"loguniform": (0.01, 1.0)})
    dropout: float = setting(0.0, "", {"uniform": (0.0, 0.5)})
    site: str = setting("pre", "nothing to try")


DEPTHS = {"video": 24, "text": 12}


def test_a_space_has_every_field_with_values_to_try():
    assert config_space(Config, depths=DEPTHS) == {
        "method.layers": Layers(12),
        "method.text_layers": Choice(("0", "1")),
        "method.depth": Integers(1, 24),
        "method.dims": Choice(("64", "128")),
        "method.on": Choice(("true", "false")),
        "method.scale": LogUniform(0.01, 1.0),
        "method.dropout": Uniform(0.0, 0.5),
    }
    assert config_space(Config, depths=DEPTHS, prefix="m.", names=["dims"]) == {"m.dims": Choice(("64", "128"))}


def test_insertion_space_has_the_layers_of_both_towers_alike_or_apart():
    assert insertion_space(Config, depths=DEPTHS) == {"method.layers": Layers(12), "method.depth": Integers(1, 24)}
    assert insertion_space(Config, depths=DEPTHS, apart=True) == {
        "method.layers": Layers(24),
        "method.text_layers": Integers(1, 12),
        "method.depth": Integers(1, 24),
    }


def test_settings_without_values_to_try_are_refused_with_the_remedy():
    with pytest.raises(UserError) as error:
        config_space(Config, depths=DEPTHS, names=["dim", "site"])
    for part in ("'dim'", "did you mean 'dims'", "'site'", "--grid method.site=a,b,c"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="ZeroShot"):
        config_space(methods.get("zeroshot").Config, depths=PAPER)
    with pytest.raises(UserError, match="no layers"):
        insertion_space(methods.get("finetune").Config, depths=PAPER)


def test_unknown_metadata_raise_a_type_error():
    config = dataclasses.make_dataclass("C", [("x", int, setting(1, "", {"chioce": (1, 2)}))])
    with pytest.raises(TypeError, match="chioce"):
        config_space(config, depths=PAPER)


@pytest.mark.parametrize("method", methods.names())
def test_every_method_accepts_each_value_of_its_space(method):
    config = methods.get(method).Config
    tuned = [f for f in dataclasses.fields(config) if f.metadata.get("tune")]
    if not tuned:
        return
    space = config_space(config, depths=PAPER)
    assert list(space) == [f"method.{f.name}" for f in tuned]
    for key, domain in space.items():
        for value in domain.all_values() or (str(domain.low), str(domain.high)):
            resolve(method=method, preset=None, base=TrainConfig(), overrides=[f"{key}={value}"])
    if any(f.metadata["tune"].keys() & {"layers", "depth"} for f in tuned):
        assert insertion_space(config, depths=PAPER)
        assert insertion_space(config, depths=PAPER, apart=True)
