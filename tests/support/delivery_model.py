"""What an exception comes to in 64-bit mode, from the SDM: a model of its own, byte by byte.

Imports nothing that it judges; RAM is a dict of words, which it changes as the CPU would. Sources:
volume 2A, "INT n/INTO/INT3/INT1", "Operation" and "64-Bit Mode Exceptions"; volume 3A, "Interrupt
8 - Double Fault Exception (#DF)" and "Paging". What these leave open is chosen as follows: a frame
is pushed whole or not at all; a stack is canonical if its first word is; and a descriptor's
accessed flag is set by a write of its byte.
"""

P, RW, US, A, D, PS, XD = 1, 2, 4, 32, 64, 128, 1 << 63
DE, DB, NMI, DF, TS, NP, SS, GP, PF, MC, VE, CP = 0, 1, 2, 8, 10, 11, 12, 13, 14, 18, 20, 21
U64 = (1 << 64) - 1
ABOVE_MAXPHYADDR = (1 << 52) - (1 << 40)
BELOW_PAGE = {3: (1 << 30) - (1 << 13), 2: (1 << 21) - (1 << 13)}
CONTRIBUTORY = {DE, TS, NP, SS, GP, CP}
NOT_FAULTS = {DB, NMI, DF, MC}
TF, IF, NT, RF, VM, AC = (1 << bit for bit in (8, 9, 14, 16, 17, 18))


class Raised(Exception):
    """Another exception, on the way: vector, error code, and CR2 or None."""


class Outside(Exception):
    """There is no RAM at this physical address."""


