"""Measure the budgets of the design: `python tools/bench.py [--json] [--only WORD] [--peers]`.

A row is data: what is measured, its budget, and a function that measures it. Ratios take subject
and baseline in turns, so that both meet the same machine, and the minimum of many rounds of each.
Figures on a busy machine are high; what fails there is to be measured again before it is believed.
"""

import argparse
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from random import Random
from tempfile import NamedTemporaryFile
from time import perf_counter, process_time

sys.path.insert(0, str(Path(__file__).parents[1]))

import in_bulk
import in_tests
import peers
import recording
import unicorn
from measuring import Row, best, ratio
from unicorn import x86_const as x86

from emu import (
    Access,
    Machine,
    PageFault,
    PhysAddr,
    Returned,
    StepLimit,
    Stop,
    VirtAddr,
    map_page,
    refusal,
)
from emu.fault import PF
from emu.paging import RW
from emu.system import write_system_tables
from emu.walk import walk

ROOT = Path(__file__).parents[1]
TIB = 1 << 40
CODE = VirtAddr(0xFFFF_FFFF_8100_0000)
CODE_PA = PhysAddr(0x100_0000)
DATA = VirtAddr(0xFFFF_8880_0000_0000)
ABSENT = VirtAddr(0xFFFF_E700_0000_0000)
STORE, HLT = b"\xc7\x47\x34\x01\x00\x00\x00\xf4", b"\xf4"  # mov dword ptr [rdi + 0x34], 1; hlt
HANDLER = b"\x48\x83\xc4\x08\x4c\x89\xe7\x48\xcf"  # add rsp, 8; mov rdi, r12; iretq
ENDLESS = b"\xeb\xfe"  # jmp to itself
RETURN = CODE + 0x100
SYSTEM = VirtAddr(0xFFFF_C000_0000_0000)


def wall(*command: str, status: int = 0, rounds: int = 9) -> float:
    """Return the shortest time that a whole `pagewalk` takes, in seconds."""

    def run() -> None:
        found = subprocess.run(
            [sys.executable, "-m", "pagewalk", *command], capture_output=True, cwd=ROOT
        )
        assert found.returncode == status, found.stderr

    return best(run, number=1, rounds=rounds)


def printed(code: str) -> float:
    """Return the number that `code` prints in a process of its own; the smallest of several."""
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, check=True, capture_output=True, cwd=ROOT) for _ in range(5)]
    return min(float(run.stdout) for run in runs)


# -- the machine


def machine(levels: int = 4, cpus: int = 1) -> Machine:
    """A machine of a tebibyte with a store that faults and a hlt to return to."""
    built = Machine(ram=TIB, levels=levels, cpus=cpus, code=[(CODE_PA, CODE_PA + (2 << 20))])
    where = built.memory, built.frames, built.cpu.paging
    map_page(*where, CODE, CODE_PA, 0, level=2)
    map_page(*where, DATA, PhysAddr(0x200_0000), RW)
    built.memory.write(CODE_PA, STORE)
    built.memory.write(PhysAddr(CODE_PA + RETURN - CODE), HLT)
    return built


