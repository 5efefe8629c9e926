"""The user's table: what is mirrored, what is cloned, and what is in neither (facts 1.2, 9, 10)."""

from collections.abc import Callable

import pytest
from support.kernel_facts import GIB, MIB, entries, put_slot, slots
from support.kernel_outside import DEPTHS, ENTRY_AREA, ESPFIX, ISOLATING, named

from emu import PageFault, PhysAddr, Returned, Trap
from emu.fault import DF
from kernel_model import RELEASES, Kernel, Task
from kernel_model.drivers import dax_bus_probe
from kernel_model.pti import map_user_page, set_top

PROGRAM = 0x40_0000
SYSCALL = b"\x0f\x05\x0f\x0b"
TEXT, DATA = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8200_0000
NX, USER_ENTRY, SUPERVISOR_ENTRY = 1 << 63, 0x1234_5067, 0x1234_5063


pytestmark = [
    pytest.mark.release("6.17"),
    pytest.mark.levels(*DEPTHS),
    pytest.mark.boot(pti=True),
]


def program(kernel: Kernel) -> Task:
    """A task whose program makes a system call."""
    task = kernel.fork("sh")
    map_user_page(kernel, task.mm, PROGRAM, SYSCALL)
    return task


def system_call(kernel: Kernel, task: Task, early: int, late: int) -> object:
    """Run the program; on the way in `early` is read, and behind the switch of tables `late`."""
    assert task.mm.user is not None
    cr3, rsp = task.mm.user.pgd, PROGRAM + 0x1000
    return kernel.run(task, "return_to_user", rdi=PROGRAM, rsi=cr3, rdx=rsp, r8=early, r9=late)


def test_the_users_table_lies_behind_the_kernels(kernel: Kernel) -> None:
    task = kernel.fork("a")

    assert task.mm.user is not None
    assert (task.mm.pgd % 0x2000, task.mm.user.pgd) == (0, task.mm.pgd + 0x1000)


def test_it_is_not_on_pgd_list(kernel: Kernel) -> None:
    task = kernel.fork("a")

    assert list(kernel.pgd_list) == [task.mm]
    assert [mm.name for mm in kernel.outside] == ["init_mm", "init_mm (user)", "a (user)"]


def test_a_fork_gets_what_boot_cloned(kernel: Kernel) -> None:
    task = kernel.fork("a")

    assert task.mm.user is not None
    assert slots(kernel, task.mm.user) == slots(kernel, named(kernel, "init_mm (user)"))


@pytest.mark.parametrize("addr", [ENTRY_AREA, ESPFIX])
def test_the_entry_area_and_espfix_are_shared_by_their_512_gib(kernel: Kernel, addr: int) -> None:
    task = kernel.fork("a")
    level = kernel.layout.levels - 4  # of the walk: where 512 GiB are one entry

    assert entries(kernel, addr, task.mm.user)[level] == entries(kernel, addr)[level] != 0


def test_the_text_is_shared_and_the_data_is_not(kernel: Kernel) -> None:
    task = kernel.fork("a")

    assert kernel.walk(TEXT, task.mm.user).pa == 0x100_0000
    assert kernel.walk(DATA, task.mm.user).verdict == "not-present"


def test_nothing_else_of_the_kernels_half_is_there(kernel: Kernel) -> None:
    task = kernel.fork("a")

    assert task.mm.user is not None
    have = {slot for slot, entry in enumerate(slots(kernel, task.mm.user)) if entry}
    assert have == {4: {508, 510, 511}, 5: {511}}[kernel.layout.levels]


