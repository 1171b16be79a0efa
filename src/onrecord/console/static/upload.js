"use strict";

// Sends a file in the background, large CSV in parts, and says how far it is. Each part is what the
// form sends without this, so a part is answered, refused and recorded in the same way.
const form = document.getElementById("upload");
const CALL_ROWS = Number(form.dataset.rows);
const CALL_BYTES = Number(form.dataset.bytes);
form.querySelector("[data-hint]").hidden = false;

const letters = (name) => name.replace(/[^\p{L}\p{N}]/gu, "").toLowerCase();
const place = () => document.getElementById("answer");

// Returns where each record of CSV ends; a line break within quotes ends none.
function* records(text) {
  let quoted = false;
  for (let i = 0; i < text.length; i += 1) {
    const letter = text.charCodeAt(i);
    if (letter === 34) quoted = !quoted;
    else if (letter === 10 && !quoted) yield i + 1;
  }
  if (text.length && text.charCodeAt(text.length - 1) !== 10) yield text.length;
}

function parts(text) {
  const encoder = new TextEncoder();
  const found = [];
  let header = "";
  let start = 0;
  let from = 0;
  let rows = 0;
  let bytes = 0;
  let first = 0;
  const close = (end) => {
    if (rows) found.push({ content: header + text.slice(from, end), rows, first });
    first += rows;
    from = end;
    rows = 0;
    bytes = 0;
  };
  for (const end of records(text)) {
    const record = text.slice(start, end);
    if (!header) {
      if (record.trim()) header = record;
      from = end;
    } else {
      const size = encoder.encode(record).length;
      if (rows && (rows === CALL_ROWS || header.length * 3 + bytes + size > CALL_BYTES)) close(start);
      rows += 1;
      bytes += size;
    }
    start = end;
  }
  close(start);
  return found;
}

async function partsOf(file) {
  const whole = [{ content: file, rows: 0, first: 0 }];
  const csv = !/\.parquet$/i.test(file.name);
  if (!csv || (file.size <= CALL_BYTES && CALL_ROWS * 2 > file.size)) return whole;
  const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  const found = parts(text);
  return found.length > 1 ? found : whole;
}

function send(data, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.responseType = "blob";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    request.addEventListener("load", () => resolve(request));
    request.addEventListener("error", () => reject(new Error("The server cannot be reached.")));
    request.send(data);
  });
}

function paragraph(text) {
  const made = document.createElement("p");
  made.textContent = text;
  return made;
}

function offer(blobs, name, said) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(blobs, { type: blobs[0].type }));
  link.download = name;
  link.className = "button";
  link.textContent = `Download ${name}`;
  const line = document.createElement("p");
  line.append(link);
  place().append(paragraph(said), line);
  return link;
}

// Shows what a page says of a part that was refused, and which columns there are.
async function refuse(request) {
  const page = new DOMParser().parseFromString(await request.response.text(), "text/html");
  const told = page.getElementById("answer");
  if (!told && request.status < 400) throw new Error("You are not signed in any more: load the page again.");
  if (!told) throw new Error(page.querySelector("main p")?.textContent ?? `The server said ${request.status}.`);
  place().replaceChildren(...told.childNodes);
  const mapping = page.getElementById("mapping");
  if (mapping.querySelector("details").open) document.getElementById("mapping").replaceWith(mapping);
}

async function score(file) {
  const heading = document.createElement("h2");
  heading.textContent = "Answer";
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.setAttribute("aria-label", "Progress");
  const said = paragraph("Sending it.");
  place().replaceChildren(heading, bar, said);
  const all = await partsOf(file);
  const blobs = [];
  let name = "";
  for (const [index, part] of all.entries()) {
    const data = new FormData(form);
    data.set("file", new File([part.content], file.name));
    data.set("first", part.first);
    const request = await send(data, (share) => {
      bar.value = (index + share * 0.9) / all.length;
      if (share === 1) said.textContent = all.length === 1 ? "Waiting for the answers." : `Part ${index + 1} of ${all.length}: waiting for the answers.`;
    });
    if (!request.getResponseHeader("content-disposition")) {
      await refuse(request);
      if (blobs.length) offer(blobs, name, `The ${part.first} rows before this part are scored, and on record.`);
      return;
    }
    blobs.push(request.response);
    name = /filename="([^"]+)"/.exec(request.getResponseHeader("content-disposition"))[1];
    bar.value = (index + 1) / all.length;
    if (part.rows) said.textContent = `${part.first + part.rows} rows are scored.`;
  }
  place().replaceChildren(heading);
  offer(blobs, name, all.length > 1 ? `Scored in ${all.length} calls.` : "The file is scored.").focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await score(form.elements.file.files[0]);
  } catch (error) {
    place().append(paragraph(error instanceof TypeError ? "The file is not UTF-8." : error.message));
  }
  button.disabled = false;
});

// What the header of a CSV file says fills in which column is which.
form.elements.file.addEventListener("change", async () => {
  const [file] = form.elements.file.files;
  if (!file || /\.parquet$/i.test(file.name)) return;
  const line = (await file.slice(0, 65536).text()).split(/\r?\n/).find((it) => it.trim()) ?? "";
  const names = [...line.matchAll(/"((?:[^"]|"")*)"|([^,"]+)/g)].map((it) => (it[1] ?? it[2]).replaceAll('""', '"'));
  document.getElementById("names").replaceChildren(...names.map((it) => new Option(it, it)));
  let unknown = false;
  for (const input of form.querySelectorAll("[data-feature]")) {
    if (!names.includes(input.value)) {
      const alike = names.filter((it) => letters(it) === letters(input.dataset.feature));
      if (alike.length === 1) [input.value] = alike;
      unknown = true;
    }
    input.toggleAttribute("aria-invalid", false);
  }
  document.querySelector("#mapping details").open = unknown;
});
