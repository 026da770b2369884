"""What every registered method promises, tested on a tiny CLIP; a new method's file is tested by being there."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.helpers.tiny_clip import CLASSES, DESCRIPTIONS, disturb, tiny_backbone, tiny_frames, tiny_method, train
from tests.helpers.tiny_families import FAMILIES
from vlmodels import methods
from vlmodels.checkpoint import load_adapter, save_adapter
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.base import config_from_plain

METHODS = methods.names()
every_method = pytest.mark.parametrize("cls", [methods.get(name) for name in METHODS], ids=METHODS)


@pytest.fixture(params=["clip", "viclip", *FAMILIES])
def family(request):
    """A family of backbones: frames one by one or one sequence of all, timm's towers, towers without a class token."""
    return request.param


@pytest.fixture(params=["clip", "viclip"])
def own(request):
    """open_clip's own towers, for what does not depend on the family."""
    return request.param


def trains(cls):
    return bool(tiny_method(cls).trainable_parameters())


every_training_method = pytest.mark.parametrize(
    "cls", [cls for cls in map(methods.get, METHODS) if trains(cls)], ids=lambda cls: cls.__name__
)


@torch.no_grad()
def logits(method, frames):
    return method.eval()(frames).logits


@every_method
@torch.no_grad()
def test_starts_as_the_backbone_or_says_that_it_does_not(cls, family):
    method, plain = tiny_method(cls, family=family).eval(), tiny_method(methods.get("zeroshot"), family=family)
    found, frozen = method(tiny_frames()), plain(tiny_frames())
    assert torch.allclose(found.logits, frozen.logits, atol=1e-5) == cls.starts_as_backbone
    if family in ("clip", "viclip"):  # an exception is near, where a norm before the blocks keeps random prompts small
        assert (found.video * frozen.video).sum(dim=-1).min() > 0.9


@every_training_method
def test_a_step_changes_what_was_attached_and_nothing_else(cls, family):
    method = tiny_method(cls, family=family)
    trainable = {name for name, p in method.named_parameters() if p.requires_grad}
    before = {name: value.clone() for name, value in method.state_dict().items()}
    train(method, 3)
    after = method.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= trainable
    assert len(changed) > 0.9 * len(trainable)  # what acts only on patches of the last block reaches no output


@every_training_method
def test_every_attached_parameter_gets_a_finite_gradient(cls, family):
    method = disturb(tiny_method(cls, family=family)).train()
    labels = torch.tensor([0, 1])
    sum(method.losses(method(tiny_frames(), labels), labels).values()).backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@every_training_method
def test_trains_under_ddp_with_no_parameter_unused(cls, family, tmp_path):
    alone = train(tiny_method(cls, family=family), 3)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        method = tiny_method(cls, family=family)
        together = train(method, 3, call=DistributedDataParallel(method, broadcast_buffers=False))
    finally:
        distributed.destroy_process_group()
    assert together == pytest.approx(alone, rel=1e-5)


@every_method
def test_all_that_is_attached_learns_from_pairs_or_the_method_says_what_to_set(cls, family):
    torch.manual_seed(2)
    method = disturb(cls(tiny_backbone(family=family))).train()  # retrieval has no classes
    if problems := method.retrieval_problems():
        assert all("set method." in problem for problem in problems)
        return
    text = method.caption_features(["a man rides a bike", "tea"])
    assert len(text[0]) == 2
    terms = method.pair_terms(method.encode_video(tiny_frames()), *text)
    if method.trainable_parameters():
        sum(terms.values()).backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@every_method
def test_saved_and_loaded_gives_the_same_logits_and_another_backbone_is_refused(cls, family, tmp_path):
    method, frames = disturb(tiny_method(cls, family=family)), tiny_frames()
    save_adapter(tmp_path, method, classes=CLASSES)
    loaded = load_adapter(tmp_path, tiny_backbone(family=family))
    assert torch.equal(logits(loaded.method, frames), logits(method, frames))
    assert loaded.method.config == method.config
    assert loaded.classes == CLASSES
    other = tiny_backbone(seed=9, family=family)
    with pytest.raises(UserError, match=f"(?s){method.backbone.digest[:12]}.*{other.digest[:12]}"):
        load_adapter(tmp_path, other)


@every_method
def test_clips_do_not_meet_in_a_batch(cls, family):
    method, frames = disturb(tiny_method(cls, family=family)), tiny_frames(2)
    apart = torch.cat([logits(method, frames[:1]), logits(method, frames[1:])])
    assert torch.allclose(logits(method, frames), apart, atol=1e-4)


@every_method
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_any_number_of_frames(cls, family, frames):
    assert logits(disturb(tiny_method(cls, family=family)), tiny_frames(2, frames)).isfinite().all()


