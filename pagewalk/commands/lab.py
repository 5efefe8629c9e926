"""`pagewalk lab`: exercises for courses: list them, make one, check one, answer one.

Knows the subcommands, and prints what they come to. Refuses to know what a lab is made of and how
it is checked (`labs`).
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kernel_model.words import did_you_mean
from pagewalk.arguments import bad, number, reason

if TYPE_CHECKING:
    from pagewalk.labs.checking import Report

_OK, _FAILED = 0, 1
_FULL: Final = "full"
_EPILOG: Final = """\
A lab is one idea: a text, questions with the numbers of a seed, files to complete. `lab new` makes
a directory for a student, `lab check` runs the CPU on what was filled in, `lab answers` is for the
teacher. The same seed always gives the same numbers.

example: pagewalk lab new cr3 --seed ada --dir lab1
         pagewalk lab check lab1"""
_CHECK_EPILOG: Final = """\
Each part earns all its points or none, and a lost one is told with its reason. --lab and --seed
outrank what the directory says of itself, and keep a student from choosing other numbers.

FILE, and what --json prints, is a results.json of Gradescope's autograder.

exit status: 0 it could be checked, 1 --expect did not hold, 2 bad input, 130 interrupted
example: pagewalk lab check lab1 -o /autograder/results/results.json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    parser.epilog = _EPILOG
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    listing = action("list", "all labs, with their points", "example: pagewalk lab list")
    new = action(
        "new",
        "make a directory with a lab for one student",
        "example: pagewalk lab new four-levels --seed ada --dir lab2",
    )
    new.add_argument("name", metavar="LAB", help="a lab, or its number")
    new.add_argument("--seed", metavar="SEED", required=True, help="any text: a student's name")
    new.add_argument("--dir", metavar="DIR", required=True, help="a new or empty directory")
    check = action("check", "check what a student has filled in", _CHECK_EPILOG)
    check.add_argument("directory", metavar="DIR", help="a directory that `lab new` made")
    check.add_argument("--lab", metavar="LAB", help="the lab that it must be")
    check.add_argument("--seed", metavar="SEED", help="the seed that it must have")
    check.add_argument("--expect", metavar="full|N", help="exit with 1 below so many points")
    check.add_argument("-o", "--output", metavar="FILE", help="write the JSON to FILE, too")
    answers = action(
        "answers",
        "print the answers and the completed files, for the teacher",
        "example: pagewalk lab answers cr3 --seed ada",
    )
    answers.add_argument("name", metavar="LAB", help="a lab, or its number")
    answers.add_argument("--seed", metavar="SEED", required=True, help="the seed of its numbers")
    for sub in (listing, check, answers):
        sub.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    return {"list": _list, "new": _new, "check": _check, "answers": _answers}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from kernel_model.scenarios.spec import SCHEMA
    from pagewalk.labs import labs
    from pagewalk.terminal import show

    if args.json:
        fields = "number name title idea points edition".split()
        found = [{field: getattr(lab, field) for field in fields} for lab in labs()]
        print(json.dumps({"schema": SCHEMA, "labs": found}, indent=2))
        return _OK
    show(
        f"{lab.number:2}  {lab.name:16} {lab.points:2} points  {lab.title}: {lab.idea}"
        for lab in labs()
    )
    return _OK


def _new(args: argparse.Namespace) -> int:
    from pagewalk.labs.directory import README, named_lab, read_seed, write
    from pagewalk.sources import shown

    lab = named_lab("LAB", args.name)
    names = write(Path(args.dir), lab, read_seed("--seed", args.seed))
    where = shown(args.dir)
    print(f"lab {lab.number}, {lab.title}, is in {where}: {', '.join(names)}")
    print(f"begin with {where}/{README}")
    return _OK


def _check(args: argparse.Namespace) -> int:
    from pagewalk.labs.checking import check
    from pagewalk.labs.directory import named_lab, read, read_seed
    from pagewalk.labs.gradescope import results
    from pagewalk.terminal import working

    directory = Path(args.directory)
    lab = None if args.lab is None else named_lab("--lab", args.lab)
    seed = None if args.seed is None else read_seed("--seed", args.seed)
    given = read(directory, lab, seed)
    least = 0 if args.expect is None else _points("--expect", args.expect, given.lab.points)
    with working("running what was filled in"):  # an endless answer takes its five seconds
        report = check(directory, given)
    document = json.dumps(results(report), indent=2)
    if args.output is not None:
        _write(args.output, document)
    if args.json:
        print(document)
    else:
        _show(report)
    return _OK if report.earned >= least else _FAILED


def _points(argument: str, text: str, most: int) -> int:
    if text == _FULL:
        return most
    if not text.isdecimal():
        bad(argument, repr(text), f"full, or a number of points{did_you_mean(text, [_FULL])}")
    return number(argument, text, most=most)


def _show(report: "Report") -> None:
    from pagewalk.terminal import show

    lab = report.lab
    lines = [f"Lab {lab.number}, {lab.title}. Seed: {report.seed}", ""]
    for position, result in enumerate(report.results, 1):
        lines.append(f"{position:2}. {result.earned:2} of {result.possible:2}  {result.title}")
        if result.reason is not None:
            lines.append(f"              {result.reason}")
    show([*lines, "", f"{report.earned} of {lab.points} points"])


def _write(file: str, document: str) -> None:
    try:
        Path(file).write_text(document + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        bad("-o", ascii(file), f"a file that can be written: {reason(error)}")


def _answers(args: argparse.Namespace) -> int:
    from pagewalk.labs.directory import named_lab, read_seed, solved

    lab = named_lab("LAB", args.name)
    seed = read_seed("--seed", args.seed)
    texts = solved(lab, seed)
    if args.json:
        print(json.dumps({"lab": lab.name, "seed": seed, "files": texts}, indent=2))
        return _OK
    for name, text in texts.items():
        print(f"==> {name} <==\n{text}")
    return _OK
