"""JSON of `why` and `audit`.

Knows the documents' shape, which users hold on to. Refuses to judge (`kernel_model.auditing`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kernel_model.auditing import Cause, Lacking, Reading, Table, Why
from kernel_model.scenarios.outcome import walk_json
from kernel_model.words import show_hex

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


def why_json(kernel: "Kernel", found: Why) -> dict[str, Any]:
    """Return an answer as JSON has it."""
    return {
        "address": f"{found.addr:#x}",
        "region": found.region,
        "slot": found.slot,
        "verdict": found.verdict,
        "tables": [
            _reading_json(kernel, found, reading) for reading in (found.reference, *found.others)
        ],
    }


def _reading_json(kernel: "Kernel", found: Why, reading: Reading) -> dict[str, Any]:
    levels = kernel.layout.levels
    walk = walk_json(reading.walk, levels)
    for step, write in zip(walk, reading.written, strict=True):
        step["written"] = write and {"by": write.by, "how": write.how}
    top = reading.walk.steps[0] if reading.walk.steps else None
    return {
        **_tables_json(reading.tables),
        "walk": walk,
        "end": reading.walk.verdict,
        "pa": show_hex(reading.walk.pa),
        "differs": reading.kind,
        "differs_at": top and walk[0]["linux_name"] if reading.kind else None,
        "cause": reading.cause and _cause_json(reading.cause),
    }


def _tables_json(tables: Sequence[Table]) -> dict[str, Any]:
    return {
        "names": [table.name for table in tables],
        "count": len(tables),
        "on_pgd_list": tables[0].on_pgd_list,
    }


def _cause_json(cause: Cause) -> dict[str, Any]:
    return {
        "reason": cause.reason,
        "path": cause.path,
        "after_fork_of": cause.after,
        "before_fork_of": cause.before,
        "by": cause.by,
    }


def audit_json(found: Sequence[Lacking]) -> list[dict[str, Any]]:
    """Return what tables lack, as JSON has it."""
    return [
        {
            "slot": one.slot,
            "address": f"{one.addr:#x}",
            "kind": one.kind,
            "entry": f"{one.entry:#x}",
            "reference": f"{one.reference:#x}",
            **_tables_json(one.tables),
            "cause": _cause_json(one.cause),
        }
        for one in found
    ]