@every_method
def test_frame_order_matters_exactly_if_the_method_is_temporal(cls, family):
    method, frames = disturb(tiny_method(cls, family=family), scale=0.5), tiny_frames(2, 4)
    found, shuffled = logits(method, frames), logits(method, frames[:, [2, 0, 3, 1]])
    ordered = cls.temporal or family == "viclip"  # a ViCLIP has positions in time
    assert torch.allclose(found, shuffled, atol=1e-4) != ordered


@every_method
def test_bf16_autocast_stays_close(cls, family):
    method, frames = disturb(tiny_method(cls, family=family)), tiny_frames()
    with torch.autocast("cpu", torch.bfloat16):
        found = logits(method, frames)
    assert found.dtype == torch.float32
    assert torch.allclose(found, logits(method, frames), atol=0.3)  # of a scale of 14 on cosines


@every_method
def test_config_round_trips_json_and_each_field_has_help(cls, own):
    for config in (cls.Config(), *(preset.method for preset in cls.presets.values())):
        assert config_from_plain(cls, json.loads(json.dumps(dataclasses.asdict(config)))) == config
    for field in dataclasses.fields(cls.Config):
        assert field.metadata["help"], field.name
    with pytest.raises(UserError, match="has no settings nonsense"):
        config_from_plain(cls, {"nonsense": 1})


def tried(tune, config):
    """Values at the ends of what a search may try on the toy CLIP, with its towers of 4 blocks each."""
    kind, given = next(iter(tune.items()))
    assert len(tune) == 1
    if kind in ("layers", "depth"):
        assert given in ("video", "text", "both")
        return {"layers": ("1-1", "2-3", "1-4", "4-4"), "depth": (1, 4)}[kind]
    assert kind == "choice" or (kind in ("loguniform", "uniform") and given[0] < given[1])
    assert kind != "choice" or (config in given and len(set(given)) == len(given) > 1)
    return given


@every_method
def test_all_that_a_search_may_try_can_be_built(cls):
    default = cls.Config()
    towers = {"towers": "both"} if cls.__name__ == "LoRA" else {}
    for field in dataclasses.fields(cls.Config):
        for name, extra in (("tune", {}), ("tune_apart", towers)):
            tune = field.metadata[name]
            for value in tried(tune, getattr(default, field.name)) if tune else ():
                with torch.device("meta"):
                    cls(create("toy", weights=None), cls.Config(**extra | {field.name: value}), CLASSES)


@every_method
def test_every_protocol_has_a_preset(cls, own):
    assert {"b2n", "fewshot", "zeroshot", "full"} <= cls.presets.keys()
    assert cls.paper
    assert cls.__doc__


@every_method
def test_new_class_names_need_no_reload(cls, family):
    method, frames = disturb(tiny_method(cls, family=family)), tiny_frames()
    first = logits(method, frames)
    method.set_classes(["flying a kite", *CLASSES])
    assert torch.allclose(logits(method, frames)[:, 1:], first, atol=1e-4)
    method.set_classes(CLASSES, DESCRIPTIONS)
    assert torch.equal(logits(method, frames), first)
    for names, said in [(["one"], "at least 2"), (["a", "a"], "distinct.*: a"), (["a", " "], "blank")]:
        with pytest.raises(UserError, match=said):
            method.set_classes(names)


@every_training_method
def test_class_features_are_never_stale(cls, own):
    method, frames = tiny_method(cls, family=own), tiny_frames(4)
    labels = torch.tensor([0, 1, 2, 0])
    seen = [logits(method, frames)]
    for optimizer in (torch.optim.AdamW, torch.optim.SGD):
        for options in ({"foreach": True}, {"fused": True}, {}):
            step = optimizer(method.trainable_parameters(), lr=0.05, **options)
            for loss in method.train().losses(method(frames, labels), labels).values():
                loss.backward(retain_graph=True)
            method.eval()  # before the step: what was kept must be forgotten because the parameters changed
            logits(method, frames)
            step.step()
            seen.append(logits(method, frames))
            fresh = tiny_method(cls, family=own)
            fresh.load_adapter_state_dict(method.adapter_state_dict())
            assert torch.equal(seen[-1], logits(fresh, frames))
            assert not torch.equal(seen[-1], seen[-2])
    method.load_adapter_state_dict(tiny_method(cls, family=own).adapter_state_dict())
    assert torch.equal(logits(method, frames), seen[0])


@torch.no_grad()
def test_class_features_are_not_kept_while_dropout_is_on():
    method = tiny_method(methods.get("msta"), methods.get("msta").Config(dims=64, dropout=0.5, scale=1.0)).train()
    assert not torch.equal(method.encode_classes(), method.encode_classes())


def test_a_method_that_trains_the_base_keeps_the_digest_of_what_it_started_from():
    class Tune(methods.base.Method):
        def attach(self):
            return [self.backbone.model.visual.ln_post, self.backbone.model.text_projection]

    method, fresh = tiny_method(Tune), tiny_backbone()
    train(method, 2)
    assert not torch.equal(method.backbone.model.text_projection, fresh.model.text_projection)
    assert method.backbone.digest == fresh.digest
    assert set(method.adapter_state_dict()) == {
        "backbone.model.visual.ln_post.weight",
        "backbone.model.visual.ln_post.bias",
        "backbone.model.text_projection",
    }
    again = tiny_method(Tune)
    again.load_adapter_state_dict(method.adapter_state_dict())
    assert torch.equal(logits(again, tiny_frames()), logits(method, tiny_frames()))


