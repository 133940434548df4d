// The page: takes files, shows what was found. Text from a pack goes into text nodes alone.

const MARKS = { red: "\u2716", amber: "\u25b2", green: "\u2714" };
const chosen = { source: null, policy: null, run: 0 };
const at = (id) => document.getElementById(id);

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = visible(text);
  made.append(...children);
  return made;
}

function showVerdict(verdict, text, explanation = "") {
  at("result").dataset.verdict = verdict;
  at("verdict").textContent = visible(MARKS[verdict] ? `${MARKS[verdict]} ${text}` : text);
  at("explanation").textContent = visible(explanation);
}

function clear() {
  for (const id of ["faults", "facts", "exhibits"]) at(id).hidden = true;
  for (const id of ["fault-list", "facts", "exhibit-list"]) at(id).replaceChildren();
}

async function check() {
  if (!chosen.source) return;
  chosen.run += 1;
  const { run } = chosen;
  clear();
  showVerdict("working", "Checking\u2026");
  at("progress").hidden = false;
  at("progress").value = 0;
  const progress = (done, all) => {
    if (run === chosen.run) at("progress").value = done / all;
  };
  let result;
  try {
    const source = await chosen.source();
    result = await checkPack(source, chosen.policy, Math.floor(Date.now() / 1000), progress);
  } catch (error) {
    const text = error instanceof Fault ? error.message : `this page failed: ${error}`;
    result = { faults: [{ exhibit: null, file: "", text }], exhibits: [], ed25519: true };
  }
  if (run !== chosen.run) return;
  at("progress").hidden = true;
  show(result);
}

function show(result) {
  const { faults, exhibits } = result;
  if (faults.length) showFaults(faults);
  else if (!result.ed25519 || result.unchecked) {
    showVerdict(
      "amber",
      "Signatures were not checked: this browser has no Ed25519.",
      "Every file is as the manifests say and the hashes agree, but nothing shows who signed them. Use a newer browser, or daybook verify.",
    );
  } else if (!chosen.policy) {
    showVerdict(
      "amber",
      "Consistent with these keys: the keys that came with the pack.",
      "Everything in the pack agrees with itself. Whether the keys are the right ones is not known: load your own policy file.",
    );
  } else {
    showVerdict(
      "green",
      `Verified under your policy: ${exhibits.length} exhibit${exhibits.length === 1 ? "" : "s"}.`,
      result.policy.root === null
        ? "Your policy asks for no witness: nobody but the ledger vouches for this history, nor for any time."
        : "Each exhibit stands in the register, signed and witnessed by keys that you trust, at the times that are shown.",
    );
  }
  showFacts(result);
  const stated = new Map(exhibits.map(({ label }) => [label, []]));
  for (const link of faults.length ? [] : result.links) for (const { label } of link.exhibits) stated.get(label)?.push(link);
  for (const exhibit of exhibits) at("exhibit-list").append(exhibitArticle(exhibit, stated.get(exhibit.label)));
  at("exhibits").hidden = !exhibits.length;
}

function showFaults(faults) {
  const labels = [...new Set(faults.map((fault) => fault.exhibit).filter(Boolean))];
  const files = [...new Set(faults.map((fault) => fault.file || "the pack"))];
  const named = labels.length ? `exhibit ${labels.slice(0, 8).join(", ")}` : files.slice(0, 4).join(", ");
  showVerdict("red", `Does NOT verify: ${named}`, "Keep the pack as it is. It may be damaged, or evidence of a forgery.");
  for (const fault of faults) {
    const where = `${fault.exhibit ? `Exhibit ${fault.exhibit}, ` : ""}${fault.file || "the pack"}: `;
    at("fault-list").append(element("li", where + fault.text));
  }
  at("faults").hidden = false;
}

function showFacts(result) {
  const facts = [
    ["Pack", result.identifier && `${result.identifier}, ${result.variant} variant`],
    ["Judged by", result.policy && `${chosen.policy ? "your policy" : "the policy in the pack"}, fingerprint ${result.policy.fingerprint}`],
    ["Made under", result.packFingerprint && `the policy with fingerprint ${result.packFingerprint}`],
    ["Files", result.files && `${result.files}, each compared with two manifests`],
    ["Checkpoints", result.checkpoints],
    ["Governing entries", result.keys],
    ["History", result.index && `${result.oneHistory ? "all checkpoints are" : "not"} proved to be of one history`],
    ["Keys", result.index && governingSaid(result)],
    ["Findings", result.hasFindings && `${result.links.length} are about these exhibits: statements of their author, and no proofs`],
    ["Packed by", result.signer ? `the key ${result.signer}: compare it with the packer's` : result.identifier && "not signed: who packed it is not shown"],
    ["Selection, as the packer says", result.index?.selection],
    ["From, as the packer says", result.index?.source],
    ["Not checked", result.identifier && "what report.txt and custody.json tell: the words of whoever packed"],
  ];
  for (const [name, value] of facts) {
    if (value) at("facts").append(element("dt", name), element("dd", String(value)));
  }
  at("facts").hidden = !at("facts").childElementCount;
}

