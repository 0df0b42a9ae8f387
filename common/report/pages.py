"""Pages of HTML that need nothing but themselves: no network, no other file."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

PALETTE = {  # by the name of a CSS variable, its colour in the light and in the dark
    "page": ("#fdfdfc", "#14181b"),
    "raised": ("#ffffff", "#1b2125"),
    "text": ("#1d2327", "#e6e9eb"),
    "soft": ("#5b6670", "#9aa5ad"),
    "rule": ("#d9dee2", "#343c42"),
    "strong": ("#0b5cad", "#78b7f5"),
    "c0": ("#7a7f85", "#a3a9af"),
    "c1": ("#0072b2", "#56b4e9"),
    "c2": ("#d55e00", "#ff9248"),
    "c3": ("#009e73", "#2fcb9c"),
    "c4": ("#b0418f", "#e58bc9"),
    "c5": ("#a67c00", "#e3bd4a"),
    "c6": ("#5148a8", "#a49df2"),
    "c7": ("#8c3b2a", "#dd8a77"),
}
COLOURS = 8
"""Colours of lines, `c0` to `c7`; further lines repeat them dashed."""


def render(template: str, **values: Any) -> str:
    """Fill a template with values. They are escaped, except `markupsafe.Markup`; None is written as nothing.

    Args:
        template: its file, as a path within `common/`; it extends `report/base.html`.
        values: everything that the template names, among them its `title`.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals |= {"palette": PALETTE, "colours": COLOURS}
    return templates.get_template(template).render(values)
