"use strict";
// Draws openapi.json as a plain page: FastAPI's own pages load their program from a CDN.

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function kindOf(field) {
  const kinds = (field.anyOf || [field]).map((one) => one.items ? `list of ${one.items.type}` : one.type);
  return kinds.filter((kind) => kind && kind !== "null").join(" or ");
}

function fieldsOf(schema) {
  const table = element("table");
  for (const [name, field] of Object.entries(schema.properties || {})) {
    const needed = (schema.required || []).includes(name) ? ", needed" : "";
    table.append(element("tr", {},
      element("th", { scope: "row" }, element("code", { textContent: name })),
      element("td", { textContent: `${kindOf(field)}${needed}` }),
      element("td", { textContent: field.description || "" })));
  }
  return table;
}

function routeOf(method, path, about) {
  const box = element("article", {}, element("h2", {}, element("code", { textContent: `${method.toUpperCase()} ${path}` })));
  box.append(element("p", { textContent: about.summary || "" }));
  const bodies = (about.requestBody || { content: {} }).content;
  for (const [kind, body] of Object.entries(bodies)) {
    box.append(element("h3", { textContent: kind }), fieldsOf(body.schema));
  }
  const answers = Object.entries(about.responses || {}).map(([status, one]) =>
    element("li", { textContent: `${status}: ${one.description}` }));
  box.append(element("ul", {}, ...answers));
  return box;
}

async function load() {
  const about = await (await fetch("openapi.json")).json();
  const routes = Object.entries(about.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, route]) => routeOf(method, path, route)));
  document.getElementById("routes").replaceChildren(element("p", { textContent: about.info.description }), ...routes);
}

load().catch((error) => { document.getElementById("routes").textContent = `Error: ${error.message}`; });
