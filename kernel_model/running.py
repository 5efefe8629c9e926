"""Running on the CPU, in a task: routines, entries, BUGs, and going from one task to the next.

Knows where on the current stack a run begins and what it returns to. Refuses to know what a stop
means (`deaths`) and who asked (`kernel`). Linux vocabulary; source: arch/x86/mm/tlb.c and
arch/x86/kernel/process_64.c, switch_mm_irqs_off() and prepare_switch_to() (v5.4).
"""

from functools import cache
from typing import TYPE_CHECKING

from asm import Image
from emu import Returned, Stop
from kernel_model.callstack import call_site, deepest, depth
from kernel_model.errors import KernelError, TaskDied
from kernel_model.history import Switched
from kernel_model.mm import Mm, Stack, Task
from kernel_model.writers import ENTRY_REGISTER, stored_entry

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


def run_routine(kernel: "Kernel", routine: str, registers: dict[str, int]) -> Stop:
    """Run a routine as called from the running function, or bare if there is none.

    An entry, which nobody calls, has an end of its own: the label that is called so.
    """
    stores = stored_entry(kernel, routine, registers) if routine in ENTRY_REGISTER else None
    if kernel.current.frames:
        site, rsp = call_site(kernel, routine)
        at, returns_to = site.address, site.return_address
        registers = _frame_pointer(kernel) | registers
    else:
        at, end = _bounds(kernel.image, routine)
        if end is None:
            returns_to, rsp = kernel.run_return, _push_run_return(kernel)
        else:
            returns_to, rsp = end, kernel.stack_of(kernel.current).top - 0x10
    stop = kernel.cpu.run(at, returns_to=returns_to, rsp=rsp, **registers)
    if stores and kernel.pgtable.get(stores[0]) != stores[1]:
        kernel.pgtable.writers.note(stores[0], by=routine)
    return kernel.deaths.judge(kernel, stop)


def run_bug(kernel: "Kernel", label: str) -> Stop:
    """Execute the ud2 at `label` of the running function, which kills its task."""
    at = kernel.image.address(label)
    _, entered_at = kernel.current.frames[-1]
    rsp = entered_at - depth(kernel.image, at)
    return kernel.deaths.judge(kernel, kernel.cpu.run(at, rsp=rsp, **_frame_pointer(kernel)))


def switch_to(kernel: "Kernel", task: Task) -> None:
    """Go on in another task: its table first, on the stack of the old one; then its stack."""
    stack = kernel.stack_of(task)
    switch_mm(kernel, task.mm)
    release = kernel.release
    if release.vmalloc_sync == "fault" and release.vmap_stack and task is not kernel.current:
        _prepare_switch_to(kernel, stack)
    kernel.current = task


def switch_mm(kernel: "Kernel", mm: Mm) -> None:
    """Write CR3, by the routine, on the current task's stack.

    TaskDied if text or stack is missing from the new table; CR3 then stays.
    """
    cpu = kernel.cpu
    cr3 = cpu.cr3
    if cr3 == mm.pgd:
        return
    if kernel.release.stack_sync == "copied":
        _sync_current_stack_to_mm(kernel, mm)
    at, _ = _bounds(kernel.image, "switch_mm")
    rsp = _push_run_return(kernel)
    stop = cpu.run(at, returns_to=kernel.run_return, rdi=cr3, rsi=mm.pgd, rsp=rsp)
    stop = kernel.deaths.judge(kernel, stop)
    if type(stop) is not Returned:
        cpu.cr3 = cr3
        raise TaskDied(stop)
    kernel.history.append(Switched(mm.name, mm.pgd))


def _prepare_switch_to(kernel: "Kernel", stack: Stack) -> None:
    """Touch the next stack, while the old one can still take a fault, which fills the slot."""
    at, _ = _bounds(kernel.image, "prepare_switch_to")
    rsp = _push_run_return(kernel)
    stop = kernel.cpu.run(at, returns_to=kernel.run_return, rdi=stack.top - 8, rsp=rsp)
    stop = kernel.deaths.judge(kernel, stop)
    if type(stop) is not Returned:
        raise TaskDied(stop)


@cache
def _bounds(image: Image, routine: str) -> tuple[int, int | None]:
    """Return where a routine begins, and where it ends if nobody calls it."""
    end = image.symbols.get(f"{routine}_end")
    return image.address(routine), end.address if end else None


def _sync_current_stack_to_mm(kernel: "Kernel", mm: Mm) -> None:
    """Copy the top-level entry of the stack that is in use, before `mm` becomes active."""
    pgtable, stack = kernel.pgtable, kernel.stack_of(kernel.current)
    entry_pa = pgtable.pgd_offset(mm.pgd, stack.base)
    if pgtable.top_none(pgtable.get(entry_pa)):
        reference = pgtable.get(pgtable.pgd_offset(kernel.init_mm.pgd, stack.base))
        pgtable.set(entry_pa, reference, "sync_current_stack_to_mm")


def _frame_pointer(kernel: "Kernel") -> dict[str, int]:
    """Return RBP as the running function has it, where that is its frame's."""
    if not kernel.build.frame_pointers:
        return {}
    return {"rbp": kernel.current.frames[-1][1] - 8}


def _push_run_return(kernel: "Kernel") -> int:
    """Put the return address of a bare run where the current stack is free; return RSP."""
    task = kernel.current
    stack = kernel.stack_of(task)
    if task.frames:
        function, entered_at = task.frames[-1]
        rsp = entered_at - deepest(kernel.image, function) - 8
        if rsp < stack.base:
            raise KernelError(f"the stack of {task!r} has overflowed in {function}")
    else:
        rsp = stack.top - 0x10
    kernel.memory.write_u64(stack.pa_of(rsp), kernel.run_return)
    return rsp
