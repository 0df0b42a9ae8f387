"""A study's report: what it says, its files, and what a reader can do with it in a browser."""

import json
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

from common.errors import UserError
from common.study import command
from common.study.definition import load_study
from common.study.report import drawn_runs, learning_curves, profiles, scores
from common.study.results import collect
from common.study.table import build
from common.study.texts import MISSING
from tests.browser import errors, loaded, show
from tests.common.study.written_runs import PROVENANCE, STUDY, study, write_run

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
    Image.new("RGB", (30, 20)).save(planned.runs[0].folder / "sheet.png")
    assert command.report(*written(folder), str(folder / "report.html"), mix=False) == 0
    return folder / "report.html"


def written(folder: Path, *overrides: str) -> tuple[str, list[str]]:
    """A study's file and overrides."""
    return str(folder / "small.yaml"), [f"folder={json.dumps(str(folder / 'runs'))}", *overrides]


class Parsed(HTMLParser):
    """Texts, start tags and the cells of the tables' rows of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())
        if self.in_cell:
            self.rows[-1][-1] += data.strip()


def test_it_is_whole_and_what_run_folders_say_is_text(page: Path) -> None:
    parsed = Parsed(page.read_text())
    names = [tag for tag, _ in parsed.tags]
    assert names.count("script") == 1 and names.count("img") == 1
    # Two seeds of five cells, three agents' costs and the sum of them.
    assert parsed.texts.count(HOSTILE) == 10 + 3 + 1
    links = {
        value
        for _, attributes in parsed.tags
        for name, value in attributes.items()
        if name in ("src", "href")
    }
    assert all(link is not None and link.startswith(("#", "data:image/png;base64,")) for link in links)
    titles = ["Scores", "Learning curves", "Performance profiles", "Pictures", "Cost", "Runs"]
    assert [text for text in parsed.texts if text in titles] == titles + titles  # once in the navigation
    assert parsed.texts.count("200 ± 1") == 1 and MISSING in parsed.texts
    # Five cells under five shifts each, and no band as one evaluation's returns are all there is.
    series = [
        attributes["data-series"]
        for tag, attributes in parsed.tags
        if tag == "g" and "data-series" in attributes
    ]
    assert len([one for one in series if one == "2"]) >= 5


def test_its_head_counts_the_runs_where_they_are_no_full_grid(tmp_path: Path) -> None:
    more = """more:
