"""What runs in the student's process: it shuts itself in, then calls the student's function.

Run by path, by a Python that finds nothing but its own library: it imports nothing of ours. Knows
how to give up the right to all but computing, printing and asking. Refuses to judge, and is not
believed: from the moment that the student's code runs, it says whatever that wants (`student`).
"""

import ctypes
import json
import os
import resource
import signal
import sys
import types
from importlib import import_module
from typing import Any

IMPORTABLE = """
    array bisect collections contextlib dataclasses enum functools itertools math operator re
    string struct time traceback typing
""".split()
"""What a student may import: loaded before, since afterwards no file can be opened."""

_HINT = {
    ImportError: f" (there are: {', '.join(IMPORTABLE)})",
    PermissionError: " (files, processes and the network are out of reach)",
}
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 1, 22, 38, 2
NO_FILTER = 97
"""The exit status where the system has no seccomp: nothing of the student's has run then."""


class Checker:
    """The checker's end of the line: a line of JSON there, a line back."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        # As a file: read() and write() are allowed, and no socket's calls.
        self._lines = open(channel, "rb")  # noqa: SIM115

    def receive(self) -> Any:
        """Wait for a line."""
        return json.loads(self._lines.readline())

    def tell(self, **message: object) -> None:
        """Send a line."""
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._channel, data) :]


class Memory:
    """The machine's RAM, by physical address, 8 bytes at a time."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker

    def read_u64(self, pa: int) -> int:
        """Return the 8 bytes at `pa`; ValueError if it is not aligned, or no RAM."""
        return int(self._ask("read_u64", pa))

    def write_u64(self, pa: int, value: int) -> None:
        """Store 8 bytes at `pa`; ValueError if it is not aligned, or no RAM."""
        self._ask("write_u64", pa, value)

    def _ask(self, what: str, *numbers: int) -> Any:
        self._checker.tell(ask=what, numbers=numbers)
        answer = self._checker.receive()
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["value"]


def shut_in(limits: dict[str, int], filter_: bytes) -> None:
    """Take the limits, and give up every system call that the filter does not allow."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for name, most in limits.items():
        which = getattr(resource, name)
        _, hard = resource.getrlimit(which)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (value, value))
    code = ctypes.create_string_buffer(filter_, len(filter_))
    program = ctypes.create_string_buffer(16)  # struct sock_fprog: how many statements, and where
    length, where = len(filter_) // 8, ctypes.addressof(code)
    program.raw = length.to_bytes(8, sys.byteorder) + where.to_bytes(8, sys.byteorder)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0):
        os._exit(NO_FILTER)


def call(checker: Checker, job: dict[str, Any]) -> object:
    """Run the student's file, call its function, and return what that returns."""
    answer = types.ModuleType("answer")
    exec(compile(job["source"], job["name"], "exec"), answer.__dict__)
    function = getattr(answer, job["function"], None)
    if not callable(function):
        raise NameError(f"there is no function {job['function']}()")
    memory = [Memory(checker)] if job["memory"] else []
    return function(*memory, *job["arguments"])


def text_of(error: BaseException) -> str:
    """Say an exception in a line."""
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    hints = (hint for kind, hint in _HINT.items() if isinstance(error, kind))
    return f"{type(error).__name__}: {what}"[:300] + next(hints, "")


def line_of(error: BaseException, name: str) -> int:
    """Return the last line of the student's file that an exception came through, or 0."""
    if isinstance(error, SyntaxError) and error.filename == name:
        return error.lineno or 0
    line, traceback = 0, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == name:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def main(channel: int) -> None:
    """Do one job, and tell how it ended."""
    for module in IMPORTABLE:
        import_module(module)
    checker = Checker(channel)
    job = checker.receive()
    sys.path.clear()
    shut_in(job["limits"], bytes.fromhex(job["filter"]))
    try:
        value = call(checker, job)
        json.dumps(value)
    except BaseException as error:  # noqa: BLE001 (SystemExit, too: it is the student's answer)
        checker.tell(raised=text_of(error), line=line_of(error, job["name"]))
    else:
        checker.tell(returned=value)


if __name__ == "__main__":
    main(int(sys.argv[1]))
