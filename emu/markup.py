"""HTML for notebooks: a sentence, a text, a table, and what unfolds.

Knows how to escape, and how to stay readable in a light notebook and in a dark one: nothing here
sets a colour, a size or a face, and every cell of a table has a header, for those who hear it.
Refuses to know what is shown: each value says that itself, in a `_repr_html_` made of these.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import Final, TypeVar

Item = TypeVar("Item")
Cells = Sequence[str]

_MOST: Final = 40  # rows; a notebook is read, not searched
_LEFT: Final = 'style="text-align: left"'  # notebooks set cells to the right, and hex is no sum


def sentence(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def verbatim(text: str) -> str:
    """Return a text with its own line ends and columns."""
    return f"<pre>{escape(text)}</pre>"


def unfolds(summary: str, html: str) -> str:
    """Return HTML that is hidden behind a summary until somebody asks for it."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def table(caption: str, columns: Cells, rows: Iterable[Cells], *, foot: str = "") -> str:
    """Return a table; the first cell of a row is its header, `foot` a last row of one cell."""
    head = "".join(f'<th scope="col" {_LEFT}>{escape(name)}</th>' for name in columns)
    body = "".join(f"<tr>{_row(row)}</tr>" for row in rows)
    last = f'<td colspan="{len(columns)}" {_LEFT}>{escape(foot)}</td>'
    return (
        f"<table><caption {_LEFT}>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody>{f'<tfoot><tr>{last}</tr></tfoot>' if foot else ''}</table>"
    )


def excerpt(items: Sequence[Item], cells: Callable[[Item], Cells]) -> Iterator[Cells]:
    """Yield the rows of a table of many items; if they are too many, the middle is left out."""
    half = _MOST // 2
    left_out = len(items) - 2 * half
    if left_out <= 0:
        yield from map(cells, items)
        return
    yield from map(cells, items[:half])
    yield (f"… {left_out:,} more …",)
    yield from map(cells, items[-half:])


def _row(cells: Cells) -> str:
    first, *others = cells
    return f'<th scope="row" {_LEFT}>{escape(first)}</th>' + "".join(
        f"<td {_LEFT}>{_code(cell)}</td>" for cell in others
    )


def _code(cell: str) -> str:
    """Set numbers in the notebook's own type for code: digits below digits."""
    return f"<code>{escape(cell)}</code>" if cell.startswith("0x") else escape(cell)
