"use strict";
// The page that answers to clicks and keys. All it shows lies in the page itself: facts as JSON, and
// for each image a block of numbers, unpacked when the image is chosen.

const facts = JSON.parse(document.getElementById("facts").textContent);
const find = (id) => document.getElementById(id);
const board = find("board");
const READER = -1; // as a query: what the classifier reads
const MEAN = -1; // as a head: the mean over heads
// `step` counts those that are kept, `query` is the token that looks.
const state = { image: 0, view: "", step: 0, head: MEAN, query: READER };

// --- the numbers of an image

const TYPES = { largest: Float32Array, rollouts: Float32Array, of_pool: Float32Array, alike: Int8Array };
const IMAGES_KEPT = 3;
const unpacked = new Map();
const pictures = new Map();

function numbersOf(image) {
  const found = unpacked.get(image) || unpack(find(`numbers-${image}`));
  unpacked.delete(image);
  unpacked.set(image, found); // the last one used
  if (unpacked.size > IMAGES_KEPT) unpacked.delete(unpacked.keys().next().value);
  return found;
}

async function unpack(block) {
  const { parts, data } = JSON.parse(block.textContent);
  const text = atob(data);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const numbers = {};
  let start = 0;
  for (const [name, shape] of Object.entries(parts)) {
    const Type = TYPES[name.split("/").pop()] || Uint8Array;
    const end = start + shape.reduce((a, b) => a * b, 1) * Type.BYTES_PER_ELEMENT;
    numbers[name] = { shape, values: new Type(buffer.slice(start, end)) };
    start = end;
  }
  return numbers;
}

function pictureOf(image) {
  if (!pictures.has(image)) {
    const picture = new Image();
    picture.src = facts.images[image].picture;
    pictures.set(image, picture.decode().then(() => picture));
  }
  return pictures.get(image);
}

// --- maps: what is looked at, as shares

const prefix = facts.num_prefix_tokens;
const [numRows, numColumns] = facts.grids.patches;
const numPatches = numRows * numColumns;
const hasAttention = facts.kept_steps.length > 0;
const hasProbe = facts.reader === "the pool's probe";

function row({ values }, index, length) {
  return values.subarray(index * length, (index + 1) * length);
}

// A row of weights of all tokens, from the square roots of shares of its largest.
function weights(numbers, name, index) {
  const { shape } = numbers[`${name}/levels`];
  const levels = row(numbers[`${name}/levels`], index, shape[shape.length - 1]);
  const largest = numbers[`${name}/largest`].values[index];
  return Float32Array.from(levels, (level) => largest * (level / 255) ** 2);
}

function attentionOf(numbers, head, query) {
  if (query === READER && hasProbe) return probeOf(numbers, head);
  if (query === READER && facts.has_class_token) return attentionOf(numbers, head, 0);
  if (query === READER) return meanOf(numPatches, (patch) => attentionOf(numbers, head, prefix + patch));
  const length = prefix + numPatches;
  if (head === MEAN) return weights(numbers, "means", state.step * length + query);
  return weights(numbers, "heads", (headStep() * facts.num_heads + head) * length + query);
}

function probeOf(numbers, head) {
  if (head === MEAN) return meanOf(facts.num_heads, (each) => probeOf(numbers, each));
  const found = new Float32Array(prefix + numPatches);
  found.set(row(numbers.of_pool, head, numPatches), prefix);
  return found;
}

function meanOf(count, of) {
  const mean = new Float32Array(prefix + numPatches);
  for (let i = 0; i < count; i += 1) of(i).forEach((value, j) => { mean[j] += value / count; });
  return mean;
}

const headStep = () => facts.kept_heads.indexOf(facts.kept_steps[state.step]);
const isProbe = () => hasProbe && state.query === READER;
const hasHeads = () => headStep() >= 0 || isProbe();

function rolloutOf(numbers) {
  if (state.query !== READER) return weights(numbers, "rollout", state.query).subarray(prefix);
  return row(numbers.rollouts, facts.steps.indexOf(facts.kept_steps[state.step]), numPatches);
}

