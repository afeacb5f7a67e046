// Draws every figure of the page in the colours of its theme, one after another so that the page stays quick to read.
(() => {
  "use strict";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 640px)");
  const touch = window.matchMedia("(pointer: coarse)");
  const figures = [...document.querySelectorAll("script[data-figure]")].map((script) => ({
    place: document.getElementById(script.dataset.figure),
    numbers: JSON.parse(script.textContent),
  }));

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // "$accent" becomes the theme's accent; numbers and other texts stay what they are.
  const coloured = (value) => {
    if (typeof value === "string") return /^\$[a-z-]+$/.test(value) ? colour(value.slice(1)) : value;
    if (Array.isArray(value)) return value.map(coloured);
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one)]));
    }
    return value;
  };

  const axis = (own = {}) => ({
    gridcolor: colour("grid"),
    linecolor: colour("line"),
    zeroline: false,
    automargin: true,
    tickangle: 0,
    fixedrange: touch.matches,
    ...coloured(own),
    title: { font: { size: 12, color: colour("muted") }, standoff: 8, ...(own.title ?? {}) },
  });

  // A square figure, such as a matrix, needs no more height than a phone is wide.
  const heightOf = (own, place) => (own.yaxis?.scaleanchor ? Math.min(own.height, place.clientWidth + 70) : own.height);

  const layoutOf = (own, place) => ({
    ...coloured(own),
    height: heightOf(own, place),
    xaxis: axis(own.xaxis),
    yaxis: axis({ ...own.yaxis, ...(narrow.matches && own.yaxis?.title ? { title: { text: "" } } : {}) }),
    autosize: true,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: colour("muted") },
    margin: { l: 8, r: 12, t: own.showlegend === false ? 6 : 28, b: 8 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
    hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("line"), font: { color: colour("ink") }, align: "left" },
    hovermode: "closest",
    dragmode: touch.matches ? false : "zoom",
  });

  const config = { displayModeBar: false, displaylogo: false, responsive: true, showTips: false, plotlyServerURL: "" };

  const draw = async () => {
    for (const { place, numbers } of figures) {
      place.style.height = `${heightOf(numbers.layout, place)}px`;
      await Plotly.react(place, coloured(numbers.data), layoutOf(numbers.layout, place), config);
      await new Promise((next) => setTimeout(next, 0));
    }
    document.documentElement.dataset.drawn = String(figures.length);
  };

  let drawing = draw();
  const again = () => { drawing = drawing.then(draw); };
  dark.addEventListener("change", again);
  narrow.addEventListener("change", again);
})();
