"""What a format's reader hands on, before it is known whose CR3 was what.

A file is a header, events and an ending, each a `Part`; one that was cut off has no ending.
"""

from typing import Any

from emu.events import Event

Object = dict[str, Any]

Part = Object | tuple[int, Event, Object | None]
"""The header's object, first; an event with its CPU, and its object if that is at hand, for the
names in it; {"end": …} last."""


class Damaged(Exception):
    """There is something in the file that cannot be read, and it is not just cut off there.

    What it says is one line, whatever a library has said.
    """

    def __str__(self) -> str:
        return " ".join(super().__str__().split())
