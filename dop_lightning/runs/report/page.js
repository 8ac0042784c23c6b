"use strict";
// Slider over two pictures: a range input, which supports keyboard and touch, moves the line.
for (const stack of document.querySelectorAll(".stack")) {
  const range = stack.querySelector("input");
  const show = () => {
    stack.style.setProperty("--split", range.value + "%");
    range.setAttribute("aria-valuetext", `${range.value} % observed, ${100 - range.value} % recovered`);
  };
  range.addEventListener("input", show);
  show();
}
// Readout of curves by mouse, touch or arrow keys.
for (const figure of document.querySelectorAll("figure.chart")) {
  const svg = figure.querySelector("svg[tabindex]");
  if (!svg) continue;
  const out = figure.querySelector("output");
  const lines = [...svg.querySelectorAll("polyline")].map((line) => {
    const values = line.dataset.values.split(" ").map((pair) => pair.split(":"));
    return [...line.points].map((p, k) => ({ line, label: line.dataset.label, x: p.x, y: p.y, at: values[k][0], value: values[k][1] }));
  });
  const mark = document.createElementNS(svg.namespaceURI, "circle");
  mark.setAttribute("class", "mark");
  mark.setAttribute("r", "5");
  let here = null;
  const show = (point) => {
    here = point;
    mark.setAttribute("cx", point.x);
    mark.setAttribute("cy", point.y);
    svg.append(mark);
    const who = lines.length > 1 ? point.label + ", " : "";
    out.textContent = `${who}${Number(point.at).toLocaleString("en")}: ${point.value}`;
  };
  const hide = () => { mark.remove(); out.textContent = ""; here = null; };
  const nearest = (x, y) => {
    let best = null, least = Infinity;
    for (const point of lines.flat()) {
      const distance = (point.x - x) ** 2 + (lines.length > 1 ? (point.y - y) ** 2 : 0);
      if (distance < least) { least = distance; best = point; }
    }
    return best;
  };
  const point = (event) => {
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    show(nearest((event.clientX - box.left) / box.width * view.width, (event.clientY - box.top) / box.height * view.height));
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) {
      const turn = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (turn === undefined || lines.length < 2) return;
      const at = here ? lines.findIndex((line) => line.includes(here)) : 0;
      show(lines[(at + turn + lines.length) % lines.length].at(-1));
    } else {
      const line = lines.find((some) => some.includes(here)) || lines[0];
      const at = here ? line.indexOf(here) + step : [1, -Infinity].includes(step) ? 0 : line.length - 1;
      show(line[Math.max(0, Math.min(line.length - 1, at))]);
    }
    event.preventDefault();
  });
}
// Button to copy the command, if the clipboard is available.
for (const box of document.querySelectorAll(".command")) {
  const button = box.querySelector("button");
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(box.querySelector("code").textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(box.querySelector("code"));
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
