"""A CPU: registers, CR3, and run() -> Stop.

Knows how to enter the engine, and how far a run goes. Refuses to know what a stop of the engine
means (`stops`), and who calls and why. The engine is believed when it can be: on every #PF its CR2
and error code must equal what `predict` reads from the same tables, or the run ends in an
EngineError that names both. SDM vocabulary.

What invalidates what, the one rule for changes that Python makes to RAM:

* A translation that this CPU has used may stay in its TLB until CR3 is written (here or by the
  guest), `invalidate_tlb` is called, or the guest executes `invlpg`. So it is on hardware: making
  an entry present, or adding a right, is seen at once; taking one away is not. Setting `paging`
  invalidates the TLB.
* An instruction that this CPU has executed may stay in its code cache until `invalidate_code` is
  called. Stores by the guest are seen, through any mapping, in the frames that the machine was
  told hold code; Python's are not.

Exceptions end a run, until there is an IDT: from the moment that IDTR is loaded, here or by the
guest's `lidt`, each goes to the guest's own handler (`interrupts`).
"""

from collections.abc import Callable, Iterable
from time import sleep
from typing import Final

from emu._layout import NO_IDT
from emu._unicorn import INVALID_INSTRUCTION, NO_VECTOR, OK, OUTSIDE_RAM, Engine
from emu.descriptors import (
    KERNEL_CODE,
    KERNEL_DATA,
    USER_CODE,
    USER_DATA,
    SystemSegment,
    TableRegister,
)
from emu.fault import PF, EngineError, Halted, Returned, StepLimit, Stop
from emu.interrupts import Delivery
from emu.memory import PhysMemory
from emu.paging import CR0_PG, EFER_LMA, EFER_LME, MAXPHYADDR, U64, Paging, VirtAddr
from emu.picture import Picture
from emu.registers import Registers
from emu.stops import RUN_ON, RunOn, Stops

_ASK_AGAIN: Final = 10
_CR3_BITS: Final = (1 << MAXPHYADDR) - 1


