"""The HTML page around the report's sections: one file, with its style and script inline.

Its Content-Security-Policy forbids every request, so the file is complete on its own. Text from outside (names of
classes and files) is escaped here or in the function that inserts it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from fcos_cli.console import visible


@dataclass(frozen=True)
class Section:
    """A section of the page: heading (text), id for links, and content (HTML). owner: key of the model it describes."""

    key: str
    title: str
    content: str
    owner: str = ""


def page(title: str, head: str, sections: Sequence[Section], *, owners: Sequence[tuple[str, str]] = ()) -> str:
    """Return the whole document. head: HTML below the title. owners: (key, name) of the models that own sections."""
    assets = files("fcos_cli") / "assets" / "report"
    shared = [section for section in sections if not section.owner]
    body = [_section(section) for section in shared]
    links = [(section.key, section.title) for section in shared]
    if len(owners) > 1:
        body.append(_tabs(owners))
        links.append(("details", "Details"))
    for key, name in owners:
        owned = [section for section in sections if section.owner == key]
        hidden = " hidden" if key != owners[0][0] else ""
        inner = "".join(_section(section) for section in owned)
        body.append(f'<div class="owner" data-owner="{key}" aria-label="{text(name)}"{hidden}>{inner}</div>')
        links += [(section.key, section.title) for section in owned if len(owners) == 1]
    return Template((assets / "page.html").read_text(encoding="utf-8")).substitute(
        title=text(title),
        head=head,
        links="".join(f'<a href="#{key}">{text(name)}</a>' for key, name in links),
        body="".join(body),
        style=(assets / "report.css").read_text(encoding="utf-8"),
        script=(assets / "report.js").read_text(encoding="utf-8"),
    )


def text(value: object) -> str:
    """Escape `value` as HTML text, also valid within attributes."""
    return escape(visible(str(value)), quote=True)


def format_number(value: float | None, digits: int = 3) -> str:
    """Format as 0.123, or as a dash for None, NaN and COCO's -1 (not measured)."""
    return "–" if value is None or value == -1 or value != value else f"{value:.{digits}f}"


def table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, css: str = "", values: bool = False
) -> str:
    """Return a table. Cells are HTML; the first cell of a row is its header. values: make the columns sortable."""

    def heading(label: str) -> str:
        return f'<button type="button">{text(label)}</button>' if values and label else text(label)

    head = "".join(f'<th scope="col">{heading(label)}</th>' for label in columns)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    classes = f"{css} sortable" if values else css
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table class="{classes.strip()}">'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def bar(share: float, css: str = "") -> str:
    """Return a bar that fills `share` (0…1) of its cell. The number is shown next to it."""
    width = 100 * max(0.0, min(1.0, share))
    return f'<span class="bar {css}" style="--share:{width:.1f}%" aria-hidden="true"></span>'


def figure(caption: str, content: str) -> str:
    """Return a chart or image (HTML) with its caption (text)."""
    return f"<figure>{content}<figcaption>{text(caption)}</figcaption></figure>"


def pair(*items: str) -> str:
    """Place items side by side, or stacked on narrow screens."""
    return f'<div class="pair">{"".join(items)}</div>'


def prose(value: str) -> str:
    """Return text as HTML, with `code` in backticks marked up."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", text(value))


def note(value: str) -> str:
    """Return a paragraph of prose."""
    return f"<p>{prose(value)}</p>"


def _section(section: Section) -> str:
    heading = f'<h2 id="{section.key}-title">{text(section.title)}</h2>'
    return f'<section id="{section.key}" aria-labelledby="{section.key}-title">{heading}{section.content}</section>'


def _tabs(owners: Sequence[tuple[str, str]]) -> str:
    buttons = "".join(
        f'<label><input type="radio" name="owner" value="{key}"{" checked" if key == owners[0][0] else ""}>'
        f"<span>{text(name)}</span></label>"
        for key, name in owners
    )
    return f'<fieldset class="tabs" id="details"><legend>Details</legend>{buttons}</fieldset>'
