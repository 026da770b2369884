from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import vlmodels
from tests.helpers.tiny_clip import CLASSES, disturb
from tests.helpers.videofiles import numbers, write_video
from vlmodels.checkpoint import ADAPTER, about_adapter, load_tensors, save_adapter, save_tensors
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.msta import MSTA
from vlmodels.methods.zeroshot import ZeroShot
from vlmodels.predictor import Predictor, load
from vlmodels.preprocess import eval_views
from vlmodels.span import Span


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    method = disturb(MSTA(create("toy", weights="toy", num_frames=4), MSTA.Config(dims=8, scale=0.1)))
    method.set_classes(CLASSES)
    save_adapter(folder, method)
    return folder


def frames(count=10, height=90, width=120):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_probabilities_of_all_classes_best_first(run):
    found = load(run)(frames(), topk=9)
    assert {p.label for p in found} == set(CLASSES)
    assert sum(p.probability for p in found) == pytest.approx(1, abs=1e-5)
    assert [p.probability for p in found] == sorted((p.probability for p in found), reverse=True)
    assert load(run)(frames(), topk=1) == found[:1]


def test_other_labels_need_no_other_model(run):
    predictor = load(run)
    trained = predictor(frames())
    other = predictor(torch.from_numpy(frames()), labels=["walking a dog", "flying"])
    assert {p.label for p in other} == {"walking a dog", "flying"}
    assert predictor(frames()) == trained
    with pytest.raises(UserError, match="at least 2"):
        predictor(frames(), labels=["one"])


def test_views_are_averaged_after_the_softmax(run):
    predictor = load(run, clips=2, crops=3)
    clip = frames(8, 56, 70)  # already of the stored size
    clip[1::2] = 0
    clip[:, :, 40:] //= 4
    method, places = predictor.method, ([0, 2, 4, 6], [1, 3, 5, 7])
    views = torch.cat([eval_views(torch.from_numpy(clip[p])[None], method.backbone.spec, crops=3) for p in places])
    with torch.no_grad():
        logits = method(views).logits
    found = {p.label: p.probability for p in predictor(clip)}
    scores = [found[name] for name in CLASSES]
    assert scores == pytest.approx(logits.softmax(-1).mean(0).tolist(), abs=2e-6)
    assert scores != pytest.approx(logits.mean(0).softmax(-1).tolist(), abs=1e-5)


def test_a_file_and_its_frames_are_the_same(run, tmp_path):
    import av

    path = tmp_path / "my video #1.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.options = 128, 96, "yuv444p", {"qp": "0"}
        for image in np.repeat(frames(5, 96, 128), 2, axis=0):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    predictor = load(run)
    from_file = {p.label: p.probability for p in predictor(path)}
    from_frames = {p.label: p.probability for p in predictor(np.repeat(frames(5, 96, 128), 2, axis=0))}
    assert from_file == pytest.approx(from_frames, abs=0.05)
    with pytest.raises(UserError, match=r"nothing\.mp4"):
        predictor(tmp_path / "nothing.mp4")


@pytest.mark.parametrize("wrong", [frames().astype(np.float32), frames()[0], frames()[:0], frames()[..., :1]])
def test_frames_of_another_kind_are_refused(run, wrong):
    with pytest.raises(UserError, match=r"frames must be uint8 \(frames, H, W, 3\)"):
        load(run)(wrong)


def test_a_folder_without_an_adapter(tmp_path):
    with pytest.raises(UserError, match=r"no adapter\.safetensors in"):
        load(tmp_path)
    with pytest.raises(UserError, match="models:/NAME@ALIAS"):
        load(tmp_path / "missing")


@pytest.mark.parametrize("name", ["loop", "X" * 300])
def test_a_folder_with_a_name_that_none_can_have(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="there is no"):
        load(tmp_path / name)


def test_from_the_registry(run, tmp_path):
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri), mlflow.set_registry_uri(uri)
    try:
        client = mlflow.MlflowClient()
        client.create_registered_model("some")
        version = client.create_model_version("some", source=str(run))
        client.set_registered_model_alias("some", "champion", version.version)
        assert load("models:/some@champion")(frames()) == load(run)(frames())
        with pytest.raises(UserError, match="models:/some@nobody cannot be loaded from the registry at sqlite"):
            load("models:/some@nobody")
        nowhere = f"sqlite:///{tmp_path}/none.db"
        mlflow.set_tracking_uri(nowhere), mlflow.set_registry_uri(nowhere)
        with pytest.raises(UserError, match=r"no registry at .*none\.db; set MLFLOW_TRACKING_URI"):
            load("models:/some@champion")
        assert not (tmp_path / "none.db").exists()
    finally:
        mlflow.set_tracking_uri(before[0]), mlflow.set_registry_uri(before[1])


