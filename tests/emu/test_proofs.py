"""The proofs hold here; and each notices an engine that is another one, or a correction that went.

An engine of another kind is played by changing what `bare` or `_unicorn` get from it.
"""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import unicorn
from unicorn import x86_const as x86

from emu import _layout, _native, _unicorn
from emu._unicorn import Engine
from emu.cpu import Cpu
from emu.deviations import DEVIATIONS
from emu.proofs import PROOFS, ProofFailed, bare, hooks, recording, refusals, state
from emu.proofs.bare import Bare, Stopped
from emu.refusals import Refusals

PROOF = {proof.name: proof for proof in PROOFS}


@pytest.mark.parametrize("name", PROOF)
def test_it_holds_here_and_says_what_was_seen_in_one_line(name: str) -> None:
    what = PROOF[name].see()

    assert what
    assert what.isprintable()


def test_names_are_unique() -> None:
    assert len(PROOF) == len(PROOFS)


def test_every_deviation_has_a_proof_of_its_name_and_words() -> None:
    proved = {name: PROOF[name].relies_on for name in DEVIATIONS}

    assert proved == DEVIATIONS


def test_every_reliance_is_one_line() -> None:
    assert [proof.name for proof in PROOFS if not proof.relies_on.isprintable()] == []


# -- another engine


def test_an_unknown_version_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unicorn, "version", lambda: (2, 2, 0))

    with pytest.raises(ProofFailed, match=r"^unicorn 2\.2\.0$"):
        PROOF["version"].see()


def test_another_layout_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_layout, "AT_OLD_EXCEPTION", 5532)

    with pytest.raises(ProofFailed, match="the last exception"):
        PROOF["layout"].see()


@pytest.mark.parametrize("name", ["cpu-model", "smap"])
def test_a_cpu_model_without_the_features_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(x86, "UC_CPU_X86_ICELAKE_SERVER", x86.UC_CPU_X86_CORE2DUO)

    with pytest.raises(ProofFailed):
        PROOF[name].see()


def see_stops_as(monkeypatch: pytest.MonkeyPatch, change: Callable[[Stopped], Stopped]) -> None:
    """Have the engine report each end of a run as `change` says."""
    start = Bare.start
    monkeypatch.setattr(Bare, "start", lambda *args, **more: change(start(*args, **more)))


def test_a_reserved_bit_without_p_as_qemu_7_reports_it_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    see_stops_as(monkeypatch, lambda s: s._replace(error_code=s.error_code & ~1))

    with pytest.raises(ProofFailed, match="PML4E 0x8, PDPTE 0x8, PDE 0x8, PTE 0x8"):
        PROOF["reserved-bits"].see()


@pytest.mark.parametrize(
    "name",
    ["hlt", "invalid-opcode", "software-interrupt", "exceptions", "resume", "outside-ram"],
)
def test_a_rip_that_is_elsewhere_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    see_stops_as(monkeypatch, lambda s: s._replace(rip=s.rip + 1))

    with pytest.raises(ProofFailed):
        PROOF[name].see()


def test_a_page_fault_for_another_page_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    see_stops_as(monkeypatch, lambda s: s._replace(cr2=s.cr2 & ~0xFFF))

    with pytest.raises(ProofFailed):
        PROOF["page-crossing"].see()


@pytest.mark.parametrize("name", ["tlb-flush", "two-engines", "code-remap", "nxe-pke-tlb"])
def test_a_tlb_that_is_not_flushed_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(Bare, "invalidate_tlb", lambda self: None)

    with pytest.raises(ProofFailed):
        PROOF[name].see()


@pytest.mark.parametrize("name", ["tlb-keep", "two-engines", "nxe-pke-tlb"])
def test_a_tlb_that_keeps_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    start = Bare.start

    def forgetful(self: Bare, *args: int, **more: int) -> Stopped:
        self.invalidate_tlb()
        return start(self, *args, **more)

    monkeypatch.setattr(Bare, "start", forgetful)

    with pytest.raises(ProofFailed):
        PROOF[name].see()


