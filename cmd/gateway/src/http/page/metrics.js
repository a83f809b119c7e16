// From Prometheus' text format to points of charts: counters become rates, histograms quantiles.
// Pure. What a process does not tell (a proxy has no votes) is `null`, and so is what did not
// happen: a latency without requests.

const OPERATIONS = ['read', 'write', 'change'];
/** Latencies are of so many samples: fewer make the highest percentile jump. */
const LATENCY_SAMPLES = 5;

/** Series by name: `[{labels, value}]`. */
export function parse(text) {
  const families = new Map();
  for (const line of text.split('\n')) {
    const match = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    const value = match?.[3] === '+Inf' ? Infinity : Number(match?.[3]);
    if (Number.isNaN(value)) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name] = value;
    }
    if (!families.has(match[1])) families.set(match[1], []);
    families.get(match[1]).push({ labels, value });
  }
  return families;
}

/** What is kept of one answer; `at` in seconds, `run` names the life of the process. */
export function sample(text, at, run) {
  const families = parse(text);
  const one = (name) => families.get(name)?.[0]?.value ?? null;
  const by = (name, label) => {
    const family = families.get(name);
    return family && Object.fromEntries(family.map((it) => [it.labels[label], it.value]));
  };
  const buckets = Object.fromEntries(OPERATIONS.map((operation) => [operation, []]));
  for (const { labels, value } of families.get('tako_request_seconds_bucket') ?? []) {
    const bound = labels.le === '+Inf' ? Infinity : Number(labels.le);
    buckets[labels.operation]?.push({ bound, count: value });
  }
  return {
    at,
    run,
    uptime: one('tako_uptime_seconds'),
    counts: by('tako_request_seconds_count', 'operation') ?? {},
    failed: by('tako_requests_failed_total', 'operation') ?? {},
    buckets,
    votes: by('tako_votes_total', 'from') ?? null,
    accepted: one('tako_records_accepted_total'),
    steps: one('tako_steps_total'),
    stepsFailed: one('tako_steps_failed_total'),
    storeRequests: by('tako_store_requests_total', 'kind') ?? null,
    journalBytes: one('tako_journal_bytes'),
    journalFailed: one('tako_journal_failed'),
    uncoveredRecords: one('tako_uncovered_records'),
    uncoveredBytes: one('tako_uncovered_bytes'),
    snapshotAge: one('tako_snapshot_age_seconds'),
  };
}

/** Whether `after` is of a later life of the process, whose counters began anew. */
export function isRestart(before, after) {
  return after.run !== before.run || after.uptime <= before.uptime;
}

/** The value below which the share `q` of what came between two histograms lies. */
export function quantile(q, before, after) {
  const deltas = after.map(({ bound, count }, at) => ({
    bound,
    count: count - (before[at]?.count ?? 0),
  }));
  const total = deltas.at(-1)?.count ?? 0;
  if (!(0 < total)) return null;
  const rank = q * total;
  const at = deltas.findIndex(({ count }) => rank <= count);
  const low = at === 0 ? { bound: 0, count: 0 } : deltas[at - 1];
  const high = deltas[at];
  // Above the last bound nothing more is known.
  if (high.bound === Infinity) return low.bound;
  const part = (rank - low.count) / (high.count - low.count);
  return low.bound + (high.bound - low.bound) * part;
}

/** The newest sample as a point, by those before it in the same life; oldest first. */
export function point(samples) {
  const now = samples.at(-1);
  const last = samples.at(-2);
  // By the clock of the process: an answer may be long on its way.
  const passed = now.uptime - last.uptime;
  const rate = (after, before) =>
    after === null || after === undefined ? null : Math.max(0, after - (before ?? 0)) / passed;
  const sum = (values) => values.reduce((all, value) => all + value, 0);
  const rates = (after, before) =>
    after && sum(Object.keys(after).map((key) => rate(after[key], before?.[key])));
  const earlier = samples.at(-1 - Math.min(LATENCY_SAMPLES, samples.length - 1));
  const latency = (q) =>
    Object.fromEntries(
      OPERATIONS.map((operation) => [
        operation,
        quantile(q, earlier.buckets[operation], now.buckets[operation]),
      ]),
    );
  const votes =
    now.votes &&
    Object.fromEntries(
      Object.keys(now.votes).map((from) => [from, rate(now.votes[from], last.votes?.[from])]),
    );
  const voted = votes && sum(Object.values(votes));
  const perSecond = Object.fromEntries(
    OPERATIONS.map((operation) => [operation, rate(now.counts[operation], last.counts[operation])]),
  );
  return {
    at: now.at,
    rates: { ...perSecond, failed: rates(now.failed, last.failed) },
    total: sum(Object.values(perSecond)),
    p50: latency(0.5),
    p99: latency(0.99),
    votes,
    memory: voted ? 1 - (votes.snapshot ?? 0) / voted : null,
    accepted: rate(now.accepted, last.accepted),
    storeRequests: rates(now.storeRequests, last.storeRequests),
    uncoveredBytes: now.uncoveredBytes,
    snapshotAge: now.snapshotAge,
  };
}
