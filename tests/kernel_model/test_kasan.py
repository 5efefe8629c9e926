"""KASAN's shadow: where it lies, what boot fills, and whom a part that comes later is told of.

Facts 1.1, 2.6 and 9. At 4 levels a slot of shadow tells of 4 TiB, at 5 of 2 PiB.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest
from support.kernel_facts import GIB, MIB, PF_W, SYNCING, TIB, put_slot, slots

from emu import PageFault, PhysAddr, Returned, Trap
from kernel_model import Kernel, make_layout
from kernel_model.errors import KernelError
from kernel_model.history import Cleared, Mapped, Populated, Refused, Synced
from kernel_model.kasan import kasan_add_zero_shadow, kasan_remove_zero_shadow
from kernel_model.memremap import DevPagemap, devm_memremap_pages
from kernel_model.percpu import pcpu_populate_pte

FS_DAX, DEVICE_PRIVATE = 3, 1
SHADOWED = ("5.4", "5.6", "5.8", "5.10", "6.8", "6.13", "6.16", "rfc-v1", "6.17")
RO = 0x161  # P A D G: what maps the zero page, but for XD


class Slot(NamedTuple):
    """The first top-level slot that boot leaves to shadow that comes later."""

    levels: int
    slot: int
    addr: int  # where it begins
    memory: int  # the direct-map address that its first byte tells of
    pa: int
    covers: int  # bytes of memory


FOUR = Slot(4, 475, 0xFFFF_ED80_0000_0000, 0xFFFF_8C00_0000_0000, 3584 * GIB, 4 * TIB)
FIVE = Slot(5, 483, 0xFFE3_0000_0000_0000, 0xFF18_2000_0000_0000, 1824 * TIB, 2048 * TIB)
BOTH = [pytest.param(FOUR, id="4-level"), pytest.param(FIVE, id="5-level")]
EVERYWHERE = [pytest.param(r, s, id=f"{r}-{s.levels}") for r, s in product(SHADOWED, (FOUR, FIVE))]


@pytest.fixture(scope="module", params=BOTH)
def booted(request: pytest.FixtureRequest) -> Iterator[tuple[Kernel, Slot]]:
    """6.8 with KASAN, to be looked at only."""
    with Kernel("6.8", levels=request.param.levels, kasan=True) as kernel:
        yield kernel, request.param


def zero_page(kernel: Kernel) -> int:
    """The frame that the shadow of an address is mapped to where nothing ever is."""
    pa = kernel.walk(shadow(0xFFFF_8000_0000_0000)).pa
    assert pa is not None
    return pa


def shadow(addr: int) -> int:
    """Where the byte lies that tells of `addr`."""
    return (addr >> 3) + 0xDFFF_FC00_0000_0000


def has(kernel: Kernel, name: str, slot: int) -> bool:
    """Whether a task's table has a slot."""
    return slots(kernel, kernel.task(name).mm)[slot] != 0


def syncs(kernel: Kernel) -> list[Synced]:
    """The syncs since boot."""
    return [e for e in kernel.history[kernel.nr_boot_events :] if isinstance(e, Synced)]


# -- where it lies


@pytest.mark.parametrize(
    ("levels", "start", "end", "first", "last"),
    [
        (4, 0xFFFF_EC00_0000_0000, 0xFFFF_FC00_0000_0000, 472, 503),
        (5, 0xFFDF_FC00_0000_0000, 0xFFFF_FC00_0000_0000, 479, 511),
    ],
)
def test_the_shadow_has_its_slots(levels: int, start: int, end: int, first: int, last: int) -> None:
    layout = make_layout(levels=levels, kasan=True)

    assert ("KASAN shadow", start, end) in layout.regions()
    assert (layout.pgd_index(start), layout.pgd_index(end - 1)) == (first, last)


