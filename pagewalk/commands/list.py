"""`pagewalk list`: scenarios, releases and routines.

Knows where each of them is declared. Refuses to know what they do: nothing is run, no engine is
loaded.
"""

import argparse
import json

from kernel_model.scenarios.spec import SCHEMA
from pagewalk.terminal import show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.epilog = "example: pagewalk list"


def run(args: argparse.Namespace) -> int:
    """Print what there is."""
    from kernel_model.releases import RELEASES
    from kernel_model.scenarios import SCENARIOS

    if args.json:
        print(json.dumps(_document(), indent=2))
        return 0
    lines = ["Scenarios"]
    for scenario in SCENARIOS.values():
        lines.append(f"  {scenario.name}: {scenario.summary} (release {scenario.release})")
        for p in scenario.parameters:
            default = " / ".join(dict.fromkeys(p.show(p.default_at(levels)) for levels in (4, 5)))
            choices = f", one of {', '.join(map(p.show, p.choices))}" if p.choices else ""
            lines.append(f"    {p.name}={default}  {p.help}{choices}")
        lines.append("")
    lines.append("Releases")
    lines.extend(
        f"  {release.name:7} {release.summary} (build {release.build})"
        for release in RELEASES.values()
    )
    lines += ["", "Routines"]
    lines.extend(f"  {name}" for name in _routines())
    show(lines)
    return 0


def _document() -> dict[str, object]:
    from kernel_model.releases import RELEASES
    from kernel_model.scenarios import SCENARIOS

    return {
        "schema": SCHEMA,
        "scenarios": [
            {
                "name": s.name,
                "summary": s.summary,
                "release": s.release,
                "broke": s.broke,
                "fixed": s.fixed,
                "parameters": [
                    {
                        "name": p.name,
                        "help": p.help,
                        "default": {str(n): p.show(p.default_at(n)) for n in (4, 5)},
                        "choices": [p.show(choice) for choice in p.choices],
                    }
                    for p in s.parameters
                ],
            }
            for s in SCENARIOS.values()
        ],
        "releases": [
            {"name": r.name, "summary": r.summary, "build": r.build, "sync": r.sync}
            for r in RELEASES.values()
        ],
        "routines": _routines(),
    }


def _routines() -> list[str]:
    """The functions that run on the CPU in one build or another, by what their sources declare."""
    from importlib.resources import files

    folders = [files("asm") / folder for folder in ("mm", "lib", "drivers")]
    sources = sorted((s for f in folders for s in f.iterdir()), key=lambda path: path.name)
    return [
        line.split()[1].rstrip(",")
        for source in sources
        if source.name.endswith(".S")
        for line in source.read_text(encoding="utf-8").splitlines()
        if line.split()[:1] == [".type"] and "@function" in line
    ]
