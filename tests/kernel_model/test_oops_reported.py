"""The two oopses that the model was built for, line by line."""

from collections.abc import Iterator

import pytest
from support.kernel_facts import FOUR, GIB, MIB, VRAM, boot, in_order
from support.kernel_oopses import COMPOUND, COMPOUND_TRACE, SUB_PMD, SUB_PMD_TRACE

from emu import PageFault
from kernel_model import Kernel
from kernel_model.drivers import dax_bus_probe, xe_device_probe


class Death:
    """A task that died, and what the kernel printed."""

    def __init__(self, kernel: Kernel, stop: object) -> None:
        assert isinstance(stop, PageFault)
        self.stop = stop
        self.text = kernel.oops(stop)
        self.lines = self.text.splitlines()

    def trace(self) -> list[str]:
        """The lines of the Call Trace that the unwinder is sure of."""
        first, last = self.lines.index(" <TASK>"), self.lines.index(" </TASK>")
        return [line for line in self.lines[first + 1 : last] if not line.startswith(" ? ")]

    def register(self, name: str) -> int:
        """A register as it was printed."""
        return int(self.text.split(f"{name}: ")[1].split()[0], 16)


@pytest.fixture(scope="module")
def compound() -> Iterator[Death]:
    """The first: device-dax on 6.8, whose vmemmap runs into slot 462."""
    with boot(FOUR) as kernel:
        task = kernel.fork("modprobe")
        stop = kernel.run(task, dax_bus_probe, 64 * GIB - 256 * MIB, 512 * MIB, 2 * MIB)
        yield Death(kernel, stop)


@pytest.fixture(scope="module")
def sub_pmd() -> Iterator[Death]:
    """The second: xe on 6.13-drm-tip with struct pages of 80 bytes."""
    with Kernel("6.13", struct_page=80) as kernel:
        stop = kernel.run(kernel.fork("modprobe"), xe_device_probe, VRAM, 128 * MIB)
        yield Death(kernel, stop)


def test_the_first_oops_has_every_line_of_the_mail_in_order(compound: Death) -> None:
    assert in_order(COMPOUND, compound.lines) == COMPOUND


def test_the_second_oops_has_every_line_of_the_mail_in_order(sub_pmd: Death) -> None:
    assert in_order(SUB_PMD, sub_pmd.lines) == SUB_PMD


def test_the_first_oops_begins_as_the_mail_does(compound: Death) -> None:
    assert tuple(compound.lines[:5]) == COMPOUND[:5]


def test_the_second_oops_begins_as_the_mail_does(sub_pmd: Death) -> None:
    assert tuple(sub_pmd.lines[:5]) == SUB_PMD[:5]


def test_the_first_call_trace_has_no_other_line(compound: Death) -> None:
    assert compound.trace() == [f" {frame}" for frame in COMPOUND_TRACE[1:]]


def test_the_second_call_trace_has_no_other_line(sub_pmd: Death) -> None:
    assert sub_pmd.trace() == [f" {frame}" for frame in SUB_PMD_TRACE[1:]]


def test_the_first_fault_is_at_the_first_store_to_the_new_slot(compound: Death) -> None:
    assert (compound.stop.address, compound.stop.error_code) == (0xFFFF_E700_0000_0034, 2)
    assert compound.stop.symbol == "__init_single_page+0x9/0x6d"


def test_the_second_fault_is_at_the_first_mark_in_the_new_slot(sub_pmd: Death) -> None:
    assert (sub_pmd.stop.address, sub_pmd.stop.error_code) == (0xFFFF_EB3F_F120_0000, 2)
    assert sub_pmd.stop.symbol == "vmemmap_set_pmd+0xff/0x230"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("R12", 0xFFFF_EB3F_F128_0000),
        ("R08", 0xFFFF_EB3F_F128_0000),
        ("RSI", 0x8000_0000_0000_01E3),
        ("CR0", 0x8005_0033),
        ("CR2", 0xFFFF_EB3F_F120_0000),
        ("CR4", 0x75_0EF0),
        ("PKRU", 0x5555_5554),
    ],
)
def test_the_second_oops_shows_registers_that_the_real_one_did(
    sub_pmd: Death, name: str, value: int
) -> None:
    assert sub_pmd.register(name) == value


def test_the_second_oops_shows_the_pmd_entry_in_r15(sub_pmd: Death) -> None:
    assert sub_pmd.register("R15") & 0xFFF0_0000_001F_FFFF == 0x8000_0000_0000_01E3


def test_the_second_oops_shows_a_memset_of_80_bytes(sub_pmd: Death) -> None:
    (line,) = {line for line in sub_pmd.lines if line.startswith("Code: ")}

    assert "<48> c7 03 00 00 00 00 48 c7 43 48 00 00 00 00" in line


def test_the_first_oops_shows_the_store_of_one_to_the_refcount(compound: Death) -> None:
    (line,) = {line for line in compound.lines if line.startswith("Code: ")}

    assert line.index("<c7> 47 34 01 00 00 00") == len("Code: ") + 42 * 3
    assert line[: line.index("<")].endswith("f3 0f 1e fa 0f 1f 44 00 00 ")


def test_both_end_with_the_marker_and_the_registers_again(compound: Death) -> None:
    end = compound.lines.index("---[ end trace 0000000000000000 ]---")
    start = next(i for i, line in enumerate(compound.lines) if line.startswith("RIP: "))

    again = compound.lines[end + 1 :]
    assert again == compound.lines[start : start + len(again)]
    assert compound.lines[end - 1] == "CR2: ffffe70000000034"


@pytest.mark.parametrize("levels", [4, 5])
def test_nothing_is_printed_of_a_run_that_completes(levels: int) -> None:
    with Kernel("6.17", levels=levels) as kernel:
        stop = kernel.run(kernel.fork("modprobe"), dax_bus_probe, 64 * GIB, 4 * MIB, 2 * MIB)

        with pytest.raises(ValueError, match="is not how the last task died"):
            kernel.oops(stop)
