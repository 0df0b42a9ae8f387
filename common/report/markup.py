"""HTML that is escaped by construction: text becomes markup only through `tag`."""

import html


class Html(str):
    """Markup, as opposed to text that has yet to be escaped."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | float | None) -> Html:
    """An element. Children that are not `Html` are text, and escaped.

    Attributes are escaped too; one of None is left out, `class_` means class, and underscores become hyphens.
    Without children it is written as an empty element of its own, as SVG and void elements are.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if not children:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    """Several children, one after the other."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child) for child in children))
