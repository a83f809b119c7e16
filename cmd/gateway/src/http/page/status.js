// The status page: asks the process that served it, and hands on what it says. Owns when to ask
// (less often while nobody looks, and after failures), the token, and what is said when there is no
// answer.
//
//   status ─► cluster ─► ring         what /cluster told
//          ─► process ─► chart        what /metrics told, by way of metrics
//          ─► events                  what /events told
//   all    ─► dom                     elements and texts

import { showCluster } from './cluster.js';
import { byId, clock, el, facts, quoted, seconds, setNodes, setText } from './dom.js';
import { newEvents, showEvents } from './events.js';
import { showProcess, take, uptime } from './process.js';

const EVERY = 2_000;
/** Where there are so many partitions that an answer is long. */
const EVERY_LARGE = 5_000;
const PARTITIONS_LARGE = 1_024;
const EVERY_HIDDEN = 20_000;
const RETRY_MAX = 15_000;
const TIMEOUT = 8_000;

const state = {
  token: null,
  failures: 0,
  since: null,
  timer: null,
  asking: false,
  every: EVERY,
  /** Who answered last. */
  process: null,
};

/** It asks for a token, or for another one. */
class Denied extends Error {}
/** It does not answer as it should; the message says more where there is more to say. */
class Away extends Error {}

async function ask(path) {
  const options = { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT) };
  if (state.token !== null) {
    // What the browser itself remembers of a login must not contradict it.
    options.credentials = 'omit';
    options.headers = { authorization: `Bearer ${state.token}` };
  }
  let answer;
  let text;
  try {
    answer = await fetch(path, options);
    text = await answer.text();
  } catch {
    throw new Away('');
  }
  if (answer.status === 401 || answer.status === 403) throw new Denied(path);
  if (!answer.ok) throw new Away(`${path} answers ${answer.status}`);
  return text;
}

async function askJson(path) {
  const text = await ask(path);
  try {
    return JSON.parse(text);
  } catch {
    throw new Away(`${path} is no JSON`);
  }
}

async function poll() {
  clearTimeout(state.timer);
  if (state.asking) return;
  state.asking = true;
  try {
    const [cluster, metrics, events] = await Promise.all([
      askJson('/cluster'),
      ask('/metrics'),
      newEvents(askJson),
    ]);
    state.failures = 0;
    state.since = null;
    show(cluster, metrics, events);
  } catch (error) {
    if (error instanceof Denied) {
      denied();
      return;
    }
    state.failures += 1;
    state.since ??= Date.now();
    if (error instanceof Away) {
      unreachable(error.message);
    } else {
      notice('bad', `This page cannot show what it was told: ${error.message}`);
      console.error(error);
    }
  } finally {
    state.asking = false;
  }
  state.timer = setTimeout(poll, wait());
}

function wait() {
  if (0 < state.failures) return Math.min(RETRY_MAX, 1_000 * 2 ** (state.failures - 1));
  return document.hidden ? EVERY_HIDDEN : state.every;
}

function show(cluster, metrics, events) {
  state.process = cluster.process;
  state.every = PARTITIONS_LARGE <= cluster.partitions ? EVERY_LARGE : EVERY;
  byId('token-form').hidden = true;
  document.body.classList.remove('empty');
  take(metrics, events.run);
  setText(byId('process'), cluster.process);
  badge(cluster.ready ? 'good' : 'bad', cluster.ready ? '● ready' : '✕ not ready');
  document.title = `${cluster.ready ? '' : 'not ready: '}${cluster.process} · Tako`;
  facts(byId('facts'), [
    ['role', cluster.nodes.some((node) => node.id === cluster.process) ? 'node' : 'proxy'],
    ['deployment', cluster.active_deployment],
    ['consistency', cluster.consistency],
    ['epoch', String(cluster.epoch), `sha256 ${cluster.sha256}`],
    ['up for', seconds(uptime())],
  ]);
  if (cluster.configuration_refused) {
    notice('warn', 'A configuration was refused: ', quoted(cluster.configuration_refused));
  } else {
    notice(null);
  }
  showCluster(cluster);
  showProcess(cluster);
  showEvents(events);
}

/** Says why the page is as it is; `null` takes that away. */
function notice(level, ...nodes) {
  const place = byId('notice');
  if (level === null) place.replaceChildren();
  else setNodes(place, el('p', { class: `notice ${level}` }, ...nodes));
  document.body.classList.toggle('stale', level === 'bad');
}

function unreachable(why) {
  const name = state.process ?? location.host;
  notice(
    'bad',
    quoted(name),
    ` is not reachable since ${clock(state.since)}${why && ` (${why})`}. ` +
      `${state.process ? 'What is shown is from before; it' : 'It'} is tried again.`,
  );
  badge('bad', 'not reachable');
  document.title = `not reachable: ${name} · Tako`;
}

function denied() {
  const form = byId('token-form');
  setText(byId('token-refused'), state.token === null ? '' : 'This token was refused.');
  notice(null);
  if (form.hidden) {
    form.hidden = false;
    byId('token').focus();
  }
  badge('warn', 'token needed');
}

byId('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  state.token = byId('token').value;
  byId('token').value = '';
  poll();
});

document.addEventListener('visibilitychange', () => {
  const asksForToken = !byId('token-form').hidden;
  if (!document.hidden && !asksForToken) poll();
});

function badge(level, text) {
  const place = byId('ready');
  place.className = `badge ${level}`;
  setText(place, text);
}

poll();
