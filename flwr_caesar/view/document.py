"""A report as parts that become HTML or Markdown."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1a1c20; --soft: #5b616c;
  --line: #d5d9e0; --box: #f5f6f8; }
@media (prefers-color-scheme: dark) { :root { --ground: #14161a; --ink: #e8eaee;
  --soft: #a8afbb; --line: #3a3f49; --box: #1e2127; } }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; background: var(--ground);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; }
img { max-width: 100%; background: #fff; border-radius: .4rem; }
figcaption { color: var(--soft); font-size: .9rem; }
pre { background: var(--box); padding: .8rem; overflow: auto; font-size: .85rem; }
li { margin: .3rem 0; overflow-wrap: anywhere; }
@media print { body { max-width: none; } details { display: none; } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Picture:
    """A drawing: SVG for pages, and what it shows in words."""

    name: str
    svg: bytes
    says: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in this order.

    Parameters
    ----------
    title : str
        The heading.
    paragraphs : sequence of str
        Sentences.
    table : str
        Markdown.
    pictures : sequence of Picture
        With captions.
    points : sequence of str
        A list.
    texts : mapping of str to str
        Long texts by name, folded away.
    """

    title: str
    paragraphs: Sequence[str] = ()
    table: str = ""
    pictures: Sequence[Picture] = ()
    points: Sequence[str] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


def as_html(title: str, sections: Sequence[Section]) -> str:
    """Return a page that loads nothing: pictures are in it."""
    body = "\n".join(_section_html(section) for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )


def as_markdown(title: str, sections: Sequence[Section], folder: str) -> str:
    """Return the same as Markdown, with pictures as files of a folder beside it."""
    parts = [f"# {_flat(title)}"]
    for section in sections:
        parts.append(f"## {_flat(section.title)}")
        parts += [_flat(text) for text in section.paragraphs]
        if section.table:
            parts.append(section.table)
        for picture in section.pictures:
            place = f"{folder}/{picture.name}.svg"
            parts += [f"![{_flat(picture.says)}]({place})"]
        if section.points:
            parts.append("\n".join(f"- {_flat(text)}" for text in section.points))
        for name, text in section.texts.items():
            block = "\n".join(f"    {line}" for line in text.splitlines())
            parts.append(f"`{_flat(name)}`:\n\n{block}")
    return "\n\n".join(parts) + "\n"


def write_pictures(sections: Sequence[Section], folder: Path) -> None:
    """Write the pictures to which the Markdown refers."""
    pictures = [picture for section in sections for picture in section.pictures]
    if pictures:
        folder.mkdir(exist_ok=True)
    for picture in pictures:
        (folder / f"{picture.name}.svg").write_bytes(picture.svg)


def _section_html(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(text)}</p>" for text in section.paragraphs]
    if section.table:
        parts.append(_table_html(section.table))
    for picture in section.pictures:
        data = base64.b64encode(picture.svg).decode("ascii")
        says = html.escape(picture.says)
        parts.append(
            f'<figure><img alt="{says}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{says}</figcaption></figure>"
        )
    if section.points:
        points = "".join(f"<li>{html.escape(text)}</li>" for text in section.points)
        parts.append(f"<ul>{points}</ul>")
    for name, text in section.texts.items():
        parts.append(
            f"<details><summary>{html.escape(name)}</summary>"
            f"<pre>{html.escape(text)}</pre></details>"
        )
    return f"<section>\n{chr(10).join(parts)}\n</section>"


def _table_html(table: str) -> str:
    head, _, *rows = [_cells(line) for line in table.splitlines()]
    names = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    cells = re.split(r"(?<!\\)\|", inner)
    return [cell.strip().replace("\\|", "|") for cell in cells]


def _flat(text: str) -> str:
    """Return a text that no reader of Markdown takes for markup or for a new line."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", line)
