"""What the tests of playbacks share: a kernel's tables as RAM has them, and as a playback has."""

from emu.paging import ADDRESS, ENTRIES, PS, P
from kernel_model.scenarios import prepare


def roots(kernel):
    return {mm.pgd: mm.name for mm in (*kernel.pgd_list, *kernel.outside)}


def tables_in_ram(kernel):
    """Return the entries of every table that a root leads to, by its place, read from RAM."""
    found = {}
    waiting = [(root, kernel.layout.levels) for root in roots(kernel)]
    while waiting:
        table, level = waiting.pop()
        if table in found or not kernel.memory.holds(table, 4096):
            continue
        words = kernel.memory.words[table >> 3 : (table >> 3) + ENTRIES].tolist()
        found[table] = words
        if level > 1:
            waiting += [(e & ADDRESS, level - 1) for e in words if e & (P | PS) == P]
    return found


def differences(playback, at, tables):
    """List the entries that a playback has otherwise: their place, RAM's value, the playback's."""
    return [
        (hex(table + 8 * slot), hex(entry), told)
        for table, words in tables.items()
        for slot, (entry, told) in enumerate(zip(words, playback.table(at, table), strict=True))
        if entry != told
    ]


def tables_in_the_middle(scenario, nr):
    """Run a scenario, recording nothing; return its tables when Python has written nr times."""
    found, kernel, values = prepare(scenario)
    seen = []

    def watch(pa, nr_entries, by):
        seen.append(tables_in_ram(kernel) if len(seen) == nr - 1 else None)

    kernel.pgtable.writers.watcher = watch
    found.play(kernel, values)
    kernel.pgtable.writers.watcher = None
    return seen[nr - 1]
