"""A local descriptor table, looked for in another task's table.

With page-table isolation a task's LDT lies in a top-level slot of the kernel's half that is the
task's own. It is in no other table, by design: init_mm has nothing there, so that fork and sync
have nothing to copy. A CPU whose LDTR is not reloaded at a switch would find nothing.
"""

from typing import TYPE_CHECKING, Any, Final

from kernel_model.releases import Release
from kernel_model.scenarios.outside import outside_notes
from kernel_model.scenarios.spec import Parameter, Scenario, Settings

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending

ENTRY: Final = 1
DESCRIPTOR: Final = 0x00CF_F300_0000_FFFF  # flat data, DPL 3
SELECTOR: Final = ENTRY << 3 | 7  # of the LDT, RPL 3


def lacks(release: Release) -> str | None:
    """Name what the story is about, where it is not there."""
    return None if release.pti else "page-table isolation"


def boots(_settings: Settings) -> dict[str, Any]:
    """Return Kernel's options."""
    return {"pti": True}


def play(kernel: "Kernel", settings: Settings) -> "Ending":
    """Give one task an LDT, and load a descriptor of it in the task that the settings name."""
    from emu import Returned
    from kernel_model.ldt import write_ldt
    from kernel_model.scenarios.outcome import Ending

    owner = kernel.fork("dosemu")
    written = kernel.run(owner, write_ldt, owner.mm, ENTRY, DESCRIPTOR)
    other = kernel.fork("sh")
    task = owner if settings["task"] == "owner" else other
    slot, ldt = kernel.layout.ldt_slot, owner.mm.ldt
    if ldt is None:
        return Ending(owner, written, kernel.layout.slot_base(slot))
    stop = kernel.run(task, "read_ldt", rdi=ldt.base, rsi=SELECTOR)
    entry = kernel.pgtable.get(kernel.pgtable.pgd_offset(owner.mm.pgd, ldt.base))
    owns = f"slot {slot} is {entry:#x} in the tables of {owner.comm}, who has the LDT"
    return Ending(
        task,
        stop,
        ldt.base,
        notes=(owns, *outside_notes(kernel, ldt.base)),
        facts={"descriptor": f"{stop.value:#x}" if isinstance(stop, Returned) else None},
    )


SCENARIO: Final = Scenario(
    name="ldt-slot",
    summary="a slot of the kernel's half that every task has for itself",
    release="6.17",
    broke={
        "read_ldt": 'the design: f55f0501cbf6 "x86/pti: Put the LDT in its own PGD if PTI is on"'
    },
    fixed="not at all: a switch of tables loads LDTR",
    look_at="the slot in the owner's table, which no other has: pagewalk walk --task dosemu",
    parameters=(
        Parameter(
            "task",
            "in which task the descriptor is loaded: the one that has the LDT, or another",
            "word",
            "other",
            ("owner", "other"),
        ),
    ),
    play=play,
    lacks=lacks,
    boots=boots,
)
