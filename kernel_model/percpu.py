"""Per-CPU memory: a chunk has a unit for each CPU, all laid out alike.

Knows how the first chunk gets its tables at boot when it is made of single pages, and where a
chunk lies that is made at run time: at the very top of the vmalloc area, far from everything else
there, and so under a top-level entry that nobody has used before. Refuses to know what is kept in
it. Linux vocabulary; source: mm/percpu.c (v5.8, v6.17), mm/percpu-vm.c, pcpu_get_vm_areas() in
mm/vmalloc.c (v5.8).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emu import OutOfFrames
from kernel_model.callstack import kernel_function
from kernel_model.layout import PAGE_SIZE, PMD_SIZE
from kernel_model.pgtable import none
from kernel_model.populate import (
    p4d_populate_kernel,
    pgd_populate_kernel,
    pmd_populate_kernel,
    pud_populate,
)
from kernel_model.vmalloc import map_kernel_range
from kernel_model.vmap_areas import VmArea

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

PCPU_UNIT_SIZE: Final = 256 << 10
NR_POSSIBLE_CPUS: Final = 16


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


@dataclass(frozen=True, slots=True)
class Chunk:
    """One unit for each possible CPU, one behind the other, from `base` on."""

    area: VmArea

    @property
    def base(self) -> int:
        """Where the first unit begins."""
        return self.area.start

    def address(self, cpu: int, offset: int) -> int:
        """Return where a CPU has what lies at `offset` of each unit (per_cpu_ptr)."""
        return self.base + cpu * PCPU_UNIT_SIZE + offset


@kernel_function
def pcpu_create_chunk(kernel: "Kernel") -> Chunk:
    """Take the highest addresses of the vmalloc area that are free. Raises OutOfFrames.

    Nothing of it is mapped yet; there is no guard between chunks.
    """
    size = PCPU_UNIT_SIZE * NR_POSSIBLE_CPUS
    start = kernel.vmap_areas.highest(size, PMD_SIZE)
    if start is None:
        raise OutOfFrames("no room for a chunk in the vmalloc area")
    area = VmArea(start, start + size, "percpu", kernel.caller(), guard=0)
    return Chunk(kernel.vmap_areas.insert(area))


@kernel_function
def pcpu_populate_chunk(kernel: "Kernel", chunk: Chunk, offset: int, size: int) -> None:
    """Map [offset, offset + size) of every unit, by fresh frames. Raises OutOfFrames."""
    first = offset // PAGE_SIZE * PAGE_SIZE
    last = -(-(offset + size) // PAGE_SIZE) * PAGE_SIZE
    for cpu in range(NR_POSSIBLE_CPUS):
        frames = [kernel.frames.allocate() for _ in range(first, last, PAGE_SIZE)]
        start = chunk.address(cpu, first)
        map_kernel_range(kernel, start, start + last - first, frames)


@kernel_function
def pcpu_alloc(kernel: "Kernel", offset: int, size: int) -> Chunk:
    """Give every CPU `size` bytes at `offset` of a new chunk. Raises OutOfFrames."""
    chunk = pcpu_create_chunk(kernel)
    pcpu_populate_chunk(kernel, chunk, offset, size)
    return chunk
