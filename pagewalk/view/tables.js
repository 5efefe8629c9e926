// The tables of all tasks as trees: a row for each root, table, run of pages, and odd entry.
//
// Knows which table is drawn where: once, at the first entry that leads to it. Refuses to draw what
// is not in sight: of a thousand tasks' rows there are as many elements as fit.

const ROW_HEIGHT = 30; // px, as page.css has it
const MARGIN = 8; // rows above and below what is in sight

/** Which tables lead where, at this moment: by frame, the first place, and how many there are. */
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
      if ((low & 1) === 0 || !known[first + i] || (low & 0x80 && level <= 3)) continue;
      const child = (halves[2 * (first + i) + 1] & 0xfffff) * 0x100000 + (low >>> 12);
      if (!tables.has(child)) continue;
      this.nrParents.set(child, (this.nrParents.get(child) ?? 0) + 1);
      if (this.owner.has(child)) continue;
      this.owner.set(child, `${key}/${i}`);
      this.parent.set(child, frame);
      this.explore(child, level - 1, `${key}/${i}`);
    }
  }
}

class TreeView {
  constructor(run, lookAt) {
    this.run = run;
    this.lookAt = lookAt;
    this.tree = byId("tree");
    this.expanded = new Set();
    this.active = null;
    this.changed = new Map(); // the words that stand out
    this.stale = true; // whether the tables are other ones than when the rows were made
    this.tree.addEventListener(
      "scroll",
      oncePerFrame(() => this.draw()),
    );
    this.tree.addEventListener("keydown", (event) => this.key(event));
    this.tree.addEventListener("click", (event) => {
      const row = event.target.closest("[data-row]");
      if (row) this.choose(this.rows[Number(row.dataset.row)]);
    });
    new ResizeObserver(oncePerFrame(() => this.draw())).observe(this.tree);
  }

  /** Show the tables at the current moment, if they or what stands out are other ones now. */
  show() {
    const changed = this.run.changes();
    if (!this.stale && !changed.size && !this.changed.size) return;
    if (this.stale) {
      this.forest = new Forest(this.run);
      const [first] = this.forest.roots;
      if (first !== undefined && !this.expanded.size) this.expanded.add(`${first}`);
    }
    this.stale = false;
    this.changed = changed;
    this.changedFrames = this.framesAbove(changed.keys());
    this.makeRows();
    this.draw();
  }

  /** The frames in which, or below which, one of these words lies. */
  framesAbove(words) {
    const { tableFrame } = this.run.columns;
    const found = new Set();
    for (const word of words) {
      let frame = tableFrame[Math.floor(word / ENTRIES)];
      while (frame !== undefined && !found.has(frame)) {
        found.add(frame);
        frame = this.forest.parent.get(frame);
      }
    }
    return found;
  }

  makeRows() {
    this.rows = [];
    const names = this.run.tasks();
    for (const frame of this.forest.roots) {
      const key = `${frame}`;
      this.rows.push({
        sort: "root",
        key,
        depth: 0,
        frame,
        level: this.run.facts.levels,
        name: names.get(frame) ?? "no task's",
        opens: true,
      });
      if (this.expanded.has(key)) this.addEntries(frame, this.run.facts.levels, 0n, key, 1);
    }
  }

  /** Add a row for each entry of a table that is not empty; pages in a row share one. */
  addEntries(frame, level, base, key, depth) {
    const first = this.run.tables.get(frame);
    const root = Number(key.split("/", 1)[0]);
    let run = null; // the row that the next page may join
    for (let i = 0; i < ENTRIES; i++) {
      const word = first + i;
      const entry = this.run.known[word] ? this.run.words[word] : UNTOLD;
      const was = this.changed.get(word);
      if (entry === 0n && was === undefined) continue;
      const va = vaBelow(base, i, level, this.run.facts.levels);
      const common = {
        depth,
        level,
        va,
        word,
        entry,
        first: i,
        last: i,
        key: `${key}/${i}`,
        root,
        was,
      };
      const sort = entry === UNTOLD ? "untold" : sortOf(entry, level);
      if (sort === "page" || sort === "untold" || (sort === "absent" && entry !== 0n)) {
        if (run && run.sort === sort && run.last === i - 1 && follows(run, entry, level)) {
          run.last = i;
          run.was ??= was;
          continue;
        }
        run = { ...common, sort };
        this.rows.push(run);
        continue;
      }
      run = null;
      if (sort === "absent") {
        this.rows.push({ ...common, sort });
        continue;
      }
      const child = frameOf(entry & ADDRESS);
      const owner = this.forest.owner.get(child);
      const here = owner === common.key;
      this.rows.push({
        ...common,
        sort: here ? "table" : owner ? "shared" : "elsewhere",
        frame: child,
        owner,
        opens: here,
      });
      if (here && this.expanded.has(common.key))
        this.addEntries(child, level - 1, va, common.key, depth + 1);
    }
  }

