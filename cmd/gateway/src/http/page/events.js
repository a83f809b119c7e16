// The event log of the process that is asked: only the newest are fetched and kept.

import { byId, clock, el } from './dom.js';

const EVENTS_MAX = 100;
/** A number that no event has: what is told then is where the log ends. */
const EVENTS_END = Number.MAX_SAFE_INTEGER;

/** The life of the process and the number of its last event shown. */
let shown = { run: null, after: 0 };

/** Fetches what is new by `ask`, which gives JSON. */
export async function newEvents(ask) {
  const { run, after } = shown;
  if (run !== null) {
    const page = await ask(`/events?after=${after}&run=${encodeURIComponent(run)}&limit=1000`);
    if (page.run === run) return page;
  }
  const end = await ask(`/events?after=${EVENTS_END}&limit=1`);
  const from = Math.max(0, end.next - EVENTS_MAX);
  return ask(`/events?after=${from}&limit=${EVENTS_MAX}`);
}

/** Adds what `/events` told; of another life of the process, in the place of all. */
export function showEvents(page) {
  const list = byId('events');
  if (page.run !== shown.run) list.replaceChildren();
  shown = { run: page.run, after: page.next };
  for (const event of page.events) {
    const fields = Object.entries(event.fields ?? {}).map(
      ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
    );
    const level = { warn: 'warn', error: 'bad' }[event.level] ?? 'quiet';
    const at = new Date(event.at / 1000);
    list.prepend(
      el(
        'li',
        {},
        el('time', { datetime: at.toISOString(), title: at.toLocaleString() }, clock(at)),
        el('span', { class: `level ${level}` }, event.level),
        el('span', { class: 'text' }, event.text, ' ', el('small', {}, fields.join(' '))),
        el('small', { class: 'part' }, event.part),
      ),
    );
  }
  while (EVENTS_MAX < list.children.length) list.lastElementChild.remove();
}
