// The cluster as the process that is asked sees it: nodes, buckets, the ring, a move. Owns which of
// two deployments the ring shows while there is a move.

import {
  DASH,
  byId,
  bytes,
  el,
  facts,
  fill,
  quoted,
  seconds,
  setNodes,
  setText,
  share,
  swatch,
  whole,
} from './dom.js';
import { Ring } from './ring.js';

const PHASES = [
  ['join', 'the new nodes come up'],
  ['write-both', 'writes to both, reads from the old nodes'],
  ['read-new', 'writes to both, reads from the new nodes'],
  ['leave', 'old nodes bring what they hold into the store'],
];

const ring = new Ring(byId('ring'), byId('partition'));
/** What was shown last. */
let shown = null;
byId('layout').addEventListener('change', () => showRing());

/** Shows what `/cluster` told. */
export function showCluster(cluster) {
  const own = cluster.nodes.find((node) => node.id === cluster.process);
  const looks = new Map(cluster.nodes.map((node) => [node.id, look(node, cluster.process)]));
  const held = own && new Map(own.held?.map((held) => [held.partition, held]));
  shown = { cluster, looks, held };
  const serving = [...looks.values()].filter((it) => it.serves).length;
  setText(byId('nodes-count'), `${serving} of ${cluster.nodes.length} serving`);
  showNodes(cluster, looks);
  showBuckets(cluster);
  showMove(cluster, looks);
  showRing();
}

/** How a node is, in a word and a level: what it told last counts only while it answers. */
function look(node, own) {
  if (node.id === own || node.live) {
    const serves = node.state === 'serving';
    return { word: node.state, level: serves ? 'good' : 'warn', serves };
  }
  const isKnown = node.state !== 'unknown';
  return {
    word: isKnown ? 'silent' : 'unknown',
    level: 'bad',
    more: isKnown ? `was ${node.state}` : 'never heard of',
    serves: false,
  };
}

const SIGNS = { good: '●', warn: '▲', bad: '✕' };

function stateText({ word, level, more }) {
  return el(
    'span',
    { class: 'state' },
    el('span', { class: `sign ${level}`, 'aria-hidden': 'true' }, SIGNS[level]),
    ` ${word}`,
    ...(more ? [el('small', {}, more)] : []),
  );
}

const number = (text, title) => el('td', { class: 'number', title }, text);

/** A link to the page of a node: only to what is an address beyond doubt. */
function nodeName(node) {
  const plain = /^(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):\d+$/.test(node.http ?? '');
  return plain ? el('a', { href: `//${node.http}/` }, node.id) : node.id;
}

function showNodes(cluster, looks) {
  const places = new Map(cluster.buckets.map((bucket, at) => [bucket.name, at]));
  const rows = cluster.nodes.map((node) => {
    const isOwn = node.id === cluster.process;
    const place =
      node.deployment === cluster.active_deployment ? (places.get(node.bucket) ?? -1) : -1;
    const elsewhere = node.deployment && node.deployment !== cluster.active_deployment;
    const heard = isOwn
      ? 'here'
      : typeof node.heard_millis === 'number'
        ? seconds(Math.max(1, Math.round(node.heard_millis / 100)) / 10)
        : DASH;
    const offset = isOwn
      ? DASH
      : typeof node.clock_offset_micros === 'number'
        ? seconds(node.clock_offset_micros / 1e6)
        : DASH;
    const epoch = isOwn ? cluster.epoch : node.epoch;
    return el(
      'tr',
      { 'data-state': looks.get(node.id).word },
      el('th', { scope: 'row' }, nodeName(node), el('small', {}, node.http ?? node.rpc)),
      el('td', {}, stateText(looks.get(node.id))),
      el(
        'td',
        {},
        swatch(place),
        node.bucket ?? DASH,
        ...[elsewhere && `of ${node.deployment}`, node.zone && `zone ${node.zone}`]
          .filter(Boolean)
          .map((text) => el('small', {}, text)),
      ),
      number(heard),
      number(whole(node.partitions)),
      number(whole(node.uncovered_partitions)),
      number(whole(node.behind_partitions)),
      number(offset),
      number(whole(epoch)),
      number(bytes(node.journal_bytes)),
    );
  });
  fill(byId('nodes').tBodies[0], rows);
}

