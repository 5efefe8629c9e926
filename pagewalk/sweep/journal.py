"""What a sweep has finished: a file that it goes on from, if it is interrupted.

JSON lines, appended to: first what is swept and by which code, then one line for each unit of
work. A line that was torn, as by a power cut, is as if it had not been written. Refuses to know
what the units are.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TextIO

Result = Mapping[str, Sequence[Any]]


class NotOurs(Exception):
    """The file is not the journal of this sweep."""


class Journal:
    """The units that are finished, by number; `add` them as they come, `remove` it at the end.

    Without a path, and after an error of the disk, which is told once, nothing is written. A
    `fresh` one forgets what the file knows, which must be a journal all the same. Raises NotOurs
    for a file that is something else, or another sweep's.
    """

    def __init__(self, path: Path | None, key: dict[str, Any], *, fresh: bool = False) -> None:
        self.finished: Final[dict[int, Result]] = {}
        self._path = path
        self._key: Final = key
        self._file: TextIO | None = None
        if path is not None:
            try:
                self._read(path, fresh=fresh)
            except OSError as error:
                self._give_up(error)

    def add(self, unit: int, result: Result) -> None:
        """Remember a unit's result."""
        begun = bool(self.finished)
        self.finished[unit] = result
        if self._path is None:
            return
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("a", encoding="utf-8")
                self._write("" if begun else json.dumps(self._key))  # the last line may be torn
            self._write(json.dumps([unit, result]))
        except OSError as error:
            self._give_up(error)

    def remove(self) -> None:
        """Forget everything: the sweep is complete."""
        self.close()
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """Leave the file for the next time."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: str) -> None:
        assert self._file is not None
        self._file.write(line + "\n")
        self._file.flush()

    def _read(self, path: Path, *, fresh: bool) -> None:
        if not path.exists():
            return
        if not path.is_file():  # reading a device may never end, and removing it is worse
            raise NotOurs(str(path))
        first, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        key = _parsed(first)
        if fresh and isinstance(key, dict) and key.keys() == self._key.keys():
            path.unlink()
            return
        if key != self._key:
            raise NotOurs(str(path))
        for line in lines:
            match _parsed(line):
                case [int(unit), dict(result)]:
                    self.finished[unit] = result

    def _give_up(self, error: OSError) -> None:
        print(
            f"pagewalk: {self._path}: {error.strerror}; the sweep goes on, and cannot be resumed",
            file=sys.stderr,
        )
        with suppress(OSError):  # closing writes what could not be written before
            self.close()
        self._file = self._path = None


def default_path(name: str) -> Path | None:
    """Return where a journal lies if nobody says: the user's state directory, if there is one."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return Path(state, "pagewalk", name) if os.path.isabs(state) else None


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
