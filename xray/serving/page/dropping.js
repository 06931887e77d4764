// Files that are chosen, or dropped anywhere on the page.

const $ = (id) => document.getElementById(id);

// add: called with the files.
export function handleDrops(add) {
  $("input").addEventListener("change", (event) => {
    add(event.target.files);
    // The same file may be chosen again.
    event.target.value = "";
  });
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    $("dropping").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("dropping").hidden = true;
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("dropping").hidden = true;
    add(event.dataTransfer?.files ?? []);
  });
}
