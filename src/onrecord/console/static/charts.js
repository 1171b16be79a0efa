"use strict";

// Draws what the figure's data says; the table below it says the same in figures.
function draw(figure) {
  const told = JSON.parse(figure.dataset.chart);
  const place = figure.querySelector("[data-place]");
  const styles = getComputedStyle(document.body);
  const probe = document.createElement("span");
  figure.append(probe);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const quiet = colour("quiet");
  const line = colour("line");
  const [first, last] = [told.seconds[0], told.seconds.at(-1)];
  const axis = { stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: `12px ${styles.fontFamily}` };
  const options = {
    width: place.clientWidth,
    height: 200,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
    cursor: { y: false, drag: { setScale: false } },
    scales: {
      x: { range: () => (last > first ? [first, last] : [first - 1800, first + 1800]) },
      y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.05 : 1] },
    },
    axes: [{ ...axis, values: times }, { ...axis, size: 56 }],
    series: [
      { value: "{YYYY}-{MM}-{DD} {HH}:{mm}" },
      ...told.lines.map((it) => ({
        label: it.label,
        stroke: colour(it.colour),
        width: 2,
        points: { show: true, size: 4, fill: colour(it.colour) },
        value: (_, value) => (value === null ? "-" : `${value} ${told.unit}`),
      })),
    ],
  };
  probe.remove();
  place.replaceChildren();
  return new uPlot(options, [told.seconds, ...told.lines.map((it) => it.values)], place);
}

const DARK = matchMedia("(prefers-color-scheme: dark)");

// Hours and minutes in UTC, and the day where it changes.
function times(_, seconds) {
  let day = "";
  return seconds.map((at) => {
    const text = new Date(at * 1000).toISOString();
    const time = text.slice(11, 16);
    const told = text.slice(5, 10) === day ? time : `${time}\n${text.slice(5, 10)}`;
    day = text.slice(5, 10);
    return told;
  });
}

function drawAll(root) {
  for (const figure of root.querySelectorAll("figure[data-chart]")) {
    let plot = draw(figure);
    DARK.addEventListener("change", () => { plot.destroy(); plot = draw(figure); });
    new ResizeObserver(() => {
      const width = figure.querySelector("[data-place]").clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: 200 });
    }).observe(figure);
  }
}

// A part that takes a while comes after the page, in place of the link to it.
async function load(place) {
  try {
    const answer = await fetch(place.dataset.load, { headers: { accept: "text/html" } });
    if (!answer.ok) throw new Error(answer.statusText);
    const found = new DOMParser().parseFromString(await answer.text(), "text/html");
    // The page has its own heading, and leads back by itself.
    for (const it of found.querySelectorAll("h1, .alone")) it.remove();
    place.replaceChildren(...found.getElementById("content").childNodes);
    drawAll(place);
  } catch {
    place.querySelector("p")?.append(" It could not be loaded.");
  }
  place.removeAttribute("aria-busy");
}

drawAll(document);
for (const place of document.querySelectorAll("[data-load]")) {
  place.setAttribute("aria-busy", "true");
  load(place);
}
