// Lines as inline SVG. Coordinates are 0 to 100 across and 0 to 100 down, stretched to the box.

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const fixed = (number) => number.toFixed(2);

// `values` are numbers, or several for one place across: a line goes straight down there.
function points(all, y) {
  const values = all.length > 1 ? all : [all[0], all[0]];
  const last = Math.max(1, values.length - 1);
  return values
    .flatMap((here, at) => [here].flat().map((one) => `${fixed((100 * at) / last)},${fixed(y(one))}`))
    .join(" ");
}

function canvas(label) {
  const drawn = shape("svg", {
    viewBox: "0 0 100 100",
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": label,
  });
  return drawn;
}

function rule(drawn, y, kind) {
  drawn.append(
    shape("line", { x1: "0", x2: "100", y1: fixed(y), y2: fixed(y), class: `grid ${kind}` }),
  );
}

// How full the window was with each request. `points` are [at, sent, before, after, room, action,
// step], as `history.Point` has them.
export function utilisation(rows, warning, label) {
  const shares = rows.map((row) => ({
    came: row[1] / row[4],
    before: row[2] / row[4],
    after: row[3] / row[4],
    action: row[5],
    step: row[6],
  }));
  // What clients send may be many windows long; beyond one and a half it leaves the picture.
  const most = Math.min(1.5, Math.max(1.05, ...shares.map((one) => one.came)));
  const y = (share) => 100 - (100 * Math.min(share, most)) / most;
  const drawn = canvas(label);
  rule(drawn, 100, "");
  rule(drawn, y(warning), "warning");
  rule(drawn, y(1), "full");
  const last = Math.max(1, shares.length - 1);
  shares.forEach((one, at) => {
    const x = fixed((100 * at) / last);
    if (one.step) {
      drawn.append(
        shape("line", { x1: x, x2: x, y1: fixed(y(one.before)), y2: fixed(y(one.after)), class: "step" }),
      );
    } else if (one.action === "failed_open") {
      drawn.append(shape("line", { x1: x, x2: x, y1: "100", y2: fixed(y(one.after)), class: "fell" }));
    }
  });
  // The marks of steps come on top of the lines.
  drawn.prepend(
    shape("polyline", { points: points(shares.map((one) => one.came), y), class: "came" }),
    shape("polyline", { points: points(shares.map(went), y), class: "out" }),
  );
  return drawn;
}

const went = (one) => (one.step ? [one.before, one.after] : one.after);

// One figure as it grew; below nothing it is a loss.
export function growth(values, label) {
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  const range = high - low || 1;
  const y = (value) => 96 - (92 * (value - low)) / range;
  const drawn = canvas(label);
  rule(drawn, y(0), "");
  drawn.append(shape("polyline", { points: points(values, y), class: "out" }));
  return drawn;
}
