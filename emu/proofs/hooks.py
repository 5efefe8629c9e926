"""What hooks are told, which `trace` believes; and that the decoder says the same of accesses.

Knows hooks as `_unicorn` adds them. Refuses to know `trace`, and the records that it makes.
"""

from typing import Any, Final

from emu._unicorn import is_store, unpack_registers
from emu.instruction import decode
from emu.paging import VirtAddr
from emu.proofs.bare import CODE, COUNT, DATA, DATA_PA, LOAD, MOVABS, NOP, STORE
from emu.proofs.ours import Ours, told
from emu.proofs.proof import Proof, proof, seen

_MOVUPS: Final = b"\x0f\x11\x07"  # movups [rdi], xmm0
_MOVSQ: Final = b"\x48\xa5"
_REP_STOSB: Final = b"\xf3\xaa"
_INSTRUCTIONS: Final = (
    LOAD,
    STORE,
    _MOVUPS,
    _MOVSQ,
    b"\x48\x01\x07",  # add [rdi], rax
    b"\x50",  # push rax
    b"\x58",  # pop rax
    b"\xff\x37",  # push [rdi]
    b"\x0f\xb1\x0f",  # cmpxchg [rdi], ecx
    b"\x0f\x94\x07",  # setz [rdi]
    b"\xd9\x17",  # fst dword ptr [rdi]
    b"\xf6\x07\x01",  # test byte ptr [rdi], 1
)


class _Watched(Ours):
    """A machine whose hooks write down what they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.map(DATA, DATA_PA)
        self.log: list[str] = []
        self.rbx: list[int] = []
        self.accesses: list[tuple[bool, int]] = []
        self.cpu.engine.hook_code(self._on_code)
        self.cpu.engine.hook_accesses(self._on_access)

    def _on_code(self, _: Any, rip: int, size: int, __: Any) -> None:
        self.log.append(f"+{rip - CODE:x}")
        self.rbx.append(unpack_registers(self.cpu.engine.packed()).rbx)

    def _on_access(self, _: Any, kind: int, pa: int, size: int, value: int, __: Any) -> None:
        self.log.append(f"{'RW'[is_store(kind)]}{pa - DATA_PA:x}.{size}={value:x}")
        self.accesses.append((is_store(kind), size))


@proof("hook-order", "hooks tell each instruction, then its accesses: physical, with their values")
def hook_order() -> str:
    guest = _Watched()
    guest.memory.write_u64(DATA_PA, 0x41)
    guest.put(LOAD + b"\xff\xc0" + STORE)  # inc eax between them
    guest.run(rdi=DATA)
    wanted = ["+0", "R0.8=41", "+3", "+5", "W0.8=42", "+8"]
    return seen(guest.log == wanted, f"load, inc, store, hlt: {' '.join(guest.log)}")


@proof("hook-registers", "in an instruction's hook the saved context holds the registers before it")
def hook_registers() -> str:
    guest = _Watched()
    guest.put(COUNT * 3)
    guest.run(rbx=0)
    return seen(guest.rbx == [0, 1, 2, 3], f"inc ebx, three times, hlt: {guest.rbx}")


@proof("hook-parts", "an access is reported in parts of 8 bytes at most, one across pages as one")
def hook_parts() -> str:
    guest = _Watched()
    guest.map(DATA + 0x1000, DATA_PA + 0x5000)
    guest.run(guest.put(_MOVUPS), rdi=DATA + 8)
    guest.run(guest.put(LOAD, 0x40), rdi=DATA + 0xFFC)
    return seen(
        guest.accesses == [(True, 8), (True, 8), (False, 8)],
        f"16 bytes at 8, then 8 bytes at 0xffc: {' '.join(guest.log)}",
    )


@proof("hook-phantom", "an instruction that faults may have had some of its accesses reported")
def hook_phantom() -> str:
    guest = _Watched()
    guest.put(_MOVSQ)
    stop = guest.run(rsi=DATA, rdi=DATA + 0x2000)
    return seen(
        guest.log == ["+0", "R0.8=0"],
        f"movsq to a page that is not there: {' '.join(guest.log)}, {told(stop)}",
    )


@proof("hook-repeat", "a rep instruction's hook is called at each iteration, and once at the end")
def hook_repeat() -> str:
    guest = _Watched()
    guest.put(_REP_STOSB)
    guest.run(rdi=DATA, rcx=2, rax=7)
    return seen(
        guest.log == ["+0", "W0.1=7", "+0", "W1.1=7", "+0", "+2"],
        f"rep stosb, twice: {' '.join(guest.log)}",
    )


@proof("decoder", "capstone, corrected, names the accesses that the CPU makes")
def decoder() -> str:
    guest = _Watched()
    differing = []
    for number, code in enumerate(_INSTRUCTIONS):
        rip = guest.put(code, number * 16)
        guest.accesses.clear()
        guest.cpu.write(rdi=DATA, rsi=DATA + 0x100, rsp=DATA + 0x800, rip=rip)
        registers = guest.cpu.registers
        instruction = decode(code)
        guest.run(VirtAddr(rip))
        said = (0, 0)
        if instruction is not None:
            accesses = instruction.accesses(registers)
            said = (
                sum(a.size for a in accesses if a.reads),
                sum(a.size for a in accesses if a.writes),
            )
        made = (
            sum(size for store, size in guest.accesses if not store),
            sum(size for store, size in guest.accesses if store),
        )
        if said != made:
            name = instruction.text if instruction is not None else code.hex()
            differing.append(f"{name}: bytes read and written {said}, the CPU's {made}")
    return seen(
        not differing, "; ".join(differing) or f"{len(_INSTRUCTIONS)} instructions, no difference"
    )


@proof("decoder-cut", "capstone decodes no part of an instruction, and none of more than 15 bytes")
def decoder_cut() -> str:
    decoded = [n for n in range(1, len(MOVABS)) if decode(MOVABS[:n]) is not None]
    whole, longest, longer = (
        decode(code) is not None for code in (MOVABS, b"\x66" * 14 + NOP, b"\x66" * 15 + NOP)
    )
    return seen(
        not decoded and (whole, longest, longer) == (True, True, False),
        f"of 10 bytes: {'all' if whole else 'not all'}, the first {decoded or 'none'}; of 15: "
        f"{'yes' if longest else 'no'}, of 16: {'yes' if longer else 'no'}",
    )


PROOFS: Final[tuple[Proof, ...]] = (
    hook_order,
    hook_registers,
    hook_parts,
    hook_phantom,
    hook_repeat,
    decoder,
    decoder_cut,
)
