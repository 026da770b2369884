"""The page in a real browser: Debian's Chromium, steered by Playwright, without network but for the server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipelines.serving.search import SearchIndex
from tests.helpers.serving import BackendHere, EchoBackend, serving
from tests.pipelines.serving.conftest import LIMITS

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed (it comes with the extra dev)"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt install chromium)")
SIZES = {"wide": (1280, 900), "narrow": (400, 800)}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=SIZES)
def page(request, browser, url):
    """The page in a window of some size; requests to other servers, and errors of its program, fail the test."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(60_000)
    foreign, errors = [], []
    page.on(
        "request",
        lambda asked: foreign.append(asked.url) if not asked.url.startswith((url, "data:", "blob:")) else None,
    )
    page.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108 - Playwright reads its signature
    page.goto(url)
    yield page
    if folder := os.environ.get("VIDADAPT_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{request.node.name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"
    context.close()
    assert not foreign
    assert not errors


def rows(page):
    return page.locator("#results article").first.locator("table").first.locator("tr")


def test_a_video_is_answered_with_bars_pictures_and_a_timeline(page, video):
    page.get_by_text("At most 400000 bytes").wait_for()
    page.get_by_label("in windows of").check()
    page.get_by_label("seconds of a window").fill("2")
    page.get_by_label("Choose videos").set_input_files(video)
    page.locator("#results article").wait_for()
    assert rows(page).count() == 3
    assert page.get_by_role("status").inner_text().startswith("a clip.mp4: ")
    assert page.locator(".pictures img").first.evaluate("image => image.naturalWidth") > 0
    assert page.locator(".strip span").count() >= 1
    assert page.get_by_role("rowheader", name="0.0 to").count() == 1
    widths = page.locator("#results .bar i").evaluate_all(
        "bars => bars.map(bar => 100 * bar.offsetWidth / bar.parentNode.offsetWidth)"
    )
    shares = [float(text.rstrip(" %")) for text in page.locator("#results td.share").all_inner_texts()]
    assert widths == pytest.approx(shares[: len(widths)], abs=2)
    assert page.evaluate("document.activeElement.id") == "results"


def test_own_labels_and_a_broken_video(page, video, tmp_path):
    broken = tmp_path / "<b>broken.mp4"
    broken.write_bytes(b"<html>")
    page.get_by_label("Own labels").fill('blue ball\n"go, then stop", <i>sea</i>')
    page.get_by_label("Choose videos").set_input_files([video, broken])
    page.locator("#results article").nth(1).wait_for()
    assert set(rows(page).locator("th").all_inner_texts()) == {"blue ball", "go, then stop", "<i>sea</i>"}
    assert page.locator("#results article").nth(1).locator("h2").inner_text() == "<b>broken.mp4"
    assert page.locator("#results .failed").inner_text()
    page.get_by_label("Own labels").fill("only one")
    page.get_by_role("button", name="Ask again").click()
    page.locator("#results").get_by_text("at least 2").wait_for()


def test_a_video_is_dropped_and_one_over_the_limit_is_not_sent(page, video, tmp_path):
    page.get_by_text("At most").wait_for()
    drop = """([name, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name));
        window.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true, bubbles: true }));
    }"""
    page.evaluate(drop, ["dropped.mp4", list(video.read_bytes())])
    page.locator("#results article").wait_for()
    assert page.locator("#results h2").inner_text() == "dropped.mp4"
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(LIMITS.max_bytes + 1))
    page.get_by_label("Choose videos").set_input_files(large)
    page.get_by_role("alert").get_by_text("over the limit").wait_for()


def test_all_is_reached_by_the_keyboard(page):
    page.get_by_text("At most").wait_for()
    reached = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"files", "labels", "timeline", "window", "stride", "The API"} <= reached


def test_every_field_has_a_name(page):
    nameless = page.evaluate("""() => [...document.querySelectorAll('input, textarea')]
        .filter(field => !field.labels.length && !field.ariaLabel).map(field => field.id)""")
    assert nameless == []


def test_the_api_page_works_without_network(page, url):
    page.goto(f"{url}/docs")
    page.get_by_text("POST /v1/predict").wait_for()
    assert page.get_by_text("own labels").count() + page.get_by_text("class names to choose from").count() >= 1


def test_the_token_is_asked_for(browser, model, facts, tmp_path):
    backend = BackendHere(model, LIMITS)
    with serving(backend, tmp_path, facts=facts, token="0123456789abcdef") as url:
        page = browser.new_page()
        page.goto(url)
        page.get_by_label("Token of this server").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        page.get_by_role("alert").get_by_text("Bearer").wait_for()
        page.get_by_label("Token of this server").fill("0123456789abcdef")
        page.get_by_role("button", name="Use it").click()
        page.get_by_text("At most").wait_for()
        assert page.get_by_label("Token of this server").is_hidden()
        page.close()


def test_paths_of_found_videos_do_not_widen_the_page(browser, tmp_path):
    path = "/videos/" + "a_long_folder_name_" * 6 + "/clip.mp4"
    hit = {"video": path, "start": None, "end": None, "score": 0.5}
    with serving(EchoBackend(), tmp_path, search=SearchIndex("x", "", lambda _, __: [hit])) as url:
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.goto(url)
        page.get_by_label("What is looked for").fill("a dog")
        page.get_by_role("button", name="Search").click()
        page.get_by_text(path).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.close()
