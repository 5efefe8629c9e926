"""A drawing in SVG: text, boxes and arrows, in the colours of a page that is light or dark.

Knows how a picture of the documentation looks. Refuses to know what it shows (`pictures`).
"""

from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 440  # as a phone is wide, so that a picture is read there, too
_STYLE: Final = """
  svg { --ink: #1f2730; --faint: #66727f; --line: #aab4bf; --box: #f4f6f9; --mark: #dfebfb;
        --strong: #1f5fae; --bad: #b3261e; --bad-box: #fdeceb; }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e3e8ee; --faint: #98a4b1; --line: #56616d; --box: #262b33; --mark: #1d3a5f;
          --strong: #7db7ff; --bad: #ff9a92; --bad-box: #4b2020; }
  }
  text { font: 13px system-ui, sans-serif; fill: var(--ink); }
  .small { font-size: 11px; } .code { font-family: ui-monospace, Menlo, Consolas, monospace; }
  .head { font-weight: 600; } text.faint { fill: var(--faint); }
  text.strong { fill: var(--strong); } text.bad { fill: var(--bad); }
  rect { fill: var(--box); stroke: var(--line); } rect.mark { fill: var(--mark); }
  rect.bad { fill: var(--bad-box); stroke: var(--bad); } rect.none { fill: none; }
  path { fill: none; stroke: var(--faint); stroke-width: 1.4; }
  path.strong { stroke: var(--strong); } path.bad { stroke: var(--bad); stroke-dasharray: 4 3; }
  marker path { fill: var(--faint); stroke: none; } marker.strong path { fill: var(--strong); }
"""
_HEAD: Final = '<path d="M 0 0 L 8 4 L 0 8 z"/>'
_MARKERS: Final = "".join(
    f'<marker id="{name}" class="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
    f'markerHeight="7" orient="auto-start-reverse">{_HEAD}</marker>'
    for name in ("plain", "strong")
)


class Drawing:
    """A picture as wide as WIDTH; `title` and `description` are for those who do not see it."""

    def __init__(self, title: str, description: str) -> None:
        self._title, self._description = title, description
        self._parts: list[str] = []

    def text(self, x: float, y: float, words: str, style: str = "", anchor: str = "start") -> None:
        """Write `words`, if there are any, with their baseline at y."""
        if not words:
            return
        placed = f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{style}">'
        self._parts.append(f"{placed}{escape(words)}</text>")

    def box(self, x: float, y: float, width: float, height: float, style: str = "") -> None:
        """Draw a box, its upper left corner at x and y."""
        size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        self._parts.append(f'<rect {size} rx="2" class="{style}"/>')

    def field(
        self, x: float, y: float, width: float, height: float, words: str, style: str = ""
    ) -> None:
        """Draw a box with `words` in its middle; `style` is `box style/text style`."""
        box, _, text = style.partition("/")
        self.box(x, y, width, height, box)
        self.text(x + width / 2, y + height / 2 + 4.5, words, text, "middle")

    def arrow(self, *points: tuple[float, float], style: str = "plain", head: bool = True) -> None:
        """Draw a line through `points`, with a head at its end."""
        line = "M " + " L ".join(f"{x:g} {y:g}" for x, y in points)
        end = f' marker-end="url(#{style})"' if head else ""
        self._parts.append(f'<path d="{line}" class="{style}"{end}/>')

    def save(self, path: Path, height: int) -> None:
        """Write the file."""
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 0 {WIDTH + 2} {height}" '
            f'width="{WIDTH * 3 // 2}" height="{height * 3 // 2}" role="img" '
            f'aria-labelledby="title description">\n'
            f'<title id="title">{escape(self._title)}</title>\n'
            f'<desc id="description">{escape(self._description)}</desc>\n'
            f"<style>{_STYLE}</style>\n<defs>{_MARKERS}</defs>\n"
            + "\n".join(self._parts)
            + "\n</svg>\n",
            encoding="utf-8",
        )
