"""A state machine over everything that can be done to a kernel: it finds each release's bug itself.

What it found, shrunk to the shortest sequence, is in FOUND, and each of these is a test of its own.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from support.kernel_play import MERGED_EXCLUDED, Play, Violation, replay

PATHS = ("vmalloc", "ioremap", "percpu", "trace", "compound", "plain", "hot_add", "shadow")
UNDO = ("exit", "hot_remove", "sync")
few = st.integers(0, 2)


def machine(
    release: str, levels: int, without: tuple[str, ...], **options: Any
) -> type[RuleBasedStateMachine]:
    """The machine for a release. What is `without` does nothing."""

    class KernelMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.play = Play(release, levels, **options)
            self.play.without = frozenset(without)

        def teardown(self) -> None:
            self.play.close()

        @rule(full=st.integers(0, 1))
        def fork(self, full: int) -> None:
            self.play.do("fork", full)

        @precondition(lambda self: self.play.kernel.tasks)
        @rule(which=few, cpu=few)
        def switch(self, which: int, cpu: int) -> None:
            self.play.do("switch", which, cpu)

        @precondition(lambda self: self.play.kernel.tasks and self.play.ranges)
        @rule(which=few, what=few)
        def access(self, which: int, what: int) -> None:
            self.play.do("access", which, what)

        @rule(path=st.sampled_from(PATHS), argument=st.integers(0, 1))
        def populate(self, path: str, argument: int) -> None:
            self.play.do(path, argument)

        @rule(how=st.sampled_from(UNDO), which=few)
        def undo(self, how: str, which: int) -> None:
            self.play.do(how, which)

        @precondition(lambda self: self.play.ranges)
        @rule(which=few, what=few)
        def outside(self, which: int, what: int) -> None:
            self.play.do("outside", which, what)

        @precondition(lambda self: len(self.play.kernel.tasks) > 1 and self.play.cpus > 1)
        @rule(steps=st.integers(0, 3))
        def race(self, steps: int) -> None:
            self.play.do("race", steps)

    return KernelMachine


def run(
    release: str, levels: int = 4, *, examples: int, without: tuple[str, ...] = (), **options: Any
) -> Violation | None:
    """Let the machine play; the shortest sequence that it found to violate something, if any."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=12,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    try:
        run_state_machine_as_test(machine(release, levels, without, **options), settings=chosen)
    except Violation as violation:
        return violation
    return None


NO_HANDLER = ("outside",)  # a table outside pgd_list may lack what any handler needs
NOT_OURS = ("outside", "trace")

