// What people see at `/` of a node and of a proxy, in headless Chromium, while a cluster is well,
// moves, loses a node and has it back. Everything awaited has a deadline; nothing is waited for by
// the clock alone but that a hidden page is quiet.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { chromium } from 'playwright-core';

import { Cluster, NODES, PARTITIONS } from './cluster.mjs';

const SCREENSHOTS = join(process.env.TAKO_SOURCE, 'target', 'page');
const WIDE = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740 };
/** Longest that a lost node may go unnoticed: gossip's 4 s, a poll, and a machine that is busy. */
const NOTICED_MS = 20_000;
const PATIENCE_MS = 60_000;

let browser;
let cluster;
/** Pages that stay open through the whole run, by name. */
const views = {};

/** A page with what went wrong in it, and where it asked. */
async function open(url, viewport, colorScheme, prepare = async () => {}) {
  const scale = viewport === PHONE ? 2 : 1;
  const context = await browser.newContext({ viewport, colorScheme, deviceScaleFactor: scale });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const view = { page, context, wrong: [], asked: [], origin: new URL(url).origin };
  page.on('console', (line) => {
    if (['error', 'warning'].includes(line.type())) view.wrong.push(line.text());
  });
  page.on('pageerror', (error) => view.wrong.push(String(error)));
  page.on('dialog', (dialog) => {
    view.wrong.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('request', (request) => view.asked.push(request.url()));
  await prepare(page);
  await page.goto(url);
  return view;
}

/** Ends a page whose requests are changed: those under way must not be missed. */
async function closed({ page, context }) {
  await page.unrouteAll({ behavior: 'ignoreErrors' });
  await context.close();
}

const shot = (view, name) =>
  view.page.screenshot({
    path: join(SCREENSHOTS, `${name}.png`),
    fullPage: true,
    caret: 'initial',
  });

/** Waits until the table shows these states. */
const shows = (page, expected, timeout = PATIENCE_MS) =>
  page.waitForFunction(
    (expected) => {
      const rows = [...document.querySelectorAll('#nodes tbody tr')];
      const found = rows.map((row) => [row.querySelector('a').textContent, row.dataset.state]);
      return JSON.stringify(found) === expected;
    },
    JSON.stringify(Object.entries(expected)),
    { timeout },
  );

const WELL = Object.fromEntries(NODES.map((id) => [id, 'serving']));

/** Waits until the chart of this title has a line of at least so many points. */
const hasLine = (page, title, series, points) =>
  page.waitForFunction(
    ([title, series, points]) => {
      const figure = [...document.querySelectorAll('#charts figure')].find((figure) =>
        figure.querySelector('h3').textContent.startsWith(title),
      );
      const d = figure?.querySelector(`:scope > svg .line.${series}`)?.getAttribute('d') ?? '';
      return points <= d.split('L').length;
    },
    [title, series, points],
  );

/** Elements that reach beyond the window's right edge, without those that scroll inside. */
const beyond = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll('body *')]
      .filter((it) => !it.closest('.scroll *') && innerWidth < it.getBoundingClientRect().right)
      .map((it) => `${it.tagName} ${it.id} ${it.className}`),
  );

before(async () => {
  mkdirSync(SCREENSHOTS, { recursive: true });
  cluster = await Cluster.start();
  const root = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: root });
  await cluster.load();
});

after(async () => {
  await browser?.close();
  await cluster?.stop();
});

