"""Plots as SVG for a page, whose colours they take, and as PDF and PNG for a paper."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from common.report.pages import COLOURS, PALETTE
from common.run.checkpoint import write_atomically

LIGHT = {name: light for name, (light, _) in PALETTE.items()}
VARIABLES = {light: f"var(--{name})" for name, light in LIGHT.items()}
STYLE: dict[Any, Any] = {  # matplotlib's settings
    "axes.edgecolor": LIGHT["rule"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": LIGHT["soft"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": LIGHT["text"],
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "font.size": 9,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.6,
    "legend.labelcolor": LIGHT["text"],
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # TrueType: publishers refuse matplotlib's own, Type 3
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold dollar signs
    "xtick.color": LIGHT["rule"],
    "xtick.labelcolor": LIGHT["soft"],
    "ytick.color": LIGHT["rule"],
    "ytick.labelcolor": LIGHT["soft"],
}
WIDTH, HEIGHT = 4.0, 2.6
"""Inches of a plot."""
ACROSS = 4
"""Plots beside each other in a file, at most."""
DPI = 150
LONGEST = 28
"""Characters of a name on a plot; it is cut there."""


@dataclass(frozen=True)
class Line:
    """A curve, perhaps with an interval around it.

    `index` chooses its colour, and is how the page's script finds it. Where `y` is NaN the curve has a gap.
    What is `unfinished` is drawn dotted, as a ring if it is a single point, and a legend says so.
    """

    name: str
    index: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    unfinished: bool = False


@dataclass(frozen=True)
class Curves:
    """Lines over common axes: at least one, each with at least one point.

    The horizontal axis spans exactly 0 and all x, the vertical one `y_range` or else 0 and all y. With
    `stairs` every y holds from its x until just before the next.
    """

    title: str
    lines: Sequence[Line]
    x_label: str
    y_label: str
    y_range: tuple[float, float] | None = None
    stairs: bool = False

    @property
    def height(self) -> float:
        """Inches: the axes', and what a label of several lines takes."""
        return HEIGHT + 0.15 * self.x_label.count("\n")

    def draw(self, axes: Axes) -> dict[str, Artist]:
        """Draw, and return what a legend has to name, by name: the lines."""
        drawn: dict[str, Artist] = {}
        for line in self.lines:
            colour, dashes, group = _look(line.index)
            single = len(line.x) == 1
            if line.low is not None and line.high is not None:
                axes.fill_between(
                    line.x, line.low, line.high, step="post" if self.stairs else None, color=colour,
                    alpha=0.15, linewidth=5 if single else 0, clip_on=False, gid=group,
                )  # fmt: skip
            # All lies within the axes; clipped, a point on their edge would lose its outer half.
            [drawn[f"unfinished: {line.name}" if line.unfinished else line.name]] = axes.plot(
                line.x, line.y, drawstyle="steps-post" if self.stairs else None, color=colour,
                linestyle=":" if line.unfinished else dashes, marker="o" if single else None,
                markerfacecolor="none" if line.unfinished else None, clip_on=False, gid=group,
            )  # fmt: skip
        axes.update_datalim([(0, value) for value in self.y_range or (0,)])
        axes.margins(x=0, y=0.03)
        axes.set(xlabel=self.x_label, ylabel=self.y_label)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        # The page's script moves a cursor within the axes.
        axes.patch.set_gid("area")
        return drawn


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, if it has one; `index` is like a line's."""

    name: str
    index: int
    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Intervals:
    """Estimates below each other, at least one, over an axis from zero."""

    title: str
    estimates: Sequence[Estimate]
    x_label: str

    @property
    def height(self) -> float:
        """Inches: a line for each estimate, and what a label of several lines takes."""
        return 0.8 + 0.24 * len(self.estimates) + 0.15 * self.x_label.count("\n")

    def draw(self, axes: Axes) -> dict[str, Artist]:
        """Draw; a legend has nothing to name, because names stand beside the estimates."""
        for row, estimate in enumerate(self.estimates):
            colour, _, group = _look(estimate.index)
            if estimate.interval is not None:
                axes.plot(
                    estimate.interval, (row, row), color=colour, alpha=0.35, linewidth=7,
                    solid_capstyle="butt", gid=group,
                )  # fmt: skip
            axes.plot([estimate.value], [row], color=colour, marker="o", markersize=5, gid=group)
        axes.update_datalim([(0, 0)])
        axes.set_ylim(len(self.estimates) - 0.4, -0.6)
        axes.set_yticks(range(len(self.estimates)), [_brief(estimate.name) for estimate in self.estimates])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(self.x_label)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
        return {}