FOUND: list[Any] = [
    # release, what it is booted with, what is left out, the shortest sequence, what is violated
    pytest.param(
        *("4.4", {}, NO_HANDLER),
        (("fork", 0), ("ioremap", 1), ("access", 0, 0)),
        "vmalloc_fault+0x1be/0x300",
        id="4.4: a large page is taken for a table",
    ),
    pytest.param(
        *("4.6", {"hugetlbfs": False}, NO_HANDLER),
        (("fork", 0), ("ioremap", 1), ("access", 0, 0)),
        "vmalloc_fault+0x1be/0x300",
        id="4.6: and still is without hugetlbfs",
    ),
    pytest.param(
        *("4.12-rc", {}, (*NOT_OURS, "switch")),
        (("fork", 0), ("hot_add", 0), ("hot_remove", 0)),
        "task1 has another entry in slot 273 than init_mm",
        id="4.12-rc: a removal leaves a stale entry",
    ),
    pytest.param(
        *("4.14", {}, NOT_OURS),
        (("fork", 0), ("fork", 1), ("switch", 1, 0), ("switch", 0, 0)),
        "#DF with error code 0x0 at rip 0xffffffff8100",
        id="4.14: a switch loses the stack that it runs on",
    ),
    pytest.param(
        *("5.6", {}, NO_HANDLER),
        (("fork", 0), ("trace", 0), ("access", 0, 0)),
        "(page_fault+0xd/0x30)",
        id="5.6: the handler traces into a fault",
    ),
    pytest.param(
        *("5.8", {"cpus": 2}, NO_HANDLER),
        (("fork", 0), ("fork", 0), ("race", 3)),
        "(read_byte+0x0/0x10)",
        id="5.8: a mapping is used before it is synced",
    ),
    pytest.param(
        *("5.9-mw", {}, (*NOT_OURS, "switch")),
        (("fork", 0), ("vmalloc", 1), ("access", 0, 0)),
        "(read_byte+0x0/0x10)",  # in a slot of the vmalloc area: in which one is all the same
        id="5.9-mw: nothing was pre-allocated",
    ),
    pytest.param(
        *("6.8", {}, NO_HANDLER),
        (("fork", 0), ("compound", 0), ("access", 0, 0)),
        "#PF at 0xffffea8000000000",
        id="6.8: compound pages are not synced",
    ),
    pytest.param(
        *("6.13", {"struct_page": 80}, NO_HANDLER),
        (("fork", 0), ("compound", 0)),
        "(vmemmap_set_pmd+0xff/0x230)",
        id="6.13: a block is marked before it is synced",
    ),
    pytest.param(
        *("6.17", {"kasan": True}, NO_HANDLER),
        (("fork", 0), ("shadow", 0), ("access", 0, 0)),
        "#PF at 0xffffed8000000000",
        id="6.17: the shadow's run-time branch",
    ),
    pytest.param(
        *("6.17", {}, ()),
        (("hot_add", 0), ("outside", 0, 0)),
        "oops of outsider: #PF",
        id="6.17: a table that is not on pgd_list",
    ),
]
SOUND = [
    ("4.17", {}, NOT_OURS),
    ("5.4", {"cpus": 2}, NOT_OURS),
    ("5.10", {"cpus": 4}, NO_HANDLER),
    ("rfc-v1", {"excluded": MERGED_EXCLUDED}, ()),
    ("6.17", {"excluded": MERGED_EXCLUDED, "cpus": 4}, ()),
    ("6.17", {"excluded": MERGED_EXCLUDED, "struct_page": 80}, ()),
    ("6.17", {"excluded": MERGED_EXCLUDED, "kasan": True, "cpus": 2}, ()),
]


@pytest.mark.parametrize(("release", "options", "without", "ops", "what"), FOUND)
def test_the_shortest_sequence_violates_at_its_end(
    release: str, options: dict[str, Any], without: tuple[str, ...], ops: tuple[Any, ...], what: str
) -> None:
    found = replay(ops, release, **options)

    assert found is not None
    assert what in found


@pytest.mark.parametrize(("release", "options", "without", "ops", "what"), FOUND)
def test_one_step_less_violates_nothing(
    release: str, options: dict[str, Any], without: tuple[str, ...], ops: tuple[Any, ...], what: str
) -> None:
    found = [replay(ops[:n] + ops[n + 1 :], release, **options) for n in range(len(ops))]

    assert found == [None] * len(ops)


@pytest.mark.slow
@pytest.mark.parametrize(("release", "options", "without", "ops", "what"), FOUND)
def test_the_machine_finds_it_by_itself(
    release: str, options: dict[str, Any], without: tuple[str, ...], ops: tuple[Any, ...], what: str
) -> None:
    found = run(release, examples=2000, without=without, **options)

    assert found is not None
    assert what in found.what
    assert len(found.ops) <= len(ops) + 1


@pytest.mark.slow
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize(("release", "options", "without"), SOUND)
def test_with_what_is_open_left_out_nothing_is_violated(
    release: str, options: dict[str, Any], without: tuple[str, ...], levels: int
) -> None:
    assert run(release, levels, examples=250, without=without, **options) is None


@pytest.mark.parametrize("levels", [4, 5])
def test_with_the_merged_fix_a_sample_violates_nothing(levels: int) -> None:
    found = run("6.17", levels, examples=40, excluded=MERGED_EXCLUDED, cpus=4)

    assert found is None
