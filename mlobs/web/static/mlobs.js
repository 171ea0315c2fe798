// Keeps the page fresh without a flicker: asks /api/status, and when its revision changed brings the page's own
// HTML up to date in place. Charts are drawn from /api/slos. Nothing here makes HTML out of text.
"use strict";
(() => {
  const body = document.body;
  const driven = body.dataset.clock === "driven";
  const every = driven ? 2000 : 10000;
  const charts = new Map();
  let revision = null;
  let lastAnswer = new Date();
  let objectives = null;

  const json = async (path) => {
    const answer = await fetch(path, { headers: { Accept: "application/json" }, cache: "no-store" });
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer.json();
  };

  // -- in-place update ------------------------------------------------------------------------
  const keep = (node) => node.nodeType === 1 && node.matches("[data-chart], .readout.kept");

  function sync(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || (old.id || "") !== (fresh.id || "")) {
      old.replaceWith(fresh);
      return;
    }
    if (old.nodeType !== 1) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    if (keep(old)) {
      if (fresh.hasAttribute("aria-label")) old.setAttribute("aria-label", fresh.getAttribute("aria-label"));
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const had = [...old.childNodes];
    const has = [...fresh.childNodes];
    has.forEach((node, place) => (place < had.length ? sync(had[place], node) : old.append(node)));
    had.slice(has.length).forEach((node) => node.remove());
  }

  async function refresh() {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok && answer.status !== 404) throw new Error(`page: ${answer.status}`);
    // The policy refuses the style elements of another page's nonce, empty as they are.
    const text = (await answer.text()).replace(/<style[^>]*><\/style>/g, "");
    const fresh = new DOMParser().parseFromString(text, "text/html");
    document.title = fresh.title;
    for (const id of ["clock", "main"]) {
      const old = document.getElementById(id);
      const now = fresh.getElementById(id);
      if (old && now) sync(old, document.adoptNode(now));
    }
    watch();
    if (charts.size) await redraw();
  }

  // -- the round ------------------------------------------------------------------------------
  function say(text, lost) {
    const line = document.getElementById("link-state");
    if (line.textContent !== text) line.textContent = text;
    line.classList.toggle("lost", lost);
    document.getElementById("clock").classList.toggle("stale", lost);
  }

  async function round() {
    try {
      if (!document.hidden) {
        const status = await json("/api/status");
        lastAnswer = new Date();
        const old = !driven && status.now !== null && Date.now() / 1000 - status.now > 300;
        say(old ? "mlobs answers, but has evaluated nothing for over 5 minutes: what you see is old." : "Refreshes by itself.", old);
        if (status.revision !== revision) {
          if (revision !== null) await refresh();
          revision = status.revision;
        }
      }
    } catch {
      say(`mlobs has not answered since ${lastAnswer.toLocaleTimeString()} of your clock: what you see is old.`, true);
    }
    setTimeout(round, every);
  }

  // -- charts ---------------------------------------------------------------------------------
  let library = null;
  function plotly() {
    library ??= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = body.dataset.plotly;
      script.onload = () => done(window.Plotly);
      script.onerror = failed;
      document.head.append(script);
    });
    return library;
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const faint = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, "0");
  const stateColour = { ok: "good", burning: "warn", exhausted: "bad", low_traffic: "cold", young: "cold" };
  // The chart library draws in UTC: it is handed the wall time of the zone that the page names.
  const clock = new Intl.DateTimeFormat("sv-SE", { timeZone: body.dataset.zone, dateStyle: "short", timeStyle: "medium" });
  const wallTime = (seconds) => clock.format(new Date(seconds * 1000));

  function budgetChart(slo, large) {
    const ink = colour(stateColour[slo.state] ?? "none");
    const soft = colour("soft");
    const points = slo.history;
    const left = points.map((point) => point.remaining);
    const seen = left.filter((value) => value !== null);
    const floor = Math.max(-1.5, Math.min(0, ...seen));
    const bottom = floor < 0 ? floor * 1.1 - 0.05 : -0.06;
    const axis = { fixedrange: true, zeroline: false, tickfont: { color: soft, size: large ? 12 : 10 }, linecolor: colour("edge") };
    const spent = { type: "rect", xref: "paper", x0: 0, x1: 1, y0: bottom, y1: 0, fillcolor: faint(colour("bad"), 0.1), line: { width: 0 }, layer: "below" };
    const zero = { type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: { color: colour("bad"), width: 1 }, layer: "below" };
    return {
      data: [{
        x: points.map((point) => wallTime(point.at)), y: left, type: "scatter", mode: seen.length === 1 ? "markers" : "lines",
        line: { color: ink, width: 2, shape: "linear" }, marker: { color: ink, size: 6 }, connectgaps: false,
        fill: "tozeroy", fillcolor: faint(ink, 0.12),
        hovertemplate: "%{x|%-d %b, %H:%M}: %{y:.1%} left<extra></extra>",
      }],
      layout: {
        height: large ? undefined : 88, autosize: true, showlegend: false, hovermode: "x", dragmode: false,
        margin: large ? { l: 56, r: 12, t: 8, b: 32 } : { l: 38, r: 4, t: 4, b: 16 },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "inherit", color: soft },
        hoverlabel: { bgcolor: colour("card"), bordercolor: colour("edge"), font: { color: colour("ink"), family: "inherit" } },
        xaxis: { ...axis, type: "date", showgrid: false, range: range(large ? [slo] : objectives), nticks: large ? 10 : 5, tickformat: "%-d %b" + (spanOf(points) < 3 * 86400 ? " %H:%M" : "") },
        yaxis: { ...axis, range: [bottom, 1.06], tickformat: ".0%", gridcolor: colour("edge"), tickvals: large ? undefined : [0, 0.5, 1], nticks: 6 },
        shapes: [spent, zero],
      },
      config: { displayModeBar: false, showTips: false, doubleClick: false },
    };
  }

  // Small charts stand one above the other and share their time.
  function range(slos) {
    const times = slos.flatMap((slo) => (slo.history.length ? [slo.history[0].at, slo.history.at(-1).at] : []));
    const [first, last] = [Math.min(...times), Math.max(...times)];
    return first < last ? [wallTime(first), wallTime(last)] : undefined;
  }

  const spanOf = (points) => (points.length ? points[points.length - 1].at - points[0].at : 0);

  async function draw(place) {
    const slo = objectives?.find((one) => one.name === place.dataset.slo);
    if (!slo || !slo.history.some((point) => point.remaining !== null)) {
      if (!place.querySelector(".empty-chart")) {
        if (charts.get(place)) { size.unobserve(place); (await plotly()).purge(place); }
        const empty = document.createElement("div");
        empty.className = "empty-chart";
        empty.textContent = "no data yet";
        place.replaceChildren(empty);
      }
      charts.set(place, false);
      return;
    }
    const figure = budgetChart(slo, place.dataset.chart === "budget-large");
    const library = await plotly();
    if (!charts.get(place)) place.replaceChildren();
    await library.react(place, figure.data, figure.layout, figure.config);
    if (!charts.get(place)) size.observe(place);
    charts.set(place, true);
  }

  const size = new ResizeObserver((entries) => entries.forEach(({ target }) => {
    if (charts.get(target) && target.isConnected) window.Plotly.Plots.resize(target);
  }));

  async function redraw() {
    objectives = (await json("/api/slos")).slos;
    for (const place of [...charts.keys()]) {
      if (place.isConnected) await draw(place);
      else charts.delete(place);
    }
  }

  const inView = new IntersectionObserver(async (entries) => {
    const fresh = entries.filter((entry) => entry.isIntersecting && !charts.has(entry.target)).map((entry) => entry.target);
    if (!fresh.length) return;
    fresh.forEach((place) => { inView.unobserve(place); charts.set(place, false); });
    objectives ??= (await json("/api/slos")).slos;
    for (const place of fresh) await draw(place);
  }, { rootMargin: "200px" });

  function watch() {
    document.querySelectorAll("[data-chart]").forEach((place) => { if (!charts.has(place)) inView.observe(place); });
  }

  // -- the heat map's reading line ----------------------------------------------------------------
  function read(event) {
    const cell = event.target.closest?.(".heat td[title]");
    if (!cell) return;
    const line = cell.closest(".card").querySelector(".readout");
    if (event.type === "pointerover" && event.pointerType !== "mouse") return;
    document.querySelectorAll(".heat td.picked").forEach((other) => other.classList.remove("picked"));
    cell.classList.add("picked");
    line.textContent = cell.title;
    line.classList.add("kept");
  }
  document.addEventListener("pointerover", read);
  document.addEventListener("click", read);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw().catch(() => {}));
  document.querySelectorAll(".heat-scroll").forEach((box) => { box.scrollLeft = box.scrollWidth; });
  watch();
  round();
})();
