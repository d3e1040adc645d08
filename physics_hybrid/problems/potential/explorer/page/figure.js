// One section as SVG: colours, lines, outlines, axes in mm, cross-hair, electrodes. All that is
// drawn has its own attributes and no style sheet, so that a picture of it is the same.

import { Sheet, currentLines } from "./current_lines.js";

const SVG = "http://www.w3.org/2000/svg";
const FONT = "system-ui, 'DejaVu Sans', sans-serif";
/** Room round the plot, px. */
export const MARGIN = { left: 46, right: 10, top: 26, bottom: 38 };
/** Lines of current have this share of the shortest edge of the body between them. */
const APART = 1 / 13;
/** Files of lines come in hundredths of a millimetre. */
const FINE = 100;
const INK = "#1c2430";

export function element(name, attributes = {}, parent = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

/** Bytes of base64 as an array of a kind. */
export function unpacked(text, Kind = Uint8Array) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let k = 0; k < raw.length; k++) bytes[k] = raw.charCodeAt(k);
  return new Kind(bytes.buffer);
}

/** A round distance between ticks, so that about `count` fit in `length`. */
function tickStep(length, count) {
  const rough = length / Math.max(1, count);
  const size = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((k) => k * size).find((step) => step >= rough * 0.999);
}

/** mm to a tenth. */
export function fixed(mm) {
  return mm.toFixed(1).replace("-", "−");
}

export class Figure {
  /** normal, up, across : axes of the body. body : what /about says. */
  constructor(body, normal, up, across) {
    Object.assign(this, { body, normal, up, across });
    this.mm = body.extent.map((x) => 1000 * x);
    const name = body.axes[normal].section;
    this.name = name;
    this.svg = element("svg", {
      tabindex: 0,
      role: "application",
      "aria-roledescription": "section",
      class: "section",
      "font-family": FONT,
    });
    this.svg.dataset.name = name;
    this.parts();
  }

  parts() {
    const add = (name, attributes, parent = this.svg) => element(name, attributes, parent);
    const line = { fill: "none", "stroke-linejoin": "round", "vector-effect": "non-scaling-stroke" };
    this.title = add("text", { x: 8, y: 17, "font-size": 13, "font-weight": 600, fill: INK });
    this.plot = add("g", { class: "plot" });
    this.back = add("rect", { fill: "#f2f4f7" }, this.plot);
    this.image = add("image", { preserveAspectRatio: "none" }, this.plot);
    this.image.setAttribute("image-rendering", "pixelated");
    this.scaled = add("g", {}, this.plot);
    const drawn = (className, attributes) => {
      return add("path", { ...line, class: className, ...attributes }, this.scaled);
    };
    this.levels = drawn("equipotentials", { stroke: "#101418", "stroke-width": 0.8 });
    this.levels.setAttribute("stroke-opacity", 0.75);
    this.casing = drawn("currents-casing", { stroke: "#101418", "stroke-width": 2.6 });
    this.casing.setAttribute("stroke-opacity", 0.45);
    this.currents = drawn("currents", { stroke: "#ffffff", "stroke-width": 1.2 });
    this.outlines = drawn("outlines", { stroke: "#000000", "stroke-width": 1.3 });
    this.outlines.setAttribute("stroke-linecap", "square");
    this.hair = add("path", {
      fill: "none",
      stroke: "#c2185b",
      "stroke-width": 1,
      "stroke-dasharray": "5 4",
      class: "hair",
    });
    this.frame = add("rect", { fill: "none", stroke: INK, "stroke-width": 1 });
    this.axis = add("g", { "font-size": 11, fill: INK, stroke: "none" });
    this.marks = add("g", { class: "marks" });
  }

