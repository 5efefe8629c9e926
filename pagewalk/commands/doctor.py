"""`pagewalk doctor`: prove, on this machine, every engine behaviour that is relied upon.

Knows how to carry out proofs that fail, crash or never end, and how to tell it. Refuses to know
what is proved: that is `emu.proofs` and `asm.proofs`.
"""

import argparse
import faulthandler
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeAlias

from kernel_model.scenarios.spec import SCHEMA
from pagewalk.terminal import is_terminal

if TYPE_CHECKING:
    import asm.proofs
    import emu.proofs

    Proof: TypeAlias = emu.proofs.Proof | asm.proofs.Proof | "_Unloadable"

OK, FAILED = 0, 1
_GROUPS: Final = ("emu.proofs", "asm.proofs")
_PACKAGES: Final = ("unicorn", "capstone", "keystone-engine")
_PATIENCE: Final = 10.0  # seconds for one proof; it needs milliseconds


class Verdict(NamedTuple):
    """What became of one proof."""

    name: str
    relies_on: str
    holds: bool
    seen: str


class _Unloadable(NamedTuple):
    """What stands for the proofs of a group that cannot be loaded."""

    name: str
    relies_on: str
    error: Exception

    def see(self) -> NoReturn:
        raise self.error


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = "example: pagewalk doctor"


def run(args: argparse.Namespace) -> int:
    """Print what every proof saw; 0 if all hold, 1 if one fails."""
    if not faulthandler.is_enabled() and sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)  # an engine that crashes leaves its proof's name behind
    report = Json() if args.json else Text()
    with _Watch(report) as watch:
        for proof in _proofs():
            watch.begin(proof)
            report.add(prove(proof))
    return report.end()


def prove(proof: "Proof") -> Verdict:
    """Carry out one proof."""
    try:
        return Verdict(proof.name, proof.relies_on, True, proof.see())
    except Exception as error:  # noqa: BLE001
        # Whatever another engine does, down to a function that it lacks, is what was seen; it must
        # not keep the other proofs from being carried out.
        return Verdict(proof.name, proof.relies_on, False, _told(error))


def _proofs() -> "Iterator[Proof]":
    for group in _GROUPS:
        try:
            proofs: tuple[Proof, ...] = import_module(group).PROOFS
        except Exception as error:  # noqa: BLE001
            # That an engine cannot even be loaded is the first thing to say, however it comes.
            proofs = (_Unloadable(group, "the engines can be loaded", error),)
        yield from proofs


def _told(error: Exception) -> str:
    """What an exception says, in one line; a failed proof's says what was seen."""
    text = " ".join(str(error).split())
    return text if type(error).__name__ == "ProofFailed" else f"{type(error).__name__}: {text}"


class _Watch:
    """A proof that does not end has failed. It is reported, and the process ends with it."""

    def __init__(self, report: "Text | Json") -> None:
        self._report = report
        self._current: tuple[Proof, float] | None = None
        self._done = threading.Event()

    def begin(self, proof: "Proof") -> None:
        """Watch this one from now on."""
        self._current = proof, time.monotonic()

    def __enter__(self) -> "_Watch":
        threading.Thread(target=self._wait, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _wait(self) -> None:
        while not self._done.wait(_PATIENCE / 10):
            if self._current is None:
                continue
            proof, began = self._current
            if time.monotonic() - began > _PATIENCE:
                seen = f"no end within {_PATIENCE:g} seconds"
                self._report.add(Verdict(proof.name, proof.relies_on, False, seen))
                self._report.end()
                sys.stdout.flush()
                os._exit(FAILED)  # the main thread is inside the engine, and hears nothing


class Text:
    """A line for each proof as soon as it is known, and a summary."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._added = self._failed = 0
        self._coloured = is_terminal()

    def add(self, verdict: Verdict) -> None:
        """Print a proof's line."""
        name, relies_on, holds, seen = verdict
        self._added += 1
        if holds:
            print(f"{self._mark('ok', 32)}   {name}: {seen}", flush=True)
        else:
            self._failed += 1
            print(f"{self._mark('FAIL', 31)} {name}: {seen}; expected: {relies_on}", flush=True)

    def end(self) -> int:
        """Print the summary, and return the exit status."""
        result = f"{self._failed} of {self._added} fail" if self._failed else "all hold"
        versions = ", ".join(f"{name} {number}" for name, number in _versions().items())
        print(f"\n{self._added} proofs, {result}, {time.perf_counter() - self._began:.2f} s")
        print(f"{versions}, {platform.platform()}")
        return FAILED if self._failed else OK

    def _mark(self, word: str, colour: int) -> str:
        return f"\x1b[{colour}m{word}\x1b[0m" if self._coloured else word


class Json:
    """One document."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._verdicts: list[Verdict] = []

    def add(self, verdict: Verdict) -> None:
        """Remember a proof's verdict."""
        self._verdicts.append(verdict)

    def end(self) -> int:
        """Print the document, and return the exit status."""
        holds = all(verdict.holds for verdict in self._verdicts)
        document = {
            "schema": SCHEMA,
            "holds": holds,
            "proofs": [verdict._asdict() for verdict in self._verdicts],
            "versions": _versions(),
            "platform": platform.platform(),
            "seconds": round(time.perf_counter() - self._began, 3),
        }
        print(json.dumps(document, indent=2))
        return OK if holds else FAILED


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "Python": platform.python_version()}
