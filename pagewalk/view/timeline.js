// The scrubber: where the run is, what happens there, and the ways to go somewhere else.
//
// Knows how a moment is shown and chosen. Refuses to know what else follows it: `goTo` does.

const JUMPS = [
  { kind: "fault", name: "fault", names: "faults", key: "f" },
  { kind: "change", name: "table change", names: "table changes", key: "c" },
  { kind: "switch", name: "CR3 switch", names: "CR3 switches", key: "s" },
];
const BEFORE = 7; // events listed before the current one,
const AFTER = 4; // and behind it
const PLAY_EVERY = 250; // ms

class Timeline {
  constructor(run, goTo) {
    this.run = run;
    this.goTo = goTo;
    this.slider = byId("at");
    this.playing = null;
    this.slider.max = run.facts.nrEvents;
    this.slider.addEventListener("input", () => goTo(Number(this.slider.value)));
    byId("play").addEventListener("click", () => this.togglePlay());
    for (const button of document.querySelectorAll("[data-go]")) {
      button.addEventListener("click", () => this.go(button.dataset.go));
    }
    byId("jumps").append(...JUMPS.map((jump) => this.jumpButtons(jump)));
    new ResizeObserver(() => this.drawMarks()).observe(byId("marks"));
    byId("listing").addEventListener("click", (event) => {
      const row = event.target.closest("[data-at]");
      if (row) goTo(Number(row.dataset.at));
    });
  }

  jumpButtons({ kind, name, names, key }) {
    const { length } = this.run.facts.moments[kind];
    const button = (step, arrow, label, keys) =>
      element(
        "button",
        {
          type: "button",
          title: `${label} (${keys})`,
          "aria-label": label,
          disabled: length === 0,
          onclick: () => this.jump(kind, step),
        },
        arrow,
      );
    return element(
      "span",
      { class: "jump" },
      button(-1, "‹", `Previous ${name}`, key.toUpperCase()),
      element(
        "span",
        { class: `mark ${kind}` },
        `${grouped(length)} ${length === 1 ? name : names}`,
      ),
      button(1, "›", `Next ${name}`, key),
    );
  }

  jump(kind, step) {
    const at = this.run.neighbour(kind, step);
    if (at !== undefined) this.goTo(at);
  }

  go(where) {
    const { nrEvents } = this.run.facts;
    const to = { first: 0, last: nrEvents, back: this.run.at - 1, on: this.run.at + 1 }[where];
    this.goTo(Math.min(Math.max(to, 0), nrEvents));
  }

  togglePlay() {
    if (this.playing) {
      clearInterval(this.playing);
      this.playing = null;
    } else {
      if (this.run.at === this.run.facts.nrEvents) this.goTo(0);
      this.playing = setInterval(() => {
        if (this.run.at >= this.run.facts.nrEvents) this.togglePlay();
        else this.goTo(this.run.at + 1);
      }, PLAY_EVERY);
    }
    byId("play").textContent = this.playing ? "Pause" : "Play";
  }

  show() {
    const { run } = this;
    const { nrEvents } = run.facts;
    this.slider.value = run.at;
    byId("state").replaceChildren(...this.state());
    this.showRegisters();
    const total = nrEvents + run.facts.nrLeftOut;
    const where = run.at === 0 ? "the beginning" : `event ${grouped(run.number(run.at))}`;
    this.slider.setAttribute("aria-valuetext", `${where} of ${grouped(total)}`);
    byId("moment").textContent = `${where} of ${grouped(total)}`;
    const first = Math.max(1, Math.min(run.at - BEFORE, nrEvents - BEFORE - AFTER));
    const last = Math.min(nrEvents, first + BEFORE + AFTER);
    const rows = [];
    for (let at = first; at <= last; at++) {
      const gap = run.number(at) - run.number(at - 1) - 1;
      if (gap) rows.push(element("li", { class: "gap" }, `${grouped(gap)} events left out`));
      rows.push(this.row(at));
    }
    const listing = byId("listing");
    listing.replaceChildren(...rows);
    const current = listing.querySelector("[aria-current]");
    if (current) {
      const below = current.offsetTop + current.offsetHeight - listing.clientHeight;
      listing.scrollTop = Math.min(current.offsetTop, Math.max(0, below + 40));
    }
  }

  row(at) {
    const text = this.run.text(at);
    const current = at === this.run.at;
    return element(
      "li",
      {
        "data-at": at,
        "aria-current": current ? "step" : null,
        class: at > this.run.at ? "later" : null,
      },
      element("span", { class: "number" }, grouped(this.run.number(at))),
      element("span", { class: "text" }, current ? text : text.split("\n", 1)[0]),
    );
  }

  *state() {
    const { run } = this;
    const tasks = run.tasks();
    const cpus = Object.keys(run.pagings);
    for (const cpu of cpus) {
      const { cr3, root } = run.paging(cpu);
      const name = tasks.get(frameOf(root));
      yield element("dt", {}, cpus.length > 1 ? `CR3 of CPU ${cpu}` : "CR3");
      yield element("dd", {}, element("code", {}, hex(cr3)), name ? ` ${name}` : "");
    }
  }

  showRegisters() {
    const registers = this.run.registers();
    byId("registers").hidden = !registers;
    if (!registers) return;
    byId("registers").replaceChildren(
      ...registers.map(({ name, value, changed }) =>
        element(
          "div",
          { class: changed ? "changed" : null },
          element("dt", {}, name),
          element("dd", {}, element("code", {}, hex16(value))),
        ),
      ),
    );
  }

  /** Draw where the moments of each kind are, each kind in a lane of its own. */
  drawMarks() {
    const canvas = byId("marks");
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const lane = height / JUMPS.length;
    JUMPS.forEach(({ kind }, i) => {
      const swatch = document.querySelector(`.mark.${kind}`);
      pen.fillStyle = getComputedStyle(swatch, "::before").backgroundColor;
      const columns = new Set();
      for (const at of this.run.facts.moments[kind]) {
        columns.add(Math.round((at / this.run.facts.nrEvents) * (width - 2)));
      }
      for (const x of columns) pen.fillRect(x, i * lane + 1, 2, lane - 2);
    });
  }
}
