// index.html?model=ADDRESS&vectors=FOLDER compares the model with PyTorch, and finds objects in pictures you choose.
import {detect, openDetector} from "./fcos.js";
import {verify} from "./verify.js";

const byId = id => document.getElementById(id);
const parameters = new URLSearchParams(location.search);
const model = parameters.get("model") ?? "model.onnx";
const vectors = parameters.get("vectors") ?? "vectors";

async function showVerdict(detector) {
  const {passed, rows, problems, pictures} = await verify(detector, vectors);
  byId("rows").replaceChildren(...rows.map(cells => makeRow(cells)));
  byId("table").hidden = false;
  byId("problems").replaceChildren(...(passed ? [] : problems.slice(0, 8)).map(text => makeElement("li", text)));
  setVerdict(passed ? "passed" : "failed",
    passed ? `The same as PyTorch on ${pictures} images` : "This browser gives different results from PyTorch");
}

function setVerdict(state, text) {
  byId("verdict").dataset.state = state;
  byId("verdict").textContent = text;
}

function makeElement(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

function makeRow(cells) {
  const row = document.createElement("tr");
  row.append(...cells.map(text => makeElement("td", text)));
  return row;
}

// Decode the file (browsers turn photos upright), find objects, and draw them.
async function showPicture(detector, file) {
  const bitmap = await createImageBitmap(file, {colorSpaceConversion: "none"});
  const canvas = byId("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(bitmap, 0, 0);
  const found = await detect(detector, context.getImageData(0, 0, canvas.width, canvas.height));
  drawBoxes(context, detector, found);
  const names = found.map(({label, score, box}) =>
    `${detector.classes[label]} ${score.toFixed(2)} [${box.map(edge => edge.toFixed(1)).join(", ")}]`);
  byId("found").replaceChildren(...(names.length ? names : ["no objects"]).map(text => makeElement("li", text)));
}

function drawBoxes(context, detector, found) {
  const unit = Math.max(context.canvas.width, context.canvas.height) / 300;
  context.lineWidth = unit;
  context.font = `${6 * unit}px sans-serif`;
  context.textBaseline = "top";
  for (const {box: [x1, y1, x2, y2], label, score} of found) {
    const text = `${detector.classes[label]} ${score.toFixed(2)}`;
    context.fillStyle = context.strokeStyle = `hsl(${(label * 137) % 360} 85% 45%)`;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    context.fillRect(x1, y1, context.measureText(text).width + 2 * unit, 8 * unit);
    context.fillStyle = "white";
    context.fillText(text, x1 + unit, y1 + unit);
  }
}

function showError(error) {
  byId("error").textContent = error.message;
  byId("error").hidden = false;
}

try {
  const detector = await openDetector(model);
  byId("model").textContent = `${model}: ${detector.classes.join(", ")}`;
  byId("file").disabled = false;
  byId("file").addEventListener("change", event => {
    byId("error").hidden = true;
    showPicture(detector, event.target.files[0]).catch(showError);
  });
  await showVerdict(detector);
} catch (error) {
  setVerdict("failed", "The comparison did not run");
  showError(error);
}
