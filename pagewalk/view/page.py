"""The page: one file with everything in it, and a policy that forbids it to fetch anything.

Knows how its parts are put together. Refuses to know what they do: page.html is the outline,
the styles the looks, and the scripts, in this order, what moves.
"""

import base64
import hashlib
from collections.abc import Callable
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from pagewalk.playback.moments import Playback
from pagewalk.view.document import document
from pagewalk.view.packing import pack

STYLES: Final = ("page.css", "parts.css")
SCRIPTS: Final = (
    "data.js",
    "paging.js",
    "dom.js",
    "fields.js",
    "timeline.js",
    "verdict.js",
    "walk.js",
    "forest.js",
    "tree.js",
    "slots.js",
    "page.js",
)


def page(playback: Playback, progress: Callable[[int], object] | None = None) -> bytes:
    """Return the page of a playback; `progress` as `document` has it."""
    facts, columns = document(playback, progress)
    style = "\n".join(map(read, STYLES))
    script = "\n".join(map(read, SCRIPTS))
    filled = Template(read("page.html")).substitute(
        title=escape(playback.title),
        policy=escape(policy(style, script)),
        style=style,
        script=script,
        data=pack(facts, columns),
    )
    return filled.encode()


def policy(style: str, script: str) -> str:
    """Return the content security policy: this style, this script, and nothing from anywhere."""
    return f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"


def read(name: str) -> str:
    """Return one of the page's parts."""
    return files("pagewalk.view").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
