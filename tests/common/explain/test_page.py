"""The page: its data, its escaping, and its behaviour in a browser where there is one."""

import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.support.wait import WebDriverWait

from common.explain.page import Shown, curves, sprite, write_page
from common.explain.recording import Recording
from tests.browser import errors, loaded, show

FRAMES = 12
LABEL = "</script><script>window.owned = 1</script>smg"
COLUMNS = ("observation", "mask")


def panel(level: int) -> np.ndarray:
    return np.full((84, 84, 3), level, np.uint8)


def shown(shift: str, q: list[float]) -> Shown:
    """Frame i of the observation is 20·i grey, 10·i under video_hard, of the mask 255 − 20·i; steps pay 1."""
    steps = np.arange(FRAMES) * 2
    blank = np.zeros((FRAMES, 9, 84, 84), np.uint8)
    found = Shown(Recording(shift, steps, blank, blank, blank[:, 0] > 0, np.zeros((24, 6)), np.ones(24), {}))
    brightness = 20 if shift == "train" else 10
    found.rows[LABEL] = [
        {"observation": panel(brightness * i), "mask": panel(255 - 20 * i)} for i in range(FRAMES)
    ]
    found.q[LABEL] = q
    return found


def write(folder: Path, q: list[float]) -> str:
    numbers = {"numbers": {"mask/iou": 0.25, "mask/average_precision": None}}
    record = {LABEL: {"task": "walker_walk", "step": 1000, "shifts": {}}}
    both = {shift: shown(shift, q) for shift in ("train", "video_hard")}
    record[LABEL]["shifts"] = dict.fromkeys(both, numbers)
    paths = write_page(folder, both, record, COLUMNS)
    assert [path.name for path in paths] == ["index.html", "curves.pdf", "curves.png"]
    return paths[0].read_text()


@pytest.fixture
def written(tmp_path: Path) -> str:
    return write(tmp_path, [float(i) for i in range(FRAMES)])


def test_a_sprite_holds_every_frame_in_reading_order():
    found = sprite([panel(20 * i) for i in range(FRAMES)])
    kind, content = found["source"].split(",")
    assert kind == "data:image/webp;base64" and (found["width"], found["height"]) == (84, 84)
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.format == "WEBP" and image.size == (10 * 84, 2 * 84)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert abs(pixels[42, 3 * 84 + 42, 1] - 60) < 3 and abs(pixels[84 + 42, 84 + 42, 1] - 220) < 3


def test_the_page_is_whole_and_names_are_text(written: str):
    assert LABEL not in written and html.escape(LABEL) in written
    assert written.count("<script") == 2 and written.count("</script>") == 2
    assert not re.search(r'\b(src|href)="(?!data:|#)', written)
    assert "default-src 'none'" in written
    [content] = re.findall(r'id="data">(.*?)</script>', written, re.S)
    data = json.loads(content)
    assert data["video_hard"]["steps"] == list(range(0, 24, 2))
    assert set(data["train"]["rows"][0]) == {"observation", "mask"}
    cells = re.findall(r"<tr><td>(\S*)</td>\s*<td data-value=\"(.*?)\">(.*?)</td>", written)
    assert cells == 2 * [("mask/iou", "0.25", "0.250"), ("mask/average_precision", "", "–")]


def test_curves_are_the_return_so_far_and_q_where_it_is_finite(tmp_path: Path):
    so_far, q = curves("train", shown("train", [float("inf"), *range(1, FRAMES)]))
    assert so_far.lines[0].y == so_far.lines[0].x == list(range(0, 24, 2))
    assert np.isnan(q.lines[0].y[0]) and list(q.lines[0].y[1:]) == list(range(1, FRAMES))
    assert q.lines[0].x == so_far.lines[0].x
    assert "is finite nowhere" in write(tmp_path, [float("nan")] * FRAMES)


PIXEL = """
const canvas = document.querySelector(`section:not(.hidden) canvas[data-column="${arguments[0]}"]`);
return canvas.getContext("2d").getImageData(42, 42, 1, 1).data[0];
"""
MOVE = """
const slider = document.getElementById("frame");
slider.value = arguments[0];
slider.dispatchEvent(new Event("input"));
"""
CURSORS = """
return [...document.querySelectorAll("section:not(.hidden) .plot")].map((plot) => {
  const [area, cursor] = [".area", ".cursor"].map((part) => plot.querySelector(part).getBBox());
  return (cursor.x - area.x) / area.width;
});
"""


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(360, True), (1200, False)])
def test_scrubbing_and_switching_show_the_frames(written, browser, tmp_path, width, dark):
    show(browser, tmp_path / "index.html", width, dark)
    wait = WebDriverWait(browser, 60)

    def shows(column, level):
        wait.until(lambda opened: abs(opened.execute_script(PIXEL, column) - level) < 3)

    shows("mask", 255)
    browser.execute_script(MOVE, 11)
    shows("observation", 220)
    shows("mask", 35)
    assert browser.find_element("id", "now").text == "step 22"
    browser.execute_script(MOVE, 8)
    assert browser.execute_script(CURSORS) == pytest.approx([16 / 22] * 2, abs=1e-3)
    browser.find_element("css selector", 'button[data-shift="video_hard"]').click()
    shows("observation", 80)
    assert browser.execute_script(CURSORS) == pytest.approx([16 / 22] * 2, abs=1e-3)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert errors(browser) == [] and loaded(browser) == []
    assert browser.execute_script("return window.owned") is None
