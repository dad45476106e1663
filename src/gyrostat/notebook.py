"""How values show themselves in a notebook: escaped HTML, no script, at most a small inline SVG."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from math import isfinite

WIDTH, HEIGHT = 160, 14


def plain(text: str) -> str:
    """Text as a terminal has it."""
    return f"<pre>{escape(text)}</pre>"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already: escape what somebody else wrote by `cell`."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def cell(value: object) -> str:
    """One value as the content of a cell."""
    if value is None:
        return ""
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def bar(
    value: float | None,
    *,
    lower: float | None = None,
    upper: float | None = None,
    limit: float | None = None,
) -> str:
    """A number with its bounds as a band and its limit as a line, on a scale from 0 that holds them all; "" without one.

    Below nothing there is no bar: the scale then begins at the smallest of them.
    """
    if value is None or not isfinite(value):
        return ""
    known = [x for x in (value, lower, upper, limit) if x is not None and isfinite(x)]
    least, most = min(0.0, *known), max(0.0, *known)
    span = 1.06 * (most - least) or 1.0

    def x(number: float) -> str:
        return f"{WIDTH * (number - least) / span:.1f}"

    def width(left: float, right: float) -> str:
        return f"{WIDTH * (right - left) / span:.1f}"

    left, right = min(0.0, value), max(0.0, value)
    parts = [f'<rect x="{x(left)}" y="4" width="{width(left, right)}" height="6" fill="#4878a8"/>']
    if lower is not None and upper is not None and isfinite(lower) and isfinite(upper):
        parts.append(f'<rect x="{x(lower)}" y="2" width="{width(lower, upper)}" height="10" fill="#4878a8" fill-opacity="0.35"/>')  # fmt: skip
    if limit is not None and isfinite(limit):
        parts.append(f'<line x1="{x(limit)}" x2="{x(limit)}" y1="0" y2="{HEIGHT}" stroke="#b03030" stroke-width="2"/>')  # fmt: skip
    said = f"{value:.4g}" + (f", limit {limit:.4g}" if limit is not None else "")
    return (
        f'<svg role="img" aria-label="{escape(said)}" width="{WIDTH}" height="{HEIGHT}">'
        + "".join(parts)
        + "</svg>"
    )


MEASURES = ("", "value", "bounds", "limit", "")


def measure(
    name: str, value: float | None, lower: float | None, upper: float | None, limit: float | None
) -> list[str]:
    """A row of a table under `MEASURES`."""
    bounds = f"{lower:.4g} to {upper:.4g}" if lower is not None and upper is not None else None
    return [cell(name), cell(value), cell(bounds), cell(limit), bar(value, lower=lower, upper=upper, limit=limit)]  # fmt: skip
