// A detector that `fcos export` wrote, in a browser, with ONNX Runtime. Copy this file into your page.
//
// Decoding and NMS are inside the model: pixels go in, boxes come out. What is left to a page is here: read the facts
// that the file carries, fit the image into the network input exactly as fcos does, map the boxes back, and apply the
// threshold of each class. A detection is {box: [x1, y1, x2, y2], score, label}; `label` is the index of the class.
import * as ort from "onnxruntime-web";

// Load a model. Throws an Error if `address` is not there or is no model of fcos.
export async function openDetector(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: the model cannot be loaded (${response.status})`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  const facts = readMetadata(bytes, address);
  const session = await ort.InferenceSession.create(bytes, {executionProviders: ["wasm"]});
  const {global, per_class: own} = facts.thresholds;
  return {
    classes: facts.classes.map(entry => entry.name),
    thresholds: own ?? facts.classes.map(() => global),
    limits: facts.limits,
    geometry: facts.geometry,
    run: input => run(session, facts, input),
  };
}

// The objects in an image, in its pixels, best first. image: ImageData (RGBA).
export async function detect(detector, image) {
  const input = letterbox(detector, image);
  const scales = [image.width / input.inside[1], image.height / input.inside[0]];
  const limits = [image.width, image.height];
  return (await detector.run(input))
    .filter(({score, label}) => score >= detector.thresholds[label])
    .map(({box, ...rest}) => ({
      box: box.map((edge, i) => Math.min(Math.max(edge * scales[i % 2], 0), limits[i % 2])),
      ...rest,
    }))
    .filter(({box}) => box[2] > box[0] && box[3] > box[1]);
}

// All detections of the file in a prepared input, in its pixels, best first. input: {data: Uint8Array or Float32Array,
// red, green and blue plane; size: [height, width]; inside: [height, width] of the image in its upper left corner}.
async function run(session, facts, {data, size, inside}) {
  const type = data instanceof Float32Array ? "float32" : "uint8";
  const feeds = {images: new ort.Tensor(type, data, [1, 3, ...size])};
  if (session.inputNames.includes("sizes")) {
    feeds.sizes = new ort.Tensor("int64", BigInt64Array.from(inside, BigInt), [1, 2]);
  }
  const {boxes, scores, classes, counts} = await session.run(feeds);
  const found = Array.from({length: Number(counts.data[0])}, (_, i) => ({
    box: Array.from(boxes.data.slice(4 * i, 4 * i + 4)),
    score: scores.data[i],
    label: Number(classes.data[i]),
  }));
  if (!found.every(({box, score, label}) => [...box, score].every(Number.isFinite) && facts.classes[label])) {
    throw new Error("the model returns values that are not finite, or unknown classes");
  }
  return found;
}

// Fit the image into the network input: scale it to one of the sides, then pad on the right and at the bottom.
export function letterbox({geometry}, image) {
  if (geometry.mode !== "letterbox" || (geometry.filter ?? "pillow") !== "pillow") {
    throw new Error("this example resizes by letterbox only; fcos_cli/data/geometry.py has the other rules");
  }
  const [high, wide] = geometry.size;
  const scale = Math.min(high / image.height, wide / image.width);
  const width = Math.min(Math.max(roundHalfEven(image.width * scale), 1), wide);
  const height = Math.min(Math.max(roundHalfEven(image.height * scale), 1), high);
  const small = resize(image, width, height);
  const data = new Uint8Array(3 * high * wide);
  for (let channel = 0; channel < 3; channel++) {
    const plane = data.subarray(channel * high * wide, (channel + 1) * high * wide);
    plane.fill(Array.isArray(geometry.pad_value) ? geometry.pad_value[channel] : geometry.pad_value);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) plane[y * wide + x] = small[4 * (y * width + x) + channel];
    }
  }
  return {data, size: [high, wide], inside: [height, width]};
}

// Pillow's bilinear filter, RGBA → RGBA: the same bytes. A canvas uses another filter and so moves boxes (README.md).
function resize(image, width, height) {
  let pixels = image.data;
  if (width !== image.width) pixels = resizePass(pixels, image.height, image.width, width, false);
  if (height !== image.height) pixels = resizePass(pixels, width, image.height, height, true);
  return pixels;
}

// Along rows or columns. When it shrinks, the filter widens, so that all pixels count. Weights have 22 binary places.
function resizePass(pixels, lines, before, after, columns) {
  const step = columns ? 4 * lines : 4;
  const lineIn = columns ? 4 : 4 * before, lineOut = columns ? 4 : 4 * after;
  const scale = before / after, support = Math.max(scale, 1);
  const out = new Uint8ClampedArray(4 * lines * after);
  for (let i = 0; i < after; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const last = Math.min(Math.trunc(center + support + 0.5), before);
    const shares = Array.from({length: last - first}, (_, j) =>
      Math.max(1 - Math.abs((first + j - center + 0.5) / support), 0));
    const total = shares.reduce((sum, share) => sum + share, 0);
    const weights = shares.map(share => Math.trunc((share / total) * (1 << 22) + 0.5));
    for (let line = 0; line < lines; line++) {
      for (let channel = 0; channel < 3; channel++) {
        const place = line * lineIn + first * step + channel;
        let sum = 1 << 21;
        for (let j = 0; j < weights.length; j++) sum += pixels[place + j * step] * weights[j];
        out[line * lineOut + i * step + channel] = sum >> 22;
      }
    }
  }
  return out;
}

function roundHalfEven(value) {
  const below = Math.floor(value), rest = value - below;
  return rest === 0.5 ? below + (below % 2) : Math.round(value);
}

// `metadata_props` of a ModelProto, whose values are JSON; onnxruntime-web does not give them. Field numbers
// (onnx.proto): ModelProto.metadata_props = 14; StringStringEntryProto.key = 1, .value = 2.
function readMetadata(bytes, address) {
  const facts = {}, text = new TextDecoder();
  try {
    for (const [number, content] of fields(bytes)) {
      if (number !== 14) continue;
      const pair = new Map(fields(content));
      facts[text.decode(pair.get(1))] = pair.get(2);
    }
    const keys = ["classes", "geometry", "thresholds", "limits"];
    return Object.fromEntries(keys.map(key => [key, JSON.parse(text.decode(facts[key]))]));
  } catch (error) {
    throw new Error(`${address}: not a model that \`fcos export\` wrote, or damaged (${error.message})`);
  }
}

// [field number, content] of the fields of a protobuf message that have bytes; the others are skipped.
function* fields(bytes) {
  let place = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      if (place >= bytes.length) throw new Error("truncated");
      const byte = bytes[place++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (place < bytes.length) {
    const tag = varint(), number = Math.floor(tag / 8), kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1 || kind === 5) place += kind === 1 ? 8 : 4;
    else if (kind === 2) {
      const size = varint();
      if (place + size > bytes.length) throw new Error("truncated");
      yield [number, bytes.subarray(place, place + size)];
      place += size;
    } else throw new Error("not a protobuf message");
  }
}
