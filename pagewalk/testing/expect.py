"""expect_page_fault: asserts that a run ended in this page fault, and tells all if it did not.

Knows what a test may say of a fault. Refuses to compare (`expectation`) and to tell (`report`).
"""

from emu import PageFault, Stop
from pagewalk.testing.expectation import Expectation, check_level, read_error, read_symbol
from pagewalk.testing.watch import Watching, whose


class ExpectPageFault:
    """What the fixture `expect_page_fault` gives: call it with a Stop.

    fault = expect_page_fault(
        stop, at=page + 0x34, error="W", symbol="__init_single_page+0x9", level="pgd"
    )
    """

    def __init__(self, watching: Watching) -> None:
        self._watching = watching

    def __call__(
        self,
        stop: Stop,
        *,
        at: int | None = None,
        error: int | str | None = None,
        symbol: str | None = None,
        level: str | None = None,
    ) -> PageFault:
        """Return `stop`, if it is a page fault and what is said of it is true.

        `at` is the address, as CR2 has it. `error` is the error code, as a number or as the
        letters of its bits: P (nothing was absent), W (write), U (user mode), RSVD (a reserved
        bit was set), I (fetch), PK (protection key); "" is a supervisor's read of what is not
        present. `symbol` names the instruction, as "symbol", "symbol+0x9" or "symbol+0x9/0x6d".
        `level` is that of the last entry that the walk read: pgd, p4d, pud, pmd, pte or PML5E,
        PML4E, PDPTE, PDE, PTE; with 4 levels the p4d is the pgd.

        AssertionError tells what is different, the walk, where init_mm's differs, and the last
        instructions. ValueError if a letter, a level or a symbol is none.
        """
        __tracebackhide__ = True
        expected = Expectation(
            address=at,
            error_code=None if error is None else read_error(error),
            rip=None if symbol is None else read_symbol(symbol, whose(self._watching, stop)),
            symbol=symbol,
            level=None if level is None else check_level(level),
        )
        if isinstance(stop, PageFault) and not expected.differences(stop):
            return stop

        from pagewalk.testing.report import difference_lines, failure_lines

        if isinstance(stop, PageFault):
            report = failure_lines(self._watching, stop, difference_lines(stop, expected))
        else:
            missing = f"  expected a page fault{'' if at is None else f' at {at:#x}'}"
            report = failure_lines(self._watching, stop, [missing], missed=at)
        raise AssertionError("\n".join(report))
