"""A student's Python, called in a process of its own, which can do nothing but ask and answer.

    ran = call("fix.py", source, "fix", root, tables, memory=kernel.memory)

Knows the limits, and that nothing the process says can be trusted: each request is checked here,
and answered from the checker's RAM. Refuses to know what the function is for; whoever called it
looks at the RAM, or runs the CPU on it, to see whether it was done.

It cannot open a file, start a process or a thread, signal a process or reach a network: the kernel
refuses all system calls but those of `seccomp`. When it ends, is killed, or takes too long, nothing
is left of it. What this does not protect from: a bug in the kernel or in the interpreter, and the
time and memory that the limits allow.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from emu import EmuError, PhysAddr
from pagewalk.labs import inside, seccomp
from pagewalk.sources import shown

_INSIDE: Final = Path(inside.__file__)
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call may use up before it is ended."""

    seconds: float = 5.0  # by the clock on the wall
    memory: int = 512 * _MIB  # address space
    printed: int = 64 << 10  # bytes
    message: int = 64 << 10  # bytes of one request, and of what the function returns
    requests: int = 200_000

    def of_process(self) -> dict[str, int]:
        """Return those that the kernel keeps, by setrlimit's names."""
        return {
            "RLIMIT_AS": self.memory,
            "RLIMIT_CORE": 0,
            "RLIMIT_CPU": int(self.seconds) + 1,
            "RLIMIT_FSIZE": 0,
            "RLIMIT_NOFILE": 16,
            "RLIMIT_NPROC": 0,
        }


DEFAULT: Final = Limits()


class Ram(Protocol):
    """What the function is let at, 8 bytes at a time: a PhysMemory, or a part of it."""

    def read_u64(self, pa: PhysAddr) -> int | None:
        """Return 8 bytes; None, or a ValueError, where there are none."""

    def write_u64(self, pa: PhysAddr, value: int) -> None:
        """Store 8 bytes; ValueError where that cannot be."""


class Ran(NamedTuple):
    """The function returned, or so its process says: a value of JSON, and what was printed."""

    value: Any
    printed: str


class Failed(NamedTuple):
    """It did not: why, in a line for the student, and what had been printed until then."""

    reason: str
    printed: str


def told(reason: str, printed: str) -> str:
    """Return the reason, with the last line that was printed, if there is one."""
    lines = printed.strip().splitlines()
    return f"{reason}; it printed last: {lines[-1]}" if lines else reason


class NoSandbox(EmuError):
    """The system cannot shut a process in."""


class _Ended(Exception):
    """The call is over, for this reason."""


def call(
    name: str,
    source: str,
    function: str,
    *arguments: object,
    memory: Ram | None = None,
    limits: Limits = DEFAULT,
) -> Ran | Failed:
    """Call `function` of the file `name`, with `memory` first if there is one.

    Arguments and result are plain values: numbers, strings, lists, dictionaries. Raises NoSandbox
    where the system has no seccomp filters, before anything of the student's has run.
    """
    job = {
        "name": name,
        "source": source,
        "function": function,
        "arguments": arguments,
        "memory": memory is not None,
        "limits": limits.of_process(),
        "filter": seccomp.program().hex(),
    }
    ours, theirs = socket.socketpair()
    # Isolated: no environment, no current directory, no site-packages; unbuffered.
    command = [sys.executable, "-I", "-S", "-B", "-u", str(_INSIDE), str(theirs.fileno())]
    with (
        ours,
        theirs,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            env={},
            cwd="/",
            start_new_session=True,
        ) as process,
    ):
        try:
            theirs.close()
            talk = _Talk(process, ours, name, memory, limits)
            value = talk.until_the_end(json.dumps(job).encode() + b"\n")
        except _Ended as end:
            return Failed(shown(str(end)), talk.printed())
        else:
            return Ran(value, talk.printed())
        finally:
            process.kill()


