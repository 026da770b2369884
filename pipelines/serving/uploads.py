"""Videos of a request on their way to disk: streamed, counted while they come, and never under a name of the sender."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pipelines.serving.limits import MEGABYTE, Limits, RefusedError, size_text, too_many_bytes
from vlmodels.errors import shortened, unprintable

FIELD_BYTES = MEGABYTE
"""Bytes of all fields of a form that are not videos."""
FIELDS = 64
"""Fields of a form that are not videos: those that mean something are a dozen, and empty ones have no bytes."""
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


class Body(Protocol):
    """A request's body: what ``starlette.requests.Request`` has of it."""

    headers: Any

    def stream(self) -> AsyncIterator[bytes]:
        """Yield it as it comes."""
        ...


@dataclass(frozen=True, slots=True)
class Video:
    """A video that lies in the folder of its request.

    Attributes:
        name: of the sender, for answers only.
        path: of the file, or None if ``uri`` has to be fetched to it.
        uri: of a video in a store; "" for one that was sent.
    """

    name: str
    path: Path
    uri: str = ""


@dataclass(slots=True)
class Received:
    """What a request has brought: its videos, and its other fields as they came."""

    videos: list[Video] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    size: int = 0


async def receive(body: Body, folder: Path, limits: Limits) -> Received:
    """Store the videos of a request, a form or JSON, in a folder.

    Raises:
        RefusedError: it is over a limit, comes too slowly, or is neither.
    """
    kind, options = parse_options_header(body.headers.get("content-type", ""))
    if kind == b"multipart/form-data" and b"boundary" in options:
        return await _receive_form(body, options[b"boundary"], folder, limits)
    if kind == b"application/json":
        return await _receive_json(body, folder, limits)
    raise RefusedError(
        415, "wrong_content_type", "send multipart/form-data with the video as a file, or application/json: see /docs"
    )


