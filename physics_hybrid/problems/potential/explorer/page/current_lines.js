// Current lines: curves along J in a plane.
//
//     dr/ds = J(r) / |J(r)|,        r in the plane, s in mm
//
// J between voxel centres is bilinear, air counting as no current, and curves are drawn by the
// midpoint rule. They begin where most flows, and of each stays what comes no closer to those
// before it than about half of `apart`. In a section only the part of J that lies in it is
// followed: lines may begin and end there, and how close they are says nothing of how much flows.
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
    const { J, size } = this;
    const y = clamped(up / this.spacing[0] - 0.5, size[0]);
    const x = clamped(across / this.spacing[1] - 0.5, size[1]);
    const [i, j] = [Math.floor(y), Math.floor(x)];
    const [s, t] = [y - i, x - j];
    const k = 2 * (i * size[1] + j);
    const right = j + 1 < size[1] ? 2 : 0;
    const above = i + 1 < size[0] ? 2 * size[1] : 0;
    const weights = [(1 - s) * (1 - t), (1 - s) * t, s * (1 - t), s * t];
    let [a, b] = [0, 0];
    [k, k + right, k + above, k + above + right].forEach((at, corner) => {
      a += weights[corner] * J[at];
      b += weights[corner] * J[at + 1];
    });
    const length = Math.hypot(a, b);
    return length > 0 ? [a / length, b / length] : null;
  }

  /** |J| in the voxel of a place. */
  strength(up, across) {
    const i = Math.floor(up / this.spacing[0]);
    const j = Math.floor(across / this.spacing[1]);
    const k = 2 * (i * this.size[1] + j);
    return Math.hypot(this.J[k], this.J[k + 1]);
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
    let before = null;
    for (let k = 0; k < most; k++) {
      const here = this.direction(up, across);
      if (!here) break;
      const half = this.direction(up + 0.5 * step * here[0], across + 0.5 * step * here[1]);
      // a line that turns back within a step has come to where nothing flows in the plane
      if (!half || (before && before[0] * half[0] + before[1] * half[1] < 0)) break;
      before = half;
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

/** A coordinate in voxels from the first centre, no farther out than the centres are. */
function clamped(index, count) {
  return Math.min(Math.max(index, 0), count - 1);
}

/** Lines all over a sheet, each in the direction of J. apart : mm between two, about. */
export function currentLines(sheet, apart) {
  const step = Math.max(0.5 * Math.min(...sheet.spacing), (2 * Math.max(...sheet.extent)) / STEPS);
  const taken = new Taken(sheet.extent, apart / 2);
  const kept = [];
  for (const [up, across] of seeds(sheet, apart)) {
    if (!taken.free([up, across])) continue;
    const line = longestRun(sheet.line(up, across, step), (place) => taken.free(place));
    if ((line.length - 1) * step < SHORT * apart) continue;
    kept.push(line);
    line.forEach((place) => taken.take(place));
  }
  return kept;
}

/** Places all over the tissue, those first where most flows. */
function seeds(sheet, apart) {
  const counts = sheet.extent.map((size) => Math.max(2, Math.floor(size / apart)));
  const found = [];
  for (let a = 0; a < counts[0]; a++) {
    for (let b = 0; b < counts[1]; b++) {
      const up = ((a + 0.5) * sheet.extent[0]) / counts[0];
      const across = ((b + 0.5) * sheet.extent[1]) / counts[1];
      if (sheet.alive(up, across)) found.push([up, across, sheet.strength(up, across)]);
    }
  }
  return found.sort((a, b) => b[2] - a[2]);
}

/** Cells that lines have come to, or beside. */
class Taken {
  constructor(extent, cell) {
    this.cell = cell;
    this.width = Math.ceil(extent[1] / cell) + 3;
    this.cells = new Uint8Array((Math.ceil(extent[0] / cell) + 3) * this.width);
  }

  at([up, across]) {
    return (Math.floor(up / this.cell) + 1) * this.width + Math.floor(across / this.cell) + 1;
  }

  free(place) {
    return !this.cells[this.at(place)];
  }

  take(place) {
    const at = this.at(place);
    for (const row of [-this.width, 0, this.width]) this.cells.fill(1, at + row - 1, at + row + 2);
  }
}

/** The longest part of a line, in one piece, of which all is free. */
function longestRun(line, free) {
  let [first, length, start] = [0, 0, 0];
  line.forEach((place, k) => {
    if (!free(place)) start = k + 1;
    if (k + 1 - start > length) [first, length] = [start, k + 1 - start];
  });
  return line.slice(first, first + length);
}
