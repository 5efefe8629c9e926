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
"""

from collections.abc import Iterable
from typing import Final

from emu import _unicorn
from emu._unicorn import Engine
from emu.fault import (
    PF_W,
    EngineError,
    Halted,
    NotMapped,
    OutsideRam,
    PageFault,
    Returned,
    StepLimit,
    Stop,
    Trap,
)
from emu.memory import PhysMemory
from emu.paging import CR0_PG, EFER_LMA, EFER_LME, EFER_SCE, Paging, VirtAddr
from emu.predict import Context, Expected, Predictor, context, page_border
from emu.registers import Registers
from emu.virtual import read_virtual

HLT: Final = b"\xf4"
_HAS_ERROR_CODE: Final = frozenset((8, 10, 11, 12, 13, 14, 17, 21))
_KNOWN_PAGINGS: Final = 256
_UD: Final = 6
_GP: Final = 13
_PF: Final = 14
# Linux's selectors; any non-null ones would do.
_KERNEL_CS, _KERNEL_SS = 0x10, 0x18
_USER_CS, _USER_SS = 0x33, 0x2B


class Cpu:
    """One CPU over shared RAM, in 64-bit mode with paging on from the start.

    `code` lists the physical ranges whose stores must be noticed as code (see the module).
    """

    def __init__(
        self, memory: PhysMemory, paging: Paging, *, code: Iterable[tuple[int, int]] = ()
    ) -> None:
        self._engine: Final = Engine(memory, code)
        self._memory: Final = memory
        self._predictor: Final = Predictor(memory)
        self._event: Final = self._engine.event
        self._stopping = False
        self._counted = False
        self._known: dict[tuple[int, ...], Paging] = {}
        self._load(paging)
        self._engine.set_privilege(0, _KERNEL_CS, _KERNEL_SS)
        self._engine.write("rflags", 0x2)

    # -- state

    @property
    def paging(self) -> Paging:
        """The control registers as they are now; the guest may have written them."""
        self._engine.save()
        return self._control()[0]

    @paging.setter
    def paging(self, paging: Paging) -> None:
        if paging.levels != self._paging.levels:
            raise ValueError(f"{paging.levels} levels: CR4.LA57 cannot change while paging is on")
        self._load(paging)

    @property
    def cr3(self) -> int:
        """CR3. Writing it invalidates the TLB."""
        return self._engine.read("cr3")

    @cr3.setter
    def cr3(self, value: int) -> None:
        self._engine.write("cr3", value)

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
        kernel = cpl == 0
        self._engine.set_privilege(
            cpl, _KERNEL_CS if kernel else _USER_CS, _KERNEL_SS if kernel else _USER_SS
        )

    def write(self, **registers: int) -> None:
        """Set registers by their SDM names, lower case; ValueError for a name that is none."""
        for name, value in registers.items():
            try:
                self._engine.write(name, value)
            except KeyError:
                raise ValueError(f"{name} is no register") from None

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
        if registers:
            self.write(**registers)
        if step_limit is not None or self._counted:
            engine.flush_code()  # deviation "warm-count"
            self._counted = step_limit is not None
        while not self._stopping:
            error = engine.start(rip, step_limit or 0)
            engine.save()
            vector = event[0]
            if vector == _PF:
                stop = self._page_fault()
            elif vector != _unicorn.NO_VECTOR:
                stop = self._trap(vector, returns_to)
            elif error == _unicorn.OK:
                return self._ended(returns_to, step_limit)
            elif error == _unicorn.INVALID_INSTRUCTION:
                return Trap(_UD, None, VirtAddr(engine.rip()), engine.registers())
            elif error in _unicorn.OUTSIDE_RAM:
                return self._outside_ram()
            else:
                raise EngineError(f"unicorn error {error} at rip {engine.rip():#x}")
            if stop is not None:
                return stop
            rip = engine.rip()
        return self._stopped(rip)

    def stop(self) -> None:
        """End the current run, from any thread; without one, the next run ends at once."""
        self._stopping = True
        self._engine.stop()

    def invalidate_tlb(self) -> None:
        """Forget every cached translation (see the module for when that is needed)."""
        self._engine.flush_tlb()

    def invalidate_code(self) -> None:
        """Forget every cached instruction (see the module for when that is needed)."""
        self._engine.flush_code()

    @property
    def engine(self) -> Engine:
        """The engine, for `trace`; everybody else has no business with it."""
        return self._engine

    # -- what stopped it

    def _ended(self, returns_to: int | None, step_limit: int | None) -> Stop:
        """A run that no exception ended: `hlt`, the step limit, or stop()."""
        rax, rip = self._engine.rax_rip()
        if self._stopping:
            return self._stopped(rip)
        at = rip - 1
        if at == returns_to:
            return Returned(rax)
        # Only a step limit can end a run behind something else than a hlt.
        if step_limit is None or self._byte(at) == HLT:
            return Halted(VirtAddr(at))
        return StepLimit(VirtAddr(rip), step_limit)

    def _stopped(self, rip: int) -> StepLimit:
        self._stopping = False
        return StepLimit(VirtAddr(rip), None)

    def _trap(self, vector: int, returns_to: int | None) -> Stop:
        if vector == _unicorn.SYSCALL:
            return self._syscall()
        engine = self._engine
        engine.forget_exception()
        registers = engine.registers()
        rip = VirtAddr(registers.rip)
        if vector == _GP and rip == returns_to and engine.cpl() == 3:
            return Returned(registers.rax)  # the hlt there is privileged
        code = self._control()[2] if vector in _HAS_ERROR_CODE else None
        return Trap(vector, code, rip, registers)

    def _syscall(self) -> Stop:
        """Without EFER.SCE a syscall is an invalid opcode (deviation "syscall-nop")."""
        engine = self._engine
        if self._control()[0].efer & EFER_SCE:
            raise EngineError(f"syscall before rip {engine.rip():#x} is not emulated")
        rip = engine.rip() - 2
        engine.write("rip", rip)
        return Trap(_UD, None, VirtAddr(rip), engine.registers()._replace(rip=rip))

    def _page_fault(self) -> Stop | None:
        """Check the engine's page fault against the tables; None to run on (early fetch)."""
        engine, predictor = self._engine, self._predictor
        paging, cr2, code = self._control()
        cpl = engine.cpl()
        engine.forget_exception()
        registers = engine.registers()
        rip = VirtAddr(registers.rip)

        who = context(paging, cpl, registers.rflags)
        for stop in self._expected(who, registers):
            if stop.address != cr2:
                continue
            if stop.kind == "outside-ram":  # deviation "table-outside-ram"
                return OutsideRam(stop.pa, rip, stop.what, stop.walk)
            # deviation "rmw-reports-read"
            if stop.error_code == code or (stop.rmw and stop.error_code == code | PF_W):
                return PageFault(
                    VirtAddr(cr2),
                    stop.error_code,
                    rip,
                    stop.walk,
                    cpl,
                    paging.cr3,
                    stop.reason,
                    registers,
                )
        border = page_border(rip)
        if cr2 == border:
            last = predictor.straddler(who, rip, border)
            if last is not None and last != rip:
                self._run_to(rip, last)
                return None
        raise EngineError(
            f"the CPU reports #PF at {cr2:#x} with error code {code:#x}, rip {rip:#x}; the "
            f"tables say {list(self._expected(who, registers)) or 'that nothing faults'}"
        )

    def _expected(self, who: Context, registers: Registers) -> Iterable[Expected]:
        """Say what stops the instruction at RIP, read from the tables alone."""
        fetched = self._predictor.instruction(who, VirtAddr(registers.rip))
        if isinstance(fetched, Expected):
            return (fetched,)
        return self._predictor.stops(who, fetched, registers)

    def _run_to(self, rip: VirtAddr, last: VirtAddr) -> None:
        """Run the instructions that the CPU runs before `last` (deviation "early-fetch").

        Leaves the CPU at `last`, or at what stopped it earlier: either way the next start meets
        the event that the CPU meets.
        """
        engine = self._engine
        engine.set_exits([last])
        engine.start(rip)
        engine.save()
        engine.forget_exception()
        engine.set_exits([])

    def _outside_ram(self) -> OutsideRam:
        engine = self._engine
        registers = engine.registers()
        paging = self._control()[0]
        who = context(paging, engine.cpl(), registers.rflags)
        for stop in self._expected(who, registers):
            if stop.kind == "outside-ram":
                return OutsideRam(stop.pa, VirtAddr(registers.rip), stop.what, stop.walk)
        raise EngineError(
            f"the CPU left RAM at rip {registers.rip:#x}; the tables say that nothing does"
        )

    def _byte(self, va: int) -> bytes:
        try:
            return read_virtual(self._memory, self._control()[0], VirtAddr(va), 1)
        except NotMapped:
            return b""

    # -- control registers

    def _load(self, paging: Paging) -> None:
        """Write CR4, EFER, CR3, CR0 in the order in which hardware lets paging be turned on."""
        engine = self._engine
        engine.write("cr4", paging.cr4)
        engine.write_efer(paging.efer | EFER_LME | EFER_LMA)
        engine.write("cr3", paging.cr3)
        engine.write("cr0", paging.cr0 | CR0_PG)
        engine.write_pkru(paging.pkru)
        engine.flush_tlb()
        self._paging = paging

    def _control(self) -> tuple[Paging, int, int]:
        """The control registers, CR2, and the last error code, from the picture."""
        cr0, _, cr2, cr3, cr4, efer, pkru, error_code = self._engine.control()
        key = (cr0, cr3, cr4, efer, pkru)
        paging = self._known.get(key)
        if paging is None:
            if len(self._known) >= _KNOWN_PAGINGS:
                self._known.clear()
            paging = self._known[key] = Paging(*key, self._paging.maxphyaddr)
        return paging, cr2, error_code
