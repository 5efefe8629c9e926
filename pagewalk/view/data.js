"use strict";
// The run: its facts, its events, and its tables as they are at the current moment.
//
// Knows how the document is unpacked (packing.py is the other side), and how the tables follow the
// moment, forwards and backwards: each change knows what the entry held before it and after it.
// Refuses to know what is shown.

const ENTRIES = 512;
const FRAME_SHIFT = 12n;
const UNTOLD = Symbol("nobody told what this entry holds");

/** Return the document that packing.py has packed: its facts, with its columns as typed arrays. */
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(inflated).arrayBuffer();
  const size = new DataView(buffer).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const start = Math.ceil((4 + size) / 8) * 8;
  const types = { u1: Uint8Array, u4: Uint32Array, u8: BigUint64Array };
  for (const [name, [type, offset, length]] of Object.entries(facts.columns)) {
    facts.columns[name] = new types[type](buffer, start + offset, length);
  }
  return facts;
}

/** A recorded run, at a moment: how many of its events have happened. */
class Run {
  constructor(facts) {
    this.facts = facts;
    this.at = 0;
    this.columns = facts.columns;
    this.words = facts.columns.words;
    this.known = facts.columns.known;
    // The same words, for what has to be quick: bit 0 of the lower half is P.
    this.halves = new Uint32Array(this.words.buffer, this.words.byteOffset, 2 * this.words.length);
    this.tables = new Map([...facts.columns.tableFrame].map((frame, i) => [frame, i * ENTRIES]));
    this.nrChanges = 0; // how many have been made
    this.ram = facts.ram && facts.ram.map((piece) => piece.map(BigInt));
    this.pagings = Object.fromEntries(
      Object.entries(facts.pagings).map(([cpu, known]) => [
        cpu,
        known.map(([at, registers]) => [at, readPaging(registers)]),
      ]),
    );
    this.topFrames = new Set(facts.tasks.map(([, root]) => frameOf(BigInt(root))));
  }

  /** Go to a moment; return the words that are other ones now, by their number. */
  moveTo(at) {
    const { changeAt, changeWord, changeBefore, changeAfter, changeKnown } = this.columns;
    const touched = new Set();
    while (this.nrChanges < changeAt.length && changeAt[this.nrChanges] <= at) {
      const i = this.nrChanges++;
      this.words[changeWord[i]] = changeAfter[i];
      this.known[changeWord[i]] = changeKnown[i] >> 1;
      touched.add(changeWord[i]);
    }
    while (this.nrChanges > 0 && changeAt[this.nrChanges - 1] > at) {
      const i = --this.nrChanges;
      this.words[changeWord[i]] = changeBefore[i];
      this.known[changeWord[i]] = changeKnown[i] & 1;
      touched.add(changeWord[i]);
    }
    this.at = at;
    return touched;
  }

  /** Return the words that the last event has changed, with what they held before. */
  changes() {
    const { changeAt, changeWord, changeBefore, changeKnown } = this.columns;
    const found = new Map();
    for (let i = this.nrChanges - 1; i >= 0 && changeAt[i] === this.at && this.at > 0; i--) {
      found.set(changeWord[i], changeKnown[i] & 1 ? changeBefore[i] : UNTOLD);
    }
    return found;
  }

  /** Return the entry at a physical address; null where there is no RAM, UNTOLD if nobody knows. */
  read(pa) {
    const table = this.tables.get(frameOf(pa));
    if (table !== undefined) {
      const word = table + Number((pa & 0xfffn) >> 3n);
      return this.known[word] ? this.words[word] : UNTOLD;
    }
    if (this.ram && !this.ram.some(([start, end]) => start <= pa && pa < end)) return null;
    return UNTOLD;
  }

  /** Return the number of the CPU that the last event is about. */
  cpu() {
    return this.columns.eventCpu[Math.max(this.at - 1, 0)] ?? 0;
  }

  /** Return a CPU's control registers. */
  paging(cpu = this.cpu()) {
    const known = this.pagings[cpu];
    return known[Math.max(upTo(known, this.at, ([at]) => at) - 1, 0)][1];
  }

  /** Return the root of each CPU's tables. */
  roots() {
    return Object.keys(this.pagings).map((cpu) => this.paging(cpu).root);
  }

  /** Return the names of the tasks by the frames of their top tables: the same Map while the
   * same are there. */
  tasks() {
    const nr = upTo(this.facts.tasks, this.at, ([since]) => since);
    if (nr === this.nrNames) return this.named;
    this.nrNames = nr;
    this.named = new Map();
    for (const [, root, name] of this.facts.tasks.slice(0, nr)) {
      if (name === null) this.named.delete(frameOf(BigInt(root)));
      else this.named.set(frameOf(BigInt(root)), name);
    }
    return this.named;
  }

  /** Return the number, in the whole run, of the event that makes it `at`; 0 at the beginning. */
  number(at) {
    return at ? this.columns.eventNumber[at - 1] : 0;
  }

  /** Return the text of the event that makes it `at`. */
  text(at) {
    return this.facts.texts[this.columns.eventText[at - 1]];
  }

  /** Return the general registers before the instruction under way, in the order of their names,
   * and which of them the instruction before it changed; null if they were not recorded. */
  registers() {
    const row = this.at && this.columns.eventRow ? this.columns.eventRow[this.at - 1] : 0;
    if (!row) return null;
    const { registerBits } = this.columns;
    const nr = registerBits.length / this.facts.registers.length;
    this.registerValues ??= summed(registerBits, nr);
    return this.facts.registers.map((name, i) => {
      const at = i * nr + row - 1;
      return { name, value: this.registerValues[at], changed: row > 1 && registerBits[at] !== 0n };
    });
  }

  /** Return the address that the last event is about, and the access; null if it has none. */
  touched() {
    const access = this.at ? this.columns.eventAccess[this.at - 1] : 0;
    if (!access) return null;
    const kind = ["", "read", "write", "fetch"][access & 3];
    return { va: this.columns.eventVa[this.at - 1], kind, user: Boolean(access & 4) };
  }

  /** Return the next moment of a kind, or with `step` -1 the one before; undefined if none is. */
  neighbour(kind, step) {
    const moments = this.facts.moments[kind];
    const next = upTo(moments, this.at, (at) => at);
    if (step > 0) return moments[next];
    return moments[moments[next - 1] === this.at ? next - 2 : next - 1];
  }

  /** Name the region that an address lies in, if that is known. */
  region(va) {
    const found = this.facts.regions.find(
      ([, start, end]) => BigInt(start) <= va && va < BigInt(end),
    );
    return found ? found[0] : "";
  }
}

/** Return columns of `nr` numbers each, of columns of what differs from number to number. */
function summed(differences, nr) {
  const found = differences.slice();
  for (let i = 0; i < found.length; i++) if (i % nr) found[i] ^= found[i - 1];
  return found;
}

/** Return how many of the sorted `items` are not above a value. */
function upTo(items, value, key) {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (key(items[middle]) <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Return the number of the frame that a physical address lies in. */
function frameOf(pa) {
  return Number(pa >> FRAME_SHIFT);
}
