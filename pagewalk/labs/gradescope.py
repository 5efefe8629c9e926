"""A report as Gradescope's autograder reads it: the form of its results.json.

Knows the names there. Source: "Autograder Specifications", "Output format"
(gradescope-autograders.readthedocs.io).
"""

from typing import Any

from pagewalk.labs.checking import Report


def results(report: Report) -> dict[str, Any]:
    """Return the document: the lab is the assignment, its parts are the tests."""
    lab = report.lab
    return {
        "score": report.earned,
        "output": f"Lab {lab.number}, {lab.title}. Seed: {report.seed}",
        "output_format": "text",
        "visibility": "visible",
        "tests": [
            {
                "number": str(number),
                "name": result.title,
                "score": result.earned,
                "max_score": result.possible,
                "status": "failed" if result.reason else "passed",
                "output": result.reason or "",
                "output_format": "text",
                "visibility": "visible",
            }
            for number, result in enumerate(report.results, 1)
        ],
        "extra_data": {"lab": lab.name, "seed": report.seed, "edition": lab.edition},
    }
