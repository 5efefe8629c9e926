"""A student's Python runs in a process of its own, and costs points at worst."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from emu import PhysAddr, PhysMemory
from pagewalk.labs import seccomp
from pagewalk.labs.inside import NO_FILTER
from pagewalk.labs.student import DEFAULT, Failed, Limits, NoSandbox, Ran, call

RAM = 1 << 20
QUICK = Limits(seconds=0.6)


@pytest.fixture
def memory():
    ram = PhysMemory(RAM)
    yield ram
    ram.close()


def answer(
    source: str,
    *arguments: object,
    memory: PhysMemory | None = None,
    limits: Limits = DEFAULT,
) -> Ran | Failed:
    return call("fix.py", textwrap.dedent(source), "fix", *arguments, memory=memory, limits=limits)


# -- what a function can do


def test_its_value_comes_back_and_what_it_printed() -> None:
    ran = answer("def fix(a, b): print('adding'); return [a + b, 'x']", 2, 3)

    assert ran == Ran([5, "x"], "adding\n")


def test_it_reads_and_writes_the_checkers_memory(memory: PhysMemory) -> None:
    memory.write_u64(PhysAddr(0x1000), (1 << 64) - 1)

    ran = answer("def fix(m): m.write_u64(0x1008, m.read_u64(0x1000) - 1)", memory=memory)

    assert ran == Ran(None, "")
    assert memory.read_u64(PhysAddr(0x1008)) == (1 << 64) - 2


def test_it_may_import_what_computing_needs() -> None:
    source = "from dataclasses import dataclass\nimport re, struct\ndef fix(): return 7"

    assert answer(source) == Ran(7, "")


def test_the_kernel_filters_it() -> None:
    """Not that Python fails to find a way: the system call itself is refused."""
    source = """
        import ctypes
        def fix():
            libc = ctypes.CDLL(None, use_errno=True)
            return [libc.syscall(nr, 0, 0, 0), ctypes.get_errno()]
    """

    ran = answer(source.replace("nr", "57"))  # fork

    assert ran == Ran([-1, 1], "")


# -- what it cannot do: the reason names the line


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("m.write_u64(0x7, 1)", "ValueError: pa 0x7 is not 8-byte aligned"),
        ("m.read_u64(1 << 30)", "ValueError: pa 0x40000000 is outside RAM"),
        ("m.write_u64(1 << 30, 1)", "ValueError: pa 0x40000000 (+0x8) is outside RAM"),
        ("m.write_u64(0, -1)", "ValueError: -0x1: expected a number of 64 bits"),
        ("m.write_u64(0, 1 << 64)", "expected a number of 64 bits"),
        ("m.write_u64(0, 1.5)", "expected a whole number"),
        ("m.write_u64(0, True)", "expected a whole number"),
        ("m.write_u64(0, '0')", "expected a whole number"),
        ("m.write_u64(0, None)", "expected a whole number"),
        ("m.read_u64(10 ** 1000)", "expected a number of 64 bits"),
    ],
)
def test_a_request_that_cannot_be_is_an_error_at_its_line(
    memory: PhysMemory, body: str, reason: str
) -> None:
    ran = answer(f"def fix(m):\n    {body}\n", memory=memory)

    assert isinstance(ran, Failed)
    assert ran.reason.startswith("fix.py:2: ")
    assert reason in ran.reason


@pytest.mark.parametrize(
    "body",
    [
        "open('/etc/passwd')",
        "open('gone', 'w')",
        "os.listdir('/')",
        "os.unlink('/tmp/nothing')",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getppid(), 9)",
        "os.kill(-1, 9)",
        "os.killpg(0, 9)",
        "os.setsid()",
    ],
)
def test_files_and_processes_are_out_of_reach(body: str) -> None:
    ran = answer(f"import os\ndef fix():\n    {body}\n")

    assert isinstance(ran, Failed)
    assert ran.reason.startswith("fix.py:3: PermissionError: ")
    assert ran.reason.endswith("(files, processes and the network are out of reach)")


@pytest.mark.parametrize("module", ["socket", "subprocess", "threading", "multiprocessing", "emu"])
def test_there_is_no_module_for_them(module: str) -> None:
    ran = answer(f"def fix():\n    import {module}\n")

    assert isinstance(ran, Failed)
    assert f"fix.py:2: ModuleNotFoundError: No module named '{module}' (there are: " in ran.reason


def test_there_are_no_threads() -> None:
    ran = answer("import _thread\ndef fix():\n    _thread.start_new_thread(print, ())\n")

    assert ran == Failed("fix.py:3: RuntimeError: can't start new thread", "")


# -- wrong, empty and hostile answers


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "fix.py: NameError: there is no function fix()"),
        ("fix = 3", "fix.py: NameError: there is no function fix()"),
        ("def fix(:", "fix.py:1: SyntaxError: invalid syntax"),
        ("def fix():\nreturn 1", "fix.py:2: IndentationError: "),
        ("x = 1 / 0", "fix.py:1: ZeroDivisionError: division by zero"),
        ("def fix(a): pass", "fix.py: TypeError: fix() missing 1 required positional argument"),
        ("def fix():\n    raise KeyError(5)", "fix.py:2: KeyError: 5"),
        ("def fix(): return fix()", "fix.py:1: RecursionError: "),
        ("def fix(): return {1}", "fix.py: TypeError: Object of type set is not JSON"),
        ("def fix(): 'x' * (1 << 40)", "fix.py:1: MemoryError"),
        ("def fix(): return 'x' * 100_000", "it returned, or asked for, more than 64 KiB at once"),
        ("import sys\ndef fix(): sys.exit(0)", "fix.py:2: SystemExit: 0"),
        ("import os\ndef fix(): os._exit(0)", "it ended its process (exit status 0) before it"),
        ("import os\nos._exit(7)", "it ended its process (exit status 7) before it returned"),
        ("import ctypes\nctypes.string_at(0)", "its process was ended by SIGSEGV before it"),
        ("import os\ndef fix(): os.abort()", "its process was ended by SIG"),
        ("(" * 5000, "fix.py:1: SyntaxError: too many nested parentheses"),
        ("def fix():\n    while True: print('x' * 99)", "it printed more than 64 KiB"),
    ],
)
def test_a_bad_answer_has_a_reason(source: str, reason: str) -> None:
    ran = answer(source)

    assert isinstance(ran, Failed)
    assert ran.reason.startswith(reason)
    assert "\n" not in ran.reason


ENDLESS = {
    "loop": "def fix():\n    while True: pass",
    "at import": "while True: pass",
    "sleep": "import time\ndef fix(): time.sleep(1000)",
    "ignoring every signal": """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass
    """,
    "catching everything": """
        def fix():
            while True:
                try:
                    while True: pass
                except BaseException: pass
    """,
    "in C": "def fix(): return (1 << 40_000_000) ** 40_000_000",
    "while the line is closed": "import os\nos.closerange(0, 64)\nwhile True: pass",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_an_endless_answer_is_ended_and_leaves_nothing(source: str) -> None:
    before = children(os.getpid())  # a browser's driver, or what else earlier tests need
    begin = time.monotonic()

    ran = answer(source, limits=QUICK)

    assert isinstance(ran, Failed)
    assert time.monotonic() - begin < 10
    assert children(os.getpid()) == before


SCRIBBLE = """
    import os
    def fix(m):
        for fd in range(3, 64):
            try: os.write(fd, DATA)
            except OSError: pass
        while True: pass
