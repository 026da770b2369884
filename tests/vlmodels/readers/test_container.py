"""A name is a file, always; playlists are named and not followed."""

from __future__ import annotations

import pytest

from tests.helpers.videofiles import numbers, write_video
from vlmodels.sampling import segment_indices
from vlmodels.video import VideoError, probe, read_clip


def middle(n):
    return segment_indices(n, 8)


ODD = (
    *("2024-05-01T10:30.mp4", "http:/host/x.mp4", "concat:a.mp4|b.mp4", "file:a.mp4", "pipe:0", "data:,x.mp4"),
    *("~a.mp4", "-a.mp4", "a%03d.mp4", "subfile,,start,0,end,9,,:a.mp4", "a\nb.mp4", "\udcff.mp4", "Ünï 動画.mp4"),
)


@pytest.mark.parametrize("sparse", [0, 1000], ids=["seeking", "plain"])
@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_name_is_a_file(tmp_path, monkeypatch, name, sparse):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    write_video(tmp_path / "plain.mp4", frames=40).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    frames, info = read_clip(name, middle, sparse=sparse)
    assert numbers(frames) == middle(40).tolist()
    assert probe(name).n_frames == info.n_frames == 40


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsibling.ts\n#EXT-X-ENDLIST\n"
DASH = """<?xml version="1.0"?>
<!-- a manifest -->
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">
<Period><AdaptationSet><Representation id="0" mimeType="video/mp4" bandwidth="1">
<BaseURL>sibling.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>"""
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
PLAYLISTS = {
    "an FFmpeg concat list": "ffconcat version 1.0\nfile sibling.mp4\n",
    "an HLS playlist": HLS,
    "a DASH manifest": DASH,
    "an SDP session description": SDP,
    "a Smooth Streaming manifest": '<?xml version="1.0"?>\n<SmoothStreamingMedia MajorVersion="2" Duration="0"/>',
    "an IMF playlist": '<?xml version="1.0"?><!-- a --><cpl:CompositionPlaylist xmlns:cpl="http://x"/>',
    "an ASX playlist": '<asx version="3.0"><entry><ref href="sibling.mp4"/></entry></asx>',
    "a PLS playlist": "[playlist]\nFile1=sibling.mp4\n",
}


@pytest.mark.parametrize("suffix", ["mp4", "ts", "m3u8", "mpd", "sdp"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_is_named_and_not_played(tmp_path, kind, suffix):
    write_video(tmp_path / "sibling.mp4")
    write_video(tmp_path / "sibling.ts", codec="mpeg2video")
    path = tmp_path / f"a.{suffix}"
    path.write_text(PLAYLISTS[kind])
    for read in (lambda: read_clip(path, middle), lambda: probe(path)):
        with pytest.raises(VideoError) as caught:
            read()
        assert caught.value.cause == f"{kind}, not a video"


def test_the_list_beside_this_project(shared_data):
    with pytest.raises(VideoError, match="an FFmpeg concat list, not a video"):
        read_clip(shared_data / "faults" / "concat_sibling.mp4", middle)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"1\n00:00:01,000 --> 00:00:02,000\nsubtitle\n", "not "),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "not "),
        (b"%PDF-1.4\n", "not a readable video"),
    ],
)
def test_other_files_are_no_videos(tmp_path, content, cause):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=cause):
        read_clip(tmp_path / "a.mp4", middle)


@pytest.mark.parametrize(
    ("name", "cause"),
    [("a" * 300, "cannot be read: File name too long"), ("a\0b", "no such file"), (".", "a folder"), ("x", "no such")],
)
def test_names_without_a_file(tmp_path, name, cause):
    with pytest.raises(VideoError, match=cause):
        read_clip(tmp_path / name, middle)