  /** Size by px/mm. */
  resize(scale) {
    this.scale = scale;
    this.width = this.mm[this.across] * scale;
    this.height = this.mm[this.up] * scale;
    const [w, h] = [
      this.width + MARGIN.left + MARGIN.right,
      this.height + MARGIN.top + MARGIN.bottom,
    ];
    const box = { x: MARGIN.left, y: MARGIN.top, width: this.width, height: this.height };
    for (const [k, v] of Object.entries({ width: w, height: h, viewBox: `0 0 ${w} ${h}` })) {
      this.svg.setAttribute(k, v);
    }
    for (const part of [this.back, this.frame, this.image]) {
      for (const [k, v] of Object.entries(box)) part.setAttribute(k, v);
    }
    const [sx, sy] = [this.mirrored ? -scale : scale, this.upsideDown ? scale : -scale];
    const x = this.px(0);
    const y = this.py(0);
    this.scaled.setAttribute("transform", `matrix(${sx} 0 0 ${sy} ${x} ${y})`);
    this.drawAxes();
    if (this.places) this.place(this.places);
  }

  get mirrored() {
    return this.body.axes[this.across].mirrored;
  }

  get upsideDown() {
    return this.body.axes[this.up].upside_down;
  }

  px(mm) {
    const along = mm * this.scale;
    return MARGIN.left + (this.mirrored ? this.width - along : along);
  }

  py(mm) {
    const along = mm * this.scale;
    return MARGIN.top + (this.upsideDown ? along : this.height - along);
  }

  /** The place under a pointer, [mm up, mm across]. */
  under(event) {
    const box = this.svg.getBoundingClientRect();
    const zoom = box.width / (this.width + MARGIN.left + MARGIN.right);
    const x = (event.clientX - box.left) / zoom - MARGIN.left;
    const y = (event.clientY - box.top) / zoom - MARGIN.top;
    const across = (this.mirrored ? this.width - x : x) / this.scale;
    const up = (this.upsideDown ? y : this.height - y) / this.scale;
    return [up, across];
  }

  drawAxes() {
    this.axis.replaceChildren();
    const bottom = MARGIN.top + this.height;
    const text = (x, y, words, anchor, more = {}) => {
      const made = element("text", { x, y, "text-anchor": anchor, ...more }, this.axis);
      made.textContent = words;
    };
    const tick = (x1, y1, x2, y2) =>
      element("line", { x1, y1, x2, y2, stroke: INK, "stroke-width": 1 }, this.axis);
    for (const mm of this.ticks(this.across, this.width / 48)) {
      const x = this.px(mm.at);
      tick(x, bottom, x, bottom + 4);
      text(x, bottom + 16, mm.label, "middle");
    }
    for (const mm of this.ticks(this.up, this.height / 40)) {
      const y = this.py(mm.at);
      tick(MARGIN.left - 4, y, MARGIN.left, y);
      text(MARGIN.left - 7, y + 4, mm.label, "end");
    }
    const [across, up] = [this.body.axes[this.across], this.body.axes[this.up]];
    const centre = MARGIN.left + this.width / 2;
    text(centre, bottom + 32, `${across.name} (mm)`, "middle");
    const middle = MARGIN.top + this.height / 2;
    text(12, middle, `${up.name} (mm)`, "middle", { transform: `rotate(-90 12 ${middle})` });
    const halo = { stroke: "#ffffff", "stroke-width": 3, "paint-order": "stroke" };
    const corner = { "font-weight": 700, "font-size": 12, ...halo };
    const [left, right] = this.mirrored ? [across.high, across.low] : [across.low, across.high];
    const [low, high] = this.upsideDown ? [up.high, up.low] : [up.low, up.high];
    text(MARGIN.left + 5, middle + 4, left, "start", corner);
    text(MARGIN.left + this.width - 5, middle + 4, right, "end", corner);
    text(centre, MARGIN.top + 14, high, "middle", corner);
    text(centre, bottom - 5, low, "middle", corner);
  }

  /** Ticks of an axis: where (mm of the grid), and what stands there (mm as shown). */
  ticks(axis, count) {
    const { origin, sign } = this.body.axes[axis];
    const ends = [origin, origin + sign * this.mm[axis]].sort((a, b) => a - b);
    const step = tickStep(this.mm[axis], count);
    const found = [];
    for (let k = Math.ceil(ends[0] / step - 1e-9); k * step <= ends[1] + 1e-9; k++) {
      const shown = k * step;
      found.push({ at: (shown - origin) * sign, label: String(Number(shown.toPrecision(8))).replace("-", "−") });
    }
    return found;
  }

