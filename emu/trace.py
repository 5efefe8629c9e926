"""Recording what happened: instructions, accesses, CR3 switches and exceptions, in program order.

Knows how to look on while a CPU runs, and which of the engine's reports are to be believed.
Refuses to know who wants the events, and to steer: hooks record, nothing else. SDM vocabulary.

A hook costs what is needed to tell the story later: the instruction, and for one that touches
memory its registers. What an access's linear address was follows from these two, and is worked
out for the events that somebody asks for. Records of an instruction that did not complete are
taken back: the engine reports some of the accesses of an instruction that then faults.
"""

from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final

from emu._unicorn import is_store
from emu.cpu import Cpu
from emu.events import (
    Cr3Switch,
    Delivered,
    Event,
    Executed,
    Faulted,
    Operands,
    Record,
    accesses,
    first_instruction,
    is_access,
    kind_of,
    to_events,
)
from emu.fault import OutsideRam, PageFault, Returned, Shutdown, StepLimit, Stop, Trap
from emu.instruction import MAX_SIZE, decode
from emu.interrupts import Delivery, is_fault
from emu.paging import FRAME_SIZE, U64, PhysAddr, VirtAddr
from emu.walk import walk

_OFFSET: Final = FRAME_SIZE - 1
_CROSSES: Final = FRAME_SIZE - 8  # accesses are reported in parts of at most 8 bytes
_SLACK: Final = 128  # records that an instruction may make and that are then taken back
_ECX: Final = slice(8, 12)  # of packed registers


