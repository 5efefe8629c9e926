"""The checklist of debug_vm_pgtable, as data: which rules the entry helpers have to keep.

Knows each group of checks by the name of the kernel's function, in the kernel's order, and which
of them a kernel leaves out. Refuses to know what a step does (`steps`) and how it is done
(`checker`). Linux vocabulary; source: mm/debug_vm_pgtable.c (v6.17), 399145f9eb6c "mm/debug: add
tests validating architecture page table helpers" (5.8).

Linux checks values, and what it finds in the table. The steps that are a CPU's access are ours.
"""

from typing import Final

from kernel_model.debug_vm_pgtable.steps import (
    Ask,
    Cpu,
    Do,
    Given,
    Group,
    Helpers,
    Kept,
    Look,
    Need,
    Offset,
    Put,
    Same,
    Step,
)

LACKING: Final[dict[Need, str]] = {
    "pud-thp": "this release has no transparent huge pages of PUD size",
    "swap-exclusive": "this release keeps no exclusive bit in a swap entry",
    "p4d": "the p4d is folded into the pgd",
    "pmd-page": "no free page of PMD size",
    "pud-page": "no free page of PUD size",
    "pmd-range": "no RAM of PMD size",
    "pud-range": "no RAM of PUD size",
}

_BASIC: Final = (
    Ask("dirty", False, ("wrprotect",)),
    Same(),
    Ask("young", True, ("mkold", "mkyoung")),
    Ask("dirty", True, ("mkclean", "mkdirty")),
    Ask("write", True, ("wrprotect", "mkwrite")),
    Ask("young", False, ("mkyoung", "mkold")),
    Ask("dirty", False, ("mkdirty", "mkclean")),
    Ask("write", False, ("mkwrite", "wrprotect")),
    Ask("dirty", False, ("mkclean", "wrprotect")),
    Ask("dirty", True, ("mkdirty", "wrprotect")),
)
_BASIC_HUGE: Final = (*_BASIC, Ask("bad", True, ("mkhuge",)))
_NOISE: Final = (1 << 64) - 1
_KNL: Final = 0x60  # stray A and D, which do not make an entry
_TABLE: Final = 0x1067
_P4D: Final = (
    Same(),
    Given("none", 0, folded=True, real=True),
    Given("none", _KNL, folded=True, real=True),
    Given("none", _TABLE, folded=False, real=False),
    Given("present", _TABLE, folded=True, real=True),
    Given("bad", _TABLE, folded=False, real=False),
    Given("bad", _NOISE, folded=True, real=True),
    Offset(),
)
_PGD: Final = (
    Same(),
    Given("none", 0, folded=False, real=True),
    Given("none", _KNL, folded=False, real=False),
    Given("present", 0, folded=True, real=False),
    Given("present", _TABLE, folded=True, real=True),
    Given("bad", 0, folded=False, real=True),
    Given("bad", _TABLE, folded=False, real=False),
    Given("bad", _NOISE, folded=False, real=True),
)
_LEAF: Final = (Ask("leaf", True, ("mkhuge",)),)
_SOFT_DIRTY: Final = (
    Ask("soft_dirty", True, ("mksoft_dirty",)),
    Ask("soft_dirty", False, ("mksoft_dirty", "clear_soft_dirty")),
)
_SWAP: Final = (Ask("is_swap_pte", True), Same(("pte_to_swp_entry", "swp_entry_to_pte")))


def _swap_flag(flag: str) -> tuple[Step, ...]:
    """A flag of a swap entry comes and goes, and disturbs nothing else in it."""
    mark, clear = f"swp_mk{flag}", f"swp_clear_{flag}"
    return (
        Ask(f"swp_{flag}", False),
        Ask(f"swp_{flag}", True, (mark,)),
        Ask("is_swap_pte", True, (mark,)),
        Same((mark, "pte_to_swp_entry", "swp_entry_to_pte")),
        Ask(f"swp_{flag}", False, (mark, clear)),
        Same((mark, clear)),
    )


