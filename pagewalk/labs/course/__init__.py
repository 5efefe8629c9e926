"""The labs: each module has one as `LAB`, each text stands beside its module.

A lab's name is its module's, with `-` for `_`. Adding a lab is adding these two files.
"""
