"""The JSON of `pagewalk oops`: schema 1, as users hold on to it.

Knows the names of the document's keys. Refuses to know how any of it is found.
"""

from typing import Any

from kernel_model.reading.explain import access_text, entries, eras, error_bits, places, stop_text
from kernel_model.reading.judge import Verdict
from kernel_model.reading.oopses import Judged, Reading
from kernel_model.reading.proof import Match, history
from kernel_model.reading.text import Frame, OopsText
from kernel_model.scenarios.spec import SCHEMA
from kernel_model.words import show_hex


def oops_document(reading: Reading, match: Match | None) -> dict[str, Any]:
    """Return the document; there must be a first oops."""
    assert reading.first is not None
    oops, depth, verdict = reading.first
    return {
        "schema": SCHEMA,
        "line": oops.line,
        "kind": oops.kind,
        "headline": oops.headline,
        "header": oops.header,
        "number": oops.number,
        "worded_as": oops.wording,
        "address": show_hex(oops.address),
        "error_code": oops.error_code,
        "access": None if oops.error_code is None else access_text(oops.error_code),
        "error_bits": _bits(oops.error_code),
        "table": _table(oops, depth.levels),
        "levels": depth.levels,
        "levels_because": depth.why,
        "places": [] if oops.address is None else _places(oops, oops.address),
        "rip": show_hex(oops.rip_address),
        "symbol": None if oops.rip is None else str(oops.rip),
        "task": _task(oops),
        "registers": {name: f"{value:#x}" for name, value in oops.registers.items()},
        "call_trace": [_frame(frame) for frame in oops.trace],
        "elided": oops.elided,
        "missing": list(oops.missing),
        "unsynced_top_level": verdict.unsynced,
        "because": verdict.why,
        "caveats": list(verdict.caveats),
        "large_page": _large_page(verdict),
        "match": None if match is None else _match(match),
        "nr_others": reading.nr_others,
        "others": [_other(other) for other in reading.others],
    }


def _bits(code: int | None) -> list[dict[str, Any]]:
    return [
        {"name": bit.name, "bit": bit.bit, "set": bit.is_set, "meaning": bit.meaning}
        for bit in (() if code is None else error_bits(code))
    ]


def _table(oops: OopsText, levels: int | None) -> dict[str, Any] | None:
    if not oops.table:
        return None
    return {
        "entries": [
            {
                "name": entry.name,
                "entry": f"{entry.value:#x}",
                "present": entry.present,
                "leaf": entry.leaf,
                "meaning": entry.meaning,
            }
            for entry in entries(oops, levels)
        ],
        "stopped_at": oops.table[-1][0],
        "bad": oops.table_bad,
        "meaning": stop_text(oops),
    }


def _places(oops: OopsText, address: int) -> list[dict[str, Any]]:
    return [
        {
            "levels": place.levels,
            "layout": place.era,
            "slot": place.slot,
            "region": place.region,
            "fixed": place.fixed,
            "fits_wording": place.era in eras(oops),
        }
        for place in places(address)
    ]


def _task(oops: OopsText) -> dict[str, Any] | None:
    if oops.cpu is None:
        return None
    return {
        "cpu": oops.cpu,
        "uid": oops.uid,
        "pid": oops.pid,
        "comm": oops.comm,
        "taint": oops.taint,
        "release": oops.uname,
    }


def _frame(frame: Frame) -> dict[str, Any]:
    return {"symbol": str(frame), "address": show_hex(frame.address), "sure": frame.sure}


def _large_page(verdict: Verdict) -> dict[str, Any] | None:
    page = verdict.large_page
    if page is None:
        return None
    return {
        "pa": f"{page.pa:#x}",
        "size": page.size,
        "entry": page.entry,
        "index": page.slot,
        "accessed_from": f"{page.pa + page.first:#x}",
        "accessed_below": f"{page.pa + page.end:#x}",
    }


def _match(match: Match) -> dict[str, Any]:
    candidate = match.candidate
    return {
        "scenario": candidate.scenario,
        "release": match.release,
        "levels": candidate.levels,
        "settings": candidate.settings,
        "because": list(candidate.because),
        **history(match),
        "reproduces": {
            "exactly": match.exactly,
            "address": match.address,
            "error_code": match.error_code,
            "symbol": match.symbol,
            "lines": list(match.lines),
            "differences": list(match.differences),
        },
    }


def _other(judged: Judged) -> dict[str, Any]:
    oops = judged.oops
    return {
        "line": oops.line,
        "kind": oops.kind,
        "headline": oops.headline,
        "header": oops.header,
        "address": show_hex(oops.address),
        "error_code": oops.error_code,
        "symbol": None if oops.rip is None else str(oops.rip),
        "unsynced_top_level": judged.verdict.unsynced,
    }
