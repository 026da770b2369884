"""The papers' views as data: what is printed, what is assumed, and whether a scoring is the paper's."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from pipelines.ingestion.decode import DecodeSettings
from pipelines.protocols.paper_views import PAPER_OF, PAPERS, PROTOCOLS, Views, fits, note, views
from pipelines.shards.views import view_positions
from vlmodels import methods
from vlmodels.errors import UserError
from vlmodels.preprocess import CROPS

REPORTED = [(paper, protocol) for paper in PAPERS for protocol in PROTOCOLS if protocol != "retrieval"]
REPORTED.append(("viltclip", "retrieval"))
PRESETS = {
    "zero_shot": "zeroshot",
    "few_shot": "fewshot",
    "b2n": "b2n",
    "supervised": "full",
    "retrieval": "retrieval",
}


def numbers(found):
    return found.frames, found.clips, found.crops


@pytest.mark.parametrize(
    ("paper", "protocol", "dataset", "expected"),
    [
        ("msta", "zero_shot", "k600", (8, 1, 1)),
        ("msta", "few_shot", "", (8, 4, 3)),
        ("msta", "few_shot", "hmdb51", (8, 10, 3)),
        ("msta", "b2n", "ucf101", (8, 5, 3)),
        ("msta", "b2n", "ssv2", (8, 2, 3)),
        ("msta", "b2n", "k400", (8, 4, 3)),
        ("msta", "supervised", "k400", (8, 4, 3)),
        ("m2clip", "supervised", "k400", (8, 3, 4)),
        ("m2clip", "supervised", "ssv2", (8, 1, 3)),
        ("m2clip", "zero_shot", "hmdb51", (8, 3, 4)),
        ("viltclip", "zero_shot", "ucf101", (32, 1, 1)),
        ("viltclip", "few_shot", "ssv2", (32, 1, 1)),
        ("viltclip", "b2n", "", (32, 1, 1)),
        ("viltclip", "supervised", "k400", (16, 4, 3)),
        ("viltclip", "retrieval", "msrvtt", (12, 1, 1)),
        ("omniclip", "zero_shot", "", (32, 1, 1)),
        ("omniclip", "few_shot", "hmdb51", (32, 1, 1)),
        ("omniclip", "supervised", "ssv2", (8, 4, 3)),
        ("vificlip", "zero_shot", "hmdb51", (32, 1, 1)),
        ("vificlip", "few_shot", "", (32, 1, 1)),
        ("vificlip", "b2n", "", (32, 1, 1)),
        ("vificlip", "supervised", "k400", (16, 4, 3)),
    ],
)
def test_what_the_papers_say(paper, protocol, dataset, expected):
    found = views(paper, protocol, dataset)
    assert numbers(found) == expected
    assert (found.paper, found.protocol) == (paper, protocol)


def test_only_m2clip_samples_densely_and_not_on_ssv2():
    for paper, protocol in REPORTED:
        for dataset in ("", "ssv2"):
            found = views(paper, protocol, dataset)
            dense = paper == "m2clip" and (dataset != "ssv2" or protocol == "zero_shot")
            assert (found.sampling, found.stride) == (("dense", 16) if dense else ("segments", 0))


@pytest.mark.parametrize(("paper", "protocol"), REPORTED)
def test_what_is_not_printed_is_said_and_every_view_can_be_ingested(paper, protocol):
    for dataset in ("", "hmdb51", "ucf101", "ssv2", "k400", "mine"):
        found = views(paper, protocol, dataset)
        assert found.source or found.assumed
        assert found.crops in CROPS
        stride = found.stride or 16
        settings = DecodeSettings(frames=found.frames, pool=found.clips, sampling=found.sampling, stride=stride)
        assert len(view_positions(settings.offsets, found.clips)) == found.clips
    assert views("m2clip", "b2n").source == ""
    assert "does not report" in views("m2clip", "b2n").assumed


@pytest.mark.parametrize(("paper", "protocol"), REPORTED)
def test_presets_train_with_the_frames_that_are_scored(paper, protocol):
    for method, of_paper in PAPER_OF.items():
        presets = methods.get(method).presets
        if of_paper == paper and method != "finetune" and PRESETS[protocol] in presets:  # its recipes are MSTA's
            assert presets[PRESETS[protocol]].recipe.frames == views(paper, protocol).frames


def test_mstas_logs_of_base_to_novel_are_not_taken_for_the_published_runs():
    assert "not the published ones" in views("msta", "b2n", "ucf101").caveat
    assert views("msta", "few_shot", "ucf101").caveat == ""


def test_names_that_there_are_not():
    with pytest.raises(UserError, match=r"no paper 'm2-clip' \(did you mean 'm2clip'\?\); known are msta, m2clip"):
        views("m2-clip", "b2n")
    with pytest.raises(UserError, match=r"no protocol 'fewshot' \(did you mean 'few_shot'\?\)"):
        views("msta", "fewshot")
    with pytest.raises(UserError, match="MSTA reports no retrieval; views of it are known of viltclip"):
        views("msta", "retrieval")


def test_whether_a_scoring_is_the_paper_s():
    multi = views("msta", "b2n", "mine")
    one = fits(multi, frames=8, clips=1, crops=1)
    assert one.startswith("8 frames, 1 clip x 1 crop; MSTA's base-to-novel takes 4 x 3 (--views msta) (assumed: 4 x 3")
    assert fits(multi, frames=8, clips=4, crops=3).startswith("8 frames, 4 clips x 3 crops: as MSTA's base-to-novel")
    assert fits(views("viltclip", "few_shot"), frames=8, clips=1, crops=1) == (
        "8 frames, 1 clip x 1 crop; ViLT-CLIP's few-shot takes 32 frames (ingest with --frames 32)"
    )
    assert fits(views("omniclip", "supervised", "k400"), frames=8, clips=4, crops=3) == (
        "8 frames, 4 clips x 3 crops: as OmniCLIP's supervised"
    )


def test_dense_scorings_and_other_numbers_of_frames():
    k400 = views("m2clip", "supervised", "k400")
    assert fits(k400, frames=8, clips=1, crops=3) == (
        "8 frames, 1 clip x 3 crops; M2-CLIP's supervised takes one frame every 16, 3 x 4 "
        "(ingest with --sampling dense --stride 16, --views m2clip)"
    )
    assert fits(k400, frames=8, clips=3, crops=4, sampling="dense", stride=16) == (
        "8 frames at stride 16, 3 clips x 4 crops: as M2-CLIP's supervised"
    )
    assert fits(k400, frames=32, clips=3, crops=4, sampling="dense", stride=4) == (
        "32 frames at stride 4, 3 clips x 4 crops: as M2-CLIP's supervised (assumed: the stride)"
    )
    assert "one frame every 8" in fits(k400, frames=16, clips=3, crops=4, sampling="dense", stride=16)
    ssv2 = views("m2clip", "supervised", "ssv2")
    assert "one frame of each segment" in fits(ssv2, frames=8, clips=1, crops=3, sampling="dense", stride=16)
    assert fits(ssv2, frames=8, clips=1, crops=3, stride=7) == "8 frames, 1 clip x 3 crops: as M2-CLIP's supervised"


def test_a_method_is_compared_with_its_paper():
    scoring = SimpleNamespace(frames=8, clips=1, crops=1, sampling="segments", stride=0)
    assert note("msta", "b2n", "hmdb51", scoring)[0].startswith(
        "8 frames, 1 clip x 1 crop; MSTA's base-to-novel takes 10 x 3"
    )
    assert note("finetune", "few_shot", "", scoring)[0].endswith(
        "ViFi-CLIP's few-shot takes 32 frames (ingest with --frames 32)"
    )
    assert note("msta", "retrieval", "msrvtt", scoring) == note("lora", "b2n", "", scoring) == []


def test_it_is_cheap_to_import():
    code = (
        "import sys, pipelines.protocols.paper_views; "
        "assert not {'torch', 'ray', 'pyarrow'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_stride_of_frames_that_no_one_reports():
    assert Views(frames=8).stride_of(8) == 0
    assert Views(frames=8).stride_of(9) is None
