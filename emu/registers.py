"""The registers of one moment, as a value.

Knows the names and the order in which the machine keeps them. Refuses to know which CPU they
came from or what they are for. SDM names, lower case.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

# The numbers of model-specific registers.
MSR_SYSENTER_CS: Final = 0x174
MSR_SYSENTER_ESP: Final = 0x175
MSR_SYSENTER_EIP: Final = 0x176
MSR_EFER: Final = 0xC000_0080
MSR_STAR: Final = 0xC000_0081
MSR_LSTAR: Final = 0xC000_0082
MSR_CSTAR: Final = 0xC000_0083
MSR_FMASK: Final = 0xC000_0084
MSR_FS_BASE: Final = 0xC000_0100
MSR_GS_BASE: Final = 0xC000_0101
MSR_KERNEL_GS_BASE: Final = 0xC000_0102


class Registers(NamedTuple):
    """A snapshot of the general registers, RIP, RFLAGS and the two segment bases.

    The order is the encoding order of the SDM ("Instruction Format", register fields), which is
    also the order in which the engine keeps them: index 4 is RSP, index 16 RIP, index 17 RFLAGS.
    """

    rax: int
    rcx: int
    rdx: int
    rbx: int
    rsp: int
    rbp: int
    rsi: int
    rdi: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    rip: int
    rflags: int
    fs_base: int
    gs_base: int

    def html(self) -> str:
        """Return a table of all of them."""
        from emu import markup

        rows = [(name, f"{value:#x}") for name, value in self._asdict().items()]
        return markup.table("registers", ("register", "value"), rows)

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        return f"Registers({', '.join(f'{n}={v:#x}' for n, v in self._asdict().items())})"


GENERAL: Final = Registers._fields[:16]
"""The general registers' names, RAX first."""

Harmless = Callable[[Sequence[int]], bool]
"""Tells of the general registers and RIP, as `Registers` orders them, that they are no matter."""
