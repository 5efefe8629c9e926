"""Shell completion: what a shell is told, asked as shells ask; and in a real bash."""

import os
import shutil
import subprocess
import sys

import pytest
from support.cli import run_cli

from pagewalk.completion import SHELLS


def offered(line, directory=None):
    """What the shell is told for a line with the cursor at its end."""
    reader, writer = os.pipe()
    asked = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE": "1"}
    asked |= {"_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "fish"}
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -m pagewalk 8>&{writer} 9>/dev/null', sys.executable],
        env=os.environ | asked,
        pass_fds=[writer],
        cwd=directory,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 0
    with open(reader, encoding="utf-8") as answer:
        return [word.partition("\t")[0].strip() for word in answer.read().split("\n") if word]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pagewalk ru", ["run"]),
        ("pagewalk run vmemmap-", ["vmemmap-devdax", "vmemmap-subpmd"]),
        ("pagewalk run vmemmap-devdax --rel", ["--release"]),
        ("pagewalk run vmemmap-devdax --release 6.1", ["6.13", "6.16", "6.17"]),
        ("pagewalk run vmemmap-devdax --build 6.1", ["6.13-drm-tip"]),
        ("pagewalk run vmemmap-devdax --set st", ["start=", "struct_page="]),
        ("pagewalk run vmemmap-devdax --set task=", ["task=early", "task=late", "task=init_mm"]),
        ("pagewalk audit vmemmap-devdax --set al", ["align="]),
        ("pagewalk run vmemmap-devdax --expect ", ["oops", "ok"]),
        ("pagewalk walk 0x1000 --levels ", ["4", "5"]),
        ("pagewalk walk 0x1000 --scenario hot", ["hot-readd"]),
        ("pagewalk sweep --family ke", ["keys"]),
        ("pagewalk completion f", ["fish"]),
        ("pagewalk diff init_mm ", ["init_mm"]),
        ("pagewalk lab new c", ["cr3", "cow"]),
        ("pagewalk lab new cr3 --seed v", []),
        ("pagewalk walk 0xff", []),
    ],
)
def test_what_may_stand_there_is_offered(line, words):
    assert offered(line) == words


def test_only_files_that_a_command_reads_are_offered(tmp_path):
    for name in ("one.S", "two.txt", "three.jsonl.zst"):
        (tmp_path / name).touch()

    assert offered("pagewalk trace ", tmp_path) == ["one.S"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script_that_asks_pagewalk(shell):
    status, text, errors = run_cli("completion", shell, parse=False)

    assert (status, errors) == (0, "")
    assert "_ARGCOMPLETE" in text
    assert "pagewalk" in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_scenario_once_it_has_read_the_script(tmp_path):
    _, script, _ = run_cli("completion", "bash", parse=False)
    pagewalk = tmp_path / "pagewalk"
    pagewalk.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pagewalk "$@"\n')
    pagewalk.chmod(0o755)
    typed = "COMP_LINE='pagewalk run hot-r' COMP_POINT=18 COMP_TYPE=9 COMP_CWORD=2"
    asks = f'{script}\n{typed}; _python_argcomplete pagewalk; echo "${{COMPREPLY[@]}}"'

    done = subprocess.run(
        ["bash", "-c", asks],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.strip() == "hot-readd"
