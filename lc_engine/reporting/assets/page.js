"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  // Okabe and Ito's hues, darker or lighter so that a point has a contrast of 3 with the panel.
  const PALETTES = {
    light: ["#00528F", "#C65100", "#00805D", "#B2568A", "#1A7CBF", "#A06A00", "#6F6500", "#595959", "#6A5FC4", "#8C5A46"],
    dark: ["#3D9BDB", "#E8762B", "#1DB98C", "#D58DB6", "#7CC8F2", "#E69F00", "#C9B800", "#B0B0B0", "#9C92E8", "#C48F7B"],
  };
  const OTHERS = { light: "#6B7682", dark: "#7E8A97" };
  const colour = (at) => PALETTES[document.documentElement.dataset.theme][at % PALETTES.light.length];
  const other = () => OTHERS[document.documentElement.dataset.theme];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const percent = (value) => (100 * value).toFixed(1) + " %";

  async function unpack(id) {
    const packed = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children); // strings become text nodes: nothing of the data is markup
    return made;
  }

  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = element("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const was = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = was; }, 1200);
  }

  function theme(name) {
    document.documentElement.dataset.theme = name;
    $("theme").setAttribute("aria-pressed", String(name === "dark"));
    $("theme").textContent = name === "dark" ? "Light" : "Dark";
  }
  const wanted = matchMedia("(prefers-color-scheme: dark)");
  theme(wanted.matches ? "dark" : "light");

  const state = { visible: [], pins: [], cursor: -1, shown: -1 };
  let data;

  const hasWebGL = () => {
    try {
      return !!document.createElement("canvas").getContext("webgl");
    } catch {
      return false;
    }
  };
  const KIND = hasWebGL() ? "scattergl" : "scatter";

  function layout(x, y, more = {}) {
    const axis = (title, rest = {}) => ({
      title: { text: title, standoff: 8 }, gridcolor: css("--line"), zerolinecolor: css("--line"),
      linecolor: css("--line"), automargin: true, ...rest,
    });
    return {
      paper_bgcolor: css("--panel"), plot_bgcolor: css("--panel"),
      font: { color: css("--ink"), family: getComputedStyle(document.body).fontFamily, size: 13 },
      margin: { l: 56, r: 38, t: 34, b: 46 }, xaxis: axis(x, more.xaxis), yaxis: axis(y, more.yaxis),
      legend: { bgcolor: "rgba(0,0,0,0)", itemsizing: "constant", orientation: "h", x: 0, y: 1.01, yanchor: "bottom" }, hovermode: "closest", dragmode: "pan",
      modebar: { orientation: "v", bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--accent") },
      uirevision: "kept", ...more.rest,
    };
  }
  const CONFIG = { responsive: true, displaylogo: false, scrollZoom: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };

  // One sub-model has no deviation: its points are spread out, lest they cover each other.
  const isFlat = () => data.capacities.length === 1;

  // From the least to the greatest drawn value, and a little more.
  function reach(values, bins, top) {
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < values.length; i++) {
      if (!data.drawn[i]) continue;
      low = Math.min(low, values[i]);
      high = Math.max(high, values[i]);
    }
    bins?.forEach((count, at) => {
      if (!count) return;
      low = Math.min(low, (at * top) / bins.length);
      high = Math.max(high, ((at + 1) * top) / bins.length);
    });
    const pad = 0.03 * (high - low) || 0.05;
    return low > high ? [0, 1] : [low - pad, high + pad];
  }

  const labelOf = (i) => (data.label[i] < 0 ? "" : data.names[data.label[i]] ?? String(data.label[i]));
  const keptBy = (i) => data.subsets.filter((_, s) => (data.kept[i] >> s) & 1);

  const nearestOf = (i) => (data.nearest && data.nearest[i] >= 0 ? data.names[data.nearest[i]] : "");

  // Rows by category: the most frequent ones get colours of their own.
  function byCategory(category, nameOf) {
    const counts = new Map();
    for (const i of state.visible) counts.set(category(i), (counts.get(category(i)) ?? 0) + 1);
    const common = [...counts].sort((a, b) => b[1] - a[1]).slice(0, PALETTES.light.length).map(([key]) => key).sort((a, b) => a - b);
    const place = new Map(common.map((key, at) => [key, at]));
    const found = common.map((key, at) => ({ name: nameOf(key), colour: colour(at), rows: [] }));
    const rest = { name: "others", colour: other(), rows: [] };
    for (const i of state.visible) (found[place.get(category(i))] ?? rest).rows.push(i);
    return rest.rows.length ? [rest, ...found] : found;
  }

  // Groups of visible rows, each with a name and a colour; or one group with a scale of colours.
  function groups() {
    const by = $("colour").value;
    if (by === "label") return byCategory((i) => data.label[i], (key) => data.names[key] ?? "no label");
    if (by === "nearest") return byCategory((i) => data.nearest[i], (key) => data.names[key] ?? "unknown");
    if (by.startsWith("text:")) {
      const { values, rows } = data.texts[by.slice(5)];
      return byCategory((i) => rows[i], (key) => values[key]);
    }
    if (by.startsWith("kept:")) {
      const bit = Number(by.slice(5));
      const found = [{ name: "dropped", colour: other(), rows: [] }, { name: "kept", colour: colour(1), rows: [] }];
      for (const i of state.visible) found[(data.kept[i] >> bit) & 1].rows.push(i);
      return found;
    }
    const values = by === "loss" ? data.loss : data.extra[by.slice(6)];
    return [{ name: by, rows: state.visible, scale: values ?? null }];
  }

  function escaped(text) {
    return text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
  }

  function drawMap() {
    const traces = [];
    const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
    const lines = data.density?.rows.map(sum);
    const columns = data.density?.rows[0].map((_, at) => sum(data.density.rows.map((line) => line[at])));
    if (data.density) {
      const rows = isFlat() ? [columns] : data.density.rows;
      const size = columns.length, high = isFlat() ? 1 : data.density.std_max / size;
      const log = rows.map((line) => line.map((count) => (count ? Math.log10(count) : null)));
      traces.push({
        type: "heatmap", z: log, x0: 0.5 / size, dx: 1 / size,
        y0: high / 2, dy: high,
        colorscale: [[0, css("--line")], [1, css("--dense")]], showscale: false, hoverinfo: "skip",
      });
    }
    const many = state.visible.length;
    const size = many > 5000 ? 4 : many > 1000 ? 6 : 8;
    for (const group of groups()) {
      const marker = { size, opacity: 0.8, color: group.colour ?? colour(0) };
      if (group.scale) {
        const values = group.rows.map((i) => group.scale[i]);
        // A few values far away would leave one colour to all others.
        const sorted = Float64Array.from(values.filter(Number.isFinite)).sort();
        const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
        Object.assign(marker, {
          color: values, cmin: at(0.02), cmax: at(0.98), colorscale: "Cividis", showscale: true,
          colorbar: { orientation: "h", x: 0, xanchor: "left", y: 1.01, yanchor: "bottom", len: 0.5, thickness: 12, title: { text: escaped(group.name.replace(/^extra:/, "")) }, outlinewidth: 0 },
        });
      }
      traces.push({
        type: KIND, mode: "markers", name: escaped(group.name), marker, showlegend: !group.scale,
        x: group.rows.map((i) => data.lc[i]), y: group.rows.map((i) => data.height[i]),
        customdata: group.rows, hoverinfo: "none",
      });
    }
    traces.push({
      type: "scatter", mode: "markers", name: "pinned", hoverinfo: "skip", showlegend: false,
      x: state.pins.map((i) => data.lc[i]), y: state.pins.map((i) => data.height[i]),
      marker: { size: 15, symbol: "circle-open", line: { width: 3 }, color: state.pins.map((_, at) => colour(at)) },
    });
    if (state.cursor >= 0) {
      traces.push({
        type: "scatter", mode: "markers", hoverinfo: "skip", showlegend: false,
        x: [data.lc[state.cursor]], y: [data.height[state.cursor]],
        marker: { size: 18, symbol: "square-open", line: { width: 2 }, color: css("--ink") },
      });
    }
    const shape = layout("mean confidence over the path (lc)", isFlat() ? "spread out, without a meaning" : "its standard deviation (lc_std)", {
      xaxis: { range: reach(data.lc, columns, 1) },
      yaxis: isFlat() ? { range: [-0.03, 1.03], showticklabels: false } : { range: reach(data.lc_std, lines, data.density?.std_max) },
    });
    return Plotly.react("points", traces, shape, CONFIG);
  }

  function drawPaths() {
    if (!$("paths")) return;
    const rows = state.shown >= 0 && !state.pins.includes(state.shown) ? [...state.pins, state.shown] : state.pins;
    const traces = rows.map((i) => {
      const at = state.pins.indexOf(i);
      return {
        type: "scatter", mode: "lines+markers", name: escaped(data.id[i]), x: data.capacities.map((c) => 100 * c), y: data.path[i],
        line: { color: at < 0 ? css("--soft") : colour(at), dash: at < 0 ? "dot" : "solid", width: 2 },
        hovertemplate: "%{x:.1f} %: %{y:.3f}<extra></extra>",
      };
    });
    Plotly.react("paths", traces, layout("capacity, % of the weights", "confidence", {
      xaxis: { range: [100 * Math.min(...data.capacities) - 2, 102] }, yaxis: { range: [-0.03, 1.03] }, rest: { showlegend: false, dragmode: false, margin: { l: 50, r: 10, t: 10, b: 42 } },
    }), { ...CONFIG, displayModeBar: false, scrollZoom: false });
  }

  function drawBudget() {
    if (!$("budget")) return;
    const traces = data.subsets.map((name, s) => {
      const x = [], y = [];
      let start = 0;
      for (const group of data.budget) {
        x.push(100 * start, 100 * group.end);
        y.push(100 * group.shares[s], 100 * group.shares[s]);
        start = group.end;
      }
      return { type: "scatter", mode: "lines", name: escaped(name), x, y, line: { color: colour(s), width: 2.5 }, hovertemplate: "%{y:.1f} % kept<extra></extra>" };
    });
    Plotly.react("budget", traces, layout("rank by confidence, % (hardest first)", "share kept, %", {
      yaxis: { rangemode: "tozero" }, rest: { showlegend: data.subsets.length > 1, dragmode: false, hovermode: "x" },
    }), { ...CONFIG, displayModeBar: false, scrollZoom: false });
  }

  const RESPONSES = ["assistant", "chosen", "rejected"];

  function spoken([role, text, tokens]) {
    const said = element("span", { class: "said" });
    for (const [part, nll] of tokens ?? []) {
      const shade = data.shades.filter((low) => nll >= low).length;
      said.append(element("span", { class: "n" + shade, title: "NLL " + nll.toFixed(2) }, part));
    }
    if (!tokens?.length) said.append(text);
    return element("span", { class: RESPONSES.includes(role) ? "turn response" : "turn" }, element("b", {}, role + " "), said);
  }

  function show(i) {
    state.shown = i;
    const card = $("card");
    card.replaceChildren();
    card.dataset.row = i < 0 ? "" : data.id[i];
    if (i < 0) return;
    const preview = data.previews[data.preview[i]];
    if (preview?.image) card.append(element("img", { src: preview.image, alt: "row " + data.id[i] }));
    card.append(element("h4", {}, data.id[i]));
    const line = (name, value) => card.append(element("p", {}, element("b", {}, name + " "), value));
    if (data.label[i] >= 0) line("label", labelOf(i));
    if (data.nearest?.[i] >= 0 && data.nearest[i] !== data.label[i]) line("looks like", nearestOf(i));
    line("confidence", `${(100 * data.lc[i]).toFixed(1)} ± ${percent(data.lc_std[i])}`);
    const pair = element("span", { class: "pair" });
    for (const turn of preview?.turns ?? []) (turn[0] === "chosen" || turn[0] === "rejected" ? pair : card).append(spoken(turn));
    if (pair.childElementCount) card.append(pair);
    line("loss", String(data.loss[i]));
    for (const [name, values] of Object.entries(data.extra)) line(name, String(values[i] ?? "none"));
    for (const [name, column] of Object.entries(data.texts)) line(name, column.values[column.rows[i]]);
    if (data.subsets.length) line("kept by", keptBy(i).join(", ") || "none");
    drawPaths();
  }

  function refreshPins() {
    const list = $("pins");
    list.replaceChildren(...state.pins.map((i, at) => {
      const mark = element("i");
      mark.style.background = colour(at);
      const remove = element("button", { type: "button", "aria-label": "Unpin " + data.id[i] }, "×");
      remove.onclick = () => pin(i);
      return element("li", {}, mark, `${data.id[i]} ${labelOf(i)}`, remove);
    }));
    for (const button of document.querySelectorAll("[data-pin]")) {
      button.setAttribute("aria-pressed", String(state.pins.includes(Number(button.dataset.pin))));
    }
    drawMap();
    drawPaths();
  }

  function pin(i) {
    const at = state.pins.indexOf(i);
    if (at >= 0) state.pins.splice(at, 1);
    else state.pins.push(i);
    show(i);
    refreshPins();
  }

  function filter() {
    const label = $("class")?.value ?? "";
    const kept = $("kept")?.value ?? "";
    const looks = $("looks")?.value ?? "";
    const texts = [...document.querySelectorAll("[data-text]")].filter((list) => list.value !== "");
    const text = $("search").value.toLowerCase();
    state.visible = [];
    for (let i = 0; i < data.id.length; i++) {
      if (!data.drawn[i]) continue;
      if (label !== "" && data.label[i] !== Number(label)) continue;
      if (kept !== "") {
        const [bit, side] = kept.split(":").map(Number);
        if (((data.kept[i] >> bit) & 1) !== side) continue;
      }
      if (looks && (data.nearest[i] === data.label[i] ? "own" : "other") !== looks) continue;
      if (texts.some((list) => data.texts[list.dataset.text].rows[i] !== Number(list.value))) continue;
      if (text && !data.id[i].toLowerCase().includes(text)) continue;
      state.visible.push(i);
    }
    state.cursor = -1;
    $("count").textContent = `${state.visible.length.toLocaleString("en")} points`;
    return drawMap();
  }

  function save(rows) {
    const url = URL.createObjectURL(new Blob([rows.map((i) => data.id[i] + "\n").join("")], { type: "text/plain" }));
    element("a", { href: url, download: "ids.txt" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  function option(list, value, text) {
    list.append(element("option", { value }, text));
  }

  function controls() {
    const colour = $("colour");
    if (Object.keys(data.names).length) option(colour, "label", "class");
    if (data.nearest) option(colour, "nearest", "class that it looks like");
    data.subsets.forEach((name, s) => option(colour, "kept:" + s, "kept by " + name));
    for (const [name, column] of Object.entries(data.texts)) {
      if (!column.is_category) continue;
      option(colour, "text:" + name, name);
      const list = element("select", { "data-text": name });
      option(list, "", "all");
      column.values.forEach((value, at) => option(list, at, value));
      $("search").parentElement.before(element("label", {}, name + " ", list));
    }
    option(colour, "loss", "loss");
    for (const name of Object.keys(data.extra)) option(colour, "extra:" + name, name);
    if (data.subsets.length) colour.value = "kept:0";
    if ($("class")) {
      for (const [label, name] of Object.entries(data.names)) option($("class"), label, name);
    }
    if ($("kept")) {
      data.subsets.forEach((name, s) => {
        option($("kept"), s + ":1", "kept by " + name);
        option($("kept"), s + ":0", "dropped by " + name);
      });
    }
    $("filters").onsubmit = (event) => event.preventDefault();
    $("filters").oninput = filter;
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      if (button.dataset.pin) pin(Number(button.dataset.pin));
      if (button.dataset.save) save(button.dataset.save.split(","));
      if (button.dataset.ids) copy(button.dataset.ids.split(",").map((i) => data.id[i]).join("\n"), button);
    });
    $("copy-pins").onclick = (event) => copy(state.pins.map((i) => data.id[i]).join("\n"), event.target);
    $("clear-pins").onclick = () => { state.pins = []; refreshPins(); };
    $("save-pins").onclick = () => save(state.pins);
    if ($("status")) {
      $("status").onchange = () => {
        const rows = [...document.querySelectorAll("[data-status]")];
        for (const row of rows) row.hidden = $("status").value !== "" && row.dataset.status !== $("status").value;
        $("bad-count").textContent = `${rows.filter((row) => !row.hidden).length.toLocaleString("en")} rows`;
      };
    }
    $("points").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 10, ArrowDown: -10 }[event.key];
      if (step) {
        event.preventDefault();
        const order = [...state.visible].sort((a, b) => data.lc[a] - data.lc[b]);
        if (!order.length) return;
        const at = order.indexOf(state.cursor);
        state.cursor = order[Math.min(order.length - 1, Math.max(0, at + step))];
        show(state.cursor);
        drawMap();
      } else if (event.key === "Enter" && state.cursor >= 0) {
        pin(state.cursor);
      }
    });
  }

  function redraw() {
    refreshPins();
    drawBudget();
  }

  // A sheet of paper is narrower than a window: charts get its width, and theirs again.
  function resize(width) {
    for (const chart of document.querySelectorAll(".js-plotly-plot")) Plotly.relayout(chart, { width, autosize: !width });
  }

  async function begin() {
    document.querySelectorAll("[data-copy]").forEach((button) => {
      button.onclick = () => copy($(button.dataset.copy).textContent, button);
    });
    data = JSON.parse(await unpack("payload"));
    data.height = isFlat() ? data.id.map((_, i) => (i * 0.618034) % 1) : data.lc_std;
    const library = element("script");
    library.textContent = await unpack("library");
    document.head.append(library);
    controls();
    await filter();
    drawPaths();
    drawBudget();
    const points = $("points");
    points.on("plotly_hover", (event) => {
      const i = event.points[0].customdata;
      if (Number.isInteger(i)) show(i);
    });
    points.on("plotly_click", (event) => {
      const i = event.points[0].customdata;
      if (Number.isInteger(i)) pin(i);
    });
    $("theme").onclick = () => {
      theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
      redraw();
    };
    wanted.addEventListener("change", () => { theme(wanted.matches ? "dark" : "light"); redraw(); });
    let before = "light";
    addEventListener("beforeprint", () => { before = document.documentElement.dataset.theme; theme("light"); redraw(); resize(660); });
    addEventListener("afterprint", () => { theme(before); redraw(); resize(); });
    document.documentElement.dataset.ready = "true";
  }
  begin();
})();
