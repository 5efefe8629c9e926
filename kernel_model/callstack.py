"""Kernel functions that run in Python, on the guest's stack.

Knows how a frame gets there: the return address is that of the real call instruction in the
caller's stub, at the depth that the image gives for it. No offset appears here. Refuses to know
what the functions do. A function that the build inlined has no frame of its own.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from asm import CallSite, Image
from kernel_model.builds import module_of
from kernel_model.errors import KernelError

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel

_P = ParamSpec("_P")
_R = TypeVar("_R")


def kernel_function(
    function: Callable[Concatenate["Kernel", _P], _R],
) -> Callable[Concatenate["Kernel", _P], _R]:
    """Give a Python function the stack frame of the kernel function whose name it has."""
    name = function.__name__

    @wraps(function)
    def framed(kernel: "Kernel", /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if kernel.preempt is not None:
            kernel.preempt(name)
        if not enter(kernel, name):
            return function(kernel, *args, **kwargs)
        try:
            return function(kernel, *args, **kwargs)
        finally:
            kernel.current.frames.pop()

    return framed


def enter(kernel: "Kernel", callee: str) -> bool:
    """Push the return address of a call of `callee`; False if it is inlined into its caller."""
    if callee in kernel.build.inlined:
        return False
    frames = kernel.current.frames
    stack = kernel.stack_of(kernel.current)
    if frames:
        site, rsp = call_site(kernel, callee)
        returns_to = site.return_address
    else:
        kernel.image.address(callee)  # it must exist, even where nothing calls it
        rsp, returns_to = stack.top, 0  # nobody called: where an unwinder ends
    rsp -= 8
    if rsp < stack.base:
        raise KernelError(f"the stack of {kernel.current!r} has overflowed in {callee}")
    kernel.memory.write_u64(stack.pa_of(rsp), returns_to)
    if kernel.build.frame_pointers:
        saved = frames[-1][1] - 8 if frames else 0
        kernel.memory.write_u64(stack.pa_of(rsp - 8), saved)
    frames.append((callee, rsp))
    return True


def call_site(kernel: "Kernel", callee: str) -> tuple[CallSite, int]:
    """Return where the running function calls `callee`, and RSP at that instruction."""
    caller, entered_at = kernel.current.frames[-1]
    site, below = _only_call(kernel.image, caller, callee)
    return site, entered_at - below


def depth(image: Image, address: int) -> int:
    """Return how far below its return address a function's RSP is at an instruction."""
    found = image.stack_depth(address)
    if found is None:
        raise KernelError(f"the stack depth at {image.describe(address)} is not known")
    return found


@cache
def deepest(image: Image, function: str) -> int:
    """Return how far below its return address a function's RSP is at most."""
    start = image.address(function)
    end = start + image.symbols[function].size
    return max(image.stack_depth(address) or 0 for address in range(start, end))


@cache
def _only_call(image: Image, caller: str, callee: str) -> tuple[CallSite, int]:
    """Return the one place where `caller` calls `callee`, and how deep its stack is there."""
    sites = image.call_sites(caller, callee)
    if len(sites) != 1:
        raise KernelError(f"{caller} calls {callee} at {len(sites)} places: expected 1")
    return sites[0], depth(image, sites[0].address)


def symbolise(image: Image, address: int, *, returned_to: bool = False) -> str:
    """Return "symbol+0x9/0x6d [module]" (%pS); a return address is looked up one byte before."""
    at = address - 1 if returned_to else address
    found = image.lookup(at)
    if found is None:
        at, found = address, image.lookup(address)
    if found is None:
        return f"0x{address:x}"
    module = module_of(found.section)
    offset = found.offset + address - at
    return f"{found.symbol}+{offset:#x}/{found.size:#x}" + (f" [{module}]" if module else "")
