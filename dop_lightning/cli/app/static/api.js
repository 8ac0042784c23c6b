// Requests to the server. Each tab has a separate session, and sees only its own files.

function newSession() {
  const numbers = crypto.getRandomValues(new Uint8Array(16));
  return [...numbers].map((number) => number.toString(16).padStart(2, "0")).join("");
}

const session = sessionStorage.getItem("session") || newSession();
sessionStorage.setItem("session", session);

const base = `api/${session}`;

async function answer(response) {
  const found = await response.json().catch(() => ({}));
  if (found.error) throw new Error(found.error);
  if (!response.ok) throw new Error(`dop app returned status ${response.status}`);
  return found;
}

async function post(path, body) {
  const headers = { "Content-Type": "application/octet-stream" };
  return answer(await fetch(`${base}/${path}`, { method: "POST", headers, body }));
}

export const hello = async () => answer(await fetch(`${base}/hello`));
export const adopt = () => post("earlier");
export const upload = (kind, file) => post(`files?${new URLSearchParams({ kind, name: file.name })}`, file);
export const start = (job, settings) => post(`jobs/${job.id}/start`, JSON.stringify({ settings }));
export const stop = (job) => post(`jobs/${job.id}/stop`);
export const remove = (job) => post(`jobs/${job.id}/remove`);

export function correct(job, layer, settings) {
  const query = new URLSearchParams({ height: layer.height, width: layer.width, settings: JSON.stringify(settings) });
  return post(`jobs/${job.id}/correct?${query}`, layer.values);
}

export function address(job, what, download = false) {
  const version = job.files[what];
  return version && `${base}/jobs/${job.id}/files/${what}?${download ? "download&" : ""}v=${version}`;
}

export function listen(heard, lost) {
  const source = new EventSource(`${base}/events`);
  source.onmessage = (event) => heard(JSON.parse(event.data));
  source.onerror = () => lost(source.readyState === EventSource.CLOSED);
}
