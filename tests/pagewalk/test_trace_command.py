"""`pagewalk trace FILE.S`: what it prints of a run, through the command line."""

import json
from pathlib import Path

import pytest
from support.cli import run_cli

TEXT = 0xFFFF_FFFF_8100_0000
COPY = """
# pagewalk: --map 0x1000=0x2000:rw --reg rdi=0x1000
# pagewalk: --reg rsi=source --reg rcx=2
    .type copy, @function
copy:
    rep movsb
    call done
    ret
    .size copy, . - copy
done:
    mov rax, [rip + source]
    ret
    .data
source: .quad 0x1122334455667788
"""
SPIN = "spin: jmp spin\n"
STORE = "f: mov [rdi], eax\n ret\n"


@pytest.fixture
def traced(tmp_path):
    """Trace a source given as text."""

    def trace(source, *options, **named):
        file = tmp_path / "file.S"
        file.write_text(source)
        return run_cli("trace", str(file), *options, **named)

    return trace


@pytest.fixture
def document(traced):
    """Trace a source given as text, and return the JSON."""

    def trace(source, *options):
        _, found, errors = traced(source, "--json", *options)
        assert errors == ""
        return found

    return trace


def events(document):
    """The events but the walks: which there are is `emu`'s to test."""
    return [event for event in document["events"] if event["event"] != "walk"]


def kinds(document):
    return [event["event"] for event in events(document)]


# ------------------------------------------------------------------ a run that returns


def test_a_routine_that_returns_has_completed(traced):
    status, document, _ = traced(COPY, "--json")

    assert status == 0
    assert document["schema"] == 1
    assert document["outcome"] == "completed"
    assert document["stop"] == {"kind": "returned", "value": "0x1122334455667788"}
    assert document["instructions"] == 6


def test_every_instruction_has_address_symbol_bytes_and_text(document):
    events = document(COPY)["events"]

    calls = [event for event in events if event.get("text", "").startswith("call")]
    assert calls == [
        {
            "event": "instruction",
            "rip": f"{TEXT + 2:#x}",
            "symbol": "copy+0x2/0x8",
            "bytes": "e8 01 00 00 00",
            "text": f"call {TEXT + 8:#x}",
        }
    ]


def test_every_access_has_both_addresses_size_and_value(document):
    found = document(COPY)

    assert events(found)[2] == {
        "event": "write", "va": "0x1000", "pa": "0x2000", "size": 1, "value": "0x88",
    }  # fmt: skip
    assert kinds(found)[:6] == ["instruction", "read", "write"] * 2


def test_the_text_says_the_same(traced):
    status, output, errors = traced(COPY, parse=False)

    assert (status, errors) == (0, "")
    assert "    write 1 at 0000000000001000 pa 0x2000  0x88\n" in output
    assert output.endswith("completed: returned 0x1122334455667788 after 6 instructions\n")
    assert "\x1b" not in output


def test_a_cr3_switch_is_shown(document):
    events = document("f: mov rax, cr3; or rax, 8; mov cr3, rax; ret")["events"]

    switch = next(event for event in events if event["event"] == "cr3")
    assert int(switch["new"], 16) == int(switch["old"], 16) | 8


@pytest.mark.parametrize("levels", ["4", "5"])
@pytest.mark.parametrize("mode", [[], ["--user"]])
def test_it_runs_in_every_mode(document, levels, mode):
    found = document("f: push 1; pop rax; ret", "--levels", levels, *mode)

    assert found["outcome"] == "completed"
    assert found["levels"] == int(levels)
    assert found["cpl"] == (3 if mode else 0)


def test_the_first_function_is_run_and_not_the_first_label(document):
    source = "label: ud2\n .type f, @function\nf: mov eax, 5\n ret\n"

    assert document(source)["stop"]["value"] == "0x5"


def test_entry_chooses_another_symbol(document):
    assert document("a: ud2\nb: mov eax, 7; ret", "--entry", "b")["stop"]["value"] == "0x7"


def test_a_constant_of_the_command_line_outranks_the_files(document):
    source = "# pagewalk: --set N=1\nf: mov eax, N; ret"

    assert document(source)["stop"]["value"] == "0x1"
    assert document(source, "--set", "N=2")["stop"]["value"] == "0x2"


@pytest.mark.parametrize(
    ("options", "value"),
    [([], "0x11"), (["--reg", "rdi=0x22"], "0x22"), (["--reg", "rdi=16"], "0x10")],
)
def test_a_register_of_the_command_line_outranks_the_files(document, options, value):
    source = "# pagewalk: --reg rdi=0x11\nf: mov rax, rdi; ret"

    assert document(source, *options)["stop"]["value"] == value


