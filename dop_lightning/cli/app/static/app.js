// The page: files, queue, settings, and the selected file.

import * as api from "./api.js";
import { Brush, Layer } from "./brush.js";
import * as settings from "./settings.js";
import { Viewer } from "./viewer.js";
import * as words from "./words.js";

const $ = (id) => document.getElementById(id);
const KINDS = {
  recover: {
    title: "Drop photographs here",
    kinds: "PNG, JPEG, TIFF, WebP, BMP, FITS, NumPy",
    accept: ".png,.jpg,.jpeg,.tif,.tiff,.webp,.bmp,.npy,.npz,.fits,.fit,.fts,image/*",
    welcome: "Restore damaged photographs",
    text: "Dead and hot pixels, dead rows, scratches and dust are detected, and filled in from the rest of the picture. Undamaged pixels keep their values, unless the whole picture is noisy. Your files stay on this machine.",
    steps: ["Drop one or several photographs.", "Check the estimate, and select the kinds of damage.", "Press Restore and watch. If necessary, correct the map of the damage."],
    one: "Restore", noun: "photographs", again: "Restore again",
  },
  separate: {
    title: "Drop tables or videos here",
    kinds: "CSV, TSV, NumPy, MAT, Parquet, HDF5; MP4, AVI, MOV, MKV, WebM, GIF",
    accept: "",
    welcome: "Separate tables and videos",
    text: "A table is split into a low-rank part and outliers, and the video of a fixed camera into background and foreground. Your files stay on this machine.",
    steps: ["Drop a table (empty cells and NaN are missing values), or a video.", "Press Separate.", "Download both parts."],
    one: "Separate", noun: "files", again: "Separate again",
  },
};

let kind = "recover";
let jobs = [];
let selected = { recover: null, separate: null };
let limits = { limit: Infinity, layer: 2048, earlier: 0 };
const layers = new Map();
const announced = new Map();

const form = () => $(`settings-${kind}`);
const current = () => jobs.find((job) => job.id === selected[kind]) || null;
const first = () => (jobs.find((job) => job.kind === kind) || {}).id || null;
const isIdle = (job) => !["waiting", "running", "stopping"].includes(job.state);

const viewer = new Viewer({ stage: $("stage"), before: $("before"), after: $("after"), map: $("map"), divider: $("divider"), split: $("split") });
const brush = new Brush($("paint"), $("ring"), () => showBrush());

// ---------------------------------------------------------------------------------------------------------- messages

function fail(text) {
  const box = document.createElement("p");
  const close = document.createElement("button");
  close.type = "button";
  close.className = "plain";
  close.textContent = "Dismiss";
  close.addEventListener("click", () => box.remove());
  const line = document.createElement("span");
  line.textContent = text;
  box.append(line, close);
  $("errors").append(box);
}

async function attempt(action) {
  try { return await action(); } catch (error) {
    fail(error instanceof TypeError ? "dop app does not respond. It may have been stopped." : error.message);
    return null;
  }
}

function announce(job) {
  const share = words.share(job);
  const quarter = share === null ? 0 : Math.floor(4 * share) * 25;
  const text = job.state === "running" ? (quarter ? `${job.name}: ${quarter} %` : `${job.name}: started`) : `${job.name}: ${words.state(job)}`;
  const key = job.state === "running" ? `running ${quarter}` : job.state;
  if (announced.get(job.id) === key) return;
  announced.set(job.id, key);
  if (job.state !== "ready") $("status").textContent = job.line ? `${text}. ${job.line}` : text;
}

// ------------------------------------------------------------------------------------------------------------- files

async function add(files) {
  for (const file of files) {
    if (file.size > limits.limit) {
      fail(`${file.name}: the file must have at most ${words.bytes(limits.limit)}, got ${words.bytes(file.size)}`);
      continue;
    }
    $("drop").classList.add("busy");
    $("drop-text").textContent = `reading ${file.name} …`;
    const job = await attempt(() => api.upload(kind, file));
    if (job) {
      put(job);
      if (!current() || current().state !== "running") select(job.id);
    }
  }
  $("drop").classList.remove("busy");
  $("drop-text").textContent = "or select files";
  show();
}

