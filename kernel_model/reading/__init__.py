"""Reading an oops that another kernel printed: from a log to what it means and what dies alike.

In the order of work: `stream` finds the texts in a log, by the words in `patterns`; `text` makes
values of one; `explain` says what they mean; `judge` whether a top-level entry was missing; `match`
which scenario may die so; `proof` runs it. `oopses` is all of it.
"""
