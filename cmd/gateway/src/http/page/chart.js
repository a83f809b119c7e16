// A line chart of the last minutes: drawn anew with every point, in the pixels that it has. Owns
// the cursor, by pointer or arrow keys, that makes the legend tell an earlier moment. A gap in the
// data is a gap in the line.

import { DASH, clock, el, setText, svg } from './dom.js';

/** Oldest point that is shown, and the shortest time that is: a page just opened has few points. */
const SPAN_MAX = 300;
const SPAN_MIN = 30;
const HEIGHT = 168;
const EDGE = { left: 50, right: 10, top: 8, bottom: 22 };

/** See the file. `series`: `[{name, label, of(point)}]`. */
export class Chart {
  #points = [];
  #cursor = null;
  #width = 0;

  constructor({ title, note, series, format, base = 10, max = null }) {
    Object.assign(this, { title, series, format, base, max });
    this.values = series.map(() => el('b', {}, DASH));
    this.moment = el('span', { class: 'quiet' });
    this.picture = svg('svg', { role: 'img', tabindex: 0, height: HEIGHT });
    const legend = series.map(({ name, label }, at) =>
      el(
        'li',
        {},
        svg(
          'svg',
          { class: 'key', viewBox: '0 0 18 8', 'aria-hidden': 'true' },
          svg('path', { class: `line ${name}`, d: 'M1 4H17' }),
        ),
        label,
        ' ',
        this.values[at],
      ),
    );
    this.figure = el(
      'figure',
      { class: 'card' },
      el(
        'figcaption',
        {},
        el('h3', {}, title, ' ', el('span', { class: 'quiet' }, note ?? '')),
        this.moment,
      ),
      el('ul', { class: 'legend' }, ...legend),
      this.picture,
    );
    this.picture.addEventListener('pointermove', (event) => this.#onPointer(event));
    this.picture.addEventListener('pointerleave', () => this.#moveTo(null));
    this.picture.addEventListener('keydown', (event) => this.#onKey(event));
    this.picture.addEventListener('blur', () => this.#moveTo(null));
    new ResizeObserver(([entry]) => {
      this.#width = entry.contentRect.width;
      this.#draw();
    }).observe(this.figure);
  }

  /** Shows these points, oldest first. */
  update(points) {
    this.#points = points;
    this.#draw();
  }

  #span() {
    const last = this.#points.at(-1)?.at ?? 0;
    const first = this.#points[0]?.at ?? last;
    return { last, span: Math.min(SPAN_MAX, Math.max(SPAN_MIN, last - first)) };
  }

  #onPointer(event) {
    const { last, span } = this.#span();
    const box = this.picture.getBoundingClientRect();
    const part = (event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right);
    const at = last - span * (1 - part);
    const distance = (point) => Math.abs(point.at - at);
    const nearest = this.#points.reduce(
      (best, point) => (best && distance(best) <= distance(point) ? best : point),
      null,
    );
    this.#moveTo(nearest?.at ?? null);
  }

  #onKey(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === 'Escape') this.#moveTo(null);
    if (!by || this.#points.length === 0) return;
    event.preventDefault();
    const here = this.#points.findIndex((point) => point.at === this.#cursor);
    const from = here < 0 ? this.#points.length - 1 : here;
    const to = Math.min(this.#points.length - 1, Math.max(0, from + by));
    this.#moveTo(this.#points[to].at);
  }

  #moveTo(at) {
    this.#cursor = at;
    this.#draw();
  }

  #draw() {
    const cursor = this.#points.find((point) => point.at === this.#cursor);
    const shown = cursor ?? this.#points.at(-1);
    setText(this.moment, cursor ? clock(cursor.at * 1000) : '');
    const texts = this.series.map(({ of }) =>
      shown && !shown.gap ? this.format(of(shown)) : DASH,
    );
    texts.forEach((text, at) => setText(this.values[at], text));
    const told = this.series.map(({ label }, at) => `${label} ${texts[at]}`).join(', ');
    this.picture.setAttribute('aria-label', `${this.title}: ${told}`);
    if (this.#width === 0) return;
    const inner = this.#width - 2;
    this.picture.setAttribute('viewBox', `0 0 ${inner} ${HEIGHT}`);
    const { last, span } = this.#span();
    const points = this.#points.filter((point) => last - span <= point.at);
    const x = (at) => EDGE.left + (inner - EDGE.left - EDGE.right) * (1 - (last - at) / span);
    const values = points
      .filter((point) => !point.gap)
      .flatMap((point) => this.series.map(({ of }) => of(point)));
    const ticks = scale(this.max ?? Math.max(0, ...values), this.base);
    const top = ticks.at(-1);
    const y = (value) => HEIGHT - EDGE.bottom - (HEIGHT - EDGE.bottom - EDGE.top) * (value / top);
    const drawn = [];
    for (const tick of ticks) {
      const d = `M${EDGE.left} ${y(tick)}H${inner - EDGE.right}`;
      drawn.push(svg('path', { class: 'grid', d }));
      drawn.push(
        svg('text', { class: 'tick end', x: EDGE.left - 7, y: y(tick) + 4 }, this.format(tick)),
      );
    }
    for (const ago of [span, span / 2, 0]) {
      const place = ago === span ? '' : ago === 0 ? 'end' : 'middle';
      drawn.push(
        svg(
          'text',
          { class: `tick ${place}`, x: x(last - ago), y: HEIGHT - 4 },
          ago === 0 ? 'now' : `−${words(ago)}`,
        ),
      );
    }
    if (cursor) {
      drawn.push(
        svg('path', {
          class: 'cursor',
          d: `M${x(cursor.at)} ${EDGE.top}V${HEIGHT - EDGE.bottom}`,
        }),
      );
    }
    for (const { name, of } of this.series) {
      drawn.push(svg('path', { class: `line ${name}`, d: line(points, of, x, y) }));
      const value = cursor && !cursor.gap ? of(cursor) : null;
      if (value !== null && value !== undefined) {
        drawn.push(svg('circle', { class: `dot ${name}`, cx: x(cursor.at), cy: y(value), r: 3.5 }));
      }
    }
    this.picture.replaceChildren(...drawn);
  }
}

/** A path through all values; one without neighbours is a dot. */
function line(points, of, x, y) {
  let d = '';
  let pen = false;
  for (const point of points) {
    const value = point.gap ? null : of(point);
    if (value === null || value === undefined) {
      pen = false;
      continue;
    }
    const at = `${x(point.at).toFixed(1)} ${y(value).toFixed(1)}`;
    d += pen ? `L${at}` : `M${at}h0`;
    pen = true;
  }
  return d;
}

/** Round numbers from 0 to at least `max`; the unit goes by powers of `base` where that is 1024. */
function scale(max, base) {
  if (!(0 < max)) return [0, 1];
  const unit = base === 10 ? 1 : base ** Math.max(0, Math.floor(Math.log(max) / Math.log(base)));
  const raw = max / unit / 3;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((nice) => nice * power).find((it) => raw <= it * 1.0001) * unit;
  const ticks = [];
  for (let n = 0; n * step < max + step * 0.999; n += 1) ticks.push(n * step);
  return ticks;
}

function words(seconds) {
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Number((seconds / 60).toFixed(1))} min`;
}
