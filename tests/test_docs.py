"""Comments that link to docs/RAY.md link to headings that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"docs/RAY\.md#([\w-]+)")


def test_links_lead_to_headings():
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "RAY.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    sources = [ROOT / "cluster.yaml", *(ROOT / "deploy").iterdir(), *(ROOT / "pipelines").rglob("*.py")]
    links = {(link, path.name) for path in sources for link in LINK.findall(path.read_text())}
    assert links
    assert {(link, name) for link, name in links if link not in anchors} == set()
