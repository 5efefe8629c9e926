"""What the pytest plugin is made of; loaded when a test asks for one of its fixtures.

`machine` and `kernel` are what the fixtures of these names give, `programs` what `assemble` does.
`watch` remembers how runs ended and what was recorded of them; `expect` asserts, `expectation`
compares, `report` tells. `variants` reads the marks, and `snapshots` is for syrupy: only these two
know pytest.
"""