function put(job) {
  const place = jobs.findIndex((other) => other.id === job.id);
  if (place < 0) jobs.push(job); else jobs[place] = job;
}

function select(id) {
  selected[kind] = id;
  const job = current();
  $("brush-on").checked = false;
  $("map-on").checked = false;
  if (job && job.state !== "ready") settings.write(form(), job.settings);
  show();
}

// -------------------------------------------------------------------------------------------------------------- show

function show() {
  const own = jobs.filter((job) => job.kind === kind);
  $("panel").classList.toggle("empty", own.length === 0);
  $("earlier").hidden = limits.earlier === 0;
  $("earlier-text").textContent = limits.earlier === 1 ? "There is one file from an earlier session." : `There are ${limits.earlier} files from an earlier session.`;
  showList(own);
  const job = current();
  $("welcome").hidden = Boolean(job);
  $("job").hidden = !job;
  if (job) showJob(job);
  showButton(own, job);
  showTimes(own, job);
}

function showList(own) {
  const list = $("jobs");
  for (const item of [...list.children]) if (!own.some((job) => item.dataset.id === job.id)) item.remove();
  for (const job of own) {
    let item = [...list.children].find((each) => each.dataset.id === job.id);
    if (!item) { item = newItem(job); list.append(item); }
    const [open] = item.children;
    open.setAttribute("aria-current", String(job.id === selected[kind]));
    const [thumbnail, text] = open.children;
    const picture = api.address(job, "thumbnail");
    if (picture && thumbnail.getAttribute("src") !== picture) thumbnail.src = picture;
    thumbnail.hidden = !picture;
    text.children[1].textContent = words.state(job);
    item.dataset.state = job.state;
    const share = words.share(job);
    item.style.setProperty("--done", job.state === "running" && share !== null ? `${100 * share}%` : "0%");
  }
}

function newItem(job) {
  const item = document.createElement("li");
  item.dataset.id = job.id;
  const open = document.createElement("button");
  open.type = "button";
  open.className = "item";
  const picture = document.createElement("img");
  picture.alt = "";
  const text = document.createElement("span");
  text.append(Object.assign(document.createElement("b"), { textContent: job.name }), document.createElement("small"));
  open.append(picture, text);
  open.addEventListener("click", () => select(job.id));
  const remove = document.createElement("button");
  remove.type = "button";
  remove.className = "remove";
  remove.setAttribute("aria-label", `Remove ${job.name} and its results`);
  remove.textContent = "×";
  remove.addEventListener("click", async () => {
    if (await attempt(() => api.remove(job))) {
      jobs = jobs.filter((other) => other.id !== job.id);
      $("file").focus();
      if (selected[kind] === job.id) select(first()); else show();
    }
  });
  item.append(open, remove);
  return item;
}

function showButton(own, job) {
  const button = $(`go-${kind}`);
  const ready = own.filter((each) => each.state === "ready");
  const words = KINDS[kind];
  button.textContent = ready.length > 1 ? `${words.one} ${ready.length} ${words.noun}` : words.one;
  button.disabled = ready.length === 0;
  if (ready.length === 0 && job && isIdle(job)) {
    const other = !settings.same(settings.read(form()), job.settings);
    button.textContent = words.again;
    button.disabled = !(other || job.state === "failed");
  }
}

function showTimes(own, job) {
  const times = (job && job.kind === "recover" && job.found.times) || {};
  for (const place of document.querySelectorAll("[data-time]")) {
    const seconds = times[place.dataset.time];
    place.textContent = seconds === undefined ? "" : `about ${words.duration(seconds)}`;
  }
  const likely = job && job.kind === "recover" && job.state === "ready" && job.found.likely;
  const box = $("likely");
  if (!likely) { box.hidden = true; return; }
  const kinds = likely.split("+");
  const isSelected = kinds.every((name) => form().querySelector(`[name=kind][value="${name}"]`).checked);
  box.hidden = isSelected;
  if (box.dataset.likely !== likely) {
    box.dataset.likely = likely;
    const button = Object.assign(document.createElement("button"), { type: "button", className: "plain", textContent: "Select" });
    button.addEventListener("click", () => {
      for (const name of kinds) $("settings-recover").querySelector(`[name=kind][value="${name}"]`).checked = true;
      settings.refresh($("settings-recover"));
      show();
    });
    const named = kinds.map((name) => (name === "rectangles" ? "patches" : name === "text" ? "printed text" : name)).join(" and ");
    box.replaceChildren(`This photograph probably has ${named}. `, button);
  }
}

