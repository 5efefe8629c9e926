"""Checking a directory: every part in a process of its own, which may die, and a report.

Knows how long a part may take, and what is told of a process that ended too early. Refuses to know
how a part is judged (`judge`), and loads no engine.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, NamedTuple

from pagewalk.labs.directory import Given
from pagewalk.labs.lab import Lab
from pagewalk.sources import shown

SECONDS: Final = 30
"""How long a part may take."""


class Result(NamedTuple):
    """What became of a part; `reason` is None where all its points were earned."""

    title: str
    possible: int
    reason: str | None

    @property
    def earned(self) -> int:
        """All points of the part, or none."""
        return self.possible if self.reason is None else 0


class Report(NamedTuple):
    """What became of a lab."""

    lab: Lab
    seed: str
    results: tuple[Result, ...]

    @property
    def earned(self) -> int:
        """The points of all parts."""
        return sum(result.earned for result in self.results)


def check(directory: Path, given: Given, *, seconds: float = SECONDS) -> Report:
    """Judge every part of the lab in `directory`."""
    parts = given.lab.of_seed(given.seed).parts
    reasons: list[str | None] = []
    while len(reasons) < len(parts):
        with _judging(directory, given, first=len(reasons)) as judging:
            try:
                for line in _lines(judging.process, seconds):
                    reasons.append(json.loads(line))
            except TimeoutError:
                reasons.append(f"it takes longer than {seconds:g} seconds")
            else:
                if len(reasons) < len(parts):  # the next one goes on behind what it died of
                    reasons.append(_ending(judging))
    results = (
        Result(part.title, part.points, reason) for part, reason in zip(parts, reasons, strict=True)
    )
    return Report(given.lab, given.seed, tuple(results))


class _Judging(NamedTuple):
    """A process that judges, and what it complains of."""

    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]


@contextmanager
def _judging(directory: Path, given: Given, *, first: int) -> Iterator[_Judging]:
    """Start the process that judges; at the end, it and all its children are gone."""
    # -P: the directory that we are called from may be the student's, with a json.py in it.
    command = [sys.executable, "-P", "-m", "pagewalk.labs.judge"]
    arguments = [str(directory.absolute()), given.lab.name, given.seed, str(first)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield _Judging(process, errors)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _lines(process: "subprocess.Popen[bytes]", seconds: float) -> Iterator[bytes]:
    """Yield the lines that the process prints; TimeoutError if one takes longer than `seconds`."""
    assert process.stdout is not None
    output = process.stdout.fileno()
    rest = b""
    deadline = time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        data = os.read(output, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield from lines
            deadline = time.monotonic() + seconds


def _ending(judging: _Judging) -> str:
    """Say why the process judged no further."""
    status = judging.process.wait()
    if status < 0:
        name = signal.Signals(-status).name
        return f"it ended the emulator ({name}): some instruction in it is more than that can bear"
    judging.errors.seek(0)
    lines = judging.errors.read().decode(errors="replace").strip().splitlines()
    last = shown(lines[-1]) if lines else "it told no reason"
    return f"the check failed, which is not your mistake: {last}"
