"""The HTTP interface over a real model, without Ray."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import socket
import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from benchmarks.serve import HOSTILE, hostile, send
from pipelines.serving.limits import RefusedError
from pipelines.serving.search import SearchIndex
from tests.helpers.http_requests import call, form, predict, predict_json
from tests.helpers.serving import CLASSES, FACTS, EchoBackend, serving
from vlmodels import load


@pytest.fixture(scope="module")
def predictor(model):
    return load(model)


def shares(row):
    return {one["label"]: one["probability"] for one in row["topk"]}


def the_same(row, expected):
    assert shares(row) == pytest.approx({one.label: one.probability for one in expected}, abs=1e-5)


def test_a_video_gets_the_predictors_answer(url, video, predictor):
    status, _, body = predict(url, ("video", video))
    assert status == 200
    (row,) = body["results"]
    the_same(row, predictor(video))
    assert (row["video"], row["status"], row["seconds"], row["reason"]) == ("a clip.mp4", "ok", 4.0, "")
    assert body["model"] == {"name": "toy", "version": ""}


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"labels": 'blue ball,"go, then stop"'}, {"labels": ["blue ball", "go, then stop"]}),
        ({"labels": '["blue ball", "x"]', "topk": "1"}, {"labels": ["blue ball", "x"], "topk": 1}),
        ({"start": "1", "end": "2.5"}, {"start": 1, "end": 2.5}),
        ({"start": "3"}, {"start": 3}),
    ],
)
def test_options_do_what_the_predictors_arguments_do(url, video, predictor, fields, arguments):
    status, _, body = predict(url, ("video", video), *fields.items())
    assert status == 200
    the_same(body["results"][0], predictor(video, **arguments))


def test_json_with_base64_is_as_good(url, video, predictor):
    content = base64.b64encode(video.read_bytes()).decode()
    status, _, body = predict_json(url, {"base64": content, "name": "x.mp4", "labels": list(CLASSES[:2])})
    assert status == 200
    the_same(body["results"][0], predictor(video, CLASSES[:2]))


def test_several_videos_are_answered_one_by_one(url, video, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    status, _, body = predict(url, ("video", video), ("video", broken), ("video", video))
    assert status == 200
    assert [row["status"] for row in body["results"]] == ["ok", "failed", "ok"]
    assert body["results"][1]["reason"]


def test_when_one_video_of_a_request_fails_the_others_are_given_up(video, tmp_path):
    class Failing(EchoBackend):
        asked, ended = 0, 0

        async def predict(self, ask):
            self.asked += 1
            if self.asked == 3:
                raise RefusedError(503, "worker_lost", "x")
            try:
                await asyncio.Event().wait()
            finally:
                self.ended += Path(ask.path).is_file()  # noqa: ASYNC240

    backend = Failing()
    with serving(backend, tmp_path) as url:
        status, _, body = predict(url, *[("video", video)] * 3)
        assert (status, body["error"]["code"]) == (503, "worker_lost")
        assert backend.ended == 2, "while their files are there"


def test_a_threshold_makes_none_of_these(url, video):
    _, _, body = predict(url, ("video", video), ("threshold", "1"))
    assert (body["results"][0]["status"], body["results"][0]["label"]) == ("none", "none of these")


def test_a_timeline_has_the_windows_of_the_predictor(url, video, predictor):
    status, _, body = predict(url, ("video", video), ("window", "2"), ("stride", "1"), ("pictures", "true"))
    assert status == 200
    (row,) = body["results"]
    windows = row["timeline"]["windows"]
    assert [(one["start"], one["end"]) for one in windows] == [(0, 2), (1, 3), (2, 4)]
    for window in windows:
        the_same(window, predictor(video, start=window["start"], end=window["end"]))
        assert window["picture"].startswith("data:image/jpeg;base64,")
    assert row["timeline"]["segments"][-1]["end"] == 4
    assert len(row["pictures"]) == 4


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_requests_are_refused(url, video, fault, uploads):
    outcome = send(url, hostile(fault, video.read_bytes()), pause_s=0.05)
    assert 400 <= outcome.status < 500, outcome.body
    assert outcome.body["error"]["message"]
    assert not list(uploads.iterdir())


@pytest.mark.parametrize(
    ("parts", "status", "limit"),
    [
        ([("labels", "a,b,c,d,e,f")], 422, "max_labels"),
        ([("window", "0.5"), ("stride", "0.1")], 422, "max_windows"),
        ([("video", b"x" * 500_000)], 0, ""),
    ],
)
def test_limits_are_named(url, video, parts, status, limit, tmp_path):
    if not status:
        large = tmp_path / "large.mp4"
        large.write_bytes(parts[0][1])
        parts, status, limit = [("video", large)], 413, "max_bytes"
    got, _, body = predict(url, ("video", video), *parts)
    assert (got, body["error"]["limit"]["name"]) == (status, limit)


def test_fields_without_content_are_bounded_too(url):
    status, _, body = predict(url, *((f"field {number}", "") for number in range(200)))
    assert (status, body["error"]["code"]) == (413, "too_many_fields")


@pytest.mark.parametrize(("rate", "size", "limit"), [(1, (64, 48), "max_seconds"), (25, (640, 480), "max_pixels")])
def test_limits_of_a_video_are_named(url, tmp_path, rate, size, limit):
    from tests.helpers.videofiles import write_video

    video = write_video(tmp_path / "a.mp4", frames=30, rate=rate, width=size[0], height=size[1])
    status, _, body = predict(url, ("video", video))
    assert (status, body["error"]["limit"]["name"]) == (422, limit)


@pytest.mark.parametrize(
    "fields",
    [
        {"topk": "many"},
        {"topk": "0"},
        {"threshold": "nan"},
        {"start": "2", "end": "1"},
        {"start": "-1"},
        {"stride": "1"},
        {"window": "0"},
        {"labels": "only one"},
        {"labels": '["a", 1]'},
        {"labels": '"open'},
        {"nothing": "x"},
        {"start": "100"},
    ],
)
def test_wrong_options_are_refused(url, video, fields):
    status, _, body = predict(url, ("video", video), *fields.items())
    assert status == 422
    assert body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 422),
        (b"{}", "application/json", 422),
        (b"[" * 100_000, "application/json", 400),
        (b'{"videos": [{"base64": "a"}], "uri": "x"}', "application/json", 422),
        (b'{"base64": "%%%"}', "application/json", 422),
        (b'{"uri": 5}', "application/json", 422),
        (
            b'--b\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\nhalf',
            "multipart/form-data; boundary=b",
            400,
        ),
        (b"nonsense", "multipart/form-data; boundary=b", 400),
        (b"", "multipart/form-data; boundary=b", 400),
        (b"x", "multipart/form-data", 415),
        (b"x", "text/plain", 415),
    ],
)
def test_broken_bodies_are_refused(url, body, kind, status):
    got, _, answer = call(url, "POST", "/v1/predict", body, content_type=kind)
    assert (got, bool(answer["error"]["message"])) == (status, True)


@pytest.mark.parametrize("uri", ["/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/", "s3://bucket/a.mp4"])
def test_no_uri_is_read_unless_it_is_allowed(url, uri):
    status, _, body = predict_json(url, {"uri": uri})
    assert (status, body["error"]["code"]) == (403, "uri_not_allowed")


def test_allowed_uris_are_read_and_nothing_beside_them(backend, facts, video, tmp_path, predictor):
    allowed = tmp_path / "videos"
    allowed.mkdir()
    (allowed / "a.mp4").write_bytes(video.read_bytes())
    (tmp_path / "secret.mp4").write_bytes(video.read_bytes())
    (allowed / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    with serving(backend, tmp_path, facts=facts, uris=[str(allowed)]) as url:
        status, _, body = predict_json(url, {"uri": str(allowed / "a.mp4")})
        assert status == 200
        the_same(body["results"][0], predictor(video))
        for uri in (
            f"{allowed}/../secret.mp4",
            f"{allowed}/link.mp4",
            f"{allowed}2/a.mp4",
            f"{allowed}/%2e%2e/secret.mp4",
        ):
            assert predict_json(url, {"uri": uri})[0] == 403, uri
        assert predict_json(url, {"uri": f"{allowed}/none.mp4"})[0] == 422
        assert predict_json(url, {"uri": f"{allowed}/a.mp4?endpoint_override=x"})[0] == 403


def test_the_token_is_asked_for_and_pages_of_others_are_refused(backend, facts, tmp_path):
    with serving(backend, tmp_path, facts=facts, token="a token of this test") as url:
        assert call(url, "GET", "/v1/model")[0] == 401
        assert call(url, "GET", "/metrics")[0] == 401
        assert call(url, "GET", "/v1/model", authorization="Bearer a token of this tesu")[0] == 401
        assert call(url, "GET", "/v1/model", authorization="Bearer a token of this test")[0] == 200
        for path in ("/", "/health", "/ready", "/docs", "/openapi.json"):
            assert call(url, "GET", path)[0] == 200
        assert call(url, "GET", "/", host="evil.example")[0] == 403
        assert call(url, "GET", "/", origin="http://evil.example")[0] == 403


def test_a_full_queue_says_when_to_come_again(backend, facts, video, tmp_path):
    from pipelines.serving.limits import Limits

    backend.held = threading.Event()
    try:
        with serving(backend, tmp_path, facts=facts, limits=Limits(queue=1)) as url:
            first: list[int] = []
            thread = threading.Thread(target=lambda: first.append(predict(url, ("video", video))[0]))
            thread.start()
            while "vidadapt_queue_length 1.0" not in call(url, "GET", "/metrics")[2]:
                pass
            status, headers, body = predict(url, ("video", video))
            assert (status, body["error"]["limit"]["name"]) == (503, "queue")
            assert int(headers["Retry-After"]) >= 1
            backend.held.set()
            thread.join()
            assert first == [200]
            assert predict(url, ("video", video))[0] == 200
    finally:
        backend.held = None


def test_requests_are_counted(url, video):
    predict(url, ("video", video))
    call(url, "GET", "/no/such/route")
    _, headers, text = call(url, "GET", "/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=")
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines['vidadapt_requests_total{path="/v1/predict",status="200"}']) >= 1
    assert float(lines['vidadapt_requests_total{path="other",status="404"}']) >= 1
    assert float(lines["vidadapt_batch_size_count"]) >= 1
    assert float(lines['vidadapt_request_seconds_count{path="/v1/predict"}']) >= 1
    assert lines["vidadapt_queue_length"] == "0.0"
    assert lines['vidadapt_model_version{model="toy",version=""}'] == "1.0"


def test_headers_that_never_end_close_the_connection(url):
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as link:
        link.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert link.recv(1) == b""


def test_a_body_that_is_announced_as_too_large_is_not_waited_for(url):
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as link:
        link.sendall(
            f"POST /v1/predict HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 99999999999\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode()
        )
        answer = b""
        while piece := link.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_sender_that_looks_for_an_answer_at_its_end_gets_one(url, tmp_path):
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(20_000_000))
    status, headers, body = predict(url, ("video", large))
    assert (status, headers["Content-Type"]) == (413, "application/json")
    assert body["error"]["limit"]["name"] == "max_bytes"


def test_names_are_never_paths(url, video, tmp_path):
    body = form(("video", video)).replace(b"a clip.mp4", b"../../../../../../tmp/\x1b[31mx\xff.mp4")
    status, _, answer = call(url, "POST", "/v1/predict", body, content_type="multipart/form-data; boundary=b0undary")
    assert status == 200
    assert answer["results"][0]["video"].isprintable()


def test_the_api_is_described(url):
    _, _, about = call(url, "GET", "/openapi.json")
    content = about["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert {"labels", "topk", "threshold", "window"} <= content["multipart/form-data"]["schema"]["properties"].keys()
    assert set(content) == {"multipart/form-data", "application/json"}
    _, _, model = call(url, "GET", "/v1/model")
    assert (model["classes"], model["search"]) == (list(CLASSES), False)
    assert "://" not in call(url, "GET", "/docs")[2].replace("http://www.w3.org", "")


def test_an_error_of_the_server_is_json_and_costs_one_request(backend, facts, video, tmp_path, capfd):
    class Broken(EchoBackend):
        async def predict(self, ask):
            raise ZeroDivisionError("of a test")

    with serving(Broken(), tmp_path, facts=facts) as url:
        for _ in range(2):
            status, _, body = predict(url, ("video", video))
            assert (status, body["error"]["code"]) == (500, "internal")
        assert call(url, "GET", "/health")[0] == 200
    assert "ZeroDivisionError: of a test" in capfd.readouterr().err


def test_search_without_embeddings_says_what_opens_it(url):
    status, _, body = predict_json(url, {"text": "a dog"}, "/v1/search")
    assert status == 404
    assert "--embeddings" in body["error"]["message"]


def test_search_ranks_by_the_texts_feature(tmp_path):
    def find(feature: np.ndarray, topk: int):
        return [{"video": f"{int(feature.argmax())}.mp4", "start": None, "end": None, "score": float(feature.max())}][
            :topk
        ]

    with serving(EchoBackend(), tmp_path, search=SearchIndex("x", "", find)) as url:
        status, _, body = predict_json(url, {"text": "a dog"}, "/v1/search")
        assert (status, body["results"][0]["video"]) == (200, "0.mp4")
        assert predict_json(url, {"text": ""}, "/v1/search")[0] == 422
    assert json.dumps(body["model"]) == json.dumps({"name": "toy", "version": FACTS.version})


def test_what_cannot_be_searched_by_text_is_refused_with_the_reason(tmp_path):
    facts = replace(FACTS, search_problem="its classes have no texts; set method.head=text")
    with serving(EchoBackend(), tmp_path, facts=facts, search=SearchIndex("x", "", lambda *_: [])) as url:
        status, _, body = predict_json(url, {"text": "a dog"}, "/v1/search")
        assert (status, body["error"]["code"]) == (409, "no_text_search")
        assert "method.head=text" in body["error"]["message"]


def test_it_is_ready_while_the_workers_answer(tmp_path):
    class Dead(EchoBackend):
        async def prepare(self, version):
            raise ConnectionError("gone")

    for backend, status in ((EchoBackend(), 200), (Dead(), 503)):
        with serving(backend, tmp_path) as url:
            assert call(url, "GET", "/ready")[0] == status
            assert call(url, "GET", "/health")[0] == 200


def test_a_span_of_the_video_is_the_timelines(url, video):
    _, _, body = predict(url, ("video", video), ("window", "1"), ("start", "1"), ("end", "3"))
    timeline = body["results"][0]["timeline"]
    assert (timeline["windows"][0]["start"], timeline["windows"][-1]["end"]) == (1, 3)
    edges = [(one["start"], one["end"]) for one in timeline["segments"]]
    assert (edges[0][0], edges[-1][1]) == (1, 3)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(edges))
