// The page: unpacks the run, goes from moment to moment, and hears the keys.
//
// Knows what there is on the page. Refuses to know how any of it looks.

const KEYS = [
  ["← →", "one event back, or on; with Shift a hundred"],
  ["Home End", "to the beginning, to the end"],
  ["Space", "play, pause"],
  ["f c s", "to the next fault, table change, CR3 switch; with Shift to the one before"],
  ["/", "type an address; Enter walks it"],
  ["w", "walk once more, entry by entry"],
  ["↑ ↓ → ←", "in the tables: move, open, close; Enter goes to where a table is drawn"],
  ["t", "light or dark"],
  ["?", "these keys"],
];

class Page {
  constructor(facts) {
    this.run = new Run(facts);
    const goTo = (at) => this.goTo(at);
    const lookAt = (va, frame) => {
      this.walk.lookAt(va, frame);
      byId("walk").scrollIntoView({ block: "nearest" });
    };
    this.timeline = new Timeline(this.run, goTo);
    this.walk = new WalkView(this.run, (frame) => this.tree.revealTable(frame));
    this.tree = new TreeView(this.run, lookAt);
    this.slots = new SlotsView(this.run, lookAt);
    this.showFacts(facts);
    this.draw = oncePerFrame(() => this.show());
    document.addEventListener("keydown", (event) => this.key(event));
    const { fault } = facts.moments;
    this.goTo(fault.length ? fault.at(-1) : facts.nrEvents);
  }

  showFacts({ ending, nrEvents, nrLeftOut, hasTelling, nrInstructions, nrTables, columns }) {
    byId("ending").textContent = ending;
    const nrShown = columns.tableFrame.length;
    const parts = [
      `${grouped(nrEvents)} events of a run of ${grouped(nrInstructions)} instructions`,
    ];
    if (nrLeftOut) {
      const which = hasTelling ? "none" : "some";
      parts.push(
        `${grouped(nrLeftOut)} others are left out, ${which} of which change a table, fault or switch CR3`,
      );
    }
    if (nrShown < nrTables) {
      parts.push(`${grouped(nrShown)} of ${grouped(nrTables)} tables, those nearest to a root`);
    }
    byId("left-out").textContent = parts.join("; ");
    byId("keys").append(
      ...KEYS.flatMap(([keys, does]) => [
        element(
          "dt",
          {},
          keys.split(" ").map((key) => element("kbd", {}, key)),
        ),
        element("dd", {}, does),
      ]),
    );
  }

  /** Go to a moment. What is seen of it is drawn at most once a frame. */
  goTo(at) {
    const [tasks, roots] = [this.run.tasks(), this.run.roots()];
    const touched = this.run.moveTo(at);
    const { tableFrame } = this.run.columns;
    const isTop = (word) => this.run.topFrames.has(tableFrame[Math.floor(word / ENTRIES)]);
    const others = tasks !== this.run.tasks() || `${roots}` !== `${this.run.roots()}`;
    this.tree.stale ||= others || touched.size > 0;
    this.slots.stale ||= others || [...touched].some(isTop);
    this.draw();
  }

  show() {
    this.timeline.show();
    this.walk.show();
    this.tree.show();
    this.slots.show();
    document.body.dataset.at = this.run.at; // what is drawn
  }

  key(event) {
    const { target, key } = event;
    if (event.ctrlKey || event.altKey || event.metaKey || byId("help").open) return;
    if (target.matches("input[type=text], select")) {
      if (key === "Escape") target.blur();
      return;
    }
    if (key.startsWith("Arrow") && target.matches(".scroll")) return;
    const onRange = target.matches("input[type=range]");
    const onButton = target.matches("button, input[type=checkbox]");
    const jump = JUMPS.find((one) => one.key === key.toLowerCase());
    const { nrEvents } = this.run.facts;
    const far = event.shiftKey ? 100 : 1;
    const actions = {
      ArrowLeft: () => !(onRange && far === 1) && this.goTo(Math.max(this.run.at - far, 0)),
      ArrowRight: () => !(onRange && far === 1) && this.goTo(Math.min(this.run.at + far, nrEvents)),
      Home: () => this.goTo(0),
      End: () => this.goTo(nrEvents),
      " ": () => !onButton && this.timeline.togglePlay(),
      "/": () => byId("address").focus() ?? byId("address").select(),
      w: () => this.walk.ask(),
      t: () => toggleTheme(),
      "?": () => byId("help").showModal(),
    };
    if (jump) this.timeline.jump(jump.kind, event.shiftKey ? -1 : 1);
    else if (!(key in actions) || actions[key]() === false) return;
    event.preventDefault();
  }
}

/** Show the page light or dark, against what the system says if need be. */
function toggleTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
  nameTheme();
  dispatchEvent(new Event("themechange"));
}

function nameTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const now = document.documentElement.dataset.theme ?? system;
  byId("theme").textContent = now === "dark" ? "Light" : "Dark";
}

async function main() {
  nameTheme();
  byId("theme").addEventListener("click", toggleTheme);
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser cannot unpack the run: expected one of 2023 or later");
  }
  const data = byId("data");
  const page = new Page(await unpack(data.textContent));
  globalThis.pagewalk = page; // for the console
  data.remove();
  addEventListener("themechange", () => page.timeline.drawMarks());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    nameTheme();
    page.timeline.drawMarks();
  });
}

main().catch((error) => {
  byId("failure").hidden = false;
  byId("failure").textContent = error.message;
  console.error(error);
});
