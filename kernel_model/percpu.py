"""Per-CPU memory: the tables below it.

Knows how the first chunk gets its tables when it is made of single pages. Refuses to know what
lies in a chunk. Linux vocabulary; source: mm/percpu.c (v6.17).
"""

from typing import TYPE_CHECKING

from kernel_model.pgtable import none
from kernel_model.populate import (
    p4d_populate_kernel,
    pgd_populate_kernel,
    pmd_populate_kernel,
    pud_populate,
)

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


def pcpu_populate_pte(kernel: "Kernel", addr: int) -> None:
    """Make the tables of init_mm from the pgd down to the pte for `addr`. Raises OutOfFrames.

    Called at boot only, for a first chunk of single pages: there is no other table yet, and the
    sync that the releases with {pgd,p4d}_populate_kernel() do here has nothing to fill. (This is
    the one in mm/percpu.c. x86 has a version of its own in arch/x86/kernel/setup_percpu.c, which
    goes by populate_extra_pte() and which the merged design left as it was.)
    """
    pgtable, path = kernel.pgtable, "pcpu_populate_pte"
    pgdp = pgtable.pgd_offset(kernel.init_mm.pgd, addr)
    if pgtable.pgd_none(pgtable.get(pgdp)):
        pgd_populate_kernel(kernel, addr, pgdp, kernel.frames.allocate(), path)
    p4dp = pgtable.p4d_offset(pgdp, addr)
    if none(pgtable.get(p4dp)):
        p4d_populate_kernel(kernel, addr, p4dp, kernel.frames.allocate(), path)
    pudp = pgtable.pud_offset(p4dp, addr)
    if none(pgtable.get(pudp)):
        pud_populate(kernel, pudp, kernel.frames.allocate())
    pmdp = pgtable.pmd_offset(pudp, addr)
    if none(pgtable.get(pmdp)):
        pmd_populate_kernel(kernel, pmdp, kernel.frames.allocate())
