// Converts between the form and the settings of a job, which omit defaults.

const DEFAULTS = { preset: "default", outliers: "auto", dense: "auto", method: "auto" };
const NUMBERS = ["iterations", "width", "alpha", "seed", "rank"];

function damage(form) {
  const kinds = [...form.querySelectorAll("[name=kind]:checked")].map((box) => box.value);
  if (kinds.length) return kinds.join("+");
  return form.elements.lines.checked ? "auto" : "points";
}

export function read(form) {
  const settings = {};
  for (const name of Object.keys(DEFAULTS)) {
    const field = form.elements[name];
    if (field && field.value !== DEFAULTS[name]) settings[name] = field.value;
  }
  if (form.elements.lines) {
    if (damage(form) !== "auto") settings.damage = damage(form);
    if (form.elements.per.checked) settings.per = "pixel";
  }
  if (form.elements.grey && form.elements.grey.checked) settings.grey = true;
  for (const name of NUMBERS) {
    const field = form.elements[name];
    if (field && field.value !== "") settings[name] = Number(field.value);
  }
  const usual = { seed: 0, ...(form.elements.grey ? { iterations: 500 } : {}) };
  for (const [name, value] of Object.entries(usual)) if (settings[name] === value) delete settings[name];
  return settings;
}

export function write(form, settings) {
  for (const [name, value] of Object.entries(DEFAULTS)) {
    if (form.elements[name]) form.elements[name].value = settings[name] || value;
  }
  if (form.elements.lines) {
    const kinds = (settings.damage || "auto").split("+");
    form.elements.lines.checked = settings.damage !== "points";
    for (const box of form.querySelectorAll("[name=kind]")) box.checked = kinds.includes(box.value);
    form.elements.per.checked = settings.per === "pixel";
  }
  if (form.elements.grey) form.elements.grey.checked = Boolean(settings.grey);
  for (const name of NUMBERS) if (form.elements[name]) form.elements[name].value = settings[name] ?? "";
  refresh(form);
}

// Other kinds of damage include dead rows and columns. Settings of the network are disabled without one.
export function refresh(form) {
  if (!form.elements.lines) return;
  const kinds = form.querySelectorAll("[name=kind]:checked").length > 0;
  form.elements.lines.disabled = kinds;
  if (kinds) form.elements.lines.checked = true;
  const instant = form.elements.preset.value === "instant";
  for (const name of ["iterations", "width", "alpha"]) {
    form.elements[name].disabled = instant;
    if (instant) form.elements[name].value = "";
  }
}

export function same(one, two) {
  const sorted = (settings) => JSON.stringify(Object.entries(settings).sort());
  return sorted(one) === sorted(two);
}
