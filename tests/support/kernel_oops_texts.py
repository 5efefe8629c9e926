"""The texts of the page fault of `kernel_deaths`, whole, a generation of kernels each."""

from typing import Final

_GENERAL: Final = """\
RAX: 000000000000000a RBX: 000000000000000b RCX: 000000000000000c
RDX: 000000000000000d RSI: 0000000000000051 RDI: ffffe70000000000
RBP: 0000000000000000 R08: 0000000000000008 R09: 0000000000000009
R10: 000000000000000a R11: 000000000000000b R12: 000000000000000c
R13: 000000000000000d R14: 000000000000000e R15: 000000000000000f
FS:  00007f0000000740(0000) GS:ffff88803fc00000(0000) knlGS:0000000000000000
CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033
CR2: ffffe70000000034 CR3: 0000000001234000 CR4: 0000000000750ef0
"""
_CODE_43: Final = """\
Code: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d \
1e 1f 20 21 22 23 24 25 26 27 28 29 2a <2b> 2c 2d 2e 2f 30 31 32 33 34 35 36 37 38 39 3a 3b 3c 3d \
3e 3f \n"""
_CODE_42: Final = """\
Code: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d \
1e 1f 20 21 22 23 24 25 26 27 28 29 <2a> 2b 2c 2d 2e 2f 30 31 32 33 34 35 36 37 38 39 3a 3b 3c 3d \
3e 3f\n"""
_TRACE: Final = """\
 __init_zone_device_page+0x17/0x5d
 ? memremap_pages+0x10b/0x2f0
 memmap_init_zone_device+0x154/0x1bb
"""
_RSP: Final = "RSP: 0018:ffffc90000007f90 EFLAGS: 00010286\n"
_MODULES: Final = "Modules linked in: device_dax xe\n"
_END: Final = "---[ end trace 0000000000000000 ]---\n"

_4_4: Final = (
    """\
BUG: unable to handle kernel paging request at ffffe70000000034
IP: [<{rip}>] __init_single_page+0x9/0x6d
PGD 0 \n\
Oops: 0002 [#1] SMP \n\
Modules linked in: device_dax xe
CPU: 0 PID: 301 Comm: ndctl Not tainted 4.4.0 #1
task: ffff888000010000 ti: ffffc90000004000 task.ti: ffffc90000004000
RIP: 0010:[<{rip}>]  [<{rip}>] __init_single_page+0x9/0x6d
RSP: 0018:ffffc90000007f90  EFLAGS: 00010286
"""
    + _GENERAL
    + """\
Stack:
 {caller} 0000000040000000 {stray} ffffe70000000000
 {outer} 0000000000000001 0000000000000002 0000000000000003
 0000000000000004 0000000000000005 0000000000000006 0000000000000007
Call Trace:
 [<{caller}>] __init_zone_device_page+0x17/0x5d
 [<{stray}>] ? memremap_pages+0x10b/0x2f0
 [<{outer}>] memmap_init_zone_device+0x154/0x1bb
"""
    + _CODE_43
    + """\
RIP  [<{rip}>] __init_single_page+0x9/0x6d
 RSP <ffffc90000007f90>
CR2: ffffe70000000034
"""
    + _END
)

_4_12: Final = (
    """\
BUG: unable to handle kernel paging request at ffffe70000000034
IP: __init_single_page+0x9/0x6d
PGD 0 \n\
P4D 0 \n\

Oops: 0002 [#1] SMP
Modules linked in: device_dax xe
CPU: 0 PID: 301 Comm: ndctl Not tainted 4.12.0-rc5 #1
task: ffff888000010000 task.stack: ffffc90000004000
RIP: 0010:__init_single_page+0x9/0x6d
"""
    + _RSP
    + _GENERAL
    + "PKRU: 55555554\nCall Trace:\n"
    + _TRACE
    + _CODE_43
    + """\
RIP: __init_single_page+0x9/0x6d RSP: ffffc90000007f90
CR2: ffffe70000000034
"""
    + _END
)

_4_14: Final = _4_12.replace("PGD 0 \nP4D 0 \n\n", "PGD 0 P4D 0 \n").replace("4.12.0-rc5", "4.14.0")

_4_17: Final = (
    """\
BUG: unable to handle kernel paging request at ffffe70000000034
PGD 0 P4D 0 \n\
Oops: 0002 [#1] SMP NOPTI
Modules linked in: device_dax xe
CPU: 0 PID: 301 Comm: ndctl Not tainted 4.17.0 #1
RIP: 0010:__init_single_page+0x9/0x6d
"""
    + _RSP
    + _GENERAL
    + "PKRU: 55555554\nCall Trace:\n"
    + _TRACE
    + _CODE_43
    + """\
RIP: __init_single_page+0x9/0x6d RSP: ffffc90000007f90
CR2: ffffe70000000034
"""
    + _END
)

_REGISTERS: Final = (
    "RIP: 0010:__init_single_page+0x9/0x6d\n" + _CODE_42 + _RSP + _GENERAL + "PKRU: 55555554\n"
)
_HEAD_5: Final = """\
BUG: unable to handle page fault for address: ffffe70000000034
#PF: supervisor write access in kernel mode
#PF: error_code(0x0002) - not-present page
PGD 0 P4D 0 \n\
"""
_TAIL_5: Final = _MODULES + "CR2: ffffe70000000034\n" + _END + _REGISTERS


def _5(uname: str) -> str:
    return (
        _HEAD_5
        + f"""\
Oops: 0002 [#1] SMP NOPTI
CPU: 0 PID: 301 Comm: ndctl Not tainted {uname} #1
"""
        + _REGISTERS
        + "Call Trace:\n"
        + _TRACE
        + _TAIL_5
    )


def _6(header: str, cpu: str) -> str:
    trace = "Call Trace:\n <TASK>\n" + _TRACE + " </TASK>\n"
    return _HEAD_5 + header + cpu + _REGISTERS + trace + _TAIL_5


PAGE_FAULT: Final = {
    "4.4": _4_4,
    "4.6": _4_4.replace("SMP \n", "SMP\n").replace("4.4.0", "4.6.0"),
    "4.12-rc": _4_12,
    "4.14": _4_14,
    "4.17": _4_17,
    "5.4": _5("5.4.0"),
    "5.6": _5("5.6.0"),
    "5.8": _5("5.8.0"),
    "5.9-mw": _5("5.9.0-mw"),
    "5.10": _5("5.10.0"),
    "6.8": _6("Oops: 0002 [#1] SMP NOPTI\n", "CPU: 0 PID: 301 Comm: ndctl Not tainted 6.8.0 #1\n"),
    "6.13": _6(
        "Oops: Oops: 0002 [#1] SMP NOPTI\n",
        "CPU: 0 UID: 0 PID: 301 Comm: ndctl Tainted: G        W          "
        "6.13.0-drm-tip-test+ #1 \nTainted: [W]=WARN\n",
    ),
    "6.16": _6(
        "Oops: Oops: 0002 [#1] SMP NOPTI\n",
        "CPU: 0 UID: 0 PID: 301 Comm: ndctl Not tainted 6.16.0 #1 PREEMPT(voluntary) \n",
    ),
}
