"""The checklist: it holds everywhere, gives all back, and finds a helper that is broken."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from emu import Returned
from emu.paging import PS, P
from kernel_model import RELEASES, Kernel, entries, inplace, mm, pgalloc, populate, swapops
from kernel_model.debug_vm_pgtable.checker import debug_vm_pgtable
from kernel_model.debug_vm_pgtable.report import Failure, Report
from kernel_model.entries import Entries
from kernel_model.pgtable import Pgtable
from kernel_model.scenarios import run_scenario

pytestmark = pytest.mark.trace_tail(0)  # thousands of helpers run, and none is to fault

# mm/debug_vm_pgtable.c calls them so.
IN_ORDER = (
    "pte_basic_tests pmd_basic_tests pud_basic_tests p4d_basic_tests pgd_basic_tests "
    "pmd_leaf_tests pud_leaf_tests pte_special_tests pte_protnone_tests pmd_protnone_tests "
    "pte_soft_dirty_tests pmd_soft_dirty_tests pte_swap_soft_dirty_tests "
    "pmd_swap_soft_dirty_tests pte_swap_exclusive_tests pte_swap_tests pmd_swap_tests "
    "swap_migration_tests pmd_thp_tests pud_thp_tests hugetlb_basic_tests "
    "pte_clear_tests pte_advanced_tests "
    "pmd_clear_tests pmd_advanced_tests pmd_huge_tests pmd_populate_tests "
    "pud_clear_tests pud_advanced_tests pud_huge_tests pud_populate_tests "
    "p4d_clear_tests pgd_clear_tests p4d_populate_tests pgd_populate_tests destroy_args"
).split()
PUD_THP = ("pud_basic_tests", "pud_leaf_tests", "pud_thp_tests", "pud_advanced_tests")
KERNELS = [(release.name, levels) for release in RELEASES.values() for levels in release.levels]


def check(kernel: Kernel, seed: int = 1) -> Report:
    """Go through the list in the first task."""
    report = Report()
    kernel.run(kernel.init_task, debug_vm_pgtable, seed, report)
    return report


def state(kernel: Kernel) -> tuple[object, ...]:
    """What a list that has ended must have left as it was."""
    cpu, frames = kernel.cpu, kernel.frames
    return (
        *(frames.nr_free, frames.floor, list(kernel.pgd_list)),
        *(cpu.cr3, cpu.idt, cpu.registers.rflags, cpu.cpl),
    )


@pytest.mark.parametrize(("release", "levels"), KERNELS)
def test_every_check_holds(make_kernel: Callable[..., Kernel], release: str, levels: int) -> None:
    kernel = make_kernel(release, levels=levels)

    report = check(kernel)

    assert report.failures == []
    assert [group.name for group in report.groups] == IN_ORDER


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("seed", range(2, 8))
def test_at_any_address(make_kernel: Callable[..., Kernel], levels: int, seed: int) -> None:
    kernel = make_kernel(levels=levels)

    report = check(kernel, seed)

    assert report.failures == []
    assert kernel.layout.region(report.vaddr) == "user space"


@pytest.mark.parametrize(("release", "levels"), [("5.4", 4), ("6.17", 4), ("6.17", 5)])
def test_all_that_it_took_comes_back(
    make_kernel: Callable[..., Kernel], release: str, levels: int
) -> None:
    kernel = make_kernel(release, levels=levels)
    before = state(kernel)

    check(kernel)

    assert state(kernel) == before


@pytest.mark.parametrize(
    ("levels", "left_out"), [(4, ["pgd_clear_tests", "pgd_populate_tests"]), (5, [])]
)
def test_what_is_folded_is_left_out(
    make_kernel: Callable[..., Kernel], levels: int, left_out: list[str]
) -> None:
    report = check(make_kernel(levels=levels))

    assert [group.name for group in report.groups if group.lacking] == left_out


@pytest.mark.parametrize(
    ("ram", "left_out"),
    [
        (128 << 20, {"pud_advanced_tests", "pud_huge_tests"}),
        (2 << 30, {"pud_advanced_tests"}),
        (3 << 30, set()),
    ],
)
def test_without_memory_for_a_large_page_its_checks_are_left_out(
    make_kernel: Callable[..., Kernel], ram: int, left_out: set[str]
) -> None:
    report = check(make_kernel(ram=ram, levels=5))

    assert {group.name for group in report.groups if group.lacking} == left_out
    assert report.failures == []


@pytest.mark.parametrize(
    ("release", "left_out"),
    [
        ("4.6", {*PUD_THP, "pte_swap_exclusive_tests"}),
        ("4.12-rc", {"pte_swap_exclusive_tests"}),
        ("5.10", {"pte_swap_exclusive_tests"}),
        ("6.8", set()),
    ],
)
def test_what_a_release_has_not_got_yet_is_left_out(
    make_kernel: Callable[..., Kernel], release: str, left_out: set[str]
) -> None:
    report = check(make_kernel(release))

    lacking = {group.name for group in report.groups if group.lacking}
    assert lacking - {"pgd_clear_tests", "pgd_populate_tests"} == left_out


@pytest.mark.parametrize("levels", [4, 5])
def test_the_cpu_has_its_say_at_each_level(make_kernel: Callable[..., Kernel], levels: int) -> None:
    report = check(make_kernel(levels=levels))

    asked = {group.name for group in report.groups if group.nr_by_cpu}
    assert asked >= {
        *(f"{level}_clear_tests" for level in ("pte", "pmd", "pud", "p4d")),
        *(f"{level}_advanced_tests" for level in ("pte", "pmd", "pud")),
        *("pmd_huge_tests", "pud_huge_tests", "p4d_populate_tests"),
    }


def test_out_of_frames_is_no_memory_and_all_comes_back(make_kernel: Callable[..., Kernel]) -> None:
    kernel = make_kernel()
    kernel.frames.floor += (kernel.frames.nr_free - 3) * 4096

    stop = kernel.run(kernel.init_task, debug_vm_pgtable, 1, Report())

    assert stop == Returned((1 << 64) - 12)
    assert kernel.frames.nr_free == 3


# -- the scenario


@pytest.mark.parametrize("levels", [4, 5])
def test_the_scenario_completes_and_tells_of_each_group(levels: int) -> None:
    run = run_scenario("debug-vm-pgtable", levels=levels)

    with run.kernel:
        document = run.as_json()
        assert document["outcome"] == "completed"
        assert list(document["facts"]["groups"]) == IN_ORDER
        assert document["facts"]["failures"] == []


def test_the_log_begins_as_the_kernels() -> None:
    run = run_scenario("debug-vm-pgtable")

    with run.kernel:
        assert run.ending.notes[:2] == (
            "debug_vm_pgtable: [debug_vm_pgtable         ]: "
            "Validating architecture page table helpers",
            "debug_vm_pgtable: [pte_basic_tests          ]: Validating PTE basic: 160 checks",
        )


@pytest.mark.parametrize(
    ("release", "said"), [("4.4", True), ("5.6", True), ("5.8", False), ("6.17", False)]
)
def test_a_kernel_from_before_the_list_says_so(release: str, said: bool) -> None:
    run = run_scenario("debug-vm-pgtable", release=release)

    with run.kernel:
        assert any("had no such list yet" in note for note in run.ending.notes) is said


@pytest.mark.parametrize("release", ["4.4", "5.4", "6.17"])  # with handlers, and without
def test_a_check_that_fails_is_a_real_bug(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(Entries, "mkold", lambda _, entry: entry)

    run = run_scenario("debug-vm-pgtable", release=release)

    with run.kernel:
        assert run.outcome == "bug"
        assert getattr(run.ending.stop, "symbol", "") == "debug_vm_pgtable+0x9/0x10"
        assert "debug_vm_pgtable+0x9/0x10" in (run.oops or "")
        assert not run.kernel.pgd_list


def test_a_failure_is_told_once_with_its_protections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Entries, "pte_mkold", lambda _, entry: entry, raising=False)

    run = run_scenario("debug-vm-pgtable")

    with run.kernel:
        told = [note for note in run.ending.notes if "pte_young(pte_mkold(pte_mkyoung" in note]
        assert len(told) == 1
        assert told[0].startswith(
            "  FAILED pte_young(pte_mkold(pte_mkyoung(pte))): expected False, found True: 0x"
        )
        assert told[0].endswith("read|exec|shared, write|exec|shared, read|write|exec|shared)")


def test_a_failure_has_all_that_there_is_to_know(
    make_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Entries, "pte_mkold", lambda _, entry: entry, raising=False)

    failures = check(make_kernel()).failures

    assert failures[0] == Failure(
        group="pte_basic_tests",
        check="pte_young(pte_mkold(pte_mkyoung(pte)))",
        level="pte",
        protection="none",
        expected="False",
        found="True: 0xfffffbffff120",  # frame 0x40000, inverted, with PROTNONE and A
    )


# -- broken helpers


class Broken(NamedTuple):
    """A helper, what it does instead, and a check that has to name it."""

    owner: object
    name: str
    instead: Callable[..., Any]
    check: str
    level: str = "pte"
    levels: int = 4


def same(_: Entries, entry: int) -> int:
    return entry


def yes(*_: object) -> bool:
    return True


def no(*_: object) -> bool:
    return False


def nothing(*_: object) -> None:
    pass


def unfolded(kernel: Kernel, table: int) -> None:
    kernel.frames.free(table & -4096)  # type: ignore[arg-type]


def twice(kernel: Kernel, table: int) -> None:
    kernel.frames.free(table)  # type: ignore[arg-type]
    kernel.frames.free(table)  # type: ignore[arg-type]


def bare_table(kernel: Kernel, entry_pa: int, table: int) -> None:
    kernel.pgtable.set(entry_pa, table | P)  # type: ignore[arg-type]


def another_table(kernel: Kernel, entry_pa: int, table: int) -> None:
    kernel.pgtable.set(entry_pa, kernel.init_mm.pgd | 0x67)  # type: ignore[arg-type]


def small(at: inplace.Place, pfn: int, prot: int) -> bool:
    inplace.set_at(at, pfn << 12 | prot)
    return True


def regardless(at: inplace.Place, pfn: int, prot: int) -> bool:
    inplace.set_at(at, pfn << 12 | prot | PS)
    return True


BROKEN = [
    Broken(Entries, "mkold", same, "pte_young(pte_mkold(pte_mkyoung(pte)))"),
    Broken(Entries, "pmd_mkold", same, "pmd_young(pmd_mkold(pmd_mkyoung(pmd)))", "pmd"),
    Broken(Entries, "pud_mkold", same, "pud_young(pud_mkold(pud_mkyoung(pud)))", "pud"),
    Broken(Entries, "mkyoung", same, "pte_young(pte_mkyoung(pte_mkold(pte)))"),
    Broken(Entries, "young", yes, "pte_young(pte_mkold(pte_mkyoung(pte)))"),
    Broken(Entries, "mkdirty", same, "pte_dirty(pte_mkdirty(pte_mkclean(pte)))"),
    Broken(Entries, "mkclean", same, "pte_dirty(pte_mkclean(pte_mkdirty(pte)))"),
    Broken(Entries, "dirty", no, "pmd_dirty(pmd_mkdirty(pmd_mkclean(pmd)))", "pmd"),
    Broken(Entries, "mkwrite", same, "pte_write(pte_mkwrite(pte_wrprotect(pte)))"),
    Broken(Entries, "wrprotect", same, "pte_write(pte_wrprotect(pte_mkwrite(pte)))"),
    Broken(
        *(Entries, "wrprotect", lambda _, e: e & ~0x42),
        "pte_dirty(pte_wrprotect(pte_mkdirty(pte)))",
    ),
    Broken(
        *(Entries, "wrprotect", lambda _, e: e & ~0x2 | 0x40),
        "pte_dirty(pte_wrprotect(pte))",
    ),
    Broken(Entries, "write", no, "pud_write(pud_mkwrite(pud_wrprotect(pud)))", "pud"),
    Broken(Entries, "same", no, "pgd_same(pgd, pgd)", "pgd"),
    Broken(Entries, "pmd_mkhuge", same, "pmd_leaf(pmd_mkhuge(pmd))", "pmd"),
    Broken(Entries, "pud_mkhuge", same, "pud_leaf(pud_mkhuge(pud))", "pud"),
    Broken(Entries, "pmd_bad", no, "pmd_bad(pmd_mkhuge(pmd))", "pmd"),
    Broken(Entries, "pmd_bad", yes, "pmd_bad(*pmdp)", "pmd"),
    Broken(Entries, "pud_bad", no, "pud_bad(pud_mkhuge(pud))", "pud"),
    Broken(Entries, "pud_bad", yes, "pud_bad(*pudp)", "pud"),
    Broken(Entries, "p4d_bad", yes, "p4d_bad(*p4dp)", "p4d"),
    Broken(Entries, "p4d_bad", no, "p4d_bad(0xffffffffffffffff)", "p4d"),
    Broken(
        *(Entries, "leaf", lambda _, e: e & (P | PS) == P | PS),
        "pmd_leaf(pmd_mkinvalid(pmd_mkhuge(pmd)))",
        "pmd",
    ),
    Broken(
        *(Entries, "pmd_present", lambda _, e: bool(e & 0x101)),
        "pmd_present(pmd_mkinvalid(pmd_mkhuge(pmd)))",
        "pmd",
    ),
    Broken(Entries, "pte_present", lambda _, e: bool(e & P), "pte_present(pte)"),
    Broken(Entries, "protnone", no, "pmd_protnone(pmd_mkhuge(pmd))", "pmd"),
    Broken(
        *(Entries, "mkinvalid", lambda _, e: e & ~(P | PS)),
        "pmd_trans_huge(pmd_mkinvalid(pmd_mkhuge(pmd)))",
        "pmd",
    ),
    Broken(Entries, "trans_huge", no, "pud_trans_huge(pud_mkhuge(pud))", "pud"),
    Broken(Entries, "pte_huge", no, "pte_huge(pte_mkhuge(pte))"),
    Broken(Entries, "mkspecial", same, "pte_special(pte_mkspecial(pte))"),
    Broken(Entries, "mksoft_dirty", same, "pte_soft_dirty(pte_mksoft_dirty(pte))"),
    Broken(
        *(Entries, "clear_soft_dirty", same),
        "pmd_soft_dirty(pmd_clear_soft_dirty(pmd_mksoft_dirty(pmd)))",
        "pmd",
    ),
    Broken(
        *(swapops, "swp_entry_to_pte", lambda e: e.type << 59 | e.offset << 9),
        "pte_same(swp_entry_to_pte(pte_to_swp_entry(pte)), pte)",
    ),
    Broken(swapops, "is_swap_pte", no, "is_swap_pte(pte)"),
    Broken(
        *(swapops, "swp_mksoft_dirty", lambda e: e),
        "pte_swp_soft_dirty(pte_swp_mksoft_dirty(pte))",
    ),
    Broken(
        *(swapops, "swp_clear_soft_dirty", lambda e: e),
        "pmd_swp_soft_dirty(pmd_swp_clear_soft_dirty(pmd_swp_mksoft_dirty(pmd)))",
        "pmd",
    ),
    Broken(
        *(swapops, "swp_mkexclusive", lambda e: e ^ 0x208),
        "pte_same(swp_entry_to_pte(pte_to_swp_entry(pte_swp_mkexclusive(pte))), pte)",
    ),
    Broken(
        *(swapops, "swp_mkexclusive", lambda e: e | 0x88),
        "is_swap_pte(pte_swp_mkexclusive(pte))",
    ),
    Broken(
        *(swapops, "swp_clear_exclusive", lambda e: e),
        "pte_swp_exclusive(pte_swp_clear_exclusive(pte_swp_mkexclusive(pte)))",
    ),
    Broken(
        *(swapops, "make_writable_migration_entry", swapops.make_readable_migration_entry),
        "is_writable_migration_entry(make_writable_migration_entry(pte))",
    ),
    Broken(
        *(swapops, "is_migration_entry", no),
        "is_migration_entry(make_readable_migration_entry(pte))",
    ),
    Broken(inplace, "set_at", nothing, "the CPU's read"),
    Broken(inplace, "clear", nothing, "pte_none(*ptep)"),
    Broken(inplace, "clear", nothing, "p4d_none(*p4dp)", "p4d"),
    Broken(inplace, "get_and_clear", lambda at: at.entry, "pud_none(*pudp)", "pud"),
    Broken(inplace, "get_and_clear_full", lambda at: at.entry, "pmd_none(*pmdp)", "pmd"),
    Broken(inplace, "set_wrprotect", nothing, "the CPU's write", "pmd"),
    Broken(inplace, "set_access_flags", no, "pte_set_access_flags(ptep)"),
    Broken(inplace, "set_access_flags", yes, "pte_dirty(*ptep)"),
    Broken(inplace, "test_and_clear_young", yes, "pmd_young(*pmdp)", "pmd"),
    Broken(inplace, "set_huge", small, "the CPU's read last", "pmd"),
    Broken(inplace, "set_huge", no, "pud_set_huge(pudp)", "pud"),
    Broken(inplace, "set_huge", regardless, "*pmdp is kept", "pmd"),
    Broken(inplace, "clear_huge", yes, "pmd_none(*pmdp)", "pmd"),
    Broken(inplace, "pgd_clear", inplace.clear, "*pgdp is kept", "pgd"),
    Broken(inplace, "pgd_clear", nothing, "pgd_none(*pgdp)", "pgd", levels=5),
    Broken(populate, "pmd_populate_kernel", bare_table, "pmd_bad(*pmdp)", "pmd"),
    Broken(populate, "pud_populate", another_table, "the CPU's read", "pud"),
    Broken(populate, "p4d_populate", nothing, "p4d_none(*p4dp)", "p4d"),
    Broken(
        *(populate, "pgd_populate", lambda k, _, at, table, __: bare_table(k, at, table)),
        "*pgdp is kept",
        "pgd",
    ),
    Broken(populate, "pgd_populate", nothing, "pgd_bad(*pgdp)", "pgd", levels=5),
    Broken(Pgtable, "pgd_none", lambda _, pgd: pgd == 0, "pgd_none(0x0)", "pgd"),
    Broken(Pgtable, "pgd_none", no, "pgd_none(0x0)", "pgd", levels=5),
    Broken(Pgtable, "pgd_present", lambda _, pgd: bool(pgd & P), "pgd_present(0x0)", "pgd"),
    Broken(Pgtable, "pgd_bad", yes, "pgd_bad(0x1067)", "pgd"),
    Broken(pgalloc, "pte_free", nothing, "free frames, as before", "pgd"),
    Broken(pgalloc, "pud_free", nothing, "free frames, as before", "pgd"),
    Broken(pgalloc, "pud_free", twice, "pud_free(mm, ", "pud"),
    Broken(pgalloc, "p4d_free", unfolded, "pgd_free(mm, ", "pgd"),
    Broken(pgalloc, "p4d_free", nothing, "free frames, as before", "pgd", levels=5),
    Broken(mm, "pgd_free", nothing, "free frames, as before", "pgd"),
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: f"{b.name}: {b.check}")
def test_a_broken_helper_is_found_and_named(
    make_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch, broken: Broken
) -> None:
    kernel = make_kernel("6.17", levels=broken.levels)
    monkeypatch.setattr(broken.owner, broken.name, broken.instead, raising=False)

    failures = check(kernel).failures

    named = [failure.level for failure in failures if failure.check.startswith(broken.check)]
    assert broken.level in named


@pytest.mark.parametrize("bit", ["RW", "A"])
def test_helpers_that_agree_on_the_wrong_bit_are_found_by_the_cpu_alone(
    make_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch, bit: str
) -> None:
    monkeypatch.setattr(entries, bit, 1 << 10)

    failures = check(make_kernel("6.17")).failures

    assert failures
    assert not [f for f in failures if f.group.endswith(("basic_tests", "leaf_tests"))]


def test_a_helper_of_one_level_is_found_at_that_level_only(
    make_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Entries, "pud_mkold", same, raising=False)

    failures = check(make_kernel("6.17")).failures

    assert {failure.level for failure in failures} == {"pud"}