const isToPatches = () => state.query >= prefix;
const chosenPatch = () => state.query - prefix;

function mapNow(numbers) {
  const image = facts.images[state.image];
  if (state.view === "occlusion") {
    const most = Math.max(...image.occlusion.map(Math.abs), 1e-9);
    return { values: image.occlusion.map((fall) => fall / most), colors: "diverging" };
  }
  if (state.view === "colors") return { values: numbers.colors.values, colors: "own" };
  if (state.view === "rollout") return heat(rolloutOf(numbers));
  if (state.view === "alike") {
    return heat(Float32Array.from(row(numbers.alike, chosenPatch(), numPatches), (v) => Math.max(0, v)));
  }
  return heat(attentionOf(numbers, state.head, state.query).subarray(prefix));
}

const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

function heat(values) {
  const low = least(values);
  const span = most(values) - low;
  return { values: values.map((value) => (span > 0 ? (value - low) / span : 0)), colors: "heat" };
}

// --- drawing

const gridName = () => (state.view === "occlusion" ? "occlusion" : "patches");

async function draw() {
  const { image } = state;
  const [picture, numbers] = await Promise.all([pictureOf(image), numbersOf(image)]);
  if (image !== state.image) return; // another one was chosen meanwhile, and draws itself
  drawBoard(picture, mapNow(numbers));
  find("readout").textContent = readout(numbers);
  drawHeads(numbers);
  drawAnswers(facts.images[image]);
  drawControls();
  document.body.dataset.drawn = JSON.stringify(state);
}

function drawBoard(picture, map) {
  const scale = Math.max(1, window.devicePixelRatio || 1);
  board.width = Math.round(facts.width * scale);
  board.height = Math.round(facts.height * scale);
  const context = board.getContext("2d");
  context.drawImage(picture, 0, 0, board.width, board.height);
  if (map.colors !== "own") {
    context.globalCompositeOperation = "saturation"; // grey, so that heat alone has colour
    context.fillStyle = "#808080";
    context.fillRect(0, 0, board.width, board.height);
    context.globalCompositeOperation = "source-over";
  }
  const tiny = document.createElement("canvas");
  const grid = facts.grids[gridName()];
  const [down, across] = facts.covered[gridName()];
  paint(tiny, map, grid);
  context.imageSmoothingEnabled = false;
  context.drawImage(tiny, 0, 0, board.width * across, board.height * down);
  if (hasChoice() && isToPatches()) markChosen(context, down, across, scale);
}

function paint(canvas, { values, colors }, [rows, columns]) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  for (let place = 0; place < rows * columns; place += 1) {
    pixels.data.set(colorAt(values, colors, place), 4 * place);
  }
  context.putImageData(pixels, 0, 0);
}

function colorAt(values, colors, place) {
  if (colors === "own") return [...values.subarray(3 * place, 3 * place + 3), 235];
  const value = values[place];
  const share = colors === "heat" ? 0.25 + 0.7 * value : 0.5 + 0.5 * value;
  const color = facts[colors][Math.round(share * (facts[colors].length - 1))];
  return [...color, Math.round(220 * Math.sqrt(Math.abs(value)))];
}

const hasChoice = () => ["attention", "alike", "rollout"].includes(state.view);

function markChosen(context, down, across, scale) {
  const [width, height] = [board.width * across / numColumns, board.height * down / numRows];
  const [x, y] = [chosenPatch() % numColumns * width, Math.floor(chosenPatch() / numColumns) * height];
  for (const [thickness, color] of [[5, "#10131b"], [2.5, "#ffffff"]]) {
    context.lineWidth = thickness * scale;
    context.strokeStyle = color;
    context.strokeRect(x, y, width, height);
  }
}

