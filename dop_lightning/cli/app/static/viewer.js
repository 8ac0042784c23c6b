// The picture: before and after with a slider, and the map of the damage on top.

const MAP = [235, 0, 139];

export class Viewer {
  constructor(elements) {
    Object.assign(this, elements); // stage, before, after, map, divider, split
    this.split.addEventListener("input", () => this.place(Number(this.split.value)));
    let isDragging = false;
    const drag = (event) => {
      const box = this.stage.getBoundingClientRect();
      this.place(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
    };
    this.stage.addEventListener("pointerdown", (event) => {
      if (event.button || this.isPainted || !this.hasAfter) return;
      isDragging = true;
      this.stage.setPointerCapture(event.pointerId);
      drag(event);
    });
    this.stage.addEventListener("pointermove", (event) => { if (isDragging) drag(event); });
    for (const name of ["pointerup", "pointercancel"]) this.stage.addEventListener(name, () => { isDragging = false; });
    this.after.addEventListener("error", () => {}); // a preview that was removed meanwhile
    this.place(50);
  }

  place(percent) {
    this.split.value = String(Math.round(percent));
    this.stage.style.setProperty("--split", `${percent}%`);
  }

  // Show pictures of the given size; without `after`, show only `before`.
  show(before, after, width, height) {
    this.stage.style.setProperty("--ratio", `${width} / ${height}`);
    this.stage.style.setProperty("--aspect", String(width / height));
    this.stage.classList.toggle("pixelated", Math.max(width, height) <= 256);
    this.hasAfter = Boolean(after);
    this.stage.classList.toggle("alone", !after);
    if (before && this.before.getAttribute("src") !== before) this.before.src = before;
    if (after) this.replace(after);
    else this.after.removeAttribute("src");
  }

  // Replace the picture once the new one is decoded, so that live previews do not flicker.
  async replace(address) {
    if (this.wanted === address && this.after.hasAttribute("src")) return;
    this.wanted = address;
    const next = new Image();
    next.src = address;
    try { await next.decode(); } catch { return; }
    if (this.wanted === address && this.hasAfter) this.after.src = address;
  }

  async showMap(address, isProbability) {
    if (this.mapAddress === address) return;
    this.mapAddress = address;
    const context = this.map.getContext("2d", { willReadFrequently: true });
    if (!address) { context.clearRect(0, 0, this.map.width, this.map.height); return; }
    const picture = new Image();
    picture.src = address;
    try { await picture.decode(); } catch { return; }
    if (this.mapAddress !== address) return;
    const scale = Math.min(1, 2048 / Math.max(picture.naturalWidth, picture.naturalHeight));
    this.map.width = Math.max(1, Math.round(picture.naturalWidth * scale));
    this.map.height = Math.max(1, Math.round(picture.naturalHeight * scale));
    context.drawImage(picture, 0, 0, this.map.width, this.map.height);
    const pixels = context.getImageData(0, 0, this.map.width, this.map.height);
    for (let k = 0; k < pixels.data.length; k += 4) {
      const level = Math.max(pixels.data[k], pixels.data[k + 1], pixels.data[k + 2]);
      pixels.data.set(MAP, k);
      pixels.data[k + 3] = isProbability ? level : Math.min(255, 4 * level);
    }
    context.putImageData(pixels, 0, 0);
  }
}
