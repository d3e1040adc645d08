// The page: what is asked for, by pointer, key or field, and what is shown of the answers.

import { Asking, Refusal, post } from "./asking.js";
import { Bar, Figure, MARGIN, fixed, unpacked } from "./figure.js";
import { keep, pictureOf } from "./picture.js";

const $ = (id) => document.getElementById(id);
const DECADES = 1.5;
const NAMES = { at: "electrode", returns: "return electrode", cut: "cross-hair" };
const MOVES = {
  ArrowUp: ["up", 1],
  ArrowDown: ["up", -1],
  ArrowRight: ["across", 1],
  ArrowLeft: ["across", -1],
  PageUp: ["normal", 1],
  PageDown: ["normal", -1],
};
/** Of the window, what the sections may have at most. */
const TALL = 0.78;
/** On a narrow screen the first section, which has a row of its own, is so much larger. */
const LARGER = 1.7;
/** Pixels that sections need beside each other. */
const LEAST = 240;

/** Moments of each question in ms: number, began (event), shown (painted), bounded (painted). */
const timings = [];

class Explorer {
  constructor(body) {
    this.body = body;
    this.scene = structuredClone(body.scene);
    this.good = structuredClone(body.scene);
    this.asking = new Asking({
      shown: (answer, question) => this.shown(answer, question),
      bounded: (answer, question) => this.bounded(answer, question),
      refused: (refusal, question) => this.refused(refusal, question),
    });
    this.figures = body.sections.map((axes) => new Figure(body, ...axes));
    this.bar = new Bar();
    $("first").append(this.figures[0].svg, this.bar.svg);
    $("sections").append(this.figures[1].svg, this.figures[2].svg);
    $("body-words").textContent = this.words = wordsOf(body);
    this.figures.forEach((figure) => this.listen(figure));
    this.controls();
    this.layout();
    new ResizeObserver(() => this.layout()).observe(document.querySelector("main"));
  }

  // --- what is asked

  get tool() {
    return document.querySelector("input[name=tool]:checked").value;
  }

  /** Change the scene, and ask for it. began : of the event, ms. */
  change(part, began) {
    this.scene = { ...this.scene, ...part };
    $("sections").classList.add("busy");
    this.placed();
    this.asking.ask(this.scene, began);
  }

  /** Move what is named to a place, [m, m, m]; the sections go along. */
  move(name, place, began) {
    this.change({ [name]: place, cut: place }, began);
  }

  /** Where what is named is, or would begin. */
  whereIs(name) {
    return this.scene[name] ?? this.scene.cut;
  }

