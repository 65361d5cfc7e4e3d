"""What the site adds to the pages of docs/: pages from elsewhere, links, codecs.

mkdocs calls the functions by their names. On a forge, where there is no site, the same
pages link to the files themselves.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
# Pages that are not in docs/, by their place in the site.
ELSEWHERE = {
    "index.md": "README.md",
    "architecture.md": "ARCHITECTURE.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "examples/index.md": "examples/README.md",
    "baselines/index.md": "baselines/README.md",
} | {
    f"{kind}/{path.parent.name}.md": f"{kind}/{path.parent.name}/README.md"
    for kind in ("examples", "baselines")
    for path in sorted((ROOT / kind).glob("*/README.md"))
}
_PLACES = {source: page for page, source in ELSEWHERE.items()} | {
    posixpath.dirname(source): page
    for page, source in ELSEWHERE.items()
    if "/" in source
}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
_CODECS = "<!-- codecs -->"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder where the navigation has a pattern."""
    config.nav = [_expanded(entry, Path(config.docs_dir)) for entry in config.nav or ()]
    return config


def _expanded(entry: Any, docs: Path) -> Any:
    if isinstance(entry, dict):
        return {name: _expanded(value, docs) for name, value in entry.items()}
    if not isinstance(entry, list):
        return entry
    found: list[Any] = []
    for part in entry:
        if isinstance(part, str) and part in ("examples/*", "baselines/*"):
            found += [page for page in ELSEWHERE if page.startswith(part[:-1])]
        elif isinstance(part, str) and "*" in part:
            pages = (path.relative_to(docs).as_posix() for path in docs.glob(part))
            found += sorted(page for page in pages if page not in entry)
        else:
            found.append(_expanded(part, docs))
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for page, source in ELSEWHERE.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        # What a hub reads of an example.
        content = re.sub(r"\A---\n.*?\n---\n", "", content, flags=re.S)
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Lead links to pages of the site, and name files that are not in it."""
    here = page.file.src_uri
    source = ELSEWHERE.get(here, f"docs/{here}")

    def linked(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        path, mark, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match.group(0)
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if not (ROOT / place).exists():
            return match.group(0)  # mkdocs says what is wrong
        found = _PLACES.get(place)
        if found is None and place.startswith("docs/"):
            found = place.removeprefix("docs/")
            if files.get_file_from_path(found) is None:
                found = f"{found}/index.md"
        if found is None or files.get_file_from_path(found) is None:
            return text if image or text.startswith("`") else f"{text} (`{place}`)"
        relative = posixpath.relpath(found, posixpath.dirname(here) or ".")
        return f"{image}[{text}]({relative}{mark}{anchor})"

    return _LINK.sub(linked, markdown).replace(_CODECS, _codecs())


def _codecs() -> str:
    """Return a section for each codec, from the registry."""
    from flwr_caesar.codec import get_codec, list_codecs

    parts = []
    for codec_id in list_codecs():
        kind = type(get_codec(codec_id))
        parts.append(f"## `{codec_id}`\n\n::: {kind.__module__}.{kind.__name__}\n")
    return "\n".join(parts)
