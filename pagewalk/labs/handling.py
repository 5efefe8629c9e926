"""A student's page-fault handler, entered by real page faults of code that touches one address.

Knows how to put `page_fault` of a `.S` file behind gate 14, and tells a handler that went on from
one that gave up, which is to come to the `hlt` at `bad_fault`. Refuses to know what it should have
done. And knows what such a file needs to be run by `pagewalk trace`: tables of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from string import Template
from typing import TYPE_CHECKING, Final, NamedTuple

from emu.paging import ENTRY_SIZE, FRAME_SIZE, PhysAddr
from pagewalk.labs.bench import HLT, LOAD, ROUTINES, STORE
from pagewalk.labs.board import DIRECT, Board
from pagewalk.labs.lab import Lost
from pagewalk.labs.running import STEPS, Routine
from pagewalk.labs.templates import course_text

if TYPE_CHECKING:
    from emu import Stop
    from emu.interrupts import Delivery, Exc
    from emu.walk import Walk

_CODE: Final = 0xFFFF_FFFF_7000_0000  # in a slot that every root is lent; for user mode, too
_CODE_PA: Final = 0x1000
_SYSTEM_PA: Final = 0x2000  # IDT; in the frame behind it GDT and TSS
_MOST_FAULTS: Final = 50  # of one access: each level of the tables may need one
_KEPT: Final = (*("rcx", "rdx", "rbx", "rbp", "rsi"), *(f"r{n}" for n in range(8, 16)))

_MAIN: Final = Template(course_text("files", "handling", "main.S"))
_STACK: Final = f"""\
#           on the stack: [rsp] the error code: P is bit 0, W bit 1, U bit 2; behind it, 8 bytes
#               each, RIP, CS, RFLAGS, RSP, SS. All of RAM is mapped from {DIRECT:#x} on."""
_SYSTEM: Final = course_text("files", "handling", "system.S")


class Touch(NamedTuple):
    """An access under a root: a store of `word`, or a load if that is None."""

    root: int
    va: int
    word: int | None = None

    def __str__(self) -> str:
        if self.word is None:
            return f"loads from {self.va:#x}"
        return f"stores {self.word:#x} to {self.va:#x}"


def told(touches: Iterable[Touch], names: Mapping[int, str]) -> str:
    """List accesses for people; `names` are the tasks, by their roots."""
    return "\n".join(f"{names[touch.root]} {touch}" for touch in touches)


def source(
    board: Board,
    touches: Iterable[Touch],
    handler: Template,
    names: Mapping[int, str],
    **variables: int,
) -> str:
    """Return a `.S` file that takes page faults: `main` makes the accesses, `handler` is behind it.

    It has the board's RAM in it, and a word for each of the variables.
    """
    main = _MAIN.substitute(
        touches="\n".join(_instructions(touches, names)),
        handler=handler.substitute(stack=_STACK),
    )
    words = "".join(f"{name}:\n        .quad   {value:#x}\n" for name, value in variables.items())
    return f"{board.source(main, names)}\n{_SYSTEM}{words}"


def _instructions(touches: Iterable[Touch], names: Mapping[int, str]) -> Iterator[str]:
    running = None
    for root, va, word in touches:
        if root != running:
            yield f"\n        mov     rax, {root:#x}"
            yield f"        mov     cr3, rax                # {names[root]} runs"
            running = root
        yield f"        mov     rdi, {va:#x}"
        if word is None:
            yield "        mov     rax, [rdi]"
        else:
            yield f"        mov     rax, {word:#x}"
            yield "        mov     [rdi], rax"


def chain(board: Board, nr: int) -> list[int]:
    """Make a list of free frames, and return them in its order.

    Each has the pa of the next one in its first word; 0 ends the list.
    """
    frames = [board.frame() for _ in range(nr)]
    board.words.update(zip(frames, [*frames[1:], 0], strict=True))
    return frames


