// The ring: partitions in the order of their hashes as arcs, one band per bucket that a partition
// falls on, the first outermost, and around them how many of the replicas serve. Owns which
// partition is looked at, by pointer or arrow keys.

import { el, hued, quoted, setNodes, svg, swatch } from './dom.js';

const OUTER = 110;
const HEALTH = 5;
const INNER = 46;
/** More arcs than this get no seams: they would be all seam. */
const SEAMS_MAX = 256;
/** A mark that is narrower, as a part of the circle, would be overlooked. */
const MARK_MIN = 1 / 256;

/** See the file. */
export class Ring {
  #layout = null;
  #built = null;
  /** Of each partition the arc that tells how it is, and what that tells now. */
  #arcs = [];
  #levels = [];
  #counts = {};
  /** Lies around the partition that is looked at. */
  #mark = null;
  #nodes = new Map();
  #pinned = null;
  #hovered = null;

  constructor(picture, details) {
    Object.assign(this, { picture, details });
    picture.addEventListener('pointermove', (event) => this.#hover(partitionOf(event)));
    picture.addEventListener('pointerleave', () => this.#hover(null));
    picture.addEventListener('click', (event) => {
      const p = partitionOf(event);
      this.#pinned = p === this.#pinned ? null : p;
      this.#tell();
    });
    picture.addEventListener('keydown', (event) => this.#onKey(event));
  }

  /** `layout`: buckets, ring, consistency; `key` names it; `nodes` by id; `held` by partition. */
  update(key, layout, nodes, held) {
    this.#layout = layout;
    this.#nodes = nodes;
    this.held = held;
    if (this.#built !== key) {
      this.#build();
      this.#built = key;
    }
    // There may be thousands of arcs: they are touched only where they change.
    this.#counts = { good: 0, warn: 0, bad: 0 };
    layout.ring.forEach((_, p) => {
      const { level } = this.#health(p);
      this.#counts[level] += 1;
      if (this.#levels[p] !== level) {
        this.#levels[p] = level;
        this.#arcs[p].setAttribute('class', `health ${level}`);
      }
    });
    this.#tell();
  }

  #build() {
    const { ring } = this.#layout;
    const bands = Math.max(1, ...ring.map((row) => row.length));
    const width = (OUTER - HEALTH - 2 - INNER) / bands;
    const groups = [];
    this.#arcs = ring.map((row, p) => {
      const [from, to] = [p / ring.length, (p + 1) / ring.length];
      const group = svg('g', { 'data-p': p });
      const health = svg('path', { d: arc(from, to, OUTER - HEALTH, OUTER) });
      group.append(health);
      groups.push(group);
      row.forEach((bucket, place) => {
        const outer = OUTER - HEALTH - 2 - place * width;
        const path = svg('path', { class: 'arc', d: arc(from, to, outer - width, outer) });
        group.append(hued(path, bucket));
      });
      return health;
    });
    this.#levels = [];
    this.#mark = svg('path', { class: 'mark-of' });
    this.middle = [
      svg('text', { class: 'middle', y: 2 }),
      svg('text', { class: 'middle small', y: 18 }),
    ];
    this.picture.classList.toggle('seams', ring.length <= SEAMS_MAX);
    this.picture.replaceChildren(...groups, this.#mark, ...this.middle);
    this.#pinned = null;
    this.#hovered = null;
  }

  /** How many of a partition's replicas serve, and whether that is enough. */
  #health(p) {
    const { ring, buckets, consistency } = this.#layout;
    const ids = ring[p].flatMap((bucket) => buckets[bucket].nodes);
    const serving = ids.filter((id) => this.#nodes.get(id)?.serves).length;
    const needed = { one: 1, all: ids.length }[consistency] ?? Math.floor(ids.length / 2) + 1;
    const level = serving === ids.length ? 'good' : needed <= serving ? 'warn' : 'bad';
    return { serving, of: ids.length, needed, level };
  }

  #hover(p) {
    if (p === this.#hovered) return;
    this.#hovered = p;
    this.#tell();
  }

  #onKey(event) {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (event.key === 'Escape') {
      this.#pinned = null;
      this.#tell();
    }
    if (!by || !this.#layout) return;
    event.preventDefault();
    const all = this.#layout.ring.length;
    const from = this.#pinned ?? (by === 1 ? -1 : 0);
    this.#pinned = (from + by + all) % all;
    this.#tell();
  }

