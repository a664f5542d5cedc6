"use strict";
const $ = id => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;
const n = data.paths.length, canvas = $("map"), context = canvas.getContext("2d", { alpha: false }), tip = $("tip");
const projections = data.projections.map(each => ({ ...each, points: new Uint16Array(bytes(each.points)) }));
const columns = data.columns.map(each =>
  each.names ? { ...each, codes: new Uint16Array(bytes(each.codes)) } : { ...each, numbers: new Float32Array(bytes(each.numbers)) });
const sizes = new Uint8Array(bytes(data.sheets.sizes)), tiles = new Int32Array(n).fill(-1), sheets = [];
new Uint32Array(bytes(data.sheets.rows)).forEach((row, tile) => { if (sizes[2 * tile]) tiles[row] = tile; });

const HUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8a4fbf", "#c0392b", "#4d8c2b", "#1f9ea3", "#a0522d", "#e377c2"];
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const FEW = 120, TILE = 56, NEAR = 14, LISTED = 60;  // images in view that are drawn themselves, their side; pixels to point at one; values listed

// The middle of what is seen, and pixels of the page for each unit of the map, which is 65,535 wide.
const view = { x: 32768, y: 32768, scale: 1 };
let points = projections[0].points, column = columns[0], alone = -1, current = -1, order = [], lasso = false, path = null, queued = false, whole = true;
let width, height, dense, pixels, words;
const selected = new Uint8Array(n), faint = new Uint8Array(n), colours = new Uint32Array(n);

// Colours
const hex = parts => "#" + parts.map(part => Math.round(part).toString(16).padStart(2, "0")).join("");
const word = colour => { const v = parseInt(colour.slice(1), 16); return (255 << 24 | (v & 255) << 16 | (v >> 8 & 255) << 8 | v >> 16) >>> 0; };
const style = name => { const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim(); return value.length === 4 ? value.replace(/[0-9a-f]/gi, "$&$&") : value; };
function hue(rank) {
  if (rank < HUES.length) return HUES[rank];
  const h = rank * 137.508 % 360, l = rank % 2 ? 0.42 : 0.6, a = 0.55 * Math.min(l, 1 - l);
  return hex([0, 8, 4].map(part => { const k = (part + h / 30) % 12; return 255 * (l - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))); }));
}
function ramp(share) {
  const place = Math.min(3.9999, Math.max(0, share * 4)), low = Math.floor(place);
  return hex(RAMP[low].map((part, i) => part + (place - low) * (RAMP[low + 1][i] - part)));
}
const share = value => column.high > column.low ? (value - column.low) / (column.high - column.low) : 0.5;
const said = (each, row) => each.names ? each.names[each.codes[row]] : Number.isNaN(each.numbers[row]) ? "" : String(+each.numbers[row].toPrecision(6));
function recolour() {
  const none = word(style("--faint")), ramps = Array.from({ length: 256 }, (_, i) => word(ramp(i / 255)));
  const named = column.names?.map((_, code) => word(hue(code)));
  for (let row = 0; row < n; row++) {
    faint[row] = column.names ? column.names[column.codes[row]] === "" || (alone >= 0 && column.codes[row] !== alone) : Number.isNaN(column.numbers[row]);
    colours[row] = faint[row] ? none : named ? named[column.codes[row]] : ramps[Math.round(255 * share(column.numbers[row]))];
  }
  redraw();
}