def test_the_command_line_turns_user_mode_off(document):
    source = "# pagewalk: --user\nf: mov rax, cr3; ret"

    assert document(source)["outcome"] == "fault"
    assert document(source, "--no-user")["outcome"] == "completed"


def test_a_map_of_the_command_line_replaces_the_files(document):
    source = "# pagewalk: --map 0x1000=0x2000:r --reg rdi=0x1000\n" + STORE

    assert document(source)["outcome"] == "fault"
    assert events(document(source, "--map", "0x1000=0x3000:rw"))[1]["pa"] == "0x3000"


def test_a_map_of_many_pages_maps_all_of_them(document):
    options = "--map", "0x200000=0x400000+4M:rw", "--reg", "rdi=0x5ffffc"

    assert events(document(STORE, *options))[1]["pa"] == "0x7ffffc"


def test_a_routine_may_run_in_a_page_that_it_has_written(document):
    source = "f: mov byte ptr [rdi], 0xc3; call rdi; mov byte ptr [rdi], 0x90; ret"

    found = document(source, "--map", "0x1000=0x2000:wx", "--reg", "rdi=0x1000")

    assert [e["bytes"] for e in found["events"] if e.get("rip") == "0x1000"] == ["c3"]


# ------------------------------------------------------------------ a run that does not


def test_a_fault_tells_its_walk_and_the_rule(traced):
    status, output, _ = traced(
        STORE, "--map", "0x1000=0x2000:r", "--reg", "rdi=0x1000", parse=False
    )

    assert status == 1
    assert "mov dword ptr [rdi], eax   <-- faults\n" in output
    assert "#PF at 0x1000: supervisor write, wp, error code 0x3" in output
    assert "PTE   pte     [  1]" in output
    assert "refused by wp: a supervisor write, and CR0.WP is set: RW is clear in the PTE" in output


def test_a_fault_is_the_last_event_and_the_stop(document):
    found = document(STORE, "--reg", "rdi=0x8000000034")

    assert kinds(found) == ["fault"]
    assert found["stop"].items() <= found["events"][-1].items()
    assert found["stop"]["address"] == "0x8000000034"
    assert found["stop"]["reason"] == "not-present"
    assert [step["level"] for step in found["stop"]["walk"]] == [4]
    assert found["instructions"] == 0


@pytest.mark.parametrize(
    ("source", "options", "outcome", "kind"),
    [
        (STORE, [], "fault", "page-fault"),
        ("f: ud2", [], "fault", "trap"),
        ("f: nop", [], "fault", "trap"),  # runs off its end, into int3
        ("f: hlt", ["--user"], "fault", "trap"),
        ("f: hlt", [], "halted", "halted"),
        (SPIN, ["--max-steps", "3"], "limit", "limit"),
        ("f: mov cr3, rdi", ["--reg", "rdi=0x8000000000"], "outside-ram", "outside-ram"),
        ("f: push 1", ["--reg", "rsp=0x1000"], "fault", "page-fault"),
        ("f: mov [rip + x], al\n .section .rodata, \"a\"\nx: .byte 0", [], "fault", "page-fault"),
        ("f: jmp x\n .data\nx: nop", [], "fault", "page-fault"),
    ],
)  # fmt: skip
def test_other_ends_are_status_1(traced, source, options, outcome, kind):
    status, document, _ = traced(source, "--json", *options)

    assert (status, document["outcome"], document["stop"]["kind"]) == (1, outcome, kind)


@pytest.mark.parametrize(
    ("rights", "access", "reason"),
    [("rw", "write", "us"), ("ru", "write", "rw"), ("rwu", None, None)],
)
def test_a_user_routine_needs_user_pages(document, rights, access, reason):
    found = document(STORE, "--user", "--map", f"0x1000=0x2000:{rights}", "--reg", "rdi=0x1000")

    assert found["stop"].get("access") == access
    assert found["stop"].get("reason") == reason


def test_a_routine_that_never_returns_says_so(traced):
    status, output, _ = traced(SPIN, "--max-steps", "5", parse=False)

    assert status == 1
    assert "limit: stopped after 5 steps" in output
    assert "--max-steps allows more" in output


