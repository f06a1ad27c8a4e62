"use strict";
// One cine at a time, three scores each, into a file. Nothing here knows cases or methods.
(() => {
  const get = (id) => document.getElementById(id);
  const kit = JSON.parse(get("kit").textContent);
  const criteria = Array.from(document.querySelectorAll("fieldset[data-criterion]"));
  const names = criteria.map((field) => field.dataset.criterion);
  const record = { format: kit.format, kit: kit.kit, reader: "", started: "", saved: "", scores: {} };
  const state = { number: 0, item: null, frames: null, size: null, frame: 0, shown: 0, saved: true, loading: 0 };
  let order = []; // of the cines, by position
  const clock = Cine.clock(() => go(state.frame + 1));

  if (!Cine.readable()) {
    get("no-pixels").hidden = false;
    get("intro").hidden = true;
    return;
  }
  get("count").textContent = kit.n;

  // Kept for a reader who closes the page; a browser may refuse, and the file is what counts.
  const shelf = () => `cine-reading-${kit.kit}-${record.reader}`;
  function keep() {
    try { localStorage.setItem(shelf(), JSON.stringify(record)); } catch { /* no storage here */ }
  }
  function recall() {
    try { return JSON.parse(localStorage.getItem(shelf())); } catch { return null; }
  }

  // Each reader has an order of their own, the same on every visit: no cine comes late for all.
  function shuffled() {
    const rank = (number) => {
      let hash = 2166136261;
      for (const letter of `${kit.kit} ${record.reader} ${number}`) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
      for (const [shift, factor] of [[16, 0x85ebca6b], [13, 0xc2b2ae35]]) hash = Math.imul(hash ^ (hash >>> shift), factor);
      return (hash ^ (hash >>> 16)) >>> 0;
    };
    const ranks = Array.from({ length: kit.n }, (_, number) => rank(number));
    return ranks.map((_, number) => number).sort((a, b) => ranks[a] - ranks[b] || a - b);
  }

  const complete = (item) => names.every((name) => (record.scores[item] || {})[name]);
  const nDone = () => Object.keys(record.scores).filter(complete).length;

  async function open(number) {
    if (number < 0 || number >= kit.n) return;
    const ticket = (state.loading += 1);
    const entry = JSON.parse(get(`item-${order[number]}`).textContent);
    const frames = await Cine.decode(entry.cine);
    if (ticket !== state.loading) return;
    Object.assign(state, { number, item: entry.item, frames, size: entry.cine, shown: performance.now() });
    const given = record.scores[entry.item] || {};
    criteria.forEach((field) => {
      for (const input of field.querySelectorAll("input")) input.checked = Number(input.value) === given[field.dataset.criterion];
    });
    get("cine").style.setProperty("--ratio", state.size.w / (state.size.h * entry.aspect));
    get("frame").max = state.size.t - 1;
    Object.assign(get("desk").dataset, { number, item: entry.item });
    get("position").textContent = `Cine ${number + 1} of ${kit.n}`;
    get("previous").disabled = number === 0;
    get("next").disabled = number === kit.n - 1;
    go(0);
    progress();
  }

  function progress() {
    const done = nDone();
    get("done").max = kit.n;
    get("done").value = done;
    get("done-text").textContent = `${done} of ${kit.n} scored`;
    const given = record.scores[state.item] || {};
    const active = names.find((name) => !given[name]);
    criteria.forEach((field) => field.classList.toggle("active", field.dataset.criterion === active));
  }

  function go(frame) {
    const n = state.size.t;
    state.frame = ((frame % n) + n) % n;
    get("frame").value = state.frame;
    get("frame-text").textContent = `frame ${state.frame + 1} of ${n}`;
    draw();
  }

  function draw() {
    const { h, w } = state.size, start = state.frame * h * w;
    const table = Cine.grey(255 / (kit.headroom * Number(get("brightness").value)));
    Cine.paint(get("cine"), h, w, table, (y, x) => state.frames[start + y * w + x]);
  }

  function play(on) {
    if (on) clock.start(); else clock.stop();
    get("play").textContent = on ? "Pause" : "Play";
    get("play").setAttribute("aria-pressed", String(on));
  }

  function score(name, value) {
    const scores = (record.scores[state.item] ||= {});
    scores[name] = value;
    scores.seconds = (scores.seconds || 0) + Math.round(performance.now() - state.shown) / 1000;
    state.shown = performance.now();
    state.saved = false;
    get("save-text").textContent = "";
    keep();
    progress();
  }

  function save() {
    record.saved = new Date().toISOString();
    const link = document.createElement("a");
    const text = JSON.stringify(record, null, 2) + "\n";
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `reading-${record.reader.replace(/[^\p{L}\p{N}_-]+/gu, "_")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    state.saved = true;
    const left = kit.n - nDone();
    get("save-text").textContent = left ? `Saved; ${left} cines are not scored yet.` : "Saved. Thank you.";
  }

  get("intro").addEventListener("submit", (event) => {
    event.preventDefault();
    record.reader = get("reader").value.trim();
    if (!record.reader) return;
    record.started = new Date().toISOString();
    const earlier = recall();
    if (earlier && earlier.kit === kit.kit) Object.assign(record, { started: earlier.started, scores: earlier.scores });
    order = shuffled();
    get("intro").hidden = true;
    get("desk").hidden = false;
    get("position").focus();
    open(0).then(() => play(!matchMedia("(prefers-reduced-motion: reduce)").matches));
  });
  get("scores").addEventListener("submit", (event) => event.preventDefault());
  for (const field of criteria) {
    field.addEventListener("change", (event) => score(field.dataset.criterion, Number(event.target.value)));
  }
  get("previous").addEventListener("click", () => open(state.number - 1));
  get("next").addEventListener("click", () => open(state.number + 1));
  get("save").addEventListener("click", save);
  get("play").addEventListener("click", () => play(!clock.running));
  get("frame").addEventListener("input", () => { play(false); go(Number(get("frame").value)); });
  get("brightness").addEventListener("input", draw);
  get("speed").addEventListener("change", () => { clock.rate = Number(get("speed").value); });
  addEventListener("beforeunload", (event) => { if (!state.saved) event.preventDefault(); });

  document.addEventListener("keydown", (event) => {
    if (!state.item || event.ctrlKey || event.metaKey || event.altKey) return;
    const radio = event.target.type === "radio";
    if (!radio && Cine.takesKeys(event.target, event.key)) return;
    if (/^[1-5]$/.test(event.key)) {
      const field = radio ? event.target.closest("fieldset") : criteria.find((f) => f.classList.contains("active"));
      const input = field && field.querySelector(`input[value="${event.key}"]`);
      if (!input) return;
      input.checked = true;
      score(field.dataset.criterion, Number(event.key));
    } else if (event.key === " ") play(!clock.running);
    else if (event.key === "Enter") { if (event.target.tagName !== "BUTTON" && complete(state.item)) open(state.number + 1); else return; }
    else if (event.key === "PageDown") open(state.number + 1);
    else if (event.key === "PageUp") open(state.number - 1);
    else if (!radio && event.key === "ArrowRight") { play(false); go(state.frame + 1); }
    else if (!radio && event.key === "ArrowLeft") { play(false); go(state.frame - 1); }
    else return;
    event.preventDefault();
  });
})();
