"""audit() and why(): who disagrees with init_mm's table, who wrote what, who told nobody."""

from collections.abc import Callable

import pytest
from support.kernel_facts import (
    EXPLICIT,
    FIVE,
    FOUR,
    SYNCING,
    Where,
    boot,
    populate_compound,
    put_slot,
)

from emu import PhysAddr
from emu.walk import Walk
from kernel_model import Kernel, Lacking, Mm, Task, Why, audit, why
from kernel_model.auditing import Reading
from kernel_model.history import Cleared
from kernel_model.scenarios import run_scenario
from kernel_model.sync import sync_global_pgds
from kernel_model.vmalloc import vmalloc
from kernel_model.vmap_areas import fill_first_slot
from kernel_model.vmemmap import vmemmap_populate

ENTRY, OTHER = 0x1234_5067, 0x6789_A067
COMPOUND = "vmemmap_populate_compound_pages"
HUGE = "vmemmap_populate_hugepages"
SLOT = {"vmemmap-devdax": {4: 462, 5: 468}, "vmemmap-subpmd": {4: 470, 5: 468}}
PATH = {"vmemmap-devdax": COMPOUND, "vmemmap-subpmd": HUGE}


def slots_of(found: tuple[Lacking, ...]) -> list[tuple[int, str, list[str]]]:
    """What was found: slot, kind, and whose tables."""
    return [(one.slot, one.kind, [table.name for table in one.tables]) for one in found]


def writers(reading: Reading) -> list[str | None]:
    """Who wrote each entry, root first."""
    return [write and write.by for write in reading.written]


def reading_of(found: Why, name: str) -> Reading:
    """The reading that a task's table has a part in."""
    return next(r for r in found.others if name in [table.name for table in r.tables])


def top_writer(kernel: Kernel, task: Task, where: Where) -> str | None:
    """Who wrote the top-level entry of a task's table."""
    return writers(reading_of(why(kernel, where.boundary), task.comm))[0]


# -- the two oopses


@pytest.mark.parametrize("release", EXPLICIT)
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("name", SLOT)
def test_a_scenario_ends_with_one_slot_that_the_early_task_lacks(
    name: str, levels: int, release: str
) -> None:
    run = run_scenario(name, release=release, levels=levels)

    found = audit(run.kernel)

    assert slots_of(found) == [(SLOT[name][levels], "lacking", ["modprobe"])]
    assert (found[0].entry, found[0].tables[0].on_pgd_list) == (0, True)


@pytest.mark.parametrize("release", SYNCING)
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("name", SLOT)
def test_with_the_fix_nobody_lacks_anything(name: str, levels: int, release: str) -> None:
    run = run_scenario(name, release=release, levels=levels)

    assert audit(run.kernel) == ()
    assert why(run.kernel, run.ending.touched).verdict == "mapped"


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("name", SLOT)
def test_init_mm_itself_lacks_nothing(name: str, levels: int) -> None:
    run = run_scenario(name, levels=levels, settings={"task": "init_mm"})

    found = why(run.kernel, run.ending.touched)

    assert (audit(run.kernel), found.verdict, found.others) == ((), "mapped", ())


@pytest.mark.parametrize("levels", [4, 5])
def test_of_two_tables_the_one_forked_later_has_it(levels: int) -> None:
    run = run_scenario("vmemmap-devdax", levels=levels, settings={"task": "late"})

    found = why(run.kernel, run.ending.touched)

    assert slots_of(audit(run.kernel)) == [(SLOT["vmemmap-devdax"][levels], "lacking", ["early"])]
    assert [(r.tables[0].name, r.kind) for r in found.others] == [
        ("early", "lacking"),
        ("late", None),
    ]


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("name", SLOT)
def test_why_names_the_path_that_told_nobody(name: str, levels: int) -> None:
    run = run_scenario(name, levels=levels)
    assert hasattr(run.ending.stop, "address")

    found = why(run.kernel, run.ending.stop.address)

    cause = found.others[0].cause
    assert (found.verdict, found.slot) == ("unsynced", SLOT[name][levels])
    assert cause is not None
    assert (cause.reason, cause.path) == ("not-synced", PATH[name])
    assert (cause.after, cause.before) == ("modprobe", None)


def test_the_path_that_would_have_synced_at_its_end_is_named() -> None:
    compound, huge = (audit(run_scenario(name).kernel)[0].cause for name in SLOT)

    assert (compound.by, huge.by) == (None, "vmemmap_populate")