test('all nodes are listed as serving, light and dark, wide and on a phone, at a node and a proxy', async () => {
  const wanted = {
    'node-light': [cluster.http.n1, WIDE, 'light'],
    'node-dark': [cluster.http.n1, WIDE, 'dark'],
    'node-phone': [cluster.http.n1, PHONE, 'dark'],
    'proxy-light': [cluster.http.p1, WIDE, 'light'],
    'proxy-phone': [cluster.http.p1, PHONE, 'dark'],
    lost: [cluster.http.n2, WIDE, 'dark'],
  };
  await Promise.all(
    Object.entries(wanted).map(async ([name, [url, viewport, scheme]]) => {
      views[name] = await open(`${url}/`, viewport, scheme);
    }),
  );
  for (const { page } of Object.values(views)) {
    await shows(page, WELL);
    assert.equal(await page.textContent('#nodes-count'), '4 of 4 serving');
    assert.match(await page.textContent('#ready'), /ready/);
  }
  assert.equal(await views['node-light'].page.textContent('#process'), 'n1');
  assert.equal(await views['proxy-light'].page.textContent('#process'), 'p1');
  assert.match(await views['proxy-light'].page.textContent('#facts'), /roleproxy/);
  const table = await views['proxy-light'].page.textContent('#nodes tbody');
  assert.doesNotMatch(table, /undefined|NaN|null/);
});

test('the charts have lines of what is asked of each process', async () => {
  for (const name of ['node-light', 'node-phone', 'proxy-light', 'proxy-phone']) {
    const { page } = views[name];
    for (const series of ['read', 'write']) {
      await hasLine(page, 'Requests', series, 5);
      await hasLine(page, 'Latency', series, 3);
    }
    const told = await page.getAttribute('#charts figure:first-child > svg', 'aria-label');
    assert.match(told, /^Requests: reads [1-9]\S*, writes [1-9]\S*, changes 0, failed 0$/);
  }
  const { page } = views['node-light'];
  await hasLine(page, 'Answered from memory', 'memory', 3);
  await hasLine(page, 'Uncovered', 'uncovered', 3);
  await hasLine(page, 'Snapshot age', 'age', 3);
  await page.waitForFunction(() =>
    [...document.querySelectorAll('#tiles > div')].every((tile) => !tile.textContent.includes('–')),
  );
  const tiles = await page.$$eval('#tiles dt', (names) => names.map((name) => name.textContent));
  for (const tile of ['Requests', 'From memory', 'Uncovered', 'Snapshot age', 'Journal']) {
    assert.ok(tiles.includes(tile), tile);
  }
  const proxy = views['proxy-light'].page;
  assert.equal(await proxy.locator('#charts figure:visible').count(), 2, 'it stores nothing');
  assert.equal(await proxy.locator('#proxy-note').isVisible(), true);
});

test('the ring has an arc for each partition and bucket, and tells of each by pointer and by keys', async () => {
  const { page } = views['node-light'];
  assert.equal(await page.locator('#ring [data-p]').count(), PARTITIONS);
  assert.equal(await page.locator('#ring .arc').count(), 2 * PARTITIONS);
  assert.match(await page.getAttribute('#ring', 'aria-label'), /32 have all replicas serving/);
  await page.hover('#ring [data-p="5"] .arc >> nth=0');
  const text = await page.textContent('#partition');
  assert.match(text, /^Partition 5 · (\d) of \1 replicas serve, writes need \d/);
  const { ring, buckets } = await (await fetch(`${cluster.http.n1}/cluster`)).json();
  for (const bucket of ring[5]) {
    for (const id of buckets[bucket].nodes) assert.match(text, new RegExp(`${id} serving`));
  }
  assert.match(text, /Here: step \d+|Hashes from 0x28/);
  await page.mouse.move(5, 5);
  await page.focus('#ring');
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  assert.match(await page.textContent('#partition'), /^Partition 1 /);
  await shot(views['node-light'], 'node-light-partition');
  await page.keyboard.press('Escape');
  assert.match(await page.textContent('#partition'), /32 have all replicas serving/);
  const phone = views['node-phone'].page;
  await phone.locator('#ring [data-p="20"] .arc').first().click();
  assert.match(await phone.textContent('#partition'), /^Partition 20 /);
  await phone.locator('#ring [data-p="20"] .arc').first().click();
});

