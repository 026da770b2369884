"""How each paper looks at a test video: frames, clips x crops and sampling, by protocol and data set, with the source.

Where a paper is silent the entry says what is assumed instead. Clips are the deterministic ones of
``vlmodels.sampling``; ViFi-CLIP's code, from which MSTA's, ViLT-CLIP's and OmniCLIP's evaluations descend, draws the
frames of several clips at random, so that no two runs of it agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vlmodels.errors import UserError, nearest
from vlmodels.sampling import Sampling

if TYPE_CHECKING:
    from pipelines.protocols.split import Scoring


PAPERS = {
    "msta": "MSTA",
    "m2clip": "M2-CLIP",
    "viltclip": "ViLT-CLIP",
    "omniclip": "OmniCLIP",
    "vificlip": "ViFi-CLIP",
}
PROTOCOLS = {
    "zero_shot": "zero-shot",
    "few_shot": "few-shot",
    "b2n": "base-to-novel",
    "supervised": "supervised",
    "retrieval": "retrieval",
}
PAPER_OF = {
    **dict.fromkeys(("finetune", "prompts"), "vificlip"),
    **{name: name for name in PAPERS if name != "vificlip"},
}
"""Method to the paper whose views it is scored with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """The views of one paper's protocol.

    Attributes:
        paper: key of ``PAPERS``; ``protocol``: key of ``PROTOCOLS``.
        frames: T of a view.
        clips: temporal views of a video; each is seen in ``crops`` spatial ones.
        sampling: "segments" or "dense", then ``stride`` frames apart (0 for segments).
        variants: other numbers of frames that the paper reports, each with its stride.
        source: where the numbers are printed; "" if the paper does not report the protocol.
        assumed: what is not printed, and what is taken instead.
        remark: what contradicts the source.
    """

    frames: int
    clips: int = 1
    crops: int = 1
    sampling: Sampling = "segments"
    stride: int = 0
    variants: tuple[tuple[int, int], ...] = ()
    source: str = ""
    assumed: str = ""
    remark: str = ""
    paper: str = ""
    protocol: str = ""

    def stride_of(self, frames: int) -> int | None:
        """The stride at this number of frames; None if the paper does not report it."""
        return dict([(self.frames, self.stride), *self.variants]).get(frames)


def _msta_logged(clips: int) -> Views:
    return Views(
        frames=8,
        clips=clips,
        crops=3,
        source="the authors' training logs",
        assumed="the logged runs are the published ones: the paper says multi-view without numbers (section 4.2)",
    )


_MSTA_MULTI = Views(
    frames=8,
    clips=4,
    crops=3,
    source="MSTA section 4.2",
    assumed="4 x 3, as in supervised training: the paper says multi-view without numbers",
)
_MSTA_LOGGED = {"hmdb51": _msta_logged(10), "ucf101": _msta_logged(5), "ssv2": _msta_logged(2)}
_M2CLIP_K400 = Views(
    frames=8,
    clips=3,
    crops=4,
    sampling="dense",
    stride=16,
    variants=((16, 8), (32, 4)),
    source="M2-CLIP table 1 (frames x crops x clips) and the release's K400 recipe",
    remark="the paper says that sampling is sparse, its release is dense; strides of 16 and 32 frames are not printed: "
    "8 and 4 are assumed, so that a clip spans 128 frames as it does with 8",
)
_M2CLIP_SSV2 = Views(
    frames=8,
    crops=3,
    variants=((32, 0),),
    source="M2-CLIP's release, SSv2 recipe",
    remark="table 2 prints 8x1x3, which table 1 explains as 1 crop x 3 clips; the release's segment centres are up to "
    "a frame away from ours",
)
_M2CLIP_OTHER = replace(
    _M2CLIP_K400, variants=(), source="", assumed="the views of its K400 model: the paper does not report the protocol"
)
_M2CLIP_OTHER_SSV2 = replace(
    _M2CLIP_SSV2, variants=(), source="", assumed="the views of its SSv2 model: the paper does not report the protocol"
)
_VILT_SINGLE = Views(frames=32, source="ViLT-CLIP, experimental setup")
_OMNI_SINGLE = Views(
    frames=32,
    source="OmniCLIP section 4 (the frames that train)",
    assumed="a single view of as many frames, as in X-CLIP, whose setting it follows",
)
_OMNI_MULTI = Views(frames=8, clips=4, crops=3, source="OmniCLIP section 4.1")
_VIFI_SINGLE = Views(frames=32, source="ViFi-CLIP's released recipes")

