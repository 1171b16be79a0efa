"use strict";

// The slider of a what-if curve moves the mark along it and says what is answered there.
for (const figure of document.querySelectorAll("figure.curve")) {
  const points = JSON.parse(figure.dataset.points);
  const slider = figure.querySelector("input");
  const said = figure.querySelector("output");
  const svg = figure.querySelector("svg");
  let mark = svg.querySelector("circle");
  let line = svg.querySelector("line.now");
  if (!mark) {
    const of = (name) => svg.appendChild(document.createElementNS(svg.namespaceURI, name));
    line = of("line");
    line.setAttribute("class", "now");
    line.setAttribute("y1", 0);
    line.setAttribute("y2", 160);
    mark = of("circle");
    mark.setAttribute("r", 5);
  } else {
    const x = Number(mark.getAttribute("cx"));
    const far = (point) => Math.abs(point.x - x);
    slider.value = points.reduce((best, point, i) => (far(point) < far(points[best]) ? i : best), 0);
  }
  const show = () => {
    const { value, score } = points[slider.value];
    said.textContent = `${value}: ${figure.dataset.score} ${Number(score.toPrecision(4))}`;
    slider.setAttribute("aria-valuetext", said.textContent);
  };
  slider.closest("label").hidden = false;
  slider.addEventListener("input", () => {
    const { x, y } = points[slider.value];
    mark.setAttribute("cx", x);
    mark.setAttribute("cy", y);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    show();
  });
  show();
}
