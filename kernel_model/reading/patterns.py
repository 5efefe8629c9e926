"""How an oops is worded, as patterns: what each release prints, wherever it stands in a text.

Knows the words of v4.4 to v6.17, with anything that a mail program may put between two of them.
Refuses to know what follows from them (`text`). Linux vocabulary; source:
arch/x86/mm/fault.c, arch/x86/kernel/traps.c, dumpstack.c, process_64.c, lib/dump_stack.c.

No pattern depends on where a line begins or ends, since lines are run together and wrapped; and
each repetition is bounded where it could be tried over and over, since the text may be anything.
"""

import re
from typing import Final

# -- what is no text: markup, line ends, colours, quoting, and blanks that are none

TAGS: Final = re.compile(r"</?(?:pre|p|tt|code|span|div|b|i|font|a|td|tr)\b[^<>\n]{0,200}>|<wbr>")
BREAKS: Final = re.compile(r"<br ?/?>|\r\n?|=\n")
ESCAPES: Final = re.compile(r"\x1b\[[\d;]{0,20}[A-Za-z]")
QUOTES: Final = re.compile(r"(?m)^[>|\s]+")
ODD: Final = dict.fromkeys(map(ord, "\u00a0\u2007\u202f\u200b\ufeff\ufffdÂ\t"), " ")

# -- the first line, whatever was the matter

BUG_LINE: Final = re.compile(
    r"BUG:\s+(?:unable\s+to\s+handle\s+(?P<how>page\s+fault\s+for\s+address:|kernel\s+paging\s+"
    r"request\s+at|kernel\s+NULL\s+pointer\s+dereference\s+at)"
    r"|(?P<null>kernel\s+NULL\s+pointer\s+dereference,\s+address:))"
    r"\s+(?P<address>[0-9a-f]{1,16}\b|\(null\))",
    re.ASCII,
)
BUG_AT: Final = re.compile(
    r"[Kk]ernel BUG at [^\s!]{1,200}(?: \[verbose[^]\n]{0,40}\])?!?", re.ASCII
)
OVERRUN: Final = re.compile(
    r"(?:BUG: [A-Z#\d ]{0,12})?stack guard page was hit(?: at [0-9a-f]{1,16})?"
)
PANIC: Final = re.compile(r"PANIC: double fault(?:, error_code: 0x[0-9a-f]{1,16})?")

# -- a page fault

ACCESS: Final = re.compile(
    r"#PF: (?:user|supervisor) (?:instruction\s+fetch|(?:read|write)\s+access)\s+in\s+"
    r"(?:user|kernel)\s+mode",
)
CODE: Final = re.compile(
    r"#PF: error_code\(0x(?P<code>[0-9a-f]{1,8})\)(?:\s+-\s+(?:not-present\s+page|reserved\s+bit\s+"
    r"violation|protection\s+keys\s+violation|permissions\s+violation|RMP\s+violation))?",
)
PGD: Final = re.compile(r"\bPGD[ \n]+(?=0\b|[0-9a-f]{0,15}\d)([0-9a-f]{1,16})(?!\w)", re.ASCII)
BELOW_PGD: Final = tuple(
    (
        name,
        re.compile(rf"(?:\s+|\s*\n.{{0,120}}?\s){name.upper()}\s+([0-9a-f]{{1,16}})(?!\w)", re.A),
    )
    for name in ("p4d", "pud", "pmd", "pte")
)
LINE_EACH: Final = re.compile(r"\bPGD [0-9a-f]{1,16} ?\n.{0,120}\bP4D [0-9a-f]")  # 4.12
BAD_TABLE: Final = re.compile(r"\s+BAD\b")
CUT_TABLE: Final = re.compile(r"\s*P(?:4D?|UD?|MD?|TE?)?\s*[0-9a-f]*$")

# -- any death