  #tell() {
    if (!this.#layout) return;
    const { ring, buckets } = this.#layout;
    const p = this.#hovered ?? this.#pinned;
    const counts = this.#counts;
    const summary = [
      [counts.good, 'have all replicas serving', 'good', '●'],
      [counts.warn, 'lack a replica', 'warn', '▲'],
      [counts.bad, 'have too few replicas', 'bad', '✕'],
    ].filter(([count]) => 0 < count);
    this.picture.setAttribute(
      'aria-label',
      `${ring.length} partitions: ` +
        `${summary.map(([count, words]) => `${count} ${words}`).join(', ')}. ` +
        'Arrow keys go through them.',
    );
    if (p === null || p === undefined) {
      this.#mark.setAttribute('d', '');
      this.#write(String(ring.length), ring.length === 1 ? 'partition' : 'partitions');
      const lines = summary.map(([count, words, level, sign]) =>
        el(
          'li',
          {},
          el('span', { class: `sign ${level}`, 'aria-hidden': 'true' }, sign),
          ` ${count} ${words}`,
        ),
      );
      setNodes(
        this.details,
        el('ul', { class: 'plain' }, ...lines),
        el('p', { class: 'quiet' }, 'Point at a partition, tap it, or use the arrow keys.'),
      );
      return;
    }
    const health = this.#health(p);
    const middle = (p + 0.5) / ring.length;
    const half = Math.max(0.5 / ring.length, MARK_MIN / 2);
    this.#mark.setAttribute('d', arc(middle - half, middle + half, INNER, OUTER));
    this.#write(String(p), 'of ' + ring.length);
    const rows = ring[p].map((bucket) =>
      el(
        'li',
        {},
        swatch(bucket),
        el('b', {}, quoted(buckets[bucket].name)),
        ' ',
        ...buckets[bucket].nodes.flatMap((id) => {
          const node = this.#nodes.get(id);
          return [
            el(
              'span',
              { class: 'pair' },
              quoted(id),
              ' ',
              el('span', { class: node?.level ?? 'bad' }, node?.word ?? 'unknown'),
            ),
            ' ',
          ];
        }),
      ),
    );
    const held = this.held?.get(p);
    const own = held ? `Here: step ${held.step}, ${held.uncovered} uncovered.` : '';
    setNodes(
      this.details,
      el(
        'p',
        {},
        el('b', {}, `Partition ${p}`),
        ` · ${health.serving} of ${health.of} replicas serve, writes need ${health.needed}`,
      ),
      el('ul', { class: 'plain' }, ...rows),
      el('p', { class: 'quiet' }, `Hashes from ${slice(p, ring.length)}. ${own}`),
    );
  }

  #write(large, small) {
    this.middle[0].textContent = large;
    this.middle[1].textContent = small;
  }
}

function partitionOf(event) {
  const group = event.target.closest('[data-p]');
  return group ? Number(group.dataset.p) : null;
}

/** First hash of a partition: partitions are equal slices of the space, by the highest bits. */
function slice(p, all) {
  return `0x${((BigInt(p) << 64n) / BigInt(all)).toString(16).padStart(16, '0')}`;
}

/** The part of a ring between two radii; `from` and `to` are parts of the circle, from the top. */
function arc(from, to, inner, outer) {
  // A whole circle has no beginning that differs from its end.
  const end = Math.min(to, from + 0.99999);
  const at = (part, radius) => {
    const angle = 2 * Math.PI * part;
    return `${(radius * Math.sin(angle)).toFixed(2)} ${(-radius * Math.cos(angle)).toFixed(2)}`;
  };
  const large = 0.5 < end - from ? 1 : 0;
  return (
    `M${at(from, outer)}A${outer} ${outer} 0 ${large} 1 ${at(end, outer)}` +
    `L${at(end, inner)}A${inner} ${inner} 0 ${large} 0 ${at(from, inner)}Z`
  );
}
