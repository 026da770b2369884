"""What the values of ``index.json`` must be."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=1, lt=2**31)]
_Side = Annotated[int, Field(ge=1, le=1 << 16)]
_Place = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Places = Annotated[tuple[_Place, ...], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Shard(_Part):
    file: Annotated[str, Field(pattern=r"^[\w-]+\.arrow$")]
    rows: _Count
    shape: tuple[_Side, _Side, _Side, Literal[3]]
    bytes: Annotated[int, Field(ge=1, lt=2**63)]
    sha256: _Sha256


class _Decode(_Part):
    segments: Annotated[int, Field(ge=1, le=1 << 12)]
    sampling: Literal["segments", "dense"] = "segments"
    stride: Annotated[int, Field(ge=0, le=1 << 12)] = 0
    offsets: _Places | None = None
    starts: _Places | None = None


class _Index(_Part):
    code_version: str
    decode: _Decode
    decode_digest: _Sha256
    root: str
    classes: tuple[str, ...]
    manifest_sha256: _Sha256
    shards: Annotated[tuple[_Shard, ...], Field(min_length=1)]
    digest: _Sha256
    sha256: _Sha256 | None = None


def first_problem(content: bytes) -> str:
    """Return the first value of an index that is missing or wrong, in words; "" if there is none."""
    try:
        index = _Index.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        return f"{place} is missing" if problem["type"] == "missing" else f"{place}: {problem['msg']}"
    return next(iter(_contradictions(index)), "")


def _contradictions(index: _Index) -> list[str]:
    decode = index.decode
    places = decode.starts if decode.sampling == "dense" else decode.offsets
    if places is None:
        return [f"decode.{'starts' if decode.sampling == 'dense' else 'offsets'} is missing"]
    stored = decode.segments * len(places)
    files = [shard.file for shard in index.shards]
    return [
        *(f"{shard.file} has {shard.shape[0]} frames a clip, not {stored}" for shard in index.shards
          if shard.shape[0] != stored),
        *(["a class is named twice"] if len(set(index.classes)) < len(index.classes) else []),
        *(["a shard is named twice"] if len(set(files)) < len(files) else []),
    ]  # fmt: skip


def is_shard(entry: object) -> bool:
    """Return whether an entry is one of a shard."""
    try:
        _Shard.model_validate(_as_tuple(entry))
    except ValidationError:
        return False
    return True


def _as_tuple(entry: Any) -> Any:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    return {**entry, "shape": tuple(shape)} if isinstance(shape, list) else entry
