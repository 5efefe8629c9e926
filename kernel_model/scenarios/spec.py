"""What a scenario is, before it runs: a name, parameters, and where its story comes from.

Knows how to check a setting. Refuses to load an engine: listing scenarios and refusing a wrong
setting must be cheap.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from kernel_model.layout import MAX_PHYSMEM_BITS
from kernel_model.releases import Release
from kernel_model.words import did_you_mean, parse_number, show_size

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel
    from kernel_model.scenarios.outcome import Ending

Value = int | str
Settings = Mapping[str, Value]

SCHEMA: Final = 1
"""The version of every JSON document."""

# What some scenarios share in their parameters.
VMEMMAP_BASE: Final = "where KASLR put vmemmap; 1 GiB aligned"
RAM: Final = "boot RAM from physical 0, in 128 MiB steps"

MERGED_FIX: Final = (
    'f2d2f9598ebb "mm: introduce and use {pgd,p4d}_populate_kernel()" and 6659d0279980 '
    '"x86/mm/64: define ARCH_PAGE_TABLE_SYNC_MASK and arch_sync_kernel_mappings()"'
)
"""What ended both of the reported oopses."""

BROKE_BY: Final = {
    "__init_single_page": "4917f55b4ef9 "
    '"mm/sparse-vmemmap: improve memory savings for compound devmaps"',
    "vmemmap_set_pmd": '8d400913c231 "x86/vmemmap: handle unpopulated sub-pmd ranges"',
}
"""What broke it, by the function that dies of it: either device may meet either bug."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing that `--set` can change.

    `default` may differ between 4 and 5 levels. `choices` are all the values allowed, if they can
    be listed.
    """

    name: str
    help: str
    kind: Literal["address", "size", "number", "word"]
    default: Value | Mapping[int, Value]
    choices: tuple[Value, ...] = ()

    def default_at(self, levels: int) -> Value:
        """Return the default for a paging mode."""
        return self.default if isinstance(self.default, int | str) else self.default[levels]

    def parse(self, text: str) -> Value:
        """Return the value that `text` stands for; ValueError that says what was expected."""
        value: Value = text
        if self.kind != "word":
            value = _number(self.name, text)
        if self.choices and value not in self.choices:
            allowed = ", ".join(self.show(choice) for choice in self.choices)
            hint = did_you_mean(text, map(str, self.choices))
            raise ValueError(f"{self.name} {text!r}: expected one of {allowed}{hint}")
        return value

    def show(self, value: Value) -> str:
        """Return a value as people write it."""
        if isinstance(value, str):
            return value
        if self.kind == "size":
            return show_size(value)
        return str(value) if self.kind == "number" and value < 1 << 20 else f"{value:#x}"

    def as_json(self, value: Value) -> Value:
        """Return a value as JSON has it: addresses are hex strings, sizes and counts numbers."""
        return f"{value:#x}" if self.kind == "address" else value


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named, parameterised story.

    `check` refuses settings that make no sense together (ValueError), and `lacks` names what a
    release has not got that the story is about, if anything; `boots` says with which options of
    Kernel it begins, `nr_pages` how many pages it adds, and `play` runs it on the booted kernel.
    `broke` cites the commit behind a death in each function ("" is anywhere), `fixed` what ended
    them all, or by function those that ended each; `look_at` is for a run that dies.
    """

    name: str
    summary: str
    release: str
    broke: Mapping[str, str]
    fixed: str | Mapping[str, str]
    look_at: str
    parameters: tuple[Parameter, ...]
    play: Callable[["Kernel", Settings], "Ending"]
    check: Callable[[Settings, int], None] = lambda _settings, _levels: None
    lacks: Callable[[Release], str | None] = lambda _release: None
    boots: Callable[[Settings], Mapping[str, Any]] = lambda _settings: {}
    nr_pages: Callable[[Settings], int] = lambda _settings: 0

    def why_not(self, release: Release, levels: int) -> str | None:
        """Say why the story cannot be told of a release at so many levels, if it cannot."""
        if levels not in release.levels:
            return f"release {release.name} has no {levels}-level paging"
        lacking = self.lacks(release)
        return f"release {release.name} lacks {lacking}" if lacking else None

    def settings(self, given: Mapping[str, str], levels: int) -> dict[str, Value]:
        """Return every parameter's value; ValueError for an unknown key or a wrong value."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for key in given:
            if key not in known:
                raise ValueError(
                    f"{self.name} has no parameter {key!r}: expected "
                    f"{', '.join(known)}{did_you_mean(key, known)}"
                )
        values = {
            name: parameter.parse(given[name]) if name in given else parameter.default_at(levels)
            for name, parameter in known.items()
        }
        self.check(values, levels)
        return values


def memory_options(settings: Settings) -> dict[str, Any]:
    """Return Kernel's options of a story that sets vmemmap_base, ram and struct_page."""
    names = ("vmemmap_base", "ram", "struct_page")
    return {name: int(settings[name]) for name in names}


def _number(name: str, text: str) -> int:
    try:
        value = parse_number(text)
    except ValueError:
        raise ValueError(
            f"{name} {text!r}: expected a number, such as 0x1000, 4096 or 2M"
        ) from None
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{name} {text!r}: expected a number from 0 to 2^64 - 1")
    return value


def require_device_range(
    settings: Settings, levels: int, *, start: int, size: int, align: int, names: str
) -> None:
    """Refuse a device range that is empty, misaligned, RAM, or beyond what Linux can number."""
    bits = MAX_PHYSMEM_BITS[levels]
    ram = int(settings["ram"])
    if size == 0:
        raise ValueError(f"{names}: the range is empty: expected at least {align:#x} bytes")
    if start % align or size % align:
        raise ValueError(f"{names}: {start:#x} (+{size:#x}) is not a multiple of {align:#x}")
    if start < ram:
        raise ValueError(
            f"{names}: the device at {start:#x} overlaps RAM, which ends at {ram:#x}: "
            "expected an address above RAM"
        )
    if start + size > 1 << bits:
        raise ValueError(
            f"{names}: {start:#x} (+{size:#x}) ends beyond {bits} physical address bits"
        )