@pytest.mark.parametrize(
    ("levels", "addr", "byte", "slot"),
    [
        (4, 0xFFFF_8880_0000_0000, 0xFFFF_ED10_0000_0000, 474),
        (4, 0xFFFF_8C00_0000_0000, 0xFFFF_ED80_0000_0000, 475),
        (4, 0xFFFF_9000_0000_0000, 0xFFFF_EE00_0000_0000, 476),
        (4, 0xFFFF_9400_0000_0000, 0xFFFF_EE80_0000_0000, 477),
        (5, 0xFF11_0000_0000_0000, 0xFFE2_1C00_0000_0000, 482),
        (5, 0xFF18_2000_0000_0000, 0xFFE3_0000_0000_0000, 483),
        (4, 0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FBFF_FFFF_FFFF, 503),
    ],
)
def test_a_byte_of_shadow_lies_at_an_eighth_of_the_address(
    levels: int, addr: int, byte: int, slot: int
) -> None:
    layout = make_layout(levels=levels, kasan=True)

    assert layout.kasan_mem_to_shadow(addr) == byte
    assert layout.pgd_index(byte) == slot


def test_slot_475_begins_with_3_5_tib_of_physical_memory() -> None:
    layout = make_layout(kasan=True)

    assert layout.kasan_mem_to_shadow(layout.va(3584 * GIB)) == layout.slot_base(475)


def test_an_address_of_the_shadow_has_a_region_if_there_is_kasan() -> None:
    regions = [make_layout(kasan=on).region(0xFFFF_ED80_0000_0000) for on in (True, False)]

    assert regions == ["KASAN shadow", "no region"]


@pytest.mark.parametrize(
    ("levels", "base", "expected"),
    [
        (4, 0xFFFF_E6FF_C000_0000, "0xffffe6ffc0000000: expected 0xffffea0000000000"),
        (5, 0xFFD3_FFFF_C000_0000, "0xffd3ffffc0000000: expected 0xffd4000000000000"),
    ],
)
def test_kasan_leaves_kaslr_no_choice(levels: int, base: int, expected: str) -> None:
    with pytest.raises(ValueError, match=f"vmemmap_base {expected}, where KASAN has it"):
        Kernel(levels=levels, vmemmap_base=base, kasan=True)


def test_the_base_that_it_has_anyway_is_no_choice() -> None:
    assert make_layout(vmemmap_base=0xFFFF_EA00_0000_0000, kasan=True) == make_layout(kasan=True)


# -- what boot fills

EMPTY = {4: set(range(475, 490)), 5: {483}}
OLD_EMPTY = {4: set(range(475, 490)), 5: {482}}


def empty_slots(kernel: Kernel) -> set[int]:
    """The slots of the shadow that init_mm lacks."""
    top = slots(kernel, kernel.init_mm)
    return {s for s in range(472 if kernel.layout.levels == 4 else 479, 504) if not top[s]}


def test_boot_leaves_out_the_shadow_of_memory_that_may_come(booted: tuple[Kernel, Slot]) -> None:
    kernel, where = booted

    assert empty_slots(kernel) == EMPTY[where.levels]


@pytest.mark.parametrize("release", SYNCING)
@pytest.mark.parametrize("levels", [4, 5])
def test_so_it_does_where_populating_syncs(release: str, levels: int) -> None:
    with Kernel(release, levels=levels, kasan=True) as kernel:
        assert empty_slots(kernel) == EMPTY[levels]


@pytest.mark.parametrize("levels", [4, 5])
def test_with_the_older_layout_these_are_others(levels: int) -> None:
    with Kernel("4.17", levels=levels, kasan=True) as kernel:
        assert empty_slots(kernel) == OLD_EMPTY[levels]


def test_the_first_of_them_is_where_the_scenario_begins(booted: tuple[Kernel, Slot]) -> None:
    kernel, where = booted

    assert kernel.layout.va(where.pa) == where.memory
    assert shadow(where.memory) == where.addr
    assert min(empty_slots(kernel)) == where.slot


