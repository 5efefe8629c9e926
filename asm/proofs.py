"""What is relied on of keystone and capstone, and how to see each.

Knows the behaviours by name: what the bare tool does, and what asm makes of it. Refuses to know
who asks.

`emu.proofs` has the same for the engine. The form is written twice, there and here: neither
package may import the other, and that is the price of the arrow. A test holds them alike.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from asm.assembler import assemble
from asm.engines import decode, encode_text
from asm.errors import AssemblyError


class ProofFailed(Exception):
    """The behaviour is another one. The text says what was seen instead."""


class Proof(NamedTuple):
    """`see` returns what was seen, or raises ProofFailed with what was seen instead."""

    name: str
    relies_on: str
    see: Callable[[], str]


def proof(name: str, relies_on: str) -> Callable[[Callable[[], str]], Proof]:
    """Make a Proof of the function below."""
    return lambda see: Proof(name, relies_on, see)


def seen(holds: bool, what: str) -> str:
    """Return what was seen if it is as it should be; raise ProofFailed with it if not."""
    if not holds:
        raise ProofFailed(what)
    return what


# Keystone's bytes for what does not fit; the last two become pushes of 16 bits.
_TRUNCATED: Final = {
    "mov al, 0x12c": "b02c",
    "mov eax, 0x100000000": "b800000000",
    "mov rax, qword ptr [rdi + 0x8000000000]": "488b4700",
    "push 0x80000000": "66680000",
}
# Keystone's bytes, and those of GNU as.
_CORRECTED: Final = {
    "pushf": ("669c", "9c"),
    "nop dword ptr [rax]": ("0f1820", "0f1f00"),
    "mov ds, rax": ("488ed8", "8ed8"),
}
# Keystone never comes back from the first three, and cannot even be given the last.
_KEPT_FROM_KEYSTONE: Final = (
    ".double 1.5",
    ".float 1.5",
    ".quad 0x10000000000000000",
    "mov eax, 'é'",
)
_FIELDS: Final = {  # bytes, and the offsets of ModRM, displacement and immediate (0: has none)
    "mov dword ptr [rbx + 4*rcx + 0x11223344], 0x55667788": ("c7848b4433221188776655", 1, 3, 7),
    "mov qword ptr gs:[0x28], -1": ("6548c70425280000 00ffffffff", 3, 5, 9),
    "add byte ptr [rax + 0x10], 0x20": ("80401020", 1, 2, 3),
    "lea rax, [rip + 0x11223344]": ("488d0544332211", 2, 3, 0),
    "movabs rax, 0x1122334455667788": ("48b88877665544332211", 0, 0, 2),
}


@proof("keystone-radix", "keystone reads plain numbers as decimal while none of its options is set")
def keystone_radix() -> str:
    import keystone

    code = encode_text("mov eax, 10").hex()
    fresh = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    fresh.syntax = keystone.KS_OPT_SYNTAX_INTEL
    with_option = bytes(fresh.asm("mov eax, 10", 0, as_bytes=True)[0]).hex()
    return seen(
        (code, with_option) == ("b80a000000", "b810000000"),
        f"`mov eax, 10` is {code}; with an option set it is {with_option}",
    )


@proof("keystone-truncates", "keystone cuts constants that do not fit; asm refuses each of them")
def keystone_truncates() -> str:
    found = {text: encode_text(text).hex() for text in _TRUNCATED}
    accepted = [text for text in _TRUNCATED if not _refused(text)]
    return seen(
        found == _TRUNCATED and not accepted,
        f"{_listed(found)}; accepted by asm: {', '.join(accepted) or 'none'}",
    )


@proof("keystone-corrected", "keystone's other choices of encoding become those of GNU as")
def keystone_corrected() -> str:
    found = {text: (encode_text(text).hex(), _assembled(text)) for text in _CORRECTED}
    return seen(
        found == _CORRECTED,
        ", ".join(f"`{text}` is {bare}, from asm {ours}" for text, (bare, ours) in found.items()),
    )


@proof("keystone-rip", "keystone takes the number in [rip + n] for the displacement itself")
def keystone_rip() -> str:
    relative = encode_text("mov rbx, qword ptr [rip + 0x11223344]").hex()
    absolute = _assembled("mov rbx, qword ptr [0x11223344]")
    return seen(
        (relative, absolute) == ("488b1d44332211", "488b1c2544332211"),
        f"[rip + 0x11223344] is {relative}; asm makes an absolute address of it: {absolute}",
    )


@proof("keystone-hangs", "what makes keystone hang or crash does not reach it")
def keystone_hangs() -> str:
    accepted = [text for text in _KEPT_FROM_KEYSTONE if not _refused(text)]
    section = _assembled(".text\nnop")  # keystone crashes
    return seen(
        not accepted and section == "90",
        f"asm refuses {', '.join(ascii(t) for t in _KEPT_FROM_KEYSTONE if t not in accepted)}; "
        f"`.text` and `nop` is {section}",
    )


@proof("capstone-offsets", "capstone tells where ModRM, displacement and immediate lie")
def capstone_offsets() -> str:
    differing = {}
    for text, (code, *wanted) in _FIELDS.items():
        decoded = decode(bytes.fromhex(code), text)
        found = [decoded.modrm_offset, decoded.disp_offset, decoded.imm_offset]
        if found != wanted:
            differing[text] = f"{found} and not {wanted}"
    return seen(
        not differing, _listed(differing) or f"{len(_FIELDS)} instructions, all where they lie"
    )


def _assembled(text: str) -> str:
    return assemble(text).sections[".text"].data.hex()


def _refused(text: str) -> str:
    """Return asm's refusal, or "" if there is none."""
    try:
        assemble(text)
    except AssemblyError as error:
        return str(error).partition("\n")[0]
    return ""


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"`{text}` is {code}" for text, code in found.items())


PROOFS: Final[tuple[Proof, ...]] = (
    keystone_radix,
    keystone_truncates,
    keystone_corrected,
    keystone_rip,
    keystone_hangs,
    capstone_offsets,
)
