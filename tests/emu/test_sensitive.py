"""Which instructions may be refused, and where in a block of code they are found."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from support.guest import Guest

from emu.instruction import decode
from emu.paging import Paging
from emu.registers import Registers
from emu.sensitive import CacheLine, UserPort, UserStack, Values, find, rule_of

HOST = Path(__file__).parents[1] / "support" / "host_alignment.py"
RIP = 0xFFFF_FFFF_8100_0000
PAGING = Paging.long_mode(0x1000)
MOV_CR3, NOP = "0f22d8", "90"
# Of CR4, by CPUID: bit: (leaf, register, bit).
FEATURE = {
    1: (1, "rdx", 1),
    2: (1, "rdx", 4),
    3: (1, "rdx", 2),
    4: (1, "rdx", 3),
    5: (1, "rdx", 6),
    6: (1, "rdx", 7),
    7: (1, "rdx", 13),
    9: (1, "rdx", 24),
    10: (1, "rdx", 25),
    11: (7, "rcx", 2),
    12: (7, "rcx", 16),
    13: (1, "rcx", 5),
    14: (1, "rcx", 6),
    16: (7, "rbx", 0),
    17: (1, "rcx", 17),
    18: (1, "rcx", 26),
    20: (7, "rbx", 7),
    21: (7, "rbx", 20),
    22: (7, "rcx", 3),
    23: (7, "rcx", 7),
    24: (7, "rdx", 25),
}


def registers(**values: int) -> Registers:
    return Registers(*[0] * len(Registers._fields))._replace(**values)


def rule(code: str):
    return rule_of(decode(bytes.fromhex(code)))


def refused(code: str, paging: Paging = PAGING, **values: int) -> bool:
    return rule(code).refused(registers(**values), paging)


def found(code: str, count: int, *, user: bool = False) -> list[int]:
    return [va - RIP for va, *_ in find(RIP, bytes.fromhex(code), count, user)]


# -- finding them


def test_they_are_found_where_they_stand() -> None:
    assert found(NOP + MOV_CR3 + NOP + "0f28 07", 4) == [1, 5]


def test_what_only_looks_like_one_is_not_found() -> None:
    assert found("b8 0f22d890", 1) == []  # in a constant


def test_where_the_engine_sees_other_instructions_whatever_may_be_one_is_found() -> None:
    assert found("b8 0f22d890", 2) == [1]


@pytest.mark.parametrize("code", ["ec", "e460", "6c", "66ef", "cf", "48cb", "ca0800"])
def test_some_are_looked_for_at_cpl_3_only(code: str) -> None:
    assert found(code, 1, user=True) == [0]
    assert found(code, 1) == []


def test_an_address_wraps_at_the_end_of_the_address_space() -> None:
    assert [va for va, *_ in find((1 << 64) - 1, bytes.fromhex(NOP + MOV_CR3), 2, False)] == [0]


# -- what each depends on


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("0fae3f", CacheLine()),
        ("660fae3f", CacheLine()),
        ("660fae37", CacheLine()),
        ("48cf", UserStack()),
        ("cb", UserStack()),
        ("ec", UserPort(None, 1)),
        ("66ed", UserPort(None, 2)),
        ("4866ef", UserPort(None, 2)),  # a REX that is not the last prefix does nothing
        ("6648ef", UserPort(None, 4)),
        ("e560", UserPort(0x60, 4)),
        ("f36c", UserPort(None, 1)),
        ("666f", UserPort(None, 2)),
        ("0f20d8", None),  # mov rax, cr3
        ("0f001f", None),  # ltr word ptr [rdi]
        ("0f07", None),  # sysret to 32-bit code
        ("0f28c1", None),  # movaps xmm0, xmm1
        ("0f1007", None),  # movups xmm0, [rdi]
    ],
)
def test_a_rule_follows_from_the_bytes(code: str, expected: object) -> None:
    assert rule(code) == expected


@pytest.mark.parametrize(
    ("code", "values", "is_refused"),
    [
        ("0f22c0", {"rax": 0x8000_0011}, False),
        ("0f22c0", {"rax": 0x8000_0010}, True),  # PE
        ("0f22c0", {"rax": 0x0000_0011}, True),  # PG
        ("0f22c0", {"rax": 0xA000_0011}, True),  # NW
        ("0f22c0", {"rax": 0xE000_0011}, False),  # NW and CD
        ("0f22c0", {"rax": 0x1_8000_0011}, True),
        ("0f22d8", {"rax": (1 << 40) - 1}, False),
        ("0f22d8", {"rax": 1 << 40}, True),
        ("0f22d8", {"rax": 1 << 63}, True),
        ("490f22dc", {"r12": 1 << 63}, True),
        ("0f22e0", {"rax": 0x6B0}, False),
        ("0f22e0", {"rax": 0x690}, True),  # PAE
        ("0f22e0", {"rax": 0x16B0}, True),  # LA57
        ("0f22e0", {"rax": 0x8006B0}, True),
        ("440f22c0", {"rax": 15}, False),
        ("440f22c0", {"rax": 16}, True),
        ("0f30", {"rcx": 0xC000_0080, "rax": 0xD01}, False),
        ("0f30", {"rcx": 0xC000_0080, "rax": 0xC01}, True),  # LME
        ("0f30", {"rcx": 0xC000_0080, "rax": 0xD03}, True),
        ("0f30", {"rcx": 0xFFFF_FFFF_C000_0100, "rdx": 0x8000_0000}, True),  # FS base
        ("0f30", {"rcx": 0xC000_0100, "rdx": 0x00FF_FFFF}, False),  # 57 bits, at 4 levels, too
        ("0f30", {"rcx": 0xC000_0081, "rdx": 0x8000_0000}, False),  # STAR holds no address
        ("0f00d8", {"rax": 0x1_0003}, True),
        ("0f00d8", {"rax": 0x40}, False),
        ("410f00d8", {"r8": 3, "rax": 0x40}, True),
        ("0f2807", {"rdi": 0x1008}, True),
        ("0f2807", {"rdi": 0x1010}, False),
        ("0f2807", {"rdi": (1 << 60) + 8}, False),  # another #GP, or #SS
        ("640f2807", {"rdi": 0x1010, "fs_base": 8}, True),
    ],
)
def test_values_are_refused(code: str, values: dict[str, int], is_refused: bool) -> None:
    assert refused(code, **values) is is_refused


@pytest.mark.parametrize(
    "change", [{"cr0": PAGING.cr0 | 1 << 3}, {"cr0": PAGING.cr0 | 1 << 2}, {"cr4": 0x20}]
)
def test_sse_that_is_not_to_be_used_is_refused_for_that(change: dict[str, int]) -> None:
    paging = Paging(**{"cr0": PAGING.cr0, "cr3": 0, "cr4": PAGING.cr4, "efer": 0} | change)

    assert not refused("0f2807", paging, rdi=0x1008)


@pytest.mark.parametrize("sce", [False, True])
def test_sysret_is_refused_by_where_it_goes_if_it_is_enabled(sce: bool) -> None:
    paging = Paging(PAGING.cr0, 0, PAGING.cr4, PAGING.efer | sce)

    assert refused("480f07", paging, rcx=1 << 60) is sce
    assert not refused("480f07", paging, rcx=0x1000)


@pytest.mark.parametrize(
    ("code", "values"),
    [("0f22d8", {"rax": 0x1000}), ("0f2807", {"rdi": 0x1010}), ("0f30", {"rcx": 0xC000_0081})],
)
def test_what_is_harmless_is_never_refused(code: str, values: dict[str, int]) -> None:
    harmless = rule(code).harmless
    general = registers(**values)[:17]

    assert harmless is not None
    assert harmless(general)
    assert not refused(code, **values)


def test_an_operand_in_a_segment_with_a_base_is_never_taken_for_harmless() -> None:
    assert rule("650f2807") == Values(rule("650f2807").refused, None, touches=True)


# -- independent of us


def test_the_bits_of_cr4_are_those_that_cpuid_offers() -> None:
    guest = Guest()
    leaves = {}
    for leaf in (1, 7):
        guest.run("cpuid", rax=leaf, rcx=0)
        leaves[leaf] = guest.cpu.registers._asdict()
    offered = {n for n, (leaf, name, bit) in FEATURE.items() if leaves[leaf][name] >> bit & 1}
    offered.add(8)  # PCE, with any performance monitoring

    accepted = {n for n in range(64) if not refused("0f22e0", rax=PAGING.cr4 | 1 << n)}

    assert accepted | {12} == offered  # LA57 is offered, and cannot be changed


@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks the host's own CPU")
def test_an_operand_must_be_aligned_where_the_hosts_cpu_wants_it() -> None:
    done = subprocess.run([sys.executable, HOST], capture_output=True, text=True, check=True)
    says = {code: bool(int(must)) for code, must in map(str.split, done.stdout.splitlines())}
    known = {code for code in says if "gf2p8" not in decode(bytes.fromhex(code)).mnemonic}

    ours = {code: isinstance(rule(code), Values) for code in known}

    assert len(known) > 250
    assert ours == {code: says[code] for code in known}
