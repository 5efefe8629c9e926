"""Showing lines: plain where output is read by a program, coloured on a terminal.

Knows about terminals, NO_COLOR and progress. Refuses to know what the lines say: colours follow
patterns in the finished text. rich is loaded only for a terminal.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice


def is_terminal() -> bool:
    """Tell whether standard output is a terminal that wants colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def show(lines: Iterable[str]) -> None:
    """Print lines, coloured if that is wanted."""
    if not is_terminal():
        for line in lines:
            print(line)
        return
    from rich.console import Console
    from rich.highlighter import RegexHighlighter
    from rich.theme import Theme

    class Lines(RegexHighlighter):
        """Addresses, the words that say what is wrong, and headings."""

        base_style = "pw."
        highlights = (
            r"(?P<address>\b0x[0-9a-f]+\b|\b[0-9a-f]{16}\b)",
            r"(?P<wrong>\b(BUG|Oops)\b.*|#PF.*|not present|outside RAM|they differ.*|lacks it)",
            r"(?P<wrong>missing from.*)",
            r"(?P<heading>^[A-Z][^:]*$)",
            r"(?P<symbol>\b[A-Za-z_]\w*\+0x[0-9a-f]+(/0x[0-9a-f]+)?)",
            r"(?P<good>\bcompleted\b|\bok\b)",
        )

    theme = Theme(
        {
            "pw.address": "cyan",
            "pw.wrong": "bold red",
            "pw.heading": "bold",
            "pw.symbol": "yellow",
            "pw.good": "green",
        }
    )
    console = Console(highlighter=Lines(), theme=theme, soft_wrap=True, markup=False, emoji=False)
    for line in lines:
        console.print(line)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say on a terminal's stderr that work goes on, of which nobody knows how long it takes."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def awaited(lines: Iterator[str], what: str) -> Iterator[str]:
    """Yield lines, with `working` until the first is there."""
    with working(what):
        first = list(islice(lines, 1))
    yield from chain(first, lines)


@contextmanager
def progress(what: str, total: int, threshold: int) -> Iterator[Callable[[int], None] | None]:
    """Show a bar on a terminal's stderr for work of `total` steps, if it exceeds `threshold`."""
    if total < threshold or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    # The clock keeps moving when the pages are all there and the guest runs through them.
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)
