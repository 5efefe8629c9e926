"""A guest that takes exceptions: system tables, stacks, and a user's pages beside the kernel's."""

from support.guest import CODE, CODE_PA, Guest

from emu.descriptors import Gate, SystemSegment, TableRegister
from emu.paging import RW, US, PhysAddr, VirtAddr
from emu.system import write_system_tables
from emu.virtual import read_virtual, write_virtual

TABLES = 0xFFFF_C000_0000_0000  # the IDT; in the page behind it GDT and TSS
STACK = 0xFFFF_C000_0010_0000  # the top of the kernel's; two pages below it are mapped
IST_STACK = 0xFFFF_C000_0020_0000
PER_CPU = 0xFFFF_C000_0030_0000
USER_STACK = 0x7FFF_0000_0000
NO_STACK = 0xFFFF_C000_0040_0000
_SIZE = 0x2000


class System(Guest):
    """A machine whose CPU delivers exceptions, from the first `handle` on."""

    def __init__(self, *, levels: int = 4, **features: bool | int) -> None:
        super().__init__(levels=levels, **features)
        for page in (TABLES, TABLES + 0x1000, PER_CPU):
            self.page(page)
        for top, flags in ((STACK, RW), (IST_STACK, RW), (USER_STACK, RW | US)):
            for page in range(top - _SIZE, top, 0x1000):
                self.page(page, flags)
        self.cpu.write(rsp=STACK)

    def handle(self, handlers: dict[int, int | Gate], *, rsp0: int = STACK) -> None:
        """Let these vectors lead to handlers, and no others."""
        where = self.memory, self.paging, TABLES
        tables = write_system_tables(*where, handlers, rsp0=rsp0, ist=[IST_STACK])
        self.cpu.gdt, self.cpu.idt, self.cpu.tr = tables

    @property
    def gdt(self) -> TableRegister:
        """GDTR, as `handle` loads it."""
        return self.cpu.gdt

    @property
    def tr(self) -> SystemSegment:
        """TR, as `handle` loads it."""
        return self.cpu.tr

    def poke(self, va: int, data: bytes) -> None:
        """Store bytes by linear address."""
        write_virtual(self.memory, self.cpu.paging, VirtAddr(va), data)

    def take(self, size: int) -> int:
        """Return an address in the window of code, with `size` free bytes."""
        start = self._next
        self._next = VirtAddr(start + size + 63 & -64)
        return start

    def poke_code(self, va: int, data: bytes) -> None:
        """Write code into the window, before it is executed."""
        self.memory.write(PhysAddr(CODE_PA + va - CODE), data)

    def words(self, va: int, number: int) -> list[int]:
        """Read words of 8 bytes by linear address, the lowest first."""
        data = read_virtual(self.memory, self.cpu.paging, VirtAddr(va), 8 * number)
        return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
