"""Trace files: what is written of a recording, and read back.

`files` is the way in for writers, `reading` for readers. A format is a file of its own, and knows
nothing of the others; numpy, zstandard and pyarrow are loaded by those that need them.
"""
