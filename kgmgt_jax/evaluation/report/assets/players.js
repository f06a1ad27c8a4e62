"use strict";
// Cine players in step: reference, methods, error maps, and profiles along one line over time.
(() => {
  const get = (id) => document.getElementById(id);
  const examples = Array.from(document.querySelectorAll('script[id^="example-"]'));
  if (!examples.length) {
    get("cines").hidden = true;
    document.querySelector('nav a[href="#cines"]').hidden = true;
    return;
  }
  if (!Cine.readable()) {
    get("no-pixels").hidden = false;
    return;
  }

  const digits = JSON.parse(get("inferno").textContent);
  const inferno = Uint32Array.from({ length: 256 }, (_, i) => {
    const [r, g, b] = [0, 2, 4].map((k) => parseInt(digits.slice(6 * i + k, 6 * i + k + 2), 16));
    return (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  });
  const MASK_ROWS = 64;
  const onOff = Uint32Array.from({ length: 256 }, (_, i) => (i > 127 ? 0xffe7eaee : 0xff1d222a) >>> 0);

  const state = { example: null, frame: 0, view: "0", zoom: "whole", gain: 5, brightness: 1, line: 0, loading: 0 };
  let cards = [];
  const clock = Cine.clock(() => go(state.frame + 1));

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text) made.textContent = text;
    return made;
  }

  function pane(parent, className, about, note) {
    const box = element("div", `pane ${className}`), canvas = element("canvas", className);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", about);
    box.append(canvas);
    if (note) box.append(element("span", "", note));
    parent.append(box);
    return { box, canvas };
  }

  function card(example, label, frames, other, main) {
    const figure = element("figure", main ? "card main" : "card"), caption = element("figcaption", "", label);
    const stack = element("div", "stack");
    figure.append(caption, stack);
    const made = { frames, error: null, mask: null, mark: element("i") };
    const image = pane(stack, "image", `${label}, cine of ${example.name}`);
    image.canvas.addEventListener("click", (event) => {
      const [, , x0, x1] = box();
      const area = image.canvas.getBoundingClientRect();
      setLine(x0 + Math.floor(((event.clientX - area.left) / area.width) * (x1 - x0)));
    });
    made.image = image.canvas;
    if (other.reference) made.error = pane(stack, "error", `Error of ${label}`, "error").canvas;
    if (other.mask) made.mask = pane(stack, "mask", "Samples measured, centre of k-space", "samples").canvas;
    const profile = pane(stack, "profile", `${label} along the line over time`);
    profile.box.append(made.mark);
    made.profile = profile.canvas;
    made.score = element("div", "score");
    figure.append(made.score);
    get("cards").append(figure);
    return made;
  }

  async function load(number) {
    const ticket = (state.loading += 1);
    const example = JSON.parse(examples[number].textContent);
    const sprites = [example.reference, example.mask, ...example.methods.map((m) => m.sprite)];
    const decoded = await Promise.all(sprites.map((sprite) => sprite && Cine.decode(sprite)));
    if (ticket !== state.loading) return; // another one was chosen meanwhile
    const [reference, mask, ...methods] = decoded;
    const size = example.methods[0].sprite;
    Object.assign(state, { example, reference, mask, size });
    get("cards").replaceChildren();
    cards = reference ? [card(example, "reference", reference, { mask })] : [];
    example.methods.forEach((method, index) => {
      const made = card(example, method.label, methods[index], { reference }, method.main);
      made.method = index;
      cards.push(made);
    });
    get("simulated").textContent = example.simulation;
    get("frame").max = size.t - 1;
    get("line").max = size.w - 1;
    get("player").dataset.example = example.name;
    state.line = example.line.column;
    get("line").value = state.line;
    go(Math.min(state.frame, size.t - 1));
    drawAll();
  }

  function box() {
    return state.zoom === "heart" ? state.example.box : [0, state.size.h, 0, state.size.w];
  }

  function greys() {
    return Cine.grey(255 / (state.example.headroom * state.brightness));
  }

  function drawFrame() {
    const { size, frame, reference, example } = state;
    const [y0, y1, x0, x1] = box(), table = greys(), height = y1 - y0, width = x1 - x0;
    const start = frame * size.h * size.w;
    const at = (y, x) => start + (y + y0) * size.w + x + x0;
    const scale = example.headroom * state.gain;
    const ratio = `${width} / ${height * example.aspect}`;
    for (const made of cards) {
      for (const canvas of [made.image, made.error]) {
        if (canvas) canvas.style.aspectRatio = ratio;
      }
      Cine.paint(made.image, height, width, table, (y, x) => made.frames[at(y, x)]);
      if (made.error) {
        Cine.paint(made.error, height, width, inferno, (y, x) => {
          const i = at(y, x);
          return Math.min(255, Math.round(scale * Math.abs(made.frames[i] - reference[i])));
        });
      }
      if (made.mask) drawMask(made.mask, start, ratio);
      drawLine(made.image, width, x0);
      made.mark.style.left = `${(100 * frame) / size.t}%`;
      made.mark.style.width = `${100 / size.t}%`;
    }
  }

  // The centre of k-space, few enough lines to tell them apart.
  function drawMask(canvas, start, ratio) {
    const { h, w } = state.size, rows = Math.min(h, MASK_ROWS), columns = Math.min(w, MASK_ROWS);
    const y0 = (h >> 1) - (rows >> 1), x0 = (w >> 1) - (columns >> 1);
    canvas.style.aspectRatio = ratio;
    Cine.paint(canvas, rows, columns, onOff, (y, x) => state.mask[start + (y + y0) * w + x + x0]);
  }

  function drawLine(canvas, width, x0) {
    const { start, stop } = state.example.line, [y0, y1] = box(), x = state.line - x0;
    if (x < 0 || x >= width) return;
    const context = canvas.getContext("2d");
    context.fillStyle = "rgba(92, 195, 245, 0.55)";
    const top = Math.max(start, y0), bottom = Math.min(stop, y1);
    context.fillRect(x, top - y0, 1, bottom - top);
  }

  function drawProfiles() {
    const { size, line } = state, table = greys();
    const start = Math.max(state.example.line.start, box()[0]), stop = Math.min(state.example.line.stop, box()[1]);
    for (const made of cards) {
      Cine.paint(made.profile, stop - start, size.t, table, (y, t) => made.frames[(t * size.h + y + start) * size.w + line]);
    }
  }

  function drawScores() {
    const found = state.example.scores, view = state.view in found ? state.view : Object.keys(found)[0];
    get("score-preset").textContent = view === undefined ? "" : `, ${get("view").options[view].text}`;
    for (const made of cards) {
      const scores = view !== undefined && made.method !== undefined && found[view][made.method];
      if (!scores || !scores.psnr) continue;
      const pick = (values) => values[Math.min(state.frame, values.length - 1)];
      made.score.textContent = `${pick(scores.psnr)} dB · SSIM ${pick(scores.ssim)}`;
    }
  }

  function drawAll() {
    drawFrame();
    drawProfiles();
    drawScores();
  }

  function go(frame) {
    const n = state.size.t;
    state.frame = ((frame % n) + n) % n;
    const slider = get("frame");
    slider.value = state.frame;
    get("frame-text").textContent = `frame ${state.frame + 1} of ${n}`;
    slider.setAttribute("aria-valuetext", `frame ${state.frame + 1} of ${n}`);
    get("player").dataset.frame = state.frame;
    drawFrame();
    drawScores();
  }

  function setLine(column) {
    state.line = Math.max(0, Math.min(state.size.w - 1, column));
    get("line").value = state.line;
    drawFrame();
    drawProfiles();
  }

  function play(on) {
    if (on) clock.start(); else clock.stop();
    get("play").textContent = on ? "Pause" : "Play";
    get("play").setAttribute("aria-pressed", String(on));
  }

  function setGain() {
    state.gain = Number(get("gain").value);
    get("gain-text").textContent = `${state.gain} ×`;
    get("bar-text").textContent = `0 to ${+(100 / state.gain).toPrecision(3)} % of white`;
  }

  function onInput(id, change) {
    get(id).addEventListener("input", () => { change(get(id)); if (state.example) drawAll(); });
  }

  get("example").addEventListener("change", () => load(Number(get("example").value)));
  get("play").addEventListener("click", () => play(!clock.running));
  get("frame").addEventListener("input", () => { play(false); go(Number(get("frame").value)); });
  get("speed").addEventListener("change", () => { clock.rate = Number(get("speed").value); });
  onInput("zoom", (input) => { state.zoom = input.value; });
  onInput("brightness", (input) => { state.brightness = Number(input.value); });
  onInput("gain", setGain);
  get("line").addEventListener("input", () => setLine(Number(get("line").value)));
  document.addEventListener("viewchange", (event) => {
    state.view = event.detail;
    if (state.example) drawScores();
  });
  document.addEventListener("keydown", (event) => {
    if (!state.example || event.ctrlKey || event.metaKey || event.altKey) return;
    if (Cine.takesKeys(event.target, event.key)) return;
    if (event.key === " ") play(!clock.running);
    else if (event.key === "ArrowRight") { play(false); go(state.frame + 1); }
    else if (event.key === "ArrowLeft") { play(false); go(state.frame - 1); }
    else return;
    event.preventDefault();
  });

  state.view = get("view").value || "0";
  setGain();
  Cine.paint(get("bar"), 1, 256, inferno, (y, x) => x);
  get("player").hidden = false;
  load(0).then(() => {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    new IntersectionObserver(([entry], observer) => { // plays once it is seen
      if (entry.isIntersecting) { observer.disconnect(); play(true); }
    }, { threshold: 0.1 }).observe(get("cards"));
  });
})();
