"""What travels between here and a server: a reply has a most size and a deadline, a key needs a private line."""

from __future__ import annotations

import asyncio
import ipaddress
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openai

from llm_descriptions.errors import DescriptionError
from llm_descriptions.reply import UnreadableError

if TYPE_CHECKING:
    from pydantic import SecretStr

MAX_REPLY = 4 << 20
"""Bytes of a reply, also of one that arrives compressed; long reasoning included, a real one has less than 1 MB."""

MIN_KEY_LENGTH = 8
"""Shorter keys are placeholders such as "EMPTY": no secret, and masking them would damage words."""


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """The HTTP client below ``openai``'s, for replies that would never end or never fit.

    The timeout of a request is a deadline for the whole of its reply; httpx itself counts it anew with each byte. A
    redirect is not followed, since a question and its key are for the server that the user named.

    Raises (from ``send``):
        openai.APITimeoutError: the reply is not whole at the deadline.
        UnreadableError: the reply has more than ``MAX_REPLY`` bytes, or a compression that was not asked for.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"follow_redirects": False, **options})

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a request; return its whole response."""
        seconds = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(seconds):
                response = await super().send(request, **{**options, "stream": True})
                try:
                    body = await _read(response)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise openai.APITimeoutError(request=request) from error
        dropped = {"content-encoding", "content-length", "transfer-encoding"}
        return type(response)(
            response.status_code,
            headers=[(name, value) for name, value in response.headers.multi_items() if name.lower() not in dropped],
            content=body,
            request=response.request,
        )


async def _read(response: Any) -> bytes:
    raw = bytearray()
    async for part in response.aiter_raw():
        raw += part
        if len(raw) > MAX_REPLY:
            raise _too_large()
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in {"", "identity"}:
        return bytes(raw)
    if encoding not in {"gzip", "deflate"}:
        raise UnreadableError(f"a reply in the compression '{encoding[:50]}', which was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        body = unpacker.decompress(bytes(raw), MAX_REPLY + 1)
    except zlib.error as error:
        raise UnreadableError(f"a reply whose compression is damaged ({error})") from None
    if len(body) > MAX_REPLY:
        raise _too_large()
    return body


def _too_large() -> UnreadableError:
    return UnreadableError(f"a reply of more than {MAX_REPLY >> 20} MB")


def is_open_line(url: str, key: SecretStr) -> bool:
    """Return whether a key would travel in the clear: the address is ``http://`` on another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not _is_here(parts.hostname or "") and is_secret(key)


def refuse_open_line(url: str, key: SecretStr, *, allow_http: bool) -> None:
    """Raise ``DescriptionError`` if a key would travel in the clear, unless the user allows that."""
    if is_open_line(url, key) and not allow_http:
        raise DescriptionError(
            f"OPENAI_API_KEY would be sent to {urlsplit(url).hostname} over http, where others can read it: give an "
            "https address, unset OPENAI_API_KEY if that server needs none, or allow it with --allow-http"
        )


def is_secret(key: SecretStr) -> bool:
    """Return whether a key is more than a placeholder."""
    value = key.get_secret_value()
    return len(value) >= MIN_KEY_LENGTH and value != NO_KEY


NO_KEY = "no-key-needed"
"""What is sent where there is no key: the library wants one."""


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
