"""A state machine over everything that can be done to a kernel: it finds each release's bug itself.

What it found, shrunk to the shortest sequence, is written down below as a test of its own.
"""

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from support.kernel_play import Play, Violation

PATHS = ("vmalloc", "ioremap", "percpu", "compound", "plain", "hot_add")
few = st.integers(0, 2)


def machine(release: str, levels: int, **options: Any) -> type[RuleBasedStateMachine]:
    """The machine for a release."""

    class KernelMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.play = Play(release, levels, **options)

        def teardown(self) -> None:
            self.play.close()

        @rule()
        def fork(self) -> None:
            self.play.do("fork")

        @precondition(lambda self: self.play.kernel.tasks)
        @rule(which=few)
        def exit(self, which: int) -> None:
            self.play.do("exit", which)

        @precondition(lambda self: self.play.kernel.tasks)
        @rule(which=few, cpu=few)
        def switch(self, which: int, cpu: int) -> None:
            self.play.do("switch", which, cpu)

        @precondition(lambda self: self.play.kernel.tasks and self.play.ranges)
        @rule(which=few, what=few)
        def access(self, which: int, what: int) -> None:
            self.play.do("access", which, what)

        @rule(path=st.sampled_from(PATHS), argument=few)
        def populate(self, path: str, argument: int) -> None:
            self.play.do(path, argument)

        @rule()
        def sync(self) -> None:
            self.play.do("sync")

        @precondition(lambda self: any(found.path == "percpu" for found in self.play.ranges))
        @rule()
        def trace(self) -> None:
            self.play.do("trace")

    return KernelMachine


def run(release: str, levels: int, *, examples: int, **options: Any) -> Violation | None:
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
        run_state_machine_as_test(machine(release, levels, **options), settings=chosen)
    except Violation as violation:
        return violation
    return None
