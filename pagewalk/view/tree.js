// The tables of all tasks as trees: a row for each root, table, run of pages, and odd entry.
//
// Knows how a row looks, and how one goes from row to row. Refuses to draw what is not in sight: of
// a thousand tasks' rows there are as many elements as fit.

const ROW_HEIGHT = 30; // px, as page.css has it
const MARGIN = 8; // rows above and below what is in sight

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
    this.changedFrames = this.forest.framesAbove(changed.keys());
    this.makeRows();
    this.draw();
  }

  makeRows() {
    this.rows = this.forest.rows(this.expanded, this.changed);
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
      yield element("span", { class: "quiet" }, flagNames(this.run.facts, row.entry, row.level));
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
    yield element("span", { class: "quiet" }, flagNames(this.run.facts, row.entry, row.level));
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

  /** Go to where a table is drawn, and choose it. */
  revealTable(frame) {
    const key = this.forest.owner.get(frame);
    if (key === undefined) return;
    this.expanded.add(key);
    this.reveal(key);
    this.draw();
    this.tree.focus();
  }

  /** Bring a row into sight; into the middle, if it was far away. */
  scrollTo(number) {
    const top = number * ROW_HEIGHT;
    const { scrollTop, clientHeight } = this.tree;
    const below = top + ROW_HEIGHT - clientHeight;
    const isFar = Math.abs(top - scrollTop - clientHeight / 2) > clientHeight / 2 + ROW_HEIGHT;
    if (isFar) this.tree.scrollTop = top - clientHeight / 2;
    else if (top < scrollTop) this.tree.scrollTop = top;
    else if (below > scrollTop) this.tree.scrollTop = below;
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