class Recorder:
    """Records everything that a CPU does while it is entered, over any number of runs.

        with Recorder(cpu, keep=200) as recorder:
            cpu.run(...)
        for event in recorder.events(): ...

    `keep` bounds the memory: only about so many events are kept, the last ones. One recorder at
    a time; changes to RAM that Python makes are seen from the next run on.
    """

    def __init__(self, cpu: Cpu, *, keep: int | None = None) -> None:
        if keep is not None and keep < 1:
            raise ValueError(f"keep={keep}: expected at least 1, or None for everything")
        self._cpu = cpu
        self._memory = cpu.memory
        self._keep = keep
        self._log: deque[Record] = deque(maxlen=None if keep is None else keep + _SLACK)
        self._count = [0]  # a list: the hooks count, too
        self._faults = 0
        self._cr3 = 0
        self._handles: list[int] = []
        self._paging = cpu.paging
        # What is known since `_forget`: instructions by address and kind, ...
        self._quiet: dict[int, Executed] = {}
        self._touching: dict[int, Executed] = {}
        self._repeating: dict[int, Executed] = {}
        self._frames: dict[int, PhysAddr] = {}  # ... by page, the frames they were read from, ...
        self._watched: set[int] = set()  # ... and the numbers of these and of the tables' frames
        self._also_told: Callable[[Delivery], None] | None = None
        self._last_repeat = (0, 0)  # its address, and the count behind it

    def __enter__(self) -> "Recorder":
        cpu = self._cpu
        if cpu.on_stop is not None:
            raise ValueError("the CPU is being recorded already")
        self._also_told = cpu.on_delivery
        cpu.on_stop, cpu.on_delivery = self._ended, self._delivered
        self._cr3 = cpu.cr3
        self._handles = [
            cpu.engine.hook_code(self._code_hook()),
            cpu.engine.hook_accesses(self._access_hook()),
        ]
        cpu.invalidate_code()  # what is translated already has no hooks
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cpu.on_stop, self._cpu.on_delivery = None, self._also_told
        while self._handles:
            self._cpu.engine.unhook(self._handles.pop())
        self._forget()

    @property
    def instructions(self) -> int:
        """How many instructions completed; an iteration of a rep is one."""
        return self._count[0]

    @property
    def steps(self) -> int:
        """How many steps that is: an exception instead of an instruction is one, too."""
        return self._count[0] + self._faults

    def events(self) -> list[Event]:
        """Return the events that are kept."""
        found = list(to_events(self._log))
        return found if self._keep is None else found[-self._keep :]

    def drain(self) -> Iterator[Event]:
        """Yield the events that are kept, and forget them. Not while the CPU runs."""
        records = list(self._log)
        self._log.clear()
        return to_events(records)

    # -- the hooks

    def _code_hook(self) -> Any:
        quiet, touching, repeating = self._quiet, self._touching, self._repeating
        count, arrive, repeat = self._count, self._arrive, self._repeat
        append, registers = self._log.append, self._cpu.engine.packed

        def on_code(_: Any, rip: int, size: int, __: Any) -> None:
            executed = quiet.get(rip)
            if executed is not None:
                append(executed)
            elif (executed := touching.get(rip)) is not None:
                append((executed, registers()))
            elif (executed := repeating.get(rip)) is not None:
                repeat(executed)
                return
            else:
                arrive(rip, size)
                return
            count[0] += 1

        return on_code

    def _access_hook(self) -> Any:
        append, watched = self._log.append, self._watched

        def on_access(_: Any, kind: int, pa: int, size: int, value: int, __: Any) -> None:
            if pa & _OFFSET > _CROSSES and (pa & _OFFSET) + size > FRAME_SIZE:
                self._crossing(kind, pa, size, value)
            else:
                append((kind, pa, size, value))
            if pa >> 12 in watched and is_store(kind):
                self._forget()

        return on_access

    def _arrive(self, rip: int, size: int) -> None:
        """Record an instruction that is new since `_forget`, and remember its kind."""
        if not self._frames:
            self._switched(self._cpu.cr3)
            self._paging = self._cpu.paging
        code = self._fetch(rip, min(size, MAX_SIZE))
        if size > MAX_SIZE or decode(code) is None:  # where the engine refuses, its size is none
            code = first_instruction(self._fetch(rip, MAX_SIZE), code)
        executed = Executed(VirtAddr(rip), code)
        match kind_of(executed.code):
            case "repeats":
                self._repeating[rip] = executed
                self._repeat(executed)
                return
            case "touches memory":
                self._touching[rip] = executed
                self._log.append((executed, self._cpu.engine.packed()))
            case "quiet":
                self._quiet[rip] = executed
                self._log.append(executed)
            case "writes cr3":
                self._log.append(executed)
                self._forget()  # so that the next one arrives here
        self._count[0] += 1

    def _repeat(self, executed: Executed) -> None:
        """Record an iteration, but not the engine's last look at a count that has come to 0."""
        packed = self._cpu.engine.packed()
        count = self._count[0]
        if (
            packed[_ECX] == b"\0\0\0\0"
            and self._last_repeat == (executed.rip, count)
            and not accesses(executed, packed)
        ):
            return
        self._log.append((executed, packed))
        self._count[0] = count + 1
        self._last_repeat = executed.rip, count + 1

    def _fetch(self, rip: int, size: int) -> bytes:
        """Read an instruction that the CPU has fetched; less of it where it cannot be found."""
        code = b""
        while len(code) < size:
            va = (rip + len(code)) & U64
            frame = self._frames.get(va >> 12)
            if frame is None:
                frame = self._frame(VirtAddr(va))
                if frame is None:
                    break
            offset = va & _OFFSET
            code += self._memory.peek(frame + offset, min(size - len(code), FRAME_SIZE - offset))
        return code

    def _frame(self, va: VirtAddr) -> PhysAddr | None:
        """Find the frame of a page of code, and watch it and the tables that lead to it."""
        found = walk(self._memory.read_u64, self._paging, va)
        if found.pa is None or not self._memory.holds(found.pa):
            return None
        frame = PhysAddr(found.pa & ~_OFFSET)
        self._frames[va >> 12] = frame
        self._watched.add(frame >> 12)
        self._watched.update(step.entry_pa >> 12 for step in found.steps)
        return frame

    def _switched(self, cr3: int) -> None:
        if cr3 != self._cr3:
            self._log.append(Cr3Switch(self._cr3, cr3))
            self._cr3 = cr3

    def _crossing(self, kind: int, pa: int, size: int, value: int) -> None:
        """Record an access that goes on in another frame: each page's part for itself."""
        first = FRAME_SIZE - (pa & _OFFSET)
        rest = self._next_frame(kind, pa, size)
        if rest is None:  # the store is about to fault
            self._log.append((kind, pa, size, value))
            return
        self._log.append((kind, pa, first, value))
        self._log.append((kind, rest, size - first, (value & U64) >> 8 * first))

    def _next_frame(self, kind: int, pa: int, size: int) -> PhysAddr | None:
        """Return where the linear page behind this part of the current instruction lies."""
        for record in reversed(self._log):
            if not is_access(record):
                break
        else:
            return None
        if type(record) is not tuple:
            return None
        va = Operands(*record).take(is_store(kind), pa, size)
        if va is None:
            return None
        return walk(self._memory.read_u64, self._paging, VirtAddr((va | _OFFSET) + 1 & U64)).pa

    def _forget(self) -> None:
        """Read every instruction anew."""
        for known in (self._quiet, self._touching, self._repeating, self._frames, self._watched):
            known.clear()

    # -- the end of a run

    def _ended(self, stop: Stop) -> None:
        """Take back what did not happen, and record how the run ended."""
        code = b""
        if isinstance(stop, Returned):
            self._take_back(None)  # the hlt is ours
        elif isinstance(stop, (PageFault, Trap, OutsideRam, Shutdown)) or (
            isinstance(stop, StepLimit) and stop.steps is None
        ):
            code = self._take_back(stop.rip)
        self._switched(self._cpu.cr3)
        if isinstance(stop, (PageFault, Trap, OutsideRam, Shutdown)):
            self._log.append(Faulted(stop, code))
        self._forget()

    def _delivered(self, delivery: Delivery) -> None:
        """Take back what did not happen, and record where the exception went."""
        exc = delivery.exceptions[0]
        code = b""
        if is_fault(exc):
            code = self._take_back(exc.rip)
            self._faults += 1
        self._switched(self._cpu.cr3)
        self._log.append(Delivered(delivery, code))
        self._forget()  # the frame may lie anywhere
        if self._also_told is not None:
            self._also_told(delivery)

    def _take_back(self, rip: int | None) -> bytes:
        """Forget the last instruction if it was the one at `rip`; return its bytes."""
        log = self._log
        for record in reversed(log):
            if not is_access(record):
                break
        else:
            return b""
        executed = record if type(record) is Executed else record[0]
        if not isinstance(executed, Executed) or rip not in (None, executed.rip):
            return b""
        while log.pop() is not record:
            pass
        self._count[0] -= 1
        return executed.code
