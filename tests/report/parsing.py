"""A page, parsed strictly: what is not well nested is an error."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "circle", "line", "path", "rect", "link", "input", "hr"}
OPTIONAL = {"th", "td"}
"""Elements that have no end, and those whose end HTML lets one leave out."""


class Element:
    """An element of a page that was parsed."""

    def __init__(self, name: str, attributes: dict[str, str | None]) -> None:
        self.name = name
        self.attributes = attributes
        self.children: list[Element | str] = []

    def __iter__(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child

    @property
    def text(self) -> str:
        """What a person reads in it, blanks as one."""
        parts = [child if isinstance(child, str) else f" {child.text} " for child in self.children]
        return " ".join("".join(parts).split())

    def all(self, name: str, **attributes: str) -> list[Element]:
        """List elements of a name in it, with such attributes; a class is one of several."""
        return [
            each
            for each in self
            if each.name == name
            and all(
                value in (each.attributes.get(key.rstrip("_")) or "").split()
                if key == "class_"
                else each.attributes.get(key) == value
                for key, value in attributes.items()
            )
        ]


class Page(HTMLParser):
    """A page that must be well nested."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(text)
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in OPTIONAL and self._open[-1].name in OPTIONAL:
            self._open.pop()
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in OPTIONAL and self._open[-1].name in OPTIONAL:
            self._open.pop()
        if tag in VOID and self._open[-1].name != tag:
            return
        assert self._open.pop().name == tag, f"</{tag}> ends another element, at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)
