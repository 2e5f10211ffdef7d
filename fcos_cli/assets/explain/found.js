"use strict";
/* Page of one image's detections: heat maps by level and class, boxes above a threshold, and their voters. */

const LABELLED = 12;
const state = {layer: "score", level: "all", class: "best", own: data.threshold === null, threshold: data.threshold,
               strength: 0.9, chosen: null, arms: true, voter: null};

function threshold(index) {
  return state.own ? data.classes[index].threshold : state.threshold;
}

function shown() {
  return data.detections.filter((found) => found.score >= threshold(found.class)
    && (state.class === "best" || Number(state.class) === found.class));
}

const nameOf = (found) => data.classes[found.class].name;
const coloursOf = (found) => [data.classes[found.class].colour, data.classes[found.class].ink];

/* --- heat ------------------------------------------------------------------------------------------------------- */

const bestCache = new Map();

/* Values of the selected layer at one level; for the best class, the maximum over all classes at each point. */
function valuesOf(level) {
  const maps = level.values[state.layer];
  if (maps.length === 1) return maps[0];
  if (state.class !== "best") return maps[Number(state.class)];
  const key = `${level.name} ${state.layer}`;
  if (!bestCache.has(key)) {
    bestCache.set(key, maps.reduce((most, values) => most.map((value, index) => Math.max(value, values[index]))));
  }
  return bestCache.get(key);
}

function heat() {
  if (state.layer === "none") return paint(null, null, 0);
  if (state.level === "all") return paint(data.levels[0], highest(valuesOf), state.strength);
  const level = data.levels[Number(state.level)];
  return paint(level, valuesOf(level), state.strength);
}

function readOut(at) {
  const levels = state.level === "all" ? data.levels : [data.levels[Number(state.level)]];
  let best = null;
  for (const level of levels) {
    const index = cell(level, at);
    level.values.score.forEach((values, number) => {
      if (state.class !== "best" && number !== Number(state.class)) return;
      if (best === null || values[index] > best.score) best = {level, index, number, score: values[index]};
    });
  }
  const {level, index, number, score} = best;
  const share = (value) => fixed(value / 255);
  const [x, y] = point(level, index);
  $("#readout").textContent = `${level.name}, point (${pixels(x)}, ${pixels(y)}): ${data.classes[number].name} `
    + `${share(level.values.class[number][index])}, centerness ${share(level.values.centerness[0][index])}, `
    + `score ${share(score)}`;
}

/* --- boxes and votes -------------------------------------------------------------------------------------------- */

function drawing() {
  clearDrawing();
  const boxes = shown();
  for (const found of [...boxes].reverse()) {
    if (found === state.chosen) continue;
    rectangle(found.box, coloursOf(found), 2, {"stroke-opacity": state.chosen ? 0.45 : 1});
  }
  if (state.chosen) drawVotes(state.chosen);
  const labelled = state.chosen ? [state.chosen] : boxes.slice(0, LABELLED);
  for (const found of [...labelled].reverse()) {
    const text = `${nameOf(found)} ${fixed(found.score)} · ${data.levels[found.level].name}`;
    tag(found.box, text, coloursOf(found), () => choose(found));
  }
}

function drawVotes(found) {
  const [colour] = coloursOf(found);
  rectangle(found.box, coloursOf(found), 3);
  const voters = state.voter === null ? found.votes : [found.votes[state.voter]];
  if (state.arms) {
    for (const vote of voters.slice(1)) distances(vote.xy, vote.ltrb, "#ffffff", 1, 0.4);
  }
  const leader = state.voter ?? 0, {xy, ltrb} = found.votes[leader];
  if (state.voter > 0) {
    const [[x, y], [l, t, r, b]] = [xy, ltrb];
    rectangle([x - l, y - t, x + r, y + b], coloursOf(found), 2, {"stroke-dasharray": "6 4"});
  }
  distances(xy, ltrb, "#ffffff", 2, 1);
  found.votes.forEach((vote, index) => {
    const mark = dot(vote.xy, index === 0 ? "#ffffff" : colour, index === leader ? 11 : 4 + 5 * vote.score);
    mark.classList.add("voter");
  });
  numberDistances(xy, ltrb);
}

function list() {
  const boxes = shown(), rows = $("#boxes");
  rows.replaceChildren(...boxes.map((found) => make("li", {}, make(
    "button", {type: "button", "aria-pressed": String(found === state.chosen), onclick: () => choose(found)},
    make("span", {class: "swatch", style: {background: coloursOf(found)[0]}}),
    make("span", {}, nameOf(found)), make("span", {}, fixed(found.score)),
    make("small", {}, data.levels[found.level].name),
    make("small", {}, `${found.votes.length} ${found.votes.length === 1 ? "vote" : "votes"}`)))));
  $("#count").textContent = `${boxes.length} of ${data.detections.length} boxes`;
}

function choose(found) {
  state.chosen = found === state.chosen ? null : found;
  state.voter = null;
  refresh();
}

