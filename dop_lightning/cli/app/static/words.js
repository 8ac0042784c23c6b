// Format numbers and states.

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 1.5) return "1 second";
  if (seconds < 90) return `${Math.round(seconds)} seconds`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} minutes`;
  const hours = seconds / 3600;
  return hours < 36 ? `${hours.toFixed(1)} hours` : `${Math.round(hours / 24)} days`;
}

export function percent(share) {
  const value = 100 * share;
  return value > 0 && value < 0.95 ? `${value.toFixed(1)} %` : `${Math.round(value)} %`;
}

export function bytes(size) {
  const units = ["bytes", "KB", "MB", "GB"];
  let unit = 0;
  while (size >= 1024 && unit < 3) { size /= 1024; unit += 1; }
  return `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

export function share(job) {
  const { done, maximum } = job.progress;
  return done === undefined || !maximum ? null : Math.min(1, done / maximum);
}

export function state(job) {
  switch (job.state) {
    case "ready": return "ready";
    case "waiting": return job.before > 0 ? `waiting, ${job.before} ahead` : "waiting";
    case "running": return share(job) === null ? "starting" : percent(share(job));
    case "stopping": return "saving the state";
    case "stopped": return "stopped";
    case "failed": return "failed";
    default: return "done";
  }
}

export function facts(job) {
  const { shape, frames, size, damaged, missing } = job.found;
  const parts = [];
  if (job.kind === "recover" && shape) {
    const colours = { 1: "grey", 3: "colour" }[shape[0]] || `${shape[0]} channels`;
    parts.push(`${shape[2]} × ${shape[1]} pixels, ${colours}`);
    if (damaged === undefined) parts.push("estimating the damage …");
    else if (damaged !== null) parts.push(damaged < 0.0005 ? "no isolated damage detected" : `about ${percent(damaged)} of the values look damaged`);
  } else if (shape) {
    parts.push(`${shape[0]} rows × ${shape[1]} columns`);
  } else if (frames) {
    parts.push(`${frames} frames of ${size[1]} × ${size[0]} pixels`);
  }
  if (missing) parts.push(`${percent(missing)} missing`);
  return parts.join(" · ");
}
