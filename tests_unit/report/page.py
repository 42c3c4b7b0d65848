"""A page as a test reads it, and the contrast of two colours of its style."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import polyrot.report

VOID = {"meta", "input", "br", "link", "img"}
STYLE = Path(polyrot.report.__file__).parent / "templates" / "style.css"


class Page(HTMLParser):
    """Elements with attributes and text of a page; `balanced` if every one of them is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.balanced = True
        self.feed(text)
        self.balanced &= not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.balanced &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def palettes() -> dict[str, dict[str, str]]:
    """The colours of the page by variable: in light, in dark (with what it leaves), in print."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE.read_text(encoding="utf-8"), flags=re.S)
    light, dark, paper = (dict(re.findall(r"(--\w+): (#[0-9a-f]+)", block)) for block in blocks)
    return {"light": light, "dark": light | dark, "print": light | paper}


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2, from 1 to 21."""
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * c for c in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
