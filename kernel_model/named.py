"""What may be run by name, and with what.

Knows which names and registers a bare run takes. Refuses to know how it is run.
"""

from collections.abc import Collection, Mapping
from typing import Any

from asm import Image


def check_routine(name: str, routines: Collection[str], image: Image) -> None:
    """Refuse a name that nothing has, and functions that are stubs; ValueError lists the others."""
    if name in routines:
        return
    image.address(name)
    is_function = image.symbols[name].kind == "function"
    why = "runs in Python here" if is_function else "is no function"
    raise ValueError(f"{name} {why}: expected a routine: {', '.join(routines)}")


def check_registers(routine: str, args: tuple[Any, ...], registers: Mapping[str, Any]) -> None:
    """Refuse what a bare run sets itself, and values without a name."""
    if args:
        raise ValueError(f"{routine}: {args!r}: expected registers by name, as in rdi={args[0]!r}")
    for name in ("rip", "rsp", "returns_to"):
        if name in registers:
            raise ValueError(f"{routine}: {name} is the run's own: expected other registers")
