// The bits of an entry, each by its name.
//
// Knows how fields look (entry_fields.py says which there are). Refuses to know whose entry it is.

/** Return an entry's bits, the highest first; those that are reserved and set are marked. */
function entryBits(facts, entry, level, paging) {
  const bad = entry & P ? reservedBits(entry, level, paging) : 0n;
  const fields = facts.fields[`${level} ${sortOf(entry, level)}`];
  return element(
    "div",
    { class: "fields", role: "list", "aria-label": "Its bits" },
    fields.map((field) => entryField(field, entry, bad)),
  );
}

/** Return what the bits that are set in an entry mean, one by one. */
function entryMeanings(facts, entry, level) {
  const told = facts.fields[`${level} ${sortOf(entry, level)}`].filter(
    ([high, low, name]) => name !== "ignored" && valueOf(entry, high, low),
  );
  return element(
    "dl",
    { class: "meanings" },
    told.map(([, , name, meaning]) => [element("dt", {}, name), element("dd", {}, meaning)]).flat(),
  );
}

/** Return what an entry has in the bits from `high` down to `low`. */
function valueOf(entry, high, low) {
  return (entry >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n);
}

function entryField([high, low, name, meaning], entry, bad) {
  const value = valueOf(entry, high, low);
  const single = high === low;
  const bits = single ? `${high}` : `${high}–${low}`;
  const classes = ["field"];
  if (single) classes.push("flag");
  if (name === "ignored") classes.push("ignored");
  else if (value) classes.push("set");
  if (valueOf(bad, high, low)) classes.push("bad");
  return element(
    "span",
    {
      class: classes.join(" "),
      role: "listitem",
      title: `${single ? "bit" : "bits"} ${bits}: ${name}: ${meaning}`,
    },
    element("span", { class: "name" }, name),
    element("span", { class: "value" }, fieldText(name, value, high, low)),
    element("span", { class: "where" }, bits),
  );
}

/** Write an address as one, a few bits one by one, and many of them in hex. */
function fieldText(name, value, high, low) {
  if (name === "frame" || name === "table") return hex(value << BigInt(low));
  return high - low > 3 ? hex(value) : value.toString(2).padStart(high - low + 1, "0");
}

/** Return the names of an entry's single bits that are set, the lowest first. */
function flagNames(facts, entry, level) {
  return facts.fields[`${level} ${sortOf(entry, level)}`]
    .filter(
      ([high, low, name]) => high === low && name !== "ignored" && (entry >> BigInt(low)) & 1n,
    )
    .map(([, , name]) => name)
    .reverse()
    .join(" ");
}

/** Tell whether an entry leads to a table, maps a page, or is absent. */
function sortOf(entry, level) {
  if (!(entry & P)) return "absent";
  return mapsPage(entry, level) && level <= 3 ? "page" : "table";
}

/** Return the name of the table that holds an entry: PML4E, PML4. */
function tableName(entryName) {
  return entryName.slice(0, -1);
}
