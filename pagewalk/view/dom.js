// Making elements, and numbers as text. Refuses to know what they are for.

/** Return an element with these attributes and children; what is null is left out. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function byId(id) {
  return document.getElementById(id);
}

/** Write a number as the project does: 0x, lower case, no zeros in front. */
function hex(value) {
  return value === UNTOLD ? "?" : `0x${value.toString(16)}`;
}

/** Write an address with all of its 16 digits. */
function hex16(value) {
  return value.toString(16).padStart(16, "0");
}

/** Write a count with its digits in groups. */
function grouped(number) {
  return number.toLocaleString("en-US");
}

/** Fill the {names} of a text. */
function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Return a function that is called once a frame at most, however often it is asked for. */
function oncePerFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}
