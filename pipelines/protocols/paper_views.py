"""The papers' views of a test video: frames, clips x crops and sampling, by protocol and data set, with the source.

Where a paper prints nothing, the entry names the assumption. Clips are the deterministic ones of ``vlmodels.sampling``;
ViFi-CLIP's code, from which MSTA's, ViLT-CLIP's and OmniCLIP's evaluations descend, draws the frames of several clips
at random, so that no two runs of it agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.config.protocols import PROTOCOLS
from pipelines.config.text import plural
from vlmodels.errors import UserError, nearest

if TYPE_CHECKING:
    from pipelines.protocols.split import Scoring
    from vlmodels.sampling import Sampling


PAPERS = {
    "msta": "MSTA",
    "m2clip": "M2-CLIP",
    "viltclip": "ViLT-CLIP",
    "omniclip": "OmniCLIP",
    "vificlip": "ViFi-CLIP",
}
PAPER_OF = {
    **dict.fromkeys(("finetune", "prompts"), "vificlip"),
    **{name: name for name in PAPERS if name != "vificlip"},
}
"""The paper whose views a method is scored with, by method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """The views of one paper's protocol.

    Attributes:
        frames: T of a view.
        clips: temporal views of a video.
        crops: spatial views of each clip.
        sampling: "segments" or "dense".
        stride: frames between two of a dense clip; 0 for segments.
        variants: other numbers of frames that the paper reports, each with its stride.
        source: where the numbers are printed; "" if the paper does not report the protocol.
        assumed: what is not printed, and the value taken instead.
        caveat: what contradicts the source.
        paper: key of ``PAPERS``.
        protocol: key of ``PROTOCOLS``.
    """

    frames: int
    clips: int = 1
    crops: int = 1
    sampling: Sampling = "segments"
    stride: int = 0
    variants: tuple[tuple[int, int], ...] = ()
    source: str = ""
    assumed: str = ""
    caveat: str = ""
    paper: str = ""
    protocol: str = ""

    def stride_of(self, frames: int) -> int | None:
        """Return the stride at this number of frames; None if the paper does not report it."""
        return dict([(self.frames, self.stride), *self.variants]).get(frames)


_MSTA_B2N_LOGS = (
    "the logged runs are not the published ones: 50 epochs for 11, 128 units in layers 8-12 for 256 in all, one "
    "training subset for UCF101's three, K400 without the consistency loss; their means differ from table 2 by up to "
    "1.6 points"
)


def _msta_logged(clips: int, caveat: str = "") -> Views:
    return Views(
        frames=8,
        clips=clips,
        crops=3,
        source="the authors' training logs",
        assumed="the published runs had the views of the logged ones: the paper says multi-view without numbers "
        "(section 4.2)",
        caveat=caveat,
    )


_MSTA_MULTI = Views(
    frames=8,
    clips=4,
    crops=3,
    source="MSTA section 4.2",
    assumed="4 x 3, as in supervised training: the paper says multi-view without numbers",
)
_MSTA_CLIPS = {"hmdb51": 10, "ucf101": 5, "ssv2": 2}  # few-shot, whose logs round to table 3 in 11 of 12 cells
_M2CLIP_K400 = Views(
    frames=8,
    clips=3,
    crops=4,
    sampling="dense",
    stride=16,
    variants=((16, 8), (32, 4)),
    source="M2-CLIP table 1 (frames x crops x clips) and the release's K400 recipe",
    caveat="the paper says that sampling is sparse, its release is dense; strides of 16 and 32 frames are not printed: "
    "8 and 4 are assumed, so that a clip spans 128 frames as it does with 8",
)
_M2CLIP_SSV2 = Views(
    frames=8,
    crops=3,
    variants=((32, 0),),
    source="M2-CLIP's release, SSv2 recipe",
    caveat="table 2 prints 8x1x3, which table 1 explains as 1 crop x 3 clips; the release's segment centres are up to "
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
    ("msta", "few_shot"): {"": _MSTA_MULTI, **{name: _msta_logged(clips) for name, clips in _MSTA_CLIPS.items()}},
    ("msta", "b2n"): {
        "": _MSTA_MULTI,
        **{name: _msta_logged(clips, _MSTA_B2N_LOGS) for name, clips in {**_MSTA_CLIPS, "k400": 4}.items()},
    },
    ("msta", "supervised"): {
        "": Views(
            frames=8,
            clips=4,
            crops=3,
            source="MSTA section 4.2",
            caveat="table 5's caption says single view",
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
    _check_known("paper", paper, PAPERS)
    _check_known("protocol", protocol, PROTOCOLS)
    found = _VIEWS.get((paper, protocol))
    if found is None:
        having = ", ".join(one for one, other in _VIEWS if other == protocol)
        raise UserError(f"{PAPERS[paper]} reports no {PROTOCOLS[protocol].title}; views of it are known of {having}")
    return replace(found.get(dataset, found[""]), paper=paper, protocol=protocol)


def _check_known(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise UserError(f"no {kind} '{name}'{nearest(name, known)}; known are {', '.join(known)}")


def fits(
    published: Views, *, frames: int, clips: int, crops: int, sampling: Sampling | str = "segments", stride: int = 0
) -> str:
    """Return one line on the views of a scoring: the same as ``published``, or the differences and their remedy."""
    usual = f"{PAPERS[published.paper]}'s {PROTOCOLS[published.protocol].title}"
    ingest_flags: list[str] = []
    differences: list[str] = []
    remedies: list[str] = []
    expected = published.stride_of(frames)
    if expected is None:
        ingest_flags.append(f"--frames {published.frames}")
        differences.append(f"{published.frames} frames")
        expected = published.stride
    if (sampling, stride if sampling == "dense" else 0) != (published.sampling, expected):
        ingest_flags.append(f"--sampling {published.sampling}")
        if expected:
            ingest_flags.append(f"--stride {expected}")
        differences.append(f"one frame every {expected}" if expected else "one frame of each segment")
    if ingest_flags:
        remedies.append(f"ingest with {' '.join(ingest_flags)}")
    if (clips, crops) != (published.clips, published.crops):
        differences.append(f"{published.clips} x {published.crops}")
        remedies.append(f"--views {published.paper}")
    at_stride = f" at stride {stride}" if sampling == "dense" else ""
    seen = f"{frames} frames{at_stride}, {plural(clips, 'clip')} x {plural(crops, 'crop')}"
    assumed = published.assumed or ("the stride" if expected and frames != published.frames else "")
    doubt = f" (assumed: {assumed})" if assumed else ""
    if not differences:
        return f"{seen}: as {usual}{doubt}"
    return f"{seen}; {usual} takes {', '.join(differences)} ({', '.join(remedies)}){doubt}"


def note(method: str, protocol: str, dataset: str, scoring: Scoring) -> list[str]:
    """Return the line of :func:`fits` for the paper of a method; nothing if no paper reports the protocol."""
    paper = PAPER_OF.get(method)
    if paper is None or (paper, protocol) not in _VIEWS:
        return []
    line = fits(
        views(paper, protocol, dataset),
        frames=scoring.frames,
        clips=scoring.clips,
        crops=scoring.crops,
        sampling=scoring.sampling,
        stride=scoring.stride,
    )
    return [line]
