// Receipts: all that is in one is verified under the policy, or it fails (formats.md, section 13).

const SECTIONS = [
  "entry",
  "proof",
  "not-before",
  "not-before-consistency",
  "key-entry",
  "key-proof",
  "anchor-entry",
  "anchor",
  "consistency",
];
const LEDGER_WRITTEN = {
  "checkpoint.anchored/1": "governing",
  "submission.rejected/1": null,
  "access.read/1": "access",
  "restore.declared/1": "governing",
};
const CLOCK_ALLOWANCE = 300;

function splitReceipt(bytes) {
  const first = utf8("daybook.receipt/1\n");
  if (!equal(bytes.subarray(0, first.length), first)) fail("receipt: the first line is not 'daybook.receipt/1'");
  const sections = new Map();
  let allowed = 0;
  let at = first.length;
  while (at < bytes.length) {
    const end = bytes.subarray(at, at + 64).indexOf(10);
    const heading = end < 0 ? "" : String.fromCharCode(...bytes.subarray(at, at + end));
    const found = /^([a-z-]+) ([0-9]+)$/.exec(heading) ?? fail("receipt: not a section heading");
    const place = SECTIONS.indexOf(found[1]);
    if (place < allowed) fail(`receipt: section ${found[1]} is unknown, or not in its place`);
    allowed = place + 1;
    const start = at + end + 1;
    const length = decimal(found[2]);
    if (length < 1n || BigInt(start) + length >= BigInt(bytes.length)) fail(`receipt: section ${found[1]} has not its length`);
    at = start + Number(length);
    if (bytes[at] !== 10) fail(`receipt: section ${found[1]} has not the length that it states`);
    sections.set(found[1], bytes.subarray(start, at));
    at += 1;
  }
  return sections;
}

function hasGroup(sections, required, optional) {
  const there = required.map((name) => sections.has(name));
  if (!there.every(Boolean) && (there.some(Boolean) || (optional && sections.has(optional)))) {
    fail(`receipt: of the sections ${required.join(", ")} one is missing`);
  }
  return there.every(Boolean);
}

function parseProof(bytes) {
  const text = textOf(bytes, "tlog-proof");
  const blank = text.indexOf("\n\n");
  if (blank < 0 || blank + 2 === text.length) fail("tlog-proof: no checkpoint after a blank line");
  const [header, index, ...lines] = text.slice(0, blank).split("\n");
  if (header !== "c2sp.org/tlog-proof@v1") fail("tlog-proof: not its first line");
  if (!index?.startsWith("index ")) fail("tlog-proof: no index line where it must stand");
  if (lines.length > 63) fail("tlog-proof: too many hashes");
  return {
    index: decimal(index.slice(6)),
    path: lines.map((line) => unbase64(line, 32)),
    note: text.slice(blank + 2),
  };
}

function hashLines(bytes) {
  if (!bytes) return [];
  const lines = textOf(bytes, "hashes").split("\n");
  if (lines.pop() !== "") fail("hashes: the last line does not end with LF");
  return lines.map((line) => unbase64(line, 32));
}

// An entry: the envelope is the ledger's own and strict; the record is read leniently.

