"""What invalidates what: each sentence of `emu.cpu`'s rule, held."""

from collections.abc import Callable

import pytest
from support.guest import CODE, CODE_PA, DATA, Guest

from emu import Cpu, PageFault, Paging, Returned
from emu.fault import PF_I, PF_P, PF_W
from emu.paging import RW, XD, P

LOAD = "mov rax, [rdi]"
STORE = "mov [rdi], rax"


# -- the TLB


@pytest.fixture
def stale(guest: Guest) -> Guest:
    """A guest that has read DATA, whose entry is then cleared behind the CPU's back."""
    guest.page(DATA)
    guest.run(LOAD, rdi=DATA)
    guest.set_entry(DATA, 1, 0)
    return guest


def test_a_translation_that_was_used_stays_when_its_entry_is_cleared(stale: Guest) -> None:
    assert stale.run(LOAD, rdi=DATA) == Returned()


@pytest.mark.parametrize(
    "invalidate",
    [
        pytest.param(Cpu.invalidate_tlb, id="invalidate_tlb"),
        pytest.param(lambda cpu: setattr(cpu, "cr3", cpu.cr3), id="cr3"),
        pytest.param(lambda cpu: cpu.write(cr3=cpu.cr3), id="write"),
        pytest.param(lambda cpu: setattr(cpu, "paging", cpu.paging), id="paging"),
    ],
)
def test_it_is_forgotten_when_python_says_so(
    stale: Guest, invalidate: Callable[[Cpu], None]
) -> None:
    routine = stale.put(LOAD)

    invalidate(stale.cpu)

    assert stale.call(routine, rdi=DATA) == PageFault(DATA, 0, rip=routine.rip)


@pytest.mark.parametrize("instruction", ["mov rbx, cr3; mov cr3, rbx", "invlpg [rdi]"])
def test_it_is_forgotten_when_the_guest_says_so(stale: Guest, instruction: str) -> None:
    routine = stale.put(f"{instruction}; load: mov rax, [rdi]")

    assert stale.call(routine, rdi=DATA) == PageFault(DATA, 0, rip=routine["load"])


def test_it_outlives_faults_and_other_runs(stale: Guest) -> None:
    stale.run(STORE, rdi=DATA + 0x5000)
    stale.run("nop")

    assert stale.run(LOAD, rdi=DATA) == Returned()


def test_making_an_entry_present_is_seen_at_once(guest: Guest) -> None:
    routine = guest.put(LOAD)
    guest.call(routine, rdi=DATA)

    guest.page(DATA)

    assert guest.call(routine, rdi=DATA) == Returned()


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_adding_the_right_to_write_is_seen_at_once(guest: Guest, level: int) -> None:
    guest.page(DATA)
    guest.change_entry(DATA, level, clear=RW)
    routine = guest.put(f"{LOAD}; store: {STORE}")
    refused = guest.call(routine, rdi=DATA)

    guest.change_entry(DATA, level, put=RW)

    assert refused == PageFault(DATA, PF_P | PF_W, rip=routine["store"])
    assert guest.call(routine, rdi=DATA) == Returned()


def test_adding_the_right_to_execute_is_seen_at_once(guest: Guest) -> None:
    pa = guest.page(DATA, flags=XD)
    guest.memory.write(pa, b"\xf4")
    refused = guest.cpu.run(DATA)

    guest.change_entry(DATA, 1, clear=XD)

    assert refused == PageFault(DATA, PF_P | PF_I, rip=DATA)
    assert guest.cpu.run(DATA, returns_to=DATA) == Returned()


def test_taking_a_right_away_is_not_seen_until_invalidated(guest: Guest) -> None:
    guest.page(DATA)
    routine = guest.put(STORE)
    guest.call(routine, rdi=DATA)

    guest.change_entry(DATA, 1, clear=RW)
    before = guest.call(routine, rdi=DATA)
    guest.cpu.invalidate_tlb()

    assert before == Returned()
    assert guest.call(routine, rdi=DATA) == PageFault(DATA, PF_P | PF_W, rip=routine.rip)


@pytest.mark.parametrize("feature", ["smep", "smap", "pke", "nxe"])
def test_setting_paging_takes_effect_at_once(guest: Guest, feature: str) -> None:
    changed = Paging.long_mode(guest.paging.root, **{feature: feature != "nxe"})

    guest.cpu.paging = changed

    assert guest.cpu.paging == changed


