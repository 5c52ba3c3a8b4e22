/**
 * The service worker: fetches every file of the app once and answers from that copy, with or without a network.
 *
 * `precache.js`, written by the build, names the files and the version (a hash of their content). A new version is
 * fetched beside the old one and taken over when the app is next opened, never in the middle of a conversation.
 */

/* global PRECACHE */
importScripts("precache.js");

const PREFIX = "symptomchat-";
const CACHE = `${PREFIX}${PRECACHE.version}`;

async function tell(message) {
  for (const client of await self.clients.matchAll({ includeUncontrolled: true, type: "window" })) {
    client.postMessage(message);
  }
}

async function install() {
  const { files } = PRECACHE;
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  let told = 0;
  const cache = await caches.open(CACHE);
  for (const { url } of files) {
    // "no-cache" asks the server whether the browser's own copy is still right, so that versions never mix.
    const response = await fetch(new Request(url, { cache: "no-cache" }));
    if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
    const counted = response.body.pipeThrough(
      new TransformStream({
        transform(chunk, controller) {
          done += chunk.length;
          if (done - told > total / 100) {
            told = done;
            tell({ done, total });
          }
          controller.enqueue(chunk);
        },
      }),
    );
    await cache.put(url, new Response(counted, { status: 200, headers: response.headers }));
  }
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
  }
  await self.clients.claim();
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const wanted = request.mode === "navigate" ? "index.html" : request;
  return (await cache.match(wanted, { ignoreSearch: true })) ?? fetch(request);
}

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(self.registration.scope)) event.respondWith(answer(event.request));
});
