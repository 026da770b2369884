"""What is searched for: texts, or an example video, encoded by the model whose features are searched.

A text is read as it is, as captions are in retrieval, without the template of class prompts: whoever looks for a class
writes its prompt ("a video of walking."), and ``hints`` says so.

Which methods can search by text: all that score a video and a text by the cosine of their features, with or without a
classifier beside (zeroshot, prompts, viltclip, lora, adaptformer, msta, finetune, m2clip; aim and st_adapter with
head=text; omniclip with head=text_fixed), and linear, whose towers stay CLIP's. The rest is refused with the reason of
``Method.search_problems``. An example video can search with every method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.prediction.stored_features import Identity
from pipelines.storage.cache import local_file, local_run
from pipelines.storage.files import file_sha256
from pipelines.videos.text_file import read_text
from vlmodels.checkpoint import ADAPTER
from vlmodels.errors import UserError, refuse, shortened, unprintable
from vlmodels.model_folder import model_folder
from vlmodels.predictor import Predictor, load
from vlmodels.run_folder import run_of

_AT_ONCE = 256
"""Texts encoded at once: a few hundred MB in the largest text tower."""
_VIEWS = ("clips", "crops", "sampling", "stride")


def read_queries(typed: Sequence[str], file: Path | None) -> list[str]:
    """Return the texts that were typed, and those of a file, one a line; runs of white space become one space.

    Raises:
        UserError: the file cannot be read or holds no text, or a text is blank or holds characters that do not print.
    """
    lines = [] if file is None else [line for line in read_text(file).split("\n") if line.strip()]
    if file is not None and not lines:
        raise UserError(f"{file}: no queries in it; write one a line")
    texts = [" ".join(text.split()) for text in (*typed, *lines)]
    problems = [f"query {number} is blank; write what to look for" for number, text in enumerate(texts, 1) if not text]
    for number, text in enumerate(texts, 1):
        if character := unprintable(text):
            problems.append(f"query {number}, {ascii(text)[:60]}, holds the character {character}; remove it")
    refuse(problems[:10])
    return texts


def open_model(identity: Identity, folder: Path, given: str | None, weights: str | None) -> Predictor:
    """Load the model of stored features, or ``given``, which has to be the same.

    Raises:
        UserError: it cannot be loaded, or is another.
    """
    named = given or identity.model
    try:
        run = model_folder(local_run(named))
    except UserError as error:
        if given:
            raise
        raise UserError(f"{folder} is of the model {named}: {error}; name where it is now with --model") from error
    _check_adapter(identity, folder, named, run)
    views = {name: identity.views[name] for name in _VIEWS if name in identity.views}
    predictor = load(run, weights=local_file(weights) if weights else None, **views)
    found = predictor.method.backbone
    if found.digest != identity.weights_digest:
        raise UserError(
            f"the features in {folder} are of the backbone {identity.backbone} with the digest "
            f"{identity.weights_digest[:12]}, {named} has {found.spec.name} with {found.digest[:12]}; {_REMEDY}"
        )
    return predictor


_REMEDY = "give the model that made them (--model), or make embeddings with this one (predict.py --embeddings DIR)"


def _check_adapter(identity: Identity, folder: Path, named: str, run: Path) -> None:
    """Raise UserError if a run's adapter is not that of the features; before the backbone is loaded."""
    digest = file_sha256(run_of(run) / ADAPTER)
    if digest != identity.adapter_sha256:
        raise UserError(
            f"the features in {folder} are of {identity.model} (run {identity.run}, adapter "
            f"{identity.adapter_sha256[:12]}), not of {named} (adapter {digest[:12]}): their numbers cannot be "
            f"compared; {_REMEDY}"
        )


def encode_texts(predictor: Predictor, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return L2-normalised features (Q,E) of texts, encoded some at a time.

    Raises:
        UserError: texts have no score with this model's videos.
    """
    if problems := predictor.method.search_problems():
        raise UserError(
            f"this model ({predictor.method.name}) cannot be searched by text: {'; '.join(problems)}; "
            "or search by an example (--video)"
        )
    parts = [predictor.embed_texts(texts[start : start + _AT_ONCE]) for start in range(0, len(texts), _AT_ONCE)]
    return np.concatenate([np.empty((0, predictor.method.backbone.spec.embed_dim), np.float32), *parts])


def encode_videos(predictor: Predictor, videos: Sequence[str]) -> NDArray[np.float32]:
    """Return L2-normalised features (Q,E) of example videos, in the views of the stored features.

    Raises:
        UserError: a video cannot be read.
    """
    parts = [predictor.embed([predictor.read_views(Path(video))]) for video in videos]
    return np.concatenate([np.empty((0, predictor.method.backbone.spec.embed_dim), np.float32), *parts])


def hints(predictor: Predictor, texts: Sequence[str]) -> Iterator[str]:
    """Yield what a user should know: which texts the model cannot read to their end, and which are class names."""
    method = predictor.method
    if cut := method.cut_captions(texts):
        yield (
            f"{_named(cut)}: longer than the {method.backbone.spec.context_length} tokens that the model reads, "
            "so the last words have no effect; write less"
        )
    known = {name.replace("_", " ").casefold(): name for name in predictor.classes}
    if names := [text for text in texts if text.casefold() in known]:
        prompt = method.class_prompt(known[names[0].casefold()]).removeprefix(method.caption_text(""))
        if prompt != names[0]:
            yield f"{_named(names)}: a trained class, which the model knows as '{prompt}'; such texts may find more"


def _named(texts: Sequence[str]) -> str:
    shown = ", ".join(f"'{shortened(text, 60)}'" for text in texts[:3])
    return shown + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