# -- who wrote it


@pytest.mark.parametrize("levels", [4, 5])
def test_every_entry_of_the_compound_path_is_its_own(levels: int) -> None:
    run = run_scenario("vmemmap-devdax", levels=levels)

    found = why(run.kernel, run.ending.touched)

    assert writers(found.reference) == [COMPOUND] * levels
    assert writers(found.others[0]) == [None]


@pytest.mark.parametrize("levels", [4, 5])
def test_the_pmd_that_the_cpu_stored_is_its_routine_s(levels: int) -> None:
    run = run_scenario("vmemmap-subpmd", levels=levels)

    found = why(run.kernel, run.ending.touched)

    assert writers(found.reference) == [*[HUGE] * (levels - 2), "vmemmap_set_pmd"]


def test_a_bare_run_of_the_routine_is_noted_too(kernel: Kernel) -> None:
    populate_compound(kernel, FOUR.pfn)
    addr = FOUR.boundary + (1 << 30) - (2 << 20)  # its pmd table is there, the entry is not
    pmdp = kernel.pgtable.pmd_offset(kernel.walk(FOUR.boundary).steps[1].entry_pa, addr)
    block = kernel.frames.allocate_block(2 << 20)
    registers = {"rdi": kernel.layout.va(pmdp), "rsi": kernel.layout.va(block)}

    kernel.run(kernel.kthread("k"), "vmemmap_set_pmd", **registers, rcx=addr, r8=addr + (2 << 20))

    assert writers(why(kernel, addr).reference)[-1] == "vmemmap_set_pmd"


@pytest.mark.levels(4, 5)
def test_the_kernel_s_text_is_boot_s(kernel: Kernel, where: Where) -> None:
    kernel.fork("a")

    found = why(kernel, kernel.symbol("__init_single_page"))

    assert writers(found.reference) == ["boot"] * (where.levels - 1)  # a 2 MiB page
    assert writers(found.others[0]) == ["pgd_ctor", *["boot"] * (where.levels - 2)]


@pytest.mark.levels(4, 5)
def test_the_direct_map_is_its_own_function_s(kernel: Kernel) -> None:
    found = why(kernel, kernel.layout.va(1 << 30))

    assert set(writers(found.reference)) == {"__kernel_physical_mapping_init"}


@pytest.mark.levels(4, 5)
@pytest.mark.parametrize(
    ("release", "by"), [("rfc-v1", "arch_sync_kernel_pagetables"), ("6.17", "sync_global_pgds")]
)
def test_a_synced_entry_is_the_sync_s_and_a_copied_one_the_fork_s(
    release: str, by: str, where: Where
) -> None:
    with boot(where, release) as kernel:
        early = kernel.fork("early")
        populate_compound(kernel, where.pfn)
        late = kernel.fork("late")

        assert top_writer(kernel, early, where) == by
        assert top_writer(kernel, late, where) == "pgd_ctor"


def test_a_frame_s_former_life_writes_nothing(kernel: Kernel) -> None:
    populate_compound(kernel, FOUR.pfn)
    gone = kernel.fork("gone")
    kernel.pgtable.set(kernel.pgtable.pgd_offset(gone.mm.pgd, 0), ENTRY, by="a test")
    pgd = gone.mm.pgd
    kernel.exit(gone)
    again = kernel.fork("again")

    found = why(kernel, 0)

    assert again.mm.pgd == pgd
    assert writers(found.others[0]) == [None]


def test_a_table_s_former_life_writes_nothing_either(kernel: Kernel) -> None:
    frame = kernel.frames.allocate()
    kernel.pgtable.fill(frame, ENTRY, 0, 512)
    kernel.frames.free(frame)
    populate_compound(kernel, FOUR.pfn)

    found = why(kernel, FOUR.boundary + (100 << 30))

    assert found.reference.walk.table == frame
    assert (found.verdict, writers(found.reference)) == ("never-mapped", [COMPOUND, None])


def test_values_are_ram_s_whoever_noted_what(kernel: Kernel) -> None:
    populate_compound(kernel, FOUR.pfn)
    entry_pa = kernel.walk(FOUR.boundary).steps[0].entry_pa

    kernel.memory.write_u64(entry_pa, ENTRY)

    assert why(kernel, FOUR.boundary).reference.walk.steps[0].entry == ENTRY


