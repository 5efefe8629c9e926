// The walk of an address, entry by entry: which bits of the address select it, what it holds, each
// bit by its name, and where it ends and why.
//
// Knows how a walk looks. Refuses to know how one is made (paging.js). All words are Python's.

const STEP_EVERY = 650; // ms

class WalkView {
  constructor(run, reveal) {
    this.run = run;
    this.reveal = reveal;
    this.facts = run.facts;
    this.timers = [];
    this.asked = { va: 0n, kind: "read", user: false };
    this.named = null; // the tasks that are offered,
    this.shownRoots = ""; // and the tables that the CPUs were on then
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    for (const id of ["task", "kind", "who"]) {
      byId(id).addEventListener("change", () => this.ask());
    }
    byId("follow").addEventListener("change", () => this.show());
    byId("in-words").addEventListener("change", () => {
      byId("steps").classList.toggle("in-words", byId("in-words").checked);
    });
    byId("symbols").append(
      ...Object.keys(this.facts.symbols).map((value) => element("option", { value })),
    );
  }

  /** Walk what was typed, step by step. */
  ask() {
    const va = this.readAddress(byId("address").value);
    byId("address-error").textContent = va === null ? this.complaint() : "";
    byId("address").setAttribute("aria-invalid", String(va === null));
    if (va === null) return;
    byId("follow").checked = false;
    this.asked = { va, kind: byId("kind").value, user: byId("who").value === "user" };
    this.draw({ animated: !matchMedia("(prefers-reduced-motion: reduce)").matches });
  }

  /** Show the walk of an address under a task's table. */
  lookAt(va, frame) {
    byId("address").value = hex(va);
    if (frame !== undefined) byId("task").value = String(frame);
    this.ask();
  }

  complaint() {
    return `${byId("address").value || "nothing"}: expected an address, such as 0xffffe70000000034, or a symbol`;
  }

  /** Read hex, decimal, 16 digits as an oops prints them, or symbol+offset; null for others. */
  readAddress(text) {
    const typed = text.trim();
    let va = null;
    if (/^(?=0|\d*[a-f])[0-9a-f]{16}$/.test(typed)) {
      va = BigInt(`0x${typed}`);
    } else if (/^(0x[0-9a-f]|\d)[0-9a-f_]*$/i.test(typed)) {
      va = readNumber(typed);
    } else {
      const [, name, offset] = typed.match(/^([^+\s]+)(?:\+([0-9a-fx]+))?$/i) ?? [];
      const { symbols } = this.facts;
      const base = Object.hasOwn(symbols, name) ? symbols[name] : undefined;
      const added = readNumber(offset ?? "0");
      if (base !== undefined && added !== null) va = BigInt(base) + added;
    }
    return va !== null && va < 1n << 64n ? va : null;
  }

  /** Show the walk at the current moment, of the event's address if it is to be followed. */
  show() {
    this.showTasks();
    if (byId("follow").checked) {
      const touched = this.run.touched();
      byId("task").value = String(frameOf(this.run.paging().root));
      if (touched) {
        this.asked = touched;
        byId("address").value = hex(touched.va);
        byId("kind").value = touched.kind;
        byId("who").value = touched.user ? "user" : "supervisor";
        byId("address-error").textContent = "";
      }
    }
    this.draw({ animated: false });
  }

  /** Offer the tables of all tasks, and that which a CPU is on if it is nobody's. */
  showTasks() {
    const roots = this.run.roots();
    if (this.named === this.run.tasks() && `${roots}` === this.shownRoots) return;
    this.named = this.run.tasks();
    this.shownRoots = `${roots}`;
    const tasks = new Map(this.named);
    for (const root of roots) {
      if (!tasks.has(frameOf(root))) tasks.set(frameOf(root), `table at ${hex(root)}`);
    }
    const select = byId("task");
    const chosen = select.value;
    select.replaceChildren(
      ...[...tasks].map(([frame, name]) => element("option", { value: frame }, name)),
    );
    if (tasks.has(Number(chosen))) select.value = chosen;
  }

  /** The paging of the current CPU, from the root that is chosen. */
  paging() {
    const chosen = BigInt(byId("task").value || 0) << FRAME_SHIFT;
    const paging = this.run.paging();
    return chosen === paging.root ? paging : { ...paging, cr3: chosen, root: chosen };
  }