  draw() {
    if (!this.rows) return;
    const { scrollTop, clientHeight } = this.tree;
    const first = Math.max(0, Math.floor(scrollTop / ROW_HEIGHT) - MARGIN);
    const last = Math.min(
      this.rows.length,
      Math.ceil((scrollTop + clientHeight) / ROW_HEIGHT) + MARGIN,
    );
    const space = (nr) => {
      const made = element("div", { "aria-hidden": true });
      made.style.height = `${nr * ROW_HEIGHT}px`;
      return made;
    };
    const drawn = this.rows.slice(first, last).map((row, i) => this.row(row, first + i));
    this.tree.replaceChildren(space(first), ...drawn, space(this.rows.length - last));
    const active = this.rows.findIndex((row) => row.key === this.active);
    if (active >= 0) this.tree.setAttribute("aria-activedescendant", `row-${active}`);
    else this.tree.removeAttribute("aria-activedescendant");
  }

  row(row, number) {
    const open = this.expanded.has(row.key);
    const isChanged =
      row.was !== undefined ||
      (row.frame !== undefined && row.sort !== "shared" && this.changedFrames.has(row.frame));
    const classes = ["row", row.sort, `level-${row.level}`];
    if (isChanged) classes.push("changed");
    if (row.key === this.active) classes.push("chosen");
    const made = element(
      "div",
      {
        id: `row-${number}`,
        class: classes.join(" "),
        role: "treeitem",
        "data-row": number,
        "aria-level": row.depth + 1,
        "aria-expanded": row.opens ? String(open) : null,
        "aria-selected": String(row.key === this.active),
      },
      element("span", { class: "caret", "aria-hidden": true }, row.opens ? (open ? "▾" : "▸") : ""),
      ...this.words(row),
      isChanged
        ? element(
            "span",
            { class: "badge change" },
            row.was === undefined ? "changed below" : `was ${hex(row.was)}`,
          )
        : null,
    );
    made.style.setProperty("--depth", row.depth);
    return made;
  }

  *words(row) {
    const { entryNames } = this.run.facts;
    const code = (text) => element("code", {}, text);
    if (row.sort === "root") {
      yield element("strong", {}, row.name);
      yield element(
        "span",
        {},
        `${tableName(entryNames[row.level])} at `,
        code(hex(BigInt(row.frame) << FRAME_SHIFT)),
      );
      yield element("span", { class: "quiet" }, this.counted(row.frame));
      return;
    }
    const index = row.first === row.last ? `[${row.first}]` : `[${row.first}–${row.last}]`;
    yield element("span", { class: "index" }, index);
    yield element("span", { class: "va" }, hex16(row.va));
    if (row.sort === "untold") yield element("span", { class: "quiet" }, "nobody told");
    if (row.sort === "absent")
      yield element(
        "span",
        { class: "quiet" },
        row.entry ? `not present, ${hex(row.entry)}` : "empty",
      );
    if (row.sort === "page") {
      const nr = row.last - row.first + 1;
      yield element(
        "span",
        {},
        `${nr} page${nr === 1 ? "" : "s"} of ${this.run.facts.pageSizes[row.level]} at `,
        code(hex(pageFrame(row.entry, row.level))),
      );
      yield element("span", { class: "quiet" }, this.flags(row));
    }
    if (row.frame === undefined) return;
    const nr = this.forest.nrParents.get(row.frame) ?? 0;
    yield element(
      "span",
      {},
      `${tableName(entryNames[row.level - 1] ?? "?")} at `,
      code(hex(row.entry & ADDRESS)),
    );
    if (row.sort === "table" && nr > 1)
      yield element("span", { class: "badge" }, `shared by ${grouped(nr)}`);
    if (row.sort === "shared")
      yield element("span", { class: "badge" }, `drawn under ${this.ownerName(row.owner)} ↑`);
    if (row.sort === "elsewhere") yield element("span", { class: "badge" }, "not in this page");
    if (row.sort === "table") yield element("span", { class: "quiet" }, this.counted(row.frame));
    yield element("span", { class: "quiet" }, this.flags(row));
  }

