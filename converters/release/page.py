"""release.html: the record of a release for people, who want the verdict in ten seconds.

Content → page.html.jinja, page.js → text
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from urllib.parse import quote, urlsplit

from converters.amounts import clock, size
from converters.release.rows import Content, Row
from verify.compare import FACTOR
from verify.report.pages import page

TEMPLATE, SCRIPT = "page.html.jinja", "page.js"
GOOD = ("published", "converted", "unchanged", "planned")
"""States that nobody has to look at."""
MARKS = {"failed": "✗", "not tried": "–", "running": "▸", "waiting": "…"} | dict.fromkeys(GOOD, "✓")
SYMBOLS = {"passed": "✓", "failed": "✗", "inconclusive": "…"}
SCHEMES = ("https", "http", "file")
"""Schemes of addresses that become links."""


def render(content: Content) -> str:
    """Returns the page."""
    return page(
        "converters.release",
        TEMPLATE,
        files("converters.release").joinpath(SCRIPT).read_text(encoding="utf-8"),
        content=content,
        headline=content.totals.headline,
        verdict=_verdict(content),
        moment=datetime.fromtimestamp(content.updated, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        symbols=SYMBOLS,
        marks=MARKS,
        good=GOOD,
        links=links,
        factor=FACTOR,
        size=size,
        clock=clock,
    )


def links(row: Row) -> list[tuple[str, str]]:
    """(text, address) of what there is to see of a model: a page on the hub, a report, a folder beside the page."""
    is_there = row.state in GOOD and not row.discarded
    folder = _beside(row.folder) if is_there else ""
    found = [("report", _beside(row.report)), ("published", _address(row.link)), ("folder", folder)]
    return [(text, address) for text, address in found if address]


def _verdict(content: Content) -> str:
    states = content.totals.states
    if "failed" in states:
        return "failed"
    return "passed" if content.finished and "not tried" not in states else "inconclusive"


def _address(link: str) -> str:
    """An address that is safe to follow; empty of any other."""
    try:
        return link if urlsplit(link).scheme in SCHEMES else ""
    except ValueError:
        return ""


def _beside(path: str) -> str:
    """A path below the page's folder as a relative address; empty of any other."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts:
        return ""
    return "./" + quote(path)
