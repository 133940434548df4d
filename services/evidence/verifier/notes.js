// Signed notes, checkpoints and witness policies (C2SP). The signed bytes are the text as received.

const ED25519 = 1;
const COSIGNATURE = 4;
const KEY_NAME = /^[^\x00-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000+]+$/u;
const FUTURE_TOLERANCE = 300n;

async function keyOf(name, type, publicKey) {
  const bytes = await once(`key ${type} ${hex(publicKey)} ${name}`, () =>
    sha256(concat(utf8(name), Uint8Array.of(10, type), publicKey)),
  );
  return { name, type, publicKey, id: hex(bytes.subarray(0, 4)) };
}

async function parseVkey(text) {
  const [, name, id, encoded] = /^([^+]*)\+([^+]*)\+(.*)$/s.exec(text) ?? fail("verifier key: not <name>+<key id>+<key>");
  if (!KEY_NAME.test(name) || !/^[0-9a-f]{8}$/.test(id)) fail("verifier key: the name or the key ID is malformed");
  const bytes = unbase64(encoded);
  if (bytes.length !== 33) fail(`verifier key ${name}: not 32 bytes`);
  if (bytes[0] !== ED25519 && bytes[0] !== COSIGNATURE) fail(`verifier key ${name}: its type is not supported`);
  const key = await keyOf(name, bytes[0], bytes.subarray(1));
  if (key.id !== id) fail(`verifier key ${name}: key ID ${id} is not ${key.id}`);
  return key;
}

function splitNote(text) {
  if (text.length > 1_000_000) fail("note: too long");
  if (/[\x00-\x09\x0b-\x1f]/.test(text)) fail("note: holds a control character");
  const separator = text.lastIndexOf("\n\n");
  if (separator < 0) fail("note: no blank line before the signatures");
  const rest = text.slice(separator + 2);
  if (!rest || !rest.endsWith("\n")) fail("note: does not end in a signature line with LF");
  const lines = rest.slice(0, -1).split("\n");
  if (lines.length > 100) fail("note: too many signature lines");
  return { text: text.slice(0, separator + 1), lines: lines.map(signatureLine) };
}

function signatureLine(line) {
  if (!line.startsWith("\u2014 ")) fail("note: a signature line does not start with an em dash and a space");
  const [, name, encoded] = /^([^ ]*) (.*)$/s.exec(line.slice(2)) ?? fail("note: a signature line without a signature");
  if (!KEY_NAME.test(name)) fail("note: a key name is malformed");
  const payload = unbase64(encoded);
  if (payload.length < 5) fail("note: a signature is too short");
  return { name, id: hex(payload.subarray(0, 4)), signature: payload.subarray(4) };
}

const bigEndian = (bytes) => BigInt(`0x${hex(bytes)}`);

async function verifyLine(state, key, text, signature) {
  const what = `note: signature of ${key.name}`;
  if (key.type === ED25519) return verifyEd25519(state, key.publicKey, utf8(text), signature, what);
  if (signature.length !== 72) fail(`${what}: not 72 bytes`);
  const time = bigEndian(signature.subarray(0, 8));
  if (time < 1n || time > MOST) fail(`${what}: the time is out of range`);
  const message = utf8(`cosignature/v1\ntime ${time}\n${text}`);
  return verifyEd25519(state, key.publicKey, message, signature.subarray(8), what);
}

// The lines of known keys, each verified. One wrong line of a known key refuses the note.
async function openNote(state, data, keys) {
  const known = new Map(keys.map((key) => [`${key.name} ${key.id}`, key]));
  const { text, lines } = splitNote(data);
  const verified = new Map();
  let others = 0;
  for (const line of lines) {
    const by = `${line.name} ${line.id}`;
    if (!known.has(by)) others += 1;
    else if (!verified.has(by)) {
      await verifyLine(state, known.get(by), text, line.signature);
      verified.set(by, line);
    }
  }
  if (!verified.size) fail("note: no signature of a key that the policy names");
  return { text, verified, others };
}

