// Which findings are about which exhibits, reckoned from the findings themselves as finding_links.py does.

const MAX_LINKS = 100_000;
const MAX_VISITS = 1_000_000;
const MAX_FINDINGS = 50_000;

const firstText = (value, names) => names.map((name) => own(value, name)).find((each) => typeof each === "string") ?? "";

function* listedFindings(at, value) {
  const findings = own(value, "findings");
  for (const [place, finding] of (Array.isArray(findings) ? findings : []).entries()) {
    if (!isObject(finding)) continue;
    yield [`${at}/findings/${place}`, firstText(finding, ["register"]) || firstText(value, ["register"]), finding];
  }
}

function* everyFinding(value) {
  yield* listedFindings("", value);
  const registers = own(value, "registers");
  for (const [place, register] of (Array.isArray(registers) ? registers : []).entries()) {
    yield* listedFindings(`/registers/${place}`, register);
  }
}

function* spansOf(finding) {
  const [indices, spans] = [own(finding, "indices"), own(finding, "spans")];
  for (const index of Array.isArray(indices) ? indices : []) if (isUint(index)) yield [index, index];
  for (const span of Array.isArray(spans) ? spans : []) {
    if (Array.isArray(span) && span.length === 2 && span.every(isUint) && span[0] <= span[1]) yield span;
  }
}

// The place of the first exhibit, of these sorted by index, whose index is at least `index`.
function firstFrom(sorted, index) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle].index < index) low = middle + 1;
    else high = middle;
  }
  return low;
}

function namedByFinding(at, finding, exhibits) {
  const stated = own(finding, "exhibits") ?? [];
  if (!Array.isArray(stated)) fail(`finding ${at}: its exhibits are no list`);
  return stated.map((each) => {
    const label = isObject(each) ? own(each, "label") : each;
    const sum = isObject(each) ? (own(each, "sha256") ?? null) : null;
    const found = exhibits.get(label);
    if (!found) fail(`finding ${at}: it names exhibit ${JSON.stringify(label)}, which is not in this pack`);
    if (sum !== null && sum !== found.sha256) fail(`finding ${at}: it states another digest of exhibit ${label}`);
    return label;
  });
}

// The findings about exhibits, as the index must list them. `exhibits` are the index's, held against their receipts.
function linkFindings(findings, { ledger_origin, register, exhibits }) {
  const stated = own(findings, "ledger");
  if (typeof stated === "string" && stated !== ledger_origin) fail(`findings of another ledger: ${stated}`);
  const byLabel = new Map(exhibits.map((exhibit) => [exhibit.label, exhibit]));
  const places = new Map(exhibits.map(({ label }, place) => [label, place]));
  const sorted = [...exhibits].sort((one, other) => one.index - other.index);
  const links = [];
  let [number, total, visits] = [0, 0, 0];
  for (const [at, of, finding] of everyFinding(findings)) {
    number += 1;
    if (number > MAX_FINDINGS) fail("too many findings");
    const named = new Set(namedByFinding(at, finding, byLabel));
    for (const [first, last] of of === register ? spansOf(finding) : []) {
      visits += 1;
      for (let place = firstFrom(sorted, first); place < sorted.length && sorted[place].index <= last; place += 1) {
        named.add(sorted[place].label);
        visits += 1;
      }
      if (visits > MAX_VISITS) fail("findings list too many entries");
    }
    total += named.size;
    if (total > MAX_LINKS) fail("findings name exhibits too often");
    if (!named.size) continue;
    links.push({
      label: `F/${links.length + 1}`,
      at,
      code: firstText(finding, ["detection", "code"]),
      says: firstText(finding, ["explanation", "what", "description"]),
      exhibits: [...named]
        .sort((one, other) => places.get(one) - places.get(other))
        .map((label) => ({ label, sha256: byLabel.get(label).sha256 })),
    });
  }
  return links;
}

// Sees that index and findings agree, both ways.
function checkLinks(links, index) {
  const listed = links.map(({ label, at, code, exhibits }) => ({ label, at, code, exhibits }));
  if (canonicalText(listed) !== canonicalText(index.findings)) fail("its findings are not those that are about these exhibits");
  const found = new Map(index.exhibits.map(({ label }) => [label, []]));
  for (const link of links) for (const { label } of link.exhibits) found.get(label).push(link.label);
  for (const exhibit of index.exhibits) {
    if (canonicalText(exhibit.findings) !== canonicalText(found.get(exhibit.label))) {
      fail(`exhibit ${exhibit.label}: its findings are not those that are about it`);
    }
  }
}
