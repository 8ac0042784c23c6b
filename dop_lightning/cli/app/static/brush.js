// The brush paints discs on a layer of bytes (0 nothing, 1 damaged, 2 clean), which is shown on a canvas.

const COLOURS = [[0, 0, 0, 0], [255, 122, 0, 190], [0, 190, 160, 190]];
const MOST_UNDOS = 30;

export class Layer {
  constructor(height, width) {
    this.height = height;
    this.width = width;
    this.values = new Uint8Array(height * width);
    this.undos = [];
  }

  static of(shape, limit) {
    const scale = Math.min(1, limit / Math.max(shape[1], shape[2]));
    const side = (length) => Math.max(1, roundHalfEven(length * scale));
    return new Layer(side(shape[1]), side(shape[2]));
  }

  get isEmpty() { return !this.values.some(Boolean); }

  begin() {
    this.undos.push(this.values.slice());
    if (this.undos.length > MOST_UNDOS) this.undos.shift();
  }

  undo() { if (this.undos.length) this.values = this.undos.pop(); }

  clear() { this.begin(); this.values.fill(0); }

  // Paint a line of discs from (x0, y0) to (x1, y1), and return the changed rectangle.
  line(x0, y0, x1, y1, radius, value) {
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(0.5, radius / 3)));
    for (let k = 0; k <= steps; k += 1) {
      this.disc(x0 + ((x1 - x0) * k) / steps, y0 + ((y1 - y0) * k) / steps, radius, value);
    }
    return {
      left: Math.max(0, Math.floor(Math.min(x0, x1) - radius - 1)), top: Math.max(0, Math.floor(Math.min(y0, y1) - radius - 1)),
      right: Math.min(this.width, Math.ceil(Math.max(x0, x1) + radius + 1)), bottom: Math.min(this.height, Math.ceil(Math.max(y0, y1) + radius + 1)),
    };
  }

  disc(x, y, radius, value) {
    const reach = Math.max(radius, 0.5);
    for (let row = Math.max(0, Math.floor(y - reach)); row <= Math.min(this.height - 1, Math.floor(y + reach)); row += 1) {
      for (let column = Math.max(0, Math.floor(x - reach)); column <= Math.min(this.width - 1, Math.floor(x + reach)); column += 1) {
        const inside = (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= reach ** 2;
        const under = Math.floor(x) === column && Math.floor(y) === row;
        if (inside || under) this.values[row * this.width + column] = value;
      }
    }
  }

  show(canvas, part = { left: 0, top: 0, right: this.width, bottom: this.height }) {
    const width = part.right - part.left;
    const height = part.bottom - part.top;
    if (width <= 0 || height <= 0) return;
    const picture = new ImageData(width, height);
    for (let row = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1) {
        const value = this.values[(row + part.top) * this.width + column + part.left];
        if (value) picture.data.set(COLOURS[value], 4 * (row * width + column));
      }
    }
    canvas.getContext("2d").putImageData(picture, part.left, part.top);
  }
}

// Round like Python, so that page and server agree on the size of the layer.
function roundHalfEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 ? below + 1 : below;
}

// Paints on a canvas with pointer and keyboard; calls `changed` after each stroke.
export class Brush {
  constructor(canvas, ring, changed) {
    this.canvas = canvas;
    this.ring = ring;
    this.changed = changed;
    this.layer = null;
    this.value = 1;
    this.size = 24;
    this.at = null;
    this.isPainting = false;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.up());
    canvas.addEventListener("pointerleave", () => { if (document.activeElement !== canvas) ring.hidden = true; });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { ring.hidden = true; });
  }

  // At size 100, the diameter is a quarter of the shorter side.
  get radius() { return Math.max(0.5, ((this.size / 100) ** 1.5 * Math.min(this.layer.width, this.layer.height)) / 8); }

  attach(layer) {
    this.layer = layer;
    this.canvas.width = layer.width;
    this.canvas.height = layer.height;
    this.at = null;
    layer.show(this.canvas);
  }

  redraw() { this.layer.show(this.canvas); this.changed(); }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.layer.width, ((event.clientY - box.top) / box.height) * this.layer.height];
  }

  down(event) {
    if (event.button) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.layer.begin();
    this.isPainting = true;
    this.at = this.place(event);
    this.stroke(this.at, this.at);
  }

  move(event) {
    const to = this.place(event);
    if (this.isPainting) this.stroke(this.at, to);
    this.at = to;
    this.showRing();
  }

  up() {
    if (this.isPainting) this.changed();
    this.isPainting = false;
  }

  stroke(from, to) { this.layer.show(this.canvas, this.layer.line(...from, ...to, this.radius, this.value)); this.showRing(); }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    this.at = this.at || [this.layer.width / 2, this.layer.height / 2];
    if (moves[event.key]) {
      const step = Math.max(1, this.radius / (event.shiftKey ? 4 : 1));
      const [x, y] = moves[event.key];
      const limit = (value, most) => Math.min(most, Math.max(0, value));
      this.at = [limit(this.at[0] + x * step, this.layer.width - 0.5), limit(this.at[1] + y * step, this.layer.height - 0.5)];
    } else if (event.key === " ") {
      this.layer.begin();
      this.stroke(this.at, this.at);
      this.changed();
    } else {
      return;
    }
    event.preventDefault();
    this.showRing();
  }

  showRing() {
    const [width, height] = [this.layer.width, this.layer.height];
    this.ring.hidden = false;
    this.ring.style.left = `${(100 * this.at[0]) / width}%`;
    this.ring.style.top = `${(100 * this.at[1]) / height}%`;
    this.ring.style.width = `${(200 * this.radius) / width}%`;
    this.ring.style.height = `${(200 * this.radius) / height}%`;
  }
}
