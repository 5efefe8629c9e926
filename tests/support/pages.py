"""Pages of Markdown: the blocks that they show, and a reader who does what the blocks say.

A page is read from the top, in a directory of its own, with the repository's docs/ in it. A
`console` block has commands behind `$ `, and below a command what it printed; `# exits with 1` says
which status it ends with. A `python` block is run, and knows the names of those before it. A block
with a title is a file, and is written. A `text` block is what was printed last, with a line of …
for what is left out; a `json` block is a part of it. An `sh` block makes an environment, and has a
test of its own.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from support.cli import run_cli

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)(?: +title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)
_STATUS = re.compile(r"# exits with (\d+)")


class Block(NamedTuple):
    """A fenced block: its language, the file that it is, if it is one, its text, and where."""

    language: str
    title: str | None
    text: str
    line: int


class Command(NamedTuple):
    """A line behind `$ `, the status that it promises, and the lines shown below it."""

    line: str
    status: int
    shown: list[str]


def blocks(page: str, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page; with `languages`, those in one of them."""
    found = (
        Block(m[1], m[2], m[3], page.count("\n", 0, m.start()) + 1) for m in _BLOCK.finditer(page)
    )
    return [block for block in found if not languages or block.language in languages]


def commands(block: Block) -> list[Command]:
    """Return the commands of a console block."""
    found: list[Command] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            promised = _STATUS.search(line)
            found.append(Command(line[2:], int(promised[1]) if promised else 0, []))
        else:
            found[-1].shown.append(line)
    return found


def not_printed(shown: list[str], printed: str) -> list[str]:
    """Return the first run of lines shown that was not printed as it is; none if all were."""
    lines = [line.rstrip() for line in printed.rstrip("\n").split("\n")]
    runs: list[list[str]] = [[]]
    for line in shown:
        if line == "…":
            runs.append([])
        else:
            runs[-1].append(line.rstrip())
    at = 0
    for number, run in enumerate(runs):
        last = len(lines) - len(run)  # where the text ends with this run
        first = last if number == len(runs) - 1 and run else at
        starts = range(max(at, first), last + 1) if number else range(1)
        found = [start for start in starts if lines[start : start + len(run)] == run]
        if not found:
            return run
        at = found[0] + len(run)
    return [] if at == len(lines) or not runs[-1] else runs[-1]


def json_documents(text: str) -> Iterator[object]:
    """Return the JSON documents that stand one behind the other in a text."""
    decoder, text = json.JSONDecoder(), text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:].lstrip()


def is_part(shown: object, whole: object) -> bool:
    """Tell whether JSON is what is shown of it: some of the keys; … is any value, or any more."""
    if isinstance(shown, dict) and isinstance(whole, dict):
        return all(key in whole and is_part(each, whole[key]) for key, each in shown.items())
    if isinstance(shown, list) and isinstance(whole, list):
        if shown[-1:] == ["…"]:
            shown, whole = shown[:-1], whole[: len(shown) - 1]
        return len(shown) == len(whole) and all(map(is_part, shown, whole))
    return shown in (whole, "…")


class Reader:
    """Somebody who does what a page says, in the current directory, and what went otherwise."""

    def __init__(self) -> None:
        self.names: dict[str, object] = {"__name__": "page"}
        self.printed = ""

    def complaints(self, page: str) -> list[str]:
        """Follow a page to its end, and return what it says that is not so."""
        return [
            f"line {block.line}: {complaint}"
            for block in blocks(page)
            for complaint in self._follow(block)
        ]

    def _follow(self, block: Block) -> Iterator[str]:
        if block.title is not None:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            for command in commands(block):
                yield from self._run(command)
        elif block.language == "python":
            output = StringIO()
            with redirect_stdout(output):
                exec(compile(block.text, f"line {block.line}", "exec"), self.names)
            self.printed = output.getvalue()
        elif block.language == "text":
            yield from _differences(block.text.splitlines(), self.printed)
        elif block.language == "json":
            whole = list(json_documents(self.printed))
            for shown in json_documents(block.text):
                if not any(is_part(shown, each) for each in whole):
                    yield f"is no part of what was printed: {shown}"

    def _run(self, command: Command) -> Iterator[str]:
        status, output, errors = run_line(command.line)
        self.printed = output or errors
        if status != command.status:
            yield f"{command.line}: exits with {status}\n{output}{errors}"
        if errors and status != 2:
            yield f"{command.line}: says {errors}"
        if command.shown:
            yield from _differences(command.shown, self.printed)


def _differences(shown: list[str], printed: str) -> Iterator[str]:
    if missing := not_printed(shown, printed):
        yield "\n".join(["was not printed:", *missing, "this was:", printed])


def run_line(line: str) -> tuple[int, str, str]:
    """Run what was typed: our own commands in this process, others in a shell.

    Return the exit status, standard output and standard error. What takes over the terminal gets
    one, and a `q` to end it.
    """
    words = shlex.split(line, comments=True)
    if words[:2] == ["pagewalk", "tui"]:
        return _on_a_terminal(line), "", ""
    *words, into, name = words if words[-2:-1] in ([">"], ["2>"]) else (*words, "", "")
    if words[0] == "pagewalk" and not set(" ".join(words)) & set("<>|"):
        status, *streams = run_cli(*words[1:], parse=False)
        if into:  # what a shell costs is another start of Python
            Path(name).write_text(streams[into == "2>"], encoding="utf-8")
            streams[into == "2>"] = ""
        return status, streams[0], streams[1]
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=_environment())
    return done.returncode, done.stdout, done.stderr


def _environment() -> dict[str, str]:
    """Return that of a reader who has activated the environment that the tests run in."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    bin_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": bin_first, "NO_COLOR": "1"}


def _on_a_terminal(line: str) -> int:
    """Run a command on a terminal, type q, and return its exit status."""
    ours, theirs = os.openpty()
    environment = {**_environment(), "TERM": "xterm-256color"}
    with subprocess.Popen(
        ["bash", "-c", line], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        os.write(ours, b"q")
        with suppress(OSError):  # that nobody has the other end open any more
            while os.read(ours, 1 << 16):
                pass
    os.close(ours)
    return process.returncode
