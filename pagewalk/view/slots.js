// The top-level entries of every task, side by side: who lacks what init_mm has.
//
// Knows which slots are worth a row, and which tasks are alike enough for one column. Refuses to
// mark a slot that each task has for itself.

const MOST_COLUMNS = 40;

class SlotsView {
  constructor(run, lookAt) {
    this.run = run;
    this.lookAt = lookAt;
    this.stale = true;
    this.own = new Set(run.facts.ownSlots);
    this.everChanged = this.slotsThatChange();
    byId("slots").hidden = !run.facts.tasks.length;
    byId("all-slots").addEventListener("change", () => this.draw());
    byId("matrix").addEventListener("click", (event) => {
      const cell = event.target.closest("[data-va]");
      if (cell) this.lookAt(BigInt(cell.dataset.va), Number(cell.dataset.frame));
    });
  }

  /** The slots in which init_mm's table changes in the course of the run. */
  slotsThatChange() {
    const { changeWord, changeBefore, changeAfter, tableFrame } = this.run.columns;
    const references = new Set(
      this.run.facts.tasks
        .filter(([, , name]) => name !== null && isReference(name))
        .map(([, root]) => frameOf(BigInt(root))),
    );
    const found = new Set();
    changeWord.forEach((word, i) => {
      const isTheirs = references.has(tableFrame[Math.floor(word / ENTRIES)]);
      if (isTheirs && (changeBefore[i] ^ changeAfter[i]) & ~ACCESSED_DIRTY)
        found.add(word % ENTRIES);
    });
    return found;
  }

  show() {
    if (!this.stale) return;
    this.stale = false;
    this.draw();
  }

  draw() {
    const tasks = [...this.run.tasks()].filter(([frame]) => this.run.tables.has(frame));
    const references = new Map(
      tasks.filter(([, name]) => isReference(name)).map(([frame, name]) => [name, frame]),
    );
    const first = byId("all-slots").checked ? 0 : ENTRIES / 2;
    const all = this.columns(tasks, references, first);
    const columns = all.slice(0, MOST_COLUMNS);
    const rows = this.slots(columns, first).map((slot) => this.row(slot, columns));
    byId("slots-summary").textContent = this.summary(tasks, all);
    byId("matrix").replaceChildren(
      element(
        "table",
        {},
        element(
          "thead",
          {},
          element(
            "tr",
            {},
            element("th", { scope: "col" }, "slot"),
            columns.map((column) =>
              element(
                "th",
                { scope: "col", title: column.names.slice(0, 50).join(", ") },
                label(column.names),
              ),
            ),
          ),
        ),
        element("tbody", {}, rows),
      ),
    );
  }

  /** Tasks whose entries are alike from slot `first` on share a column; init_mm has the first, and
   * those with marks are before the others, of which some may have no room. */
  columns(tasks, references, first) {
    const found = new Map();
    for (const [frame, name] of tasks) {
      const key = isReference(name) ? name : `${isUsers(name)} ${this.signature(frame, first)}`;
      if (!found.has(key)) found.set(key, { frame, names: [] });
      found.get(key).names.push(name);
    }
    for (const column of found.values()) column.marks = this.marks(column, references, first);
    const rank = ({ names: [name], marks }) => (name === "init_mm" ? 0 : marks.size ? 1 : 2);
    return [...found.values()].sort((a, b) => rank(a) - rank(b));
  }

  /** The slots of a column that are not as init_mm's, with how they differ. */
  marks(column, references, first) {
    const found = new Map();
    const reference = referenceOf(column, references);
    if (reference === undefined) return found;
    const { halves, tables } = this.run;
    const [ours, theirs] = [tables.get(reference), tables.get(column.frame)];
    for (let slot = first; slot < ENTRIES; slot++) {
      const [i, j] = [2 * (ours + slot), 2 * (theirs + slot)];
      if (!((halves[i] ^ halves[j]) & ~0x60) && halves[i + 1] === halves[j + 1]) continue;
      const verdict = this.verdict(column, slot, reference);
      if (verdict) found.set(slot, verdict);
    }
    return found;
  }

  /** What a table holds from slot `first` on, the CPU's own bits aside, as text. */
  signature(frame, first) {
    const { halves, known, tables } = this.run;
    const start = tables.get(frame);
    const parts = [];
    for (let i = start + first; i < start + ENTRIES; i++) {
      const [low, high] = [halves[2 * i] & ~0x60, halves[2 * i + 1]];
      if (low || high || !known[i]) parts.push(i - start, known[i], low, high);
    }
    return parts.join();
  }

