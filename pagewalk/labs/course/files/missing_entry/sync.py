"""Give every task the top-level entries of the kernel's that it lacks."""


def sync(memory, reference, roots, first, last, shift):
    """Copy the entries of [first, last] that a root lacks, and change nothing else.

    memory     RAM: memory.read_u64(pa) returns 8 bytes, memory.write_u64(pa, value) stores them;
               it can be stored to the roots of the tasks, and nowhere else
    reference  the pa of the root that has all entries, init_mm's
    roots      a list: the pa of each task's root
    first      an address in the first slot that may have to be copied
    last       an address in the last one
    shift      1 << shift bytes of addresses belong to a slot: 39 with 4 levels, 48 with 5
    """
    ### BEGIN SOLUTION
    #: # your code goes here
    for slot in range(first >> shift & 511, (last >> shift & 511) + 1):
        entry = memory.read_u64(reference + 8 * slot)
        if not entry & 1:
            continue
        for root in roots:
            if not memory.read_u64(root + 8 * slot) & 1:
                memory.write_u64(root + 8 * slot, entry)
    ### END SOLUTION
