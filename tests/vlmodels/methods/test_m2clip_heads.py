"""M2-CLIP's four heads, choice by choice: masked words, losses, and what scores the classes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.helpers.tiny_clip import CLASSES, disturb, tiny_frames, tiny_method, train
from vlmodels.errors import UserError
from vlmodels.methods.m2clip import M2CLIP, pair_loss

Config = M2CLIP.Config
SMALL = {"dims": 16, "text_dims": 12}
LABELS = torch.tensor([0, 1])


def small(joint=False, **config):
    return disturb(tiny_method(M2CLIP, Config(**SMALL | config), joint=joint))


def loss(method, labels=LABELS):
    return method.losses(method.train()(tiny_frames(), labels), labels)


# ------------------------------------------------------------------------------------------------- masked words


def masked_word_logits(method, states, frames):
    return method.words(states, frames, method.backbone.block("text", 3), method.backbone.text_norm)


@torch.no_grad()
@pytest.mark.parametrize("site", ["pre_mlp", "both"])
def test_cross_modal_block_is_the_equation_on_the_frozen_weights(site):
    """Eq. 12 written out with the last text block's own weights, head by head."""
    method, states, frames = small(text_site=site), torch.randn(2, 5, 48), torch.randn(2, 3, 48)
    block, words = method.backbone.model.transformer.resblocks[-1], method.words
    z = words.adapter["pre_attn"](states) if site == "both" else states
    weights, biases = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
    q, k, v = (block.ln_1(x) @ w.T + b for x, w, b in zip((z, frames, frames), weights, biases, strict=True))
    mixed = torch.cat(
        [
            (q[..., i : i + 16] @ k[..., i : i + 16].mT / 4).softmax(-1) @ v[..., i : i + 16]
            for i in range(0, 48, 16)  # heads of 16
        ],
        dim=-1,
    )
    star = words.adapter["pre_mlp"](z + block.attn.out_proj(mixed))
    found = method.backbone.text_norm(star + block.mlp(block.ln_2(star)))
    expected = words.head[3](
        functional.layer_norm(functional.gelu(words.head[0](found)), (48,), *affine(words.head[2]))
    )
    assert torch.allclose(masked_word_logits(method, states, frames), expected, atol=1e-4)


def affine(norm):
    return norm.weight, norm.bias


@torch.no_grad()
def test_every_word_sees_every_frame_and_no_other_word():
    method, states, frames = small(), torch.randn(2, 5, 48), torch.randn(2, 3, 40)  # 40: the tiny joint space
    before = masked_word_logits(method, states, frames)
    moved = frames.clone()
    moved[:, -1] += 1
    assert (masked_word_logits(method, states, moved) != before).any(-1).all()
    other = states.clone()
    other[:, 3] += torch.randn(48)
    changed = (masked_word_logits(method, other, frames) != before).any(-1)
    assert changed.tolist() == [[False, False, False, True, False]] * 2


def test_its_adapter_starts_as_the_last_blocks_and_goes_its_own_way():
    method = tiny_method(M2CLIP, Config(**SMALL, text_layers=2))
    last, own = method.text_adapter["3"].state_dict(), method.words.adapter.state_dict()
    assert all(torch.equal(last[name], own[name]) for name in last)
    assert not torch.equal(method.text_adapter["2"]["pre_mlp"].up.weight, own["pre_mlp.up.weight"])
    train(method, 3)
    assert not torch.equal(method.text_adapter["3"]["pre_mlp"].up.weight, method.words.adapter["pre_mlp"].up.weight)
    alone = tiny_method(M2CLIP, Config(**SMALL, text_layers=0))
    assert alone.words.adapter["pre_mlp"].up.weight.any()


def test_head_has_a_row_per_word_or_as_many_as_asked():
    assert small().words.head[3].out_features == 8  # a video of riding bike drinking tea jump
    assert small(vocabulary=20).words.head[3].out_features == 20
    assert small(vocabulary=2).words.head[3].out_features == 8


def test_words_are_masked_in_training_only():
    method = small()
    assert "word_logits" not in method.eval()(tiny_frames(), LABELS).extra
    out = method.train()(tiny_frames(), LABELS)
    assert out.extra["word_logits"].shape == (*out.extra["word_labels"].shape, 8)
    assert (out.extra["word_labels"] >= 0).sum(dim=-1).tolist() == [1, 1]


# ------------------------------------------------------------------------------------------------ losses, scores


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_contrastive_targets_share_their_mass_among_a_class(kind):
    """Three pairs of which two are of one class, by hand."""
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.5, 2.0, 1.0], [2.0, 0.0, 1.0]])
    labels = torch.tensor([4, 2, 4])
    e10 = torch.tensor(10.0).exp()
    target = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    q = torch.where(target > 0, e10, 1.0)
    q = q / q.sum(dim=1, keepdim=True)
    by_hand = [(q * (q.log() - (s.exp() / s.exp().sum(1, keepdim=True)).log())).sum() / 3 for s in (logits, logits.T)]
    given = labels if kind == "hard" else functional.one_hot(labels, 5).float()
    assert torch.allclose(pair_loss(logits, given, 5), 0.5 * (by_hand[0] + by_hand[1]))


def test_soft_labels_give_pairs_the_product_of_their_rows():
    rows, logits = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6]]), torch.randn(2, 2)
    target = (10 * torch.tensor([[0.58, 0.12], [0.12, 0.52]])).softmax(-1)
    halves = [functional.kl_div(s.log_softmax(-1), target, reduction="batchmean") for s in (logits, logits.T)]
    assert torch.allclose(pair_loss(logits, rows, 3), sum(halves) / 2, atol=1e-6)


