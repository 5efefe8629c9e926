// The walk, and whether an access may use it: the rules, once more.
//
// Knows what emu/walk.py and emu/rights.py know, and is tested against them. Refuses to know where
// entries are kept: `read` answers with an entry, null where there is no RAM, or UNTOLD.

const P = 1n << 0n;
const RW = 1n << 1n;
const US = 1n << 2n;
const ACCESSED_DIRTY = 3n << 5n;
const PS = 1n << 7n;
const XD = 1n << 63n;
const ADDRESS = 0x000f_ffff_ffff_f000n;
const KEY_SHIFT = 59n;
const CR0_WP = 1n << 16n;
const CR4_SMEP = 1n << 20n;
const CR4_SMAP = 1n << 21n;
const CR4_PKE = 1n << 22n;

/** Return the control registers that document.py has written. */
function readPaging(registers) {
  const { levels, reserved, ...hex } = registers;
  const read = Object.fromEntries(Object.entries(hex).map(([name, text]) => [name, BigInt(text)]));
  return { ...read, levels, reserved: reserved.map(BigInt) };
}

function pageShift(level) {
  return BigInt(3 + 9 * level);
}

/** Return which of the 512 entries of a table of `level` translates an address. */
function indexOf(va, level) {
  return Number((va >> pageShift(level)) & 511n);
}

function isCanonical(va, levels) {
  const half = 1n << (pageShift(levels + 1) - 1n);
  return 0n <= va && (va < half || ((1n << 64n) - half <= va && va < 1n << 64n));
}

/** Return the bits of a present entry that must be 0 and are not. */
function reservedBits(entry, level, paging) {
  return entry & paging.reserved[2 * level + Number((entry >> 7n) & 1n)];
}

function mapsPage(entry, level) {
  return level === 1 || Boolean(entry & PS);
}

/** Return the physical address of the page that an entry maps. */
function pageFrame(entry, level) {
  return entry & ADDRESS & ~((1n << pageShift(level)) - 1n);
}

/** Translate an address: the entries read, root first, and what settled the matter. */
function walk(read, paging, va) {
  let table = paging.root;
  const steps = [];
  const ending = (verdict) => ({ va, steps, verdict, table });
  if (!isCanonical(va, paging.levels)) return ending("non-canonical");

  for (let level = paging.levels; level > 0; level--) {
    const entryPa = table + 8n * BigInt(indexOf(va, level));
    const entry = read(entryPa);
    if (entry === null) return ending("outside-ram");
    if (entry === UNTOLD) return { ...ending("untold"), level, entryPa };
    steps.push({ level, entryPa, entry });

    if (!(entry & P)) return ending("not-present");
    if (reservedBits(entry, level, paging)) return ending("reserved-bit");
    if (mapsPage(entry, level)) return ending("mapped");

    table = entry & ADDRESS;
  }
  throw new Error("an entry of level 1 leads nowhere: it is absent, malformed or a page");
}

/** Return the physical address that a walk came to; null unless it is mapped. */
function physicalAddress(found) {
  if (found.verdict !== "mapped") return null;
  const { level, entry } = found.steps.at(-1);
  return pageFrame(entry, level) | (found.va & ((1n << pageShift(level)) - 1n));
}

/** Return the id of the rule that refuses an access, or null if it may use the walk. */
function refusal(found, kind, user, paging) {
  if (found.verdict === "not-present") return "not-present";
  const last = found.steps.at(-1);
  if (found.verdict === "reserved-bit") {
    return reservedRule(reservedBits(last.entry, last.level, paging), paging);
  }
  if (found.verdict !== "mapped") return null;

  const everywhere = found.steps.reduce((bits, { entry }) => bits & entry, ~0n);
  const anywhere = found.steps.reduce((bits, { entry }) => bits | entry, 0n);
  const userPage = Boolean(everywhere & US);
  if (user && !userPage) return "us";
  if (kind === "fetch") {
    if (!user && userPage && paging.cr4 & CR4_SMEP) return "smep";
    return anywhere & XD ? "xd" : null;
  }
  if (!user && userPage && paging.cr4 & CR4_SMAP) return "smap";
  const refused = keyRule(last.entry, userPage, kind, user, paging);
  if (refused) return refused;
  if (kind === "write" && !(everywhere & RW)) {
    if (user) return "rw";
    if (paging.cr0 & CR0_WP) return "wp";
  }
  return null;
}

/** Return the rule that reserved bits break, the highest first. */
function reservedRule(bits, paging) {
  if (bits & XD) return "rsvd-xd";
  if (bits & paging.reserved[2] & ADDRESS) return "rsvd-maxphyaddr";
  return bits & PS ? "rsvd-ps" : "rsvd-large";
}

/** Return the protection-key rule that refuses a data access, or null. */
function keyRule(entry, userPage, kind, user, paging) {
  if (!userPage || !(paging.cr4 & CR4_PKE)) return null;
  const rights = paging.pkru >> (2n * ((entry >> KEY_SHIFT) & 15n));
  if (rights & 1n) return "pk-ad";
  if (rights & 2n && kind === "write" && (user || paging.cr0 & CR0_WP)) return "pk-wd";
  return null;
}