function drawControls() {
  const isAttention = state.view === "attention";
  const stepsCount = (isAttention && !isProbe()) || (state.view === "rollout" && state.query === READER);
  const shown = { steps: stepsCount, heads: isAttention, readers: isAttention || state.view === "rollout" };
  for (const [name, is] of Object.entries(shown)) find(name).hidden = !is;
  if (hasAttention) {
    find("step").value = state.step;
    find("step").setAttribute("aria-valuetext", stepName());
    find("step-name").textContent = stepName();
  }
  press("gallery", "image", state.image);
  press("readers", "query", state.query);
  press("heads", "head", state.head);
}

function press(group, name, value) {
  for (const button of find(group).children) {
    button.setAttribute("aria-pressed", String(Number(button.dataset[name]) === value));
  }
}

function drawHeads(numbers) {
  if (state.view !== "attention") return;
  for (const button of find("heads").children) {
    const head = Number(button.dataset.head);
    button.hidden = head !== MEAN && !hasHeads();
    if (button.hidden) continue;
    const own = attentionOf(numbers, head, state.query).subarray(prefix);
    paint(button.firstChild, heat(own), facts.grids.patches);
  }
}

function drawAnswers({ answers }) {
  find("answers").replaceChildren(...answers.map(([name, share]) => {
    const line = document.createElement("div");
    line.className = "answer";
    line.style.setProperty("--share", `${100 * share}%`);
    const [label, value] = [document.createElement("bdi"), document.createElement("span")];
    label.textContent = name;
    value.textContent = percent(share);
    line.append(label, value);
    return line;
  }));
}

// --- words

const percent = (share) => `${(100 * share).toPrecision(share < 0.1 ? 2 : 3)} %`;

function nameOf(query) {
  if (query === READER) return facts.reader;
  if (query < prefix) {
    const before = facts.has_class_token ? 1 : 0;
    return query < before ? "the class token" : `register ${1 + query - before}`;
  }
  const patch = query - prefix;
  return `the patch in row ${1 + Math.floor(patch / numColumns)}, column ${1 + patch % numColumns}`;
}

const stepName = () => facts.kept_steps[state.step].replace("/attention", "")
  .replace("/row_attention", " along rows").replace("/column_attention", " along columns")
  .replace(/block0*(\d+)/, "layer $1");

function readout(numbers) {
  const image = facts.images[state.image];
  if (state.view === "occlusion") {
    const points = 100 * Math.max(0, most(image.occlusion));
    return `Blanking a part lowers the probability of \u2018${image.occluded_class}\u2019 by up to `
      + `${points.toPrecision(2)} percentage points (red); blue parts raise it.`;
  }
  if (state.view === "colors") return "Equal colours are alike features, over all images.";
  if (state.view === "alike") return `What is like ${nameOf(state.query)}: cosine of the features.`;
  if (state.view === "rollout") {
    return state.query === READER ? `What reaches ${facts.reader} up to ${stepName()}.`
      : `What reaches ${nameOf(state.query)} through all layers.`;
  }
  const own = attentionOf(numbers, state.head, state.query);
  const gives = Array.from({ length: isProbe() ? 0 : prefix }, (_, t) => `${nameOf(t)} ${percent(own[t])}`);
  const where = isProbe() ? "" : ` in ${stepName()}`;
  const head = state.head === MEAN ? "the mean over heads" : `head ${state.head}`;
  return `Where ${nameOf(state.query)} looks${where}, ${head}: at most `
    + `${percent(most(own.subarray(prefix)))} on a patch.${gives.length ? ` It gives ${gives.join(", ")}.` : ""}`;
}

// --- what a person may do

function choose(changes) {
  Object.assign(state, changes);
  // What can't be shown together gives way to what was asked for.
  if (state.view === "alike" && !isToPatches()) state.query = prefix;
  if (state.view === "attention" && hasAttention && !hasHeads()) state.head = MEAN;
  const radio = document.querySelector(`input[value="${state.view}"]`);
  if (radio) radio.checked = true;
  draw();
}

