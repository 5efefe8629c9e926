"""Tracing of page faults: each leaves an event in a per-CPU buffer.

Knows where the handler looks for the buffer. Refuses to know whether the handler can reach it.
Linux vocabulary; source: arch/x86/mm/fault.c, trace_page_fault_entries() (v5.6).
"""

from typing import TYPE_CHECKING

from kernel_model.boot import kernel_pa

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


def trace_page_faults(kernel: "Kernel", buffer: int) -> None:
    """Have the page-fault handler count an event at `buffer` before it does anything else."""
    kernel.memory.write_u64(kernel_pa(kernel.symbol("trace_page_fault")), buffer)


def nr_events(kernel: "Kernel", buffer: int) -> int:
    """Return how many events there are."""
    return int.from_bytes(kernel.read(buffer, 8), "little")
