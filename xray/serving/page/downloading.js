// The buttons of the download card: which of them there is something for, and what they do.

import * as downloads from "./downloads.js";

const $ = (id) => document.getElementById(id);

export class Downloading {
  // page: {files, viewer, shownOf(item), loadPixels(item), server(), say(text)}.
  constructor(page) {
    this.page = page;
    this.buttons = [...document.querySelectorAll("[data-format]")];
    for (const button of this.buttons) button.addEventListener("click", () => this.start(button));
    for (const radio of document.querySelectorAll('input[name="scope"]')) {
      radio.addEventListener("change", () => this.show());
    }
  }

  // The radiographs that are meant, of those with findings to take away.
  get items() {
    const { files } = this.page;
    const isAll = document.querySelector('input[name="scope"]:checked').value === "all";
    return files.items.filter((item) => item.answer && (isAll || item === files.current));
  }

  hasMask(item) {
    return this.page.shownOf(item).some(({ rle }) => rle);
  }

  show() {
    const { items } = this;
    const { exports, is_vinbig } = this.page.server();
    const canDo = {
      csv: true,
      kaggle: is_vinbig,
      json: true,
      png: items.length > 1 || Boolean(items[0]?.radiograph),
      ...Object.fromEntries(exports.map((kind) => [kind, true])),
      seg: exports.includes("seg") && items.some((item) => this.hasMask(item)),
    };
    for (const button of this.buttons) {
      const isBusy = button.getAttribute("aria-busy") === "true";
      button.disabled = isBusy || !items.length || !canDo[button.dataset.format];
    }
  }

  async start(button) {
    const { format } = button.dataset;
    this.tell("");
    button.setAttribute("aria-busy", true);
    this.show();
    try {
      await this.save(format, this.items);
    } catch (error) {
      this.tell(error.message);
    }
    button.setAttribute("aria-busy", false);
    this.show();
  }

  async save(format, items) {
    const isOne = items.length === 1;
    const { shownOf } = this.page;
    if (format === "csv") {
      downloads.save(downloads.table(items, shownOf), `${isOne ? items[0].id : "findings"}.csv`, "text/csv");
    } else if (format === "kaggle") {
      downloads.save(downloads.submission(items), `${isOne ? `${items[0].id}-` : ""}submission.csv`, "text/csv");
    } else if (format === "json") {
      downloads.save(downloads.results(items), `${isOne ? items[0].id : "predictions"}.json`, "application/json");
    } else {
      const problems = [];
      for (const item of items) {
        try {
          await this.saveOne(format, item);
        } catch (error) {
          problems.push(isOne ? error.message : `${item.file.name}: ${error.message}`);
        }
      }
      this.tell(problems.join("; "));
    }
  }

  async saveOne(format, item) {
    const { shownOf, viewer, loadPixels } = this.page;
    if (format === "png") {
      if (!item.radiograph) await loadPixels(item);
      if (!item.radiograph) throw new Error(item.pixelProblem);
      const blob = await downloads.picture(item.radiograph, shownOf(item), viewer.layers, item.display ?? {});
      downloads.save(blob, `${item.id}.png`);
    } else if (format !== "seg" || this.hasMask(item)) {
      const suffix = format === "fhir" ? "json" : "dcm";
      downloads.save(await downloads.object(format, item, shownOf(item)), `${item.id}-${format}.${suffix}`);
    }
  }

  tell(text) {
    $("download-note").textContent = text;
    $("download-note").hidden = !text;
    if (text) this.page.say(text);
  }
}