// Drawing: discs are written into the pixels themselves, which takes 100,000 of them some milliseconds with or without a GPU.
function redraw() { if (!queued) { queued = true; requestAnimationFrame(draw); } }
function resize() {
  const box = canvas.getBoundingClientRect();
  dense = Math.min(2, devicePixelRatio || 1);
  width = canvas.width = Math.max(1, Math.round(box.width * dense));
  height = canvas.height = Math.max(1, Math.round(box.height * dense));
  pixels = context.createImageData(width, height);
  words = new Uint32Array(pixels.data.buffer);
  redraw();
}
function disc(radius) {
  const found = [];
  for (let y = -radius; y <= radius; y++) for (let x = -radius; x <= radius; x++) if (x * x + y * y <= radius * radius + radius * 0.8) found.push(y * width + x);
  return Int32Array.from(found);
}
function draw() {
  queued = false;
  words.fill(word(style("--card")));
  const scale = view.scale * dense, left = width / 2 - view.x * scale, top = height / 2 - view.y * scale, mark = word(style("--ink"));
  const radius = Math.max(1, Math.round(dense * Math.min(6, 0.6 + 100 / Math.sqrt(n) + Math.log2(1 + view.scale * 40))));
  const stamp = disc(radius), ring = disc(radius + 2), inView = [];
  for (let layer = 1; layer >= 0; layer--) {
    for (let row = 0; row < n; row++) {
      if (faint[row] !== layer) continue;
      const x = (points[2 * row] * scale + left) | 0, y = (points[2 * row + 1] * scale + top) | 0;
      if (x < radius + 2 || y < radius + 2 || x >= width - radius - 2 || y >= height - radius - 2) continue;
      if (inView.length <= FEW) inView.push(row);
      const place = y * width + x, colour = colours[row];
      if (selected[row]) for (let i = 0; i < ring.length; i++) words[place + ring[i]] = mark;
      for (let i = 0; i < stamp.length; i++) words[place + stamp[i]] = colour;
    }
  }
  context.putImageData(pixels, 0, 0);
  context.setTransform(dense, 0, 0, dense, 0, 0);
  if (inView.length <= FEW) inView.forEach(row => framed(row));
  if (current >= 0) circle(current);
  if (path) outline();
  context.setTransform(1, 0, 0, 1, 0, 0);
}
const middle = () => [canvas.clientWidth / 2, canvas.clientHeight / 2];
const onScreen = row => { const [x, y] = middle(); return [(points[2 * row] - view.x) * view.scale + x, (points[2 * row + 1] - view.y) * view.scale + y]; };
function framed(row) {
  if (tiles[row] < 0) return;
  const [w, h] = fitted(tiles[row], TILE), [x, y] = onScreen(row);
  context.fillStyle = selected[row] ? style("--ink") : cssOf(colours[row]);
  context.fillRect(x - w / 2 - 2, y - h / 2 - 2, w + 4, h + 4);
  tile(context, tiles[row], x - w / 2, y - h / 2, w, h, redraw);
}
const cssOf = colour => hex([colour & 255, colour >> 8 & 255, colour >> 16 & 255]);
function circle(row) {
  const [x, y] = onScreen(row);
  context.beginPath(); context.arc(x, y, 11, 0, 7); context.lineWidth = 3; context.strokeStyle = style("--mark"); context.stroke();
}
function outline() {
  context.beginPath(); path.forEach(([x, y], i) => i ? context.lineTo(x, y) : context.moveTo(x, y)); context.closePath();
  context.lineWidth = 2; context.strokeStyle = style("--mark"); context.stroke();
}

// Small pictures lie on sheets of 16 x 16, which are decoded when one of theirs is first shown.
function sheet(number) {
  if (!sheets[number]) { sheets[number] = { image: new Image(), then: [] }; const own = sheets[number];
    own.image.onload = () => { own.then.forEach(each => each()); own.then = []; }; own.image.src = data.sheets.addresses[number]; }
  return sheets[number];
}
const fitted = (number, side) => { const w = sizes[2 * number], h = sizes[2 * number + 1], by = side / Math.max(w, h); return [w * by, h * by]; };
function tile(target, number, x, y, w, h, later) {
  const { image, then } = sheet(number >> 8), place = number & 255, side = data.sheets.side;
  if (image.complete) target.drawImage(image, (place & 15) * side, (place >> 4) * side, sizes[2 * number], sizes[2 * number + 1], x, y, w, h);
  else if (!then.includes(later)) then.push(later);
}
function picture(row) {
  const found = document.createElement("canvas"), [w, h] = fitted(tiles[row], 160);
  found.width = Math.ceil(w); found.height = Math.ceil(h); found.setAttribute("role", "img"); found.setAttribute("aria-label", data.paths[row]);
  const show = () => tile(found.getContext("2d"), tiles[row], 0, 0, w, h, show);
  show();
  return found;
}