function parseEntry(bytes) {
  if (bytes.length > 65_535) fail("entry: too long");
  const end = bytes.indexOf(10);
  if (end < 0) fail("entry: no LF after the envelope");
  if (end > 4_094) fail("envelope: too long");
  const text = textOf(bytes.subarray(0, end), "envelope");
  const envelope = jsonObject(bytes.subarray(0, end), "envelope");
  const members = ["accepted_at", "governing_size", "submitter", "type"];
  const { submission } = envelope;
  if (!hasExactly(envelope, submission === undefined ? members : [...members, "submission"])) fail("envelope: not of its shape");
  if (envelope.type !== "entry/1" || !isMoment(envelope.accepted_at)) fail("envelope: type or accepted_at is malformed");
  if (!isUint(envelope.governing_size)) fail("envelope: governing_size is out of range");
  const { submitter } = envelope;
  if (typeof submitter !== "string" || !/^(?:anonymous|ledger|uri:[!#-[\]-~]+)$/.test(submitter) || submitter.length > 256) {
    fail("envelope: submitter not of the fixed form");
  }
  if ((submitter === "ledger") !== (submission === undefined)) fail("envelope: the submitter does not fit the submission");
  const membership = submission === undefined ? null : membershipOf(submission);
  if (canonicalEnvelope(envelope) !== text) fail("envelope: not in canonical form");
  return { envelope, membership, record: bytes.subarray(end + 1) };
}

const isUint = (value) => Number.isSafeInteger(value) && value >= 0;

function isMoment(text) {
  if (typeof text !== "string" || !/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$/.test(text)) return false;
  const moment = new Date(text);
  return !Number.isNaN(moment.getTime()) && moment.toISOString() === text;
}

function membershipOf(value) {
  const { count, position, path, signatures } = value ?? {};
  const names = ["count", "position", "signatures"];
  if (!hasExactly(value, path === undefined ? names : [...names, "path"])) fail("envelope: a submission not of its shape");
  if (!isUint(count) || !isUint(position) || count < 1 || count > 1_000 || position >= count) fail("envelope: count or position");
  if ((path === undefined) !== (count === 1) || (path !== undefined && typeof path !== "string")) fail("envelope: path");
  const hashes = path === undefined ? new Uint8Array() : unbase64(path);
  if (hashes.length !== 32 * pathLength(BigInt(position), BigInt(count))) fail("envelope: path has not its length");
  if (!Array.isArray(signatures) || signatures.length < 1 || signatures.length > 8) fail("envelope: not 1 to 8 signatures");
  let before = "";
  const signed = signatures.map((each) => {
    if (!hasExactly(each, ["key", "signature"]) || typeof each.key !== "string" || typeof each.signature !== "string") {
      fail("envelope: a signature not of its shape");
    }
    if (each.key <= before) fail("envelope: signatures are not sorted by key, or a key stands twice");
    before = each.key;
    return { key: unbase64(each.key, 32), signature: unbase64(each.signature, 64) };
  });
  const list = [];
  for (let at = 0; at < hashes.length; at += 32) list.push(hashes.subarray(at, at + 32));
  return { count, position, path: list, signatures: signed };
}

function canonicalEnvelope({ accepted_at, governing_size, submission, submitter, type }) {
  const ordered = { accepted_at, governing_size };
  if (submission !== undefined) {
    const { count, path, position, signatures } = submission;
    ordered.submission = {
      count,
      ...(path === undefined ? {} : { path }),
      position,
      signatures: signatures.map(({ key, signature }) => ({ key, signature })),
    };
  }
  return JSON.stringify({ ...ordered, submitter, type });
}

function membersOf(record) {
  try {
    const value = JSON.parse(decoder.decode(record));
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

// Every author's signature, from the entry alone: the record's path leads to the root that was signed.
async function verifyAuthors(state, entry, origin) {
  const { count, position, path, signatures } = entry.membership;
  const root = await rootFromInclusion(BigInt(position), BigInt(count), await leafHash(entry.record), path);
  const body = utf8(`daybook.submission/1\n${origin}\n${count}\n${base64(root)}\n`);
  const type = "application/vnd.daybook.submission+text";
  const message = concat(utf8(`DSSEv1 ${type.length} ${type} ${body.length} `), body);
  if (!origin.endsWith("/governing") && signatures.length !== 1) fail("a department's entry has exactly one signature");
  for (const each of signatures) await verifyEd25519(state, each.key, message, each.signature, "submission");
}

async function verifyProof(state, proof, entry, origin) {
  const judged = await judge(state, proof.note, origin);
  await verifyInclusion(proof.index, judged.checkpoint.size, await leafHash(entry), proof.path, judged.checkpoint.root);
  return judged;
}

// What a receipt proves under the policy of `state`. Throws a Fault where anything in it does not hold.
async function verifyReceipt(state, bytes) {
  const sections = splitReceipt(bytes);
  const has = {
    notBefore: hasGroup(sections, ["not-before"], "not-before-consistency"),
    key: hasGroup(sections, ["key-entry", "key-proof"]),
    anchor: hasGroup(sections, ["anchor-entry", "anchor"], "consistency"),
  };
  if (!hasGroup(sections, ["entry", "proof"])) fail("receipt: no entry and no proof");
  const proof = parseProof(sections.get("proof"));
  const origin = proof.note.slice(0, Math.max(0, proof.note.indexOf("\n")));
  const slash = origin.indexOf("/");
  const [ledger, register] = [origin.slice(0, slash), origin.slice(slash + 1)];
  if (slash < 1 || !isLedgerOrigin(ledger) || !isRegister(register)) fail("receipt: not the origin of a register");
  const entry = parseEntry(sections.get("entry"));
  const judged = await verifyProof(state, proof, sections.get("entry"), origin);
  const members = membersOf(entry.record);
  const stated = own(members, "register");
  if (stated !== undefined && stated !== register) fail(`receipt: the record is not of register ${register}`);
  if (entry.membership) await verifyAuthors(state, entry, origin);
  else checkUnsigned(own(members, "type"), register);
  const subject = { state, ledger, register, origin, entry, members, judged, index: proof.index };
  const cosignatures = [...judged.cosignatures];
  if (has.notBefore) cosignatures.push(...(await verifyNotBefore(subject, sections)));
  const authorised = has.key ? await verifyKey(subject, sections) : null;
  let anchored = null;
  if (has.anchor) {
    const found = await verifyAnchor(subject, sections);
    anchored = found.at;
    cosignatures.push(...found.cosignatures);
  }
  const bounds = boundsOf(state.policy, cosignatures, proof.index);
  return {
    ledger,
    register,
    index: proof.index,
    size: judged.checkpoint.size,
    root: judged.checkpoint.root,
    entry,
    members,
    notes: notesOf(subject, sections, proof),
    sealed: judged.sealed,
    authorised,
    anchored,
    bounds,
    department: register.includes("/") && entry.membership ? register.split("/")[0] : null,
    findings: timeFindings(entry, bounds),
  };
}

function checkUnsigned(type, register) {
  const where = typeof type === "string" && Object.hasOwn(LEDGER_WRITTEN, type) ? LEDGER_WRITTEN[type] : undefined;
  if (where === undefined || (where !== null && where !== register)) fail("receipt: an entry of its type must be signed here");
}

async function verifyNotBefore({ state, origin, index, judged }, sections) {
  const earlier = await judge(state, textOf(sections.get("not-before"), "not-before"), origin);
  const proof = hashLines(sections.get("not-before-consistency"));
  const { size, root } = earlier.checkpoint;
  if (size > index) fail(`receipt: the not-before checkpoint of size ${size} covers the entry`);
  if (size > 0n) await verifyConsistency(size, judged.checkpoint.size, root, judged.checkpoint.root, proof);
  state.step(earlier.checkpoint, judged.checkpoint);
  if (size === 0n && proof.length) fail("receipt: nothing to prove from size 0, yet there is a not-before-consistency");
  return earlier.cosignatures;
}

async function verifyKey({ state, ledger, register, entry, origin }, sections) {
  if (!entry.membership || !register.includes("/")) fail("receipt: key sections, but no department signed the entry");
  const governing = `${ledger}/governing`;
  const bytes = sections.get("key-entry");
  const keyEntry = parseEntry(bytes);
  const proof = parseProof(sections.get("key-proof"));
  const judged = await verifyProof(state, proof, bytes, governing);
  if (!keyEntry.membership) fail("receipt: the key entry is not signed");
  await verifyAuthors(state, keyEntry, governing);
  const members = membersOf(keyEntry.record);
  const signer = entry.membership.signatures[0].key;
  const expected = {
    type: "key.authorised/1",
    register: "governing",
    department: register.split("/")[0],
    key: base64(signer),
  };
  for (const [name, value] of Object.entries(expected)) {
    if (own(members, name) !== value) fail(`receipt: ${name} of the key entry is not ${value}`);
  }
  if (!keyEntry.membership.signatures.some((each) => equal(each.key, signer))) {
    fail("receipt: the key entry is not signed by the key that it authorises");
  }
  if (proof.index >= BigInt(entry.envelope.governing_size)) fail("receipt: the key was authorised after the entry was judged");
  return { index: proof.index, size: judged.checkpoint.size };
}

async function verifyAnchor({ state, ledger, register, origin, index, judged }, sections) {
  if (register === "governing") fail("receipt: the governing register is not anchored in itself");
  const bytes = sections.get("anchor-entry");
  const entry = parseEntry(bytes);
  const proof = parseProof(sections.get("anchor"));
  await verifyProof(state, proof, bytes, `${ledger}/governing`);
  if (entry.membership) fail("receipt: the anchor entry was not written by the ledger");
  const members = membersOf(entry.record);
  if (own(members, "type") !== "checkpoint.anchored/1" || own(members, "register") !== "governing") {
    fail("receipt: the anchor entry is not an anchor");
  }
  const note = anchoredNote(members);
  const anchored = await judge(state, note, origin);
  if (anchored.checkpoint.size <= index) fail("receipt: the anchored checkpoint does not cover the entry");
  const [smaller, larger] =
    anchored.checkpoint.size < judged.checkpoint.size ? [anchored.checkpoint, judged.checkpoint] : [judged.checkpoint, anchored.checkpoint];
  const consistency = hashLines(sections.get("consistency"));
  await verifyConsistency(smaller.size, larger.size, smaller.root, larger.root, consistency);
  state.step(smaller, larger);
  return { at: { index: proof.index, size: anchored.checkpoint.size }, cosignatures: anchored.cosignatures };
}

function anchoredNote(members) {
  const note = own(members, "checkpoint");
  if (typeof note !== "string" || /\p{Surrogate}/u.test(note) || utf8(note).length > 16_384) {
    fail("receipt: the anchored note is malformed, or too long");
  }
  return note;
}

function notesOf(subject, sections, proof) {
  const notes = [proof.note];
  if (sections.has("not-before")) notes.push(decoder.decode(sections.get("not-before")));
  if (sections.has("key-proof")) notes.push(parseProof(sections.get("key-proof")).note);
  if (sections.has("anchor")) {
    notes.push(parseProof(sections.get("anchor")).note);
    notes.push(anchoredNote(membersOf(parseEntry(sections.get("anchor-entry")).record)));
  }
  return notes;
}

function timeFindings(entry, bounds) {
  const claimed = entry.envelope.accepted_at;
  const seconds = Date.parse(claimed) / 1000;
  const found = [];
  if (bounds.notAfter !== null && seconds > Number(bounds.notAfter) + CLOCK_ALLOWANCE) {
    found.push(`impossible: accepted_at claims ${claimed}, but witnesses knew the entry by ${instant(bounds.notAfter)}`);
  }
  if (bounds.notBefore !== null && seconds < Number(bounds.notBefore)) {
    found.push(`claimed earlier than witnessed: accepted_at claims ${claimed}, but witnesses knew no such entry at ${instant(bounds.notBefore)}`);
  }
  return found;
}

function instant(seconds) {
  const moment = new Date(Number(seconds) * 1000);
  return Number.isNaN(moment.getTime()) ? `${seconds} s` : moment.toISOString().replace(".000Z", "Z");
}

// A disclosure opens a withheld field where its salted digest is the one in the record.
async function openDisclosure(bytes, verified) {
  const value = distinctObject(bytes, "disclosure");
  if (!hasExactly(value, ["disclosures", "record_id", "register", "type", "version"]) || value.type !== "disclosure/1") {
    fail("disclosure: not of its shape");
  }
  for (const name of ["register", "record_id", "version"]) {
    if (value[name] === undefined || value[name] !== own(verified.members, name)) fail(`disclosure: of another record: ${name} differs`);
  }
  if (!Array.isArray(value.disclosures) || !value.disclosures.length) fail("disclosure: opens nothing");
  const digests = own(verified.members, "withheld");
  const opened = new Map();
  let before = "";
  for (const each of value.disclosures) {
    if (!hasExactly(each, ["path", "salt", "value"]) || typeof each.path !== "string" || typeof each.salt !== "string") {
      fail("disclosure: an opening not of its shape");
    }
    const salt = unhex(each.salt);
    if (each.path <= before || salt.length !== 32) fail("disclosure: paths are not sorted, or a salt is not 32 bytes");
    before = each.path;
    const head = `daybook.withheld/1\n${verified.ledger}/${value.register}\n${value.record_id}\n${value.version}\n${each.path}\n`;
    const found = hex(await sha256(concat(utf8(head), salt, utf8(canonicalText(each.value)))));
    if (own(digests, each.path) !== found) fail(`disclosure: ${each.path} does not open a field of this record`);
    opened.set(each.path, each.value);
  }
  return opened;
}
