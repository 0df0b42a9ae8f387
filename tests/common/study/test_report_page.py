"""The report in a real browser."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from common.study import command
from tests.browser import show
from tests.common.study.written_runs import PROVENANCE, study, write_run

HOSTILE = "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
RETURNS = {"walker_walk": {"sac": 100, "drq": 300, "smg": 200}, "finger_spin": {"sac": 9, "drq": 8}}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study without one of its cells, with a picture and a hostile run folder."""
    folder = tmp_path_factory.mktemp("report")
    planned = study(folder)
    for run in planned.runs:
        value = RETURNS[run.task].get(run.column)
        if value is not None:
            write_run(run, {"video_hard": [value + run.seed]}, provenance=PROVENANCE | {"device": HOSTILE})
    picture = np.full((20, 30, 3), 128, np.uint8)
    cv2.imwrite(str(planned.runs[0].folder / "sheet.png"), picture)
    overrides = [f"folder={json.dumps(str(folder / 'runs'))}"]
    assert command.report(str(folder / "small.yaml"), overrides, str(folder / "report.html"), mix=False) == 0
    return folder / "report.html"


def column(browser: webdriver.Chrome, number: int) -> list[str]:
    """First lines of the cells of a column of the first table."""
    cells = browser.find_elements(By.CSS_SELECTOR, f"#scores tbody tr td:nth-child({number})")
    return [cell.text.split("\n")[0] for cell in cells[:2]]


def hidden(line: WebElement) -> bool:
    return line.value_of_css_property("display") == "none"


def test_it_loads_alone_and_says_nothing(browser: webdriver.Chrome, page: Path) -> None:
    show(browser, page)
    assert browser.get_log("browser") == []
    names = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in names if not name.startswith("data:")] == []
    assert browser.execute_script("return window.owned") is None
    titles = [heading.text for heading in browser.find_elements(By.TAG_NAME, "h2")]
    assert titles == ["Scores", "Learning curves", "Performance profiles", "Pictures", "Runs"]


def test_figures_are_there(browser: webdriver.Chrome, page: Path) -> None:
    show(browser, page)
    curves = browser.find_elements(By.CSS_SELECTOR, "#curves .chart polyline.curve")
    assert len(curves) == 5 * 5  # cells with runs, each under five shifts
    for curve in curves:
        assert curve.rect["width"] > 100
    image = browser.find_element(By.CSS_SELECTOR, "#pictures img")
    browser.execute_script("arguments[0].scrollIntoView()", image)
    browser.execute_async_script(
        "const [image, done] = arguments; image.decode().then(() => done(), done)", image
    )
    assert image.get_property("naturalWidth") == 30
    assert len(browser.find_elements(By.CSS_SELECTOR, "#profiles svg")) == 1


def test_tables_sort_by_a_click(browser: webdriver.Chrome, page: Path) -> None:
    show(browser, page)
    assert column(browser, 1) == ["walker_walk", "finger_spin"]
    sac = browser.find_element(By.CSS_SELECTOR, "#scores th:nth-child(2) button")
    sac.click()
    assert column(browser, 1) == ["finger_spin", "walker_walk"]
    assert sac.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
    sac.click()
    assert column(browser, 1) == ["walker_walk", "finger_spin"]
    smg = browser.find_element(By.CSS_SELECTOR, "#scores th:nth-child(4) button")
    for _ in range(2):  # a missing cell is last in either order
        smg.click()
        assert column(browser, 4)[1] == "-"


def test_agents_can_be_hidden(browser: webdriver.Chrome, page: Path) -> None:
    show(browser, page)
    drq = browser.find_element(By.CSS_SELECTOR, "#curves .legend button[data-line=drq]")
    lines = browser.find_elements(By.CSS_SELECTOR, ".chart [data-line=drq]")
    assert lines and not any(hidden(line) for line in lines)
    drq.click()
    assert all(hidden(line) for line in lines)
    assert not hidden(browser.find_element(By.CSS_SELECTOR, ".chart [data-line=sac]"))


@pytest.mark.parametrize("width", [360, 768])
def test_it_fits_narrow_screens(browser: webdriver.Chrome, page: Path, width: int) -> None:
    show(browser, page, width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_it_follows_the_reader_into_the_dark(browser: webdriver.Chrome, page: Path) -> None:
    shades = []
    for dark in (False, True):
        show(browser, page, dark=dark)
        colour = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
        shades.append(sum(int(part) for part in colour.strip("rgba()").split(",")[:3]) / 3)
    light, dark = shades
    assert light > 240 and dark < 40