  ownerName(key) {
    const [root, ...path] = key.split("/");
    const name = this.run.tasks().get(Number(root)) ?? hex(BigInt(root) << FRAME_SHIFT);
    return [name, ...path.map((index) => `[${index}]`)].join(" ");
  }

  counted(frame) {
    const first = this.run.tables.get(frame);
    let nr = 0;
    for (let i = 0; i < ENTRIES; i++) nr += this.run.halves[2 * (first + i)] & 1;
    return `${nr} present`;
  }

  /** The names of the single bits that are set. */
  flags({ entry, level }) {
    const fields = this.run.facts.fields[`${level} ${sortOf(entry, level)}`];
    return fields
      .filter(
        ([high, low, name]) => high === low && name !== "ignored" && (entry >> BigInt(low)) & 1n,
      )
      .map(([, , name]) => name)
      .reverse()
      .join(" ");
  }

  // -- choosing

  choose(row) {
    this.active = row.key;
    if (row.sort === "shared") this.reveal(row.owner);
    else if (row.opens) this.toggle(row);
    else if (row.va !== undefined) this.lookAt(row.va, row.root);
    this.makeRows();
    this.draw();
  }

  toggle(row, open = !this.expanded.has(row.key)) {
    if (open) this.expanded.add(row.key);
    else this.expanded.delete(row.key);
  }

  /** Go to where a table is drawn, and open what is above it. */
  reveal(key) {
    const path = key.split("/");
    for (let i = 1; i < path.length; i++) this.expanded.add(path.slice(0, i).join("/"));
    this.active = key;
    this.makeRows();
    this.scrollTo(this.rows.findIndex((row) => row.key === key));
  }

  scrollTo(number) {
    const top = number * ROW_HEIGHT;
    const { scrollTop, clientHeight } = this.tree;
    if (top < scrollTop) this.tree.scrollTop = top;
    if (top + ROW_HEIGHT > scrollTop + clientHeight)
      this.tree.scrollTop = top + ROW_HEIGHT - clientHeight;
  }

  key(event) {
    const at = this.rows.findIndex((row) => row.key === this.active);
    const row = this.rows[at];
    const to = {
      ArrowUp: at - 1,
      ArrowDown: at + 1,
      Home: 0,
      End: this.rows.length - 1,
      PageUp: at - 10,
      PageDown: at + 10,
    }[event.key];
    if (to !== undefined) {
      const next = Math.min(Math.max(to, 0), this.rows.length - 1);
      this.active = this.rows[next].key;
      this.scrollTo(next);
    } else if (event.key === "ArrowRight" && row?.opens) {
      this.toggle(row, true);
    } else if (event.key === "ArrowLeft" && row) {
      if (row.opens && this.expanded.has(row.key)) this.toggle(row, false);
      else if (row.depth) this.reveal(row.key.split("/").slice(0, -1).join("/"));
    } else if (event.key === "Enter" && row) {
      this.choose(row);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    this.makeRows();
    this.draw();
  }
}

/** Return the first address that entry `i` of a table translates; of the top one, canonical. */
function vaBelow(base, i, level, levels) {
  const va = base + (BigInt(i) << pageShift(level));
  return level === levels && i >= ENTRIES / 2
    ? va + (1n << 64n) - (1n << pageShift(levels + 1))
    : va;
}

/** Tell whether an entry carries on the run of pages that a row stands for. */
function follows(row, entry, level) {
  if (row.sort === "untold") return true;
  if (row.sort === "absent") return row.entry === entry;
  return entry - row.entry === BigInt(row.last + 1 - row.first) << pageShift(level);
}