  /** Colours and lines of an answer. electrodes : [[mm, mm, mm], ...] */
  draw(section, colours, electrodes) {
    const [n, m] = section.points;
    this.points = section.points;
    this.packed = section.millivolts;
    this.millivolts = null;
    this.shades = unpacked(section.shades);
    this.image.setAttribute("href", this.coloured(n, m, colours));
    this.levels.setAttribute("d", section.equipotentials.map(pathOf).join(""));
    this.outlines.setAttribute("d", section.outlines.map(pathOf).join(""));
    const [normal, up, across] = [this.normal, this.up, this.across];
    const spacing = this.body.spacing.map((h) => 1000 * h);
    const sheet = new Sheet({
      J: unpacked(section.J, Float32Array),
      size: section.voxels,
      spacing: [spacing[up], spacing[across]],
      electrodes: electrodes
        .filter((place) => Math.abs(place[normal] - 1000 * section.cut) < spacing[normal])
        .map((place) => [place[up], place[across]]),
    });
    const lines = currentLines(sheet, APART * Math.min(...this.mm));
    const d = lines.map((line) => plainPath(line) + arrowOf(line, 5 / this.scale)).join("");
    this.currents.setAttribute("d", d);
    this.casing.setAttribute("d", d);
    const shown = this.shownAt(normal, 1000 * section.cut);
    this.title.textContent = `${this.name}, ${this.body.axes[normal].name} ${fixed(shown)} mm`;
  }

  /** mm of the grid as shown. */
  shownAt(axis, mm) {
    const { origin, sign } = this.body.axes[axis];
    return origin + sign * mm;
  }

  /** A picture of the shades, the way up that the section has. */
  coloured(n, m, colours) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [m, n];
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(m, n);
    for (let i = 0; i < n; i++) {
      const row = this.upsideDown ? i : n - 1 - i;
      for (let j = 0; j < m; j++) {
        const shade = this.shades[i * m + j];
        if (!shade) continue;
        const at = 4 * (row * m + (this.mirrored ? m - 1 - j : j));
        pixels.data.set(colours.subarray(3 * (shade - 1), 3 * shade), at);
        pixels.data[at + 3] = 255;
      }
    }
    context.putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  }

  /** mV at a place, [mm, mm]; null in air. */
  valueAt([up, across]) {
    if (!this.points) return null;
    const [n, m] = this.points;
    const i = Math.floor((up / this.mm[this.up]) * n);
    const j = Math.floor((across / this.mm[this.across]) * m);
    if (i < 0 || j < 0 || i >= n || j >= m || !this.shades[i * m + j]) return null;
    // most answers of a drag are never read
    this.millivolts ??= unpacked(this.packed, Float32Array);
    return this.millivolts[i * m + j];
  }

  /** Cross-hair and electrodes. places : { at, returns, cut }, mm; returns may be null. */
  place(places) {
    this.places = places;
    const [x, y] = [this.px(places.cut[this.across]), this.py(places.cut[this.up])];
    const right = MARGIN.left + this.width;
    const bottom = MARGIN.top + this.height;
    this.hair.setAttribute("d", `M${MARGIN.left} ${y}H${right}M${x} ${MARGIN.top}V${bottom}`);
    this.marks.replaceChildren();
    if (places.returns) this.mark("returns", places.returns, places.cut, "−", "#1558b0");
    this.mark("at", places.at, places.cut, "+", "#c62828");
  }

  mark(kind, place, cut, sign, colour) {
    const [x, y] = [this.px(place[this.across]), this.py(place[this.up])];
    const thick = 1000 * this.body.spacing[this.normal];
    const here = Math.abs(place[this.normal] - cut[this.normal]) <= thick;
    const group = element("g", { class: `mark ${kind}`, opacity: here ? 1 : 0.45 }, this.marks);
    group.dataset.kind = kind;
    // a finger needs more than a mouse, which wants to place close by as well
    const reach = matchMedia("(pointer: coarse)").matches ? 22 : 10;
    element("circle", { cx: x, cy: y, r: reach, fill: "transparent" }, group);
    const ring = { cx: x, cy: y, r: 8, fill: "#ffffff", stroke: colour, "stroke-width": 2.5 };
    if (!here) ring["stroke-dasharray"] = "3 2";
    element("circle", ring, group);
    const arms = sign === "+" ? `M${x - 4} ${y}h8M${x} ${y - 4}v8` : `M${x - 4} ${y}h8`;
    element("path", { d: arms, stroke: colour, "stroke-width": 2.2, fill: "none" }, group);
  }

  /** Whether layers are shown. */
  show({ equipotentials, currents, outlines }) {
    const set = (part, shown) => part.setAttribute("display", shown ? "inline" : "none");
    set(this.levels, equipotentials);
    set(this.currents, currents);
    set(this.casing, currents);
    set(this.outlines, outlines);
  }
}

