"""Having a task die, and reading what the kernel prints of it."""

from typing import Final

from support.kernel_facts import GIB, MIB

from kernel_model import Kernel, Task

TEXT: Final = 0xFFFF_FFFF_8100_0000
INIT: Final = "__init_single_page"
DEVICE: Final = (64 * GIB - 256 * MIB, 512 * MIB, 2 * MIB)  # its struct pages cross the boundary


def store(kernel: Kernel, page: int, task: Task | None = None) -> list[str]:
    """Have a task store to page + 0x34, and return the lines of its oops."""
    stop = kernel.run(task or kernel.fork("modprobe"), INIT, rdi=page)
    return kernel.oops(stop).splitlines()


def lines_with(start: str, lines: list[str]) -> list[str]:
    """Those lines that begin so."""
    return [line for line in lines if line.startswith(start)]