@pytest.mark.parametrize(
    ("release", "outcome"), [("4.4", "oops"), ("4.6", "completed"), ("5.6", "completed")]
)
def test_what_the_fault_handler_copied_is_its_own_even_if_it_dies_then(
    release: str, outcome: str
) -> None:
    run = run_scenario("ioremap-512g", release=release)

    found = why(run.kernel, run.ending.touched)

    assert (run.outcome, found.verdict) == (outcome, "mapped")
    assert writers(found.reference)[0] == "ioremap_page_range"
    assert writers(found.others[0])[0] == "vmalloc_fault"


def test_after_a_re_add_the_copy_is_stale_and_who_comes_behind_unsynced() -> None:
    run = run_scenario("hot-readd")

    found = {one.kind: one.cause for one in audit(run.kernel)}

    assert {kind: cause.reason for kind, cause in found.items()} == {
        "lacking": "sync-died",
        "stale": "replaced",
    }
    assert {cause.path for cause in found.values()} == {"__kernel_physical_mapping_init"}


@pytest.mark.parametrize("release", ["4.4", "5.6"])
def test_a_slot_of_vmalloc_that_nobody_touched_is_left_to_faults(release: str) -> None:
    with Kernel(release) as kernel:
        kernel.fork("a")
        fill_first_slot(kernel)
        kernel.run(kernel.kthread("k"), vmalloc, 4096)

        (found,) = audit(kernel)

    assert (found.cause.reason, found.cause.path) == ("left-to-faults", "map_kernel_range")


def test_of_a_race_the_sync_that_is_due_is_named() -> None:
    """In 5.8 a mapping is synced when all of it is there."""
    found: list[Lacking] = []
    with Kernel("5.8") as kernel:
        kernel.fork("a")
        fill_first_slot(kernel)

        def look(name: str) -> None:
            found.extend(audit(kernel) if name == "arch_sync_kernel_mappings" else ())

        kernel.preempt = look
        kernel.run(kernel.kthread("k"), vmalloc, 4096)

        assert audit(kernel) == ()
    assert [(one.cause.reason, one.cause.by) for one in found] == [
        ("not-synced", "map_kernel_range")
    ]


# -- healing


@pytest.mark.levels(4, 5)
@pytest.mark.release(*EXPLICIT)
def test_the_path_that_syncs_heals_the_slot(kernel: Kernel, where: Where) -> None:
    early = kernel.fork("early")
    populate_compound(kernel, where.pfn)
    lacked = slots_of(audit(kernel))

    vmemmap_populate(kernel, where.boundary + (4 << 20), where.boundary + (6 << 20), 0, None)

    assert lacked == [(where.slot, "lacking", ["early"])]
    assert audit(kernel) == ()
    assert top_writer(kernel, early, where) == "sync_global_pgds"
    assert why(kernel, where.boundary).verdict == "mapped"


# -- mapped, never mapped, no longer mapped; stale


@pytest.mark.levels(4, 5)
def test_an_address_that_nobody_mapped_is_never_mapped(kernel: Kernel, where: Where) -> None:
    kernel.fork("a")

    found = why(kernel, where.boundary)

    assert (found.verdict, found.others[0].kind) == ("never-mapped", None)


def test_what_init_mm_does_not_map_either_is_never_mapped(kernel: Kernel) -> None:
    kernel.fork("early")
    populate_compound(kernel, FOUR.pfn)

    found = why(kernel, FOUR.boundary + (100 << 30))

    assert (found.verdict, found.others[0].kind) == ("never-mapped", "lacking")


def test_what_was_cleared_is_unmapped_and_says_by_whom(kernel: Kernel) -> None:
    populate_compound(kernel, FOUR.pfn)
    ptep = kernel.walk(FOUR.boundary).steps[-1].entry_pa
    kernel.pgtable.set(ptep, 0, by="remove_pte_table")

    found = why(kernel, FOUR.boundary)

    last = found.reference.written[-1]
    assert last is not None
    assert (found.verdict, last.by, last.how) == ("unmapped", "remove_pte_table", "cleared")


def refill(kernel: Kernel, where: Where) -> None:
    """Empty the slot in init_mm alone, as a hot-remove once did, and fill it once more."""
    pgdp = kernel.pgtable.pgd_offset(kernel.init_mm.pgd, where.boundary)
    kernel.pgtable.set(pgdp, 0, by="free_pud_table")
    kernel.history.append(Cleared(where.boundary, where.slot, "free_pud_table", 0))
    populate_compound(kernel, where.pfn)


