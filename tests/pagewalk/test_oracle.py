"""The oracle, against single statements of the SDM, volume 3A, chapter "Paging"."""

import subprocess
import sys

import pytest
from support.oracle import predict

VA = 0x7000
PAGE = "pml4e.p pml4e.rw pml4e.user pdpte.p pdpte.rw pdpte.user pde.p pde.rw pde.user"
PAGE += " pte.p pte.rw pte.user"
KEPT, MAY_BE_ACCESSED, ACCESSED, DIRTIED = range(4)
P, W, U, RSVD, FETCH, PK = 1, 2, 4, 8, 16, 32


def case(names, without=""):
    """An open 4 KiB page below open tables; some conditions more, some less."""
    return frozenset(f"{PAGE} {names}".split()) - frozenset(without.split())


def code(names, without=""):
    """The error code that it gives, None if it goes through."""
    return predict(case(names, without), 4, VA).error_code


def test_it_loads_nothing_of_what_it_judges():
    look = "import sys, pagewalk.sweep.oracle; print(*sorted(sys.modules))"

    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True).stdout

    packages = {name.partition(".")[0] for name in loaded.split()}
    assert packages & {"emu", "asm", "kernel_model", "unicorn"} == set()


@pytest.mark.parametrize("who", ["", "user"])
@pytest.mark.parametrize("kind", ["read", "write", "update", "fetch"])
def test_an_open_page_refuses_nobody(kind, who):
    assert predict(case(f"{kind} {who} efer.nx cr0.wp"), 4, VA)[:3] == (None, None, None)


def test_a_page_fault_reports_the_address():
    assert predict(case("", without="pte.p"), 4, VA)[:3] == (14, 0, VA)


def test_an_address_that_is_not_canonical_is_no_page_fault():
    assert predict(case("write non-canonical"), 4, VA) == (13, 0, None, (KEPT,) * 4)


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        ("read", 0),
        ("write", W),
        ("update", W),
        ("read user", U),
        ("write user", W | U),
        ("fetch", 0),
        ("fetch efer.nx", FETCH),
        ("fetch cr4.smep", FETCH),
        ("fetch user efer.nx", FETCH | U),
    ],
)
def test_the_error_code_tells_the_access(access, expected):
    assert code(access, without="pde.p") == expected


@pytest.mark.parametrize("bit", ["pml4e.pse", "pml4e.40", "pdpte.51", "pde.47", "pte.51", "pte.nx"])
def test_a_reserved_bit_is_reported_beside_present(bit):
    assert code(bit) == P | RSVD


def test_a_reserved_bit_of_an_absent_entry_is_ignored():
    assert code("pte.51 pte.nx", without="pte.p") == 0


def test_an_absent_entry_hides_what_lies_below():
    assert code("pte.51", without="pdpte.p") == 0


@pytest.mark.parametrize(("page", "bit"), [("pde", 13), ("pde", 20), ("pdpte", 13), ("pdpte", 29)])
def test_low_address_bits_are_reserved_in_a_large_page(page, bit):
    assert code(f"{page}.pse {page}.{bit}") == P | RSVD


def test_xd_is_a_right_with_nxe_and_a_reserved_bit_without():
    assert code("fetch pde.nx efer.nx") == P | FETCH
    assert code("read pde.nx efer.nx") is None
    assert code("fetch pde.nx") == P | RSVD


@pytest.mark.parametrize("entry", ["pml4e", "pdpte", "pde", "pte"])
def test_one_entry_suffices_to_take_a_right_away(entry):
    assert code("read user", without=f"{entry}.user") == P | U
    assert code("write user", without=f"{entry}.rw") == P | U | W
    assert code(f"fetch efer.nx {entry}.nx") == P | FETCH


def test_the_supervisor_writes_read_only_pages_unless_wp():
    assert code("write", without="pte.rw") is None
    assert code("write cr0.wp", without="pte.rw") == P | W


