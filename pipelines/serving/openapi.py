"""What the OpenAPI description says about bodies that FastAPI does not see, since they are streamed."""

from __future__ import annotations

from typing import Any

from pipelines.serving.options import Options, SearchOptions

DESCRIPTION = (
    'Names actions in videos. Errors are JSON: {"error": {"code", "message", "limit"}}; 413 and 422 name a limit '
    "that was passed, 503 has a Retry-After. A server that is open to a network asks for Authorization: Bearer TOKEN."
)


def _predict() -> dict[str, Any]:
    fields = Options.model_json_schema()["properties"]
    texts = {
        **{name: {"type": "string", "description": about.get("description", "")} for name, about in fields.items()},
        "labels": {"type": "string", "description": "a,b,c; or a JSON list"},
        "video": {"type": "string", "format": "binary", "description": "a video; several are several files"},
    }
    video = {
        "uri": {"type": "string", "description": "a video below what --allow-uris allows"},
        "base64": {"type": "string", "description": "its content"},
        "name": {"type": "string", "description": "its name in the answer"},
    }
    listed = {"type": "array", "items": {"type": "object", "properties": video}, "description": "several videos"}
    form = {"schema": {"type": "object", "properties": texts, "required": ["video"]}}
    json = {"schema": {"type": "object", "properties": {**video, "videos": listed, **fields}}}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": form, "application/json": json}},
        "responses": {
            "200": {"description": "A row for each video; those that cannot be read have the status failed"},
            **_ERRORS,
        },
    }


_ERRORS = {
    "401": {"description": "The token is missing or wrong"},
    "408": {"description": "The request comes too slowly"},
    "413": {"description": "Over a limit of bytes or videos"},
    "422": {"description": "No video can be answered, or a field is wrong"},
    "503": {"description": "The queue is full: Retry-After says when to come again"},
}
PREDICT = _predict()
SEARCH = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": SearchOptions.model_json_schema()}}}
}
