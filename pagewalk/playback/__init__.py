"""A run that can be looked at, at any of its events: what `view` and `tui` show.

moments        what there is to ask of it, by how many events have happened
choosing       which run a user means
of_scenario    of_trace    of_source    where it comes from
kernel_tables  a kernel's page tables in RAM
chosen_events  which events of a long run are kept
entry_values   what entries held when
"""
