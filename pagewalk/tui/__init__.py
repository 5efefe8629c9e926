"""`pagewalk tui`: a run in a terminal, forwards and backwards. Needs the extra `tui`."""