_FLAG: Final = r"PREEMPT_RT|PREEMPT|SMP|DEBUG_PAGEALLOC|KASAN|PTI|NOPTI"
HEADER: Final = re.compile(
    r"(?P<twice>Oops: )?(?P<what>Oops|general protection fault(?:, [^\n:]{1,100})?"
    r"|segment-related general protection fault|invalid opcode|double fault|divide error|int3"
    r"|kernel stack overflow \([a-z-]{1,20}\)|stack guard page|stack segment"
    r"|segment not present|invalid TSS|alignment check"
    r"|control protection|exception \d{1,3}|[a-z][a-z -]{2,40}[a-z])"
    r": (?P<code>[0-9a-f]{4})(?: \[#(?P<number>\d{1,6})\]|(?![0-9a-z]))"
    rf"(?P<flags>(?: +(?:{_FLAG})\b)*)",
    re.ASCII,
)
CPU: Final = re.compile(
    r"CPU:\s+(?P<cpu>\d{1,5})\s+(?:UID:\s+(?P<uid>\d{1,10})\s+)?PID:\s+(?P<pid>\d{1,10})\s+"
    r"Comm:\s+(?P<comm>\S.{0,19}?)\s+(?:Kdump:\s+loaded\s+)?"
    r"(?:Not\s+tainted|Tainted:\s+(?P<taint>[A-Z](?![a-z])(?:\s*[A-Z](?![a-z])){0,30}))"
    r"(?:\s+(?P<uname>\d\S{0,64})(?:\s+#\d\S{0,40}(?:\s+[0-9a-f]{40})?"
    r"(?:\s+(?P<model>PREEMPT\(\w{1,20}\)))?)?)?",
    re.ASCII,
)
_SYMBOL: Final = (
    r"(?P<symbol>[A-Za-z_.$][\w.$]{0,200})\+0x(?P<offset>[0-9a-f]{1,8})/0x(?P<size>[0-9a-f]{1,8})"
    r"(?: {1,2}\[(?P<module>[\w-]{1,64})(?: [0-9a-f]{40})?\])?"
)
RIP: Final = re.compile(
    r"\b(?:RIP: (?P<cs>[0-9a-f]{4}):|IP:)\s*"
    r"(?:\[<(?P<at>[0-9a-f]{1,16})>\]\s*(?:\[<[0-9a-f]{1,16}>\]\s*)?)?"
    rf"(?:{_SYMBOL}|(?P<raw>0x[0-9a-f]{{1,16}}\b|\(null\))|(?<=>\])|(?<=>\]\s))",
    re.ASCII,
)
REGISTER: Final = re.compile(
    r"\b(?P<name>R(?:[A-D]X|[SD]I|BP|0[89]|[89]|1[0-5])|ORIG_RAX|CR[0-4])\s?:\s+"
    r"(?P<value>[0-9a-f]{16})(?!\w)"
    r"|\b(?P<short>EFLAGS|PKRU):\s+(?P<short_value>[0-9a-f]{8})(?!\w)"
    r"|\bRSP:\s+(?P<ss>[0-9a-f]{4}):(?P<rsp>[0-9a-f]{16})(?!\w)"
    r"|\b(?P<segment>FS|GS|knlGS):\s*(?P<base>[0-9a-f]{16})(?!\w)"
    r"|\b(?P<plain>CS|DS|ES):\s+(?P<selector>[0-9a-f]{4})(?!\w)",
    re.ASCII,
)
CR2: Final = re.compile(r"\bCR2: ([0-9a-f]{16})(?!\w)", re.ASCII)
END_TRACE: Final = re.compile(r"---\[ end trace [0-9a-f]{1,16} \]---")

# -- the call trace

TRACE: Final = re.compile(r"Call Trace:|<TASK>|<IRQ>")
BEHIND_TRACE: Final = re.compile(
    r"Modules linked in|---\[ end trace|Kernel panic|\bRIP\s+\[<|\bRIP: (?![0-9a-f]{4}:)|</TASK>"
    r"|note: \S+\[\d+\] exited"
)
IN_TRACE: Final = re.compile(
    r"RIP: [0-9a-f]{4}:(?:\[<[^\n]{0,200}|\S{0,200})"
    rf"|(?:\[<(?P<at>[0-9a-f]{{8,16}})>\]\s+)?(?P<unsure>\?\s+)?{_SYMBOL}",
    re.ASCII,
)
ELIDED: Final = re.compile(r"\.\.\.|…|\bsnip\b|(?m:^\s*:\s*$)")