def bare(built: Machine) -> unicorn.Uc:
    """A Unicorn through its public binding, over the same RAM and tables."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64, x86.UC_CPU_X86_ICELAKE_SERVER)
    uc.mem_map_ptr(0, TIB, unicorn.UC_PROT_ALL, built.memory.host_address)
    uc.ctl_exits_enabled(True)
    uc.ctl_set_exits([])
    uc.hook_add(unicorn.UC_HOOK_INTR, lambda uc, vector, data: uc.emu_stop())
    paging = built.cpu.paging
    uc.reg_write(x86.UC_X86_REG_CR4, paging.cr4)
    uc.msr_write(0xC000_0080, paging.efer)
    uc.reg_write(x86.UC_X86_REG_CR3, paging.cr3)
    uc.reg_write(x86.UC_X86_REG_CR0, paging.cr0)
    uc.reg_write(x86.UC_X86_REG_RDI, ABSENT)
    return uc


def fault_baseline(built: Machine) -> Callable[[], object]:
    """One fault through the public binding, reported and forgotten; asserts that it happened.

    Without a context from before the first fault, the engine swallows all after the second.
    """
    uc = bare(built)
    uc.ram = built.memory  # which must outlive it
    clean, seen = uc.context_save(), uc.context_save()

    def fault() -> None:
        uc.emu_start(CODE, 0)
        uc.context_update(seen)
        where = uc.reg_read(x86.UC_X86_REG_CR2), uc.reg_read(x86.UC_X86_REG_RIP)
        uc.context_restore(clean)
        assert where == (ABSENT + 0x34, CODE), "the baseline did not fault"

    assert uc.reg_read(x86.UC_X86_REG_CR2) == 0
    fault()
    assert uc.reg_read(x86.UC_X86_REG_CR2) == 0, "the next fault could not be told from this one"
    return fault


def fault_ratio() -> float:
    built = machine()
    run = built.cpu.run
    assert run(CODE, rdi=ABSENT) == PageFault(VirtAddr(ABSENT + 0x34), 2, rip=CODE)
    return ratio(lambda: run(CODE), fault_baseline(built))


def return_ratio() -> float:
    built = machine()
    run, uc = built.cpu.run, bare(built)
    assert run(RETURN, returns_to=RETURN) == Returned()
    return ratio(lambda: run(RETURN, returns_to=RETURN), lambda: uc.emu_start(RETURN, 0))


def delivered_ratio() -> float:
    """A page fault through the IDT, on the kernel's own stack; the handler mends RDI, and returns.

    The tables, the stack and the code lie in pages of their own, as in a kernel.
    """
    built = machine()
    memory, cpu = built.memory, built.cpu
    for page in range(4):
        map_page(
            memory,
            built.frames,
            cpu.paging,
            VirtAddr(SYSTEM + 0x1000 * page),
            built.frames.allocate(),
            RW,
        )
    handler = VirtAddr(CODE + 0x200)
    memory.write(PhysAddr(CODE_PA + 0x200), HANDLER)
    cpu.gdt, cpu.idt, cpu.tr = write_system_tables(memory, cpu.paging, SYSTEM, {PF: handler})
    run, hlt = cpu.run, CODE + len(STORE) - 1

    def delivered() -> Stop:
        return run(CODE, returns_to=hlt, rdi=ABSENT, r12=DATA, rsp=SYSTEM + 0x4000)

    assert delivered() == Returned()
    assert cpu.cr2 == ABSENT + 0x34, "nothing was delivered"
    return ratio(delivered, fault_baseline(machine()), number=100)


def turn() -> float:
    """Each turn is one step, and the other CPU's next."""
    built = machine(cpus=2)
    built.memory.write(CODE_PA, ENDLESS)
    for cpu in built.cpus:
        cpu.write(rip=CODE)
    turns = [(0, 1), (1, 1)] * 50
    assert built.interleave(turns) == [StepLimit(CODE, 1)] * 100
    return best(lambda: built.interleave(turns), number=5) / 100 * 1e6


def explained_walk(levels: int) -> float:
    built = machine(levels)
    read, paging, access = built.memory.read_u64, built.cpu.paging, Access("write", user=True)
    assert refusal(walk(read, paging, DATA), access, paging)
    return best(lambda: refusal(walk(read, paging, DATA), access, paging), rounds=400) * 1e6


def fresh_machine() -> float:
    return best(lambda: Machine(ram=TIB), number=5) * 1e3


def resident() -> float:
    return printed(
        "from emu import Machine; m = Machine(ram=1 << 40)\n"
        "status = dict(line.split(':') for line in open('/proc/self/status'))\n"
        "print(int(status['VmRSS'].split()[0]) / 1024)"
    )


def swept_case() -> float:
    """The CPU time of a case: done by the CPU and judged; the cases are from all over."""
    from pagewalk.sweep.families import families
    from pagewalk.sweep.judging import do_unit
    from pagewalk.sweep.tally import whole

    units = whole(families(levels)["access"] for levels in (4, 5))[::40]
    do_unit(units[0])  # the machines are made
    do_unit(units[-1])
    begin = process_time()
    for unit in units:
        assert do_unit(unit) == {}
    return (process_time() - begin) / sum(len(unit.numbers) for unit in units) * 1e6


# -- Linux on it