function showJob(job) {
  $("job-name").textContent = job.name;
  $("job-facts").textContent = words.facts(job);
  showCommand(job);
  const isAtWork = job.state === "running" || job.state === "stopping" || job.state === "waiting";
  $("work").hidden = !isAtWork;
  $("stop").disabled = job.state === "stopping";
  if (isAtWork) showWork(job);
  $("job-line").hidden = !job.line;
  $("job-line").textContent = job.line;
  $("resume-row").hidden = job.state !== "stopped";
  $("resume-text").textContent = job.can_resume ? "Stopped. The picture shows the current result." : "Stopped before the first iteration.";
  if (job.kind === "separate" && job.can_resume) $("resume-text").textContent = "Stopped. The state is saved.";
  $("resume").textContent = job.can_resume ? "Resume" : "Start again";
  const isPhotograph = job.kind === "recover";
  $("viewer").hidden = !isPhotograph;
  $("figures").hidden = isPhotograph;
  if (isPhotograph) showPhotograph(job); else showFigures(job);
  const ended = ["done", "stopped"].includes(job.state) && Boolean(job.files.result || job.files["video-background"]);
  $("tools").hidden = !(isPhotograph && ended);
  $("results").hidden = !ended;
  if (ended) showResults(job);
  showBrush();
}

// Each word is a separate element, so that lines do not break at hyphens.
function showCommand(job) {
  $("command-box").hidden = job.state === "ready";
  if ($("command").textContent === job.command) return;
  const parts = job.command.split(" ").flatMap((word) => [" ", Object.assign(document.createElement("span"), { textContent: word })]);
  $("command").replaceChildren(...parts.slice(1));
}

function showPhotograph(job) {
  const [, height, width] = job.found.shape;
  const ended = ["done", "stopped"].includes(job.state);
  const before = api.address(job, ended && job.files.observation ? "observation" : "thumbnail");
  const now = job.files.preview && !(job.state === "done") ? "preview" : "recovered";
  const after = job.state === "ready" || job.state === "failed" ? null : api.address(job, now);
  viewer.show(before, after, width, height);
  $("split-label").hidden = !after;
  $("tag-after").textContent = job.state === "running" ? "Now" : "After";
  const map = ended ? api.address(job, "corruption_probability") || api.address(job, "corruption") : null;
  const isOn = $("map-on").checked && ended;
  $("map").hidden = !isOn;
  $("map-opacity-label").hidden = !isOn;
  if (isOn) viewer.showMap(map, Boolean(job.files.corruption_probability));
}

function showFigures(job) {
  const ended = ["done", "stopped"].includes(job.state);
  const pictures = ended && job.files.recovered
    ? [["observation", "Input"], ["recovered", "Low-rank part"], ["corruption", "Outliers"]]
    : [["thumbnail", "Input"]];
  const videos = ended ? [["video-comparison", "Side by side"], ["video-background", "Background"], ["video-foreground", "Foreground"], ["video-mask", "Mask"]] : [];
  const shown = [...videos, ...(videos.some(([name]) => job.files[name]) ? [] : pictures)].filter(([name]) => job.files[name]);
  const key = shown.map(([name]) => api.address(job, name)).join(" ");
  if ($("figures").dataset.key === key) return;
  $("figures").dataset.key = key;
  $("figures").replaceChildren(...shown.map(([name, caption]) => {
    const figure = document.createElement("figure");
    const isVideo = name.startsWith("video-");
    if (name === "video-comparison") figure.className = "wide";
    const media = document.createElement(isVideo ? "video" : "img");
    media.src = api.address(job, name);
    if (isVideo) { media.controls = true; media.loop = true; media.muted = true; media.setAttribute("aria-label", caption); } else media.alt = caption;
    figure.append(media, Object.assign(document.createElement("figcaption"), { textContent: caption }));
    return figure;
  }));
}