test('a chart tells earlier moments by arrow keys', async () => {
  const { page } = views['node-dark'];
  const chart = page.locator('#charts figure').first();
  await hasLine(page, 'Requests', 'read', 3);
  await chart.locator(':scope > svg').focus();
  await page.keyboard.press('ArrowLeft');
  assert.match(await chart.locator('figcaption > span').textContent(), /^\d\d:\d\d:\d\d/);
  assert.equal(await chart.locator('.cursor').count(), 1);
  await page.keyboard.press('Escape');
  assert.equal(await chart.locator('.cursor').count(), 0);
});

test('nothing scrolls sideways but what is made to, and every text has contrast', async () => {
  for (const [name, { page }] of Object.entries(views)) {
    const [wide, inner] = await page.evaluate(() => [
      document.documentElement.scrollWidth,
      window.innerWidth,
    ]);
    assert.ok(wide <= inner, `${name}: ${wide} of ${inner}`);
    assert.deepEqual(await beyond(page), [], name);
  }
  for (const name of ['node-light', 'node-dark']) {
    const ratios = await views[name].page.evaluate(contrasts);
    for (const [pair, ratio] of ratios) assert.ok(4.5 <= ratio, `${name} ${pair}: ${ratio}`);
  }
});

test('tables have headers, pictures have names, and keys reach all that can be used', async () => {
  const { page } = views['node-light'];
  assert.equal(
    await page.locator('thead th:not([scope=col]), tbody th:not([scope=row])').count(),
    0,
  );
  const pictures = page.locator('svg[role=img]');
  for (const label of await pictures.evaluateAll((all) => all.map((it) => it.ariaLabel))) {
    assert.ok(label, 'a name');
  }
  const focusable = await page
    .locator('#ring, #charts > figure > svg, .scroll')
    .evaluateAll((all) => all.every((it) => it.tabIndex === 0));
  assert.equal(focusable, true);
  assert.equal(await page.locator('h1').count(), 1);
  const moving = await page.$$eval('*', (all) => {
    const styles = all.map((it) => getComputedStyle(it));
    return styles.filter((it) => it.animationName !== 'none' || it.transitionDuration !== '0s')
      .length;
  });
  assert.equal(moving, 0, 'nothing moves by itself, whatever motion is preferred');
});

test('screenshots of a cluster that is well', async () => {
  for (const name of ['node-light', 'node-dark', 'node-phone', 'proxy-light', 'proxy-phone']) {
    await shot(views[name], name);
  }
});

test('a move is shown phase by phase, with both rings, and is gone when it is done', async () => {
  const pages = [views['node-light'].page, views['proxy-light'].page, views['node-phone'].page];
  const phase = (page, name) =>
    page.waitForFunction(
      (name) => document.querySelector('#move-phases [aria-current] b')?.textContent === name,
      name,
    );
  const fact = (page, name) => page.locator('#move-facts div', { hasText: name }).locator('dd');
  // Known to the page some polls later, as the nodes tell of it.
  const told = (page, name, text) =>
    page.locator('#move-facts div', { hasText: name }).locator('dd', { hasText: text }).waitFor();
  const { page } = views['node-light'];
  assert.equal(await page.locator('#move').isVisible(), false);
  await cluster.migrate('start');
  for (const page of pages) await phase(page, 'write-both');
  assert.match(await page.textContent('#move-way'), /^From local to next; step 2 of 4/);
  assert.match(await fact(page, 'moving').textContent(), /^[1-9]\d* of 32$/);
  assert.equal(await fact(page, 'barrier').textContent(), '–');
  await told(page, 'new nodes', /^4 of 4$/);
  await page.selectOption('#layout', 'next');
  const colours = (page) =>
    page.$$eval('#ring .arc', (arcs) =>
      arcs.map((arc) => arc.style.getPropertyValue('--hue')).join(),
    );
  const next = await colours(page);
  await page.hover('#ring [data-p="5"] .arc >> nth=0');
  assert.match(await page.textContent('#partition'), /^Partition 5 · (\d) of \1 replicas serve/);
  await page.mouse.move(5, 5);
  await page.selectOption('#layout', 'local');
  assert.notEqual(await colours(page), next);
  await cluster.migrate('promote', '--wait');
  for (const page of pages) await phase(page, 'read-new');
  await page.waitForFunction(() =>
    /past the barrier([1-9]\d*) of \1$/.test(document.querySelector('#move-facts').textContent),
  );
  await told(page, 'epoch', /^4 of 4 nodes$/);
  for (const name of ['node-light', 'node-phone']) {
    const { page } = views[name];
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    await shot(views[name], `${name}-move`);
  }
  await cluster.migrate('finish', '--wait');
  for (const page of pages) await page.waitForSelector('#move', { state: 'hidden' });
  assert.match(await page.textContent('#facts'), /deploymentnext/);
  assert.match(await page.textContent('#buckets tbody'), /south/);
  for (const page of pages) await shows(page, WELL);
});

