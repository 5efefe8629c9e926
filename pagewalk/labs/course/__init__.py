"""The labs: each module has one as `LAB`, and its text beside it; `files` has what students get.

A lab's name is its module's, with `-` for `_`. Adding a lab is adding these: `NAME.py`, `NAME.md`,
and `files/NAME`.
"""