@pytest.mark.parametrize("name", ["code-python", "warm-count", "late-hook", "alias-store"])
def test_a_code_cache_that_keeps_nothing_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    start = Bare.start

    def forgetful(self: Bare, *args: int, **more: int) -> Stopped:
        self.uc.ctl_flush_tb()
        return start(self, *args, **more)

    monkeypatch.setattr(Bare, "start", forgetful)

    with pytest.raises(ProofFailed):
        PROOF[name].see()


def test_memory_of_the_last_exception_that_is_gone_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = Bare.start

    def anew(self: Bare, *args: int, **more: int) -> Stopped:
        stopped = start(self, *args, **more)
        self.forget()
        return stopped

    monkeypatch.setattr(Bare, "start", anew)

    with pytest.raises(ProofFailed):
        PROOF["old-exception"].see()


def test_a_fetch_that_is_translated_as_a_load_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unicorn, "UC_PROT_EXEC", unicorn.UC_PROT_READ)

    with pytest.raises(ProofFailed, match="with it: False, 0x0, 0x0, 0x20; False"):
        PROOF["translate-fetch"].see()


def test_ram_that_is_not_sparse_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = iter((0, 1 << 40))
    monkeypatch.setattr(state, "_resident", lambda: next(resident))

    with pytest.raises(ProofFailed, match="became resident"):
        PROOF["sparse-ram"].see()


def test_a_decoder_that_names_other_accesses_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(accesses=lambda _: (), text="zork")
    monkeypatch.setattr(hooks, "decode", lambda _: nothing)

    with pytest.raises(ProofFailed, match="zork: bytes read and written"):
        PROOF["decoder"].see()


@pytest.mark.parametrize("name", ["hook-order", "hook-parts", "hook-repeat", "decoder"])
def test_stores_that_are_reported_as_loads_are_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(hooks, "is_store", lambda kind: False)

    with pytest.raises(ProofFailed):
        PROOF[name].see()


@pytest.mark.parametrize(
    "name",
    ["error-codes", "page-crossing", "smap", "smep-wp", "protection-keys", "rmw-reports-read"],
)
def test_another_exception_in_place_of_a_page_fault_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    see_stops_as(monkeypatch, lambda s: s._replace(vector=13 if s.vector == 14 else s.vector))

    with pytest.raises(ProofFailed):
        PROOF[name].see()


# -- a correction that went


@pytest.mark.parametrize(
    ("name", "correction"),
    [
        ("old-exception", "forget_exception"),
        ("warm-count", "invalidate_code"),
        ("late-hook", "invalidate_code"),
    ],
)
def test_a_lost_correction_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, correction: str
) -> None:
    monkeypatch.setattr(Engine, correction, lambda self: None)

    with pytest.raises(ProofFailed):
        PROOF[name].see()


@pytest.mark.parametrize("name", [proof.name for proof in refusals.PROOFS[:-3]])
def test_a_lost_refusal_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(Refusals, "passes", lambda self: True)

    with pytest.raises(ProofFailed):
        PROOF[name].see()


def test_an_engine_that_tells_of_no_block_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unicorn, "finish_a_block", lambda uc: None)

    with pytest.raises(ProofFailed, match="corrected: 0 call"):
        PROOF["silent-blocks"].see()


def test_a_lost_write_protection_hook_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Cpu.__init__
    monkeypatch.setattr(Cpu, "__init__", lambda self, *args, code: build(self, *args))

    with pytest.raises(ProofFailed):
        PROOF["alias-store"].see()


def test_a_place_is_named_by_its_region() -> None:
    assert bare.place(bare.CODE + 3) == "code+0x3"
    assert bare.place(0x123) == "0x123"


def test_recorders_that_differ_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, fill = _native._assembled(False)
    monkeypatch.setattr(_native, "_assembled", lambda _: (code, b"\xc3", fill))

    with pytest.raises(ProofFailed, match="Python sees others"):
        PROOF["recorder"].see()


def test_a_host_without_machine_code_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "why_not_native", lambda: "riscv64 has another convention")

    assert PROOF["recorder"].see() == "Python records, 20 events: riscv64 has another convention"
