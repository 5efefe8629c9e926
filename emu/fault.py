"""How a run ends: PageFault and the others, the error-code bits, one-line texts.

Knows what each way to stop carries. Refuses to know why it came to that: `rights` judges,
`stops` reports. A guest's fault is a value of this module, never a Python exception; the
exceptions here are for mistakes of the caller or of the engine. SDM vocabulary; source: Intel
SDM volume 3A, "Interrupt 14 - Page-Fault Exception (#PF)".
"""

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from emu.paging import PhysAddr, VirtAddr
from emu.registers import Registers
from emu.walk import Walk

PF_P: Final = 1 << 0  # no entry was absent: a right was missing, or a reserved bit was set
PF_W: Final = 1 << 1  # a write; a read-modify-write is one, also where its load is what faults
PF_U: Final = 1 << 2  # an explicit access at CPL 3 (to descriptors and the TSS: 0 at any CPL)
PF_RSVD: Final = 1 << 3  # a reserved bit was set in an entry; implies P
PF_I: Final = 1 << 4  # an instruction fetch; only with EFER.NXE or CR4.SMEP
PF_PK: Final = 1 << 5  # the page's protection key forbids it
ERROR_BITS: Final = {
    "P": (PF_P, "an entry on the way was not present", "all entries were present"),
    "W": (PF_W, "no write", "a write"),
    "U": (PF_U, "a supervisor-mode access", "a user-mode access"),
    "RSVD": (PF_RSVD, "no reserved bit was in the way", "an entry had a reserved bit set"),
    "I": (PF_I, "no instruction fetch", "an instruction fetch"),
    "PK": (PF_PK, "no protection key forbade it", "the page's protection key forbade it"),
}
"""Each bit of the error code by name, and what it says if it is clear and if it is set."""

# Vectors, by the SDM's mnemonics.
DE: Final = 0
DB: Final = 1
NMI: Final = 2
BP: Final = 3
OF: Final = 4
BR: Final = 5
UD: Final = 6
NM: Final = 7
DF: Final = 8
TS: Final = 10
NP: Final = 11
SS: Final = 12
GP: Final = 13
PF: Final = 14
MF: Final = 16
AC: Final = 17
MC: Final = 18
XM: Final = 19
VE: Final = 20
CP: Final = 21

VECTOR_NAME: Final = {
    DE: "#DE",
    DB: "#DB",
    NMI: "NMI",
    BP: "#BP",
    OF: "#OF",
    BR: "#BR",
    UD: "#UD",
    NM: "#NM",
    DF: "#DF",
    TS: "#TS",
    NP: "#NP",
    SS: "#SS",
    GP: "#GP",
    PF: "#PF",
    MF: "#MF",
    AC: "#AC",
    MC: "#MC",
    XM: "#XM",
    VE: "#VE",
    CP: "#CP",
}
HAS_ERROR_CODE: Final = frozenset((DF, TS, NP, SS, GP, PF, AC, CP))


class EmuError(Exception):
    """Something went wrong that is not the guest's doing."""


class EngineError(EmuError):
    """The engine did what it should not, or the CPU and the walk disagree. Says both."""


class OutOfFrames(EmuError):
    """No free frame is left."""


class NotMapped(EmuError):
    """Python asked for bytes at an address without a translation, or without RAM behind it."""

    def __init__(self, walk: Walk) -> None:
        super().__init__(f"va {walk.va:#x} cannot be read or written: {walk!r}")
        self.walk = walk


class Returned(NamedTuple):
    """The routine came back to where it was to return. `value` is RAX, and is not compared."""

    value: int = 0

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Returned):
            return True
        return False if isinstance(other, tuple) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(Returned)

    def __str__(self) -> str:
        return f"returned {self.value:#x}"


class PageFault(NamedTuple):
    """A #PF that nobody handled: CR2, error code, and the address of the instruction.

    Compares by these three. The rest says what the CPU saw: the walk for `address`, CPL, CR3, the
    id of the rule that decided (see `rights`), the registers as the instruction found them,
    and, where the code has a name, "symbol+0x9/0x6d".
    """

    address: VirtAddr
    error_code: int
    rip: VirtAddr
    walk: Walk | None = None
    cpl: int = 0
    cr3: int = 0
    reason: str = ""
    registers: Registers | None = None
    symbol: str | None = None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PageFault):
            return self[:3] == other[:3]
        return False if isinstance(other, tuple) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:3])

    @property
    def vector(self) -> int:
        """That of #PF."""
        return PF

    @property
    def access(self) -> Literal["read", "write", "fetch"]:
        """What the instruction was about to do, from the error code."""
        return access_of(self.error_code)

    def html(self) -> str:
        """Return its sentence, the walk, the error code bit by bit, and the registers."""
        from emu import markup

        walk = self.walk.html() if self.walk else ""
        code = error_code_html(self.error_code)
        return markup.sentence(str(self)) + walk + code + _html(self.registers)

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        code = f"{self.address:#x}, {self.error_code:#x}, rip={self.rip:#x}"
        more = "".join(
            f", {name}={value!r}"
            for name, value in (("reason", self.reason), ("symbol", self.symbol))
            if value
        )
        return f"PageFault({code}{more})"

    def __str__(self) -> str:
        who = "user" if self.error_code & PF_U else "supervisor"
        where = f" ({self.symbol})" if self.symbol else ""
        return (
            f"#PF at {self.address:#x}: {who} {self.access}, {self.reason or 'page fault'}, "
            f"error code {self.error_code:#x}, rip {self.rip:#x}{where}"
        )


