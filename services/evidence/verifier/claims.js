// What a pack says besides its exhibits, held against what these prove: name, keys, findings, checkpoints, custody.

// The name of a pack follows from its receipts, and so does what its custody log begins with.
async function checkIdentifier({ report, state, index, result }) {
  const receipts = index.exhibits.map(({ receipt }) => state.receipts.get(receipt) ?? new Uint8Array());
  result.receipts = hex(await sha256(concat(...receipts)));
  const digests = await Promise.all(receipts.map(sha256));
  const named = `daybook:${index.ledger_origin}/${index.register}:${hex(await sha256(concat(...digests))).slice(0, 16)}`;
  if (!result.faults.length && named !== index.identifier) report("data/index.json", `its identifier is not that of these receipts, ${named}`);
}

async function checkGoverning({ bag, report, state, index, result }) {
  const stated = index.governing;
  if ((stated !== null) !== bag.files.has(GOVERNING)) {
    report(GOVERNING, stated ? "missing: the index states it" : "the index does not state it");
    return;
  }
  if (stated) {
    await bag.guarded(GOVERNING, async () => {
      const [bytes, note] = [await bag.read(GOVERNING), await bag.read(stated.checkpoint)];
      if (!bytes || !note) fail("it cannot be read, or not its checkpoint");
      const entries = unbundle(bytes);
      const origin = `${index.ledger_origin}/governing`;
      const text = textOf(note, "checkpoint");
      const { checkpoint } = await judge(state, text, origin);
      state.notes.add(text);
      if (entries.length !== stated.size) fail("not as many entries as the index states");
      await checkRoots(state, entries, origin, checkpoint);
      const fold = await replay(state, entries, index.ledger_origin);
      const notes = [...state.notes].filter((each) => each.startsWith(`${origin}\n`));
      fold.cosignatures = (await Promise.all(notes.map((each) => judge(state, each, origin)))).flatMap((each) => each.cosignatures);
      result.fold = fold;
    });
    if (!result.fold) return;
  }
  for (const exhibit of result.exhibits) {
    await bag.guarded(exhibit.receipt, async () => {
      exhibit.authority = authorityOf(state, exhibit.verified, result.fold);
    });
  }
}

async function checkFindings({ bag, index, result }) {
  await bag.guarded(FINDINGS, async () => {
    const bytes = bag.files.has(FINDINGS) ? await bag.read(FINDINGS) : undefined;
    result.hasFindings = bytes !== undefined;
    if (bytes) result.links = linkFindings(distinctObject(bytes, "findings"), index);
  });
  await bag.guarded("data/index.json", async () => checkLinks(result.links, index));
}

async function checkCheckpoints({ bag, report, state, result }) {
  const there = new Set();
  for (const name of [...bag.files.keys()].filter((each) => each.startsWith("data/checkpoints/"))) {
    await bag.guarded(name, async () => {
      const bytes = await bag.read(name);
      if (!bytes) return;
      const note = textOf(bytes, "checkpoint");
      const { checkpoint } = await judge(state, note, note.slice(0, Math.max(0, note.indexOf("\n"))));
      const register = checkpoint.origin.slice(checkpoint.origin.indexOf("/") + 1).replaceAll("/", "--");
      const path = `data/checkpoints/${register}-${checkpoint.size}-${hex(await sha256(bytes)).slice(0, 16)}.note`;
      if (!state.notes.has(note) || name !== path) fail("no receipt of this pack has this note");
      there.add(note);
      result.checkpoints += 1;
    });
  }
  if (!result.faults.length && [...state.notes].some((note) => !there.has(note))) {
    report("data/checkpoints", "a note that a receipt has is missing");
  }
}