class Model:
    """RAM, and the CPU that takes exceptions: `state` has the fields of the SDM's registers."""

    def __init__(self, ram, size, state):
        self.ram, self.size, self.state = ram, size, state
        self.cr2 = None

    def deliver(self, vector, code, rip, begin=None):
        """Return what was raised on the way, and what it ends in; `int` begins at `begin`."""
        chain = []
        while True:
            software = begin is not None
            try:
                return chain, self.enter(vector, code, rip, software)
            except Outside as outside:
                return chain, ("outside", *outside.args)
            except Raised as raised:
                second = raised.args
            chain.append(second)
            self.cr2 = second[2] if second[0] == PF else self.cr2
            if vector == DF and not software:
                return chain, ("shutdown",)
            if not software and merges(vector, second[0]):
                second = DF, 0, None
                chain.append(second)
            vector, code, _ = second
            rip, begin = begin if software else rip, None

    def enter(self, vector, code, rip, software):
        """Enter the handler: CPL, CS, SS, RIP, RSP, RFLAGS and CR2."""
        s, ext = self.state, not software
        name = vector * 8 + 2 + ext
        if vector * 16 + 15 > s.idt.limit:
            raise Raised(GP, name, None)
        gate = self.read(s.idt.base + vector * 16, 16, (GP, name, None))
        if gate >> 40 & 0x1F not in (0b01110, 0b01111):
            raise Raised(GP, name, None)
        if software and gate >> 45 & 3 < s.cpl:
            raise Raised(GP, name, None)
        if not gate >> 47 & 1:
            raise Raised(NP, name, None)

        selector = gate >> 16 & 0xFFFF
        if selector < 4:
            raise Raised(GP, ext, None)
        dpl, conforming = self.code_segment(selector, ext)
        cpl = s.cpl if conforming else dpl

        new_rsp = self.new_rsp(gate >> 32 & 7, cpl, ext) & -16
        if not self.canonical(new_rsp - 8 & U64):
            raise Raised(SS, ext, None)
        target = gate & 0xFFFF | gate >> 32 & 0xFFFF_0000 | gate >> 64 << 32 & U64
        if not self.canonical(target):
            raise Raised(GP, ext, None)

        is_fault = not software and vector not in NOT_FAULTS
        frame = [s.ss, s.rsp, s.rflags | RF * is_fault, s.cs, rip, code]
        rsp = self.push(new_rsp, [word for word in frame if word is not None], cpl, ext)
        cleared = TF | NT | RF | VM | IF * (gate >> 40 & 1 == 0)
        ss = cpl if cpl < s.cpl else s.ss
        cs = selector & 0xFFFC | cpl
        return cpl, cs, ss, target, rsp, s.rflags & ~cleared, self.cr2

    def code_segment(self, selector, ext):
        """Return DPL and C of the code segment, which has been accessed then."""
        s, name = self.state, selector & 0xFFFC | ext
        table = s.ldt if selector & 4 else s.gdt
        if (selector | 7) > table.limit:
            raise Raised(GP, name, None)
        at = table.base + (selector & 0xFFF8)
        segment = self.read(at, 8, (GP, name, None))
        dpl = segment >> 45 & 3
        is_64_bit_code = segment >> 43 & 3 == 3 and segment >> 53 & 3 == 1
        if not is_64_bit_code or dpl > s.cpl:
            raise Raised(GP, name, None)
        if not segment >> 47 & 1:
            raise Raised(NP, name, None)
        if not segment >> 40 & 1:
            access = {"write": True, "user": False, "implicit": True}
            pa = self.translate(at + 5 & U64, (GP, name, None), **access)
            self.ram[pa & -8] = self.ram.get(pa & -8, 0) | 1 << 8 * (pa & 7)
        return dpl, segment >> 42 & 1

    def new_rsp(self, ist, cpl, ext):
        """Return RSP of the IST, of the TSS, or as it is."""
        s = self.state
        if not ist and cpl == s.cpl:
            return s.rsp
        at, name = (ist * 8 + 28 if ist else cpl * 8 + 4), s.tr.selector & 0xFFFC | ext
        if at + 7 > s.tr.limit:
            raise Raised(TS, name, None)
        return self.read(s.tr.base + at, 8, (TS, name, None))

    def read(self, va, size, beyond):
        """Read a system structure, byte by byte."""
        value = 0
        for n in range(size):
            pa = self.translate(va + n & U64, beyond, write=False, user=False, implicit=True)
            value |= (self.ram.get(pa & -8, 0) >> 8 * (pa & 7) & 0xFF) << 8 * n
        return value

    def push(self, rsp, words, cpl, ext):
        """Push words, all or none, and return RSP."""
        pas = []
        for _ in words:
            rsp = rsp - 8 & U64
            access = {"write": True, "user": cpl == 3, "implicit": False}
            pas.append(self.translate(rsp, (SS, ext, None), **access))
        self.ram.update(zip(pas, words, strict=True))
        return rsp

    def canonical(self, va):
        """Tell whether bits 63 down to the sign are equal."""
        sign = 56 if self.state.paging.cr4 >> 12 & 1 else 47
        return va >> sign in (0, U64 >> sign)

    def translate(self, va, beyond, *, write, user, implicit):
        """Return where `va` lies; sets A and D."""
        paging = self.state.paging
        five_levels, nxe = paging.cr4 >> 12 & 1, paging.efer >> 11 & 1
        if not self.canonical(va):
            raise Raised(*beyond)
        code, allowed, table = 2 * write | 4 * user, RW | US, paging.cr3 & 0xF_FFFF_FFFF_F000
        for level in range(4 + five_levels, 0, -1):
            at = table + 8 * (va >> 3 + 9 * level & 511)
            if at >= self.size:
                raise Outside(table)
            entry = self.ram.get(at, 0)
            if not entry & P:
                raise Raised(PF, code, va)
            if entry & reserved(entry, level, nxe):
                raise Raised(PF, code | 9, va)
            allowed &= entry
            if level == 1 or entry & PS:
                break
            self.ram[at] = entry | A
            table = entry & 0xF_FFFF_FFFF_F000
        key = self.key_refuses(entry, allowed & US, write, user)
        if key or self.refuses(allowed, write, user, implicit):
            raise Raised(PF, code | 1 | 32 * key, va)
        below = (1 << 3 + 9 * level) - 1
        pa = entry & 0xF_FFFF_FFFF_F000 & ~below | va & below
        if pa >= self.size:
            raise Outside(pa)
        self.ram[at] = entry | A | D * write
        return pa

    def refuses(self, allowed, write, user, implicit):
        """Tell whether a right is missing, protection keys aside."""
        paging, ac = self.state.paging, bool(self.state.rflags & AC)
        if user:
            return not allowed & US or (write and not allowed & RW)
        if allowed & US and paging.cr4 >> 21 & 1 and (implicit or not ac):
            return True
        return write and not allowed & RW and paging.cr0 >> 16 & 1

    def key_refuses(self, leaf, user_page, write, user):
        """Tell whether the key of a user page refuses the access."""
        paging = self.state.paging
        if not user_page or not paging.cr4 >> 22 & 1:
            return False
        rights = paging.pkru >> 2 * (leaf >> 59 & 15)
        return bool(rights & 1 or (rights & 2 and write and (user or paging.cr0 >> 16 & 1)))


def merges(first, second):
    """Tell whether the second of two exceptions makes a double fault."""
    if first in (PF, VE):
        return second in CONTRIBUTORY or second in (PF, VE)
    return first in CONTRIBUTORY and second in CONTRIBUTORY


def reserved(entry, level, nxe):
    """Return the bits that must be 0."""
    bits = ABOVE_MAXPHYADDR | (0 if nxe else XD)
    if level > 3:
        return bits | PS
    return bits | (BELOW_PAGE.get(level, 0) if entry & PS else 0)
