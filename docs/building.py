"""Hooks of mkdocs: where the pages come from, and that they ask for nothing from elsewhere.

A page lies on the site where its file lies in the repository, so that a link which works in one
works in the other, and no text is there twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
SOURCES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "docs/*.md",
    "docs/studies/*.md",
    "docs/studies/records/*.json",
    "docs/pictures/*.svg",
    "claims/*.md",
    "claims/*.toml",
)
"""What the site is made of; what is no Markdown is copied, as pages link to it."""

_FETCHED = {
    ("link", "href"),
    *((tag, "src") for tag in ("script", "img", "iframe", "embed", "source", "audio", "video")),
    *((tag, "srcset") for tag in ("img", "source")),
    ("video", "poster"),
    ("object", "data"),
    ("use", "href"),
    ("image", "href"),
}
"""Attributes whose address a browser asks for by itself, as it does not for that of an <a>."""
_ELSEWHERE = re.compile(r"(?:https?:)?//", re.I)
_IN_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?\s*((?:https?:)?//[^\"')\s;]+)", re.I)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, and those of the repository at their own places."""
    from mkdocs.structure.files import File, Files

    theirs = [file for file in files if file.src_dir != config.docs_dir]
    ours = [
        File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, False)
        for pattern in SOURCES
        for path in sorted(ROOT.glob(pattern))
    ]
    return Files([*theirs, *ours])


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that a reader without a network would not see whole."""
    from mkdocs.exceptions import PluginError

    found = from_elsewhere(Path(config.site_dir))
    if found:
        raise PluginError("pages ask for what lies elsewhere:\n" + "\n".join(found))


def from_elsewhere(site: Path) -> list[str]:
    """What the pages and styles below `site` make a browser fetch from another host, a line each.

    Scripts are not read: those of the theme fetch from elsewhere only where a page has a diagram.
    """
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            addresses = list(_asked_by(path.read_text(encoding="utf-8")))
        elif path.suffix in (".css", ".svg"):
            addresses = _IN_STYLE.findall(path.read_text(encoding="utf-8"))
        else:
            continue
        found += [f"{path.relative_to(site).as_posix()}: {address}" for address in addresses]
    return found


class _Asked(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = self._in_style or tag == "style"
        given = {name.removeprefix("xlink:"): value or "" for name, value in attrs}
        if tag == "link" and given.get("rel") in ("canonical", "alternate", "prev", "next"):
            return
        for name, value in given.items():
            if (tag, name) in _FETCHED:
                parts = value.split(",") if name == "srcset" else [value]
                self.addresses += [p.strip() for p in parts if _ELSEWHERE.match(p.strip())]
            elif name == "style":
                self.addresses += _IN_STYLE.findall(value)
        if given.get("class") == "mermaid":
            self.addresses.append("a diagram, whose script the theme fetches")

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.addresses += _IN_STYLE.findall(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._in_style = False


def _asked_by(page: str) -> Iterator[str]:
    parser = _Asked()
    parser.feed(page)
    yield from parser.addresses
