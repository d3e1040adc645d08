// Current lines: curves along J in a plane.
//
//     dr/ds = J(r) / |J(r)|,        r in the plane, s in mm
//
// J between voxel centres is bilinear, air counting as no current, and curves are drawn by the
// midpoint rule. Of all that were drawn the longest stay, and of others what comes no closer to
// these than about half of `apart`. In a section only the part of J that lies in it is followed:
// lines may begin and end there, and how close they are says nothing of how much flows.
// Even spacing by what is taken already: after Jobard and Lefer, Visualization in Scientific
// Computing (1997) 43.

/** Steps at most in each direction. */
const STEPS = 400;
/** Voxels round an electrode without lines: at the centres there J has no direction. */
const NEAR = 1;
/** A line shorter than so many lengths `apart` is left out. */
const SHORT = 1.5;

/**
 * A plane of currents.
 * J : Float32Array, (n, m, 2), up and across. size : [n, m]. spacing : [mm, mm].
 * electrodes : [[up, across], ...] mm, that lines keep away from.
 */
export class Sheet {
  constructor({ J, size, spacing, electrodes = [] }) {
    Object.assign(this, { J, size, spacing, electrodes });
    this.extent = [size[0] * spacing[0], size[1] * spacing[1]];
  }

  /** J / |J| at a place; null where none flows. */
  direction(up, across) {
    const [n, m] = this.size;
    const [y, i] = split(up / this.spacing[0] - 0.5, n);
    const [x, j] = split(across / this.spacing[1] - 0.5, m);
    const first = 2 * (i * m + j);
    const below = first + (n > 1 ? 2 * m : 0);
    const next = m > 1 ? 2 : 0;
    const value = (c) =>
      (1 - y) * ((1 - x) * this.J[first + c] + x * this.J[first + next + c]) +
      y * ((1 - x) * this.J[below + c] + x * this.J[below + next + c]);
    const [a, b] = [value(0), value(1)];
    const length = Math.hypot(a, b);
    return length > 0 ? [a / length, b / length] : null;
  }

  /** Whether a place is in tissue that carries current, and away from electrodes. */
  alive(up, across) {
    const i = Math.floor(up / this.spacing[0]);
    const j = Math.floor(across / this.spacing[1]);
    const [n, m] = this.size;
    if (i < 0 || j < 0 || i >= n || j >= m) return false;
    const k = 2 * (i * m + j);
    if (this.J[k] === 0 && this.J[k + 1] === 0) return false;
    return this.electrodes.every(
      ([v, u]) => Math.hypot((up - v) / this.spacing[0], (across - u) / this.spacing[1]) > NEAR,
    );
  }

  /** From a place along J (step > 0) or against it, mm: [[up, across], ...]. */
  followed(up, across, step, most = STEPS) {
    const path = [[up, across]];
    for (let k = 0; k < most; k++) {
      const here = this.direction(up, across);
      if (!here) break;
      const half = this.direction(up + 0.5 * step * here[0], across + 0.5 * step * here[1]);
      if (!half) break;
      up += step * half[0];
      across += step * half[1];
      if (!this.alive(up, across)) break;
      path.push([up, across]);
    }
    return path;
  }

  /** Both ways. */
  line(up, across, step) {
    const behind = this.followed(up, across, -step).slice(1).reverse();
    return [...behind, ...this.followed(up, across, step)];
  }
}

/** The share and the number of the lower of the two centres that a coordinate lies between. */
function split(index, count) {
  const inside = Math.min(Math.max(index, 0), count - 1);
  const low = Math.min(Math.floor(inside), Math.max(count - 2, 0));
  return [inside - low, low];
}

/** Lines all over a sheet, each in the direction of J. apart : mm between two, about. */
export function currentLines(sheet, apart) {
  const step = Math.max(
    0.5 * Math.min(...sheet.spacing),
    (2 * Math.max(...sheet.extent)) / STEPS,
  );
  const drawn = [];
  const counts = sheet.extent.map((size) => Math.max(2, Math.floor(size / apart)));
  for (let a = 0; a < counts[0]; a++) {
    for (let b = 0; b < counts[1]; b++) {
      const up = ((a + 0.5) * sheet.extent[0]) / counts[0];
      const across = ((b + 0.5) * sheet.extent[1]) / counts[1];
      if (sheet.alive(up, across)) drawn.push(sheet.line(up, across, step));
    }
  }
  return spaced(drawn, sheet.extent, apart, step);
}

/** The longest lines, and of others what is not close to those that stay. */
function spaced(drawn, extent, apart, step) {
  const cell = apart / 2;
  const width = Math.ceil(extent[1] / cell) + 3;
  const taken = new Uint8Array((Math.ceil(extent[0] / cell) + 3) * width);
  const cellOf = ([up, across]) =>
    (Math.floor(up / cell) + 1) * width + Math.floor(across / cell) + 1;
  const kept = [];
  for (const line of drawn.sort((a, b) => b.length - a.length)) {
    const rest = longestRun(line, (place) => !taken[cellOf(place)]);
    if ((rest.length - 1) * step < SHORT * apart) continue;
    kept.push(rest);
    for (const place of rest) {
      const at = cellOf(place);
      for (const row of [-width, 0, width]) taken.fill(1, at + row - 1, at + row + 2);
    }
  }
  return kept;
}

/** The longest part of a line, in one piece, of which all is free. */
function longestRun(line, free) {
  let [best, first, length] = [0, 0, 0];
  let start = 0;
  line.forEach((place, k) => {
    if (!free(place)) start = k + 1;
    if (k + 1 - start > length) [first, length] = [start, k + 1 - start];
    best = length;
  });
  return line.slice(first, first + best);
}