test('a hidden page asks less, and at once when it is looked at again', async () => {
  const { page, asked } = await open(`${cluster.http.n1}/`, WIDE, 'light');
  await shows(page, WELL);
  const hide = (hidden) =>
    page.evaluate((hidden) => {
      Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
  const polls = () => asked.filter((url) => url.endsWith('/cluster')).length;
  await hide(true);
  const before = polls();
  await new Promise((done) => setTimeout(done, 7_000));
  assert.ok(polls() - before <= 1, `${polls() - before} polls while hidden: one was on its way`);
  const again = page.waitForRequest('**/cluster', { timeout: 1_500 });
  await hide(false);
  await again;
  await page.context().close();
});

test('a node that is killed is silent within seconds, and its own page says since when', async () => {
  cluster.kill('n2');
  const expected = { ...WELL, n2: 'silent' };
  for (const name of ['node-light', 'node-phone', 'proxy-light']) {
    await shows(views[name].page, expected, NOTICED_MS);
  }
  const { page } = views['node-light'];
  assert.match(await page.textContent('#nodes-count'), /^3 of 4/);
  const row = page.locator('#nodes tbody tr', { hasText: 'n2' });
  assert.match(await row.textContent(), /was serving/);
  await page.waitForFunction(() =>
    /lack a replica/.test(document.querySelector('#ring').ariaLabel),
  );
  const own = views.lost.page;
  await own.locator('#notice', { hasText: /n2 is not reachable since \d\d:\d\d:\d\d/ }).waitFor();
  assert.match(await own.textContent('#ready'), /not reachable/);
  assert.match(await own.title(), /not reachable/);
  await shot(views['node-light'], 'node-light-silent');
  await shot(views['node-phone'], 'node-phone-silent');
  await shot(views.lost, 'lost-dark');
});

test('a node that is back serves again everywhere, and its own page goes on', async () => {
  cluster.restart('n2');
  for (const view of Object.values(views)) await shows(view.page, WELL);
  const own = views.lost.page;
  await own.waitForFunction(() => document.querySelector('#notice').textContent === '');
  assert.match(await own.textContent('#ready'), /ready/);
  await hasLine(own, 'Requests', 'read', 2);
  await shot(views.lost, 'back-dark');
});

test('nothing went wrong in any page, and none asked another origin', () => {
  for (const [name, view] of Object.entries(views)) {
    const wrong = view.wrong.filter(
      (line) =>
        !(
          name === 'lost' &&
          /ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/.test(line)
        ),
    );
    assert.deepEqual(wrong, [], name);
    assert.ok(3 < view.asked.length);
    for (const url of view.asked.filter((url) => !url.startsWith('data:'))) {
      assert.equal(new URL(url).origin, view.origin, name);
    }
  }
});

const HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>\u202e"\'&lt;\n';

test('ids and events of any text stay text', async () => {
  const view = await open(`${cluster.http.n1}/`, PHONE, 'light', async (page) => {
    const change = (path, edit) =>
      page.route(path, async (route) => {
        const response = await route.fetch();
        const json = await response.json();
        edit(json);
        await route.fulfill({ response, json });
      });
    await change('**/cluster', (json) => {
      json.process = `${HOSTILE} process`;
      json.active_deployment = HOSTILE;
      Object.assign(json.nodes[0], { id: HOSTILE, bucket: HOSTILE, zone: HOSTILE, state: HOSTILE });
      json.nodes[1].http = 'javascript:alert(3)//';
      json.nodes[2].http = 'example.org/path:80';
      json.buckets[0].name = HOSTILE;
      json.buckets[0].nodes[0] = HOSTILE;
      json.configuration_refused = HOSTILE;
      json.migration = {
        phase: 'read-new',
        from: HOSTILE,
        to: HOSTILE,
        moving: 3,
        past_barrier: 1,
        buckets: json.buckets,
        ring: json.ring,
      };
    });
    await change('**/events?*', (json) => {
      json.events = [
        {
          number: 1,
          at: 1e15,
          level: 'error',
          part: HOSTILE,
          text: HOSTILE,
          fields: { [HOSTILE]: HOSTILE },
        },
        { number: 2, at: 1e15, level: HOSTILE, part: '', text: 'x'.repeat(1024), fields: {} },
      ];
    });
  });
  const { page } = view;
  await page.locator('#events', { hasText: 'onerror' }).waitFor();
  assert.equal(await page.locator('img, main script, [onerror]').count(), 0);
  for (const place of [
    '#process',
    '#nodes',
    '#buckets',
    '#events',
    '#notice',
    '#move-way',
    '#layout',
  ]) {
    const text = await page.textContent(place);
    assert.ok(text.includes('<img src=x onerror="alert(1)">'), place);
  }
  // A name that turns the direction of writing around does not turn the page's own words.
  assert.equal(await page.locator('#here-count bdi, #move-way bdi, #notice bdi').count(), 4);
  const links = await page.$$eval('#nodes a', (all) => all.map((it) => it.href));
  assert.ok(
    links.every((href) => /^http:\/\/127\.0\.0\.1:\d+\/$/.test(href)),
    links.join(' '),
  );
  assert.deepEqual(await beyond(page), []);
  assert.deepEqual(view.wrong, []);
  await shot(view, 'hostile-phone');
  await closed(view);
});

test('who must name a token is asked for it, and it is kept in memory only', async () => {
  const view = await open(`${cluster.http.n1}/`, PHONE, 'dark', async (page) => {
    await page.route(/\/(cluster|metrics|events)(\?.*)?$/, (route) => {
      const known = route.request().headers().authorization === 'Bearer right';
      return known ? route.fallback() : route.fulfill({ status: 401, body: 'no' });
    });
  });
  const { page, asked } = view;
  await page.locator('#token-form').waitFor();
  await shot(view, 'token-phone');
  const before = asked.length;
  await page.fill('#token', 'wrong');
  await page.keyboard.press('Enter');
  await page.locator('#token-refused', { hasText: 'refused' }).waitFor();
  assert.ok(asked.length <= before + 3, 'it does not go on asking by itself');
  await page.fill('#token', 'right');
  await page.keyboard.press('Enter');
  await shows(page, WELL);
  assert.equal(await page.locator('#token-form').isVisible(), false);
  const kept = await page.evaluate(() =>
    JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href]),
  );
  assert.doesNotMatch(kept, /right/);
  await closed(view);
});

/** WCAG's contrast of each colour of texts on both grounds; runs in the page. */
function contrasts() {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const probe = document.createElement('canvas').getContext('2d');
    probe.fillStyle = style.getPropertyValue(name);
    const channel = (at) => {
      const value = parseInt(probe.fillStyle.slice(at, at + 2), 16) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    };
    return 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
  };
  return ['--text', '--quiet', '--link', '--good', '--warn', '--bad'].flatMap((name) =>
    ['--card', '--ground'].map((ground) => {
      const [low, high] = [light(name), light(ground)].sort((a, b) => a - b);
      return [`${name} on ${ground}`, (high + 0.05) / (low + 0.05)];
    }),
  );
}