function showWork(job) {
  const share = words.share(job);
  const left = job.progress.seconds_left;
  let text = "Starting: reading the file and detecting damage …";
  if (job.kind === "separate") text = "Starting …";
  if (job.state === "waiting") text = job.before ? `Waiting: ${job.before} ahead in the queue.` : "Waiting.";
  if (job.state === "stopping") text = "Stopping: saving the current result …";
  if (job.state === "running" && share !== null) {
    text = share >= 1 ? "Writing the results …" : `${words.percent(share)}${left === null || left === undefined ? "" : `, about ${words.duration(left)} left`}`;
  }
  $("work-text").textContent = text;
  $("bar").classList.toggle("unknown", share === null || job.state === "stopping");
  $("bar-fill").style.width = `${100 * (share || 0)}%`;
  if (share === null) $("bar").removeAttribute("aria-valuenow");
  else $("bar").setAttribute("aria-valuenow", String(Math.round(100 * share)));
}

function showResults(job) {
  const { summary, files } = job;
  const rows = [];
  if (summary.corruption_density !== undefined && summary.mask_share === undefined) rows.push([job.kind === "recover" ? "Damaged values" : "Outliers", words.percent(summary.corruption_density)]);
  if (summary.rank !== undefined) rows.push(["Rank", String(summary.rank)]);
  if (summary.mask_share !== undefined) rows.push(["Moving pixels", words.percent(summary.mask_share)]);
  if (summary.iterations !== undefined && job.settings.preset !== "instant") rows.push(["Iterations", String(summary.iterations)]);
  if (summary.seconds !== undefined) rows.push(["Time", words.duration(summary.seconds)]);
  if (job.state === "stopped") rows.unshift(["State", "stopped early"]);
  $("summary").replaceChildren(...rows.flatMap(([name, value]) => [
    Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value })]));
  const suffix = job.found.suffix ? ` (${job.found.suffix.slice(1).toUpperCase()})` : "";
  const links = job.kind === "recover"
    ? [["result", `Restored photograph${suffix}`, true], ["corruption", "Map of the damage"], ["corruption_probability", "Probability map"], ["probability", "Probabilities (.npy)"], ["mask", "Painted: damaged"], ["undamaged", "Painted: clean"], ["report", "Report"]]
    : [["result", "Low-rank part", true], ["outliers", "Sparse part", true], ["video-background", "Background", true], ["video-foreground", "Foreground"], ["video-mask", "Mask"], ["report", "Report"]];
  const found = links.filter(([name]) => files[name]);
  const key = found.map(([name]) => api.address(job, name)).join(" ");
  if ($("downloads").dataset.key === key) return;
  $("downloads").dataset.key = key;
  $("downloads").replaceChildren(...found.map(([name, text, main]) => {
    const link = document.createElement("a");
    link.href = api.address(job, name, true);
    link.setAttribute("download", "");
    link.id = `download-${name}`;
    link.className = main ? "button strong" : "button";
    link.textContent = text;
    return link;
  }));
}

function showBrush() {
  const job = current();
  const isOn = Boolean(job) && job.kind === "recover" && !$("tools").hidden && $("brush-on").checked;
  viewer.isPainted = isOn;
  if (isOn) $("split-label").hidden = true;
  $("paint").hidden = !isOn;
  $("brush-tools").hidden = !isOn;
  $("stage").classList.toggle("painted", isOn);
  if (!isOn) { $("ring").hidden = true; return; }
  if (!layers.has(job.id)) layers.set(job.id, Layer.of(job.found.shape, limits.layer));
  const layer = layers.get(job.id);
  if (brush.layer !== layer) brush.attach(layer);
  $("undo").disabled = layer.undos.length === 0;
  $("clear").disabled = layer.isEmpty;
  $("correct").disabled = layer.isEmpty;
}

// ------------------------------------------------------------------------------------------------------------ actions

