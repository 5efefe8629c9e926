"""The sweep: a matrix of accesses, each judged by the CPU, by the walk and by an oracle.

`oracle` says what must happen, from the names of a case's conditions; `conditions` knows the
names, `families` the cases, `entries` what a name is in a page table; `judging` runs a case and
compares, `work` does that on every core or on a cluster, `journal` remembers what is done, and
`report` tells what was found.
"""
