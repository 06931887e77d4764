// The list of radiographs: what was dropped, how far each is, and a few at a time on their way to the server.

import { predict, Refused } from "./api.js";
import { element } from "./panel.js";

const AT_A_TIME = 4;
const SUFFIX = /\.(dicom|dcm|png|jpe?g)$/i;

// hooks: onSelect(item), onChange(item) when its findings are there or it failed, onRemove(item), say(text).
export class Files {
  constructor(hooks) {
    this.hooks = hooks;
    this.items = [];
    this.current = null;
    this.limit = Infinity;
    this.list = document.getElementById("list");
    this.overall = document.getElementById("overall");
  }

  add(files) {
    const added = [...files].map((file) => this.makeItem(file));
    if (!added.length) return;
    this.items.push(...added);
    this.list.append(...added.map(({ row }) => row));
    const what = added.length === 1 ? `${added[0].file.name} is` : `${added.length} files are`;
    this.hooks.say(`${what} being looked at`);
    if (!this.current) this.select(added[0]);
    this.pump();
  }

  makeItem(file) {
    const id = this.freeId(file.name.replace(SUFFIX, ""));
    const item = { file, id, state: "waiting", answer: null, problem: "", abort: new AbortController() };
    item.name = element("span", { class: "name", title: file.name }, file.name);
    item.text = element("span", { class: "state" }, "waits for its turn");
    item.progress = element("progress", { max: 1, value: 0, "aria-label": `Progress of ${file.name}` });
    item.button = element("button", { type: "button", class: "file" }, item.name, item.text, item.progress);
    item.button.addEventListener("click", () => item.canRepeat ? this.repeat(item) : this.select(item));
    const name = { "aria-label": `Remove ${file.name}`, title: "Remove" };
    const remove = element("button", { type: "button", class: "icon remove", ...name }, "×");
    remove.addEventListener("click", () => this.remove(item));
    item.row = element("li", {}, item.button, remove);
    return item;
  }

  // Rows of a table are told apart by their id.
  freeId(stem) {
    const taken = new Set(this.items.map(({ id }) => id));
    let id = stem;
    for (let number = 2; taken.has(id); number++) id = `${stem} (${number})`;
    return id;
  }

  select(item) {
    this.current = item;
    for (const other of this.items) other.button.setAttribute("aria-current", other === item);
    item?.row.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.hooks.onSelect(item);
  }

  step(by) {
    const next = this.items[this.items.indexOf(this.current) + by];
    if (next) this.select(next);
  }

  remove(item) {
    const at = this.items.indexOf(item);
    item.abort.abort();
    this.items.splice(at, 1);
    item.row.remove();
    this.hooks.onRemove(item);
    const neighbour = this.items[at] ?? this.items[at - 1] ?? null;
    if (this.current === item) this.select(neighbour);
    (neighbour?.button ?? document.getElementById("input")).focus();
    this.showOverall();
    this.pump();
  }

  repeat(item) {
    item.canRepeat = false;
    item.problem = "";
    item.button.classList.remove("failed");
    this.setState(item, "waiting", "waits for its turn", 0);
    this.select(item);
    this.pump();
  }

  // Starts what waits, while there is room.
  pump() {
    for (const item of this.items) {
      if (this.items.filter(({ state }) => state === "under way").length >= AT_A_TIME) break;
      if (item.state === "waiting") this.send(item);
    }
    this.showOverall();
  }

  async send(item) {
    this.setState(item, "under way", "is being sent", 0);
    try {
      if (item.file.size > this.limit) {
        throw new Refused(413, `larger than the ${Math.floor(this.limit / 2 ** 20)} MiB that this server takes`);
      }
      item.answer = await predict(item.file, (...state) => this.progress(item, ...state), item.abort.signal);
      this.setState(item, "done", "", 1);
    } catch (error) {
      if (error.name === "AbortError") return;
      item.problem = error.message;
      item.canRepeat = error instanceof Refused && error.isWorthTryingAgain;
      item.button.classList.add("failed");
      this.setState(item, "failed", item.canRepeat ? `${item.problem} – press to try again` : item.problem, 1);
      this.hooks.say(`${item.file.name} failed: ${item.problem}`);
    }
    this.hooks.onChange(item);
    this.pump();
  }

  progress(item, state, value) {
    if (item.state !== "under way") return;
    const queued = value ? `in the queue, ${value} before it` : "next in the queue";
    const texts = {
      uploading: value === 1 ? "has been sent" : `is being sent, ${Math.round(100 * value)} %`,
      queued,
      running: "is being looked at",
      busy: `the server is busy, again in ${value} s`,
    };
    const shares = { uploading: 0.6 * value, queued: 0.7, running: 0.85, busy: 0 };
    this.setState(item, "under way", texts[state], shares[state]);
    this.hooks.onProgress(item);
  }

  setState(item, state, text, share) {
    item.state = state;
    item.text.textContent = text;
    item.progress.value = share;
    item.progress.hidden = state === "done" || state === "failed";
  }

  // What stands under a name once it is done.
  summarize(item, text) {
    if (item.state === "done") item.text.textContent = text;
  }

  showOverall() {
    const count = (state) => this.items.filter((item) => item.state === state).length;
    const [done, failed, all] = [count("done"), count("failed"), this.items.length];
    this.overall.hidden = all < 2;
    this.overall.textContent = `${done + failed} of ${all} done${failed ? `, ${failed} failed` : ""}`;
    const isOver = all > 1 && done + failed === all;
    if (isOver && !this.wasOver) this.hooks.say(this.overall.textContent);
    this.wasOver = isOver;
  }
}
