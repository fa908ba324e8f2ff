"use strict";
// Draws the page's data block. Text from runs goes in as text nodes and attributes, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const PAD = { left: 62, right: 18, top: 10, bottom: 26 };
const REACH = 14; // pixels within which a dot of the second curve belongs to the pointer
const DENSE = 2.5; // pixels a point: closer ones are drawn as their mean, with their extremes
const MOST_DOTS = 60; // of a second curve; more would hide the first
const state = { axis: data.axis, range: null, off: new Set(), log: new Set(), loud: null };
if (data.log) for (const panel of data.panels) if (panel.can_log) state.log.add(panel.key);
const cards = [];

function make(tag, attributes = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
}
function shape(parent, tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}
function button(text, pressed, act, kind = "") {
  const element = make("button", { type: "button", class: kind, "aria-pressed": pressed }, text);
  element.addEventListener("click", act);
  return element;
}
const colour = (run) => `c${run.number % 8}`;
const dash = (run) => (run.number < 8 ? "" : ` dash${1 + (Math.floor(run.number / 8) - 1) % 6}`);
const several = () => data.runs.length > 1;
const shown = () => data.runs.filter((run) => !state.off.has(run.number));
