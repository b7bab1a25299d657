"""Put HTML pages together: one file each, in one style, that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

RESEARCH_USE = "<p>Research use, not a medical device.</p>"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222 }
body { margin: 2em auto; max-width: 1100px; padding: 0 1em }
table { border-collapse: collapse; margin: .5em 0 1.5em }
th, td { border-bottom: 1px solid #ddd; padding: .25em .8em; text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left }
caption { text-align: left; font-weight: 600; padding: .3em 0 }
img { max-width: 100% }
.cases { display: flex; flex-wrap: wrap; gap: 12px }
figure { margin: 0; width: 255px } .wide figure { width: 520px }
figcaption { font-size: 12px; overflow-wrap: anywhere }
.truth, .prediction, .rest { padding: 0 .4em }
.truth { background: #ffe600 } .prediction { background: #00e6ff } .rest { background: #466eff; color: #fff }
.facts td { text-align: left } .facts th { white-space: nowrap }
.key { border: 3px solid; background: #444; color: #fff; padding: 0 .4em }
.note { color: #555 }
"""


def page_html(title: str, parts: Iterable[str], style: str = "") -> str:
    """Join parts, which are HTML, into a page.

    Args:
        title: plain text.
        parts: HTML.
        style: CSS besides that of all pages.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}{style}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def facts_html(rows: Iterable[tuple[str, str]]) -> str:
    """Render names with their values as a table; both are escaped."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<table class="facts">{cells}</table>'


def figure_html(name: str, jpeg: bytes, caption: str) -> str:
    """Render an image with its caption; both texts are escaped."""
    picture = f'<img alt="{escape(name)}" src="{data_uri(jpeg, "jpeg")}">'
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def data_uri(data: bytes, kind: str) -> str:
    """Encode an image as a data URI; ``kind`` is ``png`` or ``jpeg``."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