"""


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\n",
        b"\xff\xfe\0\n",
        b"\n",
        b"[1, 2]\n",
        b"{}\n",
        b"[" * 50_000 + b"\n",
        b'{"ask": "read_u64"}\n',
        b'{"ask": "read_u64", "numbers": []}\n',
        b'{"ask": "system", "numbers": [1]}\n',
        b'{"ask": ["read_u64"], "numbers": [1]}\n',
        b'{"ask": "read_u64", "numbers": {"0": 1}}\n',
        b'{"ask": "read_u64", "numbers": [' + b"9" * 5000 + b"]}\n",
    ],
)
def test_garbage_on_the_line_ends_the_call(memory: PhysMemory, data: bytes) -> None:
    ran = answer(SCRIBBLE.replace("DATA", repr(data)), memory=memory)

    assert ran == Failed("it wrote something to the checker that is no request", "")


def test_a_line_without_an_end_ends_the_call(memory: PhysMemory) -> None:
    ran = answer(SCRIBBLE.replace("DATA", repr(b"x" * 150_000)), memory=memory)

    assert ran == Failed("it returned, or asked for, more than 64 KiB at once", "")


def test_asking_without_listening_ends_the_call(memory: PhysMemory) -> None:
    line = b'{"ask": "read_u64", "numbers": [0]}\n' * 100
    source = SCRIBBLE.replace("DATA", repr(line)).replace("range(3, 64)", "[*range(3, 64)] * 999")

    ran = answer(source, memory=memory)

    assert ran == Failed("it closed the line to the checker", "")


def test_a_request_where_there_is_no_memory_ends_the_call() -> None:
    source = SCRIBBLE.replace("(m)", "()")

    ran = answer(source.replace("DATA", repr(b'{"ask": "read_u64", "numbers": [0]}\n')))

    assert ran == Failed("it wrote something to the checker that is no request", "")


def test_requests_are_counted(memory: PhysMemory) -> None:
    source = "def fix(m):\n    for _ in range(11): m.read_u64(0)"

    ran = call("fix.py", source, "fix", memory=memory, limits=Limits(requests=10))

    assert ran == Failed("it read and wrote memory more than 10 times", "")


def test_what_it_printed_moves_no_cursor() -> None:
    ran = answer(r"def fix(): print('\x1b[2J\r\u202e')")

    assert ran.printed == "\\x1b[2J\\r\\u202e\n"


def test_a_value_that_is_a_lie_is_only_a_value() -> None:
    """Who calls believes what the RAM says; that a result can be forged, costs nothing."""
    source = SCRIBBLE.replace("(m)", "()").replace(
        "DATA", repr(b'{"returned": [1, {"a": null}]}\n')
    )

    assert answer(source) == Ran([1, {"a": None}], "")


# -- the checker's own end


def test_the_students_process_ends_with_the_checker() -> None:
    checker = subprocess.Popen(
        [sys.executable, "-c", CHECKER], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    with checker:
        assert checker.stdout is not None
        pid = int(checker.stdout.readline())

        checker.send_signal(signal.SIGKILL)
        checker.wait()

    assert gone(pid)


CHECKER = """
from pagewalk.labs import student

class Told:
    def write_u64(self, pa, value):
        print(value, flush=True)

source = "import os, time\\ndef fix(m):\\n    m.write_u64(0, os.getpid())\\n    time.sleep(60)"
student.call("fix.py", source, "fix", memory=Told(), limits=student.Limits(seconds=60))
"""


def test_a_system_without_filters_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "program", lambda: bytes(8))  # not a filter

    with pytest.raises(NoSandbox, match="no seccomp filters"):
        answer("def fix(): print('it ran')")

    assert NO_FILTER != 0


def test_the_filter_refuses_what_it_does_not_name() -> None:
    filter_ = seccomp.program()

    assert len(filter_) % 8 == 0
    assert len(filter_) // 8 < 256  # jumps are of one byte


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def gone(pid: int) -> bool:
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text():
            return True
        time.sleep(0.02)
    return False
