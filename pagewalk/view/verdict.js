// What a walk came to, in words: Python's, which are filled in here.
//
// Knows which word is for what. Refuses to know how a walk is made (paging.js).

/** What is said of the walk of one address, under one table. */
class Verdict {
  constructor(run, found, paging, { kind, user }) {
    Object.assign(this, { run, facts: run.facts, found, paging, kind, user });
  }

  /** Return the parts: where it ends, whether the access may use it, and where init_mm's differs. */
  parts() {
    const { found, kind, user } = this;
    const mapped = found.verdict === "mapped";
    const parts = [judged(mapped, this.endText(), "end")];
    if (mapped) {
      const rule = refusal(found, kind, user, this.paging);
      const text = rule ? this.refusalText(rule) : "ok";
      parts.push(judged(!rule, `${user ? "user" : "supervisor"} ${kind}: ${text}`), this.rights());
    }
    const difference = this.differenceText();
    if (difference) parts.push(element("p", { class: "difference" }, difference));
    return parts;
  }

  endText() {
    const { found, paging } = this;
    const last = found.steps.at(-1);
    if (found.verdict === "outside-ram" && !last) return this.facts.ends["no-root"];
    return filled(this.facts.ends[found.verdict], {
      pa: hex(physicalAddress(found) ?? 0n),
      size: last ? this.facts.pageSizes[last.level] : "",
      frame: last ? hex(pageFrame(last.entry, last.level)) : "",
      bits: last ? hex(reservedBits(last.entry, last.level, paging)) : "",
    });
  }

  refusalText(rule) {
    const text = this.facts.rules[rule];
    if (!text) return rule;
    const [bit, name, state] = this.facts.blames[rule] ?? [];
    if (!bit) return `refused by ${rule}: ${text}`;
    const blamed = this.found.steps
      .filter(({ entry }) => Boolean(entry & BigInt(bit)) === (state === "set"))
      .map(({ level }) => this.facts.entryNames[level]);
    return `refused by ${rule}: ${text}: ${name} is ${state} in the ${blamed.join(", ")}`;
  }

  /** Which accesses may use the walk, and the rule that refuses the others. */
  rights() {
    const { found, paging } = this;
    const kinds = ["read", "write", "fetch"];
    const row = (who) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, who),
        kinds.map((kind) => {
          const rule = refusal(found, kind, who === "user", paging);
          return element("td", { class: rule ? "wrong" : "ok" }, rule ?? "ok");
        }),
      );
    return element(
      "table",
      { class: "rights" },
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          element("td"),
          kinds.map((kind) => element("th", { scope: "col" }, kind)),
        ),
      ),
      element("tbody", {}, row("supervisor"), row("user")),
    );
  }

  /** Where the walk parts from init_mm's, if it does. */
  differenceText() {
    const { found, paging } = this;
    const tasks = this.run.tasks();
    const reference = [...tasks].find(([, name]) => name === "init_mm");
    const frame = frameOf(paging.root);
    if (!reference || reference[0] === frame) return "";
    const root = BigInt(reference[0]) << FRAME_SHIFT;
    const other = walk((pa) => this.run.read(pa), { ...paging, root }, found.va);
    const entryOf = (step) => step && step.entry & ~ACCESSED_DIRTY;
    const longest = Math.max(found.steps.length, other.steps.length);
    let at = 0;
    while (at < longest && entryOf(found.steps[at]) === entryOf(other.steps[at])) at++;
    if (at === longest || found.verdict === "untold" || other.verdict === "untold") return "";
    const [difference, has, hasNot] = this.facts.difference;
    const { level, entryPa } = found.steps[at] ?? other.steps[at];
    const says = (name, step) =>
      step ? filled(has, { name, value: hex(step.entry) }) : filled(hasNot, { name });
    return filled(difference, {
      entry: this.facts.entryNames[level],
      linux: this.facts.linuxNames[level],
      slot: Number((entryPa & 0xfffn) >> 3n),
      values: [
        says(tasks.get(frame) ?? hex(paging.root), found.steps[at]),
        says("init_mm", other.steps[at]),
      ].join(", "),
    });
  }
}

/** Return a line that says by its sign, too, whether something goes well. */
function judged(good, text, name = "") {
  return element(
    "p",
    { class: `${name} ${good ? "ok" : "wrong"}` },
    element("span", { class: "sign", "aria-hidden": true }, good ? "✓" : "✕"),
    text,
  );
}
