"use strict";
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const page = document.getElementById("page"), tip = document.getElementById("tip");
  const [PIPELINE, STATE, SETTINGS, START, WALL, CPU, MEMORY, WORKER, STEPS, TIMES, PRODUCTS, CENSUS, WARNINGS, REASON, TRACE] =
    Array.from({ length: 15 }, (_, index) => index);
  const FAILED = 0, RUNNING = 1, WAITING = 2, DONE = 3, FRESH = 4;
  const CLASS = ["bad", "warn", "soft", "good", "good"];
  const over = D.state !== "running";
  const STATES = D.states.map((name, index) => (over && (index === WAITING || index === RUNNING)) ? "not done" : name);

  // Elements are made of text only: nothing in the data is ever taken as markup.
  function el(name, attributes, ...children) {
    const found = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) found.addEventListener(key.slice(2), value);
      else found.setAttribute(key, value === true ? "" : value);
    }
    for (const child of children.flat(Infinity))
      if (child !== null && child !== undefined && child !== false)
        found.append(child instanceof Node ? child : String(child));
    return found;
  }
  const number = value => Number(value).toLocaleString("en-US");
  function duration(seconds) {
    if (seconds === null || seconds === undefined) return "";
    if (seconds < 9.95) return `${seconds.toFixed(seconds < 0.995 ? 2 : 1)} s`;
    if (seconds < 60) return `${Math.round(seconds)} s`;
    const whole = Math.round(seconds);
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
    return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole % 3600 / 60)).padStart(2, "0")} min`;
  }
  // A word as a shell takes it.
  const quoted = word => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
  const memory = mb => mb >= 1000 ? `${(mb / 1000).toFixed(1)} GB` : `${mb} MB`;
  const bytes = n => n >= 1e9 ? `${(n / 1e9).toFixed(2)} GB` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} MB` : n ? `${Math.ceil(n / 1e3)} kB` : "";
  function percent(share) {
    if (share === null || share === undefined) return "";
    const value = 100 * share;
    return value === 0 ? "0 %" : value >= 9.95 ? `${value.toFixed(1)} %` : value < 0.001 ? "<0.001 %" : `${Number(value.toPrecision(2))} %`;
  }
  const clock = seconds => {
    const at = new Date(1000 * seconds), two = value => String(value).padStart(2, "0");
    return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  };
  const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

  function link(path, text) {
    if (/^[a-z][a-z0-9+.-]*:\/\//i.test(path) && !/^https?:\/\//i.test(path)) return el("span", { class: "code" }, text || path);
    let target = path;
    if (!/^https?:\/\//i.test(path)) {
      target = path.split("/").map(encodeURIComponent).join("/");
      if (target.startsWith("/")) target = "file://" + target;
      else if (!target.startsWith("../")) target = "./" + target;
    }
    return el("a", { href: target, title: path }, text || path);
  }
  function table(head, rows, options) {
    options = options || {};
    const numeric = options.numeric || [];
    return el("div", { class: "wide" }, el("table", { class: options.class },
      options.caption && el("caption", {}, options.caption),
      head && el("thead", {}, el("tr", {}, head.map((text, i) => el("th", { scope: "col", class: numeric.includes(i) && "number" }, text)))),
      el("tbody", {}, rows.map(cells => el("tr", {}, cells.map((cell, i) => el("td", { class: numeric.includes(i) ? "number" : "text" }, cell)))))));
  }
  // A long list, some at a time.
  function limited(rows, size, show) {
    const box = el("div", {});
    let shown = size;
    const draw = () => {
      box.replaceChildren(...[show(rows.slice(0, shown))].flat(Infinity));
      if (rows.length > shown)
        box.append(el("button", { onclick: () => { shown += 5 * size; draw(); } }, `Show more (${number(rows.length - shown)} left)`));
    };
    draw();
    return box;
  }
  const sections = [];
  function section(id, title, ...children) {
    const found = el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), ...children);
    sections.push([id, title]);
    page.append(found);
    return found;
  }

  // Exposures: one entry each, with what is searched and sorted.
  const DNU = D.flags.indexOf("DO_NOT_USE"), JUMP = D.flags.indexOf("JUMP_DET"), SATURATED = D.flags.indexOf("SATURATED");
  const GROUPS = D.censuses.indexOf("groups"), MASK = D.censuses.indexOf("mask");
  function count(line, flag) {
    for (let i = 3; i < line.length; i += 2) if (line[i] === flag) return line[i + 1];
    return 0;
  }
  const exposures = D.exposures.map(([name, tasks, used], index) => {
    const entry = { index, name, tasks, used, cpu: 0, wall: 0, memory: 0, warnings: 0, start: null, jump: null, saturated: null, unusable: null };
    entry.state = Math.min(...tasks.map(task => task[STATE]));
    for (const task of tasks) {
      entry.cpu += task[CPU]; entry.wall += task[WALL];
      entry.memory = Math.max(entry.memory, task[MEMORY]);
      entry.warnings += task[WARNINGS].reduce((sum, item) => sum + item[1], 0);
      if (task[START] !== null) entry.start = entry.start === null ? task[START] : Math.min(entry.start, task[START]);
      for (const line of task[CENSUS]) {
        if (!line[1]) continue;
        if (line[0] === GROUPS) { entry.jump = count(line, JUMP) / line[1]; entry.saturated = count(line, SATURATED) / line[1]; }
        else if (line[0] !== MASK) entry.unusable = count(line, DNU) / line[1];
      }
    }
    entry.detector = (name.match(/_((?:nrc|nrs|mir|nis|guider)[a-z0-9]*)(?:_|$)/i) || ["", ""])[1].toLowerCase();
    const text = [name, STATES[entry.state], ...tasks.map(task => `${D.pipelines[task[PIPELINE]]} ${task[REASON]}`),
      entry.warnings ? "warning" : ""];
    for (const task of tasks) for (const [place] of task[WARNINGS]) text.push(D.warnings[place].join(" "));
    entry.text = text.join(" ").toLowerCase();
    return entry;
  });
  const byName = new Map(exposures.map(entry => [entry.name, entry]));
  const everyTask = [];
  for (const entry of exposures) for (const task of entry.tasks) everyTask.push([entry.name, task, entry]);
  D.associations.forEach(([name, task], index) => everyTask.push([name, task, null, index]));

  const stateBadge = state => el("span", { class: `state ${STATES[state] === "not done" ? "warn" : CLASS[state]}` }, STATES[state]);

  function summary() {
    const states = D.states.map(() => 0);
    for (const entry of exposures) states[entry.state] += 1;
    const made = D.associations.filter(item => item[1][STATE] >= DONE).length;
    const cpu = everyTask.reduce((sum, item) => sum + item[1][CPU], 0);
    const peak = everyTask.reduce((most, item) => Math.max(most, item[1][MEMORY]), 0);
    const failed = everyTask.filter(item => item[1][STATE] === FAILED).length;
    const warned = exposures.filter(entry => entry.warnings).length;
    const end = D.ended || (over ? null : D.made);
    const figures = [];
    const figure = (value, text, kind) => figures.push(el("div", { class: "figure" }, el("b", { class: kind }, value), text));
    figure(number(exposures.length), exposures.length === 1 ? "exposure" : "exposures");
    figure(number(states[DONE] + states[FRESH]), states[FRESH] ? `done, ${number(states[FRESH])} of them before` : "done", "good");
    figure(number(failed), failed === 1 ? "failed task" : "failed tasks", failed ? "bad" : "");
    const rest = states[RUNNING] + states[WAITING];
    if (rest) figure(number(rest), over ? "not done" : `to do, ${number(states[RUNNING])} running`, "warn");
    if (D.associations.length) figure(`${number(made)}${made === D.associations.length ? "" : ` of ${number(D.associations.length)}`}`, D.associations.length === 1 ? "association combined" : "associations combined");
    figure(number(warned), "with warnings", warned ? "warn" : "");
    if (end) figure(duration(end - D.zero), over ? "wall time" : "so far");
    figure(duration(cpu), "CPU time");
    figure(peak ? memory(peak) : "-", "peak of a process");
    const words = { running: "is running", done: "ended", interrupted: "was interrupted", stopped: "was stopped", killed: "was killed" };
    const box = section("summary", "Summary", el("div", { class: "figures" }, figures));
    const state = [`The run of ${clock(D.zero)} ${words[D.state] || D.state}`, D.ended ? ` at ${clock(D.ended)}` : "", "."];
    if (!over) state.push(` This is how far it was at ${clock(D.made)}; make the report again for what came later.`);
    box.append(el("p", {}, state));
    const versions = D.run.versions || {};
    const facts = [["Folder", el("span", { class: "code" }, D.folder)]];
    if (D.run.command && D.run.command.length) facts.push(["Command", el("span", { class: "code" }, D.run.command.map(quoted).join(" "))]);
    facts.push(["CRDS context", D.run.context || "none"]);
    if (D.run.host) facts.push(["Where", `process ${D.run.process} on ${D.run.host}, ${plural(D.run.workers, "worker")}`]);
    facts.push(["Versions", Object.entries(versions).filter(([, value]) => value).map(([name, value]) => `${name} ${value}`).join(", ")]);
    box.append(el("div", { class: "card" }, table(null, facts)));
    if (D.runs.length > 1) box.append(el("details", {}, el("summary", {}, `${D.runs.length} runs so far`),
      table(["started", "ended", "how"], D.runs.map(([a, b, how]) => [clock(a), b ? clock(b) : "", how || (D.state === "running" ? "" : "killed")]))));
  }

  function group(items, key) {
    const found = new Map();
    for (const item of items) {
      const name = key(item);
      if (!found.has(name)) found.set(name, []);
      found.get(name).push(item);
    }
    return [...found.values()].sort((a, b) => b.length - a.length);
  }
  function jump(name) {
    const entry = byName.get(name);
    if (entry) { view.open.add(entry.index); search(name); return; }
    const box = [...document.querySelectorAll("[data-association]")].find(item => item.dataset.association === name);
    (box || document.getElementById("associations") || page).scrollIntoView();
  }
  function search(text) {
    view.text = text; view.state = view.pipeline = view.detector = ""; view.page = 0;
    controls.search.value = text;
    controls.state.value = controls.pipeline.value = controls.detector.value = "";
    draw();
    document.getElementById("exposures").scrollIntoView();
  }

  function failures() {
    const failed = everyTask.filter(item => item[1][STATE] === FAILED);
    if (!failed.length) return;
    const box = section("failures", `Failures (${number(failed.length)})`);
    // Alike but for names and numbers.
    const alike = ([name, task]) => D.pipelines[task[PIPELINE]] + task[REASON].split(name).join("").replace(/\S*\/\S*/g, "").replace(/\d+/g, "#");
    box.append(limited(group(failed, alike), 20, shown => shown.map(items => {
      const [name, task] = items[0];
      const card = el("div", { class: "card failed" }, el("p", {}, el("strong", {}, items.length > 1 ? `${number(items.length)} times ` : "", D.pipelines[task[PIPELINE]]), " ",
        items.length > 1 ? "such as" : ""), el("p", { class: "bad" }, task[REASON]));
      card.append(limited(items, 12, some => el("p", {}, some.map(([one], i) => [i ? ", " : "", el("button", { class: "plain", onclick: () => jump(one) }, one)]))));
      if (task[TRACE]) card.append(el("details", {}, el("summary", {}, `end of the log of ${name}`), el("pre", { tabindex: 0 }, task[TRACE])));
      return card;
    })));
  }
  function warned() {
    const total = new Map();
    for (const [name, task] of everyTask) for (const [place, times] of task[WARNINGS]) {
      const item = total.get(place) || [place, 0, 0, name];
      item[1] += 1; item[2] += times;
      total.set(place, item);
    }
    if (!total.size) return;
    const rows = [...total.values()].sort((a, b) => b[1] - a[1]);
    section("warnings", `Warnings (${number(rows.length)} different)`, el("div", { class: "card" }, limited(rows, 12, shown => table(
      ["step", "warning", "exposures", "times", ""],
      shown.map(([place, tasks, times, name]) => [D.warnings[place][0], D.warnings[place][1], number(tasks), number(times),
        el("button", { class: "plain", onclick: () => jump(name) }, "one of them")]), { numeric: [2, 3], class: "lined" }))));
  }
  function costs() {
    const total = new Map();
    const skipped = new Map();
    for (const [, task] of everyTask) {
      (D.steps[task[STEPS]] || []).forEach(([name, status, reason], i) => {
        if (status === "COMPLETE") {
          const key = `${D.pipelines[task[PIPELINE]]} ${name}`;
          const item = total.get(key) || [D.pipelines[task[PIPELINE]], name, 0, 0];
          item[2] += task[TIMES][i] / 1000; item[3] += 1;
          total.set(key, item);
        } else if (status !== "FAILED") {
          const key = `${name} ${reason}`;
          const item = skipped.get(key) || [name, status.toLowerCase(), reason, 0];
          item[3] += 1;
          skipped.set(key, item);
        }
      });
    }
    if (!total.size) return;
    const rows = [...total.values()].sort((a, b) => b[2] - a[2]);
    const whole = rows.reduce((sum, row) => sum + row[2], 0) || 1;
    const bar = share => { const inner = el("i", {}); inner.style.width = `${(100 * share).toFixed(1)}%`; return el("div", { class: "bar", "aria-hidden": "true" }, inner); };
    const box = section("times", "Where the time went");
    box.append(el("div", { class: "card" }, limited(rows, 12, shown => table(["pipeline", "step", "CPU", "share", "a task", ""],
      shown.map(([pipeline, name, seconds, tasks]) => [pipeline, name, duration(seconds), percent(seconds / whole), duration(seconds / tasks), bar(seconds / rows[0][2])]), { numeric: [2, 3, 4] }))));
    if (skipped.size) {
      const list = [...skipped.values()].sort((a, b) => b[3] - a[3]);
      box.append(el("details", {}, el("summary", {}, "Steps that did not run, and why"), el("div", { class: "card" }, table(["step", "", "reason", "tasks"],
        list.slice(0, 200).map(([name, status, reason, tasks]) => [name, status, reason, number(tasks)]), { numeric: [3], class: "lined" }))));
    }
  }

  // The timeline: tasks as bars, a lane for each worker.
  function timeline() {
    const all = everyTask.filter(item => item[1][START] !== null && item[1][WORKER] >= 0 && item[1][STATE] !== WAITING);
    const tasks = all.filter(item => item[1][START] >= -1);
    if (!tasks.length) return;
    // Failures on top.
    tasks.sort((a, b) => (a[1][STATE] === FAILED) - (b[1][STATE] === FAILED));
    const now = (D.ended || D.made) - D.zero;
    const ends = task => task[STATE] === RUNNING ? (over ? task[START] : now) : task[START] + task[WALL];
    const last = Math.max(tasks.reduce((most, item) => Math.max(most, ends(item[1])), 0), 0.1);
    const lanes = [...new Set(tasks.map(item => item[1][WORKER]))].sort((a, b) => D.workers[a].localeCompare(D.workers[b], "en", { numeric: true }));
    const laneOf = new Map(lanes.map((worker, index) => [worker, index]));
    const height = lanes.length <= 12 ? 22 : lanes.length <= 40 ? 14 : 8, top = 24;
    const canvas = el("canvas", { tabindex: 0, role: "img", "aria-label": `${number(tasks.length)} tasks on ${plural(lanes.length, "worker")} over ${duration(last)}. Plus and minus zoom, arrows move, 0 shows all.` });
    const span = { from: 0, to: last };
    const colors = ["--c0", "--c1", "--c2", "--c3", "--c4"];
    let drag = null;
    const width = () => canvas.clientWidth || 900;
    const margin = () => width() > 700 ? 150 : 12;
    const x = seconds => margin() + (seconds - span.from) / (span.to - span.from) * (width() - margin() - 8);
    const time = place => span.from + (place - margin()) / (width() - margin() - 8) * (span.to - span.from);
    function paint() {
      const style = getComputedStyle(document.documentElement), color = name => style.getPropertyValue(name).trim();
      const ratio = Math.min(window.devicePixelRatio || 1, 2), tall = top + height * lanes.length + 6;
      canvas.width = width() * ratio; canvas.height = tall * ratio; canvas.style.height = `${tall}px`;
      const g = canvas.getContext("2d");
      g.scale(ratio, ratio);
      g.font = "12px system-ui, sans-serif"; g.textBaseline = "middle";
      const steps = [.01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];
      const wanted = (span.to - span.from) / Math.max((width() - margin()) / 110, 2);
      const step = steps.find(item => item >= wanted) || 604800;
      g.fillStyle = color("--lane");
      lanes.forEach((_, i) => g.fillRect(margin(), top + i * height + 1, width() - margin() - 8, height - 2));
      for (let t = Math.ceil(span.from / step) * step; t <= span.to; t += step) {
        g.fillStyle = color("--line"); g.fillRect(x(t), top - 4, 1, tall);
        g.fillStyle = color("--soft");
        const text = step < 1 ? `${t.toFixed(2)} s` : step < 60 && span.to < 600 ? `${Math.round(t)} s` : step < 3600 ? `${Math.floor(t / 3600)}:${String(Math.floor(t % 3600 / 60)).padStart(2, "0")}${step < 60 ? ":" + String(Math.round(t % 60)).padStart(2, "0") : ""} h` : `${Math.round(t / 3600)} h`;
        if (x(t) + g.measureText(text).width < width()) g.fillText(text, x(t) + 3, 11);
      }
      for (const [, task] of tasks) {
        const a = Math.max(x(task[START]), margin()), b = Math.min(x(ends(task)), width() - 8);
        if (b < margin() || a > width() - 8 || task[START] > span.to || ends(task) < span.from) continue;
        g.fillStyle = color(task[STATE] === FAILED ? "--bad" : colors[task[PIPELINE] % colors.length]);
        g.globalAlpha = task[STATE] === RUNNING ? 0.45 : 1;
        const y = top + laneOf.get(task[WORKER]) * height + 2;
        g.fillRect(a, y, Math.max(b - a - (b - a > 3 ? 1 : 0), task[STATE] === FAILED ? 2 : 1), height - 4);
      }
      g.globalAlpha = 1;
      if (margin() > 100 && height >= 12) {
        g.fillStyle = color("--soft");
        lanes.forEach((worker, i) => { let text = D.workers[worker]; while (g.measureText(text).width > 140) text = "..." + text.slice(4); g.fillText(text, 4, top + (i + .5) * height); });
      }
      if (drag && drag.moved) {
        g.fillStyle = color("--accent"); g.globalAlpha = .25;
        g.fillRect(Math.min(drag.a, drag.b), 0, Math.abs(drag.b - drag.a), tall); g.globalAlpha = 1;
      }
    }
    function zoom(from, to) {
      const least = Math.max(last / 20000, .05);
      from = Math.max(from, 0); to = Math.min(to, last);
      if (to - from < least) { const middle = (from + to) / 2; from = middle - least / 2; to = middle + least / 2; }
      span.from = from; span.to = to;
      paint();
    }
    const scale = (factor, middle) => { middle = middle === undefined ? (span.from + span.to) / 2 : middle; zoom(middle - (middle - span.from) * factor, middle + (span.to - middle) * factor); };
    function move(share) {
      let by = (span.to - span.from) * share;
      by = Math.max(Math.min(by, last - span.to), -span.from);
      zoom(span.from + by, span.to + by);
    }
    const place = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    function at(event) {
      const [px, py] = place(event), lane = Math.floor((py - top) / height), t = time(px), slack = 2 / (width() - margin()) * (span.to - span.from);
      let best = null;
      for (const item of tasks)
        if (laneOf.get(item[1][WORKER]) === lane && item[1][START] - slack <= t && ends(item[1]) + slack >= t) best = item;
      return best;
    }
    canvas.addEventListener("pointerdown", event => { const [px] = place(event); drag = { a: px, b: px, moved: false }; });
    canvas.addEventListener("pointermove", event => {
      if (drag) { drag.b = place(event)[0]; drag.moved = drag.moved || Math.abs(drag.b - drag.a) > 6; paint(); return; }
      const found = at(event);
      tip.hidden = !found;
      if (found) {
        const [name, task] = found;
        tip.textContent = `${name}\n${D.pipelines[task[PIPELINE]]}, ${STATES[task[STATE]]}\n${duration(ends(task) - task[START])} from ${clock(D.zero + task[START])}\n${D.workers[task[WORKER]]}`;
        tip.style.left = `${Math.min(event.clientX + 12, window.innerWidth - 350)}px`; tip.style.top = `${Math.min(event.clientY + 14, window.innerHeight - 100)}px`;
      }
    });
    canvas.addEventListener("pointerup", event => {
      const was = drag; drag = null;
      if (!was) return;
      if (was.moved) { const [a, b] = [time(was.a), time(was.b)].sort((p, q) => p - q); zoom(a, b); return; }
      const found = at(event);
      if (found) { tip.hidden = true; jump(found[0]); }
    });
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; if (drag) { drag = null; paint(); } });
    canvas.addEventListener("dblclick", () => zoom(0, last));
    canvas.addEventListener("wheel", event => { if (!event.ctrlKey) return; event.preventDefault(); scale(event.deltaY > 0 ? 1.25 : .8, time(place(event)[0])); }, { passive: false });
    canvas.addEventListener("keydown", event => {
      const act = { "+": () => scale(.5), "=": () => scale(.5), "-": () => scale(2), ArrowLeft: () => move(-.25), ArrowRight: () => move(.25), 0: () => zoom(0, last) }[event.key];
      if (act) { event.preventDefault(); act(); }
    });
    const busy = tasks.reduce((sum, item) => sum + ends(item[1]) - item[1][START], 0) / (lanes.length * last);
    const used = [...new Set(tasks.map(item => item[1][PIPELINE]))].sort();
    const swatch = (name, text) => { const i = el("i", {}); i.style.background = `var(${name})`; return el("span", {}, i, text); };
    const legend = el("div", { class: "legend" }, used.map(i => swatch(colors[i % colors.length], D.pipelines[i])), tasks.some(item => item[1][STATE] === FAILED) && swatch("--bad", "failed"),
      el("span", {}, `${plural(lanes.length, "worker")}, busy ${percent(Math.min(busy, 1))} of the time`));
    section("timeline", "Timeline", el("div", { class: "card timeline" },
      el("div", { class: "tools" },
        el("button", { onclick: () => scale(.5), "aria-label": "Zoom in" }, "+"), el("button", { onclick: () => scale(2), "aria-label": "Zoom out" }, "\u2212"),
        el("button", { onclick: () => move(-.25), "aria-label": "Earlier" }, "\u2190"), el("button", { onclick: () => move(.25), "aria-label": "Later" }, "\u2192"),
        el("button", { onclick: () => zoom(0, last) }, "All"), el("span", { class: "soft less" }, "Drag to zoom in, click a task to see it.")),
      el("div", { class: "scroll" }, canvas), legend));
    paint();
    let asked = false;
    const soon = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; paint(); }); } };
    new ResizeObserver(soon).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
  }

  // The table of exposures.
  const COLUMNS = [
    ["name", "exposure", entry => entry.name, ""], ["state", "state", entry => entry.state, ""],
    ["start", "started", entry => entry.start, "less"], ["wall", "time", entry => entry.wall, "number less"], ["cpu", "CPU", entry => entry.cpu, "number"],
    ["memory", "memory", entry => entry.memory, "number less"], ["jump", "jumps", entry => entry.jump, "number less"], ["saturated", "saturated", entry => entry.saturated, "number less"],
    ["unusable", "unusable", entry => entry.unusable, "number less"], ["warnings", "warnings", entry => entry.warnings, "number less"],
  ];
  const view = { text: "", state: "", pipeline: "", detector: "", sort: "", down: false, page: 0, size: 50, open: new Set() };
  const controls = {};
  let found = exposures;
  function choose() {
    const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
    found = exposures.filter(entry => (view.state === "" || (view.state === "warned" ? entry.warnings > 0 : STATES[entry.state] === view.state))
      && (view.pipeline === "" || entry.tasks.some(task => task[PIPELINE] === Number(view.pipeline)))
      && (view.detector === "" || entry.detector === view.detector)
      && words.every(word => entry.text.includes(word)));
    if (view.sort) {
      const key = COLUMNS.find(column => column[0] === view.sort)[2], sign = view.down ? -1 : 1;
      found.sort((p, q) => {
        const a = key(p), b = key(q);
        if (a === b) return p.index - q.index;
        if (a === null || b === null) return a === null ? 1 : -1;
        return sign * (a < b ? -1 : 1);
      });
    }
  }
  const isNote = text => text && text !== "";
  function stepsTable(task) {
    const settings = D.settings[task[SETTINGS]], steps = D.steps[task[STEPS]] || [], known = new Map(steps.map((step, i) => [step[0], [step, i]]));
    const names = settings ? settings.steps.map(step => step[0]) : [];
    for (const [name] of steps) if (!names.includes(name)) names.push(name);
    const planned = new Map(settings ? settings.steps.map(step => [step[0], step]) : []);
    const rows = names.map(name => {
      const [step, i] = known.get(name) || [null, 0], plan = planned.get(name);
      let status, note = "", kind = "soft";
      if (step) {
        status = step[1] === "COMPLETE" ? "done" : step[1].toLowerCase(); note = step[2];
        kind = step[1] === "COMPLETE" ? "good" : step[1] === "FAILED" ? "bad" : "soft";
      } else if (plan && plan[1]) { status = "skipped"; note = plan[1]; }
      else status = task[STATE] === FAILED ? "not finished" : STATES[task[STATE]];
      const given = plan ? plan[2].map(([parameter, value, origin]) => el("div", { title: `from ${origin}` }, el("code", {}, `${parameter}=${value}`), el("span", { class: "soft" }, ` ${origin}`))) : [];
      const refs = plan && !plan[1] ? plan[3].map(([type, ref]) => el("div", {}, `${type} `, el("code", {}, ref))) : [];
      return [name, el("span", { class: kind }, status), step && step[1] === "COMPLETE" ? duration(task[TIMES][i] / 1000) : "", [isNote(note) && el("div", { class: "soft" }, note), given, refs]];
    });
    return rows.length ? table(["step", "", "CPU", "why, parameters that are no defaults, references"], rows, { numeric: [2], class: "lined" }) : null;
  }
  function censusTable(tasks) {
    const lines = tasks.flatMap(task => task[CENSUS]);
    if (!lines.length) return null;
    const flags = [...new Set(lines.flatMap(line => line.slice(3).filter((_, i) => i % 2 === 0)))].sort((a, b) => a - b);
    const titles = { groups: "samples of the ramp", mask: "pixels: mask" };
    const cell = (n, all) => n ? [number(n), el("span", { class: "soft share" }, percent(n / all))] : el("span", { class: "soft" }, "-");
    return el("details", { open: true }, el("summary", {}, "data-quality flags"), table(["flag", ...lines.map(line => titles[D.censuses[line[0]]] || `pixels: ${D.censuses[line[0]]}`)],
      [["any", ...lines.map(line => cell(line[2], line[1]))], ...flags.map(flag => [D.flags[flag], ...lines.map(line => cell(count(line, flag), line[1]))])],
      { numeric: lines.map((_, i) => i + 1) }));
  }
  function productList(name, task) {
    const list = task[PRODUCTS] >= 0 ? D.products[task[PRODUCTS]] : [];
    return list.length ? el("p", {}, list.map(([kind, path], i) => { const full = path.split("\0").join(name); return [i ? " \u00b7 " : "", el("span", { class: "soft" }, `${kind} `), link(full, full.split("/").pop())]; })) : null;
  }
  function taskDetail(name, task) {
    const spent = task[STATE] === FAILED || task[STATE] >= DONE;
    return [
      el("h3", {}, D.pipelines[task[PIPELINE]], " ", stateBadge(task[STATE])),
      el("p", { class: "soft" }, [spent && `${duration(task[WALL])}, CPU ${duration(task[CPU])}, process peak ${memory(task[MEMORY])}`,
        task[START] !== null && `from ${clock(D.zero + task[START])}`, task[WORKER] >= 0 && `on ${D.workers[task[WORKER]]}`].filter(Boolean).join(", ")),
      task[REASON] && el("p", { class: "bad" }, task[REASON]),
      productList(name, task),
      task[WARNINGS].length > 0 && el("details", { open: task[WARNINGS].length < 4 }, el("summary", {}, plural(task[WARNINGS].length, "warning")),
        table(null, task[WARNINGS].map(([place, times]) => [D.warnings[place][0], D.warnings[place][1], times > 1 ? `${number(times)} times` : ""]))),
      task[TRACE] && el("details", {}, el("summary", {}, "end of the log"), el("pre", { tabindex: 0 }, task[TRACE])),
      el("details", { open: exposures.length <= 4 }, el("summary", {}, "steps, parameters, references"), stepsTable(task)),
    ];
  }
  const logLink = name => D.logs ? link(`${D.logs}${name.replace(/[^A-Za-z0-9._+-]/g, "_")}.log`, "whole log") : null;
  function detail(entry) {
    const pictures = D.pictures[entry.name] || [];
    return el("div", {},
      pictures.length > 0 && el("div", { class: "pictures" }, pictures.map(([kind, source]) => el("figure", {}, el("img", { src: source, alt: `${kind} of ${entry.name}`, loading: "lazy" }), el("figcaption", {}, kind)))),
      el("p", {}, logLink(entry.name), entry.used.length > 0 && [D.logs ? " \u00b7 " : "", el("span", { class: "soft" }, "part of "), entry.used.slice(0, 20).map((place, i) => [i ? ", " : "", el("button", { class: "plain", onclick: () => jump(D.associations[place][0]) }, D.associations[place][0])])]),
      censusTable(entry.tasks), entry.tasks.map(task => taskDetail(entry.name, task)));
  }
  let body, pagerText, pagerButtons, headers;
  function draw() {
    choose();
    const pages = Math.max(Math.ceil(found.length / view.size), 1);
    view.page = Math.min(Math.max(view.page, 0), pages - 1);
    const shown = found.slice(view.page * view.size, (view.page + 1) * view.size), rows = [];
    for (const entry of shown) {
      const open = view.open.has(entry.index), picture = D.pictures[entry.name];
      const toggle = () => { if (!view.open.delete(entry.index)) view.open.add(entry.index); draw(); const again = body.querySelector(`button[data-index="${entry.index}"]`); if (again) again.focus(); };
      rows.push(el("tr", { class: open ? "row open" : "row" },
        showsPictures && el("td", { class: "less" }, picture && el("img", { class: "thumb", src: picture[picture.length - 1][1], alt: "" })),
        el("td", { class: "name" }, el("button", { class: "plain", "aria-expanded": String(open), "data-index": entry.index, onclick: toggle }, entry.name)),
        el("td", {}, stateBadge(entry.state)),
        el("td", { class: "less soft" }, entry.start === null ? "" : clock(D.zero + entry.start).slice(11)),
        el("td", { class: "number less" }, entry.wall ? duration(entry.wall) : ""), el("td", { class: "number" }, entry.cpu ? duration(entry.cpu) : ""),
        el("td", { class: "number less" }, entry.memory ? memory(entry.memory) : ""),
        el("td", { class: "number less" }, percent(entry.jump)), el("td", { class: "number less" }, percent(entry.saturated)), el("td", { class: "number less" }, percent(entry.unusable)),
        el("td", { class: "number less" }, entry.warnings ? el("span", { class: "warn" }, number(entry.warnings)) : "")));
      if (open) rows.push(el("tr", { class: "detail" }, el("td", { colspan: COLUMNS.length + 1 }, detail(entry))));
    }
    if (!shown.length) rows.push(el("tr", {}, el("td", { colspan: COLUMNS.length + 1, class: "soft" }, "No exposure is like that.")));
    body.replaceChildren(...rows);
    pagerText.textContent = found.length ? `${number(view.page * view.size + 1)} to ${number(view.page * view.size + shown.length)} of ${number(found.length)}${found.length === exposures.length ? "" : ` (${number(exposures.length)} in all)`}` : "";
    pagerButtons.forEach(([button, allowed]) => { button.disabled = !allowed(pages); });
    headers.forEach(([name, th]) => th.setAttribute("aria-sort", view.sort === name ? (view.down ? "descending" : "ascending") : "none"));
  }
  const showsPictures = Object.keys(D.pictures).length > 0;
  function exposureTable() {
    const options = values => values.map(([value, text]) => el("option", { value }, text));
    const later = (() => { let timer; return () => { clearTimeout(timer); timer = setTimeout(() => { view.page = 0; draw(); }, exposures.length > 2000 ? 150 : 0); }; })();
    const pick = (key, values) => el("select", { onchange: event => { view[key] = event.target.value; view.page = 0; draw(); }, "aria-label": key }, options(values));
    const present = [...new Set(exposures.map(entry => entry.state))].sort();
    controls.search = el("input", { type: "search", placeholder: "name, state, error, warning", "aria-label": "Search exposures", oninput: event => { view.text = event.target.value; later(); } });
    const names = [...new Set(present.map(state => STATES[state]))];
    controls.state = pick("state", [["", "every state"], ...names.map(name => [name, `${name} (${number(exposures.filter(entry => STATES[entry.state] === name).length)})`]), ...(exposures.some(entry => entry.warnings) ? [["warned", "with warnings"]] : [])]);
    const pipelines = [...new Set(exposures.flatMap(entry => entry.tasks.map(task => task[PIPELINE])))].sort((a, b) => a - b);
    controls.pipeline = pick("pipeline", [["", "every pipeline"], ...pipelines.map(place => [place, D.pipelines[place]])]);
    const detectors = [...new Set(exposures.map(entry => entry.detector))].filter(Boolean).sort();
    controls.detector = pick("detector", [["", "every detector"], ...detectors.map(name => [name, name])]);
    controls.size = el("select", { "aria-label": "rows of a page", onchange: event => { view.size = Number(event.target.value); view.page = 0; draw(); } }, options([[20, "20 rows"], [50, "50 rows"], [200, "200 rows"], [1000, "1000 rows"]]));
    controls.size.value = "50";
    const turn = (text, label, to, allowed) => { const button = el("button", { "aria-label": label, onclick: () => { view.page = to(); draw(); } }, text); return [button, allowed]; };
    pagerButtons = [
      turn("\u00ab", "First page", () => 0, () => view.page > 0), turn("\u2039", "Page before", () => view.page - 1, () => view.page > 0),
      turn("\u203a", "Next page", () => view.page + 1, pages => view.page < pages - 1), turn("\u00bb", "Last page", () => Infinity, pages => view.page < pages - 1)];
    pagerText = el("span", { class: "soft", "aria-live": "polite", id: "count" });
    headers = COLUMNS.map(([name, text, , kind]) => [name, el("th", { scope: "col", class: kind, "aria-sort": "none" }, el("button", { onclick: () => {
      // Names up, numbers down first.
      const first = !["name", "state", "start"].includes(name);
      if (view.sort !== name) { view.sort = name; view.down = first; } else if (view.down === first) view.down = !first; else { view.sort = ""; view.down = false; }
      view.page = 0; draw();
    } }, text))]);
    body = el("tbody", {});
    section("exposures", `Exposures (${number(exposures.length)})`,
      el("div", { class: "tools" }, controls.search, controls.state, pipelines.length > 1 && controls.pipeline, detectors.length > 1 && controls.detector),
      el("div", { class: "exposures" }, el("table", {}, el("thead", {}, el("tr", {}, showsPictures && el("th", { class: "less" }), headers.map(item => item[1]))), body)),
      el("div", { class: "tools pager", }, pagerButtons.map(item => item[0]), pagerText, controls.size),
      showsPictures && Object.keys(D.pictures).length < exposures.filter(entry => entry.state >= DONE).length && el("p", { class: "soft" }, `Pictures of ${number(Object.keys(D.pictures).length)} exposures are in this file.`));
    if (exposures.length <= 4) exposures.forEach(entry => view.open.add(entry.index));
    draw();
  }

  function associations() {
    if (!D.associations.length) return;
    const items = D.associations.map((item, index) => [item, index]).sort((a, b) => a[0][1][STATE] - b[0][1][STATE] || a[1] - b[1]);
    section("associations", `Associations and mosaics (${number(items.length)})`, limited(items, 20, shown => shown.map(([[name, task, members, size]]) =>
      el("div", { class: task[STATE] === FAILED ? "card failed" : "card", "data-association": name },
        el("p", {}, el("strong", {}, name)),
        D.mosaics[name] && el("div", { class: "pictures mosaic" }, el("figure", {}, el("img", { src: D.mosaics[name], alt: `mosaic ${name}`, loading: "lazy" }), el("figcaption", {}, "i2d, sources of the catalogue ringed"))),
        el("p", {}, logLink(name)),
        taskDetail(name, task), censusTable([task]),
        el("details", {}, el("summary", {}, plural(size, "member")), limited(members, 50, some => el("p", {}, some.map((member, i) => {
          const entry = byName.get(member.replace(/(_cal|_calints|_rate|_rateints)?\.fits$/, ""));
          return [i ? ", " : "", entry ? el("button", { class: "plain", onclick: () => jump(entry.name) }, member) : member];
        }))))))));
  }

  function parameters() {
    const uses = new Map();
    for (const [, task] of everyTask) uses.set(task[SETTINGS], (uses.get(task[SETTINGS]) || 0) + 1);
    const rows = new Map();
    for (const [place, tasks] of uses) {
      const settings = D.settings[place];
      if (!settings) continue;
      for (const [step, skip, given] of settings.steps) for (const [name, value, origin] of given) {
        const key = JSON.stringify([settings.pipeline, step, name, value, origin]);
        const row = rows.get(key) || [settings.pipeline, `${step}.${name}`, value, origin, skip ? "skipped" : "", 0];
        row[5] += tasks;
        rows.set(key, row);
      }
    }
    const list = [...rows.values()].sort((a, b) => a[0].localeCompare(b[0]) || a[1].localeCompare(b[1]));
    if (list.length || uses.size) section("parameters", "Parameters", list.length ? el("div", { class: "card" }, limited(list, 40, shown => table(["pipeline", "parameter", "value", "from", "", "tasks"],
      shown.map(row => [row[0], el("code", {}, row[1]), el("code", {}, row[2]), row[3], row[4], number(row[5])]), { numeric: [5], class: "lined" }))) : el("p", { class: "soft" }, "All parameters are defaults."));
    if (D.references.length) section("references", `References (${number(D.references.length)})`, el("div", { class: "card" }, limited(D.references, 40, shown => table(["type", "name", "size", "digest"],
      shown.map(([kind, name, size, digest]) => [kind, el("code", {}, name), bytes(size), el("code", {}, digest)]), { numeric: [2], class: "lined" }))));
  }

  function comparison() {
    const C = D.comparison;
    if (!C) return;
    const box = section("comparison", "Comparison");
    box.append(el("p", {}, "Before: ", el("span", { class: "code" }, C.folder), C.before.time ? `, run of ${clock(C.before.time)}` : "", C.before.context ? `, context ${C.before.context}` : ""));
    const P = C.products;
    box.append(el("p", {}, `Products: ${number(P.same)} the same, `, el("strong", {}, `${number(P.changed.length)} changed`), `, ${number(P.added.length)} new, ${number(P.removed.length)} no more.`));
    const lines = new Map((C.lines || []).map(line => [line[0], line[1]]));
    const list = (title, names) => names.length && el("details", { open: title === "Changed products" }, el("summary", {}, `${title} (${number(names.length)})`),
      limited(names, 40, shown => table(null, shown.map(name => [el("code", {}, name), lines.get(name) || ""]), { class: "lined" })));
    box.append(...[list("Changed products", P.changed), list("New products", P.added), list("Products that are no more", P.removed)].filter(Boolean));
    if (lines.size && lines.size < P.changed.length) box.append(el("p", { class: "soft" }, `${number(lines.size)} of them have been compared value by value.`));
    const changes = (title, rows, head) => box.append(el("h3", {}, title), rows.length ? limited(rows, 40, shown => table(head, shown.map(row => row.map(text => el("code", {}, text))), { class: "lined" })) : el("p", { class: "soft" }, "no changes"));
    changes("Failures", C.states, ["task", "before", "now"]);
    changes("References", C.references, ["type", "before", "now"]);
    changes("Parameters that are no defaults", C.parameters, ["parameter", "before", "now"]);
    changes("Versions", C.versions, ["what", "before", "now"]);
    box.append(el("h3", {}, "Mean CPU time"), limited(C.times, 40, shown => table(["", "tasks before", "before", "tasks now", "now", "ratio"],
      shown.map(([name, n, a, m, b]) => [name, number(n), duration(a), number(m), duration(b), a && b ? (b / a).toFixed(2) : ""]), { numeric: [1, 2, 3, 4, 5] })));
  }

  summary();
  failures();
  comparison();
  timeline();
  exposureTable();
  associations();
  warned();
  costs();
  parameters();
  document.getElementById("nav").append(...sections.map(([id, title]) => el("a", { href: `#${id}` }, title)));
  document.documentElement.dataset.ready = "yes";
})();