  listen(figure) {
    const { svg } = figure;
    let dragged = null;
    let tapped = false;
    const to = (event, name) => {
      const [up, across] = figure.under(event);
      const place = [...(dragged === name && this.scene[name] ? this.scene[name] : this.scene.cut)];
      place[figure.up] = up / 1000;
      place[figure.across] = across / 1000;
      this.move(name, place.map(tidy), event.timeStamp);
    };
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const mark = event.target.closest(".mark");
      // a finger elsewhere may want to scroll: a tap places, a drag does not
      tapped = event.pointerType === "touch" && !mark;
      if (tapped || !figure.points) return;
      event.preventDefault();
      svg.focus({ focusVisible: false });
      svg.setPointerCapture(event.pointerId);
      dragged = mark ? mark.dataset.kind : this.tool;
      if (mark) this.use(dragged);
      else to(event, dragged);
    });
    svg.addEventListener("pointermove", (event) => {
      if (dragged) to(event, dragged);
      else this.read(figure, event);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      svg.addEventListener(name, () => (dragged = null));
    }
    svg.addEventListener("click", (event) => {
      if (tapped && figure.points) to(event, this.tool);
      tapped = false;
    });
    svg.addEventListener("keydown", (event) => this.key(figure, event));
  }

  key(figure, event) {
    const move = MOVES[event.key];
    if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const axis = figure[move[0]];
    const { mirrored, upside_down: upsideDown } = this.body.axes[axis];
    const turned = move[0] === "across" ? mirrored : upsideDown;
    const place = [...this.whereIs(this.tool)];
    place[axis] = tidy(place[axis] + move[1] * (turned ? -1 : 1) * this.body.spacing[axis]);
    this.move(this.tool, place, event.timeStamp);
  }

  use(tool) {
    document.querySelector(`input[name=tool][value=${tool}]`).checked = true;
    this.placed();
  }

  controls() {
    this.placeInputs = this.body.axes.map((axis, k) => {
      const label = document.createElement("label");
      const input = textInput(`${axis.name} in mm`);
      label.append(axis.name, input);
      $("place").append(label);
      input.size = 5;
      onNumber(input, (shown, began) => {
        const place = [...this.whereIs(this.tool)];
        place[k] = tidy(((shown - axis.origin) * axis.sign) / 1000);
        this.move(this.tool, place, began);
      });
      return input;
    });
    $("place").append("mm");
    onNumber($("current"), (mA, began) => this.change({ current: mA / 1000 }, began));
    this.tissueInputs = this.body.tissues.map((tissue, k) => this.slider(tissue, k));
    $("reset").addEventListener("click", (event) => {
      this.change({ sigma: [...this.body.scene.sigma] }, event.timeStamp);
      this.filled(true);
    });
    $("remove").addEventListener("click", (event) => {
      this.use("at");
      this.change({ returns: null }, event.timeStamp);
    });
    $("nearest").addEventListener("click", (event) => {
      const { electrode, nearest } = this.refusal;
      this.move(electrode, nearest, event.timeStamp);
      $("message").hidden = true;
    });
    $("close").addEventListener("click", () => ($("message").hidden = true));
    for (const radio of document.querySelectorAll("input[name=tool]")) {
      radio.addEventListener("change", () => this.placed());
    }
    for (const box of document.querySelectorAll("input[name=show]")) {
      box.addEventListener("change", () => this.layers());
    }
    for (const kind of this.body.exports) {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.kind = kind;
      button.textContent = kind;
      $("exports").append(button);
    }
    for (const button of $("exports").children) {
      button.addEventListener("click", () => this.export(button));
    }
    $("controls").addEventListener("submit", (event) => event.preventDefault());
    this.filled(true);
  }

  slider(tissue, k) {
    const row = document.createElement("div");
    row.className = "tissue";
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = tissue.name;
    const range = document.createElement("input");
    const middle = Math.log10(tissue.sigma[0]);
    Object.assign(range, { type: "range", step: 0.01 });
    Object.assign(range, { min: middle - DECADES, max: middle + DECADES, value: middle });
    range.setAttribute("aria-label", `conductivity of ${tissue.name}, logarithmic`);
    const input = textInput(`conductivity of ${tissue.name} in S/m`);
    const back = document.createElement("button");
    back.type = "button";
    back.textContent = "↺";
    back.title = `reset ${tissue.name}`;
    back.setAttribute("aria-label", back.title);
    row.append(name, range, input, back);
    const to = (value, began) => {
      const sigma = [...this.scene.sigma];
      sigma[k] = value;
      this.change({ sigma }, began);
    };
    range.addEventListener("input", (event) => {
      const value = Number((10 ** Number(range.value)).toPrecision(3));
      this.write(input, value);
      range.setAttribute("aria-valuetext", `${value} S/m`);
      to(value, event.timeStamp);
    });
    onNumber(input, (value, began) => {
      if (value > 0) range.value = Math.log10(value);
      to(value, began);
    });
    back.addEventListener("click", (event) => {
      to(tissue.sigma[0], event.timeStamp);
      this.filled(true);
    });
    $("tissues").append(row);
    const more = tissue.sigma.some((s) => s !== tissue.sigma[0]) && document.createElement("p");
    if (more) {
      more.className = "more";
      row.append(more);
    }
    return { range, input, more, tissue };
  }

  // --- what is shown

  /** Fields as the scene is. all : those too that hold what was refused. */
  filled(all = false) {
    const write = (input, value) => {
      if (all || input.getAttribute("aria-invalid") !== "true") this.write(input, value);
    };
    const place = this.scene[this.tool];
    this.placeInputs.forEach((input, k) => {
      const axis = this.body.axes[k];
      const shown = place && axis.origin + axis.sign * 1000 * place[k];
      write(input, place ? Number(shown.toFixed(2)) : "");
    });
    write($("current"), Number((1000 * this.scene.current).toPrecision(6)));
    this.tissueInputs.forEach(({ range, input, more, tissue }, k) => {
      const value = this.scene.sigma[k];
      write(input, Number(value.toPrecision(3)));
      range.value = Math.log10(value);
      if (!more) return;
      const along = tissue.sigma.slice(0, 3).map((s) => (s * value) / tissue.sigma[0]);
      const names = this.body.axes.map((axis) => axis.name);
      more.textContent = along.map((s, a) => `${names[a]} ${s.toPrecision(3)}`).join(", ");
    });
  }

  write(input, value) {
    if (document.activeElement === input && input.dataset.typing) return;
    input.value = String(value).replace("-", "−");
    input.removeAttribute("aria-invalid");
  }

  /** Marks and fields where the scene has them. */
  placed() {
    // what is no number is not drawn: it will be refused
    const mm = (name) => {
      const place = this.scene[name]?.every(Number.isFinite) ? this.scene[name] : this.good[name];
      return this.scene[name] && place && place.map((x) => 1000 * x);
    };
    const { returns } = this.scene;
    const places = { at: mm("at"), returns: mm("returns"), cut: mm("cut") };
    this.figures.forEach((figure) => figure.place(places));
    $("remove").disabled = !returns;
    this.figures.forEach((figure) => {
      const label = `${figure.name} section. Arrow keys move the ${NAMES[this.tool]}`;
      figure.svg.setAttribute("aria-label", `${label} by a voxel, Page Up and Down across.`);
    });
    this.filled();
  }

  shown(answer, question) {
    this.good = structuredClone(question.scene);
    if (!this.asking.waiting) {
      $("message").hidden = true;
      $("sections").classList.remove("busy");
      this.filled(true);
    }
    this.answer = answer;
    this.sayNumbers();
    $("bound").textContent = "…";
    this.drawn(question.scene);
    this.timed(question, "shown");
  }

  drawn(scene) {
    const colours = unpacked(this.answer.scale.colours);
    const electrodes = [scene.at, scene.returns].filter(Boolean).map((p) => p.map((x) => 1000 * x));
    this.answer.sections.forEach((section, k) => {
      this.figures[k].draw(section, colours, electrodes);
    });
    this.bar.draw(this.answer.scale, this.barWidth);
    this.layers();
  }

  sayNumbers() {
    const { numbers, here, notes } = this.answer;
    const residual = numbers.residual === null ? "–" : numbers.residual.toExponential(1);
    $("engine").textContent = `${numbers.engine}: ${numbers.why}`;
    $("residual").textContent =
      numbers.iterations === null
        ? residual
        : `${residual} after ${numbers.iterations} iterations (${numbers.tolerance} asked for)`;
    $("range").textContent = `${short(numbers.lowest)} to ${short(numbers.highest)} mV`;
    $("ends").textContent = WAYS_OUT[numbers.ends] ?? numbers.ends;
    const world = here.world
      ? `; ${here.world.map((x, k) => `${"RAS"[k]} ${fixed(x)}`).join(", ")} mm`
      : "";
    $("here").textContent =
      here.tissue === "air"
        ? `air, voxel ${here.voxel.join(", ")}${world}`
        : `${short(here.millivolts)} mV, |E| ${short(here.E)} V/m, |J| ${short(here.J)} A/m²,` +
          ` ${here.tissue}, voxel ${here.voxel.join(", ")}${world}`;
    $("notes").textContent = notes.join(" ");
  }

  bounded(answer, question) {
    const percent = 100 * answer.relative;
    this.boundWords =
      answer.relative === null ? `not bounded: ${answer.why}` : `at most ${short(percent)} % in energy`;
    $("bound").textContent = this.boundWords;
    if (!question) return;
    question.bound = answer;
    this.timed(question, "bounded");
  }

  /** When what was just set is on the screen. */
  timed(question, what) {
    requestAnimationFrame(() => {
      const after = new MessageChannel();
      after.port1.onmessage = () => {
        const now = performance.now();
        let timing = timings.find((t) => t.number === question.number);
        if (!timing) timings.push((timing = { number: question.number, began: question.began }));
        timing[what] = now;
        timing.seconds = this.answer.seconds;
        timing.bound = question.bound;
        this.sayTime(timing, question);
      };
      after.port2.postMessage(null);
    });
  }

  sayTime(timing, question) {
    if (question.number !== this.asking.count) return;
    const ms = (name) => `${Math.round(timing[name] - timing.began)} ms`;
    const solve = `solve ${Math.round(1000 * timing.seconds.solve)} ms`;
    const bound = timing.bounded ? `, with its bound after ${ms("bounded")}` : "";
    $("time").textContent = `${solve}; drawn ${ms("shown")} after the event${bound}`;
    if (!timing.bounded) return;
    const place = this.good.at.map((x, k) => {
      const axis = this.body.axes[k];
      return `${axis.name} ${fixed(axis.origin + axis.sign * 1000 * x)}`;
    });
    const { lowest, highest } = this.answer.numbers;
    $("status").textContent =
      `Electrode at ${place.join(", ")} mm: ${short(lowest)} to ${short(highest)} mV,` +
      ` error ${this.boundWords}.`;
  }

  /** What was refused is said; the last picture and its scene stay. */
  refused(refusal) {
    this.refusal = refusal;
    $("said").textContent = refusal.message;
    $("nearest").hidden = !refusal.nearest;
    $("message").hidden = false;
    $("sections").classList.remove("busy");
    this.mark(refusal);
    this.scene = structuredClone(this.good);
    this.placed();
  }

  /** The fields that hold what was refused keep it. */
  mark(refusal) {
    const wrong = (input) => input.setAttribute("aria-invalid", "true");
    if (refusal.electrode) return;
    if (this.scene.current !== this.good.current) wrong($("current"));
    this.tissueInputs.forEach(({ input }, k) => {
      if (this.scene.sigma[k] !== this.good.sigma[k]) wrong(input);
    });
  }

  /** The value under the pointer. */
  read(figure, event) {
    const place = figure.under(event);
    const value = figure.valueAt(place);
    if (value === null) return;
    const at = [figure.up, figure.across].map((axis, k) => {
      return `${this.body.axes[axis].name} ${fixed(figure.shownAt(axis, place[k]))}`;
    });
    $("reading").textContent = `${figure.name}, ${at.join(", ")} mm: ${short(value)} mV`;
  }

  layers() {
    const boxes = [...document.querySelectorAll("input[name=show]")];
    const shown = Object.fromEntries(boxes.map((box) => [box.value, box.checked]));
    this.figures.forEach((figure) => figure.show(shown));
  }

  /** One scale of px/mm for all sections: beside each other, or two rows on a narrow screen. */
  layout() {
    const wide = $("sections").clientWidth - 2;
    if (wide < LEAST || wide === this.wide) return;
    this.wide = wide;
    const rims = MARGIN.left + MARGIN.right;
    const [first, ...others] = this.figures;
    const widths = this.figures.map((figure) => figure.mm[figure.across]);
    const narrow = wide < 620;
    $("sections").classList.toggle("narrow", narrow);
    const across = widths.reduce((sum, width) => sum + width, narrow ? -widths[0] : 0);
    const room = wide - (narrow ? 2 : 3) * rims;
    const tall = Math.max(260, TALL * innerHeight - MARGIN.top - MARGIN.bottom);
    const scale = Math.min(room / across, tall / Math.max(...this.figures.map((figure) => figure.mm[figure.up])));
    others.forEach((figure) => figure.resize(scale));
    first.resize(narrow ? Math.min(LARGER * scale, (wide - rims) / widths[0]) : scale);
    const beside = narrow ? wide : widths[0] * scale + rims;
    this.barWidth = Math.max(Math.min(beside, 420), 200);
    if (this.answer) {
      this.drawn(this.good);
    }
    this.placed();
  }

  // --- what is taken along

  async export(button) {
    const { kind } = button.dataset;
    button.disabled = true;
    try {
      if (kind === "png") {
        keep(await pictureOf(this.figures, this.bar, this.caption()), "potential.png");
      } else {
        const reply = await post("export", { scene: this.good, kind });
        keep(await reply.blob(), `potential${kind}`);
      }
      $("status").textContent = `Exported: potential${kind === "png" ? ".png" : kind}.`;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.refused(error);
    } finally {
      button.disabled = false;
    }
  }

  caption() {
    const { numbers } = this.answer;
    const mm = (place) => place.map((x) => (1000 * x).toFixed(2)).join(", ");
    const { at, returns, current, sigma } = this.good;
    const back = returns ? `, out at (${mm(returns)})` : "";
    const tissues = this.body.tissues.map((t, k) => `${t.name} ${sigma[k].toPrecision(3)}`);
    return [
      `${this.words}. ${short(1000 * current)} mA in at (${mm(at)})${back} mm of the grid.`,
      `S/m along D: ${tissues.join(", ")}. ${numbers.engine}, residual` +
        ` ${numbers.residual?.toExponential(1) ?? "–"}; error ${this.boundWords ?? "not bounded"}.`,
    ];
  }
}