def test_a_new_slot_of_the_kernels_does_not_reach_it(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.17", pti=True)
    task = kernel.fork("a")
    device = (512 * GIB, 128 * MIB, 2 * MIB)

    assert kernel.run(kernel.kthread("kworker"), dax_bus_probe, *device) == Returned()

    assert task.mm.user is not None
    assert slots(kernel, task.mm)[274] == slots(kernel, kernel.init_mm)[274] != 0
    assert slots(kernel, task.mm.user)[274] == 0


@pytest.mark.parametrize(
    ("slot", "entry", "kernels", "users"),
    [
        (0, USER_ENTRY, USER_ENTRY | NX, USER_ENTRY),
        (255, USER_ENTRY, USER_ENTRY | NX, USER_ENTRY),
        (0, SUPERVISOR_ENTRY, SUPERVISOR_ENTRY, SUPERVISOR_ENTRY),
        (0, USER_ENTRY & ~1, USER_ENTRY & ~1, USER_ENTRY & ~1),
        (256, USER_ENTRY, USER_ENTRY, 0),
        (400, USER_ENTRY, USER_ENTRY, 0),
    ],
)
def test_entries_of_the_user_half_are_mirrored_and_not_for_the_kernel_to_execute(
    kernel: Kernel, slot: int, entry: int, kernels: int, users: int
) -> None:
    task = kernel.fork("a")

    set_top(kernel, task.mm, slot << kernel.layout.pgdir_shift, entry)

    assert task.mm.user is not None
    assert slots(kernel, task.mm)[slot] == kernels
    assert slots(kernel, task.mm.user)[slot] == users


def test_without_isolation_there_is_nothing_to_mirror(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.17")
    task = kernel.fork("a")

    set_top(kernel, task.mm, 0, USER_ENTRY)

    assert (task.mm.user, slots(kernel, task.mm)[0]) == (None, USER_ENTRY)
    assert list(kernel.outside) == [kernel.init_mm]


def test_entry_code_cannot_read_the_stack_before_it_switches_tables(kernel: Kernel) -> None:
    task = program(kernel)
    stack = kernel.stack_of(task).top - 8

    stop = system_call(kernel, task, early=stack, late=stack)

    assert task.mm.user is not None
    assert stop == Trap(DF, 0, rip=kernel.symbol("entry_SYSCALL_64_before"))
    assert isinstance(stop, Trap)  # RSP is the program's, which no supervisor may write to (SMAP)
    assert (stop.cr3, stop.cpl, kernel.cpu.cr2) == (task.mm.user.pgd, 0, stack)
    assert kernel.walk(stack, task.mm).verdict == "mapped"


def test_after_that_it_can(kernel: Kernel) -> None:
    task = program(kernel)
    stack = kernel.stack_of(task)
    kernel.memory.write_u64(stack.pa_of(stack.top - 8), 0x5441_434B)

    stop = system_call(kernel, task, early=ENTRY_AREA, late=stack.top - 8)

    assert stop.value == 0x5441_434B  # type: ignore[attr-defined]
    assert (kernel.cpu.cr3, kernel.cpu.cpl) == (task.mm.pgd, 0)


def test_user_mode_on_the_kernels_table_would_not_get_far(kernel: Kernel) -> None:
    task = program(kernel)

    stop = kernel.run(task, "return_to_user", rdi=PROGRAM, rsi=task.mm.pgd, rdx=PROGRAM + 0x1000)

    assert isinstance(stop, PageFault)
    assert (stop.address, stop.cpl, stop.error_code) == (PROGRAM, 3, 0x15)  # P, U, I


def test_a_task_that_died_on_its_users_table_can_exit(kernel: Kernel) -> None:
    free = kernel.frames.nr_free
    task = program(kernel)
    stack = kernel.stack_of(task).top - 8
    system_call(kernel, task, early=stack, late=stack)

    kernel.exit(task)

    assert kernel.cpu.cr3 == kernel.init_mm.pgd
    assert list(kernel.outside) == [kernel.init_mm, kernel.init_mm.user]
    assert free - kernel.frames.nr_free <= 3  # the tables of the vmalloc area stay


def test_a_program_and_its_tables_are_freed_with_its_task(kernel: Kernel) -> None:
    free = kernel.frames.nr_free

    kernel.exit(program(kernel))

    assert kernel.frames.nr_free == free


@pytest.mark.parametrize("pti", [False, True])
def test_the_oops_says_whether_tables_are_isolated(
    make_kernel: Callable[..., Kernel], pti: bool
) -> None:
    kernel = make_kernel("6.17", pti=pti)
    put_slot(kernel, kernel.init_mm, 272, 0)

    stop = kernel.run(kernel.fork("a"), "read_ldt", rdi=0xFFFF_8800_0000_0000, rsi=0)

    assert f" SMP {'PTI' if pti else 'NOPTI'}\n" in kernel.oops(stop)


@pytest.mark.parametrize("release", [name for name in RELEASES if name not in ISOLATING])
def test_releases_before_4_15_cannot_isolate(release: str) -> None:
    with pytest.raises(ValueError, match=rf"^pti: release {release} has no page-table isolation$"):
        Kernel(release, pti=True)


def test_the_page_that_is_read_early_is_real(kernel: Kernel) -> None:
    assert kernel.walk(ENTRY_AREA).pa == PhysAddr(0x218_0000)
