// One conversation by memjs, which speaks the binary protocol; with a name and a token it logs in.
import assert from "node:assert";
import memjs from "memjs";

const [host, port, username, password] = process.argv.slice(2);
const client = memjs.Client.create(`${host}:${port}`, { timeout: 10, username, password });
const text = async (key) => (await client.get(key)).value?.toString() ?? null;

assert(await client.set("js", "one", { expires: 100 }));
assert.equal(await text("js"), "one");
assert.equal(await client.add("js", "two", {}), false);
assert(await client.replace("js", "three", {}));
assert.equal(await client.replace("js-none", "three", {}), false);
assert(await client.append("js", "!"));
// No prepend: memjs appends for it, at memcached as well.
assert.equal(await text("js"), "three!");
assert.equal((await client.increment("js-count", 3, { initial: 10 })).value, 10);
assert.equal((await client.increment("js-count", 3, { initial: 10 })).value, 13);
assert.equal((await client.decrement("js-count", 20, { initial: 10 })).value, 0);
assert(await client.touch("js", 100));
await Promise.all(Array.from({ length: 100 }, (_, n) => client.set(`js${n}`, `v${n}`, {})));
const all = await Promise.all(Array.from({ length: 100 }, (_, n) => text(`js${n}`)));
assert.deepEqual(all, Array.from({ length: 100 }, (_, n) => `v${n}`));
assert(await client.delete("js"));
assert.equal(await client.delete("js"), false);
assert.equal(await text("js"), null);
client.quit();
console.log("ok");