function parseCheckpoint(text) {
  const lines = text.split("\n");
  if (lines.pop() !== "" || lines.length < 3 || lines.some((line) => !line)) {
    fail("checkpoint: not origin, size and root, each a line with LF");
  }
  const checkpoint = { origin: lines[0], size: decimal(lines[1]), root: unbase64(lines[2], 32) };
  if (checkpoint.size === 0n && lines[2] !== "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=") {
    fail("checkpoint: size 0 without the root of the empty tree");
  }
  return checkpoint;
}

const isLedgerOrigin = (text) => /^[a-z0-9.-]{1,80}$/.test(text);
const RESERVED = new Set(["governing", "access", "checkpoint", "tile", "logs", "acknowledgements"]);
const isSlug = (text) => /^[a-z0-9]+(?:-[a-z0-9]+)*$/.test(text) && text.length <= 100 && !RESERVED.has(text);
const isRegister = (text) =>
  text === "governing" || text === "access" || (text.split("/").length === 2 && text.split("/").every(isSlug));

// A policy: whom the reader trusts.

async function parsePolicy(bytes) {
  const text = textOf(bytes, "policy");
  if (text.includes("PRIVATE+KEY+")) fail("this file holds a secret key, and is not a witness policy file");
  if (/[\x00-\x08\x0b-\x1f\x7f]/.test(text)) fail("policy: a control character");
  const lines = text.split("\n");
  if (lines.pop() !== "") fail("policy: the last line does not end with LF");
  const policy = { logs: [], witnesses: [], groups: [], root: undefined };
  const defined = new Set();
  const taken = new Set();
  for (const [number, line] of lines.entries()) {
    const items = line.split(/[ \t]+/).filter(Boolean);
    if (!items.length || items[0].startsWith("#")) continue;
    try {
      await policyLine(policy, defined, taken, items);
    } catch (error) {
      if (error instanceof Fault) fail(`line ${number + 1}: ${error.message}`);
      throw error;
    }
  }
  if (policy.root === undefined) fail("policy: no quorum line");
  checkKeys(policy.logs.map((log) => log.key), ED25519);
  checkKeys(policy.witnesses.map((witness) => witness.key), COSIGNATURE);
  policy.fingerprint = hex(await sha256(utf8(plainPolicy(policy))));
  return policy;
}

async function policyLine(policy, defined, taken, items) {
  const [kind, name, ...rest] = items;
  const define = () => {
    if (name === "none") fail("policy: the name 'none' is reserved");
    if (defined.has(name)) fail("policy: a name is defined twice");
    defined.add(name);
  };
  if (kind === "log" && name && rest.length <= 1) {
    policy.logs.push({ key: await parseVkey(name), url: rest[0], vkey: name });
  } else if (kind === "witness" && rest.length >= 1 && rest.length <= 2) {
    define();
    policy.witnesses.push({ name, key: await parseVkey(rest[0]), url: rest[1], vkey: rest[0] });
  } else if (kind === "group" && rest.length >= 1) {
    const [stated, ...members] = rest;
    if (members.some((member) => !defined.has(member))) fail("policy: a member is not defined on an earlier line");
    define();
    const threshold = stated === "all" ? members.length : stated === "any" ? 1 : Number(decimal(stated));
    if (threshold < 1 || threshold > members.length) fail("policy: a threshold that no members can meet");
    for (const member of members) {
      if (taken.has(member)) fail("policy: a member stands twice");
      taken.add(member);
    }
    policy.groups.push({ name, threshold, members });
  } else if (kind === "quorum" && name && !rest.length) {
    if (policy.root !== undefined) fail("policy: a second quorum line");
    if (name !== "none" && !defined.has(name)) fail("policy: the quorum is not defined on an earlier line");
    policy.root = name === "none" ? null : name;
  } else {
    fail("policy: not a log, witness, group or quorum line");
  }
}

function checkKeys(keys, type) {
  if (keys.some((key) => key.type !== type)) fail("policy: a key of a type that does not belong there");
  if (new Set(keys.map((key) => hex(key.publicKey))).size !== keys.length) fail("policy: one public key stands twice");
}