- {tasks: [walker_walk], agents: [smg], seeds: [2]}
- {tasks: [cheetah_run], agents: [drq, smg], seeds: [0]}
"""
    study(tmp_path, text=STUDY + more)
    page = tmp_path / "report.html"
    command.report(*written(tmp_path), str(page), mix=False)
    # A grid of 2 × 3 × 2, a third seed of one cell, and two cells of a third task.
    assert "The study has 15 runs over 3 tasks, 3 agents and 3 seeds; 0 are done. Made " in page.read_text()
    command.report(*written(tmp_path, "tasks=walker_walk", "seeds=0"), str(page), mix=False)
    assert "The study has 3 runs over 1 task, 3 agents and 1 seed; 0 are done. Made " in page.read_text()


def test_it_says_how_the_agents_order_agrees_with_the_published_one(page: Path) -> None:
    rows = Parsed(page.read_text()).rows
    head = rows.index(["name", "Kendall's τ with the paper's order", "95% interval", "agents"])
    # Walker, printed: DrQ 110, SAC 132, SMG 814; ours: SAC, SMG, DrQ, two pairs of three reversed. Finger,
    # printed: SAC 22, DrQ 54; ours the reverse. Drawing seeds, SAC's 9 to 10 and DrQ's 8 to 9 tie in one of
    # 16 draws, for a τ of 0 there; nothing else changes.
    assert rows[head + 1 : head + 4] == [
        ["walker_walk", "−0.33", "[−0.33, −0.33]", "3"],
        ["finger_spin", "−1.00", "[−1.00, 0.00]", "2"],
        ["mean", "−0.67", "[−0.67, −0.17]", "2 to 3"],
    ]
    # In the foot, where a click that sorts leaves it.
    assert "<tfoot><tr><td>mean</td>" in page.read_text().replace("\n", "")


def test_it_says_which_tasks_its_profiles_are_over_and_what_few_seeds_intervals_hold(page: Path) -> None:
    texts = Parsed(page.read_text()).texts
    # SMG has no run of finger spin.
    note = "Share of runs that score above a return, averaged over walker_walk, with its 95% interval."
    assert texts.index("Performance profiles", texts.index("Runs")) < texts.index(note)
    few = "95% intervals are too narrow with few seeds: on one task, those of a mean hold the true one in 50%"
    # Beside the scores, the curves and the profiles.
    assert len([text for text in texts if text.startswith(few)]) == 3


def test_it_says_what_the_finished_runs_took(page: Path) -> None:
    rows = Parsed(page.read_text()).rows
    head = rows.index(["agent", "device", "runs", "hours"])
    # A written run took 30 seconds; SMG has no run of finger spin.
    assert rows[head + 1 : head + 5] == [
        ["sac", HOSTILE, "4", "0.03"],
        ["drq", HOSTILE, "4", "0.03"],
        ["smg", HOSTILE, "2", "0.02"],
        ["all", HOSTILE, "10", "0.08"],
    ]


@pytest.mark.slow
def test_it_says_how_many_runs_do_not_say_what_they_took(tmp_path: Path) -> None:
    runs = study(tmp_path, "agents=[sac,drq]").runs
    for run in runs:
        write_run(run)
    text = "Wall time of the finished runs"
    assert f"<p>{text}.</p>" in told(tmp_path)
    for run in runs[:3]:
        (run.folder / "metrics.jsonl").unlink()
    page = told(tmp_path)
    assert f"<p>{text}, without 3 of all 8, whose folders do not say what they took.</p>" in page
    assert ["all", PROVENANCE["device"], "5", "0.04"] in Parsed(page).rows  # 5 × 30 seconds


def told(folder: Path) -> str:
    """The report of the study without SMG."""
    command.report(*written(folder, "agents=[sac,drq]"), str(folder / "report.html"), mix=False)
    return (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_picture_that_cannot_be_read_is_named_and_the_page_is_written_without_it(tmp_path: Path) -> None:
    first, second, third, *_ = study(tmp_path).runs
    for run in (first, second, third):
        write_run(run)
    Image.new("RGB", (30, 20)).save(second.folder / "sheet.png")
    (first.folder / "sheet.png").symlink_to("sheet.png")  # to itself, which nobody can follow
    (third.folder / "sheet.png").symlink_to("/proc/self/mem")  # a file whose first byte nobody can read
    page = tmp_path / "report.html"
    assert command.report(*written(tmp_path), str(page), mix=False) == 0
    parsed = Parsed(page.read_text())
    assert [tag for tag, _ in parsed.tags].count("img") == 1
    assert (
        f"Pictures that cannot be read are left out: {first.name}/sheet.png (Too many levels of symbolic "
        f"links), {third.name}/sheet.png (Input/output error)."
    ) in parsed.texts


def test_without_a_finished_run_there_is_neither_order_nor_cost(tmp_path: Path) -> None:
    study(tmp_path)
    command.report(*written(tmp_path), str(tmp_path / "report.html"), mix=False)
    parsed = Parsed((tmp_path / "report.html").read_text())
    assert "No finished run says how long it took." in parsed.texts
    assert not [row for row in parsed.rows if {"agents", "hours"} & set(row) and "state" not in row]


def test_a_learning_curve_is_the_mean_over_seeds_and_its_interval_lies_between_them(page: Path) -> None:
    results = drawn_runs(collect(load_study(*written(page.parent))))
    plots = learning_curves(results, "walker_walk")
    assert [plot.title for plot in plots] == [
        f"walker_walk, {shift}" for shift in ("video_hard", "train", "color_easy", "color_hard", "video_easy")
    ]
    drq = plots[0].lines[1]
    assert (drq.name, drq.index, drq.x, drq.y) == ("drq", 1, [30, 60], [300.5, 300.5])
    # Of the four draws of two seeds one has the lower twice, one the higher.
    assert (drq.low, drq.high) == ([300, 300], [301, 301])
    assert {plot.y_range for plot in plots} == {(0, 301)}
    assert [line.name for line in learning_curves(results, "finger_spin", ["train"])[0].lines] == [
        "sac",
        "drq",
    ]


def test_plots_lie_beside_it_for_a_paper(page: Path) -> None:
    names = [
        f"report_{name}{suffix}" for name in ("curves", "scores", "profiles") for suffix in (".pdf", ".png")
    ]
    assert sorted(path.name for path in page.parent.glob("report_*")) == sorted(names)
    with Image.open(page.with_name("report_curves.png")) as image:
        # Five shifts, three and two beside each other, of two tasks; three agents' names take one line.
        assert image.size == (3 * 4 * 150, round((4 * 2.6 + 0.3) * 150))


@pytest.mark.slow
def test_curves_of_unfinished_runs_are_marked_and_only_where_they_belong_beside_the_others(
    tmp_path: Path,
) -> None:
    other = PROVENANCE | {"data": PROVENANCE["data"] | {"video_hard": {"clips": 100, "hash": "other"}}}
    for run in study(tmp_path).runs:
        if run.task == "finger_spin" or run.column == "sac":
            write_run(run, steps=[30] if (run.column, run.seed) == ("sac", 1) else [30, 60])
        else:
            write_run(run, steps=[30], provenance=other if run.column == "smg" else PROVENANCE)
    results = collect(load_study(*written(tmp_path)))
    drawn = drawn_runs(results)

    def lines(runs, task: str) -> list[tuple[str, list[float], bool]]:
        [plot] = learning_curves(runs, task, ["video_hard"])
        return [(line.name, list(line.x), line.unfinished) for line in plot.lines]

    assert lines(drawn, "walker_walk") == [("sac", [30, 60], False), ("drq", [30], True)]
    assert lines(drawn, "finger_spin") == [(name, [30, 60], False) for name in ("sac", "drq", "smg")]
    dotted, left_out = drawn.notes
    assert dotted == "Dotted, as no run of theirs has finished: drq on walker_walk."
    assert left_out.startswith("Left out, as unfinished runs that do not belong beside the others: smg on ")
    assert (
        "hash bb in 6 runs such as walker_walk/sac/seed0, but " in left_out and "hash other in 2" in left_out
    )
    assert lines(drawn_runs(results, mix=True), "walker_walk")[2] == ("smg", [30], True)
    for mix, expected in ((False, {dotted, left_out}), (True, {dotted[:-1] + ", smg on walker_walk."})):
        command.report(*written(tmp_path), str(tmp_path / "report.html"), mix)
        texts = set(Parsed((tmp_path / "report.html").read_text()).texts)
        assert {text for text in texts if text.startswith(("Dotted", "Left out"))} == expected


def test_before_any_run_has_finished_all_are_drawn_whichever_is_first(tmp_path: Path) -> None:
    other = PROVENANCE | {"data": PROVENANCE["data"] | {"video_hard": {"clips": 100, "hash": "other"}}}
    for run in study(tmp_path).runs:
        write_run(run, steps=[30], provenance=other if run.column == "sac" else PROVENANCE)
    drawn = drawn_runs(collect(load_study(*written(tmp_path))))
    [plot] = learning_curves(drawn, "walker_walk", ["video_hard"])
    assert [(line.name, line.unfinished) for line in plot.lines] == [
        (name, True) for name in ("sac", "drq", "smg")
    ]
    together = drawn.notes[1]
    assert together.startswith("Drawn together, but no table would hold both: backgrounds of video_hard: ")
    assert "hash other in 4 runs such as walker_walk/sac/seed0" in together
    assert "hash bb in 8 runs" in together


def test_a_profile_falls_at_each_return(page: Path) -> None:
    [profile] = profiles(build(collect(load_study(*written(page.parent)))))
    # SMG lacks finger spin, so the profile is of walker walk alone; a thirtieth of its range is left free.
    end = 301 + 301 / 30
    assert profile.stairs and [(line.name, line.x, line.y) for line in profile.lines] == [
        (name, [0, first, first + 1, end], [1, 0.5, 0, 0])
        for name, first in (("sac", 100), ("drq", 300), ("smg", 200))
    ]


def test_scores_and_profiles_name_their_tasks(page: Path) -> None:
    table = build(collect(load_study(*written(page.parent))))
    assert [plot.x_label for plot in (*scores(table), *profiles(table))] == [
        "interquartile mean of returns (walker_walk)", "return (walker_walk)"
    ]  # fmt: skip
    table = build(collect(load_study(*written(page.parent, "agents=[sac,drq]"))))
    [plot] = scores(table)
    assert plot.x_label == "interquartile mean of returns (walker_walk,\nfinger_spin)"
    assert plot.height == pytest.approx(0.8 + 2 * 0.24 + 0.15)


def test_a_place_that_cannot_be_written_is_named(page: Path) -> None:
    with pytest.raises(UserError, match=r"report\.html/below cannot be written"):
        command.report(*written(page.parent), str(page / "below"), mix=False)


def column(browser: webdriver.Chrome, number: int) -> list[str]:
    """First lines of the cells of a column of the first table."""
    cells = browser.find_elements(By.CSS_SELECTOR, f"#scores tbody tr td:nth-child({number})")
    return [cell.text.split("\n")[0] for cell in cells[:2]]


@pytest.mark.slow
def test_tables_sort_and_agents_hide_by_a_click(browser: webdriver.Chrome, page: Path) -> None:
    show(browser, page)
    assert column(browser, 1) == ["walker_walk", "finger_spin"]
    sac, _, smg = browser.find_elements(By.CSS_SELECTOR, "#scores thead button")[1:4]
    sac.click()
    assert column(browser, 1) == ["finger_spin", "walker_walk"]
    assert sac.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
    sac.click()
    assert column(browser, 1) == ["walker_walk", "finger_spin"]
    for _ in range(2):  # a missing cell is last in either order
        smg.click()
        assert column(browser, 4)[1] == "-"

    def shown(series: int) -> list[bool]:
        parts = browser.find_elements(By.CSS_SELECTOR, f"#curves .plot [data-series='{series}']")
        return [part.value_of_css_property("display") != "none" for part in parts]

    assert len(shown(1)) >= 10 and all(shown(1))
    browser.find_element(By.CSS_SELECTOR, "#curves button[data-series='1']").click()
    assert not any(shown(1)) and all(shown(0))
    assert errors(browser) == [] and browser.execute_script("return window.owned") is None


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_its_screen_in_its_colours(
    browser: webdriver.Chrome, page: Path, width: int, dark: bool
) -> None:
    show(browser, page, width=width, dark=dark)
    assert errors(browser) == [] and loaded(browser) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    title = browser.find_element(By.CSS_SELECTOR, "#curves .plot text")
    paper, ink = (
        np.mean([float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]])
        for colour in (
            browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color"),
            title.value_of_css_property("fill"),
        )
    )
    assert (paper < 40 and ink > 150) if dark else (paper > 240 and ink < 110)
    plot = browser.find_element(By.CSS_SELECTOR, "#curves .plot")
    assert 200 < plot.rect["width"] < width


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_a_wide_table_shows_that_it_goes_on_and_keeps_its_names(
    browser: webdriver.Chrome, page: Path, dark: bool
) -> None:
    show(browser, page, width=600, dark=dark)
    box = browser.find_element(By.CSS_SELECTOR, "#runs .scroll")
    browser.execute_script("arguments[0].scrollIntoView()", box)
    name = box.find_element(By.CSS_SELECTOR, "tbody td")

    def scrolled(by: int) -> tuple[float, float]:
        """Where the first name lies, and how much the box's right edge differs in colour from its middle."""
        browser.execute_script("arguments[0].scrollLeft = arguments[1]", box, by)
        with Image.open(BytesIO(box.screenshot_as_png)) as image:
            pixels = np.median(np.asarray(image.convert("L"), np.float64)[10:], axis=0)
        return name.rect["x"], abs(pixels[-4] - np.median(pixels))

    at_start, at_end = scrolled(0), scrolled(10_000)
    assert browser.execute_script("return arguments[0].scrollLeft", box) > 50
    assert at_start[0] == at_end[0]
    assert at_start[1] > 30 and at_end[1] < 5
