"""The toy CLIP: its weights load, are small, know every word of the toy world, and see what stills show."""

import pytest
import torch
from torch.nn import functional

from pipelines.toyworld.clips import TOY_DATASETS, draw_clip, toy_classes
from pipelines.toyworld.pretrain import normalise
from pipelines.toyworld.world import toy_descriptions
from vlmodels.errors import UserError
from vlmodels.toy import TOY_CONFIG, TOY_WEIGHTS, build_toy_clip, save_toy_clip, toy_tokenizer, unknown_words


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny products: more threads only wait for each other, longest on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    return build_toy_clip().eval()


def texts_of_the_world() -> set[str]:
    texts = {f"a video of {c.name}." for classes in TOY_DATASETS.values() for c in classes}
    for name in TOY_DATASETS:
        for content in toy_descriptions(name).values():
            texts |= {text for pair in content.values() for text in pair}
    return texts


def test_weights_are_small_and_load(model):
    assert TOY_WEIGHTS.stat().st_size <= 6_000_000
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    assert model.visual.transformer.layers == model.transformer.layers


def test_no_weights_means_random_by_the_callers_seed():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(build_toy_clip(None).visual.proj)
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_every_word_of_the_world_is_known_and_fits_the_context():
    tokenizer, longest = toy_tokenizer(), TOY_CONFIG["text_cfg"]["context_length"]
    for text in texts_of_the_world():
        assert unknown_words(text) == []
        assert len(tokenizer.encode(text)) + 2 <= longest


def test_unknown_words_are_named_once_in_order():
    assert unknown_words("a zebra juggling a Zebra on the grass?") == ["zebra", "juggling", "?"]


def test_saved_weights_come_back(tmp_path):
    torch.manual_seed(0)
    model = build_toy_clip(None).eval()
    ids = toy_tokenizer()(["a ball"]).unique().tolist()
    save_toy_clip(model, tmp_path / "w.safetensors", token_ids=ids, recipe={"seed": 0})
    again = build_toy_clip(tmp_path / "w.safetensors").eval()
    tokens = toy_tokenizer()(["a ball"])
    with torch.no_grad():
        assert torch.allclose(again.encode_text(tokens), model.encode_text(tokens), atol=0.02)
    assert not again.token_embedding.weight[sorted(set(range(1000)) - set(ids))].any()


@pytest.mark.parametrize("content", [None, b"", b"not weights"])
def test_bad_weight_files_are_named(tmp_path, content):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        build_toy_clip(path)


def test_a_file_without_token_ids_says_what_it_lacks(tmp_path):
    from safetensors.torch import load_file, save_file

    for metadata in (None, {"recipe": "{}"}):
        save_file(load_file(TOY_WEIGHTS), tmp_path / "w.safetensors", metadata=metadata)
        with pytest.raises(UserError, match=r"its metadata lacks 'token_ids', the words of its token table; remake"):
            build_toy_clip(tmp_path / "w.safetensors")


def test_weights_of_another_shape_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(TOY_WEIGHTS)
    rows = state["token_embedding.weight"].shape[0]
    state["visual.proj"] = state["visual.proj"][:, :64].contiguous()
    save_file(state, tmp_path / "w.safetensors", metadata={"token_ids": str(list(range(rows)))})
    with pytest.raises(UserError, match="does not hold the toy CLIP's tensors"):
        build_toy_clip(tmp_path / "w.safetensors")


@torch.no_grad()
def zero_shot(model, name: str, clips_per_class: int) -> float:
    """Share of freshly drawn clips whose class the toy CLIP names, from the mean of 8 frame features."""
    classes = toy_classes(name)[::2]
    text = model.encode_text(toy_tokenizer()([f"a video of {c.name}." for c in classes]), normalize=True)
    right = 0
    for label, toy_class in enumerate(classes):
        for number in range(clips_per_class):
            frames = draw_clip(toy_class, f"zero-shot test/{number}", side=48)[1::3]
            feature = functional.normalize(model.encode_image(normalise(frames)).mean(0), dim=-1)
            right += int((text @ feature).argmax()) == label
    return right / clips_per_class / len(classes)


def test_appearance_is_seen_and_motion_is_not(model):
    assert zero_shot(model, "toy-ucf", 2) > 0.3  # chance: 1 in 20
    assert zero_shot(model, "toy-ssv2", 3) < 0.3  # chance: 1 in 15
