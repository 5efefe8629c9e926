"""One module a command: `configure(parser)` adds its arguments, `run(args)` does it.

`configure` must be cheap; `run` imports what it needs, and returns the exit status.
"""