@every_method
def test_what_was_kept_under_inference_mode_serves_training(cls, own):
    method = tiny_method(cls, family=own)
    with torch.inference_mode():
        method.set_classes(CLASSES, DESCRIPTIONS)
        method.eval()(tiny_frames())
    labels = torch.tensor([0, 1])
    loss = sum(method.train().losses(method(tiny_frames(), labels), labels).values())
    assert loss.requires_grad == bool(method.trainable_parameters())
    if loss.requires_grad:
        loss.backward()


@every_method
def test_a_copy_acts_on_its_own_backbone(cls, family):
    method, frames = tiny_method(cls, family=family), tiny_frames()
    before = logits(method, frames)
    disturb(copy.deepcopy(method))
    assert torch.equal(logits(method, frames), before)
    twin = disturb(copy.deepcopy(method), scale=0.5)
    assert torch.equal(logits(twin, frames), before) != bool(method.trainable_parameters())


@every_method
def test_tensors_of_another_adapter_are_refused_with_the_difference(cls, own):
    method = tiny_method(cls, family=own)
    state = method.adapter_state_dict()
    with pytest.raises(UserError, match="unexpected strange"):
        method.load_adapter_state_dict(state | {"strange": torch.zeros(1)})
    if state:
        name = next(iter(state))
        with pytest.raises(UserError, match="missing"):
            method.load_adapter_state_dict({k: v for k, v in state.items() if k != name})
        with pytest.raises(UserError, match="other shapes"):
            method.load_adapter_state_dict(state | {name: torch.zeros(1, 2, 3)})


@every_method
def test_the_backbone_is_given_to_one_method_only(cls, own):
    method = tiny_method(cls, family=own)
    with pytest.raises(UserError, match="already carries"):
        cls(method.backbone, None, CLASSES)
    with pytest.raises(UserError, match="call set_classes"):
        cls(tiny_backbone(family=own))(tiny_frames())


@every_method
def test_prompts_that_the_context_has_no_room_for_are_refused(cls, family):
    method = tiny_method(cls, family=family)
    with pytest.raises(UserError, match=r"(?s)word word.*short"):
        method.set_classes(["word " * 30, "short name"])
    with pytest.raises(UserError, match=r"must hold {} once.*no other braces"):
        cls.Config(template="a {kind} of {}")


def test_features_of_a_few_lists_of_classes_are_kept_and_no_more():
    method = tiny_method(methods.get("msta"))
    for number in range(40):
        method.set_classes([f"a{number}", "b"])
        logits(method, tiny_frames())
    assert len(method.class_cache) <= 16
    calls = []
    method.set_classes(["x", "y"])
    for names in (["x", "y"], ["u", "v"], ["x", "y"]):
        method.set_classes(names)
        method.cached("anything", (), lambda: calls.append(1))
    assert len(calls) == 2  # other classes in between do not end it


def test_names_cost_no_torch():
    import subprocess
    import sys

    code = "import sys; from vlmodels import methods; print(methods.names()); assert 'torch' not in sys.modules"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == str(METHODS)


def test_unknown_method_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'msta'"):
        methods.get("mstaa")


def test_a_file_that_breaks_the_rules_is_refused():
    class Wrong(methods.get("zeroshot")):
        pass

    said = methods.broken_rules("my_method", [Wrong])
    assert any("named like its file" in problem for problem in said)
    assert any("docstring" in problem for problem in said)
    assert {part for problem in said for part in ("Config", "paper", "presets") if part in problem} == {
        "Config",
        "paper",
        "presets",
    }
    assert methods.broken_rules("my_method", []) == ["must define one Method, not 0"]


@every_method
def test_glued_names_can_be_written_as_words(cls):
    """UCF-101's names, which published evaluations leave glued; what a class is called stays."""
    glued, said = ("ApplyEyeMakeup", "TaiChi"), ("Apply Eye Makeup", "Tai Chi")
    method, as_published, plain = (
        cls(tiny_backbone(), cls.Config(split_names=split), names)
        for split, names in ((True, glued), (False, glued), (False, said))
    )
    method.set_classes(glued)
    assert method.name_in_text("ApplyEyeMakeup") == "Apply Eye Makeup"
    assert method.name_in_text("riding a bike") == "riding a bike"
    assert tuple(method.classes) == glued
    prompts = [[m.class_prompt(name) for name in names] for m, names in ((method, glued), (plain, said))]
    assert prompts[0] == prompts[1]
    assert as_published.class_prompt("TaiChi") != plain.class_prompt("Tai Chi")
