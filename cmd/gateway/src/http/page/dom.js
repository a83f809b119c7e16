// Elements and texts: how data gets onto the page. Owns the rule that data only ever becomes text
// nodes and attributes that mean nothing to the browser, never markup: ids and events may hold
// anything.

const SVG = 'http://www.w3.org/2000/svg';

/** What is not known. */
export const DASH = '–';

/** The element of the frame that has this id. */
export const byId = (id) => document.getElementById(id);

/** An HTML element; children are nodes, or anything else as its text. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same in SVG. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Sets a text only where it changed, so that what is selected or read aloud stays. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The same for several nodes. */
export function setNodes(element, ...nodes) {
  const next = el('span', {}, ...nodes);
  const old = element.firstChild;
  const isSame = element.childNodes.length === 1 && next.isEqualNode(old);
  if (!isSame) element.replaceChildren(next);
}

/** A name within a sentence: whatever direction its letters have, the sentence keeps its own. */
export const quoted = (text) => el('bdi', {}, text);

/** Puts rows in place one by one, and only those that changed: focus and selection stay. */
export function fill(body, rows) {
  rows.forEach((row, at) => {
    const old = body.children[at];
    if (!old) body.append(row);
    else if (!old.isEqualNode(row)) old.replaceWith(row);
  });
  while (rows.length < body.children.length) body.lastElementChild.remove();
}

/** Names and values in a `dl`: `[[name, value, title], …]`. */
export function facts(place, rows) {
  rows.forEach(([name, value, title], at) => {
    const group = place.children[at] ?? place.appendChild(el('div', {}, el('dt'), el('dd')));
    setText(group.firstChild, name);
    setText(group.lastChild, value);
    group.title = title ?? '';
  });
  while (rows.length < place.children.length) place.lastChild.remove();
}

/** A swatch of a bucket, known by its place in the list of buckets. */
export function swatch(place) {
  const box = el('span', { class: 'swatch', 'aria-hidden': 'true' });
  return place < 0 ? box : hued(box, place);
}

/** Gives an element the colour of a bucket: neighbours in the list are far apart in hue. */
export function hued(element, place) {
  element.style.setProperty('--hue', String((255 + place * 137.5) % 360));
  return element;
}

const known = (value) => typeof value === 'number' && Number.isFinite(value);

/** Three digits and a letter: `950`, `1.2k`. */
export function count(value) {
  if (!known(value)) return DASH;
  for (const [unit, letter] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ]) {
    if (unit <= value) return digits(value / unit) + letter;
  }
  return digits(value);
}

/** A number with at most three digits that count. */
function digits(value) {
  return String(Number(value.toFixed(100 <= value ? 0 : 10 <= value ? 1 : 2)));
}

/** Seconds as `µs`, `ms`, `s`, `min`, `h`, `d`. */
export function seconds(value) {
  if (!known(value)) return DASH;
  if (value < 0) return `−${seconds(-value)}`;
  if (value === 0) return '0 s';
  if (value < 1e-3) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${Number((value * 1e3).toFixed(value < 1e-2 ? 1 : 0))} ms`;
  if (value < 120) return `${Number(value.toFixed(value < 10 ? 1 : 0))} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return value < 172800 ? `${Math.round(value / 3600)} h` : `${Math.round(value / 86400)} d`;
}

/** Bytes as `KiB`, `MiB`, … */
export function bytes(value) {
  if (!known(value)) return DASH;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (1024 <= value && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${at === 0 ? Math.round(value) : digits(value)} ${units[at]}`;
}

/** A share of 1 in per cent. */
export function share(value) {
  if (!known(value)) return DASH;
  return `${Number((value * 100).toFixed(1))} %`;
}

/** A number as it is. */
export const whole = (value) => (known(value) ? String(value) : DASH);

/** The time of day, here. */
export function clock(millis) {
  return new Date(millis).toLocaleTimeString([], { hourCycle: 'h23' });
}