@pytest.mark.levels(4, 5)
def test_a_table_that_was_replaced_in_init_mm_alone_is_stale(kernel: Kernel, where: Where) -> None:
    populate_compound(kernel, where.pfn)
    kernel.fork("early")
    refill(kernel, where)

    (found,) = audit(kernel)

    assert slots_of((found,)) == [(where.slot, "stale", ["early"])]
    assert found.entry != found.reference
    assert (found.cause.reason, found.cause.path) == ("replaced", COMPOUND)
    assert why(kernel, where.boundary).verdict == "stale"


def test_an_entry_that_init_mm_has_no_more_is_stale_too(kernel: Kernel) -> None:
    populate_compound(kernel, FOUR.pfn)
    kernel.fork("early")
    put_slot(kernel, kernel.init_mm, FOUR.slot, 0)
    kernel.history.append(Cleared(FOUR.boundary, FOUR.slot, "free_pud_table", 0))

    (found,) = audit(kernel)

    assert (found.kind, found.reference) == ("stale", 0)
    assert (found.cause.reason, found.cause.path) == ("replaced", "free_pud_table")


@pytest.mark.levels(4, 5)
@pytest.mark.release("6.17")
def test_a_sync_that_dies_leaves_the_tables_behind_unsynced(kernel: Kernel, where: Where) -> None:
    tasks = [kernel.fork(name) for name in ("a", "b", "c")]
    put_slot(kernel, tasks[1].mm, where.slot, OTHER)

    kernel.run(tasks[0], populate_compound, where.pfn)

    found = {one.tables[0].name: one for one in audit(kernel)}
    assert {name: one.kind for name, one in found.items()} == {"b": "stale", "c": "lacking"}
    assert (found["c"].cause.reason, found["c"].cause.by) == ("sync-died", "sync_global_pgds")
    assert top_writer(kernel, tasks[0], where) == "sync_global_pgds"


@pytest.mark.parametrize("name", ["early", "late"])
def test_a_difference_that_nothing_explains_is_called_so(kernel: Kernel, name: str) -> None:
    """A table that the fork, or a sync, has filled, and somebody else emptied."""
    kernel.fork("early")
    populate_compound(kernel, FOUR.pfn)
    kernel.fork("late")
    sync_global_pgds(kernel, FOUR.boundary, FOUR.boundary)
    put_slot(kernel, kernel.task(name).mm, FOUR.slot, 0)

    (found,) = audit(kernel)

    assert (found.kind, found.cause.reason) == ("lacking", "unseen")


# -- what is no difference, and what is none of a sync's business


@pytest.mark.levels(4, 5)
@pytest.mark.parametrize("bits", [0x20, 0x40, 0x60])
def test_a_and_d_make_no_difference(kernel: Kernel, where: Where, bits: int) -> None:
    populate_compound(kernel, where.pfn)
    task = kernel.fork("a")
    entry = kernel.walk(where.boundary).steps[0].entry
    put_slot(kernel, task.mm, where.slot, entry & ~bits)

    found = why(kernel, where.boundary)

    assert audit(kernel) == ()
    assert (found.verdict, found.others[0].kind) == ("mapped", None)


def test_other_bits_do(kernel: Kernel) -> None:
    populate_compound(kernel, FOUR.pfn)
    task = kernel.fork("a")
    entry = kernel.walk(FOUR.boundary).steps[0].entry
    put_slot(kernel, task.mm, FOUR.slot, entry & ~2)

    assert slots_of(audit(kernel)) == [(FOUR.slot, "flags", ["a"])]
    assert why(kernel, FOUR.boundary).verdict == "different"


@pytest.mark.levels(4, 5)
@pytest.mark.release("6.17")
def test_a_table_outside_pgd_list_is_named_as_such(kernel: Kernel, where: Where) -> None:
    kernel.fork("a")
    kernel.outside[Mm("efi_mm", kernel.frames.allocate())] = None
    populate_compound(kernel, where.pfn)

    found = next(one for one in audit(kernel) if one.slot == where.slot)

    reading = reading_of(why(kernel, where.boundary), "efi_mm")
    assert slots_of((found,)) == [(where.slot, "lacking", ["efi_mm"])]
    assert (found.cause.reason, found.cause.path) == ("outside-pgd-list", COMPOUND)
    assert (reading.kind, reading.tables[0].on_pgd_list) == ("lacking", False)