def test_ram_has_shadow_of_its_own_up_to_its_last_byte(booted: tuple[Kernel, Slot]) -> None:
    kernel, _ = booted
    ram = [kernel.layout.va(pa) for pa in range(0, 4 * GIB, 128 * MIB)]

    walks = [kernel.walk(shadow(addr)) for addr in ram]

    assert len({walk.pa for walk in walks}) == len(ram)
    assert all(walk.steps[-1].entry & 0x1FF == 0x1E3 for walk in walks)  # 2 MiB, writable
    assert kernel.walk(shadow(kernel.layout.va(4 * GIB)) - 1).verdict == "mapped"
    assert kernel.walk(shadow(kernel.layout.va(4 * GIB))).verdict == "not-present"


def test_the_shadow_of_a_terabyte_is_mapped_by_1_gib_pages() -> None:
    with Kernel(ram=TIB, kasan=True) as kernel:
        walk = kernel.walk(shadow(kernel.layout.va(512 * GIB)))

        assert [step.level for step in walk.steps] == [4, 3]
        assert walk.verdict == "mapped"


@pytest.mark.parametrize("what", ["text", "modules", "cpu entry area"])
def test_what_is_mapped_beside_it_has_its_own_too(booted: tuple[Kernel, Slot], what: str) -> None:
    kernel, _ = booted
    addr = {
        "text": 0xFFFF_FFFF_8100_0000,
        "modules": kernel.symbol("dev_dax_probe"),
        "cpu entry area": 0xFFFF_FE00_0000_0000,
    }[what]

    walk = kernel.walk(shadow(addr))

    assert walk.steps[-1].entry & 2
    assert walk.pa is not None
    assert walk.pa & ~0xFFF != zero_page(kernel)


@pytest.mark.parametrize("what", ["below", "beyond", "vmemmap", "vmemmap_end", "espfix", "last"])
def test_all_that_nobody_keeps_is_one_page_of_zeroes(
    booted: tuple[Kernel, Slot], what: str
) -> None:
    kernel, where = booted
    layout = kernel.layout
    addr = {
        "below": layout.page_offset_base - 8,
        "beyond": layout.page_offset_base + (64 * TIB if where.levels == 4 else 4096 * TIB),
        "vmemmap": layout.vmemmap_base,
        "vmemmap_end": layout.vmemmap_end,
        "espfix": 0xFFFF_FF00_0000_0000,
        "last": 0xFFFF_FFFF_FFFF_FFFF,
    }[what]

    walk = kernel.walk(shadow(addr))

    assert walk.steps[-1].entry == zero_page(kernel) | RO | 1 << 63
    assert kernel.read(walk.va & ~0xFFF, 4096) == bytes(4096)


def test_a_write_to_it_faults(booted: tuple[Kernel, Slot]) -> None:
    kernel, _ = booted
    byte = shadow(kernel.layout.vmemmap_base)

    stop = kernel.run(kernel.init_task, "__init_single_page", rdi=byte)

    rip = kernel.symbol("__init_single_page+0x9")
    assert stop == PageFault(byte + 0x34, PF_W | 1, rip)  # type: ignore[arg-type]