def test_wp_is_not_the_users():
    assert code("write user", without="pte.rw") == P | U | W


@pytest.mark.parametrize(
    ("names", "without", "expected"),
    [
        ("fetch cr4.smep", "", P | FETCH),
        ("fetch cr4.smep", "pte.user", None),
        ("fetch user cr4.smep", "", None),
        ("read cr4.smep", "", None),
    ],
)
def test_smep_keeps_the_supervisor_from_executing_user_pages(names, without, expected):
    assert code(names, without) == expected


@pytest.mark.parametrize(
    ("names", "without", "expected"),
    [
        ("read cr4.smap", "", P),
        ("write cr4.smap", "", P | W),
        ("read cr4.smap ac", "", None),
        ("read cr4.smap", "pde.user", None),
        ("read user cr4.smap", "", None),
        ("fetch cr4.smap", "", None),
    ],
)
def test_smap_keeps_the_supervisor_from_data_of_user_pages(names, without, expected):
    assert code(names, without) == expected


@pytest.mark.parametrize(
    ("names", "without", "expected"),
    [
        ("read user pkru.ad", "", P | U | PK),
        ("read pkru.ad", "", P | PK),
        ("read pkru.ad", "pte.user", None),
        ("fetch user pkru.ad", "", None),
        ("read user pkru.wd", "", None),
        ("write user pkru.wd", "", P | U | W | PK),
        ("write pkru.wd", "", None),
        ("write pkru.wd cr0.wp", "", P | W | PK),
        ("write user pkru.ad", "pte.rw", P | U | W | PK),
    ],
)
def test_the_key_of_a_user_page_forbids_data_accesses(names, without, expected):
    assert code(f"{names} pkey=13 cr4.pke", without) == expected


@pytest.mark.parametrize("missing", ["pkey=13", "cr4.pke"])
def test_a_key_counts_with_pke_alone(missing):
    assert code("read user pkru.ad pkey=13 cr4.pke", without=missing) is None


# -- A and D


def marks(names, without="", levels=4):
    """What becomes of the entries, root first."""
    return predict(case(names, without), levels, VA).marks


def test_a_walk_that_is_used_sets_a_and_a_write_sets_d_in_the_leaf():
    assert marks("read") == (ACCESSED,) * 4
    assert marks("write") == (ACCESSED, ACCESSED, ACCESSED, DIRTIED)


def test_what_lies_below_a_page_is_not_touched():
    assert marks("write pde.pse") == (ACCESSED, ACCESSED, DIRTIED, KEPT)
    assert marks("read pdpte.pse") == (ACCESSED, ACCESSED, KEPT, KEPT)


@pytest.mark.parametrize(
    ("names", "without", "expected"),
    [
        ("read", "pml4e.p", (KEPT,) * 4),
        ("read", "pde.p", (MAY_BE_ACCESSED, MAY_BE_ACCESSED, KEPT, KEPT)),
        ("read pde.51", "", (MAY_BE_ACCESSED, MAY_BE_ACCESSED, KEPT, KEPT)),
        ("read user", "pte.user", (MAY_BE_ACCESSED,) * 3 + (KEPT,)),
        ("read user", "pml4e.user", (MAY_BE_ACCESSED,) * 3 + (KEPT,)),
    ],
)
def test_a_refused_access_may_leave_a_above_the_entry_that_ends_it(names, without, expected):
    assert marks(names, without) == expected


def test_with_5_levels_the_pml5e_comes_first():
    conditions = case("write pml5e.rw pml5e.user")

    assert predict(conditions, 5, VA) == (14, W, VA, (KEPT,) * 5)
    assert predict(conditions | {"pml5e.p"}, 5, VA).marks == (ACCESSED,) * 4 + (DIRTIED,)


def test_a_read_by_the_supervisor_before_leaves_its_marks():
    refused = predict(case("write user twice", without="pte.user"), 4, VA)

    assert refused.error_code == P | U | W
    assert refused.marks == (ACCESSED,) * 4
