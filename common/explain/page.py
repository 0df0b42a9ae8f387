"""An explanation as one HTML page that needs nothing but itself: scrub through an episode, switch shifts."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common.explain.draw import Panels
from common.explain.recording import Recording
from common.report.charts import Line, chart, colour_class
from common.report.markup import Html, tag
from common.run.records import Record
from common.study.report import POLICY, STYLE

OWN_STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))
ACROSS = 10
"""Frames beside each other in a sprite."""
QUALITY = 90
"""Of the pictures, which are WebP: 100 loses nothing."""


class Shown:
    """What the page shows of a shift: its first episode, with a row of panels per run and frame."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.rows: dict[str, list[Panels]] = {}
        self.q: dict[str, list[float]] = {}


def page(shown: Mapping[str, Shown], record: Mapping[str, Record], columns: Sequence[str]) -> str:
    """The page of one or several runs.

    Args:
        shown: by shift.
        record: the content of explain.json.
        columns: names of the panels, in order.
    """
    first = next(iter(record.values()))
    *others, last = record
    who = f"{', '.join(others)} and {last} see" if others else f"{last} sees"
    title = f"{first['task']}: what {who}"
    styles = "".join(path.read_text(encoding="utf-8") for path in (STYLE, OWN_STYLE))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", title),
        tag("style", Html(styles)),
    )
    body = tag(
        "body",
        tag("h1", title),
        tag("p", _overview(record), class_="soft"),
        tag("noscript", tag("p", "This page needs JavaScript to show its pictures.")),
        _controls(shown),
        *(_shift(name, each, record, columns) for name, each in shown.items()),
        # "<" would let a name end the script element.
        tag("script", Html(_data(shown).replace("<", "\\u003c")), type="application/json", id="data"),
        tag("script", Html(SCRIPT.read_text(encoding="utf-8"))),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _overview(record: Mapping[str, Record]) -> str:
    trained = "; ".join(f"{label} after {run['step']:,} agent steps" for label, run in record.items())
    several = " Every row sees the frames of the first one's episodes." if len(record) > 1 else ""
    return f"{trained}. The first episode under each shift.{several}"


def _controls(shown: Mapping[str, Shown]) -> Html:
    switches = [
        tag("button", shift, type="button", data_shift=shift, aria_pressed="false") for shift in shown
    ]
    return tag(
        "div",
        tag("div", *switches, class_="legend", role="group", aria_label="Visual shift"),
        tag(
            "div",
            tag("button", "Play", type="button", id="play"),
            tag("input", type="range", id="frame", min=0, value=0, step=1, aria_label="Frame"),
            tag("output", "", id="now", for_="frame"),
            class_="scrubber",
        ),
        class_="controls",
    )


def _shift(shift: str, shown: Shown, record: Mapping[str, Record], columns: Sequence[str]) -> Html:
    rows = []
    for number, label in enumerate(shown.rows):
        figures = [
            tag(
                "figure",
                tag("canvas", "", data_row=number, data_column=name, role="img", aria_label=name),
                tag("figcaption", name.replace("_", " ")),
            )
            for name in columns
        ]
        rows += [tag("h3", label)] if len(shown.rows) > 1 else []
        rows.append(tag("div", *figures, class_="panels"))
    charts = tag("div", _return_chart(shown), _q_chart(shown), class_="charts")
    legend = [tag("span", label, class_=f"key {colour_class(i)}") for i, label in enumerate(shown.rows)]
    numbers = _numbers({label: run["shifts"][shift]["numbers"] for label, run in record.items()})
    parts = [tag("h2", shift), *rows, charts, tag("p", *legend), numbers]
    return tag("section", *parts, data_shift=shift, class_="hidden")


def _return_chart(shown: Shown) -> Html:
    recording = shown.recording
    so_far = np.concatenate([[0.0], np.cumsum(recording.rewards)])[recording.steps]
    return chart(
        "return so far", [Line("return", 0, recording.steps.tolist(), so_far.tolist())], "agent steps"
    )


def _q_chart(shown: Shown) -> Html:
    steps = shown.recording.steps.tolist()
    lines = []
    for index, (label, values) in enumerate(shown.q.items()):
        finite = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
        if finite:
            lines.append(Line(label, index, *zip(*finite, strict=True)))
    if not lines:
        return tag("p", "Q of the agent's action is finite nowhere.")
    return chart("Q of the agent's action", lines, "agent steps")


def _numbers(by_run: Mapping[str, Mapping[str, Any]]) -> Html:
    names = dict.fromkeys(name for numbers in by_run.values() for name in numbers)
    head = tag("thead", tag("tr", tag("th", "mean over frames"), *(tag("th", label) for label in by_run)))
    rows = [
        tag("tr", tag("td", name), *(tag("td", _number(each.get(name))) for each in by_run.values()))
        for name in names
    ]
    return tag("div", tag("table", head, tag("tbody", *rows)), class_="scroll", tabindex=0)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _data(shown: Mapping[str, Shown]) -> str:
    return json.dumps(
        {
            shift: {
                "steps": each.recording.steps.tolist(),
                "across": ACROSS,
                "rows": [
                    {name: sprite([panels[name] for panels in row]) for name in row[0]}
                    for row in each.rows.values()
                ],
            }
            for shift, each in shown.items()
        }
    )


def sprite(frames: Sequence[np.ndarray]) -> Record:
    """Frames, uint8 (H, W, 3), as one picture of `ACROSS` columns: its data URI and a frame's size."""
    height, width = frames[0].shape[:2]
    down = -(-len(frames) // ACROSS)
    whole = np.zeros((down * height, ACROSS * width, 3), np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // ACROSS * height, index % ACROSS * width
        whole[top : top + height, left : left + width] = frame
    written, encoded = cv2.imencode(
        ".webp", cv2.cvtColor(whole, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, QUALITY]
    )
    assert written
    source = "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode()
    return {"source": source, "width": width, "height": height}