def kernel_run_ratio(*, faults: bool) -> float:
    """Each run switches to the other of two tasks, and runs a routine that writes to a page."""
    from kernel_model import Kernel

    kernel = Kernel(release="6.8", levels=4, vmemmap_base=ABSENT - (1 << 30))
    tasks = cycle([kernel.fork("even"), kernel.fork("odd")])
    page = ABSENT if faults else kernel.layout.pfn_to_page(0x100)

    def run() -> Stop:
        return kernel.run(next(tasks), "__init_single_page", rdi=page, rsi=0x100, rdx=0, rcx=0)

    rip = kernel.symbol("__init_single_page+0x9")
    expected = PageFault(VirtAddr(ABSENT + 0x34), 2, rip=rip) if faults else Returned()
    assert [run(), run()] == [expected, expected]
    return ratio(run, fault_baseline(machine()), number=100)


def fresh_kernel() -> float:
    from kernel_model import Kernel

    Kernel(release="6.8", levels=4)
    return best(lambda: Kernel(release="6.8", levels=4), number=2, rounds=15) * 1e3


def first_image() -> float:
    """What the first kernel of a process costs beyond the second: its image, in the main."""
    return printed(
        "from time import perf_counter as now\n"
        "from kernel_model import Kernel; import emu.machine\n"
        "times = [now(), Kernel(), now(), Kernel(), now()]\n"
        "print(1e3 * ((times[2] - times[0]) - (times[4] - times[2])))"
    )


def scenario() -> float:
    from kernel_model.scenarios import run_scenario

    assert run_scenario("vmemmap-devdax")
    return best(lambda: run_scenario("vmemmap-devdax"), number=1, rounds=15) * 1e3


def access_file() -> float:
    """Every case has controls of its own, and tables anywhere in a terabyte."""
    rng = Random(1)
    number = 30_000
    lines = ["va,e4,e3,e2,e1,kind,user,wp,smep,smap,nxe,ac,pke,pkru"]
    for _ in range(number):
        entries = [rng.randrange(1 << 28) << 12 | rng.choice((7, 7, 7, 5, 3, 0)) for _ in range(4)]
        switches = [rng.randrange(2) for _ in range(7)]
        numbers = f"{rng.randrange(1 << 47):x},{','.join(map(hex, entries))}"
        flags = f"{rng.choice(('read', 'write', 'fetch'))},{','.join(map(str, switches))}"
        lines.append(f"{numbers},{flags},{rng.randrange(1 << 32):x}")
    with NamedTemporaryFile("w", suffix=".csv") as file:
        file.write("\n".join(lines))
        file.flush()
        return wall("access", "--file", file.name, rounds=3) / number * 1e6


def fork() -> float:
    from kernel_model import Kernel

    kernel = Kernel(release="6.8", levels=4)
    return best(lambda: kernel.fork("child"), number=100, rounds=30) * 1e6


def sync() -> float:
    """Fill one top-level slot of 10,000 tables; another slot each time, since it is filled once."""
    from kernel_model import Kernel
    from kernel_model.sync import sync_global_pgds

    kernel = Kernel(release="6.8", levels=4)
    tasks = [kernel.fork("child") for _ in range(10_000)]
    slot = 1 << 39
    vmemmap = kernel.layout.pfn_to_page(0) & -slot
    times = []
    for n in range(1, 9):
        addr = vmemmap + n * slot
        at = addr >> 39 & 511
        entry_pa = PhysAddr(kernel.init_mm.pgd + 8 * at)
        assert kernel.memory.read_u64(entry_pa) == 0, f"slot {at} is in use"
        kernel.memory.write_u64(entry_pa, kernel.frames.allocate() | 3)
        begin = perf_counter()
        stop = kernel.run(kernel.init_task, sync_global_pgds, addr, addr)
        times.append(perf_counter() - begin)
        assert stop == Returned()
        filled = {kernel.memory.read_u64(PhysAddr(task.mm.pgd + 8 * at)) for task in tasks}
        assert filled == {kernel.memory.read_u64(entry_pa)}
    return min(times) * 1e3


