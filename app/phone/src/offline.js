/** Registers the service worker and waits until it holds the whole app, so that nothing is fetched twice. */

/**
 * @param {(share: number) => void} progress called with 0–1 while the app is being fetched for the first time
 * @returns {Promise<boolean>} whether the app will work without a network
 */
export async function keepOffline(progress) {
  if (!("serviceWorker" in navigator)) return false;
  try {
    const registration = await navigator.serviceWorker.register("sw.js");
    if (!registration.active && !(await installed(registration, progress))) return false;
    await navigator.serviceWorker.ready;
    await controlled();
    return true;
  } catch {
    return false;
  }
}

/** Whether the first installation succeeds. Later ones, of new versions, go on unseen beside the running app. */
async function installed(registration, progress) {
  const worker = registration.installing ?? registration.waiting;
  if (!worker) return true;
  const told = ({ data }) => progress(data.done / data.total);
  navigator.serviceWorker.addEventListener("message", told);
  const result = await new Promise((resolve) => {
    const look = () => {
      if (worker.state === "activated") resolve(true);
      else if (worker.state === "redundant") resolve(false);
    };
    worker.addEventListener("statechange", look);
    look();
  });
  navigator.serviceWorker.removeEventListener("message", told);
  return result;
}

/** The worker takes the page over at its activation; a reload that bypasses it stays without one. */
function controlled() {
  if (navigator.serviceWorker.controller) return undefined;
  return new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
    setTimeout(resolve, 2000);
  });
}
