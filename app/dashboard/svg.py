"""SVG elements as text: attributes and text escaped, no style attribute, no script."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape


def tag(name: str, *children: Markup | str, **attributes: str | float | None) -> Markup:
    """Return an element; `class_` is the attribute `class`, underscores become hyphens, None is left out."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None:
            continue
        text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    parts += [">", *(str(escape(child)) for child in children), f"</{name}>"]
    return Markup("".join(parts))  # noqa: S704 - every value was escaped


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a line."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def label(x: float, y: float, text: str, class_: str = "label", anchor: str | None = None) -> Markup:
    """Return a text; `anchor` is `middle` or `end`, by default its start is at `x`."""
    return tag("text", text, x=float(x), y=float(y), class_=class_, text_anchor=anchor)


def drawing(width: float, height: float, title: str, parts: Iterable[Markup]) -> Markup:
    """Return a picture that scales to the page's width; `title` says what it shows."""
    body = Markup("").join(parts)
    return tag(
        "svg",
        tag("title", title),
        body,
        width=float(width),
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=title,
        class_="chart",
        preserveAspectRatio="xMinYMin meet",
    )
