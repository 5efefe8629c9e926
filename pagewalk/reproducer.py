"""A pytest test that reproduces an oops, as text.

Knows what such a test asserts: what the run and the oops have in common. Refuses to know how the
scenario was found.
"""

import json
from collections.abc import Iterator

from kernel_model.reading.proof import Match


def command_line(match: Match) -> str:
    """Return the command that runs what was matched."""
    candidate = match.candidate
    words = ["pagewalk run", candidate.scenario, f"--release {match.release}"]
    if candidate.levels != 4:
        words.append(f"--levels {candidate.levels}")
    words += [f"--set {name}={value}" for name, value in candidate.settings.items()]
    return " ".join(words)


def test_lines(match: Match) -> Iterator[str]:
    """Yield the lines of a test module that runs with pytest as it is."""
    candidate = match.candidate
    yield '"""An oops that was reported, reproduced. The lines are those that the report has."""'
    yield ""
    yield "from kernel_model.scenarios import run_scenario"
    yield ""
    yield f"# {command_line(match)}"
    for difference in match.differences:
        yield f"# not reproduced: {difference}"
    yield "LINES = ["
    yield from (f"    {json.dumps(line)}," for line in match.lines)
    yield "]"
    yield ""
    yield ""
    yield "def test_the_reported_oops_is_reproduced():"
    yield "    run = run_scenario("
    yield f"        {json.dumps(candidate.scenario)},"
    yield f"        release={json.dumps(match.release)},"
    yield f"        levels={candidate.levels},"
    yield f"        settings={json.dumps(candidate.settings)},"
    yield "    )"
    yield ""
    yield "    with run.kernel:"
    yield "        fault, oops = run.ending.stop, run.oops"
    yield ""
    yield f"    assert run.outcome == {json.dumps(match.ran.outcome)}"
    if match.address:
        yield f"    assert fault.address == {match.ran.address:#x}"
    if match.error_code:
        yield f"    assert fault.error_code == {match.ran.error_code:#x}"
    if match.symbol:
        yield f"    assert fault.symbol == {json.dumps(match.ran.symbol)}"
    yield "    assert [line for line in LINES if line not in oops] == []"
