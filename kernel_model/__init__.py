"""Linux on the machine: populate and sync on page tables in emulated RAM.

Everything public is here, and nothing is loaded before it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernel_model.auditing import Lacking as Lacking
    from kernel_model.auditing import Why as Why
    from kernel_model.auditing import audit as audit
    from kernel_model.auditing import why as why
    from kernel_model.errors import KernelError as KernelError
    from kernel_model.errors import TaskDied as TaskDied
    from kernel_model.kernel import Kernel as Kernel
    from kernel_model.layout import Layout as Layout
    from kernel_model.layout import make_layout as make_layout
    from kernel_model.mm import Mm as Mm
    from kernel_model.mm import Task as Task
    from kernel_model.releases import RELEASES as RELEASES
    from kernel_model.releases import Release as Release
    from kernel_model.structs import StructPage as StructPage

_MODULE = {
    "Kernel": "kernel",
    "KernelError": "errors",
    "Lacking": "auditing",
    "Layout": "layout",
    "Mm": "mm",
    "RELEASES": "releases",
    "Release": "releases",
    "StructPage": "structs",
    "Task": "mm",
    "TaskDied": "errors",
    "Why": "auditing",
    "audit": "auditing",
    "make_layout": "layout",
    "why": "auditing",
}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'kernel_model' has no attribute {name!r}")
    return getattr(import_module(f"kernel_model.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
