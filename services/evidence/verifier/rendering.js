// A record as a person reads it: the same text, byte for byte, as rendering.py writes into the pack.

const NOT_CANONICAL = "The bytes of this record are not canonical JSON. Read record.json, byte by byte.\n";
const HIDDEN =
  /[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\uf8ff\ufeff\ufff9-\ufffb\u{e0000}-\u{e0fff}\u{f0000}-\u{10ffff}]/gu;

function renderRecord(record) {
  let text;
  let value;
  try {
    text = decoder.decode(record);
    value = JSON.parse(text);
  } catch {
    return NOT_CANONICAL;
  }
  if (!isObject(value) || !isPlain(value, 1) || canonicalText(value) !== text) return NOT_CANONICAL;
  return textLines(value, "")
    .map((line) => `${line}\n`)
    .join("");
}

const renderOpened = (opened) =>
  [...opened.keys()]
    .sort()
    .flatMap((path) => textLines(opened.get(path), path))
    .map((line) => `${line}\n`)
    .join("");

function isPlain(value, depth) {
  if (typeof value === "boolean" || isUint(value)) return true;
  if (typeof value === "string") return !/\p{Surrogate}/u.test(value);
  if (typeof value !== "object" || value === null || depth > 16) return false;
  if (Array.isArray(value)) return value.every((item) => isPlain(item, depth + 1));
  return Object.entries(value).every(([name, item]) => /^[ -~]+$/.test(name) && isPlain(item, depth + 1));
}

function canonicalText(value) {
  if (Array.isArray(value)) return `[${value.map(canonicalText).join(",")}]`;
  if (!isObject(value)) return JSON.stringify(value);
  const members = Object.keys(value).sort();
  return `{${members.map((name) => `${JSON.stringify(name)}:${canonicalText(value[name])}`).join(",")}}`;
}

function textLines(value, path) {
  if (Array.isArray(value)) return value.flatMap((item, place) => textLines(item, `${path}/${place}`));
  if (isObject(value)) {
    const names = Object.keys(value).sort();
    return names.flatMap((name) => textLines(value[name], path ? `${path}.${name}` : name));
  }
  if (typeof value === "boolean") return [`${path}: ${value ? "yes" : "no"}`];
  if (typeof value !== "string") return [`${path}: ${value}`];
  const [first, ...rest] = visible(value).split("\n");
  return [`${path}: ${first}`, ...rest.map((line) => `    | ${line}`)];
}

const visible = (text) =>
  text.replace(HIDDEN, (found) => `{U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}}`);
