"use strict";
// Cines out of pictures: three frames are the colours of one cell; see sprites.py.
const Cine = {
  /** All frames of a sprite as grey levels, Uint8Array (t, h, w). */
  async decode(sprite) {
    const image = new Image();
    image.src = sprite.src;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const { t, h, w, columns } = sprite;
    const frames = new Uint8Array(t * h * w);
    for (let cell = 0; cell * 3 < t; cell += 1) {
      const x = (cell % columns) * w, y = Math.floor(cell / columns) * h;
      const colours = context.getImageData(x, y, w, h).data;
      for (let channel = 0; channel < 3 && cell * 3 + channel < t; channel += 1) {
        const start = (cell * 3 + channel) * h * w;
        for (let pixel = 0; pixel < h * w; pixel += 1) frames[start + pixel] = colours[4 * pixel + channel];
      }
    }
    return frames;
  },

  /** Whether pixels come back as they were drawn, which some browsers prevent. */
  readable() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 4;
    const context = canvas.getContext("2d");
    context.fillStyle = "rgb(12, 123, 234)";
    context.fillRect(0, 0, 4, 4);
    const data = context.getImageData(0, 0, 4, 4).data;
    return data.every((value, index) => Math.abs(value - [12, 123, 234, 255][index % 4]) <= 1);
  },

  /** 256 little-endian RGBA words of a grey scale that is white at level `white`. */
  grey(white) {
    return Uint32Array.from({ length: 256 }, (_, level) => {
      const value = Math.min(255, Math.round((255 * level) / white));
      return (0xff000000 | (value << 16) | (value << 8) | value) >>> 0;
    });
  },

  /** Draws pixels(y, x) -> level, through a table of 256 colours, at one canvas pixel each. */
  paint(canvas, height, width, table, level) {
    if (canvas.height !== height || canvas.width !== width) {
      canvas.height = height;
      canvas.width = width;
    }
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const words = new Uint32Array(image.data.buffer);
    for (let y = 0, index = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1, index += 1) words[index] = table[level(y, x)];
    }
    context.putImageData(image, 0, 0);
  },

  /** Calls step() at a rate while running; the rate may change. */
  clock(step) {
    let running = false, last = 0, rate = 12;
    function tick(now) {
      if (!running) return;
      if (now - last >= 1000 / rate) {
        last = now - last > 2000 / rate ? now : last + 1000 / rate;
        step();
      }
      requestAnimationFrame(tick);
    }
    return {
      get running() { return running; },
      set rate(value) { rate = value; },
      start() {
        if (running) return;
        running = true;
        last = performance.now();
        requestAnimationFrame(tick);
      },
      stop() { running = false; },
    };
  },

  /** Whether a key pressed on this element means something to the element itself. */
  takesKeys(element, key) {
    const tag = element.tagName;
    if (tag === "SELECT" || tag === "TEXTAREA") return true;
    if (tag === "INPUT") return element.type !== "range" || key !== " ";
    return key === " " && (tag === "BUTTON" || tag === "A" || tag === "SUMMARY");
  },
};