def test_of_a_table_that_is_copied_now_and_then_it_says_who_does() -> None:
    run = run_scenario("efi-call")

    found = {one.tables[0].name: one for one in audit(run.kernel) if one.kind == "lacking"}

    causes = {name: (one.cause.reason, one.cause.by) for name, one in found.items()}
    assert causes == {
        "efi_mm": ("outside-pgd-list", "efi_sync_low_kernel_mappings"),
        "trampoline_pgd": ("outside-pgd-list", "setup_real_mode"),
    }


def test_an_entry_of_such_a_table_is_its_copier_s() -> None:
    run = run_scenario("efi-call")

    found = why(run.kernel, run.kernel.layout.page_offset_base)

    copiers = [writers(reading_of(found, name))[0] for name in ("efi_mm", "trampoline_pgd")]
    assert copiers == ["efi_sync_low_kernel_mappings", "setup_real_mode"]


def test_a_table_for_user_mode_lacks_what_it_lacks_by_design() -> None:
    run = run_scenario("pti-user-half")

    found = why(run.kernel, run.kernel.layout.page_offset_base)

    user = reading_of(found, "sh (user)")
    assert found.verdict == "mapped"
    assert (user.kind, user.cause and user.cause.reason) == ("lacking", "user-mode")
    assert {one.cause.reason for one in audit(run.kernel)} == {"user-mode"}


@pytest.mark.levels(4, 5)
@pytest.mark.parametrize("slot", [0, 255, 272])
def test_below_the_direct_map_each_mm_has_a_slot_to_itself(kernel: Kernel, slot: int) -> None:
    task = kernel.fork("a")
    kernel.fork("b")
    put_slot(kernel, task.mm, slot, ENTRY)
    layout = kernel.layout
    addr = layout.slot_base(slot) if slot > 255 else slot << layout.pgdir_shift

    found = why(kernel, addr)

    assert (audit(kernel), found.verdict) == ((), "per-mm")


@pytest.mark.parametrize("addr", [0x0000_8000_0000_0000, 0xFFFF_7FFF_FFFF_FFFF, 1 << 64, -1])
def test_an_address_that_is_not_canonical_is_refused(kernel: Kernel, addr: int) -> None:
    with pytest.raises(ValueError, match=r"addr -?0x.*canonical address of 48 bits"):
        why(kernel, addr)


@pytest.mark.parametrize("entry", [ENTRY | 1 << 51, 0xFFFF_FFFF_F067, ENTRY | 0x80])
def test_a_corrupt_entry_is_told_and_crashes_nothing(kernel: Kernel, entry: int) -> None:
    kernel.fork("a")
    put_slot(kernel, kernel.init_mm, FOUR.slot, entry)

    found = why(kernel, FOUR.boundary)

    assert found.verdict == "malformed"
    assert slots_of(audit(kernel)) == [(FOUR.slot, "lacking", ["a"])]


# -- ten thousand


def test_of_ten_thousand_tables_those_that_read_the_same_are_one(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = [kernel.fork(f"early-{n}") for n in range(7000)]
    populate_compound(kernel, FOUR.pfn)
    late = [kernel.fork(f"late-{n}") for n in range(3000)]
    walks: list[int] = []
    walk = kernel.walk

    def counted(addr: int, mm: Mm | None = None) -> Walk:
        walks.append(addr)
        return walk(addr, mm)

    monkeypatch.setattr(kernel, "walk", counted)

    found = why(kernel, FOUR.boundary)

    assert [len(reading.tables) for reading in found.others] == [len(early), len(late)]
    assert len(walks) == 3
    assert [len(one.tables) for one in audit(kernel)] == [len(early)]


def test_a_sync_of_ten_thousand_notes_nothing_for_each(kernel: Kernel) -> None:
    tasks = [kernel.fork("a") for _ in range(10_000)]
    populate_compound(kernel, FOUR.pfn)
    before = len(list(kernel.pgtable.writers.records()))

    sync_global_pgds(kernel, FOUR.boundary, FOUR.boundary)

    assert len(list(kernel.pgtable.writers.records())) == before
    assert top_writer(kernel, tasks[-1], FOUR) == "sync_global_pgds"


def test_the_journal_takes_a_record_a_run_not_an_entry(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel(vmemmap_base=FIVE.vmemmap_base, levels=5)
    before = len(list(kernel.pgtable.writers.records()))

    populate_compound(kernel, FIVE.pfn)

    assert len(list(kernel.pgtable.writers.records())) - before <= 6  # four tables, 512 ptes
    assert PhysAddr(kernel.walk(FIVE.boundary + 0x1F_F000).steps[-1].entry_pa) & 0xFFF == 0xFF8