/** Across, up, across, up ... as a path in mm. */
function pathOf(line) {
  let d = `M${line[0] / FINE} ${line[1] / FINE}L`;
  for (let k = 2; k < line.length; k += 2) d += `${line[k] / FINE} ${line[k + 1] / FINE} `;
  return d;
}

/** [[up, across], ...] mm as a path. */
function plainPath(line) {
  return `M${line.map(([up, across]) => `${across.toFixed(2)} ${up.toFixed(2)}`).join("L")}`;
}

/** A tip in the middle of a line, that shows which way it goes. size : mm. */
function arrowOf(line, size) {
  const k = Math.floor(line.length / 2);
  if (k < 1) return "";
  const [[v0, u0], [v, u]] = [line[k - 1], line[k]];
  const length = Math.hypot(v - v0, u - u0) || 1;
  const [dv, du] = [(v - v0) / length, (u - u0) / length];
  const wing = (side) => {
    const back = [v - size * dv + side * 0.6 * size * du, u - size * du - side * 0.6 * size * dv];
    return `${back[1].toFixed(2)} ${back[0].toFixed(2)}`;
  };
  return `M${wing(1)}L${u.toFixed(2)} ${v.toFixed(2)}L${wing(-1)}`;
}

/** The colour scale: a bar with the levels of the lines. */
export class Bar {
  constructor() {
    this.svg = element("svg", { class: "bar", role: "img", "font-family": FONT });
    this.svg.setAttribute("aria-label", "Colour scale of the potential in mV");
  }

  draw(scale, width) {
    const [left, right, top, high] = [14, 16, 20, 14];
    const colours = unpacked(scale.colours);
    const canvas = document.createElement("canvas");
    const count = colours.length / 3;
    [canvas.width, canvas.height] = [count, 1];
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(count, 1);
    for (let k = 0; k < count; k++) {
      pixels.data.set(colours.subarray(3 * k, 3 * k + 3), 4 * k);
      pixels.data[4 * k + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
    const long = width - left - right;
    this.svg.replaceChildren();
    for (const [k, v] of Object.entries({ width, height: 54, viewBox: `0 0 ${width} 54` })) {
      this.svg.setAttribute(k, v);
    }
    const box = { x: left, y: top, width: long, height: high };
    element("image", { ...box, preserveAspectRatio: "none", href: canvas.toDataURL() }, this.svg);
    element("rect", { ...box, fill: "none", stroke: INK }, this.svg);
    const words = (x, y, said, more) => {
      element("text", { x, y, "font-size": 11, fill: INK, ...more }, this.svg).textContent = said;
    };
    words(left, 13, "Potential (mV); lines at the marks", {});
    let free = -Infinity;
    scale.levels.forEach((level, k) => {
      const x = left + long * scale.places[k];
      element("path", { d: `M${x} ${top}v${high + 4}`, stroke: INK, fill: "none" }, this.svg);
      const said = String(Number(level.toPrecision(3))).replace("-", "−");
      const room = 3.6 * said.length + 3;
      if (x - room < free || x + room > width + 6) return;
      free = x + room;
      words(x, top + high + 16, said, { "text-anchor": "middle" });
    });
  }
}