  /** The slots that are shown: all in use if asked for, of the kernel's half if none has anything
   * to tell. */
  slots(columns, first) {
    const used = [...Array(ENTRIES).keys()]
      .slice(first)
      .filter((slot) =>
        columns.some(({ frame }) => ![0n, UNTOLD].includes(this.entry(frame, slot))),
      );
    const telling = used.filter(
      (slot) =>
        this.everChanged.has(slot) || columns.some(({ marks }) => marks.has(slot)),
    );
    return byId("all-slots").checked || !telling.length ? used : telling;
  }

  entry(frame, slot) {
    const word = this.run.tables.get(frame) + slot;
    return this.run.known[word] ? this.run.words[word] : UNTOLD;
  }

  /** How a task's entry differs from init_mm's: "unsynced", "other", or null. */
  verdict({ frame }, slot, reference) {
    if (this.own.has(slot)) return null;
    const [ours, theirs] = [this.entry(reference, slot), this.entry(frame, slot)];
    if (ours === UNTOLD || theirs === UNTOLD) return null;
    if ((ours & ~ACCESSED_DIRTY) === (theirs & ~ACCESSED_DIRTY)) return null;
    return theirs & ~ACCESSED_DIRTY ? "other" : "unsynced";
  }

  row(slot, columns) {
    const { levels } = this.run.facts;
    const va = vaBelow(0n, slot, levels, levels);
    const region = this.run.region(va);
    return element(
      "tr",
      {},
      element(
        "th",
        { scope: "row" },
        element("span", { class: "index" }, `${slot}`),
        " ",
        element("code", {}, hex16(va)),
        region ? element("span", { class: "quiet" }, region) : null,
      ),
      columns.map((column) => {
        const entry = this.entry(column.frame, slot);
        const verdict = column.marks.get(slot);
        const mark = { unsynced: "✕ unsynced", other: "≠ another entry" }[verdict];
        return element(
          "td",
          { class: verdict ?? (entry === 0n ? "empty" : null) },
          element(
            "button",
            {
              type: "button",
              "data-va": hex(va),
              "data-frame": column.frame,
              title: `Walk ${hex16(va)} in ${column.names[0]}'s table`,
            },
            mark ? element("strong", {}, mark) : null,
            element("code", {}, entry === 0n ? (mark ? "0x0" : "–") : hex(entry)),
          ),
        );
      }),
    );
  }

  summary(tasks, columns) {
    const nrColumns = columns.length;
    const tables = counted(tasks.length, "table");
    const alike = nrColumns < tasks.length ? ", those that are alike in one column" : "";
    const shown =
      nrColumns > MOST_COLUMNS
        ? `, the first ${MOST_COLUMNS} of ${grouped(nrColumns)} columns`
        : "";
    const slots = (verdict) =>
      new Set(
        columns.flatMap(({ marks }) => [...marks.keys()].filter((i) => marks.get(i) === verdict)),
      ).size;
    const [nrUnsynced, nrOther] = [slots("unsynced"), slots("other")];
    const verdicts = [];
    if (nrUnsynced) {
      verdicts.push(`${counted(nrUnsynced, "slot")} unsynced: init_mm has what a task lacks`);
    }
    if (nrOther) verdicts.push(`${counted(nrOther, "slot")} in which a task has another entry`);
    const verdict = verdicts.join("; ") || "every task has what init_mm has";
    const aside = tasks.some(([, name]) => isUsers(name)) ? ", tables for user mode aside" : "";
    const told = this.run.ram ? "" : ", as far as the trace tells";
    return `${tables}${alike}${shown}: ${verdict}${aside}${told}`;
  }
}

function counted(number, what) {
  return `${grouped(number)} ${what}${number === 1 ? "" : "s"}`;
}

/** Return the table that a column is held against, if there is one: init_mm's of its kind. */
function referenceOf({ names: [name] }, references) {
  return references.get(isUsers(name) ? "init_mm (user)" : "init_mm");
}

function isReference(name) {
  return name === "init_mm" || name === "init_mm (user)";
}

/** Tell whether it is a table for user mode, of page-table isolation. */
function isUsers(name) {
  return name.endsWith(" (user)");
}

function label(names) {
  return names.length === 1 ? names[0] : `${names[0]} and ${grouped(names.length - 1)} like it`;
}
