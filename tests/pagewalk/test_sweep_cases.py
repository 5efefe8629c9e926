"""Names, families and entries: which cases there are, their names, and what they are made of."""

import random
from itertools import product

import pytest
from support.cases import in_access_c

from emu.paging import PS, RW, US, XD, A, D, P
from pagewalk.sweep.conditions import VOCABULARY, complete, written
from pagewalk.sweep.entries import setting, target
from pagewalk.sweep.families import families

DEPTHS = (4, 5)
FAMILIES = [(levels, name) for levels in DEPTHS for name in families(levels)]
SAMPLE = 300


def drawn(levels, name):
    """Some cases of a family, always the same."""
    family = families(levels)[name]
    size = min(SAMPLE, family.size)
    return [
        family.case(n) for n in random.Random(f"{levels}{name}").sample(range(family.size), size)
    ]


# -- names


def test_what_is_not_named_does_not_hold():
    meant = complete("pte.p pte.rw write user cr0.wp".split(), 4)

    assert {name for name in meant if name.startswith("pte.")} == {"pte.p", "pte.rw"}
    assert {"write", "user", "cr0.wp"} < meant
    assert meant.isdisjoint({"efer.nx", "cr4.smep", "ac"})


def test_an_entry_of_which_nothing_is_named_is_open():
    meant = complete(["pte.p"], 5)

    assert meant == {"pte.p"} | {
        f"{entry}.{word}"
        for entry, word in product(("pml5e", "pml4e", "pdpte", "pde"), ("p", "rw", "user"))
    }


def test_below_a_page_nothing_is_needed():
    assert "pte.p" not in complete(["pde.p", "pde.pse"], 4)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("pdpte.ro", "pdpte.p pdpte.user"),
        ("pde.p pde.ps", "pde.p pde.pse"),
        ("read", ""),
    ],
)
def test_short_for(short, long):
    assert complete(short.split(), 4) == complete(long.split(), 4)


def test_an_empty_entry_has_a_name():
    meant = complete(["pde.empty"], 4)

    assert [name for name in meant if name.startswith("pde.")] == []


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("pte.x", "'pte.x'"),
        ("pte.usr", "did you mean pte.user?"),
        ("cr4.smp", "did you mean cr4.sm"),
        ("pte.pse", "no such condition"),
        ("write fetch", "one kind"),
        ("read update", "one kind"),
        ("pml5e.p", "no PML5E"),
        ("pde.13", "'pde.pse'"),
        ("pdpte.ro pdpte.p", "'pdpte.ro'"),
        ("pte.empty pte.p", "'pte.empty'"),
    ],
)
def test_names_that_are_wrong(names, said):
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        complete(names.split(), 4)


@pytest.mark.parametrize(("levels", "name"), FAMILIES)
def test_what_is_written_is_read_again(levels, name):
    cases = drawn(levels, name)

    assert [complete(written(case, levels).split(), levels) for case in cases] == cases


# -- families


@pytest.mark.parametrize("levels", DEPTHS)
def test_access_c_has_1916928_legal_combinations_at_each_depth(levels):
    assert families(levels)["access"].size == 1_916_928


@pytest.mark.parametrize("levels", DEPTHS)
def test_each_legal_combination_of_access_c_is_a_case(levels):
    family = families(levels)["access"]
    covered = {frozenset(case) for case in family.cases(range(0, family.size, 977))}

    assert [case for case in covered if not in_access_c(case, levels)] == []
    assert len(covered) == len(range(0, family.size, 977))


@pytest.mark.parametrize(("levels", "name"), FAMILIES)
def test_no_two_numbers_are_one_case(levels, name):
    cases = drawn(levels, name)

    assert len(set(cases)) == len(cases)


@pytest.mark.parametrize(("levels", "name"), FAMILIES)
def test_any_slice_can_be_made_alone(levels, name):
    family = families(levels)[name]
    numbers = range(family.size // 2 - 50, family.size // 2 + 50)

    assert list(family.cases(numbers)) == [family.case(number) for number in numbers]


@pytest.mark.parametrize(("levels", "name"), FAMILIES)
def test_every_name_in_a_family_is_in_the_vocabulary(levels, name):
    assert frozenset().union(*drawn(levels, name)) - VOCABULARY.keys() == set()


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("gigabyte", "pdpte.pse pdpte.a pdpte.d pdpte.29 update"),
        ("upper", "pml5e.a pml5e.nx pml5e.51 pml5e.pse pml4e.a pml4e.nx"),
        ("reserved", "pte.40 pte.51 pde.13 pde.20 pdpte.13 pdpte.29 pml4e.pse pml5e.40"),
        ("smap", "cr4.smap ac cr4.smep pte.nx pde.pse pdpte.pse update"),
        ("keys", "cr4.pke pkru.ad pkru.wd pkey=13 cr4.smap ac"),
    ],
)
def test_a_family_varies(family, names):
    choices = [choice for digit in families(5)[family].digits for choice in digit]

    with_it = {name for name in names.split() if any(name in choice for choice in choices)}
    without_it = {name for name in names.split() if any(name not in choice for choice in choices)}

    assert with_it == without_it == set(names.split())


# -- entries

PAT = 1 << 12


@pytest.mark.parametrize(
    ("name", "bit"),
    [
        ("pte.p", P),
        ("pte.rw", RW),
        ("pte.user", US),
        ("pte.a", A),
        ("pte.d", D),
        ("pte.nx", XD),
        ("pte.51", 1 << 51),
        ("pte.40", 1 << 40),
    ],
)
def test_a_condition_is_a_bit(name, bit):
    entries = setting(complete([name], 4), 4, 0).entries

    assert entries[3] == target(1) | bit


def test_a_case_of_a_large_page_keeps_the_entry_below():
    entries = setting(complete("pde.p pde.pse pde.13 pte.p".split(), 4), 4, 0).entries

    assert entries[2:] == (target(2) | PS | P | PAT | 1 << 13, target(1) | P)


@pytest.mark.parametrize(("names", "leaf"), [("", 3), ("pde.pse", 2), ("pdpte.pse", 1)])
def test_the_page_has_one_key_and_all_others_another_with_the_same_low_bits(names, leaf):
    entries = setting(complete(["pkey=13", *names.split()], 4), 4, 0).entries

    keys = [entry >> 59 & 15 for entry in entries]
    assert keys[leaf] == 13
    assert {*keys[:leaf], *keys[leaf + 1 :]} == {5}


def test_controls_become_registers():
    names = "efer.nx cr4.smep cr4.smap cr4.pke pkru.ad ac user fetch"

    case = setting(complete(names.split(), 5), 5, 0x1000)

    assert case.paging == case.paging.long_mode(
        0x1000, levels=5, wp=False, nxe=True, smep=True, smap=True, pke=True, pkru=0x400_0C00
    )
    assert case.access == ("fetch", True, False, True)