def test_clearing_nxe_makes_xd_a_reserved_bit_at_once(guest: Guest) -> None:
    guest.page(DATA, flags=XD)
    routine = guest.put(LOAD)
    guest.call(routine, rdi=DATA)

    guest.cpu.paging = Paging.long_mode(guest.paging.root, nxe=False)

    fault = guest.call(routine, rdi=DATA)
    assert fault == PageFault(DATA, 9, rip=routine.rip)
    assert fault.reason == "rsvd-xd"


# -- the code cache


def test_code_that_python_changes_stays_as_it_was_until_invalidated(guest: Guest) -> None:
    routine = guest.put("mov eax, 1")
    guest.call(routine)

    guest.put("mov eax, 2", at=routine.rip)
    before = guest.call(routine)
    guest.cpu.invalidate_code()

    assert before.value == 1
    assert guest.call(routine).value == 2


@pytest.mark.parametrize(
    "invalidate", [Cpu.invalidate_tlb, lambda cpu: setattr(cpu, "cr3", cpu.cr3)]
)
def test_the_tlb_is_not_the_code_cache(guest: Guest, invalidate: Callable[[Cpu], None]) -> None:
    routine = guest.put("mov eax, 1")
    guest.call(routine)
    guest.put("mov eax, 2", at=routine.rip)

    invalidate(guest.cpu)

    assert guest.call(routine).value == 1


def test_a_page_of_code_that_is_remapped_is_seen_when_the_tlb_is_invalidated(guest: Guest) -> None:
    old, new = guest.page(DATA), guest.frames.allocate()
    guest.memory.write(old, b"\xb8\x01\x00\x00\x00\xf4")
    guest.memory.write(new, b"\xb8\x02\x00\x00\x00\xf4")
    first = guest.cpu.run(DATA, returns_to=DATA + 5)

    guest.set_entry(DATA, 1, new | P)
    guest.cpu.invalidate_tlb()

    assert first.value == 1
    assert guest.cpu.run(DATA, returns_to=DATA + 5).value == 2


STORES = [
    "mov byte ptr [rdi + 1], 2",
    "mov al, 2; xchg [rdi + 1], al",
    "inc rdi; mov al, 2; stosb",
    "mov eax, 1; mov cl, 2; lock cmpxchg [rdi + 1], cl",
    "lock inc byte ptr [rdi + 1]",
    "mov rsp, rdi; add rsp, 9; mov rax, [rdi + 1]; inc al; push rax",
]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("times", [1, 3])
def test_a_guests_store_into_code_through_another_mapping_is_seen(
    guest: Guest, store: str, times: int
) -> None:
    target = guest.put("mov eax, 1")
    alias = DATA + (target.rip - CODE)
    guest.map(DATA, CODE_PA, RW, 2)
    patch = guest.put(store)
    restore = guest.put("mov byte ptr [rdi + 1], 1")

    values = [
        value
        for _ in range(times)
        for value in (
            guest.call(target).value,
            guest.call(patch, rdi=alias) and guest.call(target).value,
            guest.call(restore, rdi=alias) and guest.call(target).value,
        )
    ]

    assert values == [1, 2, 1] * times


def test_a_guests_store_into_code_through_the_same_mapping_is_seen(guest: Guest) -> None:
    guest.change_entry(CODE, 2, put=RW)
    routine = guest.put("mov byte ptr [rip + there + 1], 7; there: mov eax, 1")

    assert guest.call(routine).value == 7


def test_a_guests_store_into_code_is_seen_within_one_run(guest: Guest) -> None:
    guest.map(DATA, CODE_PA, RW, 2)
    target = guest.put("mov eax, 1; jmp rsi")
    patch = guest.put("jmp rbx; back: inc byte ptr [rdi + 1]; cmp eax, 3; jb again; jmp done\n"
                      "again: jmp rbx\ndone: nop")  # fmt: skip

    stop = guest.call(patch, rbx=target.rip, rsi=patch["back"], rdi=DATA + (target.rip - CODE))

    assert stop.value == 3


def test_another_cpus_caches_are_its_own() -> None:
    guest = Guest(cpus=2)
    first, second = guest.machine.cpus
    guest.page(DATA)
    routine = guest.put(LOAD)
    runs = [cpu.run(routine.rip, returns_to=routine.hlt, rdi=DATA) for cpu in (first, second)]
    guest.set_entry(DATA, 1, 0)

    first.invalidate_tlb()

    assert runs == [Returned(), Returned()]
    assert first.run(routine.rip, rdi=DATA) == PageFault(DATA, 0, rip=routine.rip)
    assert second.run(routine.rip, returns_to=routine.hlt, rdi=DATA) == Returned()
