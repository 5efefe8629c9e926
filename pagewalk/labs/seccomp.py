"""The system calls that a student's Python may make, as a filter that the kernel runs.

Knows which calls an interpreter needs to compute, to print and to talk over descriptors that are
open already, and the filter's encoding. Everything else is refused with EPERM: to open a file, to
start a process or a thread, to signal one, to make a socket. Refuses to know who is filtered.
Source: seccomp(2); Linux, Documentation/userspace-api/seccomp_filter.rst and syscall_64.tbl.
"""

import errno
import struct
from typing import Final

_ALLOWED: Final = {
    # descriptors that are open
    "read": 0,
    "write": 1,
    "close": 3,
    "fstat": 5,
    "poll": 7,
    "lseek": 8,
    # memory
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "mremap": 25,
    "madvise": 28,
    # its own signals and locks
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "sigaltstack": 131,
    "futex": 202,
    "restart_syscall": 219,
    # the time, and waiting for it
    "select": 23,
    "sched_yield": 24,
    "nanosleep": 35,
    "gettimeofday": 96,
    "clock_gettime": 228,
    "clock_getres": 229,
    "clock_nanosleep": 230,
    # who it is, chance, and the end
    "getpid": 39,
    "exit": 60,
    "getppid": 110,
    "gettid": 186,
    "exit_group": 231,
    "getrandom": 318,
}

# struct seccomp_data: where the filter's two loads find what they ask for
_NR, _ARCH = 0, 4
_AUDIT_ARCH_X86_64: Final = 0xC000_003E
_X32: Final = 0x4000_0000  # the other numbers of the same calls begin here
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_{LD,JMP,RET}, 32 bits, constants
_KILL, _ALLOW = 0x8000_0000, 0x7FFF_0000
_REFUSE: Final = 0x0005_0000 | errno.EPERM


def program() -> bytes:
    """Return the filter: an array of struct sock_filter."""
    rest = len(_ALLOWED)
    tests = [
        _statement(_EQUAL, nr, true=rest - at) for at, nr in enumerate(_ALLOWED.values())
    ]  # each jumps over the tests behind it and over the refusal
    return b"".join(
        (
            _statement(_LOAD, _ARCH),
            _statement(_EQUAL, _AUDIT_ARCH_X86_64, true=1),
            _statement(_RETURN, _KILL),
            _statement(_LOAD, _NR),
            _statement(_AT_LEAST, _X32, true=rest),
            *tests,
            _statement(_RETURN, _REFUSE),
            _statement(_RETURN, _ALLOW),
        )
    )


def _statement(code: int, k: int, *, true: int = 0) -> bytes:
    """Encode one statement: what it does, its constant, and how many it jumps over if it holds."""
    return struct.pack("<HBBI", code, true, 0, k)
