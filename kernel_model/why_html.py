"""What a notebook shows of `why`: who has what for an address, a row for each sort of tables.

Knows which facts are in the table, by the ids that the values have; sentences about them are the
front door's. Linux vocabulary.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from emu import markup
from emu.paging import flags_text

if TYPE_CHECKING:
    from kernel_model.auditing import Reading, Table, Why

_COLUMNS: Final = ("tables", "top entry", "flags", "written by", "comes to", "differs", "because")
_NAMES: Final = 4  # of the tables that are alike


def why_html(found: "Why") -> str:
    """Return the verdict, and init_mm's reading above those of all others."""
    place = f"{found.addr:#x}: {found.region}, slot {found.slot} of the top tables"
    rows = markup.excerpt((found.reference, *found.others), _cells)
    return markup.sentence(f"{place}: {found.verdict}") + markup.table(place, _COLUMNS, rows)


def _cells(reading: "Reading") -> tuple[str, ...]:
    top, writer, cause = reading.walk.steps[0], reading.written[0], reading.cause
    path = f" ({cause.path})" if cause and cause.path else ""
    return (
        _names(reading.tables),
        f"{top.entry:#x}",
        flags_text(top.entry, top.level),
        writer.by if writer else "",
        reading.walk.end,
        reading.kind or "",
        f"{cause.reason}{path}" if cause else "",
    )


def _names(tables: "Sequence[Table]") -> str:
    names = ", ".join(table.name for table in tables[:_NAMES])
    more = len(tables) - _NAMES
    return names + (f" and {more:,} more" if more > 0 else "")
