"""A linked image: bytes at addresses, symbolised both ways.

Knows which symbol an address lies in, which address a text names, where calls are and how deep
the stack is. Refuses to know how it was linked, and memory: whoever loads the segments does.
"""

import difflib
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from asm.errors import UnknownSymbol
from asm.program import Kind
from asm.unwind import stack_depths

_SUM = re.compile(
    r"(?P<name>[A-Za-z_.$][\w.$]*)"
    r"(?:\+(?P<offset>0[xX][0-9a-fA-F]+|[0-9]+)(?:/(?P<size>0[xX][0-9a-fA-F]+|[0-9]+))?)?\Z"
)


class Segment(NamedTuple):
    """The bytes that one section brings to `base`."""

    name: str
    base: int
    data: bytes

    @property
    def end(self) -> int:
        """The first address behind the segment."""
        return self.base + len(self.data)

    def __repr__(self) -> str:
        return f"Segment({self.name!r}, {self.base:#x}, {len(self.data):#x} bytes)"


class Symbol(NamedTuple):
    """A name and its address; `section` is `*ABS*` for a number."""

    name: str
    section: str
    address: int
    size: int
    kind: Kind

    def __repr__(self) -> str:
        return (
            f"Symbol({self.name!r}, {self.section!r}, {self.address:#x}, {self.size:#x},"
            f" {self.kind!r})"
        )


class Location(NamedTuple):
    """An address as an offset into a function or object."""

    symbol: str
    offset: int
    size: int
    section: str

    def __str__(self) -> str:
        return f"{self.symbol}+{self.offset:#x}/{self.size:#x}"


class CallSite(NamedTuple):
    """A call instruction, and the address that it pushes."""

    address: int
    return_address: int

    def __repr__(self) -> str:
        return f"CallSite({self.address:#x}, {self.return_address:#x})"


@dataclass(frozen=True, eq=False)
class Image:
    """Programs linked at their bases; `link` makes it.

    `symbols` holds every name that stands for one address; `everything` also the local names
    that several programs use, in the order of preference for naming an address.
    """

    segments: tuple[Segment, ...]
    symbols: Mapping[str, Symbol]
    everything: Sequence[Symbol] = field(repr=False)
    calls: Mapping[CallSite, int | None] = field(repr=False)

    def address(self, name: str) -> int:
        """The address of the symbol `name`. Raises UnknownSymbol, naming the nearest match."""
        symbol = self.symbols.get(name)
        if symbol is not None:
            return symbol.address
        if any(symbol.name == name for symbol in self.everything):
            raise UnknownSymbol(f"{name} is a local symbol of more than one program")
        near = difflib.get_close_matches(name, self.symbols, n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise UnknownSymbol(f"no symbol is called {name}{hint}")

    def lookup(self, address: int) -> Location | None:
        """The function or object that contains `address`; the innermost, should they nest."""
        starts, symbols, longest = self._sized
        for index in range(bisect_right(starts, address) - 1, -1, -1):
            symbol = symbols[index]
            offset = address - symbol.address
            if offset < symbol.size:
                return Location(symbol.name, offset, symbol.size, symbol.section)
            if offset >= longest:
                break
        return None

    def describe(self, address: int) -> str | None:
        """Name `address`: `__init_single_page+0x9/0x6d`; None outside functions and objects."""
        location = self.lookup(address)
        return None if location is None else str(location)

    def parse(self, text: str) -> int:
        """The address that `text` names: `symbol`, `symbol+0x9`, `symbol+0x9/0x6d` or a number.

        Raises UnknownSymbol, and ValueError for other text, a size that is not the symbol's, and
        an offset beyond a size that was given.
        """
        text = text.strip()
        match = _SUM.match(text)
        if match is None:
            try:
                number = int(text, 0)
            except ValueError:
                number = -1
            if not 0 <= number < 1 << 64:
                raise ValueError(
                    f"`{text}` is no address: symbol, symbol+0x9, symbol+0x9/0x6d"
                    " or a number of 64 bits was expected"
                )
            return number
        address = self.address(match["name"])
        offset = int(match["offset"] or "0", 0)
        if match["size"]:
            size = self.symbols[match["name"]].size
            if int(match["size"], 0) != size:
                raise ValueError(
                    f"`{text}` gives a size of {match['size']}: {match['name']} has {size:#x} bytes"
                )
            if offset > size:
                raise ValueError(f"`{text}`: offset {offset:#x} is beyond the size {size:#x}")
        return address + offset

    def call_sites(self, caller: str, callee: str) -> tuple[CallSite, ...]:
        """Every direct call of `callee` inside `caller`, by address. Raises UnknownSymbol."""
        start = self.address(caller)
        end = start + self.symbols[caller].size
        target = self.address(callee)
        return tuple(
            site for site, to in self.calls.items() if to == target and start <= site.address < end
        )

    def stack_depth(self, address: int) -> int | None:
        """Bytes between rsp and the slot of the return address when `address` is executed next.

        0 at the entry of a function; None where it is not known, where no path of the function
        leads, and outside functions.
        """
        location = self.lookup(address)
        if location is None:
            return None
        start = address - location.offset
        if start not in self._depths:
            self._depths[start] = self._walk_function(start, location.size)
        return self._depths[start].get(address)

    def is_return_address(self, address: int) -> bool:
        """Whether the instruction that ends at `address` is a call."""
        return address in self._return_addresses

    def _walk_function(self, start: int, size: int) -> Mapping[int, int]:
        for segment in self.segments:
            if segment.base <= start < segment.end:
                at = start - segment.base
                return stack_depths(segment.data[at : at + size], start)
        return {}

    @cached_property
    def _sized(self) -> tuple[list[int], list[Symbol], int]:
        # The last of several symbols for one run of bytes is the one that lookup finds.
        sized = [s for s in reversed(self.everything) if s.size and s.kind != "notype"]
        sized.sort(key=lambda s: (s.address, -s.size))
        return [s.address for s in sized], sized, max((s.size for s in sized), default=0)

    @cached_property
    def _depths(self) -> dict[int, Mapping[int, int]]:
        return {}

    @cached_property
    def _return_addresses(self) -> frozenset[int]:
        return frozenset(site.return_address for site in self.calls)
