"use strict";
/* Page of one image's targets: which points learn which box, where boxes compete, and which boxes get no point. */

const state = {layer: "none", level: "all", strength: 0.9, chosen: null, point: null, contested: false, arms: true};
const ALARM = ["#ff1f0f", "#ffffff"];

data.boxes.forEach((box, index) => { box.index = index; });
const nameOf = (box) => `${box.index + 1} ${box.name}`;
const coloursOf = (box) => [box.colour, box.ink];
const sum = (values) => values.reduce((total, value) => total + value, 0);

function shownPoints() {
  return data.points.filter((mark) => (state.level === "all" || Number(state.level) === mark.level)
    && (!state.contested || mark.rivals.length)
    && (!state.chosen || mark.box === state.chosen.index || mark.rivals.includes(state.chosen.index)));
}

function heat() {
  if (state.layer === "none") return paint(null, null, 0);
  const of = (level) => level.values.centerness[0];
  if (state.level === "all") return paint(data.levels[0], highest(of), state.strength);
  const level = data.levels[Number(state.level)];
  return paint(level, of(level), state.strength);
}

/* --- drawing ---------------------------------------------------------------------------------------------------- */

function drawing() {
  clearDrawing();
  const chosen = state.chosen;
  for (const box of data.boxes) {
    const extra = {"stroke-opacity": chosen && box !== chosen ? 0.4 : 1};
    if (box.ignore) rectangle(box.box, ["#9aa0a6", "#000000"], 2, {...extra, "stroke-dasharray": "2 4"});
    else if (!box.orphan) rectangle(box.box, coloursOf(box), box === chosen ? 4 : 2, extra);
  }
  const marks = shownPoints();
  if (chosen && state.arms) {
    for (const mark of marks) if (mark.box === chosen.index) distances(mark.xy, mark.ltrb, "#ffffff", 1, 0.4);
  }
  marks.forEach(drawPoint);
  // last, on top of everything: boxes that the network does not learn
  for (const box of data.boxes.filter((other) => other.orphan)) {
    rectangle(box.box, ALARM, 4, {"stroke-dasharray": "10 6", class: "orphan"});
  }
  if (state.point) {
    distances(state.point.xy, state.point.ltrb, "#ffffff", 2, 1);
    drawPoint(state.point);
    numberDistances(state.point.xy, state.point.ltrb);
  }
  for (const box of chosen ? [chosen] : [...data.boxes].sort((a, b) => a.orphan - b.orphan)) {
    if (box.orphan) tag(box.box, `${nameOf(box)} · no point`, [], () => choose(box), "unassigned");
    else if (box === chosen || !box.ignore) tag(box.box, nameOf(box), coloursOf(box), () => choose(box));
  }
}

/* Dot in the winner's colour; if contested, with a rim in the colour of the smallest rival. */
function drawPoint(mark) {
  const size = 6 + 1.5 * mark.level;
  if (mark.rivals.length) {
    dot(mark.xy, "#ffffff", size + 9).classList.add("contested");
    dot(mark.xy, data.boxes[mark.rivals[0]].colour, size + 6);
  }
  dot(mark.xy, data.boxes[mark.box].colour, size).classList.add("positive");
}

function nearest(at) {
  const scale = $("#stage").clientWidth / WIDTH;
  const distance = ({xy: [x, y]}) => Math.hypot(x - at[0], y - at[1]) * scale;
  const [closest] = shownPoints().sort((a, b) => distance(a) - distance(b));
  return closest && distance(closest) < 16 ? closest : null;
}

function describe(mark) {
  if (!mark) return "Click a point or a box. A point with a rim is contested by several boxes; the smallest wins it.";
  const winner = data.boxes[mark.box], size = (box) => `${nameOf(box)} (${pixels(box.area)} px²)`;
  const start = `${data.levels[mark.level].name}, point (${mark.xy.map(pixels).join(", ")})`;
  const learns = `learns ${size(winner)} with centerness ${fixed(mark.centerness)}`;
  if (!mark.rivals.length) return `${start}: ${learns}.`;
  const rivals = mark.rivals.map((rival) => size(data.boxes[rival])).join(", ");
  return `${start}: ${learns}. Also contested by ${rivals}, which ${mark.rivals.length > 1 ? "are" : "is"} not smaller.`;
}

/* --- list and details ------------------------------------------------------------------------------------------- */

