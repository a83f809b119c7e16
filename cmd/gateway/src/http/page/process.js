// What the process that is asked does itself, as tiles and charts of the last minutes. Owns the
// samples; what they mean is in metrics.js.

import { Chart } from './chart.js';
import {
  DASH,
  byId,
  bytes,
  count,
  el,
  quoted,
  seconds,
  setNodes,
  setText,
  share,
  whole,
} from './dom.js';
import { isRestart, point, sample } from './metrics.js';

/** Five minutes and what the first latencies need. */
const SAMPLES_MAX = 160;
/** Of samples further apart, in seconds, a rate would tell nothing of either. */
const APART_MAX = 40;

const samples = [];
const points = [];

const OPERATIONS = [
  ['read', 'reads'],
  ['write', 'writes'],
  ['change', 'changes'],
];
const FROM = [
  ['index', 'index'],
  ['cache', 'cache'],
  ['snapshot', 'snapshot'],
];
const perSecond = (value) => (value === null || value === undefined ? DASH : `${count(value)}/s`);

const charts = {
  rates: new Chart({
    title: 'Requests',
    note: 'per second',
    format: count,
    series: [...OPERATIONS, ['failed', 'failed']].map(([name, label]) => ({
      name,
      label,
      of: (point) => point.rates[name],
    })),
  }),
  p99: new Chart({
    title: 'Latency',
    note: '99th percentile',
    format: seconds,
    series: OPERATIONS.map(([name, label]) => ({ name, label, of: (point) => point.p99[name] })),
  }),
  memory: new Chart({
    title: 'Answered from memory',
    note: 'of the votes of this node',
    format: share,
    max: 1,
    series: [{ name: 'memory', label: 'index and record cache', of: (point) => point.memory }],
  }),
  votes: new Chart({
    title: 'Votes',
    note: 'per second, by where the record was',
    format: count,
    series: FROM.map(([name, label]) => ({
      name,
      label,
      of: (point) => point.votes?.[name] ?? null,
    })),
  }),
  uncovered: new Chart({
    title: 'Uncovered',
    note: 'not in the object store yet',
    format: bytes,
    base: 1024,
    series: [{ name: 'uncovered', label: 'records', of: (point) => point.uncoveredBytes }],
  }),
  age: new Chart({
    title: 'Snapshot age',
    note: 'longest wait for a step',
    format: seconds,
    series: [{ name: 'age', label: 'oldest partition', of: (point) => point.snapshotAge }],
  }),
};
const NODE_ONLY = ['memory', 'votes', 'uncovered', 'age'];
byId('charts').append(...Object.values(charts).map((chart) => chart.figure));

/** Takes in what `/metrics` told, of this life of the process. */
export function take(text, run) {
  const now = sample(text, Date.now() / 1000, run);
  const last = samples.at(-1);
  // Rates over a time without answers, or over two lives, would be of neither.
  if (last && (isRestart(last, now) || APART_MAX < now.at - last.at)) {
    samples.length = 0;
    if (0 < points.length) points.push({ at: now.at, gap: true });
  }
  samples.push(now);
  if (SAMPLES_MAX < samples.length) samples.shift();
  if (1 < samples.length) points.push(point(samples));
  while (SAMPLES_MAX < points.length) points.shift();
}

/** Shows what was taken in. */
export function showProcess(cluster) {
  const now = samples.at(-1);
  const last = points.findLast((point) => !point.gap);
  const isNode = cluster.nodes.some((node) => node.id === cluster.process);
  byId('proxy-note').hidden = isNode;
  for (const name of NODE_ONLY) charts[name].figure.hidden = !isNode;
  for (const chart of Object.values(charts)) chart.update(points);
  setNodes(
    byId('here-count'),
    quoted(cluster.process),
    ': what clients ask of it' + `${isNode ? ', and what it stores' : ''}`,
  );
  const p50 = (operation) => `median ${seconds(last?.p50[operation] ?? null)}`;
  const tiles = [
    [
      'Requests',
      perSecond(last?.total),
      `${perSecond(last?.rates.failed)} failed`,
      0 < last?.rates.failed ? 'bad' : '',
    ],
    ['Reads, p99', seconds(last?.p99.read), p50('read')],
    ['Writes, p99', seconds(last?.p99.write), p50('write')],
  ];
  if (isNode) {
    const failed = now.journalFailed === 1;
    tiles.push(
      ['From memory', share(last?.memory), `${perSecond(last?.votes?.snapshot)} from snapshots`],
      ['Uncovered', bytes(now.uncoveredBytes), `${count(now.uncoveredRecords)} records`],
      [
        'Snapshot age',
        seconds(now.snapshotAge),
        `${whole(now.steps)} steps here, ${whole(now.stepsFailed)} failed`,
      ],
      [
        'Journal',
        failed ? 'failed' : bytes(now.journalBytes),
        failed ? 'nothing is acknowledged' : `${perSecond(last?.accepted)} accepted`,
        failed ? 'bad' : '',
      ],
      ['Object store', perSecond(last?.storeRequests), 'requests of this node'],
    );
  }
  fillTiles(byId('tiles'), tiles);
}

function fillTiles(place, tiles) {
  tiles.forEach(([name, value, more, level], at) => {
    const tile =
      place.children[at] ??
      place.appendChild(el('div', {}, el('dt'), el('dd'), el('dd', { class: 'quiet' })));
    tile.className = `card ${level ?? ''}`;
    [name, value, more].forEach((text, n) => setText(tile.children[n], text));
  });
  while (tiles.length < place.children.length) place.lastChild.remove();
}

/** Seconds since the process began to serve. */
export const uptime = () => samples.at(-1)?.uptime ?? null;
