"""Strings become files, within what is allowed and how much."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import threading

import pytest

from tests.helpers import s3_store
from tests.helpers.dripping import dripping
from vlmodels.errors import UserError
from vlmodels.video_sources import INPUTS, MOST_MB, VideoSources

CONTENT = bytes(range(256)) * 8
BARE = base64.b64encode(CONTENT).decode()
EVERYTHING = VideoSources()


def read(source, sources=EVERYTHING):
    with sources.file(source) as (path, _):
        return path.read_bytes()


@contextlib.contextmanager
def served(folder, redirect=""):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", redirect)
                self.end_headers()
            else:
                super().do_GET()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def file(tmp_path):
    (tmp_path / "in here").mkdir()
    path = tmp_path / "in here" / "a.mp4"
    path.write_bytes(CONTENT)
    return path


def test_each_form_of_a_video_becomes_its_bytes(file):
    urlsafe = base64.urlsafe_b64encode(CONTENT).decode().rstrip("=")
    lines = "\n".join(BARE[at : at + 76] for at in range(0, len(BARE), 76))
    for source in (str(file), file.as_uri(), BARE, urlsafe, lines, f"data:video/mp4;base64,{BARE}", CONTENT):
        assert read(source) == CONTENT, str(source)[:40]
    with served(file.parent) as address:
        assert read(f"{address}/a.mp4") == CONTENT


def test_what_lies_in_a_store_is_fetched():
    with s3_store.serve() as store, s3_store.environment(store.environment):
        from pyarrow import fs

        s3 = fs.S3FileSystem(endpoint_override=store.endpoint)
        with s3.open_output_stream(f"{s3_store.BUCKET}/a.mp4") as out:
            out.write(CONTENT)
        assert read(f"s3://{s3_store.BUCKET}/a.mp4") == CONTENT
        with pytest.raises(UserError, match=r"s3://.*/b\.mp4 cannot be fetched"):
            read(f"s3://{s3_store.BUCKET}/b.mp4")


def test_copies_are_deleted(file):
    with EVERYTHING.file(BARE) as (path, name):
        assert path.is_file()
        assert name == "the base64 video"
    assert not path.exists()
    with EVERYTHING.file(str(file)) as (path, _):
        assert path == file
    assert file.exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "not nothing"),
        (float("nan"), "not nothing"),
        ("  ", "an empty text"),
        (["a.mp4"], "type list"),
        ("/no/such.mp4", "no such file"),
        ("a\0b.mp4", r"U\+0000"),
        ("http://127.0.0.1/a\r\nX: y", r"U\+000D"),
        ("x" * 5000 + ".mp4", "no such file"),
        ("data:video/mp4,plain", "must hold base64"),
        ("data:video/mp4;base64,AB*D", "damaged"),
        ("http://127.0.0.1:9/a.mp4", "cannot be fetched"),
        ("nonsense://somewhere/a.mp4", "cannot be fetched"),
    ],
)
def test_what_is_no_video_is_named(source, words):
    with pytest.raises(UserError, match=words) as error:
        read(source)
    assert len(str(error.value)) < 600


def test_passwords_and_signatures_of_an_address_are_not_shown():
    with pytest.raises(UserError) as error:
        read("http://me:secret@127.0.0.1:9/a.mp4?signature=secret")
    assert "secret" not in str(error.value)
    assert "127.0.0.1:9/a.mp4" in str(error.value)


def test_sizes_are_bounded(file):
    small = VideoSources(most_bytes=1000)
    with served(file.parent) as address:
        for source in (BARE, CONTENT, f"data:;base64,{BARE}", f"{address}/a.mp4"):
            with pytest.raises(UserError, match=MOST_MB):
                read(source, small)
    assert read(str(file), small) == CONTENT  # it is here already


@pytest.mark.parametrize("where", ["header", "redirect", "body"])
def test_a_server_that_drips_is_left_when_the_time_is_up(where):
    with dripping(where) as server:
        with pytest.raises(UserError, match=r"not whole after 0\.2 s"):
            read(f"{server.address}/a.mp4", VideoSources(most_seconds=0.2))
        assert server.was_left.wait(5), "nothing reads on"


def test_a_server_reads_base64_alone_unless_it_is_told_more(file):
    served_environment = {"__pyfunc_model_path__": "model"}
    assert VideoSources.from_environment({}) == EVERYTHING
    closed = VideoSources.from_environment(served_environment)
    assert read(BARE, closed) == CONTENT
    for source in (str(file), file.as_uri(), "/no/such/file", "s3://b/k", "http://127.0.0.1:9/"):
        with pytest.raises(UserError, match=INPUTS):
            read(source, closed)
    open_one = VideoSources.from_environment({**served_environment, INPUTS: "files, uris", MOST_MB: "0.5"})
    assert read(str(file), open_one) == CONTENT
    assert open_one.most_bytes == 1 << 19
    with pytest.raises(UserError, match=INPUTS):
        read(BARE, open_one)


def test_a_folder_or_an_address_can_be_allowed_alone(file, tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    (file.parent / "link.mp4").symlink_to(secret)
    with served(tmp_path, redirect=str(secret.as_uri())) as address:
        some = VideoSources((f"{file.parent}/", f"{address}/in%20here/"))
        assert read(str(file), some) == CONTENT
        assert read(f"{address}/in%20here/a.mp4", some) == CONTENT
        host = address.removeprefix("http://")
        for source in (
            *(str(secret), f"{file.parent}/../secret.mp4", f"{file.parent}/link.mp4"),
            *(f"{address}/secret.mp4", f"{address}/in%20here/../secret.mp4", f"{address}/in%20here/%2e%2e/secret.mp4"),
            *(f"{address}/in%20here@{host}/secret.mp4", f"file://{secret}", f"{address}/in%20here/a.mp4?x=1"),
        ):
            with pytest.raises(UserError, match=INPUTS):
                read(source, some)


def test_an_address_never_leads_to_a_file_of_a_server(file):
    with served(file.parent, redirect=file.as_uri()) as address:
        remote = VideoSources(("uris",))
        for source in (f"{address}/moved", f"local://{file}", f"simplecache::file://{file}", f"zip://a::file://{file}"):
            with pytest.raises(UserError):
                read(source, remote)
    with served(file.parent, redirect="/a.mp4") as address:
        assert read(f"{address}/moved", remote) == CONTENT
        with pytest.raises(UserError, match="302"):
            read(f"{address}/moved", VideoSources((f"{address}/",)))


def test_settings_that_mean_nothing_are_refused():
    for name, value in ((INPUTS, "base64,paths"), (MOST_MB, "many")):
        with pytest.raises(UserError, match=name):
            VideoSources.from_environment({name: value})
