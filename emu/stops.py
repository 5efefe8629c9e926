"""What it means that the engine has stopped: an end of the run, or how the run goes on.

Knows the engine's events, holds each #PF against the tables, and takes exceptions to the guest's
handler if there is an IDT. Refuses to know who runs the CPU, and counts no steps but those that
the engine does not see. SDM vocabulary.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from emu._unicorn import SYSCALL, SYSENTER
from emu._watch import BROKEN, NEW_CODE
from emu.descriptors import SystemSegment, TableRegister
from emu.fastcalls import syscall, sysenter
from emu.fault import (
    BP,
    DB,
    GP,
    HAS_ERROR_CODE,
    PF,
    SS,
    UD,
    EngineError,
    OutsideRam,
    PageFault,
    Returned,
    Shutdown,
    Stop,
)
from emu.instruction import Instruction
from emu.interrupts import Delivery, Exc, Known, State, deliver
from emu.paging import U64, VirtAddr
from emu.picture import Picture
from emu.predict import Context, Expected, context, page_border
from emu.refusals import Refusals
from emu.registers import Registers
from emu.sensitive import find, rule_of


class RunOn(NamedTuple):
    """Not the end of a run: go on from RIP, at first no further than `until`.

    `steps` are those that the engine has not counted.
    """

    until: VirtAddr | None = None
    steps: int = 0


RUN_ON: Final = RunOn()


class Stops:
    """Reads the stops of one engine, from the picture that was taken at the last one."""

    def __init__(self, picture: Picture, code: Iterable[tuple[int, int]]) -> None:
        self._picture: Final = picture
        self._engine: Final = picture.engine
        self._control: Final = picture.control
        self._predictor: Final = picture.predictor
        self._code: Final = tuple(code)
        self._delivered_to: Known = {}
        self._refusals: Final = Refusals(picture)
        self.on_delivery: Callable[[Delivery], None] | None = None
        self.cr2 = 0  # as a page fault left it, or a write from outside (deviation "early-fetch")
        self._engine.watch(find, self._refusals.passes)

    # -- the events

    def page_fault(self, left: int) -> Stop | RunOn:
        """Check the engine's page fault against the tables. `left` is the limit of the run."""
        engine, predictor = self._engine, self._predictor
        paging, cr2, code, software = self._control()
        if software:
            return self.event(PF)
        cpl = engine.cpl()
        engine.forget_exception()
        registers = engine.registers()
        if engine.hooked or engine.watched_flags:
            registers = self._mended(registers)
        rip = VirtAddr(registers.rip)

        who = context(paging, cpl, registers.rflags)
        stop = predictor.explain(who, registers, cr2, code)
        if stop is None:
            return self._early_fetch(who, rip, VirtAddr(cr2))
        if left and stop.access == "fetch" and engine.counted() == left:
            self._set_cr2(self.cr2)
            return RUN_ON  # the limit ends the run before this fetch
        self.cr2 = cr2
        if stop.kind == "outside-ram":  # a table; deviation "table-outside-ram"
            return OutsideRam(stop.pa, rip, stop.what, stop.walk)
        fault = stop.page_fault(registers, cpl, paging.cr3)
        return self._raise(fault, 1 if stop.access == "fetch" else 0)

    def event(
        self, event: int, returns_to: int | None = None, until: VirtAddr | None = None
    ) -> Stop | RunOn:
        """Raise an exception, or do what the engine was stopped for on our behalf.

        `returns_to` is the address of a `hlt`; `until` still holds where new code is found.
        """
        if event >= 0:
            return self._exception(event, returns_to)
        if event == NEW_CODE:
            self._engine.watch_new()
            return RunOn(until)
        if event == BROKEN:
            raise self._engine.broken()
        call = _FAST_CALL.get(event)
        stop = call(self._picture) if call else self._refusals.refusal()
        if stop is None:
            return RUN_ON
        if isinstance(stop, OutsideRam):
            return stop
        if isinstance(stop, PageFault):
            self._set_cr2(stop.address)
        return self._raise(stop)

    def _exception(self, vector: int, returns_to: int | None) -> Stop | RunOn:
        engine = self._engine
        engine.forget_exception()
        registers = engine.registers()
        _, _, code, software = self._control()
        if not software and vector != DB:
            registers = self._mended(registers)
        if vector == GP and registers.rip == returns_to and engine.cpl() == 3:
            return Returned(registers.rax)  # the hlt there is privileged
        if software:
            begin = self._int_before(vector, registers)
            return self._raise(self._picture.trap(vector, None, registers, begin))
        if vector == GP and code == 0 and self._by_stack(registers):
            vector = SS
        error_code = code if vector in HAS_ERROR_CODE else None
        return self._raise(self._picture.trap(vector, error_code, registers))

    def invalid_opcode(self) -> Stop | RunOn:
        """Raise #UD; or #DB for `int1`, and what `int 6` does (deviations "int-6", "icebp")."""
        engine, picture = self._engine, self._picture
        registers = engine.registers()
        rip = VirtAddr(registers.rip)
        if self._control()[3]:
            engine.write("rip", engine.next_rip())
            engine.save()
            return self._raise(picture.trap(UD, None, engine.registers(), rip))
        instruction = picture.instruction(registers, rip)
        if isinstance(instruction, Instruction) and instruction.mnemonic == "int1":
            engine.write("rip", rip + instruction.size & U64)
            engine.save()
            return self._raise(picture.trap(DB, None, engine.registers()))
        return self._raise(picture.trap(UD, None, registers))

    def outside_ram(self, left: int) -> OutsideRam | RunOn:
        """Find the access that led out of RAM; the engine does not say by which address."""
        engine = self._engine
        registers = self._mended(engine.registers())
        rip = VirtAddr(registers.rip)
        who = self._picture.who(registers)
        for stop in self._predictor.first_stops(who, registers):
            if stop.kind == "outside-ram" and stop.what == "leaf":
                if left and stop.access == "fetch" and engine.counted() == left:
                    return RUN_ON
                return OutsideRam(stop.pa, rip, stop.what, stop.walk)
        _, _, *system = engine.system()
        gdt, ldt = TableRegister(*system[6:8]), SystemSegment(*system[:3])
        found = self._predictor.descriptor_outside_ram(who, registers, gdt, ldt)
        if found is not None:
            return OutsideRam(found.pa, rip, found.what, found.walk)
        return self._early_fetch(who, rip, None)

    # -- what they come to

    def _raise(self, exc: Exc, steps: int = 0) -> Stop | RunOn:
        """End the run with an exception, or enter the guest's handler."""
        engine = self._engine
        if not engine.has_idt():
            return exc
        memory = self._picture.memory
        cs, ss, *system = engine.system()
        ldtr, tr = SystemSegment(*system[:3]), SystemSegment(*system[3:6])
        gdtr, idtr = TableRegister(*system[6:8]), TableRegister(*system[8:])
        registers = exc.registers
        assert registers is not None
        who = engine.cpl(), cs, ss, registers.rsp, registers.rflags
        state = State(self._control()[0], *who, idtr, gdtr, ldtr, tr)
        found = deliver(memory.read_u64, state, exc, self._delivered_to)
        if isinstance(found, Shutdown):
            faults = [
                raised.address for raised in found.exceptions if isinstance(raised, PageFault)
            ]
            if faults:
                self._set_cr2(faults[-1])
        if not isinstance(found, Delivery):
            return found
        words = memory.words
        for pa, word in found.stores.items():
            words[pa >> 3] = word
            for start, end in self._code:
                if start <= pa < end:
                    engine.invalidate_code()
        engine.enter(found.cpl, found.cs, found.ss, found.rip, found.rsp, found.rflags)
        if found.cr2 is not None:
            self._set_cr2(found.cr2)
        if self.on_delivery is not None:
            self.on_delivery(found)
        return RunOn(None, steps) if steps else RUN_ON

    def _set_cr2(self, address: int) -> None:
        self.cr2 = address
        self._engine.write("cr2", address)
        self._engine.save()

    def _mended(self, registers: Registers) -> Registers:
        """Return them with the flags that there were before the instruction, which has faulted,
        and set these, if it has called a hook (deviation "hooked-flags")."""
        engine = self._engine
        if engine.hooked:
            engine.mend_flags()
            return engine.registers()
        rflags = engine.watched_flags.pop(registers.rip, registers.rflags)
        if rflags == registers.rflags:
            return registers
        instruction = self._picture.instruction(registers, registers.rip)
        if isinstance(instruction, Expected) or rule_of(instruction) is None:
            return registers  # another one, that stands there now
        engine.write("rflags", rflags)
        engine.save()
        return engine.registers()

    def _int_before(self, vector: int, registers: Registers) -> VirtAddr:
        """Return where the `int3` or `int n` begins that RIP is behind."""
        begin = VirtAddr(registers.rip - 1 & U64)
        one = self._picture.instruction(registers, begin)
        is_int3 = vector == BP and isinstance(one, Instruction) and one.code == b"\xcc"
        return begin if is_int3 else VirtAddr(registers.rip - 2 & U64)

    def _by_stack(self, registers: Registers) -> bool:
        """Tell whether a stack access to no canonical address came first (deviation "stack-gp")."""
        stops = self._predictor.stops(self._picture.who(registers), registers)
        return bool(stops) and stops[0].kind == "non-canonical" and stops[0].stack

    def _early_fetch(self, who: Context, rip: VirtAddr, cr2: VirtAddr | None) -> RunOn:
        """Run on to the instruction whose fetch faults (deviation "early-fetch").

        Either the CPU comes to it, or something else stops it earlier: what the CPU meets.
        """
        border = page_border(rip)
        if cr2 in (border, None):
            until = self._predictor.straddler(who, rip)
            if until not in (rip, None):
                self._set_cr2(self.cr2)
                return RunOn(until)
        reported = "an access outside RAM" if cr2 is None else f"#PF at {cr2:#x}"
        if not self._engine.in_64_bit_code():
            raise EngineError(
                f"the CPU reports {reported} at rip {rip:#x} in compatibility mode, which is not "
                f"emulated: CS {self._engine.selectors()['cs']:#x} has L=0, expected 64-bit code"
            )
        raise EngineError(
            f"the CPU reports {reported}, error code {self._control()[2]:#x}, rip "
            f"{rip:#x}; the tables say "
            f"{self._predictor.stops(who, self._engine.registers()) or 'no fault'}"
        )


_FAST_CALL: Final = {SYSCALL: syscall, SYSENTER: sysenter}
