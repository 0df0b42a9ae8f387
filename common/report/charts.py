"""Line charts as SVG, without scripts; colours are those of the page around them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.report.markup import Html, join, tag

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 26, 36
COLOURS = 8
"""Colours of the page, `--c0` to `--c7`; further lines repeat them dashed."""


@dataclass(frozen=True)
class Line:
    """A curve, perhaps with an interval around it; `index` chooses its colour."""

    name: str
    index: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def chart(
    title: str, lines: Sequence[Line], x_label: str, y_range: tuple[float, float] | None = None
) -> Html:
    """Curves over common axes.

    Args:
        title: stands above the chart and is its text alternative.
        lines: at least one, each with at least one point.
        x_label: what the horizontal axis shows.
        y_range: of the vertical axis; by default what the curves need, with zero.
    """
    xs = [value for line in lines for value in line.x]
    ys = [value for line in lines for values in (line.y, line.low or (), line.high or ()) for value in values]
    x_ticks = ticks(min(xs), max(xs), 4)
    y_ticks = ticks(*(y_range or (min(0.0, *ys), max(ys))), 5)
    x = _Axis(x_ticks, LEFT, WIDTH - RIGHT)
    y = _Axis(y_ticks, HEIGHT - BOTTOM, TOP)
    return tag(
        "svg",
        tag("title", title),
        tag("text", title, class_="heading", x=LEFT, y=15),
        *(_horizontal(tick, y) for tick in y_ticks),
        *(_vertical(tick, x) for tick in x_ticks),
        tag(
            "text", x_label, class_="label", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 4, text_anchor="middle"
        ),
        *(_band(line, x, y) for line in lines if line.low is not None and line.high is not None),
        *(_curve(line, x, y) for line in lines),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
    )


def colour_class(index: int) -> str:
    """The page's class for the line of a column."""
    return f"c{index % COLOURS}" + (" dashed" if index >= COLOURS else "")


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from `low` or below to `high` or above, in about `count` steps of 1, 2 or 5 times 10ⁿ."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


class _Axis:
    """Maps values, between the outermost ticks, to pixels."""

    def __init__(self, marks: list[float], start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = marks[0], marks[-1], start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def _horizontal(tick: float, y: _Axis) -> Html:
    line = tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y(tick), y2=y(tick))
    return join(line, tag("text", short(tick), class_="tick", x=LEFT - 6, y=y(tick) + 4, text_anchor="end"))


def _vertical(tick: float, x: _Axis) -> Html:
    place = HEIGHT - BOTTOM
    line = tag("line", class_="axis", x1=x(tick), x2=x(tick), y1=place, y2=place + 4)
    return join(line, tag("text", short(tick), class_="tick", x=x(tick), y=place + 16, text_anchor="middle"))


def _band(line: Line, x: _Axis, y: _Axis) -> Html:
    assert line.low is not None and line.high is not None
    there = [f"{x(a)},{y(b)}" for a, b in zip(line.x, line.high, strict=True)]
    back = [f"{x(a)},{y(b)}" for a, b in zip(line.x, line.low, strict=True)]
    return tag(
        "polygon", points=" ".join(there + back[::-1]), class_=f"band {colour_class(line.index)}", **_of(line)
    )


def _curve(line: Line, x: _Axis, y: _Axis) -> Html:
    points = [f"{x(a)},{y(b)}" for a, b in zip(line.x, line.y, strict=True)]
    style = f"curve {colour_class(line.index)}"
    if len(points) == 1:
        at, height = points[0].split(",")
        return tag("circle", cx=at, cy=height, r=3, class_=style, **_of(line))
    return tag("polyline", tag("title", line.name), points=" ".join(points), class_=style, **_of(line))


def _of(line: Line) -> dict[str, str]:
    return {"data_line": line.name}


def short(value: float) -> str:
    """A tick's number in few characters: 250000 as 250k."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size and abs(value) >= 10_000:
            return f"{value / size:g}{unit}"
    return f"{value:.6g}".replace("-", "−")
