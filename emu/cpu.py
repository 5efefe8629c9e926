"""A CPU: registers, CR3, and run() -> Stop.

Knows how to enter the engine, what its events mean, and when to believe it: on every #PF the
engine's CR2 and error code must equal what `predict` reads from the same tables, or the run ends
in an EngineError that names both. Refuses to know who calls and why. SDM vocabulary.

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
from typing import Final, NamedTuple

from emu._unicorn import (
    INVALID_INSTRUCTION,
    MSR_FMASK,
    MSR_LSTAR,
    MSR_STAR,
    NO_IDT,
    NO_VECTOR,
    OK,
    OUTSIDE_RAM,
    SYSCALL,
    Engine,
)
from emu.descriptors import (
    KERNEL_CODE,
    KERNEL_DATA,
    USER_CODE,
    USER_DATA,
    SystemSegment,
    TableRegister,
)
from emu.fault import (
    GP,
    HAS_ERROR_CODE,
    PF,
    SS,
    UD,
    EngineError,
    Halted,
    OutsideRam,
    PageFault,
    Returned,
    StepLimit,
    Stop,
    Trap,
)
from emu.instruction import Instruction
from emu.interrupts import Delivery, Exc, Known, State, deliver
from emu.memory import PhysMemory
from emu.paging import (
    CR0_PG,
    EFER_LMA,
    EFER_LME,
    EFER_SCE,
    MAXPHYADDR,
    RFLAGS_RF,
    U64,
    Paging,
    VirtAddr,
)
from emu.predict import Context, Predictor, context, page_border
from emu.registers import Registers

_KNOWN_PAGINGS: Final = 256
_ASK_AGAIN: Final = 10
_CR3_BITS: Final = (1 << MAXPHYADDR) - 1


class _RunOn(NamedTuple):
    """Not the end of a run: go on from RIP, at first no further than `until`.

    `steps` are those that the engine has not counted.
    """

    until: VirtAddr | None = None
    steps: int = 0


_RUN_ON: Final = _RunOn()


class Cpu:
    """One CPU over shared RAM, in 64-bit mode with paging on from the start.

    `code` lists the physical ranges whose stores must be noticed as code (see the module).
    """

    def __init__(
        self, memory: PhysMemory, paging: Paging, *, code: Iterable[tuple[int, int]] = ()
    ) -> None:
        self._code: Final = tuple(code)
        self._engine: Final = Engine(memory, self._code)
        self._memory: Final = memory
        self._predictor: Final = Predictor(memory)
        self._event: Final = self._engine.event
        # For `trace`: told how each run ends, and of each exception that a handler is entered for.
        self.on_stop: Callable[[Stop], None] | None = None
        self.on_delivery: Callable[[Delivery], None] | None = None
        self._stopping = False
        self._counted = False
        self._known: dict[tuple[int, ...], Paging] = {}
        self._delivered_to: Known = {}
        self._load(paging)
        self._engine.set_privilege(0, KERNEL_CODE, KERNEL_DATA)
        self._engine.write("rflags", 0x2)

    # -- state

    @property
    def paging(self) -> Paging:
        """The control registers as they are now; the guest may have written them."""
        self._engine.save()
        return self._control()[0]

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
            stop: Stop | _RunOn  # what the run came to, or that it goes on
            if vector == PF:
                stop = self._page_fault(left)
            elif vector != NO_VECTOR:
                stop = self._trap(vector, returns_to)
            elif error == OK:
                if left and engine.counted() > left:
                    return self._tell(StepLimit(VirtAddr(engine.rip()), step_limit))
                rax, rip = engine.rax_rip()
                if self._stopping:
                    break
                if rip == until:
                    stop = _RUN_ON
                elif rip - 1 == returns_to:
                    stop = Returned(rax)
                else:
                    stop = Halted(VirtAddr(rip - 1))
            elif error == INVALID_INSTRUCTION:
                stop = self._raise(self._invalid_opcode())
            elif error in OUTSIDE_RAM:
                stop = self._outside_ram(left)
            else:
                raise EngineError(f"unicorn error {error} at rip {engine.rip():#x}")
            if not isinstance(stop, _RunOn):
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
        return self._memory

    @property
    def engine(self) -> Engine:
        """The engine, for `trace` and `probe`; nobody else has business with it."""
        return self._engine

    # -- what stopped it

    def _tell(self, stop: Stop) -> Stop:
        if self.on_stop is not None:
            self.on_stop(stop)
        return stop

    def _count(self, steps: int | None) -> int:
        """Have the engine count or not, and return after how many steps to stop (0: never)."""
        if steps is not None and not 1 <= steps <= U64:
            raise ValueError(f"step limit {steps}: expected at least 1")
        if steps is None:
            self._engine.stop_counting()
        elif not self._counted:
            self._engine.invalidate_code()  # deviation "warm-count"
        self._counted = steps is not None
        return steps or 0

    def _raise(self, exc: Exc, steps: int = 0) -> Stop | _RunOn:
        """End the run with an exception, or enter the guest's handler."""
        engine = self._engine
        if not engine.has_idt():
            return exc
        cs, ss, *system = engine.system()
        ldtr, tr = SystemSegment(*system[:3]), SystemSegment(*system[3:6])
        gdtr, idtr = TableRegister(*system[6:8]), TableRegister(*system[8:])
        registers = exc.registers
        assert registers is not None
        who = engine.cpl(), cs, ss, registers.rsp, registers.rflags
        state = State(self._control()[0], *who, idtr, gdtr, ldtr, tr)
        found = deliver(self._memory.read_u64, state, exc, self._delivered_to)
        if not isinstance(found, Delivery):
            return found
        words = self._memory.words
        for pa, word in found.stores.items():
            words[pa >> 3] = word
            for start, end in self._code:
                if start <= pa < end:
                    engine.invalidate_code()
        engine.enter(found.cpl, found.cs, found.ss, found.rip, found.rsp, found.rflags)
        if found.cr2 is not None:
            engine.write("cr2", found.cr2)
        if self.on_delivery is not None:
            self.on_delivery(found)
        return _RunOn(None, steps) if steps else _RUN_ON

    def _trap(self, vector: int, returns_to: int | None) -> Stop | _RunOn:
        if vector == SYSCALL:
            return self._syscall()
        engine = self._engine
        engine.forget_exception()
        registers = engine.registers()
        if vector == GP and registers.rip == returns_to and engine.cpl() == 3:
            return Returned(registers.rax)  # the hlt there is privileged
        _, _, code, software = self._control()
        if vector == GP and code == 0 and not software and self._by_stack(registers):
            vector = SS
        if software:
            return self._raise(self._as_trap(vector, None, registers, self._int_before(registers)))
        return self._raise(
            self._as_trap(vector, code if vector in HAS_ERROR_CODE else None, registers)
        )

    def _int_before(self, registers: Registers) -> VirtAddr:
        """Return where the `int3` or `int n` begins that RIP is behind."""
        who = context(self._control()[0], self._engine.cpl(), registers.rflags)
        begin = VirtAddr(registers.rip - 1 & U64)
        one = self._predictor.instruction(who, begin)
        is_int3 = isinstance(one, Instruction) and one.code == b"\xcc"
        return begin if is_int3 else VirtAddr(registers.rip - 2 & U64)

    def _as_trap(
        self,
        vector: int,
        error_code: int | None,
        registers: Registers,
        instruction: VirtAddr | None = None,
    ) -> Trap:
        paging, cr2, _, _ = self._control()
        return Trap(
            vector,
            error_code,
            VirtAddr(registers.rip),
            registers,
            cpl=self._engine.cpl(),
            cr3=paging.cr3,
            cr2=cr2,
            instruction=instruction,
        )

    def _by_stack(self, registers: Registers) -> bool:
        """Tell whether a stack access to no canonical address came first (deviation "stack-gp")."""
        who = context(self._control()[0], self._engine.cpl(), registers.rflags)
        stops = self._predictor.stops(who, registers)
        return bool(stops) and stops[0].kind == "non-canonical" and stops[0].stack

    def _invalid_opcode(self) -> Trap:
        """#UD, or `int 6`, which leaves RIP behind itself (deviation "int-6")."""
        engine = self._engine
        if not self._control()[3]:
            return self._as_trap(UD, None, engine.registers())
        begin = VirtAddr(engine.rip())
        engine.write("rip", engine.next_rip())
        engine.save()
        return self._as_trap(UD, None, engine.registers(), begin)

    def _syscall(self) -> Stop | _RunOn:
        """Enter the kernel as the SDM says; RIP is behind the syscall (deviation "syscall-nop")."""
        engine = self._engine
        registers = engine.registers()
        if not self._control()[0].efer & EFER_SCE:
            rip = registers.rip - 2 & U64
            engine.write("rip", rip)
            return self._raise(self._as_trap(UD, None, registers._replace(rip=rip)))
        cs = engine.read_msr(MSR_STAR) >> 32 & 0xFFFC
        rflags = registers.rflags & ~RFLAGS_RF
        cleared = engine.read_msr(MSR_FMASK)
        target = engine.read_msr(MSR_LSTAR)
        engine.enter(0, cs, cs + 8, target, registers.rsp, rflags & ~cleared | 2)
        self.write(rcx=registers.rip, r11=rflags)
        engine.save()
        return _RUN_ON

    def _page_fault(self, left: int) -> Stop | _RunOn:
        """Check the engine's page fault against the tables."""
        engine, predictor = self._engine, self._predictor
        paging, cr2, code, software = self._control()
        if software:
            return self._trap(PF, None)
        cpl = engine.cpl()
        engine.forget_exception()
        registers = engine.registers()
        rip = VirtAddr(registers.rip)

        who = context(paging, cpl, registers.rflags)
        stop = predictor.explain(who, registers, cr2, code)
        if stop is None:
            return self._early_fetch(who, rip, VirtAddr(cr2))
        if left and stop.access == "fetch" and engine.counted() == left:
            return _RUN_ON  # the limit ends the run before this fetch
        if stop.kind == "outside-ram":  # a table; deviation "table-outside-ram"
            return OutsideRam(stop.pa, rip, stop.what, stop.walk)
        fault = PageFault(
            stop.address, stop.error_code, rip, stop.walk, cpl, paging.cr3, stop.reason, registers
        )
        return self._raise(fault, steps=1 if stop.access == "fetch" else 0)

    def _outside_ram(self, left: int) -> OutsideRam | _RunOn:
        """Find the access that led out of RAM; the engine does not say by which address."""
        engine = self._engine
        registers = engine.registers()
        rip = VirtAddr(registers.rip)
        who = context(self._control()[0], engine.cpl(), registers.rflags)
        for stop in self._predictor.first_stops(who, registers):
            if stop.kind == "outside-ram" and stop.what == "leaf":
                if left and stop.access == "fetch" and engine.counted() == left:
                    return _RUN_ON
                return OutsideRam(stop.pa, rip, stop.what, stop.walk)
        return self._early_fetch(who, rip, None)

    def _early_fetch(self, who: Context, rip: VirtAddr, cr2: VirtAddr | None) -> _RunOn:
        """Run on to the instruction whose fetch faults (deviation "early-fetch").

        Either the CPU comes to it, or something else stops it earlier: what the CPU meets.
        """
        border = page_border(rip)
        if cr2 in (border, None):
            until = self._predictor.straddler(who, rip)
            if until not in (rip, None):
                return _RunOn(until)
        reported = "an access outside RAM" if cr2 is None else f"#PF at {cr2:#x}"
        raise EngineError(
            f"the CPU reports {reported}, error code {self._control()[2]:#x}, rip {rip:#x}; the "
            f"tables say {self._predictor.stops(who, self._engine.registers()) or 'no fault'}"
        )

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

    def _control(self) -> tuple[Paging, int, int, int]:
        """From the picture: the control registers, CR2, and the last exception's error code and
        whether software raised it (`int n`)."""
        cr0, _, cr2, cr3, cr4, efer, pkru, error_code, software = self._engine.control()
        key = (cr0, cr3, cr4, efer, pkru)
        paging = self._known.get(key)
        if paging is None:
            if len(self._known) >= _KNOWN_PAGINGS:
                self._known.clear()
            paging = self._known[key] = Paging(*key)
        return paging, cr2, error_code, software


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