def test_of_the_vmalloc_area_only_the_top_is_filled(booted: tuple[Kernel, Slot]) -> None:
    kernel, where = booted
    size = kernel.layout.vmalloc_end - kernel.layout.vmalloc_base
    addrs = [kernel.layout.vmalloc_base + size * i // 64 for i in range(64)]

    walks = [kernel.walk(shadow(addr)) for addr in addrs]

    assert [len(walk.steps) for walk in walks] == [where.levels - 2] * 64
    assert {walk.verdict for walk in walks} == {"not-present"}


@pytest.mark.parametrize("levels", [4, 5])
def test_before_kasan_vmalloc_it_was_the_zero_page(levels: int) -> None:
    with Kernel("5.4", levels=levels, kasan=True) as kernel:
        walk = kernel.walk(shadow(kernel.layout.vmalloc_base))

        assert walk.pa == zero_page(kernel)


@pytest.mark.parametrize(
    ("release", "region"),
    [("4.14", "direct map"), ("5.4", "direct map"), ("5.6", "vmalloc"), ("6.17", "vmalloc")],
)
def test_a_stack_lies_where_it_has_shadow_that_can_be_written(release: str, region: str) -> None:
    with Kernel(release, kasan=True) as kernel:
        stack = kernel.stack_of(kernel.fork("a"))

        assert kernel.layout.region(stack.base) == region


@pytest.mark.parametrize(("release", "where"), EVERYWHERE)
def test_what_boot_fills_every_task_can_look_up(release: str, where: Slot) -> None:
    with Kernel(release, levels=where.levels, kasan=True) as kernel:
        task, layout = kernel.fork("a"), kernel.layout
        addrs = [layout.va(0), layout.va(4 * GIB - 8), layout.vmemmap_base, layout.vmemmap_end]

        stops = [kernel.run(task, "__asan_load8", rdi=addr) for addr in addrs]

        assert [stop.value for stop in stops] == [0, 0, 0, 0]  # type: ignore[union-attr]


def test_the_check_returns_the_byte_of_shadow() -> None:
    with Kernel(kasan=True) as kernel:
        byte = kernel.walk(shadow(kernel.layout.va(GIB) + 8)).pa
        assert byte is not None
        kernel.memory.write(PhysAddr(byte), b"\xfa\x04")
        task, addr = kernel.fork("a"), kernel.layout.va(GIB)

        stops = [kernel.run(task, "__asan_load8", rdi=addr + at) for at in (0, 8, 15, 16, 24)]

        assert [stop.value for stop in stops] == [0, 0xFA, 0xFA, 4, 0]  # type: ignore[union-attr]


# -- shadow that comes later


@pytest.mark.parametrize(("release", "where"), EVERYWHERE)
def test_a_part_of_a_slot_is_told_to_nobody(release: str, where: Slot) -> None:
    with Kernel(release, levels=where.levels, kasan=True) as kernel:
        kernel.fork("early")

        assert kasan_add_zero_shadow(kernel, where.memory, 128 * MIB) == 0

        assert slots(kernel, kernel.init_mm)[where.slot] & 0xFFF == 0x67
        assert (has(kernel, "early", where.slot), syncs(kernel)) == (False, [])


@pytest.mark.parametrize(("release", "where"), EVERYWHERE)
def test_a_whole_slot_is_told_to_all_where_populating_for_the_kernel_syncs(
    release: str, where: Slot
) -> None:
    with Kernel(release, levels=where.levels, kasan=True) as kernel:
        kernel.fork("early")

        assert kasan_add_zero_shadow(kernel, where.memory, where.covers) == 0

        top = slots(kernel, kernel.init_mm)[where.slot]
        theirs = slots(kernel, kernel.task("early").mm)[where.slot]
        assert top & 0xFFF == 0x67
        assert theirs == (top if release in SYNCING else 0)


@pytest.mark.parametrize(
    ("release", "by"), [("rfc-v1", "arch_sync_kernel_pagetables"), ("6.17", "sync_global_pgds")]
)
@pytest.mark.parametrize("where", BOTH)
def test_it_is_told_once_and_by_each_designs_own_hook(release: str, by: str, where: Slot) -> None:
    with Kernel(release, levels=where.levels, kasan=True) as kernel:
        kernel.fork("early")

        kasan_add_zero_shadow(kernel, where.memory, where.covers)

        assert syncs(kernel) == [Synced(where.addr, where.addr, by, tables=1, filled=1)]


@pytest.mark.parametrize("release", SYNCING)
def test_of_a_slot_and_a_part_of_the_next_only_the_first_is_told(release: str) -> None:
    with Kernel(release, kasan=True) as kernel:
        kernel.fork("early")

        kasan_add_zero_shadow(kernel, FOUR.memory, FOUR.covers + 128 * MIB)

        assert [has(kernel, "early", slot) for slot in (475, 476)] == [True, False]
        assert slots(kernel, kernel.init_mm)[476]


@pytest.mark.parametrize("release", SYNCING)
def test_at_five_levels_a_whole_p4d_is_no_whole_slot(release: str) -> None:
    with Kernel(release, levels=5, kasan=True) as kernel:
        kernel.fork("early")

        kasan_add_zero_shadow(kernel, FIVE.memory, 4 * TIB)

        assert (has(kernel, "early", 483), syncs(kernel)) == (False, [])
        assert kernel.walk(FIVE.addr).pa == zero_page(kernel)


@pytest.mark.parametrize("where", BOTH)
@pytest.mark.parametrize("size", [32 << 10, 2 * MIB, 16 * MIB, 8 * GIB, 8 * GIB + 18 * MIB])
def test_exactly_the_shadow_asked_for_is_the_zero_page(where: Slot, size: int) -> None:
    with Kernel(levels=where.levels, kasan=True) as kernel:
        start = where.memory + 32 * 1024

        kasan_add_zero_shadow(kernel, start, size)

        inside = [shadow(start), shadow(start + size // 2), shadow(start + size) - 1]
        outside = [shadow(start) - 1, shadow(start + size)]
        assert {kernel.walk(at & ~0xFFF).pa for at in inside} == {zero_page(kernel)}
        assert {kernel.walk(at).verdict for at in outside} == {"not-present"}


@pytest.mark.parametrize(("start", "size"), [(4096, 32768), (0, 4096), (32768, 32768 + 8)])
def test_shadow_is_added_by_whole_pages(start: int, size: int) -> None:
    with Kernel(kasan=True) as kernel:
        error = kasan_add_zero_shadow(kernel, FOUR.memory + start, size)

        assert (error, kernel.walk(FOUR.addr).verdict) == (-22, "not-present")
        assert isinstance(kernel.history[-1], Refused)


@pytest.mark.parametrize("where", BOTH)
def test_without_memory_no_shadow_is_left(where: Slot) -> None:
    with Kernel(levels=where.levels, ram=128 * MIB, kasan=True) as kernel:
        taken = [kernel.frames.allocate() for _ in range(kernel.frames.nr_free - 1)]

        error = kasan_add_zero_shadow(kernel, where.memory, 2 * MIB)

        assert (error, kernel.frames.nr_free, len(taken) > 0) == (-12, 1, True)
        assert slots(kernel, kernel.init_mm)[where.slot] == 0


def test_a_kernel_without_it_has_no_shadow_to_add() -> None:
    with Kernel() as kernel, pytest.raises(KernelError, match="has no KASAN"):
        kasan_add_zero_shadow(kernel, FOUR.memory, 2 * MIB)


# -- taking it away


@pytest.mark.parametrize("size", [32 << 10, 128 * MIB, 8 * GIB + 18 * MIB])
@pytest.mark.parametrize("where", BOTH)
def test_what_was_added_goes_with_its_tables(where: Slot, size: int) -> None:
    with Kernel(levels=where.levels, kasan=True) as kernel:
        free = kernel.frames.nr_free
        kasan_add_zero_shadow(kernel, where.memory, size)

        kasan_remove_zero_shadow(kernel, where.memory, size)

        assert (kernel.frames.nr_free, slots(kernel, kernel.init_mm)[where.slot]) == (free, 0)


@pytest.mark.parametrize("release", ["6.8", *SYNCING])
@pytest.mark.parametrize("where", BOTH)
def test_a_whole_slot_goes_and_its_shared_table_stays(release: str, where: Slot) -> None:
    with Kernel(release, levels=where.levels, kasan=True) as kernel:
        free = kernel.frames.nr_free
        kasan_add_zero_shadow(kernel, where.memory, where.covers)

        kasan_remove_zero_shadow(kernel, where.memory, where.covers)

        assert (kernel.frames.nr_free, slots(kernel, kernel.init_mm)[where.slot]) == (free, 0)
        assert kernel.walk(shadow(kernel.layout.vmemmap_base)).pa == zero_page(kernel)


def test_a_neighbour_keeps_its_shadow_and_the_tables() -> None:
    with Kernel(kasan=True) as kernel:
        kasan_add_zero_shadow(kernel, FOUR.memory, 256 * MIB)

        kasan_remove_zero_shadow(kernel, FOUR.memory, 128 * MIB)

        verdicts = [kernel.walk(shadow(FOUR.memory + at)).verdict for at in (0, 128 * MIB)]
        assert verdicts == ["not-present", "mapped"]


def test_shadow_that_is_memory_is_not_taken_away() -> None:
    with Kernel(ram=640 * MIB, kasan=True) as kernel:
        text = shadow(0xFFFF_FFFF_8200_0000)
        before = kernel.walk(text).pa

        kasan_remove_zero_shadow(kernel, 0xFFFF_FFFF_8200_0000, 32768)

        assert before
        assert kernel.walk(text).pa == before


@pytest.mark.parametrize("release", SHADOWED)
def test_only_init_mm_is_told_that_a_table_is_freed(release: str) -> None:
    with Kernel(release, kasan=True) as kernel:
        kasan_add_zero_shadow(kernel, FOUR.memory, 128 * MIB)
        late = kernel.fork("late")
        freed = slots(kernel, late.mm)[475] & ~0xFFF

        kasan_remove_zero_shadow(kernel, FOUR.memory, 128 * MIB)

        cleared = [event for event in kernel.history if isinstance(event, Cleared)]
        assert cleared == [Cleared(FOUR.addr, 475, "kasan_remove_zero_shadow", tables=0)]
        assert slots(kernel, late.mm)[475] == freed | 0x67
        assert kernel.frames.allocate() == freed


@pytest.mark.parametrize(("release", "where"), EVERYWHERE)
def test_a_whole_slot_that_comes_in_its_place_is_a_bug_where_it_syncs(
    release: str, where: Slot
) -> None:
    with Kernel(release, levels=where.levels, kasan=True) as kernel:
        worker = kernel.kthread("kworker")
        kasan_add_zero_shadow(kernel, where.memory, 128 * MIB)
        kernel.fork("late")
        kasan_remove_zero_shadow(kernel, where.memory, 128 * MIB)

        stop = kernel.run(worker, kasan_add_zero_shadow, where.memory, where.covers)

        bugs = {"rfc-v1": "arch_sync_kernel_pagetables_bug", "6.17": "sync_global_pgds_bug"}
        bug = bugs.get(release)
        assert stop == (Trap(6, None, rip=kernel.symbol(bug)) if bug else Returned())


@pytest.mark.parametrize("release", SYNCING)
@pytest.mark.parametrize("where", BOTH)
def test_the_same_again_is_no_bug_for_nothing_syncs(release: str, where: Slot) -> None:
    with Kernel(release, levels=where.levels, kasan=True) as kernel:
        worker = kernel.kthread("kworker")
        kasan_add_zero_shadow(kernel, where.memory, 128 * MIB)
        kernel.fork("late")
        kasan_remove_zero_shadow(kernel, where.memory, 128 * MIB)
        kernel.frames.allocate()

        stop = kernel.run(worker, kasan_add_zero_shadow, where.memory, 128 * MIB)

        assert (stop, syncs(kernel)) == (Returned(), [])


@pytest.mark.parametrize("release", SYNCING)
def test_nor_is_a_whole_slot_after_a_whole_slot(release: str) -> None:
    with Kernel(release, kasan=True) as kernel:
        worker = kernel.kthread("kworker")
        kernel.fork("early")
        kasan_add_zero_shadow(kernel, FOUR.memory, FOUR.covers)
        kasan_remove_zero_shadow(kernel, FOUR.memory, FOUR.covers)

        stop = kernel.run(worker, kasan_add_zero_shadow, FOUR.memory, FOUR.covers)

        assert stop == Returned()


# -- devices


def attach(kernel: Kernel, pa: int, size: int = 128 * MIB, type_: int = FS_DAX) -> Any:
    """Have a kernel thread add a device."""
    return kernel.run(kernel.kthread("kworker"), devm_memremap_pages, DevPagemap(type_, pa, size))


def paths(kernel: Kernel) -> list[str]:
    """Who mapped something since boot, in order."""
    return [e.path for e in kernel.history[kernel.nr_boot_events :] if isinstance(e, Mapped)]


@pytest.mark.parametrize(("release", "where"), EVERYWHERE)
def test_a_device_gets_its_shadow_before_its_direct_map(release: str, where: Slot) -> None:
    with Kernel(release, levels=where.levels, kasan=True) as kernel:
        assert attach(kernel, where.pa) == Returned()

        assert paths(kernel)[:2] == [
            "kasan_populate_early_shadow",
            "__kernel_physical_mapping_init",
        ]


def test_device_private_memory_gets_none() -> None:
    with Kernel(kasan=True) as kernel:
        attach(kernel, FOUR.pa, type_=DEVICE_PRIVATE)

        assert slots(kernel, kernel.init_mm)[475] == 0


def test_a_device_that_cannot_be_added_leaves_no_shadow() -> None:
    with Kernel(kasan=True) as kernel:
        attach(kernel, FOUR.pa, type_=DEVICE_PRIVATE)

        stop = attach(kernel, FOUR.pa)

        assert stop.value == (1 << 64) - 17
        assert slots(kernel, kernel.init_mm)[475] == 0


def test_before_4_19_a_device_has_no_shadow_in_any_table() -> None:
    with Kernel("4.17", kasan=True) as kernel:
        attach(kernel, FOUR.pa)

        stop = kernel.run(kernel.kthread("kworker"), "__asan_load8", rdi=kernel.layout.va(FOUR.pa))

        rip = kernel.symbol("__asan_load8_shadow")
        assert stop == PageFault(0xFFFF_ED70_0000_0000, 0, rip)  # type: ignore[arg-type]


def test_without_kasan_nobody_adds_shadow(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel("6.17")

    attach(kernel, FOUR.pa)

    assert "kasan_populate_early_shadow" not in paths(kernel)
    assert slots(kernel, kernel.init_mm)[472:504] == [0] * 32


@pytest.mark.parametrize("levels", [4, 5])
def test_with_it_all_the_rest_is_where_it_was(levels: int) -> None:
    with Kernel(levels=levels) as one, Kernel(levels=levels, kasan=True) as other:
        regions = [r for r in other.layout.regions() if r[0] != "KASAN shadow"]

        assert regions == one.layout.regions()
        assert other.image is one.image


# -- the first per-CPU chunk


@pytest.mark.parametrize("release", ["6.8", *SYNCING])
@pytest.mark.parametrize(("levels", "addr"), [(4, 0xFFFF_D000 << 32), (5, 0xFFD8 << 48)])
def test_a_page_of_the_first_chunk_gets_its_tables(release: str, levels: int, addr: int) -> None:
    with Kernel(release, levels=levels) as kernel:
        pcpu_populate_pte(kernel, addr)

        steps = kernel.walk(addr).steps
        assert [step.entry & 0xFFF for step in steps] == [0x67] * (levels - 1) + [0]


@pytest.mark.parametrize("release", ["6.8", *SYNCING])
@pytest.mark.parametrize(("levels", "slot"), [(4, 467), (5, 472)])
def test_its_new_slot_would_be_told_to_tasks_if_there_were_any(
    release: str, levels: int, slot: int
) -> None:
    with Kernel(release, levels=levels) as kernel:
        kernel.fork("early")

        pcpu_populate_pte(kernel, kernel.layout.slot_base(slot))

        told = has(kernel, "early", slot)
        assert told == (release in SYNCING)
        assert isinstance(kernel.history[kernel.nr_boot_events + 1], Populated)


def test_tables_that_are_there_serve_the_next_page_too(kernel: Kernel) -> None:
    addr = kernel.layout.slot_base(467)
    pcpu_populate_pte(kernel, addr)
    free = kernel.frames.nr_free

    pcpu_populate_pte(kernel, addr + 4096)

    assert kernel.frames.nr_free == free


def test_populating_a_pte_replaces_no_table(kernel: Kernel) -> None:
    put_slot(kernel, kernel.init_mm, 467, 0)
    pcpu_populate_pte(kernel, kernel.layout.slot_base(467))
    entry = slots(kernel, kernel.init_mm)[467]

    pcpu_populate_pte(kernel, kernel.layout.slot_base(467) + (1 << 30))

    assert slots(kernel, kernel.init_mm)[467] == entry
