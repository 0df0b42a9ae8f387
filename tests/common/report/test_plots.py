"""Plots: what is drawn where, in whose colours, and the same each time."""

import math
import re
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from common.report.pages import PALETTE
from common.report.plots import Curves, Estimate, Intervals, Line, Picture, save, short, svg

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text></svg><script>window.owned = 1</script> $\\frac{1}$ _a"
X = [0, 10, 30, 40]
Y = [2.0, 4.0, 3.0, 1.0]


def curves(**changes) -> Curves:
    lines = [Line("smg", 3, X, Y, [1.0, 3.0, 2.0, 0.5], [3.0, 8.0, 4.0, 2.0])]
    return Curves(**({"title": "walker", "lines": lines, "x_label": "steps", "y_label": "return"} | changes))


def parsed(plot) -> ElementTree.Element:
    return ElementTree.fromstring(svg(plot))


def points(element: ElementTree.Element) -> list[tuple[float, float]]:
    """The corners of the only path in an element."""
    [path] = element.iter(f"{SVG}path")
    numbers = re.findall(r"-?[\d.]+", path.attrib["d"])
    return [(float(x), float(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def series(plot, index: int = 3) -> list[ElementTree.Element]:
    return parsed(plot).findall(f".//{SVG}g[@data-series='{index}']")


def area(plot) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the axes."""
    [found] = parsed(plot).findall(f".//{SVG}g[@class='area']")
    xs, ys = zip(*points(found), strict=True)
    return min(xs), max(xs), max(ys), min(ys)


def test_a_curve_goes_through_its_points_on_axes_that_span_the_steps():
    plot = curves(y_range=(0, 10))
    _, line = series(plot)
    left, right, bottom, top = area(plot)
    for (x, y), (across, up) in zip(zip(X, Y, strict=True), points(line), strict=True):
        assert across == pytest.approx(left + x / 40 * (right - left), abs=0.01)
        # 3% of the range is left free below and above.
        assert up == pytest.approx(bottom + (y + 0.3) / 10.6 * (top - bottom), abs=0.01)


def test_its_band_goes_there_along_one_end_and_back_along_the_other():
    plot = curves(y_range=(0, 10))
    band, _ = series(plot)
    [used] = band.iter(f"{SVG}use")
    _, _, bottom, top = area(plot)
    heights = [up + float(used.attrib["y"]) for _, up in points(band)]
    values = {round((height - bottom) / (top - bottom) * 10.6 - 0.3, 2) for height in heights}
    assert values == {1.0, 3.0, 2.0, 0.5} | {3.0, 8.0, 4.0, 2.0}


def test_without_a_range_the_axis_takes_in_zero_and_nan_is_a_gap():
    plot = curves(lines=[Line("q", 0, X, [5.0, math.nan, 7.0, 7.0])])
    [line] = series(plot, 0)
    [path] = line.iter(f"{SVG}path")
    assert path.attrib["d"].count("M") == 2
    texts = [element.text for element in parsed(plot).iter(f"{SVG}text")]
    assert "0" in texts and "smg" not in texts


def test_estimates_are_points_on_their_intervals():
    plot = Intervals(
        "video_hard", [Estimate("drq", 0, 30.0, (20.0, 60.0)), Estimate("smg", 1, 50.0, None)], "IQM"
    )
    interval, point = series(plot, 0)
    (low, _), (high, _) = points(interval)
    [marker] = point.iter(f"{SVG}use")
    assert float(marker.attrib["x"]) == pytest.approx(low + (30 - 20) / (60 - 20) * (high - low), abs=0.01)
    [alone] = series(plot, 1)
    [other] = alone.iter(f"{SVG}use")
    assert float(other.attrib["x"]) == pytest.approx(low + (50 - 20) / 40 * (high - low), abs=0.01)
    assert float(other.attrib["y"]) > float(marker.attrib["y"])
    assert [text.text for text in parsed(plot).iter(f"{SVG}text")][-3:] == ["drq", "smg", "video_hard"]


def test_stairs_hold_each_value_until_just_before_the_next():
    lines = [Line("smg", 3, [0, 10, 40], [1.0, 0.5, 0.0], [1.0, 0.25, 0.0], [1.0, 0.75, 0.0])]
    plot = curves(lines=lines, y_range=(0, 1), stairs=True)
    band, line = series(plot)
    left, right, bottom, top = area(plot)
    corners = [
        (round((x - left) / (right - left) * 40, 1), round((y - bottom) / (top - bottom) * 1.06 - 0.03, 2))
        for x, y in points(line)
    ]
    assert corners == [(0, 1), (10, 1), (10, 0.5), (40, 0.5), (40, 0)]
    # The band too is as high at 40 as at 10; matplotlib closes it at both ends.
    [used] = band.iter(f"{SVG}use")
    at_40 = {
        round((y + float(used.attrib["y"]) - bottom) / (top - bottom) * 1.06 - 0.03, 2)
        for x, y in points(band)
        if math.isclose(x + float(used.attrib["x"]), right, abs_tol=0.01)
    }
    assert {0.25, 0.75} <= at_40


@pytest.mark.parametrize("x", [[40], X])
def test_a_point_on_the_edge_of_the_axes_is_whole(x: list[int]):
    """A single evaluation lies on the right edge, for the axis ends at the last step."""
    plot = curves(lines=[Line("smg", 3, x, [2.0] * len(x), [1.0] * len(x), [3.0] * len(x))])
    for drawn in series(plot):
        assert not [part for part in drawn.iter() if "clip-path" in part.attrib]


def test_the_interval_of_a_single_point_is_a_bar():
    plot = curves(lines=[Line("smg", 3, [40], [2.0], [1.0], [3.0])], y_range=(0, 10))
    band, point = series(plot)
    [used], [path] = band.iter(f"{SVG}use"), band.iter(f"{SVG}path")
    assert "stroke-width: 5" in path.attrib["style"] + used.attrib["style"]
    _, _, bottom, top = area(plot)
    heights = {
        round((y + float(used.attrib["y"]) - bottom) / (top - bottom) * 10.6 - 0.3, 2)
        for _, y in points(band)
    }
    assert heights == {1.0, 3.0}
    assert len(list(point.iter(f"{SVG}use"))) == 1


def test_what_is_unfinished_is_dotted_or_a_ring_and_a_legend_says_so():
    for x, ring in ((X, []), ([40], ["fill-opacity: 0"])):
        plot = curves(lines=[Line("smg", 3, x, Y[: len(x)], unfinished=True)])
        [line] = series(plot)
        assert "stroke-dasharray: 1.6" in ElementTree.tostring(line, "unicode")
        assert [marker.attrib["style"].split(";")[0] for marker in line.iter(f"{SVG}use")] == ring
        assert list(plot.draw(Figure().subplots())) == ["unfinished: smg"]
    assert list(curves().draw(Figure().subplots())) == ["smg"]


@pytest.mark.parametrize("index", [3, 11])
def test_colours_are_the_pages_and_repeat_dashed(index: int):
    text = svg(curves(lines=[Line("smg", index, X, Y)]))
    assert not re.search(r"(stroke|fill): #", text)
    assert {f"var(--{name})" for name in ("c3", "text", "soft", "rule")} == set(
        re.findall(r"var\(.*?\)", text)
    )
    _, *rest = text.split(f'data-series="{index}"')
    assert ("stroke-dasharray" in rest[0].split("</g>")[0]) == (index >= 8)
    assert not {light for light, _ in PALETTE.values()} & set(re.findall("#[0-9a-f]{6}", text))


def test_equal_plots_are_equal_and_others_share_no_name():
    assert svg(curves()) == svg(curves())
    names = [set(re.findall(r'id="([^"]*)"', svg(curves(title=title)))) for title in ("one", "other")]
    assert names[0] and names[1] and not names[0] & names[1]


def test_names_are_text():
    for plot in (
        curves(title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE),
        Intervals(HOSTILE, [Estimate(HOSTILE, 0, 1.0, None)], HOSTILE),
    ):
        root = parsed(plot)
        assert root.attrib["aria-label"] == HOSTILE
        texts = [element.text or "" for element in root.iter(f"{SVG}text")]
        assert sum(text.startswith("</text></svg><script>window") for text in texts) == 3
        assert texts.count(HOSTILE) == (3 if isinstance(plot, Curves) else 2)  # names are cut, labels are not
        assert not list(root.iter(f"{SVG}script")) and not list(root.iter("script"))


def test_files_for_a_paper_are_the_same_each_time(tmp_path: Path):
    pixels = np.zeros((50, 200, 3), np.uint8)
    pixels[:, :, 0] = 200
    rows = [[curves(), curves(lines=[Line(HOSTILE, 1, X, Y)])], [Picture(pixels)]]
    pdf, png = save(tmp_path / "walker.stand", rows)
    assert (pdf.name, png.name) == ("walker.stand.pdf", "walker.stand.png")
    first = pdf.read_bytes(), png.read_bytes()
    save(tmp_path / "walker.stand", rows)
    assert (pdf.read_bytes(), png.read_bytes()) == first
    assert first[0].startswith(b"%PDF") and b"/Type3" not in first[0]
    with Image.open(BytesIO(first[1])) as image:
        # Two plots of 4 inches; 2.6 of a plot, 8 · 50/200 of the picture below, and the legend.
        assert image.size == (8 * 150, round((2.6 + 2 + 0.3) * 150))
        counts = {colour: count for count, colour in image.convert("RGB").getcolors(1 << 20) or ()}
    assert counts[200, 0, 0] > 0.6 * (8 * 150) * (2 * 150)
    assert all(tuple(bytes.fromhex(PALETTE[name][0][1:])) in counts for name in ("c1", "c3"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "across", "down"), [([4], 4, 1), ([5], 3, 2), ([13], 4, 4), ([13, 2], 4, 4 + 2)]
)
def test_a_row_of_many_plots_is_broken(tmp_path: Path, counts: list[int], across: int, down: float):
    """In the last case the second row's plots are twice as large, for there are two and not four."""
    rows = [[curves(title=str(index)) for index in range(count)] for count in counts]
    pdf, png = save(tmp_path / "many", rows)
    with Image.open(png) as image:
        assert image.size == (across * 4 * 150, round((down * 2.6 + 0.3) * 150))
    [box] = re.findall(rb"/MediaBox \[ *([\d. ]+)\]", pdf.read_bytes())
    assert [float(part) for part in box.split()] == pytest.approx(
        [0, 0, across * 4 * 72, (down * 2.6 + 0.3) * 72], abs=0.1
    )


def test_a_legend_has_as_many_lines_as_its_names_need(tmp_path: Path):
    lines = [Line(f"{index} of a long name of an agent", index, X, Y) for index in range(4)]
    _, png = save(tmp_path / "named", [[curves(lines=lines)]])
    with Image.open(png) as image:
        assert image.size == (4 * 150, round((2.6 + 0.1 + 4 * 0.2) * 150))
        # Nothing is cut: the outermost pixels are the paper's.
        pixels = np.asarray(image.convert("RGB"))
    assert all((edge == 255).all() for edge in (pixels[:, 0], pixels[:, -1], pixels[-1]))


def test_ticks_are_short():
    values = [0, 0.25, -3, 9000, 25_000, 1_500_000]
    assert [short(value) for value in values] == ["0", "0.25", "−3", "9000", "25k", "1.5M"]