class _Talk:
    """One call's conversation, from the checker's side."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        channel: socket.socket,
        name: str,
        memory: Ram | None,
        limits: Limits,
    ) -> None:
        self._process = process
        self._channel = channel
        self._name = name
        self._memory = memory
        self._limits = limits
        self._said = bytearray()
        self._heard = bytearray()
        self._asked = 0
        assert process.stdout is not None
        self._output = process.stdout
        os.set_blocking(self._output.fileno(), False)

    def until_the_end(self, job: bytes) -> object:
        """Hand over the job, answer requests, and return the function's value. Raises _Ended."""
        deadline = time.monotonic() + self._limits.seconds
        self._channel.settimeout(self._limits.seconds)
        try:
            self._channel.sendall(job)
        except OSError:
            raise _Ended(self._how_it_ended()) from None
        self._channel.setblocking(False)
        with selectors.DefaultSelector() as ready:
            ready.register(self._channel, selectors.EVENT_READ)
            ready.register(self._output, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                for key, _ in ready.select(left):
                    if key.fileobj is self._output:
                        if not self._listen():
                            ready.unregister(self._output)
                        continue
                    for line in self._lines():
                        message = _parse(line)
                        if "returned" in message:
                            return message["returned"]
                        self._answer(message)
        raise _Ended(f"it had not returned after {self._limits.seconds:g} seconds")

    def printed(self) -> str:
        """End the process, and return what it printed."""
        self._process.kill()
        self._process.wait()
        while len(self._said) <= self._limits.printed and self._take_output():
            pass
        text = self._said[: self._limits.printed].decode(errors="replace")
        return "\n".join(map(shown, text.split("\n")))

    def _listen(self) -> bool:
        """Take what was printed; False when there will be no more."""
        more = self._take_output()
        if len(self._said) > self._limits.printed:
            raise _Ended(f"it printed more than {self._limits.printed >> 10} KiB")
        return more

    def _take_output(self) -> bool:
        try:
            data = os.read(self._output.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        self._said += data
        return bool(data)

    def _lines(self) -> list[bytes]:
        """Return the whole lines that came. Raises _Ended if none can come any more."""
        try:
            data = self._channel.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            raise _Ended(self._how_it_ended())
        self._heard += data
        *lines, rest = self._heard.split(b"\n")
        if max(map(len, (*lines, rest))) > self._limits.message:
            size = self._limits.message >> 10
            raise _Ended(f"it returned, or asked for, more than {size} KiB at once")
        self._heard = rest
        return [bytes(line) for line in lines]

    def _answer(self, message: dict[str, Any]) -> None:
        """Do what a request asks for, if it may be."""
        if "raised" in message:
            line = message.get("line")
            place = f"{self._name}:{line}" if isinstance(line, int) and line else self._name
            raise _Ended(f"{place}: {str(message['raised'])[:400]}")
        self._asked += 1
        if self._asked > self._limits.requests:
            raise _Ended(f"it read and wrote memory more than {self._limits.requests} times")
        reply: dict[str, object]
        try:
            reply = {"value": self._do(message)}
        except ValueError as error:
            reply = {"error": str(error)[:400]}
        data = json.dumps(reply).encode() + b"\n"
        try:
            sent = self._channel.send(data)
        except OSError:
            sent = 0  # nobody waits for the answer, or nobody is there
        if sent != len(data):
            raise _Ended(self._how_it_ended())

    def _do(self, message: dict[str, Any]) -> int:
        """Read or write RAM. Raises ValueError, for the student to see, for what cannot be."""
        what, numbers = message.get("ask"), message.get("numbers")
        if self._memory is None or not isinstance(numbers, list):
            raise _Ended(_GARBAGE)
        for number in numbers:
            if type(number) is not int:
                raise ValueError(f"{str(number)[:40]!r}: expected a whole number")
            if not 0 <= number < 1 << 64:
                raise ValueError(f"{number:#x}"[:40] + ": expected a number of 64 bits")
        match what, numbers:
            case "read_u64", [pa]:
                value = self._memory.read_u64(PhysAddr(pa))
                if value is None:
                    raise ValueError(f"pa {pa:#x} is outside RAM")
                return value
            case "write_u64", [pa, value]:
                self._memory.write_u64(PhysAddr(pa), value)
                return 0
        raise _Ended(_GARBAGE)

    def _how_it_ended(self) -> str:
        """Say why the line went dead."""
        try:
            status = self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            return "it closed the line to the checker"
        if status == inside.NO_FILTER:
            raise NoSandbox("this system has no seccomp filters: student's Python is not run on it")
        if status < 0:
            name = signal.Signals(-status).name
            return f"its process was ended by {name} before it returned"
        return f"it ended its process (exit status {status}) before it returned"


_GARBAGE: Final = "it wrote something to the checker that is no request"


def _parse(line: bytes) -> dict[str, Any]:
    """Read a message; anything else than an object ends the call."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise _Ended(_GARBAGE)
    return message