def per_task() -> float:
    """What a task costs beyond the frame of its table: of Python's own memory, in bytes."""
    from kernel_model import Kernel

    kernel = Kernel(release="5.6", levels=4)
    free = kernel.frames.nr_free
    tracemalloc.start()
    for _ in range(10_000):
        kernel.fork("child")
    bookkeeping, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert free - kernel.frames.nr_free == 10_000
    return bookkeeping / 10_000


def lazy_fault() -> float:
    """A read that faults, is repaired by the guest's handler, and read again; slot by slot."""
    from kernel_model import Kernel
    from kernel_model.vmalloc import vmalloc
    from kernel_model.vmap_areas import fill_first_slot

    kernel = Kernel(release="5.6", levels=4)
    tasks = [kernel.fork("child") for _ in range(200)]
    for task in tasks:
        kernel.run(task, "read_byte", rdi=kernel.layout.va(0))
    fill_first_slot(kernel)
    page = vmalloc(kernel, 4096)
    times = []
    for task in tasks:
        kernel.run(task, "read_byte", rdi=kernel.layout.va(0))
        begin = perf_counter()
        stop = kernel.run(task, "read_byte", rdi=page)
        times.append(perf_counter() - begin)
        assert stop == Returned()
    assert kernel.handled_faults == len(tasks)
    return min(times) * 1e6


ROWS: tuple[Row, ...] = (
    Row("Cpu.run that faults / the baseline", 1.5, "x", fault_ratio),
    Row("Cpu.run that returns / a bare emu_start", 2, "x", return_ratio),
    Row("a fault delivered and returned from / the baseline", 10, "x", delivered_ratio),
    Row("an explained walk, 4 levels", 5, "us", lambda: explained_walk(4)),
    Row("an explained walk, 5 levels", 5, "us", lambda: explained_walk(5)),
    *in_bulk.ROWS,
    *recording.ROWS,
    Row("a turn of two CPUs", 100, "us", turn),
    Row("a fresh Machine of 1 TiB", 1, "ms", fresh_machine),
    Row("resident, 1 TiB untouched", 64, "MiB", resident),
    Row("Kernel.run that faults / the baseline", 4, "x", lambda: kernel_run_ratio(faults=True)),
    Row("Kernel.run that returns / the baseline", 4, "x", lambda: kernel_run_ratio(faults=False)),
    Row("a fresh Kernel, image cached", 20, "ms", fresh_kernel),
    Row("the first image in a process", 60, "ms", first_image),
    Row("vmemmap-devdax in process", 20, "ms", scenario),
    Row("sync of one slot into 10,000 tables", 5, "ms", sync),
    Row("a fork", 50, "us", fork),
    Row("a task's bookkeeping, beside its page", 1024, "B", per_task),
    Row("a lazy fault, repaired by the guest", 200, "us", lazy_fault),
    *in_tests.ROWS,
    Row("pagewalk matrix, all cores", 30, "s", lambda: wall("matrix", rounds=1)),
    Row("pagewalk sweep, a case of access.c", 125, "us", swept_case),
    Row("a case of pagewalk access --file", 100, "us", access_file),
    Row("pagewalk run vmemmap-devdax", 0.5, "s", lambda: wall("run", "vmemmap-devdax", status=1)),
    Row("pagewalk --help", 150, "ms", lambda: wall("--help") * 1e3),
)


# -- telling


def main() -> int:
    """Print the table; 1 if a budget is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.add_argument("--only", metavar="WORD", default="", help="rows whose text has WORD")
    parser.add_argument(
        "--peers", action="store_true", help="measure other projects, too; installed for the time"
    )
    options = parser.parse_args()

    results = []
    for row in (*ROWS, *(peers.ROWS if options.peers else ())):
        if options.only not in row.what:
            continue
        measured = row.measure()
        ok = measured >= row.budget if row.at_least else measured <= row.budget
        figure = {"measured": round(measured, 3), "budget": row.budget, "unit": row.unit}
        results.append({"what": row.what, **figure, "ok": ok})
        if not options.json:
            figures = f"{measured:10.2f} {row.unit:4}{row.budget:8g} {row.unit:4}"
            print(f"{row.what:52}{figures} {'ok' if ok else 'OVER'}", flush=True)
    if options.json:
        print(json.dumps({"schema": 1, "rows": results}, indent=1))
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
