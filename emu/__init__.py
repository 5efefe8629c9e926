"""The machine: x86-64 paging as the Intel SDM describes it, executed by Unicorn.

Everything public is here, and nothing is loaded before it is asked for: `from emu import
PageFault` does not load an engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emu.address_space import ranges as ranges
    from emu.bulk import Walks as Walks
    from emu.bulk import walk_many as walk_many
    from emu.case import BadCase as BadCase
    from emu.case import Case as Case
    from emu.case import Seen as Seen
    from emu.case import Verdict as Verdict
    from emu.columns import Range as Range
    from emu.columns import Ranges as Ranges
    from emu.cpu import Cpu as Cpu
    from emu.descriptors import Gate as Gate
    from emu.descriptors import SystemSegment as SystemSegment
    from emu.descriptors import TableRegister as TableRegister
    from emu.differences import Difference as Difference
    from emu.differences import Differences as Differences
    from emu.fault import EmuError as EmuError
    from emu.fault import EngineError as EngineError
    from emu.fault import Halted as Halted
    from emu.fault import NotMapped as NotMapped
    from emu.fault import OutOfFrames as OutOfFrames
    from emu.fault import OutsideRam as OutsideRam
    from emu.fault import PageFault as PageFault
    from emu.fault import Returned as Returned
    from emu.fault import Shutdown as Shutdown
    from emu.fault import StepLimit as StepLimit
    from emu.fault import Stop as Stop
    from emu.fault import Trap as Trap
    from emu.machine import Machine as Machine
    from emu.memory import Frames as Frames
    from emu.memory import NoRam as NoRam
    from emu.memory import PhysMemory as PhysMemory
    from emu.paging import Paging as Paging
    from emu.paging import PhysAddr as PhysAddr
    from emu.paging import VirtAddr as VirtAddr
    from emu.probe import Probe as Probe
    from emu.registers import Registers as Registers
    from emu.rights import Access as Access
    from emu.rights import Refusal as Refusal
    from emu.rights import refusal as refusal
    from emu.system import SystemTables as SystemTables
    from emu.system import write_system_tables as write_system_tables
    from emu.tables import map_page as map_page
    from emu.tables import map_range as map_range
    from emu.tables import unmap_page as unmap_page
    from emu.virtual import read_virtual as read_virtual
    from emu.virtual import translate as translate
    from emu.virtual import write_virtual as write_virtual
    from emu.walk import Step as Step
    from emu.walk import Walk as Walk

_WHERE = {
    "address_space": "ranges",
    "bulk": "Walks walk_many",
    "case": "BadCase Case Seen Verdict",
    "columns": "Range Ranges",
    "cpu": "Cpu",
    "descriptors": "Gate SystemSegment TableRegister",
    "differences": "Difference Differences",
    "fault": "EmuError EngineError Halted NotMapped OutOfFrames OutsideRam PageFault Returned "
    "Shutdown StepLimit Stop Trap",
    "machine": "Machine",
    "memory": "Frames NoRam PhysMemory",
    "paging": "Paging PhysAddr VirtAddr",
    "probe": "Probe",
    "registers": "Registers",
    "rights": "Access Refusal refusal",
    "system": "SystemTables write_system_tables",
    "tables": "map_page map_range unmap_page",
    "virtual": "read_virtual translate write_virtual",
    "walk": "Step Walk",
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names.split()}

# `walk`, `trace` and `differences` are modules here and functions inside them: import those from
# the modules.
__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'emu' has no attribute {name!r}")
    return getattr(import_module(f"emu.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
