"""Which words of a stack the unwinder is sure of: along frame pointers, and by depths."""

import pytest
from support.kernel_deaths import RSP, hand_made

from kernel_model import Kernel
from kernel_model.death import Death
from kernel_model.stacktrace import Found, call_trace

# Functions that call something, each with a return address of its own.
A, B, C, D = (
    "__init_zone_device_page+0x17",
    "memmap_init_zone_device+0x154",
    "pagemap_range+0x2e0",
    "memremap_pages+0x10b",
)


@pytest.fixture
def death(kernel: Kernel) -> Death:
    """A death, to be given another stack."""
    return hand_made(kernel)


def trace(kernel: Kernel, death: Death, words: list[int | str], rbp: int) -> list[tuple[str, bool]]:
    """What is found along frame pointers; a word is a number, a place, or text is its address."""
    numbers = [kernel.symbol(word) if isinstance(word, str) else word for word in words]
    top = RSP + 8 * len(numbers)
    dead = death._replace(
        stack=b"".join(word.to_bytes(8, "little") for word in numbers),
        bounds=(top - 0x4000, top),
        registers=death.registers._replace(rbp=rbp),
    )
    found = call_trace(dead, kernel.image, frame_pointers=True)
    names = {kernel.symbol(place): place for place in (A, B, C, D)}
    return [(names[address], certain) for address, certain in found]


def test_the_chain_is_followed_from_rbp(kernel: Kernel, death: Death) -> None:
    words = [0, RSP + 32, A, 0, 0, B]

    assert trace(kernel, death, words, rbp=RSP + 8) == [(A, True), (B, True)]


def test_text_off_the_chain_is_not_certain(kernel: Kernel, death: Death) -> None:
    words = [C, RSP + 32, A, D, 0, B, C]

    assert trace(kernel, death, words, rbp=RSP + 8) == [
        (C, False),
        (A, True),
        (D, False),
        (B, True),
        (C, False),
    ]


def test_an_exception_does_not_break_the_chain(kernel: Kernel, death: Death) -> None:
    """A's frame was entered from an exception's entry, which left RBP pointing to B's frame.

    C lies in the struct pt_regs, as the interrupted instruction, and D is the return address of
    the interrupted function, which has no frame of its own.
    """
    words = [RSP + 56, A, 1, 2, C, 0x10, D, 0, B]

    assert trace(kernel, death, words, rbp=RSP) == [
        (A, True),
        (C, False),
        (D, False),
        (B, True),
    ]


@pytest.mark.parametrize("saved", [0, 0x1234, RSP, RSP + 8, RSP - 0x100, 1 << 63])
def test_the_chain_ends_at_a_frame_that_is_not_above(
    kernel: Kernel, death: Death, saved: int
) -> None:
    words = [0, saved, A, B, C]

    assert trace(kernel, death, words, rbp=RSP + 8) == [(A, True), (B, False), (C, False)]


def test_nothing_is_certain_where_rbp_does_not_point_to_a_frame(
    kernel: Kernel, death: Death
) -> None:
    assert trace(kernel, death, [0, 0, A, B], rbp=0xFFFF) == [(A, False), (B, False)]


def test_nothing_is_certain_beyond_a_return_address_that_is_none(
    kernel: Kernel, death: Death
) -> None:
    words = [RSP + 16, 0x1234, RSP + 32, A, 0, B]

    assert trace(kernel, death, words, rbp=RSP) == [(A, False), (B, False)]


def test_an_empty_stack_has_no_trace(kernel: Kernel, death: Death) -> None:
    assert trace(kernel, death, [], rbp=RSP) == []


def test_without_frame_pointers_the_depths_say_where(kernel: Kernel, death: Death) -> None:
    found = list(call_trace(death, kernel.image, frame_pointers=False))

    assert found == [
        Found(kernel.symbol(A), certain=True),
        Found(kernel.symbol(D), certain=False),
        Found(kernel.symbol(B), certain=True),
    ]
