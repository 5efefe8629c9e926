"""The process that checks: `python -m pagewalk.labs.judge D LAB SEED FIRST`.

Judges the parts from FIRST on, one after the other, and prints for each a line of JSON: null, or
the reason for the lost points. It may die of what it runs, or run for ever: `checking` looks after
that.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Final

from emu import EmuError
from pagewalk.labs import find
from pagewalk.labs.lab import Lost, Part
from pagewalk.labs.submission import Submission
from pagewalk.sources import shown

_LONGEST: Final = 300  # characters of a reason: a student's line can be of any length


def judge(part: Part, submission: Submission) -> str | None:
    """Return why the part's points are lost, in one line, or None if they are earned."""
    try:
        part.check(*[submission.value(ask) for ask in part.asks])
    except Lost as lost:
        return _line(str(lost))
    except EmuError as error:  # code can be such that the emulator gives up on it
        return _line(f"the emulator cannot go on: {error}")
    except MemoryError:
        return "this takes more memory than there is for it"
    return None


def _line(text: str) -> str:
    line = shown(text)
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"


def main(directory: str, name: str, seed: str, first: str) -> None:
    """Judge the parts from the one with number `first` (from 0) on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lab = find(name)
    assert lab is not None
    submission = Submission(Path(directory))
    for part in lab.of_seed(seed).parts[int(first) :]:
        print(json.dumps(judge(part, submission)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
