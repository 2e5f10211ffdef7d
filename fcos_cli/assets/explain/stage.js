"use strict";
/* Shared by both kinds of page: the image, a heat map over it and a drawing on top. Coordinates are in pixels of the
   network input; the viewBox of the drawing is the resized image, so no manual scaling is needed. */

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector) => document.querySelector(selector);
const [WIDTH, HEIGHT] = data.size;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") Object.assign(element.style, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function draw(tag, attributes, title) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "fill") element.style.fill = value;
    else element.setAttribute(name, value);
  }
  if (title) element.append(Object.assign(document.createElementNS(element.namespaceURI, "title"), {textContent: title}));
  $("#drawing").append(element);
  return element;
}

const fixed = (value, digits = 2) => value.toFixed(digits);
const pixels = (value) => String(Math.round(value));

/* --- image ------------------------------------------------------------------------------------------------------ */

function showPicture() {
  $("#subtitle").textContent = data.subtitle;
  $("#picture").src = data.picture;
  $("#stage").style.aspectRatio = `${data.source[0]} / ${data.source[1]}`;
  $("#stage").style.maxWidth = `calc(82vh * ${data.source[0] / data.source[1]})`;
  $("#drawing").setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
}

function place(event) {
  const frame = $("#stage").getBoundingClientRect();
  return [(event.clientX - frame.left) / frame.width * WIDTH, (event.clientY - frame.top) / frame.height * HEIGHT];
}

function inside([x, y], [x1, y1, x2, y2]) {
  return x >= x1 && x < x2 && y >= y1 && y < y2;
}

/* Outline with a contrasting rim, visible on any background. */
function rectangle([x1, y1, x2, y2], [colour, rim], width, extra = {}) {
  const shape = {x: x1, y: y1, width: x2 - x1, height: y2 - y1};
  draw("rect", {...shape, stroke: rim, "stroke-opacity": 0.45, "stroke-width": width + 2});
  return draw("rect", {...shape, stroke: colour, "stroke-width": width, ...extra});
}

/* Dot that stays round and keeps its size when the image is scaled: a line of almost no length with round ends. */
function dot([x, y], colour, size, extra = {}) {
  const path = `M${x} ${y}h0.001`;
  draw("path", {d: path, stroke: "#000000", "stroke-opacity": 0.7, "stroke-width": size + 2, "stroke-linecap": "round"});
  return draw("path", {d: path, stroke: colour, "stroke-width": size, "stroke-linecap": "round", ...extra});
}

function distances([x, y], [l, t, r, b], colour, width, opacity) {
  const path = `M${x - l} ${y}H${x + r}M${x} ${y - t}V${y + b}`;
  if (opacity === 1) draw("path", {d: path, stroke: "#000000", "stroke-opacity": 0.6, "stroke-width": width + 2});
  return draw("path", {d: path, stroke: colour, "stroke-width": width, "stroke-opacity": opacity, class: "arms"});
}

function numberDistances([x, y], [l, t, r, b]) {
  const clamp = (value, size) => Math.min(Math.max(value, 0.06 * size), 0.94 * size);
  const labels = [["l", l, x - l / 2, y], ["t", t, x, y - t / 2], ["r", r, x + r / 2, y], ["b", b, x, y + b / 2]];
  for (const [name, value, left, top] of labels) {
    const style = {left: `${clamp(left, WIDTH) / WIDTH * 100}%`, top: `${clamp(top, HEIGHT) / HEIGHT * 100}%`};
    $("#tags").append(make("span", {class: "distance", style}, `${name} ${pixels(value)}`));
  }
}

/* Label at the upper left corner of a box: above it if there is room, else inside. */
function tag([x1, y1], text, colours, onclick, kind = "") {
  const room = y1 / HEIGHT * $("#stage").clientHeight > 19;
  const [background, color] = colours;
  const style = {top: `${Math.max(y1, 0) / HEIGHT * 100}%`, ...(kind ? {} : {background, color})};
  if (x1 > 0.7 * WIDTH) style.right = `${Math.max(0, 1 - (x1 + 0.3 * WIDTH) / WIDTH) * 100}%`;
  else style.left = `${Math.max(x1, 0) / WIDTH * 100}%`;
  const label = make("button", {type: "button", class: `tag ${room ? "" : "inside"} ${kind}`, tabindex: -1, style, onclick});
  label.textContent = text;
  $("#tags").append(label);
}

function clearDrawing() {
  $("#drawing").replaceChildren();
  $("#tags").replaceChildren();
}

/* --- heat maps -------------------------------------------------------------------------------------------------- */

