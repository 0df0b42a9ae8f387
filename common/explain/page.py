"""An explanation as one HTML page that needs nothing but itself: scrub through an episode, switch shifts."""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.explain.draw import Panels
from common.explain.files import encoded
from common.explain.recording import Recording
from common.report.pages import render
from common.report.plots import Curves, Line, save, svg
from common.run.checkpoint import write_atomically
from common.run.records import Record

ACROSS = 10
"""Frames beside each other in a sprite."""
QUALITY = 90
"""WebP loses a little at this quality, and nothing that is visible."""


class Shown:
    """What the page shows of a shift: its first episode, with a row of panels per run and frame."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.rows: dict[str, list[Panels]] = {}
        self.q: dict[str, list[float]] = {}


def write_page(
    folder: Path, shown: Mapping[str, Shown], record: Mapping[str, Record], columns: Sequence[str]
) -> list[Path]:
    """Write the page of one or several runs, index.html, and its plots beside it: curves.pdf and curves.png.

    Args:
        folder: exists.
        shown: by shift.
        record: the content of explain.json.
        columns: names of the panels, in order.

    Raises:
        UserError: a file cannot be written.
    """
    plots = {shift: curves(shift, each) for shift, each in shown.items()}
    *others, last = record
    who = f"{', '.join(others)} and {last} see" if others else f"{last} sees"
    page = render(
        "explain/page.html",
        title=f"{record[last]['task']}: what {who}",
        shown=shown,
        record=record,
        columns=columns,
        plots={shift: list(map(svg, row)) for shift, row in plots.items()},
        numbers={shift: _numbers(record, shift) for shift in shown},
        episodes={shift: _episode(each) for shift, each in shown.items()},
    )
    try:
        write_atomically(folder / "index.html", page.encode())
        return [folder / "index.html", *save(folder / "curves", list(plots.values()))]
    except OSError as error:
        raise UserError(f"{folder}: the page cannot be written ({error.strerror})") from error


def curves(shift: str, shown: Shown) -> list[Curves]:
    """The return so far in a shift's episode and, if it is finite anywhere, Q of the agent's action."""
    recording = shown.recording
    steps = recording.steps.tolist()
    so_far = np.concatenate([[0.0], np.cumsum(recording.rewards)])[recording.steps].tolist()
    lines = [
        Line(label, index, steps, [value if math.isfinite(value) else math.nan for value in values])
        for index, (label, values) in enumerate(shown.q.items())
    ]
    titles = [f"{shift}: return so far", f"{shift}: Q of the agent's action"]
    found = [Curves(titles[0], [Line(next(iter(shown.q)), 0, steps, so_far)], "agent steps", "return")]
    if any(math.isfinite(value) for line in lines for value in line.y):
        found.append(Curves(titles[1], lines, "agent steps", "Q"))
    return found


def _numbers(record: Mapping[str, Record], shift: str) -> dict[str, list[float | None]]:
    """A value per run, by the names that any of them has."""
    found = [run["shifts"][shift]["numbers"] for run in record.values()]
    names = dict.fromkeys(name for numbers in found for name in numbers)
    return {name: [numbers.get(name) for numbers in found] for name in names}


def _episode(shown: Shown) -> Record:
    """What the page's script needs of an episode, as JSON."""
    return {
        "steps": shown.recording.steps.tolist(),
        "across": ACROSS,
        "rows": [
            {name: sprite([panels[name] for panels in row]) for name in row[0]} for row in shown.rows.values()
        ],
    }


def sprite(frames: Sequence[np.ndarray]) -> Record:
    """Frames, uint8 (H, W, 3), as one picture of `ACROSS` columns: its data URI and a frame's size."""
    height, width = frames[0].shape[:2]
    down = -(-len(frames) // ACROSS)
    whole = np.zeros((down * height, ACROSS * width, 3), np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // ACROSS * height, index % ACROSS * width
        whole[top : top + height, left : left + width] = frame
    source = "data:image/webp;base64," + base64.b64encode(encoded(whole, "WEBP", quality=QUALITY)).decode()
    return {"source": source, "width": width, "height": height}