async def read_json(body: Body, limits: Limits) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        RefusedError: it is too large, comes too slowly, or is no object.
    """
    most = limits.max_json_bytes
    refusal = RefusedError(
        413,
        "too_many_bytes",
        f"the JSON is over the limit of {size_text(most)}; send large videos as multipart/form-data",
        limit="max_json_bytes",
        value=most,
    )
    content = bytearray()
    async for chunk in _chunks(body, limits, most, refusal):
        content += chunk
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "broken_json", f"the body is no JSON ({str(error)[:200]})") from error
    if not isinstance(found, dict):
        raise RefusedError(422, "wrong_fields", "the body must be a JSON object: see /docs")
    return found


async def _receive_form(body: Body, boundary: bytes, folder: Path, limits: Limits) -> Received:
    form = _Form(folder, limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in _chunks(body, limits, limits.max_bytes + FIELD_BYTES, too_many_bytes(limits.max_bytes)):
            parser.write(chunk)
    except FormParserError as error:
        raise RefusedError(400, "broken_form", f"the form cannot be read ({str(error)[:200]})") from error
    finally:
        form.close()
    if not form.ended:
        raise RefusedError(400, "broken_form", "the form ends in the middle")
    return form.received


async def _receive_json(body: Body, folder: Path, limits: Limits) -> Received:
    fields = await read_json(body, limits)
    listed = fields.pop("videos", None)
    videos: list[dict[str, Any]] = [{name: fields.pop(name) for name in ("uri", "base64", "name") if name in fields}]
    if listed is not None:
        if videos != [{}] or not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise RefusedError(422, "wrong_fields", '"videos" is a list of {"uri": ...} or {"base64": ...}, alone')
        videos = listed
    if len(videos) > limits.max_videos:
        raise _too_many_videos(limits)
    received = Received(fields=fields)
    for number, video in enumerate(videos):
        received.videos.append(await asyncio.to_thread(_store, video, number, folder, received, limits))
    return received


def _store(video: dict[str, Any], number: int, folder: Path, received: Received, limits: Limits) -> Video:
    """Write a video that came as base64 to disk; one that is named by a URI is fetched later."""
    wrong = RefusedError(422, "wrong_fields", 'a video is {"uri": "..."} or {"base64": "...", "name": "a.mp4"}')
    if not all(isinstance(value, str) for value in video.values()) or not video.keys() <= {"uri", "base64", "name"}:
        raise wrong
    name = video.get("name") or video.get("uri") or f"video {number + 1}"
    path = folder / f"{number}{_suffix(name)}"
    if "uri" in video and "base64" not in video:
        return Video(shown_name(name), path, video["uri"])
    if "base64" not in video or "uri" in video:
        raise wrong
    text = video["base64"]
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(422, "broken_base64", f"the base64 of {shown_name(name)} is broken ({error})") from error
    received.size += len(content)
    if received.size > limits.max_bytes:
        raise too_many_bytes(limits.max_bytes)
    path.write_bytes(content)
    return Video(shown_name(name), path)


async def _chunks(body: Body, limits: Limits, most: int, refusal: RefusedError) -> AsyncIterator[bytes]:
    """Yield a body as it comes; refuse one that is too large or too slow as soon as that shows."""
    length = body.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        raise refusal
    began, size = time.monotonic(), 0
    stream = body.stream().__aiter__()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), limits.patience_s)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _too_slow(limits) from None
        size += len(chunk)
        if size > most:
            raise refusal
        if size < limits.least_rate * (time.monotonic() - began - limits.patience_s):
            raise _too_slow(limits)
        yield chunk


class _Form:
    """Takes the parts of a form: files go to disk, fields are kept."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.received = Received()
        self.ended = False
        self._folder, self._limits = folder, limits
        self._headers: dict[str, bytes] = {}
        self._header, self._value = b"", b""
        self._field, self._text = "", bytearray()
        self._file: BinaryIO | None = None
        self._parts = self._texts = 0

    def callbacks(self) -> Any:
        """Return what ``MultipartParser`` calls."""
        names: tuple[Callable[..., None], ...] = (
            *(self.on_part_begin, self.on_header_field, self.on_header_value, self.on_header_end),
            *(self.on_headers_finished, self.on_part_data, self.on_part_end, self.on_end),
        )
        return {function.__name__: function for function in names}

    def close(self) -> None:
        """Close the file of a part that was not finished."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._limits.max_videos + FIELDS:
            raise RefusedError(413, "too_many_fields", f"the form has over {FIELDS} fields beside its videos")
        self._headers, self._text = {}, bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._header.lower().decode("latin-1")] = self._value
        self._header, self._value = b"", b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            return
        videos = self.received.videos
        if len(videos) >= self._limits.max_videos:
            raise _too_many_videos(self._limits)
        name = options[b"filename"].decode("utf-8", "replace") or "video"
        path = self._folder / f"{len(videos)}{_suffix(name)}"
        self._file = path.open("xb")
        videos.append(Video(shown_name(name), path))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            self._texts += end - start
            if self._texts > FIELD_BYTES:
                raise RefusedError(413, "too_many_bytes", "the fields of the form are over 1 MB")
            self._text += data[start:end]
            return
        self.received.size += end - start
        if self.received.size > self._limits.max_bytes:
            raise too_many_bytes(self._limits.max_bytes)
        self._file.write(memoryview(data)[start:end])

    def on_part_end(self) -> None:
        if self._file is not None:
            self.close()
            return
        try:
            text = self._text.decode()
        except UnicodeDecodeError as error:
            raise RefusedError(422, "wrong_fields", "a field of the form is not in UTF-8") from error
        if self._field in self.received.fields:
            raise RefusedError(422, "wrong_fields", f"the form has two fields '{shown_name(self._field)}'")
        self.received.fields[self._field] = text

    def on_end(self) -> None:
        self.ended = True


def shown_name(name: str) -> str:
    """Return a name of a stranger for answers: short, and without characters that garble a page or a terminal."""
    return shortened("".join("\ufffd" if unprintable(character) else character for character in name[:1000]))


def _suffix(name: str) -> str:
    """Return the suffix of a stranger's name if it is a plain one: some raw streams are known by it alone."""
    suffix = PurePosixPath(name.rpartition("\\")[2]).suffix
    return suffix if _SUFFIX.fullmatch(suffix) else ""


def _too_many_videos(limits: Limits) -> RefusedError:
    return RefusedError(
        413,
        "too_many_videos",
        f"over the limit of {limits.max_videos} videos a request",
        limit="max_videos",
        value=limits.max_videos,
    )


def _too_slow(limits: Limits) -> RefusedError:
    return RefusedError(
        408,
        "too_slow",
        f"the request comes more slowly than {limits.least_rate} bytes a second",
        limit="least_rate",
        value=limits.least_rate,
    )