_VIEWS: dict[tuple[str, str], dict[str, Views]] = {
    ("msta", "zero_shot"): {"": Views(frames=8, source="MSTA section 4.2 and table 4")},
    ("msta", "few_shot"): {"": _MSTA_MULTI, **_MSTA_LOGGED},
    ("msta", "b2n"): {"": _MSTA_MULTI, **_MSTA_LOGGED, "k400": _msta_logged(4)},
    ("msta", "supervised"): {
        "": Views(
            frames=8,
            clips=4,
            crops=3,
            source="MSTA section 4.2",
            remark="table 5's caption says single view",
        )
    },
    ("m2clip", "zero_shot"): {
        "": replace(
            _M2CLIP_K400,
            variants=(),
            source="M2-CLIP, zero-shot experiments (8 frames, the K400 model)",
            assumed="views and stride as on K400: the paper does not say",
        )
    },
    ("m2clip", "few_shot"): {"": _M2CLIP_OTHER, "ssv2": _M2CLIP_OTHER_SSV2},
    ("m2clip", "b2n"): {"": _M2CLIP_OTHER, "ssv2": _M2CLIP_OTHER_SSV2},
    ("m2clip", "supervised"): {"": _M2CLIP_K400, "ssv2": _M2CLIP_SSV2},
    ("viltclip", "zero_shot"): {"": Views(frames=32, source="ViLT-CLIP, zero-shot setting")},
    ("viltclip", "few_shot"): {"": _VILT_SINGLE},
    ("viltclip", "b2n"): {"": _VILT_SINGLE},
    ("viltclip", "supervised"): {"": Views(frames=16, clips=4, crops=3, source="ViLT-CLIP table 2")},
    ("viltclip", "retrieval"): {
        "": Views(
            frames=12,
            source="ViLT-CLIP table 5",
            assumed="12 frames in a single view, as in CLIP4Clip: the paper does not say",
        )
    },
    ("omniclip", "zero_shot"): {"": _OMNI_SINGLE},
    ("omniclip", "few_shot"): {"": _OMNI_SINGLE},
    ("omniclip", "b2n"): {
        "": replace(
            _OMNI_SINGLE, source="", assumed="as in its few-shot setting: the paper does not report the protocol"
        )
    },
    ("omniclip", "supervised"): {"": _OMNI_MULTI, "ssv2": replace(_OMNI_MULTI, variants=((16, 0),))},
    ("vificlip", "zero_shot"): {"": _VIFI_SINGLE},
    ("vificlip", "few_shot"): {"": _VIFI_SINGLE},
    ("vificlip", "b2n"): {"": _VIFI_SINGLE},
    ("vificlip", "supervised"): {"": Views(frames=16, clips=4, crops=3, source="ViFi-CLIP's released recipes")},
}


def views(paper: str, protocol: str, dataset: str = "") -> Views:
    """Return the views of a paper's protocol on a data set (``pipelines.videos.catalog``'s names; others: its usual).

    Raises:
        UserError: no such paper or protocol, or retrieval of a paper that has none.
    """
    for value, known, what in ((paper, PAPERS, "paper"), (protocol, PROTOCOLS, "protocol")):
        if value not in known:
            raise UserError(f"no {what} '{value}'{nearest(value, known)}; known are {', '.join(known)}")
    found = _VIEWS.get((paper, protocol))
    if found is None:
        having = ", ".join(one for one, other in _VIEWS if other == protocol)
        raise UserError(f"{PAPERS[paper]} reports no {PROTOCOLS[protocol]}; views of it are known of {having}")
    return replace(found.get(dataset, found[""]), paper=paper, protocol=protocol)


def fits(
    published: Views, *, frames: int, clips: int, crops: int, sampling: Sampling | str = "segments", stride: int = 0
) -> str:
    """Say in one line how a scoring looks at videos and whether ``published`` does so too, or what it takes."""
    of, ingest, takes = f"{PAPERS[published.paper]}'s {PROTOCOLS[published.protocol]}", [], []
    expected = published.stride_of(frames)
    if expected is None:
        ingest.append(f"--frames {published.frames}")
        takes.append(f"{published.frames} frames")
        expected = published.stride
    if (sampling, stride if sampling == "dense" else 0) != (published.sampling, expected):
        ingest.append(f"--sampling {published.sampling}" + (f" --stride {expected}" if expected else ""))
        takes.append(f"one frame every {expected}" if expected else "one frame of each segment")
    if (clips, crops) != (published.clips, published.crops):
        takes.append(f"{published.clips} x {published.crops}")
    seen = f"{frames} frames{f' at stride {stride}' if sampling == 'dense' else ''}, {_count(clips, 'clip')} x "
    seen += _count(crops, "crop")
    assumed = published.assumed or ("the stride" if expected and frames != published.frames else "")
    doubt = f" (assumed: {assumed})" if assumed else ""
    if not takes:
        return f"{seen}: as {of}{doubt}"
    remedies = [f"ingest with {' '.join(ingest)}"] if ingest else []
    remedies += [f"--views {published.paper}"] if (clips, crops) != (published.clips, published.crops) else []
    return f"{seen}; {of} takes {', '.join(takes)} ({', '.join(remedies)}){doubt}"


def note(method: str, protocol: str, dataset: str, scoring: Scoring) -> list[str]:
    """``fits`` for the paper of a method; nothing for a method or protocol whose paper reports none."""
    paper = PAPER_OF.get(method)
    if paper is None or (paper, protocol) not in _VIEWS:
        return []
    how = {name: getattr(scoring, name) for name in ("frames", "clips", "crops", "sampling", "stride")}
    return [fits(views(paper, protocol, dataset), **how)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
