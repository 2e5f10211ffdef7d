// Does a page find what PyTorch found? The vectors are a folder of `fcos verify MODEL.onnx --save FOLDER`.

// Run the detector on all vectors. Returns {passed, rows: [quantity, measured, allowed], problems, pictures}.
export async function verify(detector, folder) {
  const index = await load(`${folder}/vectors.json`).then(response => response.json());
  if (index.classes.length !== detector.classes.length) throw new Error("the vectors are of another model");
  const result = {matched: 0, sure: 0, missing: 0, excused: 0, px: [], scores: [], problems: []};
  for (const vector of index.vectors) {
    const buffer = await load(`${folder}/${vector.file}`).then(response => response.arrayBuffer());
    const data = vector.dtype === "float32" ? new Float32Array(buffer) : new Uint8Array(buffer);
    const expected = vector.boxes.map((box, i) => ({box, score: vector.scores[i], label: vector.classes[i]}));
    const found = await detector.run({data, size: vector.shape.slice(1), inside: vector.inside});
    compare(expected, found, detector, index.tolerance, vector.name, result);
  }
  return {...judge(result, index.tolerance), pictures: index.vectors.length};
}

async function load(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: the file cannot be loaded (${response.status})`);
  return response;
}

// Match one to one, best first, each with the nearest of its class. A detection of one side only is excused where the
// last digits decide: at the score threshold, and at the end of a full list.
function compare(expected, found, detector, tolerance, name, result) {
  const {classes, limits} = detector;
  const describe = ({label, score, box}) =>
    `${classes[label]} ${score.toFixed(4)} at [${box.map(edge => edge.toFixed(2)).join(", ")}]`;
  const isUnexplained = (item, other, side) => {
    const isFull = other.length >= limits.max_detections;
    const isExcused = Math.abs(item.score - limits.score) <= tolerance.score_eps ||
      (isFull && item.score <= other.at(-1).score + tolerance.score_eps);
    result.excused += isExcused;
    if (isExcused || item.score < tolerance.sure) return false;
    result.problems.push(`${name}: only ${side} finds ${describe(item)}`);
    return true;
  };
  const free = new Set(found);
  const lost = expected.filter(item => {
    const same = [...free].filter(({box, label}) => label === item.label &&
      (distance(box, item.box) < tolerance.same_px || overlap(box, item.box) >= tolerance.same_iou));
    if (!same.length) return true;
    const best = same.reduce((a, b) => (distance(b.box, item.box) < distance(a.box, item.box) ? b : a));
    const px = distance(best.box, item.box), score = Math.abs(best.score - item.score);
    free.delete(best);
    result.matched += 1;
    result.sure += item.score >= tolerance.sure;
    result.px.push(px);
    result.scores.push(score);
    if (px > (tolerance.max_px ?? Infinity) || score > (tolerance.max_score ?? Infinity)) {
      result.problems.push(`${name}: ${describe(best)}, the reference ${describe(item)}`);
    }
    return false;
  });
  result.missing += Math.max(
    lost.filter(item => isUnexplained(item, found, "the reference")).length,
    [...free].filter(item => isUnexplained(item, expected, "this page")).length);
}

function judge({matched, sure, missing, excused, px, scores, problems}, tolerance) {
  const sorted = values => Float64Array.from(values).sort();
  const largest = values => sorted(values).at(-1) ?? 0;
  const median = sorted(px)[px.length >> 1] ?? 0;
  const measured = [
    ["largest box difference", largest(px), tolerance.max_px, " px"],
    ["median box difference", median, tolerance.median_px, " px"],
    ["largest score difference", largest(scores), tolerance.max_score, ""],
  ].filter(([, , allowed]) => allowed !== null);
  const nothing = tolerance.sure > 0 && !sure;
  if (nothing) problems.push(`no detection of ${tolerance.sure} or more on both sides: nothing to judge`);
  const count = `${matched} of ${matched + missing}` + (excused ? `, ${excused} excused` : "");
  return {
    passed: !nothing && missing <= Math.ceil((1 - tolerance.matched) * (sure + missing) - 1e-9) &&
      measured.every(([, value, allowed]) => value <= allowed),
    rows: [
      ["matched", count, `${100 * tolerance.matched}%`],
      ...measured.map(([what, value, allowed, unit]) => [what, value.toExponential(1) + unit, allowed + unit]),
    ],
    problems,
  };
}

// Of the edge that differs most, in pixels.
function distance(a, b) {
  return Math.max(...a.map((edge, i) => Math.abs(edge - b[i])));
}

// Intersection over union.
function overlap(a, b) {
  const area = ([x1, y1, x2, y2]) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);
  const common = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  return common > 0 ? common / (area(a) + area(b) - common) : 0;
}