const WAYS_OUT = {
  grounded: "at the cut ends (0 V)",
  robin: "at the cut ends, into more tissue",
  sink: "evenly, through all tissue",
  pair: "at the return electrode",
};

/** What a body is. */
function wordsOf({ name, shape, spacing }) {
  const edges = spacing.map((h) => Number((1000 * h).toPrecision(3))).join(" × ");
  return `${name}: ${shape.join(" × ")} voxels of ${edges} mm`;
}

/** Three digits. */
function short(value) {
  const said = String(Number(Number(value).toPrecision(3)));
  return said.replace("-", "−");
}

/** m without the rounding of a division. */
function tidy(metres) {
  return Number(metres.toFixed(9));
}

function textInput(label) {
  const input = document.createElement("input");
  Object.assign(input, { type: "text", inputMode: "decimal", size: 7 });
  input.setAttribute("aria-label", label);
  return input;
}

/** Call work(number, ms) when a field was changed. What is no number goes on, to be refused. */
function onNumber(input, work) {
  input.addEventListener("input", () => (input.dataset.typing = "1"));
  input.addEventListener("blur", () => delete input.dataset.typing);
  input.addEventListener("change", (event) => {
    delete input.dataset.typing;
    const text = input.value.trim().replace("−", "-").replace(",", ".");
    const value = text === "" ? NaN : Number(text);
    if (Number.isFinite(value)) input.removeAttribute("aria-invalid");
    else input.setAttribute("aria-invalid", "true");
    work(value, event.timeStamp);
  });
}

async function start() {
  try {
    const reply = await post("about", {});
    const explorer = new Explorer(await reply.json());
    window.explorer = explorer;
    explorer.timings = timings;
    explorer.change({}, performance.now());
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    $("said").textContent = error.message;
    $("message").hidden = false;
  }
}

start();
