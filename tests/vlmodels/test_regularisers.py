"""FROSTER's and TACO's losses: their equations, what learns by them, and what they leave alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import distributed
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_frames, tiny_method
from vlmodels import methods
from vlmodels.checkpoint import load_adapter, save_adapter
from vlmodels.errors import UserError

LEARNING = [name for name in methods.names() if methods.get(name).features_learn]
LABELS = torch.tensor([0, 1])


def build(name, regularise, family="clip", **settings):
    cls = methods.get(name)
    return tiny_method(cls, cls.Config(regularise=regularise, **settings), family=family)


def takes(name, regularise):
    try:
        build(name, regularise)
    except UserError:
        return False
    return True


PAIRS = [(name, loss) for name in LEARNING for loss in ("froster", "taco") if takes(name, loss)]
every_pair = pytest.mark.parametrize(("name", "loss"), PAIRS)
small = pytest.mark.parametrize("family", ["clip", "viclip", "siglip"])


def step(method, call=None):
    frames = tiny_frames()
    return method.training_losses((call or method)(frames, LABELS), LABELS)


def test_every_method_whose_features_learn_takes_froster_and_all_with_text_scores_take_taco():
    assert {name for name, loss in PAIRS if loss == "froster"} == set(LEARNING)
    assert {name for name, loss in PAIRS if loss == "taco"} == set(LEARNING) - {"m2clip"}
    assert set(methods.names()) - set(LEARNING) == {"zeroshot", "linear"}
    for name in ("zeroshot", "linear"):
        with pytest.raises(UserError, match=r"do not learn.*regularise=none"):
            build(name, "froster")
    with pytest.raises(UserError, match=r"trains a classifier.*method\.regularise=froster"):
        build("m2clip", "taco")
    for name in ("aim", "st_adapter", "omniclip"):
        with pytest.raises(UserError, match="trains a classifier"):
            build(name, "taco", head="linear")
        assert step(build(name, "froster", head="linear").train())["froster"].isfinite()


@every_pair
@small
def test_gradients_reach_all_that_trains_and_nothing_else(name, loss, family):
    method = disturb(build(name, loss, family)).train()
    terms = step(method)
    assert terms[loss] > 0
    sum(terms.values()).backward()
    for key, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
    assert any(p.grad.abs().sum() > 0 for p in method.regulariser.parameters())


@every_pair
def test_scores_are_those_without(name, loss):
    """A regulariser draws its numbers after the method, and is not part of what is scored."""
    with_loss, without = build(name, loss).eval(), build(name, "none").eval()
    disturb(with_loss)
    without.load_state_dict(
        {k: v for k, v in with_loss.state_dict().items() if not k.startswith("regulariser.")}, strict=True
    )
    found = with_loss(tiny_frames(), LABELS)
    assert torch.equal(found.logits, without(tiny_frames(), LABELS).logits)
    assert torch.equal(found.video, without(tiny_frames(), LABELS).video)
    assert loss not in found.extra


@every_pair
@small
def test_trains_under_ddp_with_no_parameter_unused(name, loss, family, tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        method = build(name, loss, family).train()
        parallel = DistributedDataParallel(method, broadcast_buffers=False)
        for _ in range(2):
            terms = step(method, parallel)
            sum(terms.values()).backward()
            method.after_step()
    finally:
        distributed.destroy_process_group()
    assert torch.stack(list(terms.values())).isfinite().all()


@every_pair
def test_an_adapter_file_has_all_that_a_resumed_run_needs(name, loss, tmp_path):
    method = disturb(build(name, loss))
    method.after_step()
    save_adapter(tmp_path, method, classes=CLASSES)
    loaded = load_adapter(tmp_path, tiny_backbone()).method
    assert loaded.config == method.config
    for key, value in method.adapter_state_dict().items():
        assert torch.equal(loaded.adapter_state_dict()[key], value), key


@pytest.mark.parametrize("name", ["msta", "finetune", "viltclip"])
def test_froster_is_the_distance_of_projected_features_to_the_frozen_ones(name):
    method = disturb(build(name, "froster")).train()
    plain = tiny_method(methods.get("zeroshot"), methods.get("zeroshot").Config(template=method.config.template))
    torch.manual_seed(0)
    terms = step(method)
    torch.manual_seed(0)  # dropout
    out = method(tiny_frames(), LABELS)
    frozen = plain(tiny_frames())

    def term(projection, z, teacher):
        first, second = projection[0].weight, projection[2].weight
        moved = z + 0.1 * functional.gelu(z @ first.T) @ second.T
        return 1 - (moved / moved.norm(dim=-1, keepdim=True) * teacher).sum(-1).mean()

    expected = term(method.regulariser.video, out.video, frozen.video)
    expected = expected + term(method.regulariser.text, out.text, frozen.text)
    assert terms["froster"].item() == pytest.approx(2.0 * expected.item(), rel=1e-4)


def test_froster_starts_at_the_distance_of_the_features_themselves():
    method = build("msta", "froster", dropout=0.0).train()
    plain = tiny_method(methods.get("zeroshot"))
    out, frozen = method(tiny_frames(), LABELS), plain(tiny_frames())
    apart = 2 - (out.video * frozen.video).sum(-1).mean() - (out.text * frozen.text).sum(-1).mean()
    assert out.extra["froster"].item() == pytest.approx(2 * apart.item(), rel=1e-4)
    assert apart > 1e-4


@pytest.mark.parametrize("momentum", [0.9, 1.0])
def test_taco_is_the_divergence_of_relations_by_way_of_anchors(momentum):
    method = disturb(build("adaptformer", "taco", taco_momentum=momentum, taco_anchors=7, dropout=0.0), scale=0.3)
    plain = tiny_method(methods.get("zeroshot")) if momentum == 1 else build("adaptformer", "none", dropout=0.0)
    with torch.no_grad():
        own, teacher = method.eval()(tiny_frames()), plain.eval()(tiny_frames())
    torch.manual_seed(5)
    anchors = torch.randn(7, 40)
    anchors = anchors / anchors.norm(dim=-1, keepdim=True)
    torch.manual_seed(5)
    out = method.train()(tiny_frames(), LABELS)
    first, second = method.regulariser.projection
    video = own.video + (own.video @ first.weight.T + first.bias) @ second.weight.T + second.bias
    video = video / video.norm(dim=-1, keepdim=True)
    scale = method.backbone.logit_scale
    assert torch.allclose(out.logits, scale * video @ own.text.T, atol=1e-4)

    def p(v, t):
        return (scale * (v @ anchors.T) @ (anchors @ t.T)).softmax(-1)

    theirs, mine = p(teacher.video, teacher.text), p(video, own.text)
    expected = 0.4 * (theirs * (theirs / mine).log()).sum() / 2
    assert out.extra["taco"].item() == pytest.approx(expected.item(), rel=1e-3)
    assert method.training


def test_tacos_teacher_follows_by_its_momentum():
    method = build("adaptformer", "taco", taco_momentum=0.75)
    start = [value.clone() for value in method.regulariser.teacher.average.values()]
    disturb(method)
    trained = [p for n, p in method.named_parameters() if p.requires_grad and not n.startswith("regulariser.")]
    method.after_step()
    for before, after, now in zip(start, method.regulariser.teacher.average.values(), trained, strict=True):
        assert torch.allclose(after, 0.75 * before + 0.25 * now, atol=1e-6)


@pytest.mark.parametrize("loss", ["froster", "taco"])
def test_full_tuning_keeps_the_backbone_that_it_started_from(loss):
    method = build("finetune", loss, taco_momentum=1.0).train()
    plain = tiny_method(methods.get("zeroshot"))
    disturb(method)
    weights = {k: v.clone() for k, v in method.state_dict().items()}
    video, text = method.regulariser.teacher(method, tiny_frames())
    assert torch.allclose(video, plain(tiny_frames()).video, atol=1e-6)
    assert torch.allclose(text, plain(tiny_frames()).text, atol=1e-6)
    assert all(torch.equal(v, weights[k]) for k, v in method.state_dict().items())


@pytest.mark.parametrize("loss", ["froster", "taco"])
def test_under_autocast_student_and_teacher_have_their_own_weights(loss):
    """Autocast keeps bf16 copies of parameters, which must not pass from one to the other."""
    method = disturb(build("finetune", loss), scale=0.05).train()
    twin = copy.deepcopy(method)
    full = step(twin)
    with torch.autocast("cpu", torch.bfloat16):
        half = step(method)
        again = method(tiny_frames(), LABELS)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            fresh = method(tiny_frames(), LABELS)
    assert torch.allclose(again.logits, fresh.logits, atol=1e-2)
    assert half["ce"].item() == pytest.approx(full["ce"].item(), rel=0.05)


def test_captions_are_refused():
    assert any("method.regularise=none" in said for said in build("adaptformer", "taco").retrieval_problems())
    assert not build("adaptformer", "none").retrieval_problems()


@pytest.mark.parametrize(
    "settings", [{"froster_weight": 0.0}, {"taco_weight": 0.0}, {"taco_momentum": 1.1}, {"taco_anchors": 0}]
)
def test_values_out_of_range_are_named(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        methods.get("adaptformer").Config(**settings)