function showBuckets(cluster) {
  const holds = cluster.buckets.map(() => 0);
  const leads = cluster.buckets.map(() => 0);
  cluster.ring.forEach((row) =>
    row.forEach((bucket, place) => {
      holds[bucket] += 1;
      if (place === 0) leads[bucket] += 1;
    }),
  );
  const each = cluster.ring[0]?.length ?? 0;
  setText(
    byId('buckets-count'),
    `${cluster.partitions} partitions, each on ${each} of ${cluster.buckets.length}`,
  );
  fill(
    byId('buckets').tBodies[0],
    cluster.buckets.map((bucket, at) =>
      el(
        'tr',
        {},
        el('th', { scope: 'row' }, swatch(at), bucket.name),
        number(String(bucket.weight)),
        number(share(bucket.share)),
        number(String(holds[at])),
        number(String(leads[at])),
        el('td', {}, bucket.nodes.join(' ')),
      ),
    ),
  );
}

function showRing() {
  if (!shown) return;
  const { cluster, looks, held } = shown;
  const move = cluster.migration;
  const choice = byId('layout');
  const names = [cluster.active_deployment];
  if (move) names.push(move.from === cluster.active_deployment ? move.to : move.from);
  const options = names.map((name) => el('option', {}, name));
  if (options.length !== choice.length || options.some((it, at) => it.text !== choice[at].text)) {
    choice.replaceChildren(...options);
  }
  byId('layout-choice').hidden = !move;
  const other = 0 < choice.selectedIndex;
  const { buckets, ring: rows } = other ? move : cluster;
  const layout = { buckets, ring: rows, consistency: cluster.consistency };
  setText(byId('ring-count'), `${rows.length} slices of the space of hashes`);
  ring.update(`${cluster.sha256} ${other}`, layout, looks, held);
}

function showMove({ migration, nodes, epoch, process, partitions }, looks) {
  byId('move').hidden = !migration;
  if (!migration) return;
  const at = PHASES.findIndex(([name]) => name === migration.phase);
  setNodes(
    byId('move-way'),
    'From ',
    quoted(migration.from),
    ' to ',
    quoted(migration.to),
    `; step ${at + 1} of ${PHASES.length}: ${migration.phase}.`,
  );
  fill(
    byId('move-phases'),
    PHASES.map(([name, words], n) =>
      el(
        'li',
        {
          class: n < at ? 'done' : n === at ? 'now' : '',
          'aria-current': n === at ? 'step' : undefined,
        },
        el('b', {}, name),
        ` ${words}`,
        ...(n < at ? [el('small', {}, ' done')] : []),
      ),
    ),
  );
  const have = nodes.filter((node) => (node.id === process ? epoch : node.epoch) >= epoch).length;
  const other = migration.buckets.flatMap((bucket) => bucket.nodes);
  const up = other.filter((id) => looks.get(id)?.serves).length;
  const told = nodes.filter(
    (node) => node.deployment === migration.from && typeof node.uncovered_partitions === 'number',
  );
  const uncovered = told.reduce((sum, node) => sum + node.uncovered_partitions, 0);
  const barrier = migration.past_barrier;
  facts(byId('move-facts'), [
    ['moving partitions', `${migration.moving} of ${partitions}`],
    ['have this epoch', `${have} of ${nodes.length} nodes`],
    migration.phase === 'leave'
      ? ['uncovered on old nodes', told.length ? String(uncovered) : DASH]
      : ['new nodes serving', `${up} of ${other.length}`],
    [
      'partitions past the barrier',
      typeof barrier === 'number' ? `${barrier} of ${migration.moving}` : DASH,
    ],
  ]);
}
