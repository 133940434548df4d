// Bytes and their spellings. Every spelling has one form: another one of the same value is refused.

class Fault extends Error {}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const fail = (text) => {
  throw new Fault(text);
};

const utf8 = (text) => encoder.encode(text);

function textOf(bytes, what) {
  try {
    return decoder.decode(bytes);
  } catch {
    return fail(`${what}: not UTF-8`);
  }
}

function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function equal(one, other) {
  if (one.length !== other.length) return false;
  for (let at = 0; at < one.length; at += 1) if (one[at] !== other[at]) return false;
  return true;
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

function hex(bytes) {
  let text = "";
  for (const byte of bytes) text += HEX[byte];
  return text;
}

function unhex(text) {
  if (!/^(?:[0-9a-f]{2})*$/.test(text)) fail("not lower-case hex digits");
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

const base64 = (bytes) => btoa(String.fromCharCode(...bytes));

function unbase64(text, size) {
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) fail("not base64");
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  if (base64(bytes) !== text) fail("base64 in another than its canonical spelling");
  if (size !== undefined && bytes.length !== size) fail(`base64 of ${bytes.length} bytes, not ${size}`);
  return bytes;
}

const MOST = 2n ** 63n - 1n;

function decimal(text) {
  if (!/^(?:0|[1-9][0-9]{0,18})$/.test(text) || BigInt(text) > MOST) fail("not a decimal number of 0..2^63-1");
  return BigInt(text);
}

const bitLength = (number) => (number === 0n ? 0 : number.toString(2).length);
const bitCount = (number) => number.toString(2).replaceAll("0", "").length;

// A JSON object. Of a member that stands twice JSON.parse keeps the last one in silence: whoever calls this compares
// the spelling, or calls `distinctObject`.
function jsonObject(bytes, what) {
  const text = textOf(bytes, what);
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    fail(`${what}: not JSON`);
  }
  if (!isObject(value)) fail(`${what}: not a JSON object`);
  return value;
}

// A JSON object in which no member stands twice.
function distinctObject(bytes, what) {
  const value = jsonObject(bytes, what);
  if (repeatsMember(textOf(bytes, what))) fail(`${what}: a member stands twice`);
  return value;
}

// Whether an object of a JSON text has a member twice.
function repeatsMember(text) {
  const open = [];
  let last = "";
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\]:,]/g)) {
    if (token === "{" || token === "[") open.push(new Set());
    else if (token === "}" || token === "]") open.pop();
    else if (token === ":") {
      const name = JSON.parse(last);
      if (open.at(-1).has(name)) return true;
      open.at(-1).add(name);
    }
    last = token;
  }
  return false;
}

// A JSON object in the one spelling in which packs are written: ASCII, sorted, one member a line.
function ownObject(bytes, what) {
  const value = jsonObject(bytes, what);
  const sorted = (each) => {
    if (Array.isArray(each)) return each.map(sorted);
    if (!isObject(each)) return each;
    return Object.fromEntries(Object.keys(each).sort().map((name) => [name, sorted(each[name])]));
  };
  const plain = JSON.stringify(sorted(value), null, 1).replace(
    /[^\n -~]/g,
    (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  if (`${plain}\n` !== textOf(bytes, what)) fail(`${what}: not spelled as packs are`);
  return value;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const own = (value, name) => (isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined);
const hasExactly = (value, names) =>
  isObject(value) && Object.keys(value).sort().join("\n") === [...names].sort().join("\n");
