// The tables of all tasks as a forest: which is drawn where, and a row for each thing to be seen.
//
// Knows that a table is drawn once, at the first entry that leads to it. Refuses to know how a row
// looks (tree.js).

/** Which tables lead where, at this moment. */
class Forest {
  constructor(run) {
    this.run = run;
    this.owner = new Map(); // frame -> key of the row that it is drawn at
    this.parent = new Map(); // frame -> the frame in which the first entry lies that leads to it
    this.nrParents = new Map(); // frame -> how many entries lead to it
    const roots = new Set([...run.tasks().keys(), ...run.roots().map(frameOf)]);
    this.roots = [...roots].filter((frame) => run.tables.has(frame));
    for (const frame of this.roots) this.owner.set(frame, `${frame}`);
    for (const frame of this.roots) this.explore(frame, run.facts.levels, `${frame}`);
  }

  explore(frame, level, key) {
    if (level < 2) return;
    const { halves, known, tables } = this.run;
    const first = tables.get(frame);
    for (let i = 0; i < ENTRIES; i++) {
      const low = halves[2 * (first + i)];
      if ((low & 0x81) !== 1 || !known[first + i]) continue; // P, and not PS
      const child = (halves[2 * (first + i) + 1] & 0xfffff) * 0x100000 + (low >>> 12);
      if (!tables.has(child)) continue;
      this.nrParents.set(child, (this.nrParents.get(child) ?? 0) + 1);
      if (this.owner.has(child)) continue;
      this.owner.set(child, `${key}/${i}`);
      this.parent.set(child, frame);
      this.explore(child, level - 1, `${key}/${i}`);
    }
  }

  /** Return the frames in which, or below which, one of these words lies. */
  framesAbove(words) {
    const { tableFrame } = this.run.columns;
    const found = new Set();
    for (const word of words) {
      let frame = tableFrame[Math.floor(word / ENTRIES)];
      while (frame !== undefined && !found.has(frame)) {
        found.add(frame);
        frame = this.parent.get(frame);
      }
    }
    return found;
  }

  /** Return a row for each root, and for what is below those rows whose keys are `expanded`. */
  rows(expanded, changed) {
    const names = this.run.tasks();
    const { levels: level } = this.run.facts;
    const rows = [];
    for (const frame of this.roots) {
      const [key, name] = [`${frame}`, names.get(frame) ?? "in CR3"];
      rows.push({ sort: "root", key, depth: 0, frame, level, name, opens: true });
      if (expanded.has(key)) rows.push(...this.below(rows.at(-1), expanded, changed));
    }
    return rows;
  }

  /** Yield a row for each entry of a table that is not empty; entries in a row may share one. */
  *below(above, expanded, changed) {
    const level = above.sort === "root" ? above.level : above.level - 1;
    const first = this.run.tables.get(above.frame);
    let last = null; // the row that the next entry may join
    for (let i = 0; i < ENTRIES; i++) {
      const word = first + i;
      const entry = this.run.known[word] ? this.run.words[word] : UNTOLD;
      const was = changed.get(word);
      if (entry === 0n && was === undefined) continue;
      const row = { ...this.entry(above, i, level, entry), was };
      if (last && joins(last, row)) {
        last.last = i;
        last.was ??= was;
        continue;
      }
      if (last) yield last;
      last = row;
      if (!row.opens) continue;
      yield row;
      last = null;
      if (expanded.has(row.key)) yield* this.below(row, expanded, changed);
    }
    if (last) yield last;
  }

  /** Return the row of an entry by itself. */
  entry(above, i, level, entry) {
    const va = vaBelow(above.va ?? 0n, i, level, this.run.facts.levels);
    const key = `${above.key}/${i}`;
    const row = { key, depth: above.depth + 1, root: above.root ?? above.frame, level, va };
    Object.assign(row, { entry, first: i, last: i });
    const sort = entry === UNTOLD ? "untold" : sortOf(entry, level);
    if (sort !== "table") return { ...row, sort };
    const frame = frameOf(entry & ADDRESS);
    const owner = this.owner.get(frame);
    if (owner === key) return { ...row, sort, frame, opens: true };
    return { ...row, sort: owner ? "shared" : "elsewhere", frame, owner };
  }
}

/** Return the first address that entry `i` of a table translates; of the top one, canonical. */
function vaBelow(base, i, level, levels) {
  const va = base + (BigInt(i) << pageShift(level));
  return level === levels && i >= ENTRIES / 2
    ? va + (1n << 64n) - (1n << pageShift(levels + 1))
    : va;
}

/** Tell whether an entry carries on the run that a row stands for: unknown, alike, or pages. */
function joins(row, { sort, entry, first, level }) {
  if (row.sort !== sort || row.last !== first - 1) return false;
  if (sort === "untold") return true;
  if (sort === "absent") return row.entry === entry;
  const pages = BigInt(first - row.first) << pageShift(level);
  return sort === "page" && entry - row.entry === pages;
}
