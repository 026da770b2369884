"""Names of videos, of clips, and of source videos."""

from __future__ import annotations

import pytest

from pipelines.videos.uris import clip_id, group_of, uri_of


@pytest.mark.parametrize(
    ("listed", "uri"),
    [
        ("./a//b.mp4", "a/b.mp4"),
        (r"wave\w1.mp4", "wave/w1.mp4"),
        (r".\wave\w1.mp4", "wave/w1.mp4"),
        (r"D:\data\w1.mp4", "D:/data/w1.mp4"),
        (r"\\server\share\w1.mp4", "//server/share/w1.mp4"),
        ("s3://bucket//a.mp4", "s3://bucket/a.mp4"),
        ("2024-05-01T10:30.mp4", "2024-05-01T10:30.mp4"),
    ],
)
def test_paths_of_lists_become_uris(listed, uri):
    assert uri_of(listed) == uri


def test_names_and_groups():
    assert clip_id("a/b.mp4") == clip_id("a/b.mp4") != clip_id("b.mp4")
    assert len(clip_id("é")) == 16
    assert group_of("Typing/v_Typing_g24_c04.avi") == "v_Typing_g24"
    assert group_of("har_Clapping_g10_c01.mp4") == "har_Clapping_g10"
    assert group_of("How_to_pour_beer_pour_u_nm_np1_fr_goo_0.avi") == "How_to_pour_beer_pour"
    assert group_of("train/-aNccq2jvUA_000055_000065.mp4") == "train/-aNccq2jvUA_000055_000065"
    assert group_of("A/0001.mp4") == "A/0001" != group_of("B/0001.mp4")
    assert group_of("part.1.mp4") == "part.1"