function plainPolicy(policy) {
  const lines = [
    ...policy.logs.map((log) => ["log", log.vkey, log.url]),
    ...policy.witnesses.map((witness) => ["witness", witness.name, witness.vkey, witness.url]),
    ...policy.groups.map((group) => ["group", group.name, String(group.threshold), ...group.members]),
    ["quorum", policy.root ?? "none"],
  ];
  return lines.map((line) => `${line.filter((item) => item !== undefined).join(" ")}\n`).join("");
}

function isMet(policy, witnesses) {
  if (policy.root === null) return true;
  const held = new Set(policy.witnesses.map((each) => each.name).filter((name) => witnesses.has(name)));
  for (const group of policy.groups) {
    if (group.members.filter((member) => held.has(member)).length >= group.threshold) held.add(group.name);
  }
  return held.has(policy.root);
}

// Whether any two quorums share a witness, so that two times may be compared.
function isComparable(policy) {
  if (policy.root === null) return false;
  const split = new Set();
  for (const group of policy.groups) {
    const shared = group.members.filter((member) => split.has(member)).length;
    if (2 * Math.max(0, group.threshold - shared) <= group.members.length - shared) split.add(group.name);
  }
  return !split.has(policy.root);
}

async function logKeys(policy, origin) {
  const keys = policy.logs.map((log) => log.key).filter((key) => key.name === origin);
  const slash = origin.indexOf("/");
  const [ledger, register] = [origin.slice(0, slash), origin.slice(slash + 1)];
  const governing = `${ledger}/governing`;
  if (slash > 0 && origin !== governing && isLedgerOrigin(ledger) && isRegister(register)) {
    for (const log of policy.logs) {
      if (log.key.name === governing) keys.push(await keyOf(origin, log.key.type, log.key.publicKey));
    }
  }
  return keys;
}

// A checkpoint note of `origin` that satisfies the policy. Throws otherwise. The same note is judged once.
function judge(state, note, origin) {
  return state.once(`judge ${origin}\n${note}`, () => judged(state, note, origin));
}

async function judged(state, note, origin) {
  const { policy } = state;
  const logs = await logKeys(policy, origin);
  if (!logs.length) fail(`the policy names no key for the log ${origin}`);
  const opened = await openNote(state, note, [...logs, ...policy.witnesses.map((each) => each.key)]);
  if (!logs.some((key) => opened.verified.has(`${key.name} ${key.id}`))) fail(`checkpoint: no signature of the log ${origin}`);
  const checkpoint = parseCheckpoint(opened.text);
  if (checkpoint.origin !== origin) fail(`checkpoint: its origin is not ${origin}`);
  const cosignatures = [];
  for (const witness of policy.witnesses) {
    const line = opened.verified.get(`${witness.key.name} ${witness.key.id}`);
    if (line) cosignatures.push({ witness: witness.name, size: checkpoint.size, time: bigEndian(line.signature.subarray(0, 8)) });
  }
  if (!isMet(policy, new Set(cosignatures.map((each) => each.witness)))) {
    fail(`checkpoint of ${origin} at size ${checkpoint.size}: not cosigned by the policy's quorum of witnesses`);
  }
  for (const each of cosignatures) {
    if (each.time > state.now + FUTURE_TOLERANCE) fail(`cosignature of ${each.witness}: it is in the future`);
  }
  state.see(checkpoint);
  return { checkpoint, cosignatures, sealed: policy.root !== null };
}

// When an entry came into the witnessed history, by the verified cosignatures (seconds, or null).
function boundsOf(policy, cosignatures, index) {
  const upTo = (chosen) => {
    const taken = new Set();
    for (const each of chosen) {
      taken.add(each.witness);
      if (isMet(policy, taken)) return each.time;
    }
    return null;
  };
  if (policy.root === null) return { notBefore: null, notAfter: null, comparable: false };
  const later = (one, other) => (one.time < other.time ? -1 : one.time > other.time ? 1 : 0);
  return {
    notBefore: upTo(cosignatures.filter((each) => each.size <= index).sort((one, other) => later(other, one))),
    notAfter: upTo(cosignatures.filter((each) => each.size > index).sort(later)),
    comparable: isComparable(policy),
  };
}