@dataclass(frozen=True, slots=True)
class Trap:
    """Another exception that nobody handled. `error_code` is None where the vector has none.

    Compares by vector, error code and RIP. CPL, CR3 and CR2 are what they were then: CR2 holds
    the address of an earlier page fault, if there was one; 0 for one that was raised on the way
    to a handler. `instruction` is where the `int n` or
    `int3` that raised it begins, whose RIP is behind itself; None if software did not raise it.
    """

    vector: int
    error_code: int | None
    rip: VirtAddr
    registers: Registers | None = field(default=None, compare=False, repr=False)
    symbol: str | None = field(default=None, compare=False)
    cpl: int = field(default=0, compare=False)
    cr3: int = field(default=0, compare=False)
    cr2: int = field(default=0, compare=False)
    instruction: VirtAddr | None = field(default=None, compare=False)

    def html(self) -> str:
        """Return its sentence, what the CPU was set to, and the registers."""
        from emu import markup

        control = f"CPL {self.cpl}, CR3 {self.cr3:#x}, CR2 {self.cr2:#x}"
        return markup.sentence(str(self)) + markup.sentence(control) + _html(self.registers)

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        code = "None" if self.error_code is None else f"{self.error_code:#x}"
        return f"Trap({self.vector}, {code}, rip={self.rip:#x})"

    def __str__(self) -> str:
        name = VECTOR_NAME.get(self.vector, f"vector {self.vector}")
        code = "" if self.error_code is None else f" with error code {self.error_code:#x}"
        where = f" ({self.symbol})" if self.symbol else ""
        return f"{name}{code} at rip {self.rip:#x}{where}"


@dataclass(frozen=True, slots=True)
class OutsideRam:
    """An access led to a physical address where there is no RAM.

    `what` says by which way: the page itself ("leaf"), a table that an entry points to
    ("table"), or the table that CR3 points to ("root").
    """

    pa: PhysAddr
    rip: VirtAddr
    what: Literal["leaf", "table", "root"]
    walk: Walk | None = field(default=None, compare=False, repr=False)

    def _repr_html_(self) -> str:
        from emu import markup

        return markup.sentence(str(self)) + (self.walk.html() if self.walk else "")

    def __repr__(self) -> str:
        return f"OutsideRam(pa={self.pa:#x}, rip={self.rip:#x}, what={self.what!r})"

    def __str__(self) -> str:
        return f"{self.what} at pa {self.pa:#x} is outside RAM, rip {self.rip:#x}"


@dataclass(frozen=True, slots=True)
class Halted:
    """A `hlt` other than the one where the routine was to return."""

    rip: VirtAddr

    def __repr__(self) -> str:
        return f"Halted(rip={self.rip:#x})"

    def __str__(self) -> str:
        return f"hlt at rip {self.rip:#x}"


@dataclass(frozen=True, slots=True)
class StepLimit:
    """The run was ended before the guest was: after `steps` steps, or from outside (None)."""

    rip: VirtAddr
    steps: int | None = None

    def __repr__(self) -> str:
        return f"StepLimit(rip={self.rip:#x}, steps={self.steps})"

    def __str__(self) -> str:
        why = "stopped from outside" if self.steps is None else f"stopped after {self.steps} steps"
        return f"{why} at rip {self.rip:#x}"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """A fault on the way to the handler of a double fault: the processor gives up.

    `exceptions` are those that led there, in order, the double fault included.
    """

    rip: VirtAddr
    exceptions: "tuple[PageFault | Trap, ...]" = field(default=(), compare=False)

    def _repr_html_(self) -> str:
        from emu import markup

        each = (markup.unfolds(str(exc), exc.html()) for exc in self.exceptions)
        return markup.sentence(str(self)) + "".join(each)

    def __repr__(self) -> str:
        return f"Shutdown(rip={self.rip:#x})"

    def __str__(self) -> str:
        names = " -> ".join(VECTOR_NAME.get(exc.vector, "?") for exc in self.exceptions)
        return f"shutdown (triple fault) at rip {self.rip:#x}{names and ': ' + names}"


Stop = Returned | PageFault | Trap | OutsideRam | Halted | StepLimit | Shutdown
"""How a run ended: one of these."""


def access_of(error_code: int) -> Literal["read", "write", "fetch"]:
    """Return the kind of access that a #PF error code reports."""
    if error_code & PF_I:
        return "fetch"
    return "write" if error_code & PF_W else "read"


def _html(registers: Registers | None) -> str:
    """Return the registers as HTML, out of the way until somebody asks for them."""
    from emu import markup

    return markup.unfolds("registers", registers.html()) if registers else ""


def error_code_html(code: int) -> str:
    """Return a #PF error code bit by bit, as HTML."""
    from emu import markup

    bits = [
        (name, "1", if_set) if code & bit else (name, "0", if_clear)
        for name, (bit, if_clear, if_set) in ERROR_BITS.items()
    ]
    return markup.table(f"error code {code:#x}", ("bit", "value", "meaning"), bits)
