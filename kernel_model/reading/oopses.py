"""From a stream of bytes to what is known of the oopses in it.

Knows the order: find, parse, judge, match. The first oops is read in full; of those behind it, so
many are read in brief, and all are counted. Refuses to know each step. Linux vocabulary.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from kernel_model.reading.explain import Depth, depth
from kernel_model.reading.judge import Verdict, judge
from kernel_model.reading.stream import Search
from kernel_model.reading.text import OopsText, parse

if TYPE_CHECKING:
    from kernel_model.reading.proof import Match

MOST_OTHERS: Final = 100


class Judged(NamedTuple):
    """One oops, and what it says by itself."""

    oops: OopsText
    depth: Depth
    verdict: Verdict


class Reading(NamedTuple):
    """What a stream holds. `others` are the oopses behind the first, as far as they were read.

    Without an oops, `architecture` names another than x86-64 whose oops was seen, if any.
    """

    first: Judged | None
    others: tuple[Judged, ...]
    nr_others: int
    architecture: str
    size: int


def read_oopses(read: Callable[[int], bytes]) -> Reading:
    """Read a stream to its end; `read(n)` returns up to n bytes, and none at the end."""
    search = Search()
    judged: list[Judged] = []
    nr = 0
    for block in search.blocks(read):
        nr += 1
        if nr <= MOST_OTHERS + 1:
            judged.append(judge_text(parse(block.data, block.line)))
    if not judged and search.weak is not None:
        judged.append(judge_text(parse(search.weak.data, search.weak.line)))
    first = judged[0] if judged else None
    return Reading(first, tuple(judged[1:]), max(nr - 1, 0), search.other, search.size)


def judge_text(oops: OopsText) -> Judged:
    """Return an oops with what it says of itself."""
    levels = depth(oops)
    return Judged(oops, levels, judge(oops, levels))


def match_oops(judged: Judged) -> "Match | None":
    """Return the scenario that dies most like an oops, by running it; loads the engine."""
    from kernel_model.reading.proof import find_match

    return find_match(judged.oops, judged.verdict, judged.depth)
