// The API's description, drawn from openapi.json alone: nothing comes from elsewhere.

import { element } from "./panel.js";

const response = await fetch("openapi.json");
const api = await response.json();
document.getElementById("introduction").textContent = api.info.description.replaceAll("**", "");
document.getElementById("origin").textContent = location.origin;

const typeOf = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.prefixItems) return `[${schema.prefixItems.map(typeOf).join(", ")}]`;
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.additionalProperties) return `{name: ${typeOf(schema.additionalProperties)}}`;
  return schema.format === "binary" ? "bytes" : schema.type ?? "anything";
};

const contentOf = (content = {}) => {
  const kinds = Object.entries(content).map(([kind, { schema }]) => {
    const names = Object.keys(schema?.properties ?? {}).join(", ");
    const fields = names && !schema.$ref ? ` (fields ${names})` : "";
    return kind === "application/json" ? `JSON ${typeOf(schema)}` : kind + fields;
  });
  return kinds.join(", ");
};

const list = (pairs) => element("dl", {}, ...pairs.flatMap(([name, text]) => [
  element("dt", {}, name),
  element("dd", {}, text),
]));

const groups = new Map();
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, route] of Object.entries(methods)) {
    const rows = [];
    for (const { name, in: where, required } of route.parameters ?? []) {
      rows.push([name, `${where}${required ? "" : ", optional"}`]);
    }
    if (route.requestBody) rows.push(["body", contentOf(route.requestBody.content)]);
    for (const [status, { description, content }] of Object.entries(route.responses)) {
      rows.push([status, [description, contentOf(content)].filter(Boolean).join(" – ")]);
    }
    const title = element("h3", {}, element("span", { class: "method" }, method.toUpperCase()), path);
    const section = element("section", {}, title, element("p", {}, route.description ?? ""), list(rows));
    const tag = route.tags?.[0] ?? "other";
    groups.set(tag, [...(groups.get(tag) ?? []), section]);
  }
}
const sections = [...groups].flatMap(([tag, own]) => [element("h2", {}, tag), ...own]);
document.getElementById("routes").replaceChildren(...sections);

const types = Object.entries(api.components.schemas).filter(([name]) => !/Validation/.test(name));
document.getElementById("types").replaceChildren(...types.map(([name, schema]) => {
  const rows = Object.entries(schema.properties ?? {}).map(([field, own]) => {
    return [field, [typeOf(own), own.description].filter(Boolean).join(": ")];
  });
  const title = element("h3", {}, name);
  return element("section", { id: name }, title, element("p", {}, schema.description ?? ""), list(rows));
}));
