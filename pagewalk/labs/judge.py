"""The process that checks: `python -m pagewalk.labs.judge D LAB SEED FIRST`.

Judges the parts from FIRST on, one after the other, and prints for each a line of JSON: null, or
the reason for the lost points. It may die of what it runs, or run for ever: `checking` looks after
that. Its memory is limited here.
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

_MOST_MEMORY: Final = 6 << 30  # address space: two machines' RAM, and what the engine reserves


def judge(part: Part, submission: Submission) -> str | None:
    """Return why the part's points are lost, or None if they are earned."""
    try:
        part.check(*[submission.value(ask) for ask in part.asks])
    except Lost as lost:
        return str(lost)
    except EmuError as error:  # code can be such that the emulator gives up on it
        return f"the emulator cannot go on: {shown(str(error))}"
    except MemoryError:
        return "this takes more memory than there is for it"
    return None


def main(directory: str, name: str, seed: str, first: str) -> None:
    """Judge the parts from the one with number `first` (from 0) on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _MOST_MEMORY if hard == resource.RLIM_INFINITY else min(hard, _MOST_MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    lab = find(name)
    assert lab is not None
    submission = Submission(Path(directory))
    for part in lab.of_seed(seed).parts[int(first) :]:
        print(json.dumps(judge(part, submission)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