/* Values 0…255 of a mosaic: one grey pixel per point, maps of several classes side by side. */
async function readMosaic({uri, columns, count}, level) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = make("canvas", {width: image.width, height: image.height});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, image.width, image.height).data;
  return Array.from({length: count}, (_, index) => {
    const [left, top] = [index % columns * level.w, Math.floor(index / columns) * level.h];
    const values = new Uint8Array(level.w * level.h);
    for (let y = 0; y < level.h; y++) {
      for (let x = 0; x < level.w; x++) values[y * level.w + x] = rgba[4 * ((top + y) * image.width + left + x)];
    }
    return values;
  });
}

/* Set level.values = {kind: [values of each class]} for every level. */
async function readLevels() {
  for (const level of data.levels) {
    level.values = {};
    for (const [kind, mosaic] of Object.entries(level.maps)) level.values[kind] = await readMosaic(mosaic, level);
  }
}

/* Index into a level's values of the cell that contains [x, y]. */
function cell(level, [x, y]) {
  const column = Math.floor(x / level.spacing[0] - level.offset + 0.5);
  const row = Math.floor(y / level.spacing[1] - level.offset + 0.5);
  const limit = (value, size) => Math.min(Math.max(value, 0), size - 1);
  return limit(row, level.h) * level.w + limit(column, level.w);
}

function point(level, index) {
  return [(index % level.w + level.offset) * level.spacing[0],
          (Math.floor(index / level.w) + level.offset) * level.spacing[1]];
}

const RAMP = Array.from({length: 256}, (_, value) => {
  const at = value / 255 * (data.ramp.length - 1), low = Math.min(Math.floor(at), data.ramp.length - 2);
  return data.ramp[low].map((shade, channel) => shade + (at - low) * (data.ramp[low + 1][channel] - shade));
});

/* Paint values over the image. Colour and opacity both grow with the value, so low values do not hide the image. */
function paint(level, values, strength) {
  const canvas = $("#heat");
  canvas.hidden = $("#legend").hidden = values === null;
  $("#picture").classList.toggle("dim", values !== null);
  if (values === null) return;
  canvas.width = level.w;
  canvas.height = level.h;
  const context = canvas.getContext("2d", {willReadFrequently: true});  // a few thousand pixels need no GPU
  const image = context.createImageData(level.w, level.h);
  values.forEach((value, index) => {
    image.data.set(RAMP[value], 4 * index);
    image.data[4 * index + 3] = 255 * strength * Math.min(1, 0.12 + 2.2 * value / 255);
  });
  context.putImageData(image, 0, 0);
  const [dx, dy] = level.spacing;
  Object.assign(canvas.style, {
    left: `${(level.offset - 0.5) * dx / WIDTH * 100}%`, width: `${level.w * dx / WIDTH * 100}%`,
    top: `${(level.offset - 0.5) * dy / HEIGHT * 100}%`, height: `${level.h * dy / HEIGHT * 100}%`,
  });
}

/* Maximum over all levels at every point of the finest one. `of` returns the values of one level. */
function highest(of) {
  const finest = data.levels[0], values = new Uint8Array(finest.w * finest.h);
  for (const level of data.levels) {
    const own = of(level);
    for (let index = 0; index < values.length; index++) {
      values[index] = Math.max(values[index], own[cell(level, point(finest, index))]);
    }
  }
  return values;
}

function showLegend() {
  const context = $("#legend canvas").getContext("2d"), image = context.createImageData(256, 1);
  RAMP.forEach((colour, value) => image.data.set([...colour, 255], 4 * value));
  context.putImageData(image, 0, 0);
}

/* --- controls --------------------------------------------------------------------------------------------------- */

function choice(title, name, options, chosen, onchoice) {
  const row = make("div", {class: "choice"});
  for (const [value, text] of options) {
    const input = make("input", {type: "radio", name, value, checked: value === chosen});
    input.addEventListener("change", () => onchoice(value));
    row.append(make("label", {}, input, make("span", {}, text)));
  }
  $("#controls").append(make("fieldset", {id: `choose-${name}`}, make("legend", {}, title), row));
}

function slider(title, id, {min, max, step, value}, onslide) {
  const shown = make("output", {for: id}, fixed(value));
  const input = make("input", {type: "range", id, min, max, step, value});
  input.addEventListener("input", () => { shown.textContent = fixed(Number(input.value)); onslide(Number(input.value)); });
  const row = make("div", {}, make("label", {class: "label", for: id, style: {display: "block"}}, title), input, " ", shown);
  $("#controls").append(row);
  return row;
}

function check(title, id, checked, oncheck) {
  const input = make("input", {type: "checkbox", id, checked});
  input.addEventListener("change", () => oncheck(input.checked));
  return make("label", {style: {display: "block"}}, input, " ", title);
}

function facts(rows) {
  const list = make("dl");
  for (const [name, value] of rows) list.append(make("dt", {}, name), make("dd", {}, value));
  return list;
}

/* Redraw on resize, because label positions depend on the size of the stage. */
function onResize(redraw) {
  new ResizeObserver(() => requestAnimationFrame(redraw)).observe($("#stage"));
}
