"""Which scenario dies like an oops: worked back from its address, and run."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oops_texts import COMPOUND, COVER, FIVE_LEVELS, HANDLER, PLAIN, SUB_PMD

from kernel_model.layout import GIB
from kernel_model.reading import proof
from kernel_model.reading.oopses import match_oops, read_oopses
from kernel_model.reading.proof import Match
from kernel_model.scenarios import run_scenario


def match(text: bytes) -> Match | None:
    """The scenario for a text."""
    found = read_oopses(io.BytesIO(text).read).first
    assert found is not None
    return match_oops(found)


def moved(text: bytes, address: int) -> bytes:
    """The same oops, somewhere else."""
    for old in (b"ffffe70000000034", b"ffffeb3ff1200000", b"ffd4000000000034"):
        text = text.replace(old, b"%016x" % address)
    return text


@pytest.mark.parametrize("text", [COMPOUND, COVER], ids=["patch", "cover letter"])
def test_the_first_oops_is_that_of_vmemmap_devdax(text: bytes) -> None:
    found = match(text)

    assert found is not None
    assert found.exactly
    assert (found.candidate.scenario, found.release) == ("vmemmap-devdax", "6.8")
    assert found.candidate.settings["vmemmap_base"] == "0xffffe6ffc0000000"
    assert len(found.lines) == 13


def test_the_second_oops_is_that_of_vmemmap_subpmd() -> None:
    found = match(SUB_PMD)

    assert found is not None
    assert found.exactly
    assert (found.candidate.scenario, found.release) == ("vmemmap-subpmd", "6.13")
    assert found.candidate.settings == {
        "vmemmap_base": "0xffffea0000000000",
        "pfn": "0x3ffd00000",
        "struct_page": "80",
    }
    assert len(found.lines) == 17


def test_the_arithmetic_is_told() -> None:
    found = match(COMPOUND)

    assert found is not None
    told = "\n".join(found.candidate.because)
    assert "(0xffffe70000000000 - 0xffffe6ffc0000000) / 64 bytes = pfn 0x1000000" in told


# 5-level addresses, other slots, addresses inside a slot, the last compound of one
@pytest.mark.parametrize(
    ("text", "address"),
    [
        (COMPOUND, 0xFFFF_D200_0000_0034),
        (COMPOUND, 0xFFFF_EA80_0000_0034),
        (COMPOUND, 0xFFFF_F500_0000_0034),
        (COMPOUND, 0xFFFF_E700_4000_8034),
        (COMPOUND, 0xFFFF_E77F_FFFF_8034),
        (FIVE_LEVELS, 0xFFD4_0000_0000_0034),
        (FIVE_LEVELS, 0xFFA0_0000_0000_0034),
        (FIVE_LEVELS, 0xFFD4_0000_4000_8034),
        (SUB_PMD, 0xFFFF_EB00_0000_0000),
        (SUB_PMD, 0xFFFF_E700_0120_0000),
        (SUB_PMD, 0xFFFF_E700_0008_0000),
        (SUB_PMD, 0xFFFF_E750_0018_0000),
        (SUB_PMD, 0xFFFF_EB7F_F138_0000),
    ],
)
def test_any_other_address_is_worked_back_from(text: bytes, address: int) -> None:
    found = match(moved(text, address))

    assert found is not None
    assert (found.exactly, found.ran.address) == (True, address)


@settings(max_examples=15)
@given(slot=st.integers(430, 490), compound=st.integers(0, (1 << 24) - 1))
def test_so_is_any_compound_of_any_slot_that_vmemmap_may_reach(slot: int, compound: int) -> None:
    address = 0xFFFF_0000_0000_0000 + (slot << 39) + (compound << 15) + 0x34

    found = match(moved(COMPOUND, address))

    assert found is not None
    assert found.exactly


def test_registers_choose_among_the_settings_that_fit() -> None:
    # A 96-byte page's section end; without it, 80 bytes would be offered.
    base, end = 0xFFFF_E6FF_C000_0000, 0xFFFF_E700_0050_0000
    text = SUB_PMD.replace(b"RIP: 0010:", b"R12: %016x RIP: 0010:" % end).replace(
        b"ffffeb3ff1200000", b"ffffe70000400000"
    )

    found = match(text)

    assert found is not None
    assert found.exactly
    assert found.candidate.settings["struct_page"] == "96"
    pfn = int(found.candidate.settings["pfn"], 16)
    assert int(found.candidate.settings["vmemmap_base"], 16) + 96 * (pfn + 32768) == end
    assert base % GIB == 0


@pytest.mark.parametrize(
    ("header", "release"),
    [
        (b"Oops: 0002 [#1] SMP NOPTI", "6.8"),
        (b"Oops: 0002 [#1] PREEMPT SMP PTI", "6.8"),
        (b"Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI", "6.13"),
        (b"Oops: Oops: 0002 [#1] SMP NOPTI", "6.16"),
    ],
)
def test_the_release_is_one_that_words_it_alike(header: bytes, release: str) -> None:
    found = match(COMPOUND.replace(b"Oops: 0002 [#1] SMP NOPTI", header))

    assert found is not None
    assert (found.exactly, found.release) == (True, release)


def test_the_release_is_the_one_that_is_named() -> None:
    found = match(PLAIN.replace(b"5.16.9-1", b"6.16.3-arch1"))

    assert found is not None
    assert found.release == "6.16"


def test_what_differs_is_said() -> None:
    found = match(COMPOUND.replace(b"__init_single_page+0x9/0x6d", b"__init_single_page+0x1b/0x90"))

    assert found is not None
    assert not found.exactly
    assert (found.address, found.error_code, found.symbol) == (True, True, False)
    assert found.differences == (
        "RIP: __init_single_page+0x1b/0x90 in the text, __init_single_page+0x9/0x6d in the run",
    )


@pytest.mark.parametrize(
    "text",
    [
        COMPOUND.replace(b"__init_single_page+", b"memset_erms+"),
        COMPOUND.replace(b"PGD 0 P4D 0", b"PGD 1067 P4D 1067 PUD 0"),
        moved(COMPOUND, 0xFFFF_E700_4000_1034),  # the second head is 32 KiB on
        moved(SUB_PMD, 0xFFFF_E700_0004_0000),  # sections begin at multiples of 512 KiB
        moved(COMPOUND, 0xFFFF_9000_0000_0034),  # too low for vmemmap
        b"kernel BUG at mm/slub.c:4021!\ninvalid opcode: 0000 [#1] SMP",
    ],
)
def test_what_no_scenario_does_is_not_matched(text: bytes) -> None:
    assert match(text) is None


def test_a_scenario_that_there_is_not_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "SCENARIOS", {})

    assert match(COMPOUND) is None


def test_the_third_oops_is_that_of_ioremap_512g() -> None:
    found = match(HANDLER)

    assert found is not None
    assert found.exactly
    assert (found.candidate.scenario, found.release) == ("ioremap-512g", "4.4")
    assert len(found.lines) > 8


@pytest.mark.parametrize(
    ("scenario", "release"),
    [
        ("ioremap-512g", "5.9-mw"),
        ("prealloc-nonpresent", "5.9-mw"),
        ("vmap-stack-switch", "4.14"),
        ("sync-race", "5.8"),
        ("trampoline", "4.4"),
        ("ldt-slot", "6.17"),
        ("pti-user-half", "6.8"),
        ("hot-readd", "4.12-rc"),
        ("kasan-zero-shadow", "rfc-v1"),
    ],
)
def test_other_scenarios_are_found_by_where_they_die(scenario: str, release: str) -> None:
    run = run_scenario(scenario, release=release)
    with run.kernel:
        text = run.oops
    assert text is not None

    found = match(text.encode())

    assert found is not None
    assert found.exactly
    assert (found.candidate.scenario, found.release) == (scenario, release)
