// Rates and quantiles from the text of `/metrics`: pure, so without a browser.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const file = join(process.env.TAKO_SOURCE, 'cmd/gateway/src/http/page/metrics.js');
const source = encodeURIComponent(readFileSync(file, 'utf8'));
const { isRestart, parse, point, quantile, sample } = await import(
  `data:text/javascript,${source}`
);

/** What a process says that answered so many reads in 1 ms, in 10 ms, and slower. */
const text = ({ uptime = 1, fast = 0, slow = 0, beyond = 0, failed = 0, votes = '' }) => `\
# HELP tako_uptime_seconds Since the process began to serve.
# TYPE tako_uptime_seconds gauge
tako_uptime_seconds ${uptime}
tako_request_seconds_bucket{operation="read",le="0.001"} ${fast}
tako_request_seconds_bucket{operation="read",le="0.01"} ${fast + slow}
tako_request_seconds_bucket{operation="read",le="+Inf"} ${fast + slow + beyond}
tako_request_seconds_count{operation="read"} ${fast + slow + beyond}
tako_requests_failed_total{operation="read"} ${failed}
${votes}`;

test('labels may hold quotes, commas and braces', () => {
  const family = parse('a{node="x\\",y=\\"}",le="1"} 2.5 1700\n# a 3\nb +Inf\nnot a line\n');
  assert.deepEqual(family.get('a'), [{ labels: { node: 'x\\",y=\\"}', le: '1' }, value: 2.5 }]);
  assert.equal(family.get('b')[0].value, Infinity);
  assert.equal(family.has('not'), false);
});

test('rates are of the last two samples, nothing is made of what is not told', () => {
  const before = sample(text({ fast: 10 }), 100);
  const after = sample(text({ uptime: 3, fast: 30, failed: 4 }), 102);
  const now = point([before, after]);
  assert.deepEqual(now.rates, { read: 10, write: null, change: null, failed: 2 });
  assert.equal(now.total, 10);
  assert.deepEqual([now.votes, now.memory, now.uncoveredBytes], [null, null, null]);
});

test('quantiles are of what came between, and null where nothing came', () => {
  const before = sample(text({ fast: 1_000 }), 0).buckets.read;
  const after = sample(text({ fast: 1_090, slow: 10 }), 2).buckets.read;
  assert.ok(Math.abs(quantile(0.5, before, after) - 0.00055555) < 1e-6);
  assert.ok(Math.abs(quantile(0.99, before, after) - 0.0091) < 1e-6);
  assert.equal(quantile(0.5, after, after), null);
  const beyond = sample(text({ fast: 1_000, beyond: 5 }), 2).buckets.read;
  assert.equal(quantile(0.5, before, beyond), 0.01, 'the last bound');
});

test('a share of votes is of the votes between, and null without any', () => {
  const votes = (index, cache, snapshot) => `tako_votes_total{from="index"} ${index}
tako_votes_total{from="cache"} ${cache}
tako_votes_total{from="snapshot"} ${snapshot}
`;
  const samples = [votes(5, 5, 5), votes(8, 9, 6), votes(8, 9, 6)].map((votes, n) =>
    sample(text({ votes, uptime: n }), n),
  );
  assert.equal(point(samples.slice(0, 2)).memory, 0.875);
  assert.equal(point(samples).memory, null);
});

test('a later life of the process is known by its name or its uptime', () => {
  const of = (uptime, run) => sample(text({ uptime }), 0, run);
  assert.equal(isRestart(of(9, 'a'), of(2, 'a')), true);
  assert.equal(isRestart(of(2, 'a'), of(9, 'a')), false);
  assert.equal(isRestart(of(2, 'a'), of(9, 'b')), true);
});