_MIGRATION: Final = (
    Ask("is_migration_entry", True, ("make_writable_migration_entry",)),
    Ask("is_writable_migration_entry", True, ("make_writable_migration_entry",)),
    Ask("is_migration_entry", True, ("make_readable_migration_entry",)),
    Ask("is_writable_migration_entry", False, ("make_readable_migration_entry",)),
)
_PMD_THP: Final = (
    Ask("trans_huge", True, ("mkhuge",)),
    Ask("trans_huge", True, ("mkhuge", "mkinvalid")),
    Ask("present", True, ("mkhuge", "mkinvalid")),
    Ask("leaf", True, ("mkhuge", "mkinvalid")),
)
_HUGETLB: Final = (
    Ask("huge", True, ("mkhuge",)),
    Ask("dirty", True, ("mkhuge", "mkdirty")),
    Ask("write", True, ("mkhuge", "wrprotect", "mkwrite")),
    Ask("write", False, ("mkhuge", "mkwrite", "wrprotect")),
)


def _protnone(huge: Helpers) -> tuple[Step, ...]:
    return (Ask("protnone", True, huge), Ask("present", True, huge))


def _clear() -> tuple[Step, ...]:
    """What was there is gone, for the CPU too."""
    return (Look("none", False), Do("clear"), Look("none", True), Cpu("read", "absent"))


def _advanced(huge: Helpers, before: Helpers = (), after: Helpers = ()) -> tuple[Step, ...]:
    """One page is mapped, protected, given rights, aged and unmapped."""
    return (
        *(Do(helper) for helper in before),
        Put((*huge, "mkwrite")),
        Cpu("read", "allowed"),
        Cpu("read last", "allowed"),
        Cpu("read behind", "absent"),
        Cpu("write", "allowed"),
        Do("set_wrprotect"),
        Look("write", False),
        Cpu("write", "refused"),
        Do("get_and_clear"),
        Look("none", True),
        Cpu("read", "absent"),
        Put((*huge, "wrprotect", "mkclean")),
        Do("set_access_flags", True, ("mkwrite", "mkdirty")),
        Look("write", True),
        Look("dirty", True),
        Cpu("write", "allowed"),
        Do("get_and_clear_full"),
        Look("none", True),
        Put((*huge, "mkyoung")),
        Do("test_and_clear_young", True),
        Look("young", False),
        Cpu("read", "allowed"),
        Look("young", True),
        Do("get_and_clear_full"),
        *(Do(helper, True) for helper in after),
    )


def _protected(huge: Helpers) -> tuple[Step, ...]:
    """What a protection allows is what the CPU allows; and A and D are the CPU's."""
    return (
        Put((*huge, "mkold", "mkclean")),
        Cpu("read", "as-protected"),
        Look("young", "as-protected"),
        Look("dirty", False),
        Cpu("write", "as-protected"),
        Look("dirty", "as-protected"),
        Do("set_wrprotect"),
        Cpu("write", "refused"),
        Look("dirty", "as-protected"),
        Put((*huge, "mkwrite")),
        Cpu("write", "allowed"),
        Do("clear"),
        Cpu("read", "absent"),
    )


_HUGE: Final = (
    Do("clear"),
    Do("set_huge", True),
    Cpu("read", "allowed"),
    Cpu("read last", "allowed"),
    Cpu("read behind", "absent"),
    Do("clear_huge", True),
    Look("none", True),
    Cpu("read", "absent"),
)
_POPULATED: Final = (Look("bad", False), Look("none", False), Cpu("read", "absent below"))
_NO_TABLE_LOST: Final = (Do("set_huge", False), Kept())  # x86's own rule


def _populate(*below: Step) -> tuple[Step, ...]:
    """A table under an entry does not make it bad."""
    return (*below, Do("clear"), Do("populate"), *_POPULATED)