function governingSaid({ fold }) {
  if (!fold) return "the governing register is not here as a whole: that no key was revoked is not proved";
  return `all ${fold.size} governing entries are here and were folded: a revocation after them is not known`;
}

function exhibitArticle({ label, verified, rendered, opened, digest: sum, authority }, links) {
  const article = element("article", "", element("h3", `Exhibit ${label}`));
  const list = element("dl");
  const text = (name) => (typeof own(verified.members, name) === "string" ? verified.members[name] : "not stated");
  const facts = [
    ["Record", `${text("record_id")}, version ${own(verified.members, "version") ?? "not stated"}, ${text("type")}`],
    ["SHA-256", sum],
    ["Place", `entry ${verified.index}, counted from 0, of ${verified.size} of ${verified.register}`],
    ["Signed", signedBy(verified, authority)],
    ["Key", authority?.text],
    ...(authority?.remarks ?? []).map((remark) => ["Remark", remark]),
    ["By when", byWhen(verified)],
    ["Anchored", verified.anchored && `entry ${verified.anchored.index} of the governing register`],
    ["Claimed", `accepted ${verified.entry.envelope.accepted_at} from ${verified.entry.envelope.submitter}: the ledger's word alone`],
    ...verified.findings.map((finding) => ["Finding", finding]),
    ...links.map((link) => [`Stated by ${link.label}`, `${[link.code, link.says.slice(0, 500)].filter(Boolean).join(": ") || "a finding without words"} (not a proof)`]),
  ];
  for (const [name, value] of facts) if (value) list.append(element("dt", name), element("dd", String(value)));
  article.append(list, folded(`What exhibit ${label} says`, rendered));
  if (opened.size) article.append(folded(`What was withheld from exhibit ${label}, and is disclosed`, renderOpened(opened)));
  return article;
}

function folded(title, text) {
  const details = element("details", "", element("summary", title));
  const block = element("pre", text);
  block.tabIndex = 0;
  block.setAttribute("role", "group");
  block.setAttribute("aria-label", title);
  details.append(block);
  return details;
}

function signedBy(verified, authority) {
  if (!verified.entry.membership) return "by nobody: the ledger wrote it itself";
  const keys = verified.entry.membership.signatures.map((each) => base64(each.key)).join(", ");
  if (verified.department === null) return `by ${keys}`;
  if (!verified.authorised && authority?.isProved) return `by ${verified.department}, key ${keys}`;
  if (!verified.authorised) return `by ${keys}, claimed to be a key of ${verified.department}`;
  return `by ${verified.department}, key ${keys}, authorised at governing entry ${verified.authorised.index}`;
}

function byWhen({ sealed, bounds }) {
  if (!sealed || bounds.notAfter === null) return "not witnessed: no time is proved";
  const said = `in the witnessed history by ${instant(bounds.notAfter)}`;
  const both = bounds.notBefore === null ? said : `${said}, and not before ${instant(bounds.notBefore)}`;
  return bounds.comparable ? both : `${both}; two quorums may share no witness: the two may not be compared`;
}

function choosePack(input, other, source) {
  at(other).value = "";
  chosen.source = at(input).files.length ? source : null;
  chosen.run += 1;
  if (chosen.source) {
    check();
    return;
  }
  clear();
  at("progress").hidden = true;
  showVerdict("none", "No pack is chosen yet.");
}

at("zip").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  choosePack("zip", "folder", () => zipFiles(file));
});

at("folder").addEventListener("change", ({ target }) => {
  const files = [...target.files];
  choosePack("folder", "zip", async () => folderFiles(files));
});

// A browser is silent where the same file is chosen again, which may have changed meanwhile.
for (const id of ["zip", "folder", "policy"]) {
  at(id).addEventListener("click", ({ target }) => {
    target.value = "";
  });
}

at("policy").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  chosen.policy = null;
  at("policy-said").dataset.policy = "reading";
  let said = "No policy file of your own is loaded.";
  let loaded = "none";
  try {
    if (file && file.size > 1_000_000) fail("too long for a policy");
    if (file) chosen.policy = await parsePolicy(new Uint8Array(await file.arrayBuffer()));
    if (chosen.policy) loaded = "own";
    if (chosen.policy) said = `Your policy is loaded. Its fingerprint is ${chosen.policy.fingerprint}: compare it with the one you know.`;
  } catch (error) {
    loaded = "refused";
    said = `This is not a witness policy file: ${error instanceof Fault ? error.message : error}`;
  }
  at("policy-said").textContent = visible(said);
  at("policy-said").dataset.policy = loaded;
  check();
});
