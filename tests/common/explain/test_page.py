"""The page: its data, its escaping, and its behaviour in a browser where there is one."""

import base64
import html
import json
import re

import cv2
import numpy as np
import pytest
from selenium.webdriver.support.wait import WebDriverWait

from common.explain.page import Shown, page, sprite
from common.explain.recording import Recording
from tests.browser import show

FRAMES = 12
LABEL = "</script><b>smg"


def panel(level):
    return np.full((84, 84, 3), level, np.uint8)


@pytest.fixture
def written():
    return of_q([float(i) for i in range(FRAMES)])


def of_q(values):
    """Frame i of the observation is 20·i grey, of the mask 255 − 20·i; rewards are 1 per step."""
    shown, record = {}, {LABEL: {"task": "walker_walk", "step": 1000, "shifts": {}}}
    for shift in ("train", "video_hard"):
        blank = np.zeros((FRAMES, 9, 84, 84), np.uint8)
        steps = np.arange(FRAMES) * 2
        shown[shift] = Shown(
            Recording(shift, steps, blank, blank, blank[:, 0] > 0, np.zeros((24, 6)), np.ones(24), None)
        )
        brightness = 20 if shift == "train" else 10
        shown[shift].rows[LABEL] = [
            {"observation": panel(brightness * i), "mask": panel(255 - 20 * i)} for i in range(FRAMES)
        ]
        shown[shift].q[LABEL] = values
        record[LABEL]["shifts"][shift] = {"numbers": {"mask/iou": 0.25, "mask/average_precision": None}}
    return page(shown, record, ("observation", "mask"))


def test_a_sprite_holds_every_frame_in_reading_order():
    found = sprite([panel(20 * i) for i in range(FRAMES)])
    kind, content = found["source"].split(",")
    assert kind == "data:image/webp;base64" and (found["width"], found["height"]) == (84, 84)
    image = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and image.shape == (2 * 84, 10 * 84, 3)
    assert abs(int(image[42, 3 * 84 + 42, 1]) - 60) < 3 and abs(int(image[84 + 42, 84 + 42, 1]) - 220) < 3


def test_the_page_is_whole_and_names_are_text(written):
    assert LABEL not in written and "&lt;/script&gt;&lt;b&gt;smg" in written
    assert not re.search(r'(src|href)="(?!data:|#)', written)
    assert "default-src 'none'" in html.unescape(written)
    [content] = re.findall(r'id="data">(.*?)</script>', written, re.S)
    data = json.loads(content)
    assert data["video_hard"]["steps"] == list(range(0, 24, 2))
    assert list(data["train"]["rows"][0]) == ["observation", "mask"]
    assert "<td>mask/iou</td><td>0.250</td>" in written and "<td>–</td>" in written


def test_a_q_that_is_not_finite_leaves_a_gap_or_a_sentence():
    def points(text):
        *_, curve = re.findall(r'<polyline [^>]*points="([^"]*)"', text)
        return len(curve.split())

    few = [float("inf"), float("nan"), *range(FRAMES - 2)]
    assert (points(of_q([0.0] * FRAMES)), points(of_q(few))) == (FRAMES, FRAMES - 2)
    assert "is finite nowhere" in of_q([float("nan")] * FRAMES)


PIXEL = """
const canvas = document.querySelector(`section:not(.hidden) canvas[data-column="${arguments[0]}"]`);
return canvas.getContext("2d").getImageData(42, 42, 1, 1).data[0];
"""
MOVE = """
const slider = document.getElementById("frame");
slider.value = arguments[0];
slider.dispatchEvent(new Event("input"));
"""


def test_scrubbing_and_switching_show_the_frames(written, browser, tmp_path):
    (tmp_path / "index.html").write_text(written)
    show(browser, tmp_path / "index.html")
    wait = WebDriverWait(browser, 60)

    def shows(column, level):
        wait.until(lambda opened: abs(opened.execute_script(PIXEL, column) - level) < 3)

    shows("mask", 255)
    browser.execute_script(MOVE, 11)
    shows("observation", 220)
    shows("mask", 35)
    assert browser.find_element("id", "now").text == "step 22"
    browser.find_element("css selector", 'button[data-shift="video_hard"]').click()
    shows("observation", 110)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    lines = browser.find_elements("css selector", "section:not(.hidden) line.now")
    assert len(lines) == 2
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