async function checkOthers({ bag, state, index, result }) {
  await bag.guarded("data/hashes.txt", async () => {
    const bytes = await bag.read("data/hashes.txt");
    const line = (label, path) => `${label}  ${bag.expected.get(path)?.sha256 ?? ""}  ${path}\n`;
    const schedule = index.exhibits.flatMap((listed) => filesOf(listed).map((path) => line(listed.label, path))).join("");
    if (bytes && textOf(bytes, "hash schedule") !== schedule) fail("it does not list what the manifest and the index do");
  });
  await bag.guarded("data/custody.json", async () => {
    const bytes = await bag.read("data/custody.json");
    if (bytes) checkCustody(ownObject(bytes, "custody log"), result.receipts, bag.expected.get("data/hashes.txt")?.sha256);
  });
  await bag.guarded("data/report.txt", async () => {
    const bytes = await bag.read("data/report.txt");
    const text = bytes ? textOf(bytes, "report") : "";
    if (visible(text) !== text) fail("it holds characters that hide, steer or reorder text");
  });
  if (bag.files.has(CONSISTENCY)) {
    await bag.guarded(CONSISTENCY, async () => {
      const bytes = await bag.read(CONSISTENCY);
      if (bytes) await checkConsistency(state, index, ownObject(bytes, "consistency"));
    });
  }
  result.oneHistory = state.isOneHistory();
}

// That the log is of these receipts and of this hash schedule. Who, when and why are the words of whoever packed.
function checkCustody({ type, entries }, receipts, schedule) {
  const names = ["at", "at_local", "who", "role", "action", "object", "sha256_before", "sha256_after", "reason", "tool"];
  if (type !== "daybook.custody/1" || !Array.isArray(entries) || !entries.length) fail("custody log: no entries, or of another type");
  if (!entries.every((each) => hasExactly(each, names))) fail("custody log: an entry not of its shape");
  const last = entries.at(-1);
  if (last.action !== "packed" || last.sha256_after !== schedule) fail("custody log: it does not end in the packing of this hash schedule");
  if (!entries.slice(0, -1).some((each) => each.action === "gathered" && each.sha256_after === receipts)) {
    fail("custody log: it does not tell of the gathering of these receipts");
  }
}

async function checkConsistency(state, index, { type, proofs }) {
  if (type !== "daybook.consistency/1" || !Array.isArray(proofs) || !proofs.length) fail("of another type, or without a proof");
  for (const proof of proofs) {
    const { register, first, second, hashes } = proof ?? {};
    const strings = Array.isArray(hashes) && hashes.every((each) => typeof each === "string");
    if (!hasExactly(proof, ["register", "first", "second", "hashes"]) || typeof register !== "string" || !strings) {
      fail("a proof not of its shape");
    }
    if (!isUint(first) || !isUint(second)) fail("a proof without sizes");
    const origin = `${index.ledger_origin}/${register}`;
    const [one, other] = [state.seen(origin, BigInt(first)), state.seen(origin, BigInt(second))];
    const path = hashes.map((each) => unbase64(each, 32));
    await verifyConsistency(one.size, other.size, one.root, other.root, path);
    state.step(one, other);
  }
}

// Who packed: a note over both tag manifests, by the key that the bag names. Whose key that is, the reader knows.
async function checkSignature(bag, state, result, report) {
  const stated = bag.info.get("Packed-By-Key");
  const there = bag.files.has(SIGNATURE);
  if (stated === undefined && !there) return;
  await bag.guarded(SIGNATURE, async () => {
    if (!there) fail("missing: the pack is not signed, or its signature was taken away");
    if (stated === undefined) fail("bag-info names no Packed-By-Key");
    const key = await parseVkey(stated);
    const note = textOf(await bag.raw(SIGNATURE), "signature");
    const opened = await openNote(state, note, [key]);
    const lines = ["daybook.evidence-signature/1", result.identifier, result.variant];
    for (const [algorithm, name] of Object.entries(ALGORITHMS)) {
      const file = `tagmanifest-${algorithm}.txt`;
      lines.push(`${algorithm} ${hex(await digest(name, await bag.raw(file)))} ${file}`);
    }
    if (opened.text !== lines.map((line) => `${line}\n`).join("")) fail("the signed text is not of these tag manifests");
    if (opened.others || splitNote(note).lines.length !== 1) fail("a line beside the packer's signature");
    result.signer = stated;
  });
}
