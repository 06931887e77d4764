// A radiograph's samples as the server stores them, and the tables that turn them into grey.

const MAGIC = 0x58505258; // "XRPX"

// The answer of POST pixels (its layout: the API's documentation) → Radiograph.
export function parse(buffer) {
  const view = new DataView(buffer);
  if (view.getUint32(0, true) !== MAGIC) throw new Error("the server sent no pixels");
  const length = view.getUint32(4, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const greys = new Uint8Array(buffer, 8 + length, 2 ** header.bits);
  const start = 8 + length + greys.length;
  // Every machine that browsers run on is little-endian, as the samples are.
  const samples = new (header.bits > 8 ? Uint16Array : Uint8Array)(buffer, start, header.width * header.height);
  return new Radiograph(header, greys, samples);
}

export class Radiograph {
  constructor(header, greys, samples) {
    Object.assign(this, header);
    this.greys = greys;
    this.levels = [{ width: header.width, height: header.height, samples }];
    this.histogram = this.countSamples();
    this.range = [this.value(this.percentile(0)), this.value(this.percentile(1))].sort((a, b) => a - b);
    this.presets = this.findPresets();
  }

  get bytes() {
    return this.levels[0].samples.byteLength * 4 / 3;
  }

  // A sample's meaning, such as its exposure; and the other way round.
  value(sample) {
    return (sample + this.offset) * this.slope + this.intercept;
  }

  isPadding(sample) {
    return this.padding !== null && sample >= this.padding[0] && sample <= this.padding[1];
  }

  // Level k is 2^k times smaller.
  level(k) {
    while (this.levels.length <= k) this.levels.push(halved(this.levels.at(-1)));
    return this.levels[k];
  }

  countSamples() {
    const { samples } = this.levels[0];
    const counts = new Uint32Array(2 ** this.bits);
    const step = Math.max(1, Math.floor(samples.length / 2e6));
    for (let i = 0; i < samples.length; i += step) counts[samples[i]]++;
    for (let sample = 0; this.padding && sample < counts.length; sample++) {
      if (this.isPadding(sample)) counts[sample] = 0;
    }
    return counts;
  }

  // The sample below which a share of all lies, the padding left aside.
  percentile(share) {
    let total = 0;
    for (const count of this.histogram) total += count;
    let left = share * total;
    for (let sample = 0; sample < this.histogram.length; sample++) {
      left -= this.histogram[sample];
      if (this.histogram[sample] && left <= 0) return sample;
    }
    return this.histogram.length - 1;
  }

  // Name → {center, width}, or null for the table that came with the file.
  findPresets() {
    const between = (dark, bright) => {
      // Shares are counted from the dark end, wherever that is.
      const shares = this.inverted ? [1 - bright, 1 - dark] : [dark, bright];
      const [low, high] = shares.map((share) => this.value(this.percentile(share))).sort((a, b) => a - b);
      return { center: (low + high) / 2, width: Math.max(1, high - low) };
    };
    const presets = new Map([["As stored", null]]);
    this.windows.slice(1, 4).forEach(([center, width], index) => {
      presets.set(`As stored ${index + 2}`, { center, width });
    });
    presets.set("Automatic", between(0.01, 0.995));
    presets.set("Lungs", between(0.005, 0.7));
    presets.set("Mediastinum", between(0.45, 0.999));
    presets.set("All values", between(0, 1));
    return presets;
  }

  // The straight window nearest to the file's own table: what a hand on the slider starts from.
  ownWindow() {
    if (this.windows.length) return { center: this.windows[0][0], width: this.windows[0][1] };
    let [low, high] = [null, null];
    for (let sample = 0; sample < this.greys.length; sample++) {
      if (this.isPadding(sample)) continue;
      const grey = this.inverted ? 255 - this.greys[sample] : this.greys[sample];
      if (grey <= 5) low = sample;
      if (grey >= 250 && high === null) high = sample;
    }
    low = this.value(low ?? this.percentile(0));
    high = this.value(high ?? this.percentile(1));
    return { center: (low + high) / 2, width: Math.max(1, Math.abs(high - low)) };
  }

  // Sample → opaque grey as a word of ImageData. window: {center, width}, or null for the file's own table.
  table(window, isInverted) {
    const words = new Uint32Array(this.greys.length);
    for (let sample = 0; sample < words.length; sample++) {
      let grey = this.greys[sample];
      if (window) {
        // The linear function of DICOM, PS3.3 C.11.2.1.2.
        const span = Math.max(window.width - 1, 1e-6);
        const share = (this.value(sample) - (window.center - 0.5)) / span + 0.5;
        grey = Math.round(255 * Math.min(1, Math.max(0, share)));
        if (this.inverted) grey = 255 - grey;
      }
      if (isInverted) grey = 255 - grey;
      if (this.isPadding(sample)) grey = 0;
      words[sample] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
    }
    return words;
  }
}

// Means of two by two; a lone last row or column is its own neighbour.
function halved({ width, height, samples }) {
  const w = (width + 1) >> 1;
  const h = (height + 1) >> 1;
  const half = new samples.constructor(w * h);
  for (let y = 0, to = 0; y < h; y++) {
    const above = 2 * y * width;
    const below = Math.min(2 * y + 1, height - 1) * width;
    for (let x = 0; x < w; x++, to++) {
      const left = 2 * x;
      const right = Math.min(left + 1, width - 1);
      const sum = samples[above + left] + samples[above + right] + samples[below + left] + samples[below + right];
      half[to] = (sum + 2) >> 2;
    }
  }
  return { width: w, height: h, samples: half };
}
