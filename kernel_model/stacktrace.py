"""Reading a dead task's stack: which words are return addresses, and which only look like one.

Knows both ways to find the return addresses: along the chain of frame pointers, and by the depth
of the stack at each instruction. Refuses to know wording (`oops`). Linux vocabulary; source:
arch/x86/kernel/dumpstack.c, print_context_stack() (v4.4), show_trace_log_lvl() (v6.8).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from asm import Image
from kernel_model.builds import module_of
from kernel_model.death import Death


class Found(NamedTuple):
    """An address of text on the stack; `certain` says that the unwinder takes it for a return."""

    address: int
    certain: bool


Follow = Callable[[int, int], int | None]
"""Where the caller's return address lies, by a return address and where that one lies."""


def call_trace(death: Death, image: Image, *, frame_pointers: bool) -> Iterator[Found]:
    """Read the stack upwards: every word that is an address of text, in order.

    Where a return address was expected and no text is, nothing is certain from there on.
    """
    expected, follow = _by_chain(death) if frame_pointers else _by_depth(death, image)
    for slot, word in death.words():
        if slot == expected:
            if not _is_text(image, word - 1):
                expected = None
                continue
            yield Found(word, certain=True)
            expected = follow(word, slot)
        elif _is_text(image, word - 1) or _is_text(image, word):
            yield Found(word, certain=False)


def _by_chain(death: Death) -> tuple[int | None, Follow]:
    """RBP points to the caller's, and the return address lies above that.

    An exception does not break the chain: its entry code leaves RBP as it was.
    """
    words = dict(death.words())

    def follow(_: int, slot: int) -> int | None:
        caller = words.get(slot - 8)
        return None if caller is None or caller < slot else caller + 8

    return death.registers.rbp + 8, follow


def _by_depth(death: Death, image: Image) -> tuple[int | None, Follow]:
    """The image knows how far above RSP the return address lies, at each instruction."""

    def above(address: int, rsp: int) -> int | None:
        depth = image.stack_depth(address)
        return None if depth is None else rsp + depth

    def follow(returns_to: int, slot: int) -> int | None:
        return above(returns_to, slot + 8)

    return above(death.registers.rip, death.registers.rsp), follow


def _is_text(image: Image, address: int) -> bool:
    """__kernel_text_address(): does `address` lie in a function of vmlinux or a module?"""
    found = image.lookup(address)
    if found is None:
        return False
    return found.section.startswith(".text") or module_of(found.section) is not None