function choose(box) {
  state.chosen = box === state.chosen ? null : box;
  state.point = null;
  refresh();
}

function row(box) {
  const lost = sum(box.lost), won = sum(box.won);
  const text = box.ignore ? "ignored" : box.orphan ? box.reason : `${won} point${won === 1 ? "" : "s"}`
    + (lost ? `, ${lost} lost` : "");
  return make("li", {}, make(
    "button", {type: "button", class: box.orphan ? "alarm truth" : "truth", "aria-pressed": String(box === state.chosen),
               onclick: () => choose(box)},
    make("span", {class: "swatch", style: {background: box.colour}}), make("span", {}, nameOf(box)),
    make("small", {}, text)));
}

function list() {
  // boxes without a point first, ignored ones last
  const order = (a, b) => b.orphan - a.orphan || a.ignore - b.ignore || a.index - b.index;
  $("#boxes").replaceChildren(...[...data.boxes].sort(order).map(row));
}

function details() {
  const target = $("#details"), box = state.chosen;
  if (!box) {
    target.replaceChildren(make("p", {class: "note"}, "Select a box in the list or in the image to see its points."));
    return;
  }
  const [x1, y1, x2, y2] = box.box;
  const counts = (values) => data.levels.map((level, index) => [level.name, values[index]])
    .filter(([, count]) => count).map(([name, count]) => `${name}: ${count}`).join(", ") || "none";
  const losses = new Map();
  for (const mark of data.points) {
    if (mark.rivals.includes(box.index)) losses.set(mark.box, (losses.get(mark.box) ?? 0) + 1);
  }
  const winners = [...losses].map(([winner, count]) => `${count} to ${nameOf(data.boxes[winner])}`).join(", ");
  target.replaceChildren(make("h2", {}, nameOf(box)), facts([
    ["size", `${pixels(x2 - x1)} × ${pixels(y2 - y1)} px of network input`],
    ["points won", counts(box.won)], ["points lost", winners ? `${counts(box.lost)} (${winners})` : counts(box.lost)],
    ...(box.orphan ? [["no point", box.reason]] : []),
    ...(box.ignore ? [["ignored", "crowd or difficult, not learned"]] : []),
  ]));
}

function refresh() {
  drawing();
  list();
  details();
  $("#readout").textContent = describe(state.point);
}

/* --- page ------------------------------------------------------------------------------------------------------- */

function controls() {
  choice("Layer", "layer", [["none", "points"], ["centerness", "centerness"]], state.layer,
    (value) => { state.layer = value; heat(); });
  choice("Level", "level", [["all", "all"], ...data.levels.map((level, index) => [String(index), level.name])],
    state.level, (value) => { state.level = value; state.point = null; heat(); refresh(); });
  slider("Heat map opacity", "strength", {min: 0, max: 1, step: 0.05, value: state.strength},
    (value) => { state.strength = value; heat(); });
  $("#controls").append(make("div", {},
    check("show only contested points", "contested", false, (on) => { state.contested = on; drawing(); }),
    check("show the distances of the selected box's points", "arms", true, (on) => { state.arms = on; drawing(); })));
}

async function main() {
  showPicture();
  showLegend();
  const orphans = data.boxes.filter((box) => box.orphan).length;
  const contested = data.points.filter((mark) => mark.rivals.length).length;
  $("#panel").append(make("h2", {}, "Ground-truth boxes"),
    make("p", {class: orphans ? "note alarm" : "note", id: "count"},
      orphans ? `${orphans} ${orphans === 1 ? "box gets" : "boxes get"} no point` : "every box gets a point"),
    make("p", {class: "note"}, `${data.points.length} positive points, ${contested} of them contested by several boxes`),
    make("ol", {class: "boxes", id: "boxes"}), make("div", {id: "details"}));
  controls();
  await readLevels();
  heat();
  refresh();
  onResize(drawing);
  $("#drawing").addEventListener("click", (event) => {
    const at = place(event), area = ({box: [x1, y1, x2, y2]}) => (x2 - x1) * (y2 - y1);
    const mark = nearest(at);
    if (mark) {
      state.point = mark === state.point ? null : mark;
      refresh();
      return;
    }
    const under = data.boxes.filter((box) => inside(at, box.box)).sort((a, b) => area(a) - area(b));
    if (under.length) choose(under[0]);
  });
  document.body.dataset.ready = "yes";
}
main();