function choosePatch(down, across) {
  const inside = (value, count) => Math.min(count - 1, Math.max(0, value));
  const query = prefix + inside(down, numRows) * numColumns + inside(across, numColumns);
  choose({ query, view: hasChoice() ? state.view : hasAttention ? "attention" : "alike" });
}

function movePatch(down, across) {
  if (!isToPatches()) return choosePatch(0, 0);
  return choosePatch(Math.floor(chosenPatch() / numColumns) + down, chosenPatch() % numColumns + across);
}

const around = (value, count) => (value + count) % count;

function keyActions() {
  const actions = {};
  [...document.querySelectorAll("#views input")].forEach((radio, number) => {
    actions[number + 1] = () => choose({ view: radio.value });
  });
  const last = facts.images.length;
  actions.n = () => choose({ image: around(state.image + 1, last) });
  actions.p = () => choose({ image: around(state.image - 1, last) });
  if (hasAttention && !find("steps").hidden) {
    actions["["] = () => choose({ step: Math.max(0, state.step - 1) });
    actions["]"] = () => choose({ step: Math.min(facts.kept_steps.length - 1, state.step + 1) });
  }
  if (!find("readers").hidden) actions[0] = () => choose({ query: READER });
  if (!find("heads").hidden && hasHeads()) {
    const count = facts.num_heads + 1;
    actions.h = () => choose({ head: around(state.head + 2, count) - 1 });
    actions.H = () => choose({ head: around(state.head, count) - 1 });
  }
  if (document.activeElement === board) {
    actions.ArrowUp = () => movePatch(-1, 0);
    actions.ArrowDown = () => movePatch(1, 0);
    actions.ArrowLeft = () => movePatch(0, -1);
    actions.ArrowRight = () => movePatch(0, 1);
  }
  return actions;
}

function onKey(event) {
  // Some keyboards have brackets behind another key.
  const isBracket = event.key === "[" || event.key === "]";
  if (!isBracket && (event.ctrlKey || event.altKey || event.metaKey)) return;
  const action = keyActions()[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function onBoard(event) {
  const box = board.getBoundingClientRect();
  const [down, across] = facts.covered.patches;
  const y = (event.clientY - box.top) / box.height / down;
  const x = (event.clientX - box.left) / box.width / across;
  choosePatch(Math.floor(y * numRows), Math.floor(x * numColumns));
}

function addButton(group, label, changes, words) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(label);
  Object.assign(button.dataset, changes);
  if (words) button.setAttribute("aria-label", words);
  button.addEventListener("click", () => choose(changes));
  find(group).append(button);
  return button;
}

function build() {
  facts.images.forEach(({ name, picture }, image) => {
    const thumbnail = new Image();
    thumbnail.src = picture;
    addButton("gallery", thumbnail, { image }, name).title = name;
  });
  if (hasAttention) {
    addButton("readers", nameOf(READER), { query: READER });
    for (let token = facts.reader === "the class token" ? 1 : 0; token < prefix; token += 1) {
      addButton("readers", nameOf(token), { query: token });
    }
    for (let head = MEAN; head < facts.num_heads; head += 1) {
      const words = head === MEAN ? "mean" : String(head);
      const button = addButton("heads", document.createElement("canvas"), { head },
        head === MEAN ? "the mean over heads" : `head ${head}`);
      button.append(words);
    }
    find("step").max = facts.kept_steps.length - 1;
  }
  find("step").addEventListener("input", (event) => choose({ step: Number(event.target.value) }));
  find("views").addEventListener("change", (event) => choose({ view: event.target.value }));
  board.addEventListener("click", onBoard);
  document.addEventListener("keydown", onKey);
  choose({
    view: document.querySelector("#views input").value,
    step: Math.max(0, facts.kept_steps.length - 1),
    query: hasAttention ? READER : Math.floor(numRows / 2) * numColumns + Math.floor(numColumns / 2),
  });
}

if (typeof DecompressionStream === "undefined") {
  find("readout").textContent = "This part needs a browser from 2023 on; the figures below do not.";
} else if (facts.images.length) {
  build();
}