function details() {
  const target = $("#details"), found = state.chosen;
  if (!found) {
    target.replaceChildren(make("p", {class: "note"}, "Select a box in the list or in the image to see the points "
      + "that voted for it and their four distances."));
    return;
  }
  const [first] = found.votes;
  const perLevel = data.levels.map((level, index) => [level.name, found.votes.filter((v) => v.level === index).length])
    .filter(([, count]) => count).map(([name, count]) => `${name}: ${count}`).join(", ");
  const rule = data.rule === "sqrt" ? "√(class · centerness)" : "class · centerness";
  const source = found.box.map((value, index) => pixels(value * data.source[index % 2] / data.size[index % 2]));
  target.replaceChildren(
    make("h2", {}, `${nameOf(found)} ${fixed(found.score, 3)}`),
    facts([
      ["from", `${data.levels[found.level].name} (stride ${data.levels[found.level].stride}), `
        + `point (${first.xy.map(pixels).join(", ")})`],
      ["score", `${rule} = ${fixed(found.score)} (class ${fixed(first.probability)}, centerness ${fixed(first.centerness)})`],
      ["l, t, r, b", `${first.ltrb.map(pixels).join(", ")} px of network input`],
      ["box", `${source.join(", ")} in the image (x1, y1, x2, y2)`],
      ["votes", `${found.votes.length} points (${perLevel}): its own, and those whose boxes overlap it with IoU > ${data.iou}`],
    ]), voteTable(found));
}

function voteTable(found) {
  const body = make("tbody");
  found.votes.forEach((vote, index) => {
    const cells = [data.levels[vote.level].name, vote.xy.map(pixels).join(", "), fixed(vote.probability),
                   fixed(vote.centerness), fixed(vote.score), fixed(vote.iou), ...vote.ltrb.map(pixels)];
    const row = make("tr", {class: state.voter === index && "chosen"}, ...cells.map((text) => make("td", {}, text)));
    row.addEventListener("click", () => {
      state.voter = state.voter === index ? null : index;
      for (const other of body.children) other.classList.toggle("chosen", state.voter !== null && other === row);
      drawing();
    });
    body.append(row);
  });
  const heads = ["level", "point", "class", "center.", "score", "IoU", "l", "t", "r", "b"];
  const head = make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", {scope: "col"}, text))));
  return make("div", {class: "scroll", tabindex: 0}, make("table", {}, head, body));
}

function refresh() {
  if (state.chosen && !shown().includes(state.chosen)) state.chosen = state.voter = null;
  drawing();
  list();
  details();
}

/* --- page ------------------------------------------------------------------------------------------------------- */

function controls() {
  choice("Layer", "layer", [["score", "score"], ["class", "class"], ["centerness", "centerness"], ["none", "image"]],
    state.layer, (value) => { state.layer = value; heat(); });
  choice("Level", "level", [["all", "all"], ...data.levels.map((level, index) => [String(index), level.name])],
    state.level, (value) => { state.level = value; heat(); });
  const pick = make("select", {id: "class"}, make("option", {value: "best"}, "best class"),
    ...data.classes.map(({name}, index) => make("option", {value: index}, name)));
  pick.addEventListener("change", () => { state.class = pick.value; heat(); refresh(); });
  $("#controls").append(make("div", {}, make("label", {class: "label", for: "class", style: {display: "block"}}, "Class"),
    pick));
  const start = data.threshold ?? Math.min(...data.classes.map((entry) => entry.threshold));
  const row = slider("Score threshold", "threshold", {min: data.lowest, max: 1, step: 0.01, value: start}, (value) => {
    state.own = false;
    state.threshold = value;
    $("#own").checked = false;
    refresh();
  });
  row.append(check("use the model's thresholds per class", "own", state.own, (on) => {
    state.own = on;
    state.threshold = Number($("#threshold").value);
    refresh();
  }));
  slider("Heat map opacity", "strength", {min: 0, max: 1, step: 0.05, value: state.strength},
    (value) => { state.strength = value; heat(); });
  $("#controls").append(check("show the distances of all voters", "arms", state.arms, (on) => { state.arms = on; drawing(); }));
}

async function main() {
  showPicture();
  showLegend();
  $("#panel").append(make("h2", {}, "Detections"), make("p", {class: "note", id: "count"}),
    make("ol", {class: "boxes", id: "boxes"}), make("div", {id: "details"}));
  controls();
  $("#readout").textContent = "Hover over the image to read its values.";
  await readLevels();
  heat();
  refresh();
  onResize(drawing);
  $("#stage").addEventListener("pointermove", (event) => readOut(place(event)));
  $("#drawing").addEventListener("click", (event) => {
    const at = place(event), area = ({box: [x1, y1, x2, y2]}) => (x2 - x1) * (y2 - y1);
    const under = shown().filter((found) => inside(at, found.box)).sort((a, b) => area(a) - area(b));
    if (under.length) choose(under[0]);
    readOut(at);
  });
  document.body.dataset.ready = "yes";
}
main();
