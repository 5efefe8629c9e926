"""The machine of a test: programs, pages, and runs that end in a Stop.

Knows how a program comes onto a machine, with a stack and somewhere to return to (`placing` says
where), and that a routine which does not return is stopped. Refuses to know Linux, and who looks
on (`watch`). SDM vocabulary.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from asm import UnknownSymbol
from emu import (
    Cpu,
    Frames,
    Machine,
    PageFault,
    Paging,
    PhysAddr,
    PhysMemory,
    Stop,
    Trap,
    VirtAddr,
    map_page,
    read_virtual,
    unmap_page,
    write_virtual,
)
from emu.paging import FRAME_SIZE, XD, page_size
from emu.walk import Walk, walk
from pagewalk import placing

if TYPE_CHECKING:
    from asm import Image, Program

RAM: Final = 64 << 20
"""Bytes of RAM, from physical 0 on."""
_CODE: Final = (RAM - (4 << 20), RAM)
"""Where code lies. Frames are handed out from below it downwards; the lower half never is."""
_RIGHTS: Final = frozenset("rwxu")

_link_from = lru_cache(maxsize=256)(placing.link_from)


@dataclass
class _Side:
    """What one privilege mode has so far; its stack is mapped when it is first needed."""

    bases: placing.Bases
    user: str
    next_text: int
    images: "dict[Program, Image]"
    is_mapped: bool = False


class GuestMachine:
    """One CPU with 64 MiB of RAM, and the programs that a test runs on it.

        program = assemble("store: mov [rdi], rax; ret")
        machine.map(0x1000)
        assert machine.run(program, "store", rdi=0x1000) == Returned()

    There is no kernel and no IDT: an exception ends the run, unless the program loads an IDT of
    its own. The lower 32 MiB of RAM are the test's, to be named by `pa`; free frames come from
    above them. `features` are those of `Paging.long_mode`: wp, nxe, smep, smap, pke. Free with
    close() or `with`; the fixture does.
    """

    def __init__(self, *, levels: int = 4, **features: bool) -> None:
        self.machine: Final[Machine] = Machine(
            ram=RAM,
            paging=Paging.long_mode(_CODE[0] - FRAME_SIZE, levels=levels, **features),
            code=[_CODE],
            frames=(RAM // 2, _CODE[0] - FRAME_SIZE),
        )
        self.cpu: Final[Cpu] = self.machine.cpu
        self.memory: Final[PhysMemory] = self.machine.memory
        self.memory.prefer_small_pages()  # few are touched, far from each other
        self.frames: Final[Frames] = self.machine.frames
        self.last_stop: Stop | None = None
        """How the last run ended."""
        self._levels: Final = levels
        self._nxe: Final = features.get("nxe", True)
        self._code: Final = Frames(self.memory, *_CODE)
        self._sides: Final = {
            False: _Side(placing.SUPERVISOR, "", placing.SUPERVISOR.text, {}),
            True: _Side(placing.USER, "u", placing.USER.text, {}),
        }

    # -- running

    def load(self, program: "Program", *, user: bool = False) -> "Image":
        """Put a program onto the machine, unless it is there; return it linked, with its symbols.

        The first one lies from 0xffffffff81000000 on, or with `user` from 0x400000; each section
        on pages of its own, with the rights of its flags. Raises as `asm.link`, and OutOfFrames.
        """
        side = self._sides[user]
        if program not in side.images:
            image = _link_from(program, side.next_text)
            for part in placing.sections(program, image, side.user):
                self._put(part)
                side.next_text = part.va + part.size + FRAME_SIZE
            side.images[program] = image
        return side.images[program]

    def run(
        self,
        program: "Program",
        symbol: str,
        *,
        user: bool = False,
        step_limit: int = placing.MAX_STEPS,
        **registers: int,
    ) -> Stop:
        """Call `symbol`, or "symbol+0x4", with registers by name, and say how it ended.

            stop = machine.run(program, "store", rdi=0x1000, rax=7)

        It runs at CPL 0, or 3 with `user`, on a stack of 16 KiB, and has returned when its `ret`
        comes back; registers that are not named are as the last run left them. After `step_limit`
        instructions (an iteration of a rep is one) the stop is a StepLimit. Faults and traps carry
        the name of their instruction as `symbol`. Raises UnknownSymbol, and ValueError for a
        register that is none.
        """
        side = self._sides[user]
        image = self.load(program, user=user)
        rip = image.parse(symbol)
        if not side.is_mapped:
            side.is_mapped = True
            for part in placing.surroundings(side.bases, side.user):
                self._put(part)
        cpu = self.cpu
        rsp = side.bases.stack + placing.STACK_SIZE - 8
        self.write(rsp, side.bases.returns_to.to_bytes(8, "little"))
        cpu.cpl = 3 if user else 0
        stop = cpu.run(
            rip,
            returns_to=side.bases.returns_to,
            step_limit=step_limit,
            **{"rsp": rsp, **registers},
        )
        self.last_stop = self._with_symbol(stop)
        return self.last_stop

    # -- pages

    def map(
        self, va: int, pa: int | None = None, rights: str = "rw", *, level: int = 1
    ) -> PhysAddr:
        """Map the page at `va`, to a free one of zeros unless `pa` says, and return where it lies.

        `rights` are letters: r, which every page has, w sets RW, x leaves XD clear, u sets US.
        `level` is 1 for a page of 4 KiB, 2 for 2 MiB, 3 for 1 GiB, which needs a `pa`. Raises
        ValueError for what is not aligned so, not canonical or mapped already, and OutOfFrames.
        """
        if not rights or not set(rights) <= _RIGHTS:
            raise ValueError(f"rights {rights!r}: expected r and any of w, x, u, such as 'rw'")
        if pa is None:
            pa = self.frames.allocate_block(page_size(level))
            self.memory.zero(PhysAddr(pa), page_size(level))
        flags = self._leaf_flags(rights)
        to = VirtAddr(va), PhysAddr(pa)
        map_page(self.memory, self.frames, self.paging, *to, flags, level=level)
        return PhysAddr(pa)

    def unmap(self, va: int) -> None:
        """Clear the entry that maps `va`, and have the CPU forget it; ValueError if none does."""
        unmap_page(self.memory, self.paging, VirtAddr(va))
        self.cpu.invalidate_tlb()

    # -- looking

    @property
    def paging(self) -> Paging:
        """The control registers as they are now."""
        return self.cpu.paging

    def walk(self, va: int) -> Walk:
        """Walk `va` under the tables as they are now."""
        return walk(self.memory.read_u64, self.paging, VirtAddr(va))

    def read(self, va: int, size: int) -> bytes:
        """Return `size` bytes at `va`, whatever its rights; NotMapped if there is no page."""
        return read_virtual(self.memory, self.paging, VirtAddr(va), size)

    def write(self, va: int, data: bytes) -> None:
        """Store bytes at `va`, whatever its rights; NotMapped if there is no page."""
        write_virtual(self.memory, self.paging, VirtAddr(va), data)

    def symbol(self, text: str) -> VirtAddr:
        """Return the address of "symbol", "symbol+0x9" or "symbol+0x9/0x6d" of a loaded program.

        Raises UnknownSymbol, and ValueError for a size that is not the symbol's.
        """
        unknown = UnknownSymbol(f"no symbol is called {text}: no program is loaded yet")
        for image in self._images():
            try:
                return VirtAddr(image.parse(text))
            except UnknownSymbol as error:
                unknown = error
        raise unknown

    def describe(self, address: int) -> str | None:
        """Name an address of a loaded program, as "store+0x3/0x8"; None if it is in none."""
        found = (placing.describe(image, address) for image in self._images())
        return next((name for name in found if name), None)

    # -- lifetime

    def close(self) -> None:
        """Free the machine."""
        self.machine.close()

    def __repr__(self) -> str:
        return f"<GuestMachine of {self._levels} levels>"

    def __enter__(self) -> "GuestMachine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _images(self) -> "list[Image]":
        """Return what is loaded, the last first."""
        return [image for side in self._sides.values() for image in reversed(side.images.values())]

    def _put(self, part: placing.Part) -> None:
        """Map whole pages, and fill them."""
        frames = self._code if "x" in part.rights else self.frames
        flags, paging = self._leaf_flags(part.rights), self.paging
        for offset in range(0, part.size, FRAME_SIZE):
            pa = frames.allocate()
            va = VirtAddr(part.va + offset)
            map_page(self.memory, self.frames, paging, va, pa, flags)
            self.memory.write(pa, part.data[offset : offset + FRAME_SIZE])

    def _leaf_flags(self, rights: str) -> int:
        """Return a leaf's flags; where XD is reserved, all pages are executable."""
        return placing.leaf_flags(rights) & (-1 if self._nxe else ~XD)

    def _with_symbol(self, stop: Stop) -> Stop:
        if isinstance(stop, PageFault):
            return stop._replace(symbol=self.describe(stop.rip))
        if isinstance(stop, Trap):
            return replace(stop, symbol=self.describe(stop.rip))
        return stop