class Cpu:
    """One CPU over shared RAM, in 64-bit mode with paging on from the start.

    `code` lists the physical ranges whose stores must be noticed as code (see the module).
    """

    def __init__(
        self, memory: PhysMemory, paging: Paging, *, code: Iterable[tuple[int, int]] = ()
    ) -> None:
        code = tuple(code)
        self._engine: Final = Engine(memory, code)
        self._picture: Final = Picture(self._engine, memory)
        self._stops: Final = Stops(self._picture, code)
        self._event: Final = self._engine.event
        self.on_stop: Callable[[Stop], None] | None = None  # for `trace`: told how each run ends
        self._stopping = False
        self._counted = False
        self._load(paging)
        self._engine.set_privilege(0, KERNEL_CODE, KERNEL_DATA)
        self._engine.write("rflags", 0x2)

    # -- state

    @property
    def paging(self) -> Paging:
        """The control registers as they are now; the guest may have written them."""
        self._engine.save()
        return self._picture.control()[0]

    @paging.setter
    def paging(self, paging: Paging) -> None:
        if paging.levels != self.paging.levels:
            raise ValueError(f"{paging.levels} levels: CR4.LA57 cannot change while paging is on")
        self._load(paging)

    @property
    def cr3(self) -> int:
        """CR3. Writing it invalidates the TLB."""
        return self._engine.read("cr3")

    @cr3.setter
    def cr3(self, value: int) -> None:
        self._engine.write("cr3", _checked_cr3(value))

    @property
    def cr2(self) -> int:
        """CR2: the address of the last page fault."""
        return self._engine.read("cr2")

    @property
    def registers(self) -> Registers:
        """The general registers, RIP, RFLAGS and segment bases as they are now."""
        self._engine.save()
        return self._engine.registers()

    @property
    def selectors(self) -> dict[str, int]:
        """The segment selectors: es, cs, ss, ds, fs, gs."""
        self._engine.save()
        return self._engine.selectors()

    @property
    def cpl(self) -> int:
        """The current privilege level."""
        self._engine.save()
        return self._engine.cpl()

    @cpl.setter
    def cpl(self, cpl: int) -> None:
        if cpl not in (0, 3):
            raise ValueError(f"CPL {cpl}: expected 0 or 3")
        segments = (USER_CODE, USER_DATA) if cpl else (KERNEL_CODE, KERNEL_DATA)
        self._engine.set_privilege(cpl, *segments)

    @property
    def idt(self) -> TableRegister | None:
        """IDTR; None until it is loaded, and meanwhile an exception ends the run."""
        _, base, limit = self._engine.read_system("idtr")
        return None if limit == NO_IDT else TableRegister(base, limit)

    @idt.setter
    def idt(self, idt: TableRegister | None) -> None:
        base, limit = (0, NO_IDT) if idt is None else _checked_table(idt)
        self._engine.write_system("idtr", 0, base, limit)

    @property
    def gdt(self) -> TableRegister:
        """GDTR."""
        return TableRegister(*self._engine.read_system("gdtr")[1:])

    @gdt.setter
    def gdt(self, gdt: TableRegister) -> None:
        self._engine.write_system("gdtr", 0, *_checked_table(gdt))

    @property
    def tr(self) -> SystemSegment:
        """TR: the TSS that holds the stacks. Setting it reads no descriptor, as `ltr` would."""
        return SystemSegment(*self._engine.read_system("tr"))

    @tr.setter
    def tr(self, tr: SystemSegment) -> None:
        selector, base, limit = tr
        if selector >> 16 or base >> 64 or limit >> 32:
            raise ValueError(f"{tr}: expected a 16-bit selector, a 64-bit base, a 32-bit limit")
        self._engine.write_system("tr", selector, base, limit)

    def read_msr(self, number: int) -> int:
        """Return a model-specific register."""
        return self._engine.read_msr(number)

    def write_msr(self, number: int, value: int) -> None:
        """Set a model-specific register, unchecked. EFER is part of `paging`."""
        self._engine.write_msr(number, value)

    def write(self, **registers: int) -> None:
        """Set registers by their SDM names, lower case; ValueError for a name that is none."""
        for name, value in registers.items():
            if not -1 << 63 <= value <= U64:
                raise ValueError(f"{name}={value:#x} does not fit into 64 bits")
        try:
            self._engine.write_all(registers)
        except KeyError as unknown:
            raise ValueError(f"{unknown.args[0]} is no register to be written so") from None
        if "cr2" in registers:
            self._stops.cr2 = registers["cr2"] & U64

    # -- running

    def run(
        self,
        rip: int,
        *,
        returns_to: int | None = None,
        step_limit: int | None = None,
        **registers: int,
    ) -> Stop:
        """Run from `rip` until something stops the guest, and say what.

        `returns_to` is the address of a `hlt`: arriving there is `Returned`. `step_limit` is
        exact (one iteration of a rep is one step), but a tight loop runs several times slower.
        Registers are set by name first.
        """
        engine, event = self._engine, self._event
        if rip >> 64:
            raise ValueError(f"rip {rip:#x} is not a 64-bit address")
        if registers:
            self.write(**registers)
        left = 0  # no limit
        if step_limit is not None or self._counted:
            left = self._count(step_limit)
        until: VirtAddr | None = None
        while not self._stopping:
            error = engine.start(rip, left)
            if until is not None:
                engine.set_exits([])
            vector = event[0]
            stop: Stop | RunOn  # what the run came to, or that it goes on
            if vector == PF:
                stop = self._stops.page_fault(left)
            elif vector != NO_VECTOR:
                stop = self._stops.event(vector, returns_to, until)
            elif error == OK:
                if left and engine.counted() > left:
                    return self._tell(StepLimit(VirtAddr(engine.rip()), step_limit))
                rax, rip = engine.rax_rip()
                if self._stopping:
                    break
                if rip == until:
                    stop = RUN_ON
                elif rip - 1 == returns_to:
                    stop = Returned(rax)
                else:
                    stop = Halted(VirtAddr(rip - 1))
            elif error == INVALID_INSTRUCTION:
                stop = self._stops.invalid_opcode()
            elif error in OUTSIDE_RAM:
                stop = self._stops.outside_ram(left)
            else:
                raise EngineError(f"unicorn error {error} at rip {engine.rip():#x}")
            if not isinstance(stop, RunOn):
                return stop if self.on_stop is None else self._tell(stop)
            rip, until = engine.rip(), stop.until
            if left:
                left -= engine.counted() + stop.steps
                if left == 0:
                    return self._tell(StepLimit(VirtAddr(rip), step_limit))
            if until is not None:
                engine.set_exits([until])
        self._stopping = False
        return self._tell(StepLimit(VirtAddr(rip), None))

    def stop(self) -> None:
        """End the current run, from any thread; without one, the next run ends at once."""
        self._stopping = True
        for _ in range(_ASK_AGAIN):  # an engine that is just being entered does not hear
            self._engine.stop()
            if not self._stopping:
                return
            sleep(0.001)

    def close(self) -> None:
        """Never run again. The machine's close() calls it, before the memory goes."""
        self._engine.close()

    def invalidate_tlb(self) -> None:
        """Forget every cached translation (see the module for when that is needed)."""
        self._engine.invalidate_tlb()

    def invalidate_code(self) -> None:
        """Forget every cached instruction (see the module for when that is needed)."""
        self._engine.invalidate_code()

    @property
    def memory(self) -> PhysMemory:
        """The RAM that it executes from."""
        return self._picture.memory

    @property
    def engine(self) -> Engine:
        """The engine, for `trace` and `probe`; nobody else has business with it."""
        return self._engine

    def stop_counting(self) -> None:
        """Have the next run begin without a limit, for `trace`, which counts anyway."""
        if self._counted:
            self._count(None)

    @property
    def on_delivery(self) -> Callable[[Delivery], None] | None:
        """For `trace`: told of each exception that a handler is entered for."""
        return self._stops.on_delivery

    @on_delivery.setter
    def on_delivery(self, tell: Callable[[Delivery], None] | None) -> None:
        self._stops.on_delivery = tell

    def _tell(self, stop: Stop) -> Stop:
        if self.on_stop is not None:
            self.on_stop(stop)
        return stop

    def _count(self, steps: int | None) -> int:
        """Have the engine count or not, and return after how many steps to stop (0: never)."""
        if steps is not None and not 1 <= steps <= U64:
            raise ValueError(f"step limit {steps}: expected at least 1")
        if self._engine.onlooker is not None:
            return steps or 0
        if steps is None:
            self._engine.stop_counting()
        elif not self._counted:
            self._engine.start_counting()
        self._counted = steps is not None
        return steps or 0

    # -- control registers

    def _load(self, paging: Paging) -> None:
        """Write CR4, EFER, CR3, CR0 in the order in which hardware lets paging be turned on."""
        if paging.maxphyaddr != MAXPHYADDR:
            raise ValueError(f"MAXPHYADDR {paging.maxphyaddr}: the engine has {MAXPHYADDR}")
        engine = self._engine
        cr3 = _checked_cr3(paging.cr3)
        engine.write("cr4", paging.cr4)
        engine.write_efer(paging.efer | EFER_LME | EFER_LMA)
        engine.write("cr3", cr3)
        engine.write("cr0", paging.cr0 | CR0_PG)
        engine.write_pkru(paging.pkru)
        engine.invalidate_tlb()


def _checked_cr3(value: int) -> int:
    """Return `value`; ValueError if a MOV to CR3 of it would be a #GP."""
    if value & ~_CR3_BITS:
        raise ValueError(f"cr3 {value:#x}: expected a physical address below {MAXPHYADDR} bits")
    return value


def _checked_table(table: TableRegister) -> TableRegister:
    """Return `table`; ValueError for what `lgdt` and `lidt` could not load."""
    if table.base >> 64 or table.limit >> 16:
        raise ValueError(f"{table}: expected a 64-bit base and a 16-bit limit")
    return table
