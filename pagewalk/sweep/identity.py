"""Which code judges: what a finished unit is worth depends on it.

Knows the product's version, the engine's, and a digest of the sources of both judges. Loads none
of them.
"""

from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_JUDGES: Final = ("emu", "pagewalk.sweep")


@cache
def identity() -> dict[str, str]:
    """Return the versions and the digest."""
    return {
        "pagewalk": version("pagewalk"),
        "unicorn": version("unicorn"),
        "sources": _digest(),
    }


def _digest() -> str:
    found = sha256()
    for package in _JUDGES:
        spec = find_spec(package)
        assert spec is not None
        for folder in spec.submodule_search_locations or ():
            for path in sorted(Path(folder).rglob("*.py")):
                found.update(path.relative_to(folder).as_posix().encode() + b"\0")
                found.update(path.read_bytes())
    return found.hexdigest()
