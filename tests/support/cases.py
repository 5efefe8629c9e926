"""What kvm-unit-tests' `access.c` takes for a legal combination, read once more.

At MAXPHYADDR 37 to 51 and without protection keys: a free bit for each flag, but fetches do not
write, SMEP is left out, bit 13 of a PDE needs PSE, and one reserved bit is tried at a time.
"""

from itertools import product

FREE = ["efer.nx", "cr0.wp", "user", "write", "fetch", "twice"]
FREE += [f"pde.{word}" for word in ("p", "rw", "user", "a", "d", "pse", "nx", "51", "13")]
FREE += [f"pte.{word}" for word in ("p", "rw", "user", "a", "d", "nx", "51")]


def in_access_c(case, levels):
    """Tell whether a case, spelled out, is one of them."""
    above = {"pml4e", "pml5e"} if levels == 5 else {"pml4e"}
    expected = {f"{entry}.{word}" for entry, word in product(above, ("p", "rw", "user"))}
    expected |= {"pdpte.p", "pdpte.user"}
    if case - set(FREE) - {"pdpte.rw"} != expected:
        return False
    if {"write", "fetch"} <= case or ("pde.13" in case and "pde.pse" not in case):
        return False
    reserved = ["pde.51", "pte.51", "pde.13"]
    if "efer.nx" not in case:
        reserved += ["pde.nx", "pte.nx"]
    return sum(name in case for name in reserved) <= 1
