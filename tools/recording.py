"""Rows of `bench.py` about recording, and the hot loop that they record.

The loop works through 4 KiB of data over and over: eleven instructions, four of them access memory.
Its figures are of a whole run: the columns with every address in them are there at its end.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import unicorn
from measuring import Row
from unicorn import x86_const as x86

from asm import assemble, link
from emu import Machine, PhysAddr, Returned, VirtAddr, map_range
from emu.chunks import Chunk
from emu.paging import RW, XD
from emu.trace import Recorder

CODE, CODE_PA = VirtAddr(0xFFFF_FFFF_8100_0000), PhysAddr(0x100_0000)
DATA, DATA_PA = VirtAddr(0xFFFF_8880_0000_0000), PhysAddr(0x200_0000)
STACK = DATA + 0x8000
INSTRUCTIONS, ACCESSES = 11, 4
SOURCE = """
loop:
    mov rax, [rdi]
    add rax, rcx
    mov [rdi + 0x1000], rax
    push rax
    pop rbx
    xor rdx, rbx
    add rdi, 8
    and rdi, r8
    or rdi, r9
    dec rcx
    jnz loop
    hlt
"""
ROUNDS = 15
TURNS = 200_000  # of the loop in a round


class HotLoop:
    """A machine that runs the loop."""

    def __init__(self) -> None:
        image = link([assemble(SOURCE)], {".text": CODE})
        (segment,) = image.segments
        self.machine = Machine(ram=1 << 30, code=[(CODE_PA, CODE_PA + 0x1000)])
        self.end = VirtAddr(CODE + len(segment.data) - 1)
        where = self.machine.memory, self.machine.frames, self.machine.cpu.paging
        map_range(*where, CODE, CODE_PA, 0x1000, 0)
        map_range(*where, DATA, DATA_PA, 0x10000, RW | XD)
        self.machine.memory.write(CODE_PA, segment.data)

    def run(self, turns: int) -> float:
        """Go through the loop so many times; return how many seconds it took."""
        begin = perf_counter()
        stop = self.machine.cpu.run(CODE, returns_to=self.end, rcx=turns, **REGISTERS)
        took = perf_counter() - begin
        assert isinstance(stop, Returned)
        return took


OPTIONS = """
# pagewalk: --map 0x10000=0x200000+0x10000:rw --reg rdi=0x10000 --reg rsp=0x18000
# pagewalk: --reg rcx=100000 --reg r8=0x10fff --reg r9=0x10000
"""
REGISTERS = {"rdi": DATA, "rsp": STACK, "r8": DATA + 0xFFF, "r9": DATA}


def recorded_rate(
    *, registers: bool = False, native: bool | None = None, turns: int = TURNS
) -> float:
    """Record the loop; return millions of instructions a second."""
    loop = HotLoop()
    sizes: list[tuple[int, int]] = []

    def count(chunk: Chunk) -> None:
        assert chunk.accesses["has_va"].all()
        sizes.append((len(chunk.instructions), len(chunk.accesses)))

    with Recorder(loop.machine.cpu, sink=count, registers=registers, native=native):
        loop.run(1000)
        took = _best(lambda: loop.run(turns))
    nr_instructions, nr_accesses = map(sum, zip(*sizes, strict=True))
    assert nr_instructions == INSTRUCTIONS * (turns * ROUNDS + 1000)
    assert nr_accesses == ACCESSES * (turns * ROUNDS + 1000)
    return turns * INSTRUCTIONS / took / 1e6


def bytes_on_disk() -> float:
    """Have the loop traced into a file, as a user would; return its bytes an instruction."""
    with TemporaryDirectory() as directory:
        source, trace = Path(directory) / "loop.S", Path(directory) / "loop.jsonl.zst"
        source.write_text(OPTIONS + SOURCE.replace("hlt", "ret"))
        command = sys.executable, "-m", "pagewalk", "trace", str(source), "-o", str(trace), "--json"
        root = Path(__file__).parents[1]
        done = subprocess.run(command, check=True, capture_output=True, cwd=root)
        instructions: int = json.loads(done.stdout)["instructions"]
        assert instructions == INSTRUCTIONS * 100_000 + 1
        return trace.stat().st_size / instructions


def untraced_ratio() -> float:
    """Run the loop without a recorder, and on a Unicorn of its own; taken in turns."""
    loop = HotLoop()
    uc = _bare(loop)
    bare = _bare_runner(uc, loop)
    loop.run(1000)
    bare(1000)
    times = [(loop.run(10 * TURNS), bare(10 * TURNS)) for _ in range(3 * ROUNDS)]
    return min(ours for ours, _ in times) / min(theirs for _, theirs in times)


def times_as_fast_as_python_hooks() -> float:
    """Record the loop, and have a plain script do so that hooks Unicorn in Python, in turns."""
    loop = HotLoop()
    theirs = python_hooks(loop)
    with Recorder(loop.machine.cpu, sink=lambda chunk: None):
        loop.run(1000)
        times = [(theirs(), loop.run(TURNS) / TURNS) for _ in range(ROUNDS)]
    return min(time for time, _ in times) / min(time for _, time in times)


def python_hooks(loop: HotLoop) -> Callable[[], float]:
    """Return what runs the loop with Python hooks, and says how long a turn takes, in seconds.

    The script keeps less than a recorder: no linear address, and no value of a load, for which its
    binding has no hook.
    """
    uc = _bare(loop)
    run = _bare_runner(uc, loop)
    kept: list[tuple[int, ...]] = []
    keep = kept.append
    uc.hook_add(unicorn.UC_HOOK_CODE, lambda uc, rip, size, data: keep((rip, size)))
    uc.hook_add(
        unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE,
        lambda uc, kind, pa, size, value, data: keep((kind, pa, size, value)),
    )
    few = TURNS // 20
    run(10)

    def theirs() -> float:
        kept.clear()
        took = run(few)
        assert len(kept) == few * (INSTRUCTIONS + ACCESSES) + 1  # and the hlt
        return took / few

    return theirs


def rates() -> dict[str, float]:
    """Return millions of instructions a second, by who runs the loop."""
    loop = HotLoop()
    bare = _bare_runner(_bare(loop), loop)
    loop.run(1000)
    bare(1000)
    script = python_hooks(loop)
    millions = INSTRUCTIONS / 1e6
    return {
        "Unicorn, nothing recorded": millions * 10 * TURNS / _best(lambda: bare(10 * TURNS)),
        "pagewalk, nothing recorded": millions * 10 * TURNS / _best(lambda: loop.run(10 * TURNS)),
        "pagewalk, full trace": recorded_rate(),
        "pagewalk, full trace and 16 registers": recorded_rate(registers=True),
        "pagewalk, recorded by Python": recorded_rate(native=False, turns=TURNS // 20),
        "a Unicorn script with Python hooks": millions / _best(script),
    }


def _best(run: Callable[[], float]) -> float:
    return min(run() for _ in range(ROUNDS))


def _bare(loop: HotLoop) -> Any:
    """A Unicorn through its public binding, over the loop's RAM and tables."""
    memory, paging = loop.machine.memory, loop.machine.cpu.paging
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64, x86.UC_CPU_X86_ICELAKE_SERVER)
    uc.mem_map_ptr(0, memory.size, unicorn.UC_PROT_ALL, memory.host_address)
    uc.ctl_exits_enabled(True)
    uc.ctl_set_exits([])
    uc.reg_write(x86.UC_X86_REG_CR4, paging.cr4)
    uc.msr_write(0xC000_0080, paging.efer)
    uc.reg_write(x86.UC_X86_REG_CR3, paging.cr3)
    uc.reg_write(x86.UC_X86_REG_CR0, paging.cr0)
    return uc


def _bare_runner(uc: Any, loop: HotLoop) -> Callable[[int], float]:
    def run(turns: int) -> float:
        for name, value in {**REGISTERS, "rcx": turns}.items():
            uc.reg_write(getattr(x86, f"UC_X86_REG_{name.upper()}"), value)
        begin = perf_counter()
        uc.emu_start(CODE, 0)
        took = perf_counter() - begin
        assert uc.reg_read(x86.UC_X86_REG_RIP) == loop.end + 1
        return took

    return run


ROWS = (
    Row("full trace of a hot loop", 20, "M instructions/s", recorded_rate, at_least=True),
    Row(
        "the same, and 16 registers an instruction",
        8,
        "M instructions/s",
        lambda: recorded_rate(registers=True),
        at_least=True,
    ),
    Row("trace of the loop on disk, .jsonl.zst", 4, "bytes/instruction", bytes_on_disk),
    Row("hot loop untraced, times a bare Unicorn", 1.05, "x", untraced_ratio),
)
