// Talking to the server: one file at a time goes up, and comes back as findings or as pixels.

const RETRIES = 200;

export class Refused extends Error {
  // status: 0 where there was no answer at all.
  constructor(status, line) {
    super(line);
    this.status = status;
  }

  get isWorthTryingAgain() {
    return this.status === 0 || this.status >= 500 || this.status === 408;
  }
}

export async function about() {
  const response = await fetch("about");
  if (!response.ok) throw new Refused(response.status, "the server does not say what it runs");
  return response.json();
}

// Findings of a file. onState gets ("uploading", share), ("queued", number before it), ("running") and
// ("busy", seconds until the next attempt); signal aborts.
export async function predict(file, onState, signal) {
  for (let attempt = 0; ; attempt++) {
    const ticket = randomText();
    const watch = watchQueue(ticket, onState);
    try {
      return await post("predict", file, {
        type: "json", ticket, signal,
        onSent: (share) => {
          onState("uploading", share);
          if (share === 1) watch.start();
        },
      });
    } catch (error) {
      if (error.status !== 429 || attempt === RETRIES) throw error;
      onState("busy", error.wait);
      await pause(error.wait * 1000 * (1 + Math.random() / 2), signal);
    } finally {
      watch.stop();
    }
  }
}

// The samples of a file, as pixels.js reads them.
export async function pixels(file, signal) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await post("pixels", file, { type: "arraybuffer", signal });
    } catch (error) {
      if (error.status !== 429 || attempt === RETRIES) throw error;
      await pause(error.wait * 1000, signal);
    }
  }
}

// A DICOM object ("sr", "seg", "gsps", "sc") of a file and its findings, or their FHIR ("fhir"), as a Blob. All of the
// findings count: the person has chosen them.
export async function object(kind, file, findings) {
  const form = new FormData();
  form.append("findings", JSON.stringify(findings));
  form.append("file", file, "radiograph");
  return post(`${kind === "fhir" ? kind : `dicom/${kind}`}?threshold=0`, form, { type: "blob" });
}

// XMLHttpRequest, as fetch does not tell how much has been sent.
function post(path, body, { type, ticket, signal, onSent }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.responseType = type;
    if (body instanceof File) request.setRequestHeader("Content-Type", "application/octet-stream");
    if (ticket) request.setRequestHeader("X-Ticket", ticket);
    if (onSent) {
      request.upload.onprogress = ({ lengthComputable, loaded, total }) => {
        if (lengthComputable) onSent(Math.min(0.99, loaded / total));
      };
      request.upload.onload = () => onSent(1);
    }
    request.onload = async () => {
      if (request.status === 200) return resolve(request.response);
      const error = new Refused(request.status, await lineOf(request));
      error.wait = Math.max(1, Number(request.getResponseHeader("Retry-After")) || 1);
      reject(error);
    };
    request.onerror = () => reject(new Refused(0, "the server did not answer: is it running?"));
    request.onabort = () => reject(new DOMException("given up", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

async function lineOf(request) {
  try {
    let content = request.response;
    if (content instanceof ArrayBuffer) content = JSON.parse(new TextDecoder().decode(content));
    if (content instanceof Blob) content = JSON.parse(await content.text());
    return String(content.detail);
  } catch {
    return `the server answered ${request.status}`;
  }
}

function watchQueue(ticket, onState) {
  let timer = null;
  let isOver = false;
  const look = async () => {
    try {
      const response = await fetch(`queue/${ticket}`);
      if (response.ok && !isOver) {
        const { state, before } = await response.json();
        if (!isOver) onState(state === "running" || state === "done" ? "running" : "queued", before);
      }
    } catch {
      // The request itself will tell.
    }
    if (!isOver) timer = setTimeout(look, 700);
  };
  return {
    start: () => { timer ??= setTimeout(look, 150); },
    stop: () => { isOver = true; clearTimeout(timer); },
  };
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("given up", "AbortError"));
    });
  });
}

// crypto.randomUUID is there over https alone, and hospitals' networks are not.
function randomText() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
