// A cluster of four nodes in three buckets with a coordinator and a proxy, each its own process, on
// ports that were free; and load on it. Owns what it started: `stop` ends it, and so does the end of
// this process.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const TAKO = process.env.TAKO;
const PATIENCE = 90_000;
export const NODES = ['n1', 'n2', 'n3', 'n4'];
export const PARTITIONS = 32;

/** Ports that nothing listens on: all are held at once, so that they differ. */
async function freePorts(count) {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise((done, failed) => {
          const server = createServer().once('error', failed);
          server.listen(0, '127.0.0.1', () => done(server));
        }),
    ),
  );
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
}

/** Waits until `holds` gives something true, and gives it. */
export async function eventually(what, holds, patience = PATIENCE) {
  const until = Date.now() + patience;
  for (;;) {
    const found = await holds();
    if (found) return found;
    if (until < Date.now()) throw new Error(`never: ${what}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

export class Cluster {
  #children = new Set();

  static async start() {
    const cluster = new Cluster();
    cluster.folder = mkdtempSync(join(tmpdir(), 'tako-page-'));
    const ports = await freePorts(2 + 2 * NODES.length);
    const [coordinator, proxy] = ports;
    cluster.coordinator = `localhost:${coordinator}`;
    cluster.http = Object.fromEntries(
      NODES.map((id, n) => [id, `http://127.0.0.1:${ports[2 + 2 * n]}`]),
    );
    cluster.http.p1 = `http://127.0.0.1:${proxy}`;
    const at = (n) => `n${n}: [127.0.0.1, ${ports[2 * n]}, ${ports[1 + 2 * n]}]`;
    const write = (name, deployment, buckets) =>
      writeFileSync(
        join(cluster.folder, name),
        `\
partitions: ${PARTITIONS}
active_deployment: ${deployment}
deployments:
  ${deployment}:
    hash: {buckets_per_key: 2}
    buckets: ${buckets}
coordinators:
  c1: [localhost, ${coordinator}]
snapshot: {interval: 3s}
`,
      );
    write(
      'cluster.yaml',
      'local',
      `{east: {${at(1)}, ${at(2)}}, north: {${at(3)}}, west: {${at(4)}}}`,
    );
    write('next.yaml', 'next', `{east: {${at(1)}, ${at(3)}}, south: {${at(2)}}, west: {${at(4)}}}`);
    cluster.#spawn('cluster', [
      'cluster',
      join(cluster.folder, 'cluster.yaml'),
      '--var',
      join(cluster.folder, 'var'),
      '--proxy',
      String(proxy),
    ]);
    process.on('exit', () => cluster.#children.forEach((child) => child.kill('SIGTERM')));
    await eventually('the proxy is ready', () => cluster.isReady('p1'));
    return cluster;
  }

  #spawn(name, args) {
    const child = spawn(TAKO, args, { cwd: this.folder, stdio: ['pipe', 'pipe', 'pipe'] });
    child.said = '';
    child.stdout.on('data', (text) => (child.said += text));
    child.stderr.on('data', (text) => (child.said += text));
    child.ended = new Promise((done) =>
      child.on('exit', (code, signal) => {
        this.#children.delete(child);
        child.how = signal ?? code;
        done();
      }),
    );
    child.named = name;
    this.#children.add(child);
    return child;
  }

  async isReady(id) {
    const launcher = [...this.#children].find((child) => child.named === 'cluster');
    if (!launcher) throw new Error('the cluster ended');
    const answer = await fetch(`${this.http[id]}/readyz`).catch(() => null);
    return answer?.ok ?? false;
  }

  /** Light load on a node and the proxy until `stop`; returns when some of it is answered. */
  async load() {
    this.bench = this.#spawn('bench', [
      'bench',
      '--url',
      this.http.n1,
      '--url',
      this.http.p1,
      '--mode',
      'open',
      '--rate',
      '120/s',
      '--connections',
      '8',
      '--keys',
      '400',
      '--read-share',
      '0.7',
      '--duration',
      '10m',
      '--warmup',
      '0s',
      '--verify',
      'none',
    ]);
    await eventually('load', async () => {
      if (this.bench.how !== undefined) throw new Error(`no load: ${this.bench.said}`);
      const text = await (await fetch(`${this.http.n1}/metrics`)).text();
      return 0 < Number(/tako_request_seconds_count\{operation="read"\} (\d+)/.exec(text)?.[1]);
    });
  }

  /** Runs `tako migrate` to its end; the move is to `next`, which lies on the same nodes. */
  async migrate(command, ...args) {
    const to = command === 'start' ? ['--to', 'next.yaml'] : [];
    const child = this.#spawn('migrate', [
      'migrate',
      command,
      ...to,
      ...args,
      '--coordinator',
      this.coordinator,
    ]);
    await child.ended;
    if (child.how !== 0) throw new Error(`tako migrate ${command}: ${child.said}`);
  }

  /** As if its machine lost power. */
  kill(id) {
    const pid = Number(readFileSync(join(this.folder, 'var', 'run', `${id}.pid`), 'utf8'));
    process.kill(pid, 'SIGKILL');
  }

  /** Starts a node again that was killed. */
  restart(id) {
    this.#spawn(id, [
      'node',
      '--id',
      id,
      '--coordinator',
      this.coordinator,
      '--var',
      join(this.folder, 'var'),
      '--store',
      join(this.folder, 'var', 'store'),
    ]);
  }

  async stop() {
    const order = (child) => ['bench', 'cluster'].indexOf(child.named) + 1 || 3;
    for (const child of [...this.#children].sort((a, b) => order(a) - order(b))) {
      child.kill('SIGTERM');
      const killed = setTimeout(() => child.kill('SIGKILL'), 60_000);
      await child.ended;
      clearTimeout(killed);
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