// What is said of an image
function element(name, text) { const found = document.createElement(name); if (text !== undefined) found.textContent = text; return found; }
function about(row, all) {
  const found = document.createDocumentFragment();
  if (tiles[row] >= 0) found.append(picture(row));
  found.append(element("b", data.paths[row]));
  const list = element("dl");
  for (const each of all ? columns : [column]) if (said(each, row) !== "") list.append(element("dt", each.name), element("dd", said(each, row)));
  found.append(list);
  return found;
}
function tell(row) { current = row; $("told").replaceChildren(about(row, true)); redraw(); }
function nearest(x, y, within) {
  let best = -1, least = within * within;
  const [mx, my] = middle();
  for (let row = 0; row < n; row++) {
    const dx = (points[2 * row] - view.x) * view.scale + mx - x, dy = (points[2 * row + 1] - view.y) * view.scale + my - y, far = dx * dx + dy * dy;
    if (far < least) { least = far; best = row; }
  }
  return best;
}
function hover(x, y) {
  const row = nearest(x, y, NEAR);
  tip.hidden = row < 0;
  if (row >= 0 && row !== hover.last) tip.replaceChildren(about(row, false));
  hover.last = row;
  tip.style.left = `${Math.max(0, Math.min(x + 14, canvas.clientWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(0, y + 14 + tip.offsetHeight > canvas.clientHeight ? y - tip.offsetHeight - 10 : y + 14)}px`;
}

// Moving
function changed(all) { whole = all; order = []; tip.hidden = true; redraw(); }
function zoom(by, x = middle()[0], y = middle()[1]) {
  const [mx, my] = middle(), wanted = Math.min(50 * start(), Math.max(0.3 * start(), view.scale * by));
  view.x += (x - mx) * (1 / view.scale - 1 / wanted); view.y += (y - my) * (1 / view.scale - 1 / wanted);
  view.scale = wanted; changed(false);
}
function pan(dx, dy) { view.x -= dx / view.scale; view.y -= dy / view.scale; changed(false); }
const start = () => 0.94 * Math.min(canvas.clientWidth, canvas.clientHeight) / 65535;
function fit() { Object.assign(view, { x: 32768, y: 32768, scale: start() }); changed(true); }
function step(by) {
  const [mx, my] = middle();
  if (!order.length) {
    order = Array.from({ length: n }, (_, row) => [row, ...onScreen(row)]).filter(([, x, y]) => x >= 0 && y >= 0 && x < 2 * mx && y < 2 * my)
      .sort(([, a, b], [, c, d]) => Math.hypot(a - mx, b - my) - Math.hypot(c - mx, d - my)).map(([row]) => row);
    order.place = by > 0 ? -1 : order.length;
  }
  if (!order.length) return;
  order.place = (order.place + by + order.length) % order.length;
  tell(order[order.place]);
}
const KEYS = {
  ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
  "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: fit, n: () => step(1), p: () => step(-1),
  s: () => { if (current >= 0) { selected[current] ^= 1; list(); } },
};
canvas.addEventListener("keydown", event => {
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); act(); }
});
canvas.addEventListener("wheel", event => { event.preventDefault(); zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.offsetX, event.offsetY); }, { passive: false });
canvas.addEventListener("dblclick", event => zoom(2, event.offsetX, event.offsetY));
const fingers = new Map();
let moved = 0;
canvas.addEventListener("pointerdown", event => {
  canvas.setPointerCapture?.(event.pointerId); fingers.set(event.pointerId, [event.offsetX, event.offsetY]); moved = 0;
  path = fingers.size === 1 && (lasso || event.shiftKey) ? [[event.offsetX, event.offsetY]] : null;
});
canvas.addEventListener("pointermove", event => {
  const now = [event.offsetX, event.offsetY], before = fingers.get(event.pointerId);
  if (!before) { hover(...now); return; }
  const [dx, dy] = [now[0] - before[0], now[1] - before[1]], other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  moved += Math.abs(dx) + Math.abs(dy);
  fingers.set(event.pointerId, now);
  if (path) { path.push(now); redraw(); return; }
  if (other) { const apart = at => Math.hypot(at[0] - other[0], at[1] - other[1]) || 1; zoom(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2); pan(dx / 2, dy / 2); }
  else pan(dx, dy);
});
function lift(event) {
  if (!fingers.delete(event.pointerId)) return;
  if (path && path.length > 2) select(row => inside(path, ...onScreen(row)));
  else if (moved < 6 && event.type === "pointerup") { const row = nearest(event.offsetX, event.offsetY, 2 * NEAR); if (row >= 0) tell(row); }
  path = null; redraw();
}
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, lift);
canvas.addEventListener("pointerleave", () => { tip.hidden = true; });

