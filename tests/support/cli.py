"""Run the command line inside this process."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout

from pagewalk.cli import main


def run_cli(*arguments, parse=True):
    """Return exit status, standard output (read as JSON if `parse`), and standard error."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        status = main(list(arguments))
    text = output.getvalue()
    return status, json.loads(text) if parse else text, errors.getvalue()