def test_classes_are_compared_by_one_softmax_or_the_releases_two():
    perfect = torch.full((4, 400), -100.0)
    labels = torch.arange(4)
    perfect[labels, labels] = 100.0
    for double, floor in ((False, 0.0), (True, 4.996)):
        method = tiny_method(M2CLIP, Config(**SMALL, cmc_double_softmax=double, contrastive=0, cmlm=0.0, vc=1.0))
        out = method.eval()(tiny_frames())._replace(extra={"text_logits": perfect, "class_logits": perfect})
        assert method.losses(out, labels)["cmc"].item() == pytest.approx(0.5 * floor, abs=1e-3)


def test_total_is_the_weighted_sum_and_heads_of_weight_0_are_not_built():
    method = small()
    out = method.train()(tiny_frames(), LABELS)
    terms = method.losses(out, LABELS)
    assert list(terms) == ["contrastive", "cmc", "cmlm", "vc"]
    assert torch.allclose(terms["vc"], functional.cross_entropy(out.extra["class_logits"], LABELS))
    assert torch.allclose(terms["cmc"], 0.5 * functional.cross_entropy(out.extra["text_logits"], LABELS))
    assert torch.allclose(terms["contrastive"], 0.5 * pair_loss(out.extra["pair_logits"], LABELS, 3))
    words, targets = out.extra["word_logits"], out.extra["word_labels"]
    assert torch.allclose(terms["cmlm"], 0.1 * functional.cross_entropy(words.flatten(0, 1), targets.flatten()))
    bare = small(cmc=0.0, cmlm=0.0, vc=0.0, score_mode="text")
    assert list(loss(bare)) == ["contrastive"]
    assert bare.words is bare.classifier is None


@pytest.mark.parametrize(
    "changes",
    [
        {"cmc": 0.0, "cmlm": 0.0, "vc": 0.0, "score_mode": "text"},
        {"contrastive": 0.0, "cmlm": 0.0},
        {"cmc": 0.0, "mlm_shared_pass": True},
        {"ted": "td", "site": "pre_attn", "layers": "2"},
        {"text_layers": 0, "frame_adapter": False, "vc_input": "embed"},
        {"text_site": "both", "ted": "sequential", "site": "both"},
    ],
)
def test_every_parameter_takes_part_whatever_is_left_out(changes):
    method = small(**changes)
    sum(loss(method).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.trainable_parameters())


def test_pairs_read_clean_prompts_or_the_masked_ones():
    def pairs(shared):
        method = small(mlm_shared_pass=shared)
        torch.manual_seed(0)
        first, second = (method.train()(tiny_frames(), torch.tensor([2, 0])).extra for _ in range(2))
        return first["text_logits"][:, [2, 0]], first["pair_logits"], second["pair_logits"]

    clean, first, second = pairs(shared=False)
    assert torch.equal(first, clean)
    assert torch.equal(second, clean)
    clean, first, _ = pairs(shared=True)
    assert not torch.allclose(first, clean, atol=1e-3)


def test_soft_labels_pair_a_clip_with_its_likeliest_class():
    extra = small().train()(tiny_frames(), torch.tensor([[0.1, 0.3, 0.6], [0.0, 0.7, 0.3]])).extra
    assert torch.equal(extra["pair_logits"], extra["text_logits"][:, [2, 1]])


def test_soft_labels_and_bf16_train():
    method, labels = small(), torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.3, 0.7]])
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(method, labels)
    sum(terms.values()).backward()
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert all(p.grad.isfinite().all() for p in method.trainable_parameters())


@torch.no_grad()
def test_the_classifier_scores_what_it_knows_and_texts_the_rest():
    method, frames = small().eval(), tiny_frames()
    out = method(frames)
    assert torch.allclose(out.logits.softmax(-1), out.extra["class_logits"].softmax(-1), atol=1e-6)
    assert not torch.allclose(out.logits, out.extra["text_logits"], atol=0.1)
    assert torch.equal(small(score_mode="text").eval()(frames).logits, out.extra["text_logits"])
    method.set_classes([*CLASSES, "flying a kite"])
    other = method(frames)
    assert torch.allclose(other.logits[:, :3], out.logits, atol=1e-4)
    assert torch.allclose(other.logits[:, 3], other.extra["text_logits"][:, 3])
    method.set_classes(["flying a kite", "surfing"])
    novel = method(frames)
    assert torch.equal(novel.logits, novel.extra["text_logits"])
    with pytest.raises(UserError, match="built for, not on flying a kite"):
        method.train()(frames, LABELS)


@torch.no_grad()
@pytest.mark.parametrize("vc_input", ["cls", "embed"])
def test_the_classifier_reads_class_tokens_or_the_joint_space(vc_input):
    method, frames = small(vc_input=vc_input).eval(), tiny_frames()
    read = []
    method.classifier.linear.register_forward_hook(lambda _m, args, _o: read.append(args[0]))
    method(frames)
    cls = method.backbone.encode_video(frames).tokens.prefix[:, :, 0].mean(dim=1)
    if vc_input == "cls":
        assert torch.equal(read[0], method.backbone.video_norm(cls))
    else:
        assert torch.equal(functional.normalize(read[0], dim=-1), method.encode_video(frames))
    method.train()(frames, LABELS)
    assert 0.2 < (read[-1] == 0).float().mean() < 0.8  # dropout of a half