_PUD: Final[Need] = "pud-thp"
_EMPTY_BELOW: Final = Do("clear", below=True)
CHECKLIST: Final = (
    Group("pte_basic_tests", "PTE basic", "pte", each=_BASIC),
    Group("pmd_basic_tests", "PMD basic", "pmd", each=_BASIC_HUGE),
    Group("pud_basic_tests", "PUD basic", "pud", each=_BASIC_HUGE, needs=(_PUD,)),
    Group("p4d_basic_tests", "P4D basic", "p4d", _P4D, start="noise"),
    Group("pgd_basic_tests", "PGD basic", "pgd", _PGD, start="noise"),
    Group("pmd_leaf_tests", "PMD leaf", "pmd", _LEAF),
    Group("pud_leaf_tests", "PUD leaf", "pud", _LEAF, needs=(_PUD,)),
    Group("pte_special_tests", "PTE special", "pte", (Ask("special", True, ("mkspecial",)),)),
    Group("pte_protnone_tests", "PTE protnone", "pte", _protnone(()), prot="none"),
    Group("pmd_protnone_tests", "PMD protnone", "pmd", _protnone(("mkhuge",)), prot="none"),
    Group("pte_soft_dirty_tests", "PTE soft dirty", "pte", _SOFT_DIRTY),
    Group("pmd_soft_dirty_tests", "PMD soft dirty", "pmd", _SOFT_DIRTY),
    Group(
        *("pte_swap_soft_dirty_tests", "PTE swap soft dirty", "pte"),
        _swap_flag("soft_dirty"),
        start="swap",
    ),
    Group(
        *("pmd_swap_soft_dirty_tests", "PMD swap soft dirty", "pmd"),
        _swap_flag("soft_dirty"),
        start="swap",
    ),
    Group(
        *("pte_swap_exclusive_tests", "PTE swap exclusive", "pte"),
        _swap_flag("exclusive"),
        start="swap",
        needs=("swap-exclusive",),
    ),
    Group("pte_swap_tests", "PTE swap", "pte", _SWAP, start="swap"),
    Group("pmd_swap_tests", "PMD swap", "pmd", _SWAP, start="swap"),
    Group("swap_migration_tests", "swap migration", "pte", _MIGRATION, start="pfn"),
    Group("pmd_thp_tests", "PMD based THP", "pmd", _PMD_THP),
    Group("pud_thp_tests", "PUD based THP", "pud", _PMD_THP[:1], needs=(_PUD,)),
    Group("hugetlb_basic_tests", "HugeTLB basic", "pte", _HUGETLB),
    Group(
        *("pte_clear_tests", "PTE clear", "pte"),
        (Put(), Cpu("read", "allowed"), *_clear()),
        start="page",
    ),
    Group(
        *("pte_advanced_tests", "PTE advanced", "pte"),
        _advanced(()),
        _protected(()),
        start="page",
    ),
    Group("pmd_clear_tests", "PMD clear", "pmd", _clear()),
    Group(
        *("pmd_advanced_tests", "PMD advanced", "pmd"),
        _advanced(("mkhuge",), ("deposit",), ("withdraw",)),
        _protected(("mkhuge",)),
        start="page",
        needs=("pmd-page",),
    ),
    Group("pmd_huge_tests", "PMD huge", "pmd", _HUGE, needs=("pmd-range",)),
    Group("pmd_populate_tests", "PMD populate", "pmd", (*_populate(), *_NO_TABLE_LOST)),
    Group("pud_clear_tests", "PUD clear", "pud", _clear()),
    Group(
        *("pud_advanced_tests", "PUD advanced", "pud"),
        _advanced(("mkhuge",)),
        _protected(("mkhuge",)),
        start="page",
        needs=(_PUD, "pud-page"),
    ),
    Group("pud_huge_tests", "PUD huge", "pud", _HUGE, needs=("pud-range",)),
    Group(
        *("pud_populate_tests", "PUD populate", "pud"),
        (*_populate(_EMPTY_BELOW), *_NO_TABLE_LOST),
    ),
    Group("p4d_clear_tests", "P4D clear", "p4d", _clear()),
    Group(
        *("pgd_clear_tests", "PGD clear", "pgd"),
        (*_clear(), Do("populate")),  # back, so that the CPU gets to the p4d
        start="noise",
        needs=("p4d",),
        otherwise=(Put(), Do("clear"), Kept(), _EMPTY_BELOW),
    ),
    Group("p4d_populate_tests", "P4D populate", "p4d", _populate(_EMPTY_BELOW)),
    Group(
        *("pgd_populate_tests", "PGD populate", "pgd"),
        _populate(_EMPTY_BELOW),
        needs=("p4d",),
        otherwise=(Do("populate"), Kept(), Look("bad", False), Look("none", False)),
    ),
)
