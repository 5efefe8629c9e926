"""The pane of tables: the current CPU's, from CR3 down, as a tree that unfolds.

Knows which entries are shown, and that what somebody has unfolded stays so. Refuses to know what an
entry held when (`playback.moments`).
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from rich.text import Text
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from emu.paging import (
    ADDRESS,
    ENTRY_SIZE,
    P,
    PhysAddr,
    VirtAddr,
    canonical,
    flags_text,
    maps_page,
    page_shift,
    slot_of,
)
from pagewalk.tui.moment import Moment
from pagewalk.tui.panes import CHANGED, WALKED


class Entry(NamedTuple):
    """An entry of a table, how it is marked, and what is unfolded below it."""

    pa: PhysAddr
    level: int
    va: VirtAddr
    value: int
    mark: str
    below: "tuple[Entry, ...]" = ()
    unfolded: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from all others; its place does not, as tables are shared."""
        return self.level, self.va

    @property
    def table(self) -> PhysAddr | None:
        """The table that it leads to, if it does."""
        leads_on = self.value & P and not maps_page(self.value, self.level)
        return PhysAddr(self.value & ADDRESS) if leads_on else None

    @property
    def text(self) -> str:
        """One line: mark, slot, the first address, value and flags."""
        flags = flags_text(self.value, self.level)
        return f"{self.mark}{slot_of(self.pa):3} {self.va:016x}  {self.value:#x}  {flags}"


class TablesPane(Tree[Entry]):
    """Entries that are not zero. Those that the event has changed are marked, and so are those of
    the walk that is shown."""

    def __init__(self, moment: Moment) -> None:
        super().__init__("")
        self.border_title = "Tables"
        self.guide_depth = 2
        self._moment = moment
        self._unfolded: Final[set[tuple[int, int]]] = set()
        self._shown: object = None  # what the tree was made of

    def show(self, moment: Moment) -> None:
        """Show another moment. The tree is made anew only if something in it is not the same."""
        self._moment = moment
        paging, playback = moment.paging, moment.playback
        if not self.display:
            return
        entries = tuple(self._entries(paging.root, paging.levels, VirtAddr(0)))
        task = playback.task(moment.at)
        title = f"CR3 {paging.cr3:#x}" + (f", {task}'s" if task else "")
        if (title, entries) == self._shown:
            return
        self._shown = title, entries
        cursor = self.cursor_node.data.key if self.cursor_node and self.cursor_node.data else None
        self.reset(title)
        self._add(self.root, entries)
        self.root.expand()
        self._find(entries, cursor)

    def on_resize(self) -> None:
        """Keep what is marked in the middle."""
        self._shown = None
        self.show(self._moment)

    def _find(self, entries: tuple[Entry, ...], cursor: tuple[int, int] | None) -> None:
        """Put the cursor where it was; if nobody moves it, on what is marked, in the middle."""
        lines = list(enumerate(_flat(entries), 1))
        if self.has_focus:
            self.cursor_line = next((line for line, entry in lines if entry.key == cursor), 0)
            return
        marked = next((line for line, entry in lines if entry.mark.strip()), 0)
        self.cursor_line = marked
        self.call_after_refresh(self._centre, marked)

    def _centre(self, line: int) -> None:
        self.scroll_to(y=line - self.size.height // 2, animate=False)

    def on_tree_node_expanded(self, event: "Tree.NodeExpanded[Entry]") -> None:
        """Unfold a table, and keep it so."""
        self._fold(event.node, unfolded=True)

    def on_tree_node_collapsed(self, event: "Tree.NodeCollapsed[Entry]") -> None:
        """Fold it again."""
        self._fold(event.node, unfolded=False)

    def _fold(self, node: TreeNode[Entry], *, unfolded: bool) -> None:
        if node.data is not None and unfolded != (node.data.key in self._unfolded):
            self._unfolded.symmetric_difference_update({node.data.key})
            self.show(self._moment)

    def _entries(self, table: PhysAddr, level: int, base: VirtAddr) -> Iterator[Entry]:
        """Yield the entries of a table that are known and not zero, with those unfolded below."""
        moment, levels = self._moment, self._moment.paging.levels
        changed = moment.changed_entries
        subject = moment.subject
        walked = {step.entry_pa for step in subject.walk.steps} if subject else set()
        for slot, value in enumerate(moment.playback.table(moment.at, table)):
            pa = PhysAddr(table + ENTRY_SIZE * slot)
            if not value and pa not in changed | walked:
                continue
            va = canonical(base | slot << page_shift(level), levels)
            mark = CHANGED if pa in changed else WALKED if pa in walked else " "
            entry = Entry(pa, level, va, value or 0, mark)
            if entry.table is not None and entry.key in self._unfolded:
                below = tuple(self._entries(entry.table, level - 1, va))
                entry = entry._replace(below=below, unfolded=True)
            yield entry

    def _add(self, node: TreeNode[Entry], entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            folds = entry.table is not None
            text = entry.text if folds else "  " + entry.text  # no icon stands before it
            label = Text(text, style="bold" if entry.mark.strip() else "")
            child = node.add(label, entry, expand=entry.unfolded, allow_expand=folds)
            self._add(child, entry.below)


def _flat(entries: tuple[Entry, ...]) -> Iterator[Entry]:
    """Yield entries as they stand in the tree, from top to bottom."""
    for entry in entries:
        yield entry
        yield from _flat(entry.below)