def test_the_package_is_lazy_and_pure():
    code = """
import sys, vlmodels
assert "torch" not in sys.modules
assert vlmodels.list_methods() and "torch" not in sys.modules
vlmodels.load, vlmodels.create, vlmodels.Predictor, vlmodels.get_method("msta")
heavy = {"ray", "mlflow", "openai", "pipelines"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vlmodels.nothing  # noqa: B018 - the access is the test


def test_predictor_keeps_to_its_device_and_mode(run):
    predictor = Predictor.from_run(run)
    assert not predictor.method.training
    assert predictor.classes == CLASSES


def test_a_model_without_classes_asks_for_some(tmp_path):
    save_adapter(tmp_path, ZeroShot(create("toy", weights="toy", num_frames=4), ZeroShot.Config()))
    with pytest.raises(UserError, match=r"no classes of its own; .*--labels"):
        load(tmp_path)(tmp_path / "a.mp4")


def test_labels_are_a_list(run):
    with pytest.raises(UserError, match="must be a list of class names, not the text 'clapping'"):
        load(run)(frames(), labels="clapping")


@pytest.fixture
def scored(run, tmp_path):
    """A copy of the run with what says how it was scored."""

    def copy(**files):
        folder = shutil.copytree(run, tmp_path / "scored", dirs_exist_ok=True)
        for name, content in files.items():
            (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return folder

    return copy


def seen(predictor):
    return predictor.clips, predictor.crops, predictor.sampling, predictor.stride


def test_a_run_predicts_with_the_views_it_was_scored_with(run, scored):
    assert seen(load(run)) == (1, 1, "segments", 16)
    folder = scored(config={"data": {"dir": "x", "clips": 2, "crops": 3}})
    assert seen(load(folder)) == (2, 3, "segments", 16)
    assert load(folder)(frames()) == load(run, clips=2, crops=3)(frames()) != load(run)(frames())
    dense = {"frames": 4, "clips": 3, "crops": 4, "sampling": "dense", "stride": 2}
    folder = scored(run={"scoring": dense})
    assert seen(Predictor.from_run(folder)) == (3, 4, "dense", 2)
    assert seen(load(folder, clips=1, sampling="segments")) == (1, 4, "segments", 2)
    folder = scored(run={"scoring": {**dense, "sampling": "segments", "stride": 0}})
    assert seen(load(folder)) == (3, 4, "segments", 16)
    with pytest.raises(UserError, match=r"config\.json is damaged .*; copy the run again"):
        load(scored(config="{"))


@pytest.mark.parametrize("wrong", [{"clips": 0}, {"crops": 2}, {"sampling": "dence"}, {"stride": 0}])
def test_view_settings_that_do_not_exist_are_refused(run, wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(UserError, match=f"{name}={value}.*crops one of 1, 3, 4, and sampling is segments or dense"):
        load(run, **wrong)


def test_dense_views_of_frames_and_of_a_file(run, tmp_path):
    predictor = load(run, clips=3, crops=4, sampling="dense", stride=3)
    clip = frames(21, 56, 70)  # already of the stored size; room for starts 0, 6 (5.5), 11
    views = predictor.read_views(clip)
    for view, start in zip(views, (0, 6, 11), strict=True):
        assert np.array_equal(view, clip[start : start + 10 : 3])
    path = write_video(tmp_path / "a.mp4", frames=21)
    assert [numbers(view) for view in predictor.read_views(path)] == [[s, s + 3, s + 6, s + 9] for s in (0, 6, 11)]
    probabilities = [p.probability for p in predictor(path, topk=9)]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "content",
    [{"scoring": [1]}, {"scoring": {"clips": "2"}}, {"scoring": {"clips": 10**30}}, {"scoring": {"crops": -1}},
     {"scoring": {"sampling": 3}}, {"scoring": "x"}],
)  # fmt: skip
def test_damaged_views_are_one_line(run, tmp_path, content):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="views are damaged"):
        load(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="is damaged"):
        load(tmp_path / "run")


@pytest.mark.parametrize("scoring", [{"clips": 10_000, "crops": 3}, {"clips": 1000, "crops": 3}, {"clips": 1025}])
def test_views_of_more_frames_than_the_memory_holds_are_refused(run, scored, scoring):
    with pytest.raises(UserError, match=r"scored: .* frames ask for \d+ frames of each video, over the limit of 4096"):
        load(scored(run={"scoring": scoring}))
    assert load(run, clips=1024).clips == 1024


def test_many_views_are_scored_in_parts(run):
    predictor, pictures = load(run, clips=300), torch.from_numpy(frames(8, 56, 70))  # 1,200 frames: in two parts
    with torch.no_grad():
        views = eval_views(torch.from_numpy(predictor.read_views(pictures)), predictor.method.backbone.spec)
        whole = predictor.method(views).logits.softmax(-1).mean(0)
    found = {p.label: p.probability for p in predictor(pictures)}
    assert [found[name] for name in CLASSES] == pytest.approx(whole.tolist(), abs=1e-6)


@pytest.mark.parametrize("damage", ["scale", "tensors"])
def test_scores_that_are_not_finite_are_an_error(run, tmp_path, damage):
    path = tmp_path / ADAPTER
    facts = json.loads(about_adapter((run / ADAPTER).read_bytes()).to_json())
    tensors = load_tensors(run / ADAPTER)
    if damage == "scale":
        facts["config"]["scale"] = 1e308
    else:  # of an earlier version, which kept no digest
        del facts["tensors"]
        tensors = {name: torch.full_like(tensor, 3e38) for name, tensor in tensors.items()}
    save_tensors(path, tensors, {"vidadapt": json.dumps(facts)})
    with pytest.raises(UserError, match="the scores are not finite; the adapter is damaged"):
        load(tmp_path)(frames())


def test_labels_that_would_garble_the_answer_are_refused(run):
    for name in ("walk\n  99.0 %  run", "\x1b[2J", "\ud800", "a\u202eb"):
        with pytest.raises(UserError, match=r"class name .* holds the character U\+"):
            load(run)(frames(), labels=["walking", name])
    assert load(run)(frames(), labels=["走る", "naïve 🏃‍♀️"], topk=1)


def test_a_part_of_a_video_is_predicted_as_its_frames(run, tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=100, options={"qp": "0"})
    predictor = load(run)
    assert numbers(predictor.read_views(path, Span(1, 3))[0]) == [31, 43, 56, 68]
    assert predictor(path, start=1, end=3) != predictor(path)
    assert (predictor.read_views(path, Span(3)) == predictor.read_views(path, Span(3, 4))).all()
    with pytest.raises(UserError, match="times after the video's end"):
        predictor(path, end=9)
    with pytest.raises(UserError, match="is not after its start"):
        predictor(path, start=3, end=2)
    with pytest.raises(UserError, match="frames have no times"):
        predictor(frames(), start=1)


def test_a_folder_of_pictures_is_predicted_like_its_frames(run, tmp_path):
    for number, frame in enumerate(frames(12)):
        Image.fromarray(frame).save(tmp_path / f"{number + 1}.png")
    predictor = load(run)
    assert predictor(tmp_path) == predictor(frames(12))
    assert predictor(tmp_path, start=0.5, fps=10) == predictor(frames(12)[5:])


def test_a_run_with_a_decision_may_answer_none_of_these(run, tmp_path):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    plain = load(run)(frames())
    (tmp_path / "run.json").write_text(json.dumps({"decision": {"temperature": 3.0, "threshold": 0.99}}))
    answer = load(tmp_path).ask(frames())
    assert answer.none_of_these
    assert list(answer.predictions) == load(tmp_path)(frames())
    assert answer.predictions[0].probability < plain[0].probability  # one view: flatter, in the same order
    assert [p.label for p in answer.predictions] == [p.label for p in plain]
    assert not load(tmp_path).ask(frames(), labels=["walking a dog", "flying"]).none_of_these, "not chosen for these"
    assert not load(run).ask(frames()).none_of_these


def test_the_temperature_divides_the_logits_of_each_view(run, tmp_path):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    (tmp_path / "run.json").write_text(json.dumps({"decision": {"temperature": 3.0}}))
    predictor = load(tmp_path, clips=2)
    views = predictor.read_views(frames())
    with torch.no_grad():
        logits = torch.cat(
            [predictor.method(eval_views(torch.from_numpy(views), predictor.method.backbone.spec)).logits]
        )
    expected = (logits / 3).softmax(-1).mean(0)
    assert predictor.score([views]).probabilities[0] == pytest.approx(expected.numpy(), abs=2e-6)
