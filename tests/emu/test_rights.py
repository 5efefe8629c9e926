"""Each rule by its id: who is refused, with which error code, and which rule comes first."""

import pytest

from emu import Access, PageFault, Paging, PhysAddr, Refusal, VirtAddr, Walk, refusal
from emu.fault import PF_I, PF_P, PF_PK, PF_RSVD, PF_U, PF_W, access_of
from emu.paging import PS, RW, US, XD, P
from emu.walk import Step

VA = VirtAddr(0x1000)
READ, WRITE, FETCH = Access("read"), Access("write"), Access("fetch")
USER_READ, USER_WRITE, USER_FETCH = (Access(kind, user=True) for kind in ("read", "write", "fetch"))
ALL = P | RW | US
KEY_5 = 5 << 59
OPEN = Paging.long_mode(0)


def walk_of(*entries: int, verdict: str = "mapped") -> Walk:
    """A walk that read these entries, root first; missing upper ones allow everything."""
    steps = tuple(
        Step(level, PhysAddr(0), entry)
        for level, entry in zip((4, 3, 2, 1), (ALL,) * (4 - len(entries)) + entries, strict=True)
    )
    return Walk(VA, steps, verdict, PhysAddr(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("access", [READ, WRITE, FETCH, USER_READ, USER_WRITE, USER_FETCH])
def test_a_page_that_allows_everything_refuses_nobody(access: Access) -> None:
    assert refusal(walk_of(ALL), access, OPEN) is None


@pytest.mark.parametrize(
    ("access", "code"),
    [(READ, 0), (WRITE, PF_W), (FETCH, PF_I), (USER_READ, PF_U), (USER_WRITE, PF_U | PF_W)],
)
def test_not_present_says_how_the_page_was_touched(access: Access, code: int) -> None:
    found = walk_of(0, verdict="not-present")

    assert refusal(found, access, OPEN) == Refusal(code, "not-present")


@pytest.mark.parametrize(
    ("entry", "paging", "rule"),
    [
        (1 << 40 | P, OPEN, "rsvd-maxphyaddr"),
        (XD | P, Paging.long_mode(0, nxe=False), "rsvd-xd"),
        (XD | 1 << 45 | P, Paging.long_mode(0, nxe=False), "rsvd-xd"),
    ],
)
def test_a_reserved_bit_is_present_and_reserved(entry: int, paging: Paging, rule: str) -> None:
    found = walk_of(entry, verdict="reserved-bit")

    assert refusal(found, READ, paging) == Refusal(PF_P | PF_RSVD, rule)


def test_a_reserved_ps_and_a_crooked_large_page_have_rules_of_their_own() -> None:
    ps = Walk(VA, (Step(4, PhysAddr(0), PS | P),), "reserved-bit", PhysAddr(0))
    large = Walk(VA, (Step(2, PhysAddr(0), PS | P | 1 << 13),), "reserved-bit", PhysAddr(0))

    assert refusal(ps, READ, OPEN) == Refusal(PF_P | PF_RSVD, "rsvd-ps")
    assert refusal(large, WRITE, OPEN) == Refusal(PF_P | PF_RSVD | PF_W, "rsvd-large")


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize(
    ("access", "missing", "rule", "code"),
    [
        (USER_READ, US, "us", PF_U),
        (USER_WRITE, US, "us", PF_U | PF_W),
        (USER_FETCH, US, "us", PF_U | PF_I),
        (USER_WRITE, RW, "rw", PF_U | PF_W),
        (WRITE, RW, "wp", PF_W),
    ],
)
def test_a_right_must_be_given_at_every_level(
    level: int, access: Access, missing: int, rule: str, code: int
) -> None:
    entries = [ALL] * 4
    entries[level] &= ~missing

    assert refusal(walk_of(*entries), access, OPEN) == Refusal(code | PF_P, rule)


@pytest.mark.parametrize("level", range(4))
def test_xd_at_one_level_is_enough(level: int) -> None:
    entries = [ALL] * 4
    entries[level] |= XD

    assert refusal(walk_of(*entries), FETCH, OPEN) == Refusal(PF_P | PF_I, "xd")
    assert refusal(walk_of(*entries), READ, OPEN) is None


def test_without_wp_a_supervisor_may_write_what_is_read_only() -> None:
    paging = Paging.long_mode(0, wp=False)

    assert refusal(walk_of(P | US), WRITE, paging) is None
    assert refusal(walk_of(P | US), USER_WRITE, paging) == Refusal(PF_P | PF_W | PF_U, "rw")


def test_smep_keeps_a_supervisor_from_fetching_user_pages_only() -> None:
    paging = Paging.long_mode(0, smep=True)

    assert refusal(walk_of(ALL), FETCH, paging) == Refusal(PF_P | PF_I, "smep")
    assert refusal(walk_of(P | RW), FETCH, paging) is None
    assert refusal(walk_of(ALL), USER_FETCH, paging) is None
    assert refusal(walk_of(ALL), READ, paging) is None


@pytest.mark.parametrize("kind", ["read", "write"])
def test_smap_keeps_a_supervisor_from_user_data_unless_ac_is_set(kind: str) -> None:
    paging = Paging.long_mode(0, smap=True)
    explicit, with_ac = Access(kind), Access(kind, ac=True)  # type: ignore[arg-type]
    code = PF_P | (PF_W if kind == "write" else 0)

    assert refusal(walk_of(ALL), explicit, paging) == Refusal(code, "smap")
    assert refusal(walk_of(ALL), with_ac, paging) is None
    assert refusal(walk_of(P | RW), explicit, paging) is None


def test_ac_does_not_help_an_implicit_access() -> None:
    access = Access("read", implicit=True, ac=True)

    assert refusal(walk_of(ALL), access, Paging.long_mode(0, smap=True)) == Refusal(PF_P, "smap")


@pytest.mark.parametrize(
    ("pkru", "access", "rule"),
    [
        (1 << 10, USER_READ, "pk-ad"),
        (1 << 10, READ, "pk-ad"),
        (1 << 10, USER_WRITE, "pk-ad"),
        (2 << 10, USER_WRITE, "pk-wd"),
        (2 << 10, WRITE, "pk-wd"),
        (2 << 10, USER_READ, None),
        (1 << 10, USER_FETCH, None),
        (~(3 << 10) & 0xFFFF_FFFF, USER_WRITE, None),
    ],
)
def test_protection_keys_bind_data_accesses_to_user_pages(
    pkru: int, access: Access, rule: str | None
) -> None:
    paging = Paging.long_mode(0, pke=True, pkru=pkru)

    refused = refusal(walk_of(ALL | KEY_5), access, paging)

    assert (refused and refused.reason) == rule
    assert (refused and refused.error_code & (PF_PK | PF_P)) in (None, PF_PK | PF_P)


def test_a_supervisor_page_has_no_key() -> None:
    paging = Paging.long_mode(0, pke=True, pkru=0xFFFF_FFFF)

    assert refusal(walk_of(P | RW | KEY_5), WRITE, paging) is None


def test_without_wp_write_disable_does_not_bind_a_supervisor() -> None:
    paging = Paging.long_mode(0, wp=False, pke=True, pkru=2 << 10)

    assert refusal(walk_of(ALL | KEY_5), WRITE, paging) is None
    assert refusal(walk_of(ALL | KEY_5), USER_WRITE, paging) is not None


def test_keys_mean_nothing_without_pke() -> None:
    paging = Paging.long_mode(0, pkru=0xFFFF_FFFF)

    assert refusal(walk_of(ALL | KEY_5), USER_WRITE, paging) is None


def test_the_fetch_bit_is_reported_with_nxe_or_smep_only() -> None:
    found = walk_of(0, verdict="not-present")

    assert refusal(found, FETCH, Paging.long_mode(0, nxe=False)) == Refusal(0, "not-present")
    assert refusal(found, FETCH, Paging.long_mode(0, nxe=False, smep=True)) == Refusal(
        PF_I, "not-present"
    )


@pytest.mark.parametrize("verdict", ["outside-ram", "non-canonical"])
def test_a_walk_that_no_page_fault_can_end_is_refused(verdict: str) -> None:
    with pytest.raises(ValueError, match=f"va 0x1000 is {verdict}"):
        refusal(walk_of(ALL, verdict=verdict), READ, OPEN)


@pytest.mark.parametrize(
    ("code", "kind"), [(0, "read"), (PF_W, "write"), (PF_I, "fetch"), (PF_U | PF_P, "read")]
)
def test_the_error_code_names_the_kind_of_access(code: int, kind: str) -> None:
    assert access_of(code) == kind
    assert PageFault(VA, code, VA).access == kind
