// What the page shows as one PNG: sections, scale, and a line that says what it is.

import { element } from "./figure.js";

/** Pixels for each of the page. */
const SHARP = 2;
const GAP = 12;

/** figures, bar : as drawn. caption : lines of text. -> Blob */
export async function pictureOf(figures, bar, caption) {
  const parts = figures.map((figure) => figure.svg);
  const width = (part) => Number(part.getAttribute("width"));
  const height = (part) => Number(part.getAttribute("height"));
  const wide = Math.max(
    parts.reduce((sum, part) => sum + width(part) + GAP, GAP),
    width(bar.svg) + 2 * GAP,
  );
  const high = Math.max(...parts.map(height)) + height(bar.svg) + 18 * caption.length + 3 * GAP;
  const whole = element("svg", { width: wide, height: high, viewBox: `0 0 ${wide} ${high}` });
  element("rect", { width: wide, height: high, fill: "#ffffff" }, whole);
  let x = GAP;
  for (const part of parts) {
    whole.append(moved(part, x, GAP));
    x += width(part) + GAP;
  }
  const below = Math.max(...parts.map(height)) + 2 * GAP;
  whole.append(moved(bar.svg, GAP, below));
  caption.forEach((words, k) => {
    const y = below + height(bar.svg) + 18 * (k + 0.8);
    const attributes = { x: GAP + 8, y, "font-size": 12, fill: "#1c2430" };
    const text = element("text", { ...attributes, "font-family": "sans-serif" }, whole);
    text.textContent = words;
  });
  return painted(whole, wide, high);
}

function moved(part, x, y) {
  const copy = part.cloneNode(true);
  for (const name of ["tabindex", "class", "role"]) copy.removeAttribute(name);
  for (const line of copy.querySelectorAll("[vector-effect]")) {
    line.setAttribute("stroke-width", SHARP * line.getAttribute("stroke-width"));
  }
  copy.setAttribute("x", x);
  copy.setAttribute("y", y);
  return copy;
}

async function painted(whole, wide, high) {
  const text = new XMLSerializer().serializeToString(whole);
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [SHARP * wide, SHARP * high];
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((done) => canvas.toBlob(done, "image/png"));
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Let the browser keep a file. */
export function keep(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