  draw({ animated }) {
    this.timers.forEach(clearTimeout);
    byId("verdict").classList.remove("hidden", "active"); // the rest is made anew
    const paging = this.paging();
    const read = (pa) => this.run.read(pa);
    const found = walk(read, paging, this.asked.va);
    const cut = this.cut(found, paging);
    const steps = found.steps.map((step, i) => this.step(step, found.steps[i + 1], paging));
    if (found.verdict === "untold") steps.push(this.untold(found));
    byId("cut").replaceChildren(...cut);
    byId("steps").replaceChildren(
      element(
        "li",
        { class: "root" },
        "CR3 = ",
        element("code", {}, hex(paging.cr3)),
        `, ${paging.levels} levels`,
      ),
      ...steps,
    );
    byId("verdict").replaceChildren(...new Verdict(this.run, found, paging, this.asked).parts());
    if (animated) this.animate([...byId("steps").children, byId("verdict")]);
  }

  /** Let the parts appear one after the other. */
  animate(parts) {
    parts.forEach((part, i) => {
      part.classList.add("hidden");
      this.timers.push(
        setTimeout(() => {
          document.querySelectorAll(".active").forEach((one) => one.classList.remove("active"));
          part.classList.remove("hidden");
          part.classList.add("active");
          const { level } = part.dataset;
          if (level) byId("cut").querySelector(`[data-level="${level}"]`)?.classList.add("active");
        }, STEP_EVERY * i),
      );
    });
    this.timers.push(
      setTimeout(
        () => {
          document.querySelectorAll(".active").forEach((one) => one.classList.remove("active"));
        },
        STEP_EVERY * (parts.length + 1),
      ),
    );
  }

  /** The address, cut into what selects an entry at each level, and the offset. */
  cut(found, paging) {
    const { va } = found;
    const bits = va.toString(2).padStart(64, "0");
    const leaf = found.verdict === "mapped" ? found.steps.at(-1).level : 1;
    const top = 12 + 9 * paging.levels;
    const part = (high, low, name, value, level) =>
      element(
        "span",
        { class: level ? `part level-${level}` : "part", "data-level": level },
        element("span", { class: "name" }, name),
        element("span", { class: "bits" }, bits.slice(63 - high, 64 - low)),
        element("span", { class: "value" }, value),
      );
    const parts = [part(63, top, "sign", "")];
    for (let level = paging.levels; level >= leaf; level--) {
      const low = Number(pageShift(level));
      const index = indexOf(va, level);
      parts.push(part(low + 8, low, this.facts.entryNames[level], `${index}`, level));
    }
    const low = Number(pageShift(leaf));
    parts.push(part(low - 1, 0, "offset", hex(va & ((1n << BigInt(low)) - 1n))));
    const region = this.run.region(va);
    const indices = [...Array(paging.levels - leaf + 1).keys()].map((i) => paging.levels - i);
    const spoken = indices.map((level) => `${this.facts.entryNames[level]} ${indexOf(va, level)}`);
    byId("cut").setAttribute("aria-label", `${hex(va)}: ${spoken.join(", ")}`);
    return [
      element("p", {}, element("code", {}, hex16(va)), region ? ` ${region}` : ""),
      element("div", { class: "parts" }, parts),
    ];
  }

  /** One entry. `next` is the one that it leads to, if it was read. */
  step({ level, entryPa, entry }, next, paging) {
    const index = Number((entryPa & 0xfffn) >> 3n);
    return this.item(
      level,
      entryPa,
      element("span", { class: "index" }, `[${index}]`),
      hex(entry),
      entryBits(this.facts, entry, level, paging),
      entryMeanings(this.facts, entry, level),
      next ? this.lead(this.facts.entryNames[next.level], entry & ADDRESS) : null,
    );
  }

  /** Where an entry leads, and the way to see it among the tables. */
  lead(entryName, table) {
    const reveal = () => this.reveal(frameOf(table));
    const title = "Show it among the tables";
    return element(
      "p",
      { class: "leads" },
      `leads to the ${tableName(entryName)} at `,
      element(
        "button",
        { type: "button", title, onclick: reveal },
        element("code", {}, hex(table)),
      ),
    );
  }

  /** An entry of which nobody has told what it held. */
  untold({ level, entryPa }) {
    return this.item(level, entryPa, null, "?");
  }

  /** An entry of the list: its names, its place and what it holds; then what there is to say of it. */
  item(level, entryPa, index, value, ...more) {
    const { entryNames, linuxLabels } = this.facts;
    return element(
      "li",
      { class: `step level-${level}`, "data-level": level },
      element(
        "p",
        { class: "head" },
        element("strong", {}, entryNames[level]),
        element("span", { class: "linux" }, linuxLabels[level]),
        index,
        element("span", { class: "place" }, "at ", element("code", {}, hex(entryPa))),
        element("code", { class: "entry" }, value),
      ),
      ...more,
    );
  }
}

/** Read hex with 0x, or decimal, its digits grouped with _ or not; null for anything else. */
function readNumber(text) {
  const digits = text.replaceAll("_", "");
  return /^(0x[0-9a-f]+|\d+)$/i.test(digits) ? BigInt(digits) : null;
}