@dataclass(frozen=True)
class Picture:
    """Pixels, uint8 (height, width, 3), among plots."""

    pixels: np.ndarray
    title: str = ""

    @property
    def height(self) -> float:
        """Inches, at which a picture of a plot's width keeps its shape."""
        return WIDTH * self.pixels.shape[0] / self.pixels.shape[1]

    def draw(self, axes: Axes) -> dict[str, Artist]:
        """Draw; a legend has nothing to name."""
        axes.imshow(self.pixels, interpolation="none")
        axes.set_axis_off()
        return {}


Plot = Curves | Intervals | Picture
"""What has a title, a height in inches at a width of `WIDTH`, and can be drawn into axes."""


def svg(plot: Plot) -> Markup:
    """A plot as an element of a page, in its colours; equal plots give equal text."""
    # Elements refer to each other by hashes, which must differ between the plots of a page.
    with matplotlib.rc_context(STYLE), matplotlib.rc_context({"svg.hashsalt": repr(plot)}):
        figure = Figure(figsize=(WIDTH, plot.height), layout="constrained")
        axes = figure.subplots()
        axes.set_title(plot.title)
        plot.draw(axes)
        written = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    text = written.getvalue()
    text = text[text.index("<svg ") + len("<svg ") :]
    text = re.sub(r"(stroke|fill): (#[0-9a-f]{6})", _in_the_pages_colour, text)
    text = re.sub(r'<g id="([^"]*)"', _group, text)
    return Markup(f'<svg class="plot" role="img" aria-label="{escape(plot.title)}" {text}')


def save(stem: Path, rows: Sequence[Sequence[Plot]]) -> list[Path]:
    """Write plots, beside and below each other and with one legend, to `stem`.pdf and `stem`.png.

    A row of more than `ACROSS` plots is broken into rows of about as many each. Equal plots give equal files.

    Raises:
        OSError: a file cannot be written.
    """
    broken = [line for row in rows for line in _broken(row)]
    columns = math.lcm(*(across for _, across in broken))
    wide = max(across for _, across in broken)
    heights = [max(plot.height for plot in row) * wide / across for row, across in broken]
    written = []
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(wspace=0.04, hspace=0.06)
        figure = Figure(layout=layout)
        grid = figure.add_gridspec(len(broken), columns, height_ratios=heights)
        named: dict[str, Artist] = {}
        for down, (row, across) in enumerate(broken):
            span = columns // across
            for index, plot in enumerate(row):
                axes = figure.add_subplot(grid[down, index * span : (index + 1) * span])
                axes.set_title(plot.title)
                named |= plot.draw(axes)
        height = sum(heights) + 0.1
        if named:
            names = list(map(_brief, named))
            beside = max(1, int(WIDTH * wide / (0.6 + 0.08 * max(map(len, names)))))
            height += 0.2 * math.ceil(len(names) / beside)
            where = "outside lower center"
            figure.legend(list(named.values()), names, loc=where, ncols=beside, frameon=False)
        figure.set_size_inches(WIDTH * wide, height)
        for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):
            content = io.BytesIO()
            figure.savefig(content, format=suffix[1:], dpi=DPI, metadata=metadata)
            written.append(stem.with_name(stem.name + suffix))
            write_atomically(written[-1], content.getvalue())
    return written


def _broken(row: Sequence[Plot]) -> list[tuple[Sequence[Plot], int]]:
    """A row as one or several, each with the number of plots that it has room for."""
    across = math.ceil(len(row) / math.ceil(len(row) / ACROSS))
    return [(row[start : start + across], across) for start in range(0, len(row), across)]


def short(value: float) -> str:
    """A tick's number in few characters: 250000 as 250k."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size and abs(value) >= 10_000:
            return f"{value / size:g}{unit}"
    return f"{value:.6g}".replace("-", "−")


def _brief(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _look(index: int) -> tuple[str, str, str]:
    """Colour, line style and group of what an index stands for."""
    return LIGHT[f"c{index % COLOURS}"], "-" if index < COLOURS else "--", f"series-{index}"


def _in_the_pages_colour(found: re.Match[str]) -> str:
    name, colour = found.groups()
    return f"{name}: {VARIABLES.get(colour, colour)}"


def _group(found: re.Match[str]) -> str:
    """What the page's script looks for; matplotlib's own numbering would repeat in every plot."""
    name = found[1]
    if name.startswith("series-"):
        return f'<g data-series="{name.removeprefix("series-")}"'
    return '<g class="area"' if name == "area" else "<g"