class Handler(Routine):
    """The handler, and a CPU whose page faults lead to it."""

    def __init__(self, text: str, file: str, board: Board, roots: Iterable[int]) -> None:
        from emu.fault import PF
        from emu.system import write_system_tables

        super().__init__(text, file, "page_fault", maps=(f"{_CODE:#x}={_CODE_PA:#x}:rxu",))
        self._give_up: Final = self._address("bad_fault")
        self.nr_faults = 0
        """How often the handler was entered."""
        self._faults_left = _MOST_FAULTS
        self._last_fault: Exc | None = None
        self.put(board.words)
        for root in roots:
            self.lend_kernel_half(root)
        where = self.memory, self._paging
        self.memory.write(PhysAddr(_CODE_PA), ROUTINES)
        handlers = {PF: self._bare.entry}
        tables = write_system_tables(*where, DIRECT + _SYSTEM_PA, handlers, rsp0=self._rsp)
        self.cpu.gdt, self.cpu.idt, self.cpu.tr = tables
        self.cpu.on_delivery = self._count

    def set(self, **variables: int) -> None:
        """Store words where the file has these labels."""
        from emu import VirtAddr, write_virtual

        for name, value in variables.items():
            where = VirtAddr(self._address(name))
            write_virtual(self.memory, self._paging, where, value.to_bytes(8, "little"))

    def variable(self, name: str) -> int:
        """Return the word at this label of the file."""
        from emu import VirtAddr, read_virtual

        where = VirtAddr(self._address(name))
        return int.from_bytes(read_virtual(self.memory, self._paging, where, 8), "little")

    def walk(self, root: int, va: int) -> "Walk":
        """Return the entries that translate `va` from `root` as they are now."""
        from emu import VirtAddr
        from emu.walk import walk

        return walk(self.memory.read_u64, self._paging.with_root(root), VirtAddr(va))

    def pa(self, root: int, va: int) -> PhysAddr:
        """Return where `va` leads from `root` as things are now; Lost if that is nowhere in RAM.

        An access may have gone through all the same: by what the TLB has, or past the handler,
        which can change where it returns to.
        """
        pa = self.walk(root, va).pa
        if pa is None or self.memory.read_u64(PhysAddr(pa & -ENTRY_SIZE)) is None:
            raise Lost(f"{self._file}: in the end, the tables lead from {va:#x} to no page")
        return pa

    def word(self, pa: int) -> int:
        """Return the 8 bytes at `pa`."""
        return int(self.memory.words[pa >> 3])

    def touch(self, touch: Touch, *, cpl: int = 0) -> int:
        """Have the CPU make an access, and return RAX; Lost unless it goes through in the end."""
        if touch.word is None:
            return self.load(touch.root, touch.va, cpl=cpl)
        self.store(touch.root, touch.va, touch.word, cpl=cpl)
        return touch.word

    def load(self, root: int, va: int, *, cpl: int = 0) -> int:
        """Have the CPU load 8 bytes; Lost unless that goes through in the end."""
        return self._through(root, va, LOAD, 0, cpl)

    def store(self, root: int, va: int, word: int, *, cpl: int = 0) -> None:
        """Have the CPU store 8 bytes; Lost unless that goes through in the end."""
        self._through(root, va, STORE, word, cpl)

    def must_refuse(
        self, why: str, root: int, va: int, *, store: bool = False, cpl: int = 0
    ) -> None:
        """Have the CPU touch what the handler is not to repair; Lost if it does not give up."""
        from emu import Halted, Returned, VirtAddr

        stop = self._touch(root, va, STORE if store else LOAD, 0, cpl)
        if isinstance(stop, Returned):
            raise Lost(f"{self._file}: {va:#x} can be touched, though {why}")
        if stop != Halted(VirtAddr(self._give_up)):
            raise Lost(
                f"{self._file} does not come to the hlt at bad_fault, though {why}: "
                f"{self._ending(stop)}"
            )

    def _through(self, root: int, va: int, routine: int, word: int, cpl: int) -> int:
        from emu import Halted, Returned, VirtAddr

        stop = self._touch(root, va, routine, word, cpl)
        if stop == Halted(VirtAddr(self._give_up)):
            raise Lost(f"{self._file} gives up at bad_fault on {va:#x}, which it is to repair")
        if not isinstance(stop, Returned):
            raise Lost(f"{self._file} does not repair {va:#x}: {self._ending(stop)}")
        registers = self.cpu.registers
        for name, value in _marked(va).items():
            if getattr(registers, name) != value:
                raise Lost(f"{self._file} changes {name.upper()}, which was not its own")
        return stop.value

    def _touch(self, root: int, va: int, routine: int, word: int, cpl: int) -> "Stop":
        """Load CR3, and run a routine in that mode, with something in every register."""
        self.cpu.paging = self._paging.with_root(root)
        self.cpu.cpl = cpl
        self._faults_left = _MOST_FAULTS
        at = _CODE + routine
        return self.cpu.run(
            at, returns_to=at + HLT, step_limit=STEPS, rsp=self._rsp, rax=word, **_marked(va)
        )

    def _ending(self, stop: "Stop") -> str:
        from pagewalk.render_trace import with_symbol

        last = self._last_fault
        if self._faults_left > 0 or last is None:
            return with_symbol(stop, self._bare.symbol)
        if _CODE <= last.rip < _CODE + FRAME_SIZE:
            return "whenever it returns, the same instruction faults again"
        return f"it faults itself: {with_symbol(last, self._bare.symbol)}"

    def _address(self, name: str) -> int:
        try:
            return self._bare.image.address(name)
        except ValueError:
            raise Lost(f"{self._file} has no label {name} any more") from None

    def _count(self, delivery: "Delivery") -> None:
        self.nr_faults += 1
        self._last_fault = delivery.exceptions[-1]
        self._faults_left -= 1
        if self._faults_left == 0:
            self.cpu.stop()


def _marked(va: int) -> dict[str, int]:
    """Return what the registers hold: RDI the address, the others what they hardly have by chance.

    RAX is what is loaded or stored.
    """
    return {"rdi": va} | {name: 0x5EED << 48 | at << 24 for at, name in enumerate(_KEPT, 1)}