// Selecting
function inside(corners, x, y) {
  let odd = false;
  for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
    const [ax, ay] = corners[i], [bx, by] = corners[j];
    if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}
function select(is) { for (let row = 0; row < n; row++) if (!(faint[row] && alone >= 0) && is(row)) selected[row] = 1; list(); }
const chosen = () => Array.from(data.paths.keys()).filter(row => selected[row]);
function list() {
  const found = chosen();
  $("chosen").textContent = `Selected: ${found.length ? found.length.toLocaleString("en") : "none"}`;
  $("paths").value = found.map(row => data.paths[row]).join("\n");
  redraw();
}
const cell = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
$("inview").onclick = () => { const [x, y] = middle(); select(row => { const [px, py] = onScreen(row); return px >= 0 && py >= 0 && px < 2 * x && py < 2 * y; }); };
$("clear").onclick = () => { selected.fill(0); list(); };
$("copy").onclick = () => { $("paths").select(); document.execCommand("copy"); };
$("save").onclick = () => {
  const lines = [["path", ...columns.map(each => each.name)], ...chosen().map(row => [data.paths[row], ...columns.map(each => said(each, row))])];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.map(each => each.map(cell).join() + "\n").join("")], { type: "text/csv" }));
  link.download = `${data.name}-selected.csv`; link.click();
};
$("lasso").onclick = () => { lasso = !lasso; $("lasso").setAttribute("aria-pressed", lasso); canvas.style.cursor = lasso ? "crosshair" : ""; };
$("closer").onclick = () => zoom(1.5); $("farther").onclick = () => zoom(1 / 1.5); $("fit").onclick = fit;

// The legend
function legend() {
  alone = -1;
  const found = $("legend");
  found.replaceChildren();
  if (!column.names) {
    const scale = element("div"); scale.id = "scale"; scale.style.background = `linear-gradient(90deg, ${RAMP.map(hex).join()})`;
    found.append(scale, element("p", `${+column.low.toPrecision(4)} to ${+column.high.toPrecision(4)}`));
  } else column.names.slice(0, LISTED).forEach((name, code) => {
    const button = element("button"), dot = element("i");
    button.type = "button"; button.setAttribute("aria-pressed", "false"); dot.style.background = name === "" ? "var(--faint)" : hue(code);
    button.append(dot, element("span", name === "" ? "nothing known" : name), element("small", column.counts[code].toLocaleString("en")));
    button.onclick = () => { alone = alone === code ? -1 : code;
      found.querySelectorAll("button").forEach(each => each.setAttribute("aria-pressed", each === button && alone >= 0)); recolour(); };
    found.append(button);
  });
  if (column.names?.length > LISTED) found.append(element("p", `and ${(column.names.length - LISTED).toLocaleString("en")} more`));
  recolour();
}
projections.forEach((each, i) => $("projection").append(new Option(each.name, i)));
columns.forEach((each, i) => $("colour").append(new Option(each.name, i)));
const trusted = () => { const each = projections[$("projection").value]; $("trusted").textContent = `${each.note}; trustworthiness ${each.trusted}`; };
$("projection").onchange = () => { points = projections[$("projection").value].points; trusted(); fit(); };
$("colour").onchange = () => { column = columns[$("colour").value]; legend(); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
new ResizeObserver(() => { resize(); if (whole) fit(); }).observe(canvas);
trusted(); resize(); fit(); legend();