for (const name of ["recover", "separate"]) {
  $(`settings-${name}`).addEventListener("submit", async (event) => {
    event.preventDefault();
    const chosen = settings.read(form());
    const own = jobs.filter((job) => job.kind === kind);
    let some = own.filter((job) => job.state === "ready");
    if (some.length === 0 && current()) some = [current()];
    for (const job of some) {
      const started = await attempt(() => api.start(job, chosen));
      if (started) put(started);
    }
    if (some.length && !some.includes(current()) && current()?.state === "done") selected[kind] = some[0].id;
    show();
  });
  $(`settings-${name}`).addEventListener("input", (event) => { settings.refresh(event.currentTarget); show(); });
}

$("stop").addEventListener("click", async () => { const job = await attempt(() => api.stop(current())); if (job) { put(job); show(); } });
$("resume").addEventListener("click", async () => {
  const job = await attempt(() => api.start(current(), current().settings));
  if (job) { put(job); show(); }
});
$("adopt").addEventListener("click", async () => {
  const found = await attempt(() => api.adopt());
  if (found) { limits.earlier = 0; jobs = found; select(first()); }
});
$("map-on").addEventListener("change", show);
$("map-opacity").addEventListener("input", () => $("stage").style.setProperty("--map-opacity", String(Number($("map-opacity").value) / 100)));
$("brush-on").addEventListener("change", () => { if ($("brush-on").checked) $("map-on").checked = true; show(); });
for (const choice of document.querySelectorAll("[name=brush]")) choice.addEventListener("change", () => { brush.value = Number(choice.value); });
$("brush-size").addEventListener("input", () => { brush.size = Number($("brush-size").value); });
$("undo").addEventListener("click", () => { brush.layer.undo(); brush.redraw(); });
$("clear").addEventListener("click", () => { brush.layer.clear(); brush.redraw(); });
$("correct").addEventListener("click", async () => {
  const job = await attempt(() => api.correct(current(), brush.layer, settings.read(form())));
  if (job) { $("brush-on").checked = false; $("map-on").checked = false; put(job); show(); $("main").focus(); }
});
$("copy").addEventListener("click", async () => {
  try { await navigator.clipboard.writeText($("command").textContent); $("copy").textContent = "Copied"; } catch { getSelection().selectAllChildren($("command")); }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 2000);
});

$("file").addEventListener("change", async () => { const files = [...$("file").files]; $("file").value = ""; await add(files); });
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  await add([...event.dataTransfer.files]);
});
document.addEventListener("paste", async (event) => { if (event.clipboardData.files.length) await add([...event.clipboardData.files]); });

function choose(name) {
  kind = name;
  for (const each of ["recover", "separate"]) {
    const tab = $(`tab-${each}`);
    tab.setAttribute("aria-selected", String(each === name));
    tab.tabIndex = each === name ? 0 : -1;
    $(`settings-${each}`).hidden = each !== name;
  }
  $("panel").setAttribute("aria-labelledby", `tab-${name}`);
  const text = KINDS[name];
  $("drop-title").textContent = text.title;
  $("drop-kinds").textContent = text.kinds;
  $("file").accept = text.accept;
  $("welcome-title").textContent = text.welcome;
  $("welcome-text").textContent = text.text;
  $("welcome-steps").replaceChildren(...text.steps.map((step) => Object.assign(document.createElement("li"), { textContent: step })));
  show();
}
for (const name of ["recover", "separate"]) {
  $(`tab-${name}`).addEventListener("click", () => choose(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    const other = name === "recover" ? "separate" : "recover";
    choose(other);
    $(`tab-${other}`).focus();
  });
}

choose("recover");
const found = await attempt(() => api.hello());
if (found) limits = found;
show();
let isLost = false;
api.listen((now) => {
  if (isLost) { $("errors").replaceChildren(); isLost = false; }
  jobs = now;
  for (const job of jobs) announce(job);
  if (!current() && first()) select(first()); else show();
}, () => {
  if (!isLost) fail("dop app does not respond. It may have been stopped: start it again to continue.");
  isLost = true;
});