@pytest.mark.parametrize("steps", range(1, 9))
def test_the_limit_is_exact(document, steps):
    source = "f: mov ecx, 3; rep stosb; nop; nop; ret"  # 1 + 3 + 2 + 1
    options = "--map", "0x1000=0x2000:w", "--reg", "rdi=0x1000"

    found = document(source, *options, "--max-steps", str(steps))

    assert found["instructions"] == min(steps, 7)
    assert found["outcome"] == ("limit" if steps < 7 else "completed")


def test_a_run_of_many_slices_is_whole(document):
    found = document("f: mov ecx, 30000; 1: dec ecx; jnz 1b; ret")

    assert found["outcome"] == "completed"
    assert found["instructions"] == len(events(found)) - 1 == 60002


def test_what_the_engine_cannot_do_is_said_in_one_line(traced):
    source = "f: iretd"  # which looks for its frame at the lower half of RSP

    status, output, errors = traced(source, "--json", parse=False)

    assert (status, errors.count("\n")) == (1, 1)
    assert json.loads(output)["outcome"] == "error"
    assert "the engine cannot go on: the CPU reports #PF at 0x3ff8" in errors


def test_where_there_is_ram_rsp_gets_the_return_address(document):
    options = "--map", "0x1000=0x2000:rw", "--reg", "rsp=0x1ff0"

    assert document("f: ret", *options)["outcome"] == "completed"


def test_an_invalid_opcode_is_shown_with_its_own_bytes(document):
    fault = document("f: ud2")["events"][-1]

    assert (fault["bytes"], fault["text"]) == ("0f 0b", "ud2")


# ------------------------------------------------------------------ exceptions that are handled


@pytest.fixture
def handled():
    """The example that takes a page fault through its own IDT."""
    return run_cli("trace", "docs/examples/handler.S", "--json")


def test_a_fault_that_the_guest_handles_is_an_event_and_the_run_completes(handled):
    status, document, errors = handled

    assert (status, errors, document["outcome"]) == (0, "", "completed")
    assert document["stop"]["value"] == "0x600df00d"
    (event,) = (event for event in document["events"] if event["event"] == "exception")
    (fault,) = event["exceptions"]
    assert (fault["address"], fault["error_code"], fault["reason"]) == (
        "0xdead000",
        0,
        "not-present",
    )
    assert event["handler_symbol"].startswith("page_fault+0x0/")
    assert event["text"] == "mov rax, qword ptr [rdi]"


def test_the_text_names_the_handler_and_its_stack():
    status, text, _ = run_cli("trace", "docs/examples/handler.S", parse=False)

    assert status == 0
    assert "<-- faults\n    #PF at 0xdead000: supervisor read, not-present" in text
    assert "-> handler 0xffffffff81000039 (page_fault+0x0/0x10), CPL 0, RSP 0xffff" in text


def test_the_walk_of_a_handled_fault_begins_at_the_cr3_that_its_handler_replaces(traced):
    source = Path("docs/examples/handler.S").read_text()
    switch = "mov rax, cr3\n or rax, 0x18\n mov cr3, rax\n"

    _, text, _ = traced(source.replace("    mov     rsi, cr2", switch), parse=False)

    (switched,) = (line.split() for line in text.splitlines() if line.startswith("    CR3 0x"))
    assert f"    CR3 = {switched[1]}, 4 levels" in text.splitlines()


def test_an_idt_of_limit_0_shuts_the_machine_down(traced):
    source = "f: lidt [rip + idtr]\n ud2\n .data\nidtr: .word 0\n .quad 0\n"

    status, document, _ = traced(source, "--json")

    assert (status, document["outcome"]) == (1, "shutdown")
    vectors = [exc["vector"] for exc in document["stop"]["exceptions"]]
    assert vectors == [6, 13, 13, 8, 13]


def test_a_handler_that_mends_nothing_ends_at_the_limit(traced):
    source = """
f:  lea rax, [rip + handler]
    lea rdi, [rip + gate]
    mov [rdi], ax
    shr rax, 16
    mov [rdi + 6], ax
    shr rax, 16
    mov [rdi + 8], eax
    lgdt [rip + gdtr]
    lidt [rip + idtr]
    ud2
handler: iretq
    .data
idt: .zero 6 * 16
gate: .word 0, 0x10, 0x8e00, 0
    .quad 0
gdt: .quad 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdtr: .word 31
    .quad gdt
idtr: .word 7 * 16 - 1
    .quad idt
"""
    status, document, _ = traced(source, "--json", "--max-steps", "100")

    assert (status, document["outcome"]) == (1, "limit")
    assert sum(event["event"] == "exception" for event in document["events"]) == 46
