"""`pagewalk completion SHELL`: what makes a shell complete commands, options and their values.

Knows how each shell is told. Refuses to know what is offered (`pagewalk.completion`).
"""

import argparse

from pagewalk.arguments import bad_name

_EPILOG = """\
To have it in every shell, write it where the shell reads at its start:

    bash:       pagewalk completion bash > ~/.local/share/bash-completion/completions/pagewalk
    zsh:        pagewalk completion zsh > a file called _pagewalk in a directory of $fpath
    fish:       pagewalk completion fish > ~/.config/fish/completions/pagewalk.fish
    powershell: pagewalk completion powershell >> $PROFILE

example: source <(pagewalk completion bash)"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", metavar="SHELL", help="bash, zsh, fish or powershell")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Print the shell's code."""
    from pagewalk.completion import SHELLS, script

    if args.shell not in SHELLS:
        bad_name("SHELL", args.shell, SHELLS)
    print(script(args.shell))
    return 0
